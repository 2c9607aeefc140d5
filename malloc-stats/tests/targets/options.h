/* What the target is asked to do, and the settings that follow from it. */
#include "truth.h"

static int thread_count;
static size_t raised_to;

/* What to do beside the usual; 0 where not asked for. */
static struct {
    const char *name;
    size_t value;
    int given;
} options[] = {
    {"tcache", 0, 0},        /* What a cache keeps of each size, where tuned. */
    {"mxfast", 0, 0},        /* mallopt settings. */
    {"mmap_threshold", 0, 0},
    {"trim_threshold", 0, 0},
    {"top_pad", 0, 0},
    {"mmap_max", 0, 0},
    {"arena_max", 0, 0},
    {"reshape", 0, 0},       /* realloc and memalign inside of arenas. */
    {"raise", 0, 0},         /* Free so many MiB that were mmapped: the threshold rises. */
    {"sbrk", 0, 0},          /* Move the break so often behind malloc's back. */
    {"fence", 0, 0},         /* Stop the break: the main arena goes on elsewhere. */
    {"given_up", 0, 0},      /* So many threads allocate and exit first. */
    {"heaps", 0, 0},         /* So many MiB more in every thread, in 60 KiB blocks. */
    {"deleted", 0, 0},       /* The same, all freed again from the last to the first. */
    {"spread", 0, 0},        /* So many MiB in all in small blocks; of ten, nine are freed. */
    {"dlmopen", 0, 0},       /* A second C library with a heap of its own. */
    {"fork", 0, 0},          /* Go on in a child. */
    {"churn", 0, 0},         /* The other threads never rest. */
    {"large_cached", 0, 0},  /* Caches are tuned to keep large blocks: which, nobody knows. */
    {"huge", 0, 0},          /* glibc.malloc.hugetlb=NUMBER: what that does to settings, nobody knows. */
};

static size_t option(const char *name) {
    for (size_t at = 0; at < sizeof options / sizeof *options; at++) {
        if (!strcmp(options[at].name, name)) {
            return options[at].value;
        }
    }
    fail(name);
    return 0;
}

static int given(const char *name) {
    for (size_t at = 0; at < sizeof options / sizeof *options; at++) {
        if (!strcmp(options[at].name, name)) {
            return options[at].given;
        }
    }
    return 0;
}

/* By hand: strtol has other names under newer headers. */
static size_t number(const char *text) {
    size_t value = 0;
    for (; *text >= '0' && *text <= '9'; text++) {
        value = value * 10 + (*text - '0');
    }
    return value;
}

/* 41 of 2.41. */
static size_t minor(void) {
    return number(strchr(gnu_get_libc_version(), '.') + 1);
}

static size_t cache_count(void) {
    return given("tcache") ? option("tcache") : minor() >= 43 ? 16 : 7;
}

static void tune(void) {
    static const struct {
        const char *name;
        int parameter;
    } known[] = {{"mxfast", M_MXFAST},     {"mmap_threshold", M_MMAP_THRESHOLD},
                 {"top_pad", M_TOP_PAD},   {"trim_threshold", M_TRIM_THRESHOLD},
                 {"mmap_max", M_MMAP_MAX}, {"arena_max", M_ARENA_MAX}};
    for (size_t at = 0; at < sizeof known / sizeof *known; at++) {
        if (given(known[at].name) && !mallopt(known[at].parameter, (int)option(known[at].name))) {
            fail(known[at].name);
        }
    }
}

static void parse(int count, char **arguments) {
    thread_count = count > 1 ? (int)number(arguments[1]) : 0;
    if (thread_count < 1 || thread_count > THREADS) {
        fail("heap THREADS [NAME[=NUMBER]]...");
    }
    for (int at = 2; at < count; at++) {
        size_t length = strcspn(arguments[at], "=");
        size_t known = 0;
        while (known < sizeof options / sizeof *options &&
               (strncmp(options[known].name, arguments[at], length) || options[known].name[length])) {
            known++;
        }
        if (known == sizeof options / sizeof *options) {
            fail(arguments[at]);
        }
        options[known].given = 1;
        options[known].value = arguments[at][length] ? number(arguments[at] + length + 1) : 1;
    }
    /* glibc 2.35 to 2.41 align heaps to four huge pages. */
    if (option("huge") == 2 && minor() >= 35 && minor() < 42) {
        heap_max = (proc_number("/proc/meminfo", "\nHugepagesize:") << 10) * 4;
    }
}

static void say_settings(void) {
    size_t mmap_threshold = given("mmap_threshold") ? option("mmap_threshold") : 128 << 10;
    size_t trim_threshold = given("trim_threshold") ? option("trim_threshold") : 128 << 10;
    int set = given("mmap_threshold") || given("trim_threshold") || given("top_pad") ||
              given("mmap_max");
    if (raised_to && !set) {
        mmap_threshold = raised_to;
        trim_threshold = 2 * raised_to;
    }
    if (!given("huge")) {
        say("\"mmap_threshold\":%zu,\"trim_threshold\":%zu,\"top_pad\":%zu,\"dynamic\":%s,",
            mmap_threshold, trim_threshold, given("top_pad") ? option("top_pad") : 128 << 10,
            set ? "false" : "true");
    }
    say("\"mmap_max\":%zu,\"arena_max\":%zu,\"tcache_count\":%zu",
        given("mmap_max") ? option("mmap_max") : 65536, option("arena_max"), cache_count());
}
