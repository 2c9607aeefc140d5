/* Writes over its environment, as programs do that change their title, and waits. */
#include <stdio.h>
#include <string.h>

extern char **environ;

int main(void)
{
	for (char **variable = environ; *variable; variable++)
		memset(*variable, 'x', strlen(*variable));
	puts("overwritten");
	fflush(stdout);
	while (getchar() != EOF)
		;
	return 0;
}
