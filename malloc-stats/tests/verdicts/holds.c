/* Brings about what lints are about. `holds MODE [ARGUMENT]` says what it knows as lines of a name
 * and a number, then `ready`, and goes on at each line it reads. Output needs no malloc. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define KIB 1024UL
#define MIB (1024 * KIB)
#define LARGE 300

static char output[4096], input[4096];

static void *block(size_t bytes) {
    void *p = malloc(bytes);
    if (!p) abort();
    return memset(p, 1, bytes);
}

static void say(const char *name, unsigned long number) { printf("%s %lu\n", name, number); }

static int go_on(void) {
    char line[16];
    puts("ready");
    fflush(stdout);
    return fgets(line, sizeof line, stdin) != NULL;
}

/* Freeing a block that has a mapping raises the mmap threshold to its size. */
static void raise_threshold(void) { free(block(31 * MIB)); }

/* A small block above `floor`, so that it is none that fills a hole below; if there is such, as
 * large blocks may have mappings far above. */
static void *above(void *floor) {
    void *p = NULL;
    for (int i = 0; i < 4096 && p <= floor; i++) p = block(24);
    return p;
}

/* 150 MiB in blocks of 512 KiB, freed below a pin of some sort. */
static void pinned(const char *how) {
    static void *blocks[LARGE];
    void *pin = NULL;
    raise_threshold();
    for (int i = 0; i < LARGE; i++) {
        blocks[i] = block(512 * KIB);
        if (!strcmp(how, "often")) pin = above(blocks[i]);
    }
    if (!pin && strcmp(how, "never")) pin = above(blocks[LARGE - 1]);
    if (!strcmp(how, "cached")) free(pin);
    if (strcmp(how, "held"))
        for (int i = 0; i < LARGE; i++) free(blocks[i]);
    if (!strcmp(how, "trimmed")) malloc_trim(0);
    say("freed", LARGE * 512 * KIB);
    say("pin", (unsigned long)pin);
}

static pthread_barrier_t done;

/* Touches `argument` KiB in blocks of 100 KiB, and frees them; below a pin if that is odd. */
static void *thread(void *argument) {
    size_t count = (size_t)argument / 100;
    void **blocks = block(count * sizeof *blocks);
    for (size_t i = 0; i < count; i++) blocks[i] = block(100 * KIB);
    if ((size_t)argument % 2) above(blocks[count - 1]);
    for (size_t i = 0; i < count; i++) free(blocks[i]);
    pthread_barrier_wait(&done);
    for (;;) pause();
}

static void threads(int number, size_t kibibytes) {
    pthread_t id;
    pthread_barrier_init(&done, NULL, number + 1);
    for (int i = 0; i < number; i++) pthread_create(&id, NULL, thread, (void *)kibibytes);
    pthread_barrier_wait(&done);
    say("freed", number * (kibibytes / 100) * 100 * KIB);
}

/* Small blocks of which the first of each `run` stays. */
static void scattered(int run) {
    enum { COUNT = 600000 };
    static void *blocks[COUNT];
    unsigned long freed = 0;
    for (int i = 0; i < COUNT; i++) blocks[i] = block(200);
    above(blocks[COUNT - 1]);
    for (int i = 0; i < COUNT; i++)
        if (i % run) free(blocks[i]), freed += 208;
    say("freed", freed);
}

/* More blocks of the largest size that is cached than a cache holds. */
static void cached(void) {
    enum { COUNT = 70000 };
    static void *blocks[COUNT];
    for (int i = 0; i < COUNT; i++) blocks[i] = block(1032);
    for (int i = 0; i < COUNT; i++) free(blocks[i]);
}

static void *scribble(void *at) {
    for (size_t i = 0;; i++) *(volatile size_t *)at = (0xdead0000 + 16 * i) | 1;
    return NULL;
}

/* Overwrites the header of a block, once or without end. */
static void corrupt(int again) {
    char *blocks[100];
    pthread_t id;
    for (int i = 0; i < 100; i++) blocks[i] = block(5000);
    size_t *header = (size_t *)blocks[50] - 1;
    say("chunk", (unsigned long)(header - 1));
    if (again)
        pthread_create(&id, NULL, scribble, header);
    else
        *header = 0x4141414141414141;
}

static char *map(int fd, size_t bytes) {
    int flags = fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
    char *at = mmap(NULL, bytes, fd < 0 ? PROT_READ | PROT_WRITE : PROT_READ, flags, fd, 0);
    if (at == MAP_FAILED) abort();
    return at;
}

static void touch(char *at, size_t bytes) {
    for (size_t i = 0; i < bytes; i += 4096) *(volatile char *)(at + i);
}

static void file(const char *how, const char *path) {
    struct stat stat;
    int fd = open(path, O_RDONLY);
    if (fd < 0 || fstat(fd, &stat)) abort();
    size_t size = stat.st_size;
    static char buffer[64 * KIB];
    if (!strcmp(how, "map")) map(fd, size);
    if (!strcmp(how, "touch")) touch(map(fd, size), size);
    if (!strcmp(how, "read"))
        while (read(fd, buffer, sizeof buffer) > 0) {}
    if (!strncmp(how, "copy", 4)) {
        char *to = block(size);
        for (ssize_t got; (got = read(fd, to, MIB)) > 0;) to += got;
        if (!strcmp(how, "copy-and-more")) block(size);
    }
}

static void step(const char *how) {
    static void *blocks[LARGE];
    if (!strcmp(how, "grow"))
        for (int i = 0; i < LARGE; i++) block(100 * KIB);
    if (!strcmp(how, "grow-free")) {
        for (int i = 0; i < LARGE; i++) blocks[i] = block(100 * KIB);
        above(blocks[LARGE - 1]);
        for (int i = 0; i < LARGE; i++) free(blocks[i]);
    }
    if (!strcmp(how, "grow-elsewhere"))
        memset(map(-1, LARGE * 100 * KIB), 1, LARGE * 100 * KIB);
}

int main(int count, char **arguments) {
    const char *mode = arguments[1], *argument = count > 2 ? arguments[2] : "0";
    setvbuf(stdout, output, _IOFBF, sizeof output);
    setvbuf(stdin, input, _IOFBF, sizeof input);
    block(24); /* So that there is a heap. */
    if (!strcmp(mode, "pinned")) pinned(argument);
    if (!strcmp(mode, "tops")) raise_threshold(), threads(2, 50000);
    if (!strcmp(mode, "arenas")) threads(12, 10001);
    if (!strcmp(mode, "risen-and-scattered")) raise_threshold(), scattered(atoi(argument));
    if (!strcmp(mode, "scattered")) scattered(atoi(argument));
    if (!strcmp(mode, "cached")) cached();
    if (!strcmp(mode, "corrupt")) corrupt(0);
    if (!strcmp(mode, "scribble")) corrupt(1);
    if (!strcmp(mode, "anonymous")) memset(map(-1, atol(argument)), 1, atol(argument));
    if (!strcmp(mode, "block")) block(atol(argument));
    if (count > 3 && !strcmp(mode, "file")) file(argument, arguments[3]);
    while (go_on()) step(mode);
    return 0;
}
