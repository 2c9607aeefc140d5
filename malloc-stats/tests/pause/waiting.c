/* A thread for each of many calls that block. For each line of its standard input it prints what
   became of each call: `NAME blocked`, `NAME EINTR`, `NAME absent` where the kernel has it not, or
   `NAME` and what it returned. The last line is `.`. Ends when its standard input does. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/aio_abi.h>
#include <linux/io_uring.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { ABSENT = -2 };

static int semaphores, messages, pipes[2];
static const struct timespec hour = {.tv_sec = 3600};
static const struct timeval hour_val = {.tv_sec = 3600};

static long epoll_wait_(void) {
    struct epoll_event event;
    return epoll_wait(epoll_create1(0), &event, 1, -1);
}
static long epoll_pwait_(void) {
    struct epoll_event event;
    sigset_t none;
    sigemptyset(&none);
    return epoll_pwait(epoll_create1(0), &event, 1, 3600000, &none);
}
static long semop_(void) {
    struct sembuf take = {.sem_op = -1};
    return semop(semaphores, &take, 1);
}
static long semtimedop_(void) {
    struct sembuf take = {.sem_op = -1};
    return semtimedop(semaphores, &take, 1, &hour);
}
static long sigtimedwait_(void) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    return sigtimedwait(&set, NULL, &hour);
}
static long sigwaitinfo_(void) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    return sigwaitinfo(&set, NULL);
}
static int socket_of_pair(void) {
    int pair[2];
    return socketpair(AF_UNIX, SOCK_STREAM, 0, pair) ? -1 : pair[0];
}
static long recv_(void) {
    char byte;
    return recv(socket_of_pair(), &byte, 1, 0);
}
static long recv_timeo(void) {
    char byte;
    int fd = socket_of_pair();
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &hour_val, sizeof hour_val);
    return recv(fd, &byte, 1, 0);
}
static long accept_timeo(void) {
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    struct sockaddr address = {.sa_family = AF_UNIX};
    if (bind(fd, &address, sizeof(sa_family_t)) || listen(fd, 1))
        return ABSENT;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &hour_val, sizeof hour_val);
    return accept(fd, NULL, NULL);
}
static long send_timeo(void) {
    static char block[1 << 16];
    int fd = socket_of_pair();
    while (send(fd, block, sizeof block, MSG_DONTWAIT) > 0)
        ;
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &hour_val, sizeof hour_val);
    return send(fd, block, sizeof block, 0);
}
static long io_getevents_(void) {
    aio_context_t context = 0;
    struct io_event event;
    if (syscall(SYS_io_setup, 1, &context))
        return ABSENT;
    return syscall(SYS_io_getevents, context, 1, 1, &event, NULL);
}
static long io_uring_enter_(void) {
    struct io_uring_params parameters = {0};
    int ring = syscall(SYS_io_uring_setup, 1, &parameters);
    if (ring < 0)
        return ABSENT;
    return syscall(SYS_io_uring_enter, ring, 0, 1, IORING_ENTER_GETEVENTS, NULL, 0);
}
static long poll_(void) { return poll(NULL, 0, -1); }
static long select_(void) { return select(0, NULL, NULL, NULL, NULL); }
static long read_pipe(void) {
    char byte;
    return read(pipes[0], &byte, 1);
}
static long read_eventfd(void) {
    unsigned long count;
    return read(eventfd(0, 0), &count, sizeof count);
}
static long read_inotify(void) {
    char event[4096];
    return read(inotify_init1(0), event, sizeof event);
}
static long nanosleep_(void) { return nanosleep(&hour, NULL); }
static long sem_wait_(void) {
    sem_t never;
    sem_init(&never, 0, 0);
    return sem_wait(&never);
}
static long sem_timedwait_(void) {
    sem_t never;
    struct timespec then;
    sem_init(&never, 0, 0);
    clock_gettime(CLOCK_REALTIME, &then);
    then.tv_sec += 3600;
    return sem_timedwait(&never, &then);
}
static long wait4_(void) {
    pid_t child = fork();
    if (child == 0) {
        char byte;
        close(pipes[1]);
        while (read(pipes[0], &byte, 1) > 0)
            ;
        _exit(0);
    }
    return wait4(child, NULL, 0, NULL);
}
static long msgrcv_(void) {
    struct {
        long type;
        char byte;
    } message;
    return msgrcv(messages, &message, 1, 0, 0);
}
static long flock_(void) {
    FILE *file = tmpfile();
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fileno(file));
    FILE *again = fopen(path, "r");
    if (flock(fileno(file), LOCK_EX) || !again)
        return ABSENT;
    return flock(fileno(again), LOCK_EX);
}
static long pause_(void) { return pause(); }

static struct {
    const char *name;
    long (*call)(void);
    volatile long result;
    volatile int error, returned;
} calls[] = {
    {.name = "epoll_wait", .call = epoll_wait_},
    {.name = "epoll_pwait", .call = epoll_pwait_},
    {.name = "semop", .call = semop_},
    {.name = "semtimedop", .call = semtimedop_},
    {.name = "sigtimedwait", .call = sigtimedwait_},
    {.name = "sigwaitinfo", .call = sigwaitinfo_},
    {.name = "recv+SO_RCVTIMEO", .call = recv_timeo},
    {.name = "accept+SO_RCVTIMEO", .call = accept_timeo},
    {.name = "send+SO_SNDTIMEO", .call = send_timeo},
    {.name = "io_getevents", .call = io_getevents_},
    {.name = "io_uring_enter", .call = io_uring_enter_},
    {.name = "recv", .call = recv_},
    {.name = "poll", .call = poll_},
    {.name = "select", .call = select_},
    {.name = "read(pipe)", .call = read_pipe},
    {.name = "read(eventfd)", .call = read_eventfd},
    {.name = "read(inotify)", .call = read_inotify},
    {.name = "nanosleep", .call = nanosleep_},
    {.name = "sem_wait", .call = sem_wait_},
    {.name = "sem_timedwait", .call = sem_timedwait_},
    {.name = "wait4", .call = wait4_},
    {.name = "msgrcv", .call = msgrcv_},
    {.name = "flock", .call = flock_},
    {.name = "pause", .call = pause_},
};
enum { CALLS = sizeof calls / sizeof *calls };

static void *wait_in(void *index) {
    size_t i = (size_t)index;
    calls[i].result = calls[i].call();
    calls[i].error = errno;
    calls[i].returned = 1;
    return NULL;
}

int main(void) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_BLOCK, &set, NULL);
    semaphores = semget(IPC_PRIVATE, 1, 0600);
    messages = msgget(IPC_PRIVATE, 0600);
    if (semaphores < 0 || messages < 0 || pipe2(pipes, O_CLOEXEC))
        return 1;
    for (size_t i = 0; i < CALLS; i++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, wait_in, (void *)i))
            return 1;
    }
    puts("READY");
    fflush(stdout);
    char line[64];
    while (fgets(line, sizeof line, stdin)) {
        for (size_t i = 0; i < CALLS; i++) {
            if (!calls[i].returned)
                printf("%s blocked\n", calls[i].name);
            else if (calls[i].result == ABSENT)
                printf("%s absent\n", calls[i].name);
            else if (calls[i].result == -1 && calls[i].error == EINTR)
                printf("%s EINTR\n", calls[i].name);
            else
                printf("%s %ld errno %d\n", calls[i].name, calls[i].result, calls[i].error);
        }
        puts(".");
        fflush(stdout);
    }
    semctl(semaphores, 0, IPC_RMID);
    msgctl(messages, IPC_RMID, NULL);
    exit(0);
}
