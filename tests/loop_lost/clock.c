/* A clock for one program: put before it with LD_PRELOAD, it makes time jump and run faster, as a file says that the test writes.

   The file is four 64-bit numbers: version (odd while it is written), real monotonic nanoseconds at which the rest was said, nanoseconds that
   the program's monotonic clock is ahead, nanoseconds that its wall clock is ahead of that, and how many nanoseconds pass for each real one. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

struct said {
    volatile uint64_t version;
    volatile int64_t since, ahead, wall, rate;
};

static struct said *said;
/* Longest real sleep, in milliseconds: the rate may change meanwhile. */
static const int LONGEST = 20;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("CLOCK_FILE");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *at = mmap(0, sizeof *said, PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (at != MAP_FAILED) said = at;
}

static int64_t real(clockid_t which) {
    struct timespec now;
    syscall(SYS_clock_gettime, which, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static int64_t rate_now(void) {
    return said ? said->rate : 1;
}

int clock_gettime(clockid_t which, struct timespec *out) {
    int is_wall = which == CLOCK_REALTIME || which == CLOCK_REALTIME_COARSE;
    int is_mono = which == CLOCK_MONOTONIC || which == CLOCK_MONOTONIC_COARSE || which == CLOCK_BOOTTIME || which == CLOCK_MONOTONIC_RAW;
    if (!said || !(is_wall || is_mono)) return syscall(SYS_clock_gettime, which, out);
    uint64_t before;
    int64_t extra;
    do {
        before = __atomic_load_n(&said->version, __ATOMIC_ACQUIRE);
        extra = said->ahead + (real(CLOCK_MONOTONIC) - said->since) * (said->rate - 1) + (is_wall ? said->wall : 0);
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
    } while ((before & 1) || before != said->version);
    int64_t now = real(which) + extra;
    out->tv_sec = now / 1000000000LL;
    out->tv_nsec = now % 1000000000LL;
    return 0;
}

int gettimeofday(struct timeval *restrict out, void *restrict zone) {
    (void)zone;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    out->tv_sec = now.tv_sec;
    out->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}

/* A real wait in place of one of the program's, rounded up: to be woken too early is allowed, to spin is not wanted. */
static int shorter(int milliseconds) {
    if (milliseconds <= 0 && milliseconds != -1) return milliseconds;
    int64_t rate = rate_now();
    int64_t real_wait = milliseconds == -1 ? LONGEST : (milliseconds + rate - 1) / rate;
    return real_wait < LONGEST ? (int)real_wait : LONGEST;
}

int epoll_wait(int epoll, struct epoll_event *events, int most, int milliseconds) {
    if (!said) return syscall(SYS_epoll_pwait, epoll, events, most, milliseconds, NULL, 0);
    for (;;) {
        int found = syscall(SYS_epoll_pwait, epoll, events, most, shorter(milliseconds), NULL, 0);
        if (found != 0 || milliseconds != -1) return found;
    }
}

int nanosleep(const struct timespec *wanted, struct timespec *left) {
    int64_t wait = (wanted->tv_sec * 1000000000LL + wanted->tv_nsec) / rate_now();
    struct timespec real_wait = {wait / 1000000000LL, wait % 1000000000LL};
    return syscall(SYS_nanosleep, &real_wait, left);
}
