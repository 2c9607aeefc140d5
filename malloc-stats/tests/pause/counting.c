/* Counts on many threads into a file that others can read: counting FILE THREADS [leaderless].
   Slot 0: real-time signals received. Slot 1: the sum of their values. Then a slot per thread.
   Ends when its standard input does. */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static volatile unsigned long *slots;

static void received(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)context;
    __atomic_add_fetch(&slots[0], 1, __ATOMIC_SEQ_CST);
    __atomic_add_fetch(&slots[1], info->si_value.sival_int, __ATOMIC_SEQ_CST);
}

static void *count(void *slot) {
    for (;;)
        ++*(volatile unsigned long *)slot;
    return slot;
}

static void *until_closed(void *unused) {
    char byte;
    while (read(0, &byte, 1) > 0)
        ;
    exit(0);
    return unused;
}

int main(int argc, char **argv) {
    int threads = atoi(argv[2]);
    size_t length = (2 + threads) * sizeof *slots;
    int file = open(argv[1], O_RDWR | O_CREAT, 0666);
    if (file < 0 || ftruncate(file, length))
        return 1;
    slots = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (slots == MAP_FAILED)
        return 1;
    struct sigaction action = {.sa_sigaction = received, .sa_flags = SA_SIGINFO | SA_RESTART};
    if (sigaction(SIGRTMIN, &action, NULL))
        return 1;
    pthread_t thread;
    for (int i = 0; i < threads; i++)
        if (pthread_create(&thread, NULL, count, (void *)&slots[2 + i]))
            return 1;
    puts("READY");
    fflush(stdout);
    if (argc > 3 && strcmp(argv[3], "leaderless") == 0) {
        if (pthread_create(&thread, NULL, until_closed, NULL))
            return 1;
        pthread_exit(NULL);
    }
    until_closed(NULL);
}
