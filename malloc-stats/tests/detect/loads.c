/* Loads a library by its path: with "apart", into a namespace of its own. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv)
{
	int apart = argc > 2 && strcmp(argv[2], "apart") == 0;
	void *library = apart ? dlmopen(LM_ID_NEWLM, argv[1], RTLD_NOW | RTLD_LOCAL)
			      : dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
	puts(library ? "loaded" : dlerror());
	fflush(stdout);
	while (getchar() != EOF)
		;
	return 0;
}
