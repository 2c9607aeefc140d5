/* A program without any C library: nothing in it serves malloc. Waits until it is killed. */
void _start(void) {
    for (;;) {
        long pause = 34;
        __asm__ volatile("syscall" : "+a"(pause) : : "rcx", "r11", "memory");
    }
}
