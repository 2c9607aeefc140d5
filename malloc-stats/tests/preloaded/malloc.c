/* A library that serves malloc and looks like jemalloc: it has mallctl. The blocks are glibc's own,
   which takes the other entry points (posix_memalign and so on) to the same heap. */
#include <stddef.h>

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void __libc_free(void *);

void *malloc(size_t size) { return __libc_malloc(size); }
void *calloc(size_t count, size_t size) { return __libc_calloc(count, size); }
void *realloc(void *block, size_t size) { return __libc_realloc(block, size); }
void free(void *block) { __libc_free(block); }

int mallctl(const char *name, void *old, size_t *old_len, void *new_value, size_t new_len) {
    (void)name, (void)old, (void)old_len, (void)new_value, (void)new_len;
    return 2; /* ENOENT */
}
