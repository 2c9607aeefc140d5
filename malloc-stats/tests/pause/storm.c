/* Threads that come and go at full speed: storm FILE storm|relay|exec.
   storm: four threads make short-lived ones, 64 at a time. relay: each of eight threads makes its successor and
   ends. exec: a thread that is not the leader executes the program anew, for ever.
   Slot 0 of FILE counts the births. Ends when its standard input does. */
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static volatile unsigned long *slots;
static char **arguments;
static pthread_attr_t detached;

static void born(void) { __atomic_add_fetch(&slots[0], 1, __ATOMIC_SEQ_CST); }

static int alive;

static void *live(void *unused) {
    born();
    __atomic_sub_fetch(&alive, 1, __ATOMIC_SEQ_CST);
    return unused;
}

static void *storm(void *unused) {
    pthread_t thread;
    for (;;) {
        while (__atomic_load_n(&alive, __ATOMIC_SEQ_CST) >= 64)
            sched_yield();
        __atomic_add_fetch(&alive, 1, __ATOMIC_SEQ_CST);
        while (pthread_create(&thread, &detached, live, NULL))
            usleep(100);
    }
    return unused;
}

static void *relay(void *unused) {
    pthread_t thread;
    born();
    while (pthread_create(&thread, &detached, relay, NULL))
        usleep(100);
    return unused;
}

static void *spin(void *unused) {
    for (volatile unsigned long turns = 0;; turns++)
        ;
    return unused;
}

static void *execute(void *unused) {
    born();
    execv("/proc/self/exe", arguments);
    return unused;
}

int main(int argc, char **argv) {
    (void)argc;
    arguments = argv;
    int file = open(argv[1], O_RDWR | O_CREAT, 0666);
    if (file < 0 || ftruncate(file, sizeof *slots))
        return 1;
    slots = mmap(NULL, sizeof *slots, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (slots == MAP_FAILED)
        return 1;
    close(file);
    pthread_attr_init(&detached);
    pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
    pthread_t thread;
    int executes = strcmp(argv[2], "exec") == 0;
    struct pollfd input = {.fd = 0, .events = POLLIN};
    if (executes && poll(&input, 1, 0) > 0)
        return 0;
    if (!executes || slots[0] == 0) {
        puts("READY");
        fflush(stdout);
    }
    for (int i = 0; i < (executes ? 3 : strcmp(argv[2], "relay") ? 4 : 8); i++)
        if (pthread_create(&thread, &detached,
                           executes ? spin : strcmp(argv[2], "relay") ? storm : relay, NULL))
            return 1;
    if (executes && pthread_create(&thread, &detached, execute, NULL))
        return 1;
    char byte;
    while (read(0, &byte, 1) > 0)
        ;
    exit(0);
}
