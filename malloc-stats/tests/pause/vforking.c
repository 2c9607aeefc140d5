/* A process whose leader sleeps uninterruptibly, for the child of its vfork, until the standard
   input ends: vforking FILE. Another thread counts in slot 0 of FILE. */
#define _DEFAULT_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

static void *count(void *slot) {
    for (;;)
        ++*(volatile unsigned long *)slot;
    return slot;
}

int main(int argc, char **argv) {
    (void)argc;
    int file = open(argv[1], O_RDWR | O_CREAT, 0666);
    if (file < 0 || ftruncate(file, sizeof(unsigned long)))
        return 1;
    void *slot = mmap(NULL, sizeof(unsigned long), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    pthread_t thread;
    if (slot == MAP_FAILED || pthread_create(&thread, NULL, count, slot))
        return 1;
    puts("READY");
    fflush(stdout);
    if (vfork() == 0) {
        char byte;
        while (read(0, &byte, 1) > 0)
            ;
        _exit(0);
    }
    for (;;)
        pause();
}
