/* A target with a heap of every sort, which tells its own truth (truth.h) and waits.

       heap THREADS [NAME[=NUMBER]]…

   Every thread, the first among them, first allocates everything and only then frees: so no later
   malloc moves chunks from bins into its cache, and what the caches hold is known. Then all wait,
   and the first thread takes commands, a line each: again, trim, free KIND, exit. */
#include "options.h"

#include <pthread.h>
#include <sys/mman.h>
#include <sys/wait.h>

static pthread_barrier_t phase;
static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;
static __thread unsigned cached[64];

static struct block *allocate(const char *kind, int thread, size_t size) {
    struct block *block = record(kind, thread, malloc(size));
    block->address[0] = 1;
    return block;
}

static void release(struct block *block) {
    size_t class = (block->chunk - 17) / 16;
    int keeps = block->arena != MMAPPED && block->chunk <= 1040 && cached[class] < cache_count();
    block->state = keeps ? CACHED : FREED;
    if (keeps) {
        cached[class]++;
    }
    free(block->address);
}

/* Blocks that will be free, each with one behind that stays, so that no two join. */
static void allocate_apart(const char *kind, int thread, size_t size, size_t count) {
    for (size_t at = 0; at < count; at++) {
        allocate(kind, thread, size);
        allocate("apart", thread, 40);
    }
}

static void release_all(const char *kind, int thread) {
    int count = __atomic_load_n(&block_count, __ATOMIC_RELAXED);
    for (struct block *b = blocks; b < blocks + count; b++) {
        if (b->address && b->thread == thread && b->state == LIVE && !strcmp(b->kind, kind)) {
            release(b);
        }
    }
}

/* Beside the heap. */
static char **slots(size_t count) {
    void *memory = mmap(NULL, count * sizeof(char *), PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        fail("mmap");
    }
    return memory;
}

static unsigned next_random(unsigned *state) {
    return *state = *state * 1664525 + 1013904223;
}

/* Blocks that nobody records. */
static __thread struct {
    char **blocks;
    size_t count;
} many;

static void allocate_many(size_t mebibytes) {
    many.count = (mebibytes << 20) / 60000;
    many.blocks = slots(many.count + 1);
    for (size_t at = 0; at < many.count; at++) {
        many.blocks[at] = malloc(60000);
        many.blocks[at][0] = 1;
    }
}

static void allocate_and_delete_heaps(void) {
    allocate_many(option("deleted"));
    while (many.count > 0) {
        free(many.blocks[--many.count]);
    }
}

static void allocate_spread(int thread) {
    size_t left = (option("spread") << 20) / thread_count;
    unsigned state = thread + 1;
    many.blocks = slots(left / 64 + 1);
    while (left > 8192) {
        size_t size = 64 + (next_random(&state) >> 8) % 8000;
        many.blocks[many.count++] = memset(malloc(size), 7, size);
        left -= size;
    }
}

/* Of `spread` nine in ten; of `heaps` every third, so that there are holes in every heap. */
static void release_many(int thread) {
    unsigned state = thread + 1;
    for (size_t at = 0; at < many.count; at++) {
        if (given("spread") ? (next_random(&state) >> 8) % 10 > 0 : at % 3 == 0) {
            free(many.blocks[at]);
        }
    }
}

static void aligned(const char *kind, int thread, size_t alignment, size_t size) {
    void *block = NULL;
    if (posix_memalign(&block, alignment, size)) {
        fail("posix_memalign");
    }
    if (record(kind, thread, block)->arena != MMAPPED) {
        /* What was cut off may lie in a cache. */
        cached_all = recorded_all = 0;
    }
}

static void allocate_own_mappings(int thread) {
    allocate("mmapped", thread, 200 << 10);
    record("untouched", thread, malloc(1 << 20));
    record("untouched", thread, calloc(1, 300000));
    aligned("aligned", thread, 2 << 20, 3 << 20);
    aligned("aligned", thread, 1 << 14, 200000);
    record("moved", thread, realloc(malloc(300000), 3 << 20));
}

static void reshape(int thread) {
    for (size_t alignment = 64; alignment <= 65536; alignment *= 4) {
        aligned("aligned", thread, alignment, 5000);
    }
    record("shrunk", thread, realloc(malloc(60000), 20000));
    record("grown", thread, realloc(malloc(20000), 60000));
}

static void stage_allocate(int thread) {
    size_t more = cache_count() + 8;
    allocate_apart("tiny", thread, 24, more);
    allocate_apart("tiny", thread, 100, more);
    allocate_apart("small", thread, 500, more);
    allocate_apart("late", thread, 200, more);
    allocate_apart("late", thread, 1000, more);
    allocate_apart("large", thread, 3000, 4);
    allocate_apart("large", thread, 9000, 4);
    allocate_apart("large", thread, 30000, 3);
    allocate_apart("huge", thread, 70000, 2);
    allocate("kept", thread, 5000);
    allocate("kept", thread, 20000);
    record("untouched", thread, malloc(120000));
    record("untouched", thread, calloc(1, 100000));
    allocate_own_mappings(thread);
    if (given("heaps")) {
        recorded_all = 0;
        allocate_many(option("heaps"));
    }
    if (given("deleted")) {
        allocate_and_delete_heaps();
    }
    if (given("spread")) {
        cached_all = recorded_all = 0;
        allocate_spread(thread);
    }
    if (given("reshape")) {
        reshape(thread);
    }
}

/* The block right below the top: one behind it joins the top when it is freed. Holes are filled on
   the way. */
static void stage_pin(int thread) {
    pthread_mutex_lock(&one_at_a_time);
    for (int tries = 0; tries < 4096; tries++) {
        struct block *last = allocate("kept", thread, 24);
        free(malloc(BEHIND_PIN));
        if (below_top(last)) {
            last->kind = "pin";
            break;
        }
    }
    pthread_mutex_unlock(&one_at_a_time);
}

static void stage_release(int thread) {
    release_many(thread);
    /* A free chunk of 64 KiB empties the fastbins, so those come later. */
    release_all("huge", thread);
    release_all("large", thread);
    release_all("small", thread);
    /* Sorts what is free into small and large bins; too large for any cache. */
    allocate("kept", thread, 2500);
    allocate("kept", thread, 6000);
    release_all("late", thread);
    release_all("tiny", thread);
}

static void churn(unsigned state) {
    enum { SLOTS = 4096 };
    char **ring = slots(SLOTS);
    for (;;) {
        unsigned random = next_random(&state) >> 8;
        char **slot = &ring[random % SLOTS];
        free(*slot);
        size_t size = 16 + (next_random(&state) >> 8) % (random % 64 ? 2000 : 60000);
        *slot = malloc(size);
        **slot = 1;
    }
}

static void *work(void *argument) {
    int thread = (int)(intptr_t)argument;
    stage_allocate(thread);
    pthread_barrier_wait(&phase);
    stage_pin(thread);
    pthread_barrier_wait(&phase);
    stage_release(thread);
    pthread_barrier_wait(&phase);
    if (thread > 0 && given("churn")) {
        churn(thread);
    }
    while (thread > 0) {
        pause();
    }
    return NULL;
}

static void *give_up(void *argument) {
    int thread = (int)(intptr_t)argument;
    allocate_apart("left", thread, 300, 20);
    allocate_apart("left", thread, 5000, 20);
    allocate("stays", thread, 4000);
    /* All at once, so that no two get the same arena. */
    pthread_barrier_wait(&phase);
    for (struct block *b = blocks; b < blocks + block_count; b++) {
        if (b->thread == thread && !strcmp(b->kind, "left")) {
            b->state = FREED;
            free(b->address);
        }
    }
    return NULL;
}

static void start_and_exit(int count) {
    pthread_t threads[THREADS];
    cached_all = recorded_all = 0;
    pthread_barrier_init(&phase, NULL, count);
    for (int at = 0; at < count; at++) {
        /* Numbered apart from those that stay. */
        if (pthread_create(&threads[at], NULL, give_up, (void *)(intptr_t)(THREADS + at))) {
            fail("pthread_create");
        }
    }
    for (int at = 0; at < count; at++) {
        pthread_join(threads[at], NULL);
    }
    pthread_barrier_destroy(&phase);
    for (struct block *b = blocks; b < blocks + block_count; b++) {
        b->thread = -1;
    }
}

/* Empties the first thread's cache of what was freed before main, and keeps the blocks. */
static void drain_cache(void) {
    for (size_t size = 24; size <= 1032; size += 16) {
        for (int at = 0; at < 20; at++) {
            if (!malloc(size)) {
                fail("malloc");
            }
        }
    }
}

static void move_break(size_t times) {
    // malloc frees what was the top itself, and so perhaps into a cache.
    cached_all = 0;
    for (size_t at = 0; at < times; at++) {
        if (sbrk(10001 + 4096 * at) == (void *)-1) {
            fail("sbrk");
        }
        for (int block = 0; block < 12; block++) {
            allocate("kept", 0, 30000);
        }
    }
}

static void stop_break(void) {
    cached_all = 0;
    uintptr_t end = ((uintptr_t)sbrk(0) + 4095) & ~4095ul;
    void *page = mmap((void *)end, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE,
                      -1, 0);
    if (page != (void *)end || sbrk(1 << 20) != (void *)-1) {
        fail("the break cannot be stopped");
    }
    for (int block = 0; block < 100; block++) {
        allocate("kept", 0, 30000);
    }
}

static void open_second(void) {
#ifndef HEAP_STATIC
    void *library = dlmopen(LM_ID_NEWLM, "libc.so.6", RTLD_NOW);
    if (!library) {
        fail(dlerror());
    }
    void *(*their_malloc)(size_t) = (void *(*)(size_t))dlsym(library, "malloc");
    void (*their_free)(void *) = (void (*)(void *))dlsym(library, "free");
    second.wide = (struct numbers(*)(void))dlsym(library, "mallinfo2");
    second.narrow = (struct mallinfo(*)(void))dlsym(library, "mallinfo");
    static char *theirs[400];
    for (int at = 0; at < 400; at++) {
        theirs[at] = memset(their_malloc(100 + at * 20), 3, 100);
    }
    for (int at = 0; at < 400; at += 2) {
        their_free(theirs[at]);
    }
    cached_all = 0;
#endif
}

static void go_on_in_child(void) {
    pid_t child = fork();
    if (child < 0) {
        fail("fork");
    }
    if (child > 0) {
        waitpid(child, NULL, 0);
        _exit(0);
    }
}

static void release_kind(const char *kind) {
    cached_all = 0;
    for (struct block *b = blocks; b < blocks + block_count; b++) {
        if (b->state == LIVE && !strcmp(b->kind, kind)) {
            b->state = FREED;
            free(b->address);
        }
    }
}

/* Commands by read(2), one a call: their sender waits for the answer. */
static void obey(void) {
    char line[64];
    ssize_t length;
    while ((length = read(0, line, sizeof line - 1)) > 0) {
        line[length] = 0;
        line[strcspn(line, "\n")] = 0;
        if (!strcmp(line, "trim")) {
            tell_trim();
        } else if (!strncmp(line, "free ", 5)) {
            release_kind(line + 5);
            tell(thread_count);
        } else if (!strcmp(line, "again")) {
            tell(thread_count);
        } else {
            return;
        }
    }
}

int main(int count, char **arguments) {
    parse(count, arguments);
    if (given("large_cached")) {
        cached_all = recorded_all = 0;
    }
    tune();
    open_truth();
    drain_cache();
    if (given("given_up")) {
        start_and_exit((int)option("given_up"));
    }
    pthread_barrier_init(&phase, NULL, thread_count);
    for (int at = 1; at < thread_count; at++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, work, (void *)(intptr_t)at)) {
            fail("pthread_create");
        }
    }
    if (given("sbrk")) {
        move_break(option("sbrk"));
    }
    if (given("fence")) {
        stop_break();
    }
    work(NULL);
    if (given("raise")) {
        char *block = malloc(option("raise") << 20);
        raised_to = arena_of(block) == MMAPPED ? header(block) & ~7ul : 0;
        free(block);
    }
    if (given("dlmopen")) {
        open_second();
    }
    if (given("fork")) {
        go_on_in_child();
    }
    tell(thread_count);
    obey();
    return 0;
}
