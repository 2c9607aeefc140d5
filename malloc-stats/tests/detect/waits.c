/* Allocates, says its C library's version where that is glibc, and waits until its input ends. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef __GLIBC__
#include <gnu/libc-version.h>
#endif

int main(int argc, char **argv)
{
	char *block = malloc(1 << 20);
	memset(block, argc, 1 << 20);
#ifdef __GLIBC__
	const char *version = gnu_get_libc_version();
#else
	const char *version = "none";
#endif
	printf("%s\n%d bytes\n", version, 1 << 20);
	fflush(stdout);
	while (getchar() != EOF)
		;
	free(block);
	return argv[0] == NULL;
}
