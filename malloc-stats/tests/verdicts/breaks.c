/* Breaks malloc's own records, or never stops growing. `breaks MODE` prints `ready`, and waits. */
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define HEAP ((uintptr_t)64 << 20)

static pthread_mutex_t done = PTHREAD_MUTEX_INITIALIZER;
static void *first;

static void *allocate(void *unused) {
    for (int i = 0; i < 1000; i++) memset(first = malloc(1000), 1, 1000);
    pthread_mutex_unlock(&done);
    pause();
    return unused;
}

/* The link of a secondary arena to the main one: its only word that leads to memory of libraries,
 * which has the same upper bits as its heap, and not into the heap. */
static uintptr_t *ring_of(uintptr_t *arena, uintptr_t heap) {
    for (uintptr_t *word = arena + 1; word < arena + 0x120; word++)
        if (*word >> 40 == heap >> 40 && *word % 16 == 0 && *word - heap >= HEAP) return word;
    abort();
}

/* Splits fresh pages off the top, with one thread and so without a lock. */
static void grow(void) {
    static void *blocks[40000];
    for (;;) {
        /* So that no round has the addresses of another. */
        if (!malloc(1000)) abort();
        for (int i = 0; i < 40000; i++) blocks[i] = malloc(4000);
        for (int i = 0; i < 40000; i++) free(blocks[i]);
        malloc_trim(0);
    }
}

int main(int count, char **arguments) {
    const char *mode = count > 1 ? arguments[1] : "";
    if (!strcmp(mode, "grow")) {
        mallopt(M_MMAP_THRESHOLD, 1 << 30);
        puts("ready");
        fflush(stdout);
        grow();
    }
    pthread_t thread;
    pthread_mutex_lock(&done);
    pthread_create(&thread, NULL, allocate, NULL);
    pthread_mutex_lock(&done);
    uintptr_t *heap = (uintptr_t *)((uintptr_t)first & ~(HEAP - 1));
    uintptr_t *arena = (uintptr_t *)heap[0];
    if (!strcmp(mode, "ring-out")) *ring_of(arena, (uintptr_t)heap) = 0x4545454545454540;
    if (!strcmp(mode, "ring-itself")) *ring_of(arena, (uintptr_t)heap) = (uintptr_t)arena;
    if (!strcmp(mode, "heap-of-none")) heap[0] = 0xdead0000;
    if (!strcmp(mode, "heap-too-long")) heap[2] = UINTPTR_MAX / 2;
    puts("ready");
    fflush(stdout);
    pause();
    return 0;
}
