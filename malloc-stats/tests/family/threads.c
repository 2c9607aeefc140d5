/* A process whose second thread forks, and says the number of the child. With an argument its first
   thread ends then. All of it ends with the standard input. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char held[32 << 20];

static void wait_for_the_end(void) {
    char byte;
    while (read(0, &byte, 1) > 0)
        ;
    _exit(0);
}

static void *fork_here(void *nothing) {
    memset(held, 1, sizeof held);
    pid_t child = fork();
    if (child == 0)
        wait_for_the_end();
    printf("%d\n", (int)child);
    fflush(stdout);
    wait_for_the_end();
    return nothing;
}

int main(int argc, char **argv) {
    (void)argv;
    pthread_t thread;
    if (pthread_create(&thread, NULL, fork_here, NULL))
        return 1;
    if (argc > 1)
        pthread_exit(NULL);
    pthread_join(thread, NULL);
    return 0;
}
