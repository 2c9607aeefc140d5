/* A malloc that is nobody's: it never frees. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

static unsigned char pool[64 << 20] __attribute__((aligned(16)));
static size_t taken;

void *malloc(size_t size)
{
	size_t at = __atomic_fetch_add(&taken, (size + 31) & ~(size_t)15, __ATOMIC_RELAXED);
	if (size > sizeof pool || at > sizeof pool - size - 32)
		return NULL;
	*(size_t *)(pool + at) = size;
	return pool + at + 16;
}

void free(void *block)
{
	(void)block;
}

void *calloc(size_t count, size_t size)
{
	return malloc(count * size);
}

void *realloc(void *old, size_t size)
{
	void *block = malloc(size);
	if (block && old) {
		size_t had = *(size_t *)((unsigned char *)old - 16);
		memcpy(block, old, had < size ? had : size);
	}
	return block;
}
