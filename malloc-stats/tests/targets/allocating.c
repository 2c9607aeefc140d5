/* Allocates and frees at full speed, for ever: allocating THREADS [LIVE_MIB [SEED]].
   Each thread keeps about LIVE_MIB (default 16) of blocks of mixed sizes, 16 B to 200 KiB and now
   and then a mmapped one, and replaces a random one at each step; now and then another thread frees
   it. So every kind of chunk comes and goes: tcache, fastbins, small, large and unsorted bins, top,
   mmapped, and blocks freed into a foreign arena.
   Prints READY when each thread holds its blocks; for a line of its standard input the steps so
   far, as {"steps":N}; ends when that does. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* By this mean block of `size_of`, LIVE_MIB becomes a number of blocks. */
enum { MEAN_BLOCK = 5300, EXCHANGES = 64 };

struct worker {
    pthread_t thread;
    uint64_t random;
    size_t blocks;
    _Alignas(64) _Atomic uint64_t steps;
};

static _Atomic(void *) exchanged[EXCHANGES];
static atomic_uint filled;

/* xorshift64* */
static uint64_t next(uint64_t *state) {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * 0x2545F4914F6CDD1DULL >> 16;
}

/* Log-uniform within a class; most blocks are small, as in real programs. */
static size_t size_of(uint64_t *random) {
    uint64_t class = next(random) % 1000, lowest, doublings;
    if (class < 450)
        lowest = 16, doublings = 3; /* fastbins and tcache: 16 to 128 */
    else if (class < 800)
        lowest = 128, doublings = 3; /* tcache and small bins: 128 to 1 KiB */
    else if (class < 960)
        lowest = 1 << 10, doublings = 4; /* large bins: 1 to 16 KiB */
    else if (class < 999)
        lowest = 16 << 10, doublings = 3; /* 16 to 128 KiB */
    else
        return (128 << 10) + next(random) % (72 << 10); /* mmapped at the default threshold */
    size_t power = lowest << next(random) % doublings;
    return power + next(random) % power;
}

static void *block_of(uint64_t *random) {
    size_t size = size_of(random);
    unsigned char *block = malloc(size);
    if (!block) {
        perror("malloc");
        exit(1);
    }
    block[0] = block[size - 1] = (unsigned char)size;
    return block;
}

static void *work(void *of) {
    struct worker *worker = of;
    uint64_t random = worker->random;
    void **blocks = calloc(worker->blocks, sizeof *blocks);
    if (!blocks) {
        perror("calloc");
        exit(1);
    }
    for (size_t i = 0; i < worker->blocks; i++)
        blocks[i] = block_of(&random);
    atomic_fetch_add(&filled, 1);
    for (;;) {
        size_t i = next(&random) % worker->blocks;
        uint64_t how = next(&random) % 256;
        if (how == 0) {
            /* Whoever comes by next at that place frees it. */
            free(atomic_exchange(&exchanged[next(&random) % EXCHANGES], blocks[i]));
            blocks[i] = block_of(&random);
        } else if (how < 16) {
            size_t size = size_of(&random);
            void *moved = realloc(blocks[i], size);
            if (!moved) {
                perror("realloc");
                exit(1);
            }
            blocks[i] = moved;
        } else {
            free(blocks[i]);
            blocks[i] = block_of(&random);
        }
        atomic_fetch_add_explicit(&worker->steps, 1, memory_order_relaxed);
    }
    return NULL;
}

int main(int argc, char **argv) {
    unsigned count = argc > 1 ? strtoul(argv[1], NULL, 10) : 0;
    size_t live = (argc > 2 ? strtoul(argv[2], NULL, 10) : 16) << 20;
    uint64_t seed = argc > 3 ? strtoull(argv[3], NULL, 10) : 1;
    if (count == 0 || count > 1024 || live == 0) {
        fprintf(stderr, "usage: allocating THREADS [LIVE_MIB [SEED]]\n");
        return 2;
    }
    struct worker *workers = aligned_alloc(64, count * sizeof *workers);
    if (!workers)
        return 1;
    memset(workers, 0, count * sizeof *workers);
    for (unsigned i = 0; i < count; i++) {
        workers[i].random = (seed + i + 1) * 0x9E3779B97F4A7C15ULL;
        workers[i].blocks = live / MEAN_BLOCK + 1;
        if (pthread_create(&workers[i].thread, NULL, work, &workers[i]))
            return 1;
    }
    while (atomic_load(&filled) < count)
        usleep(1000);
    puts("READY");
    fflush(stdout);
    char line[64];
    while (fgets(line, sizeof line, stdin)) {
        uint64_t steps = 0;
        for (unsigned i = 0; i < count; i++)
            steps += atomic_load_explicit(&workers[i].steps, memory_order_relaxed);
        printf("{\"steps\":%llu}\n", (unsigned long long)steps);
        fflush(stdout);
    }
    _exit(0);
}
