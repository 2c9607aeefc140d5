/* Measures what looking on costs a program: mapper HEAP_MIB CHUNK_BYTES [SEED].
   It holds a heap of HEAP_MIB MiB in blocks whose chunks are of CHUNK_BYTES (every eighth freed
   again, so that there are bins), and meanwhile a thread maps 64 KiB to 1 MiB, touches each page and
   unmaps, over and over. Prints READY when the heap is there and the loop runs. For each line of its
   standard input it prints the times of a turn since the last line (or READY), as one line:
       {"turns":N,"seconds":S,"turns_per_s":R,"p50_us":A,"p90_us":B,"p99_us":C,"p999_us":D,"max_us":E}
   Percentiles are upper ends of the histogram's cells, at most 1.6 % too high; null where there was
   no turn. Ends when its standard input does. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

/* Each power of two in 64 cells. */
enum { FINE_BITS = 6, FINE = 1 << FINE_BITS, CELLS = (64 - FINE_BITS + 1) * FINE };

struct histogram {
    uint64_t turns, max, begun, cells[CELLS];
};

static struct histogram now;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static volatile int began;

static uint64_t nanoseconds(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static size_t cell_of(uint64_t value) {
    if (value < FINE)
        return value;
    int shift = 63 - __builtin_clzll(value) - FINE_BITS;
    return (size_t)(shift + 1) * FINE + ((value >> shift) - FINE);
}

/* The largest value of a cell. */
static uint64_t end_of(size_t cell) {
    if (cell < FINE)
        return cell;
    size_t shift = cell / FINE - 1;
    return ((cell % FINE + FINE + 1) << shift) - 1;
}

static void *map(void *seed) {
    uint64_t random = *(uint64_t *)seed;
    size_t page = sysconf(_SC_PAGESIZE);
    for (;;) {
        random ^= random << 13, random ^= random >> 7, random ^= random << 17;
        size_t length = ((64 << 10) + random % ((1024 - 64) << 10)) / page * page;
        uint64_t begin = nanoseconds();
        volatile char *region =
            mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (region == MAP_FAILED) {
            perror("mmap");
            exit(1);
        }
        for (size_t at = 0; at < length; at += page)
            region[at] = 1;
        munmap((void *)region, length);
        uint64_t took = nanoseconds() - begin;
        pthread_mutex_lock(&lock);
        now.turns++;
        now.cells[cell_of(took)]++;
        if (took > now.max)
            now.max = took;
        pthread_mutex_unlock(&lock);
        began = 1;
    }
    return NULL;
}

static void print_percentile(const struct histogram *histogram, const char *name, unsigned of_1000) {
    if (histogram->turns == 0) {
        printf(",\"%s\":null", name);
        return;
    }
    uint64_t rank = (histogram->turns * of_1000 + 999) / 1000, passed = 0;
    size_t cell = 0;
    for (; cell < CELLS - 1; cell++)
        if ((passed += histogram->cells[cell]) >= rank)
            break;
    uint64_t value = end_of(cell) < histogram->max ? end_of(cell) : histogram->max;
    printf(",\"%s\":%.3f", name, value / 1e3);
}

static void report(void) {
    static struct histogram taken;
    uint64_t time = nanoseconds();
    pthread_mutex_lock(&lock);
    taken = now;
    memset(&now, 0, sizeof now);
    now.begun = time;
    pthread_mutex_unlock(&lock);
    double seconds = (time - taken.begun) / 1e9;
    printf("{\"turns\":%llu,\"seconds\":%.6f,\"turns_per_s\":%.1f", (unsigned long long)taken.turns,
           seconds, taken.turns / seconds);
    print_percentile(&taken, "p50_us", 500);
    print_percentile(&taken, "p90_us", 900);
    print_percentile(&taken, "p99_us", 990);
    print_percentile(&taken, "p999_us", 999);
    if (taken.turns)
        printf(",\"max_us\":%.3f}\n", taken.max / 1e3);
    else
        printf(",\"max_us\":null}\n");
    fflush(stdout);
}

/* Blocks whose chunks, with their header of eight bytes, are of `chunk` bytes. */
static void hold_heap(size_t bytes, size_t chunk) {
    size_t count = bytes / chunk;
    void **blocks = mmap(NULL, count * sizeof *blocks + 1, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (blocks == MAP_FAILED) {
        perror("mmap");
        exit(1);
    }
    for (size_t i = 0; i < count; i++) {
        blocks[i] = malloc(chunk - 8);
        if (!blocks[i]) {
            perror("malloc");
            exit(1);
        }
        memset(blocks[i], 1, chunk - 8);
    }
    for (size_t i = 0; i < count; i += 8)
        free(blocks[i]);
    /* What is left stays reachable through the heap only, as nothing uses it. */
    munmap(blocks, count * sizeof *blocks + 1);
}

int main(int argc, char **argv) {
    size_t heap = argc > 2 ? strtoul(argv[1], NULL, 10) << 20 : 0;
    size_t chunk = argc > 2 ? strtoul(argv[2], NULL, 10) / 16 * 16 : 0;
    static uint64_t seed;
    seed = (argc > 3 ? strtoull(argv[3], NULL, 10) : 1) * 0x9E3779B97F4A7C15ULL + 1;
    if (chunk < 32) {
        fprintf(stderr, "usage: mapper HEAP_MIB CHUNK_BYTES(at least 32) [SEED]\n");
        return 2;
    }
    hold_heap(heap, chunk);
    pthread_t mapper;
    now.begun = nanoseconds();
    if (pthread_create(&mapper, NULL, map, &seed))
        return 1;
    while (!began)
        usleep(1000);
    puts("READY");
    fflush(stdout);
    pthread_mutex_lock(&lock);
    memset(&now, 0, sizeof now);
    now.begun = nanoseconds();
    pthread_mutex_unlock(&lock);
    char line[64];
    while (fgets(line, sizeof line, stdin))
        report();
    _exit(0);
}
