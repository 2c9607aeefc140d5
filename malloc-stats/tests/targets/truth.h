/* What a target says of its own heap, in one line of JSON.

   The numbers must still hold once they are printed: nothing here allocates. Everything is
   static, malloc_info writes through a stream whose buffer is static too, mallinfo comes last and
   is asked twice, and the line leaves through write(2). */
#define _GNU_SOURCE
#include <fcntl.h>
#include <gnu/libc-version.h>
#include <malloc.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#ifndef HEAP_STATIC
#include <dlfcn.h>
#endif

#define THREADS 64

enum state { LIVE, CACHED, FREED };

/* A block whose fate is known. */
struct block {
    char *address;
    size_t usable;
    size_t chunk; /* By its header, without the flags. */
    uintptr_t arena;
    const char *kind;
    int thread;
    enum state state;
};

/* Arenas are addresses; these two are none. */
#define MAIN_ARENA ((uintptr_t)0)
#define MMAPPED ((uintptr_t)1)

struct numbers {
    size_t arena, ordblks, smblks, hblks, hblkhd, usmblks, fsmblks, uordblks, fordblks, keepcost;
};

/* glibc before 2.33 has only mallinfo, which counts modulo 2^32. */
struct source {
    struct numbers (*wide)(void);
    struct mallinfo (*narrow)(void);
};

static struct block blocks[1 << 16];
static int block_count;
static char out[8 << 20];
static size_t out_length;
static char info[1 << 20];
static size_t info_length;
static FILE *info_stream;
static struct source own, second;
static size_t heap_max = 64 << 20;
/* Whether the blocks marked CACHED are all that threads' caches hold. */
static int cached_all = 1;
/* Whether the blocks are all that was allocated by threads other than the first. */
static int recorded_all = 1;
static unsigned sequence;

static void fail(const char *what) {
    perror(what);
    _exit(1);
}

static void say(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(out + out_length, sizeof out - out_length, format, arguments);
    va_end(arguments);
    if (length < 0 || (out_length += length) >= sizeof out) {
        fail("the line is too long");
    }
}

static void flush_line(void) {
    say("\n");
    for (size_t at = 0; at < out_length;) {
        ssize_t written = write(1, out + at, out_length - at);
        if (written < 0) {
            fail("write");
        }
        at += written;
    }
    out_length = 0;
}

static ssize_t info_write(void *cookie, const char *bytes, size_t length) {
    (void)cookie;
    if (info_length + length > sizeof info) {
        fail("malloc_info is too long");
    }
    memcpy(info + info_length, bytes, length);
    info_length += length;
    return length;
}

static struct numbers take(struct source from) {
    if (from.wide) {
        return from.wide();
    }
    struct mallinfo m = from.narrow();
    return (struct numbers){(unsigned)m.arena,    (unsigned)m.ordblks, (unsigned)m.smblks,
                            (unsigned)m.hblks,    (unsigned)m.hblkhd,  (unsigned)m.usmblks,
                            (unsigned)m.fsmblks,  (unsigned)m.uordblks, (unsigned)m.fordblks,
                            (unsigned)m.keepcost};
}

/* Before anything is counted: what is opened here allocates. */
static void open_truth(void) {
    static char buffer[1 << 16];
    info_stream = fopencookie(NULL, "w", (cookie_io_functions_t){.write = info_write});
    if (!info_stream || setvbuf(info_stream, buffer, _IOFBF, sizeof buffer)) {
        fail("fopencookie");
    }
#ifdef HEAP_STATIC
#if __GLIBC_PREREQ(2, 33)
    own.wide = (struct numbers(*)(void))(void (*)(void))mallinfo2;
#else
    own.narrow = mallinfo;
#endif
#else
    own.wide = (struct numbers(*)(void))dlsym(RTLD_DEFAULT, "mallinfo2");
    own.narrow = (struct mallinfo(*)(void))dlsym(RTLD_DEFAULT, "mallinfo");
#endif
    /* So that printing touches no new page. */
    memset(out, 1, sizeof out);
    memset(info, 1, sizeof info);
}

static size_t header(const char *block) {
    return ((const size_t *)block)[-1];
}

static uintptr_t arena_of(const char *block) {
    if (header(block) & 2) {
        return MMAPPED;
    }
    if (header(block) & 4) {
        return *(uintptr_t *)((uintptr_t)block & ~(heap_max - 1));
    }
    return MAIN_ARENA;
}

/* By any thread. */
static struct block *record(const char *kind, int thread, void *address) {
    if (!address) {
        fail(kind);
    }
    int at = __atomic_fetch_add(&block_count, 1, __ATOMIC_RELAXED);
    if (at >= (int)(sizeof blocks / sizeof *blocks)) {
        fail("too many blocks to record");
    }
    blocks[at] = (struct block){address,           malloc_usable_size(address), header(address) & ~7ul,
                                arena_of(address), kind,  thread, LIVE};
    return &blocks[at];
}

/* A block too large for any cache, unless caches are tuned; freed again behind a pin. */
#define BEHIND_PIN 2000

/* Whether nothing but the top lies behind. Of the main arena: a chunk of the size that mallinfo says,
   and no block above; which misses a top that lies below older parts of that arena. Of others: what
   ends at a page, is larger than a block that a cache may have kept, and is the last of its heap. */
static int below_top(const struct block *pin) {
    const char *top = pin->address + pin->chunk;
    size_t size = header(top) & ~7ul;
    uintptr_t span = heap_max;
    if (pin->arena == MAIN_ARENA) {
        if (size != take(own).keepcost) {
            return 0;
        }
        span = UINTPTR_MAX;
    } else if (size <= BEHIND_PIN + 16 || ((uintptr_t)top - 16 + size) % 4096 != 0) {
        return 0;
    }
    for (const struct block *b = blocks; b < blocks + block_count; b++) {
        /* Heaps are aligned to their span. */
        int near = span == UINTPTR_MAX || (uintptr_t)b->address / span == (uintptr_t)top / span;
        if (b->arena == pin->arena && near && b->address >= top) {
            return 0;
        }
    }
    return 1;
}

static void say_numbers(const char *name, struct numbers n) {
    say("\"%s\":{\"arena\":%zu,\"ordblks\":%zu,\"smblks\":%zu,\"hblks\":%zu,\"hblkhd\":%zu,"
        "\"usmblks\":%zu,\"fsmblks\":%zu,\"uordblks\":%zu,\"fordblks\":%zu,\"keepcost\":%zu},",
        name, n.arena, n.ordblks, n.smblks, n.hblks, n.hblkhd, n.usmblks, n.fsmblks, n.uordblks,
        n.fordblks, n.keepcost);
}

/* The settings that follow from what the target did: a list of JSON members. */
static void say_settings(void);

static void tell(int threads) {
    static const char *const states[] = {"live", "cached", "freed"};
    info_length = 0;
    malloc_info(0, info_stream);
    fflush(info_stream);
    struct numbers first = take(own), numbers = take(own);
    say("{\"pid\":%d,\"version\":\"%s\",\"sequence\":%u,\"stable\":%s,\"threads\":%d,", getpid(),
        gnu_get_libc_version(), sequence++,
        memcmp(&first, &numbers, sizeof first) ? "false" : "true", threads);
    say_numbers("mallinfo", numbers);
    if (second.wide || second.narrow) {
        say_numbers("second", take(second));
    }
    say("\"malloc_info\":\"");
    for (size_t at = 0; at < info_length; at++) {
        /* Older versions indent with tabs. */
        say(info[at] == '"' ? "\\\"" : "%c", info[at] < ' ' ? ' ' : info[at]);
    }
    say("\",\"cached_all\":%s,\"recorded_all\":%s,\"settings\":{", cached_all ? "true" : "false",
        recorded_all ? "true" : "false");
    say_settings();
    say("},\"blocks\":[");
    for (int at = 0; at < block_count; at++) {
        const struct block *b = &blocks[at];
        say("%s{\"address\":\"%p\",\"usable\":%zu,\"chunk\":%zu,\"arena\":\"0x%zx\",\"kind\":\"%s\","
            "\"thread\":%d,\"state\":\"%s\"}",
            at ? "," : "", (void *)b->address, b->usable, b->chunk, b->arena, b->kind, b->thread,
            states[b->state]);
    }
    say("],\"pins\":[");
    int pins = 0;
    for (int at = 0; at < block_count; at++) {
        if (!strcmp(blocks[at].kind, "pin") && blocks[at].state == LIVE && below_top(&blocks[at])) {
            say("%s%d", pins++ ? "," : "", at);
        }
    }
    say("]}");
    flush_line();
}

/* The number behind `name` in a file of /proc, which malloc has no part in. */
static size_t proc_number(const char *path, const char *name) {
    static char text[1 << 16];
    int file = open(path, O_RDONLY);
    ssize_t length = file < 0 ? -1 : read(file, text, sizeof text - 1);
    if (length < 0) {
        fail(path);
    }
    close(file);
    text[length] = 0;
    const char *at = strstr(text, name);
    if (!at) {
        fail(name);
    }
    at += strcspn(at, "0123456789");
    size_t number = 0;
    for (; *at >= '0' && *at <= '9'; at++) {
        number = number * 10 + (*at - '0');
    }
    return number;
}

static void tell_trim(void) {
    /* The page tables themselves, where statm may lag by some pages for each core. */
    size_t before = proc_number("/proc/self/smaps_rollup", "\nAnonymous:") << 10;
    size_t rss_before = proc_number("/proc/self/statm", " ") * sysconf(_SC_PAGESIZE);
    int returned = malloc_trim(0);
    size_t after = proc_number("/proc/self/smaps_rollup", "\nAnonymous:") << 10;
    size_t rss_after = proc_number("/proc/self/statm", " ") * sysconf(_SC_PAGESIZE);
    say("{\"returned\":%d,\"anonymous_before\":%zu,\"anonymous_after\":%zu,\"rss_before\":%zu,"
        "\"rss_after\":%zu}",
        returned, before, after, rss_before, rss_after);
    flush_line();
}
