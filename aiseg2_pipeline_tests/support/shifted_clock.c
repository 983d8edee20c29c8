/* Shifts the wall clock of a process by the seconds in the shared file $CLOCK_SHIFT. Waits that end at an absolute time
   of that clock, as gRPC's do, are given to the kernel as times of its own clock. Times of the other clocks are small. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t none, *shift = &none;

__attribute__((constructor)) static void map_shift(void) {
    const char *path = getenv("CLOCK_SHIFT");
    int file = path ? open(path, O_RDONLY) : -1;
    void *mapped = file < 0 ? MAP_FAILED : mmap(0, sizeof none, PROT_READ, MAP_SHARED, file, 0);
    if (mapped != MAP_FAILED) shift = mapped;
    if (file >= 0) close(file);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

int clock_gettime(clockid_t clock, struct timespec *now) {
    static __typeof__(&clock_gettime) real;
    if (!real) real = REAL(clock_gettime);
    int failed = real(clock, now);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += *shift;
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec precise;
    int failed = clock_gettime(CLOCK_REALTIME, &precise);
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return failed;
}

time_t time(time_t *result) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (result) *result = now.tv_sec;
    return now.tv_sec;
}

static struct timespec kernels(const struct timespec *end) {
    struct timespec kernels = *end;
    if (kernels.tv_sec > 1000000000) kernels.tv_sec -= *shift;
    return kernels;
}

int sem_timedwait(sem_t *restrict semaphore, const struct timespec *restrict end) {
    struct timespec at = kernels(end);
    return REAL(sem_timedwait)(semaphore, &at);
}

int pthread_cond_timedwait(pthread_cond_t *restrict condition, pthread_mutex_t *restrict mutex,
                           const struct timespec *restrict end) {
    struct timespec at = kernels(end);
    return REAL(pthread_cond_timedwait)(condition, mutex, &at);
}

long syscall(long number, ...) {
    __builtin_va_list list;
    __builtin_va_start(list, number);
    long a = __builtin_va_arg(list, long), b = __builtin_va_arg(list, long), c = __builtin_va_arg(list, long);
    long d = __builtin_va_arg(list, long), e = __builtin_va_arg(list, long), f = __builtin_va_arg(list, long);
    __builtin_va_end(list);
    struct timespec at;
    if (number == SYS_futex && (b & FUTEX_CMD_MASK) == FUTEX_WAIT_BITSET && (b & FUTEX_CLOCK_REALTIME) && d) {
        at = kernels((struct timespec *)d);
        d = (long)&at;
    }
    return REAL(syscall)(number, a, b, c, d, e, f);
}
