/* LD_PRELOAD: a disk that fails, a clock that is wrong.
 *
 * FAULT=call:what:path[:nth][;call:what:path...]
 *   call: open, read, write, fsync or rename; of files whose path contains `path`
 *   what: an errno by number; "half" and "end" (read: half of what was asked for, or nothing more); "slow" (50 ms)
 *   nth:  from which call on in a process (1 if not given)
 * CLOCK=seconds[:path]
 *   how far the clock is off, as soon as there is a file `path`; not the one that only counts on
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

static struct fault {
    char call[16], what[16], part[512];
    long first, seen;
} faults[16];
static int many;
static long off;
static char since[512];

__attribute__((constructor)) static void begin(void) {
    for (const char *told = getenv("FAULT"); told && many < 16; told = strchr(told, ';')) {
        struct fault *one = &faults[many++];
        told += *told == ';';
        one->first = 1;
        sscanf(told, "%15[^:]:%15[^:]:%511[^:;]:%ld", one->call, one->what, one->part, &one->first);
    }
    const char *clock_is = getenv("CLOCK");
    if (clock_is) sscanf(clock_is, "%ld:%511[^:]", &off, since);
}

/* Whether this call fails, or goes wrong: 0 no, 1 an error (errno is set), 2 half, 3 end. */
static int strikes(const char *name, const char *path) {
    for (struct fault *one = faults; path && one < faults + many; one++) {
        if (strcmp(name, one->call) || !strstr(path, one->part)) continue;
        if (__sync_add_and_fetch(&one->seen, 1) < one->first) continue;
        if (!strcmp(one->what, "half")) return 2;
        if (!strcmp(one->what, "end")) return 3;
        if (strcmp(one->what, "slow")) {
            errno = atoi(one->what);
            return 1;
        }
        struct timespec pause = {0, 50000000};
        nanosleep(&pause, NULL);
    }
    return 0;
}

/* Whether any fault is of this call: most programs need not look where their files are. */
static int concerns(const char *name) {
    for (int n = 0; n < many; n++)
        if (!strcmp(name, faults[n].call)) return 1;
    return 0;
}

static int strikes_fd(const char *name, int fd) {
    char link[64], path[4096];
    if (!concerns(name)) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, sizeof path - 1);
    if (size < 0) return 0;
    path[size] = 0;
    return strikes(name, path);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int opened(const char *path, int flags, va_list more, int (*real)(int, const char *, int, ...), int folder) {
    int mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, int) : 0;
    if (strikes("open", path)) return -1;
    return real(folder, path, flags, mode);
}

#define OPENAT(name) \
    int name(int folder, const char *path, int flags, ...) { \
        va_list more; va_start(more, flags); \
        int fd = opened(path, flags, more, REAL(openat), folder); \
        va_end(more); return fd; \
    }
#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        va_list more; va_start(more, flags); \
        int fd = opened(path, flags, more, REAL(openat), AT_FDCWD); \
        va_end(more); return fd; \
    }
OPEN(open) OPEN(open64) OPENAT(openat64)

ssize_t read(int fd, void *to, size_t size) {
    int how = strikes_fd("read", fd);
    if (how == 1) return -1;
    return how == 3 ? 0 : REAL(read)(fd, to, how == 2 && size > 1 ? size / 2 : size);
}

ssize_t write(int fd, const void *from, size_t size) {
    int how = strikes_fd("write", fd);
    if (how == 1) return -1;
    return REAL(write)(fd, from, how == 2 && size > 1 ? size / 2 : size);
}

int fsync(int fd) { return strikes_fd("fsync", fd) ? -1 : REAL(fsync)(fd); }

int rename(const char *from, const char *to) { return strikes("rename", to) ? -1 : REAL(rename)(from, to); }

static long shift(void) { return off && (!*since || !access(since, F_OK)) ? off : 0; }

int clock_gettime(clockid_t which, struct timespec *now) {
    static __typeof__(&clock_gettime) real;
    if (!real) real = REAL(clock_gettime);
    int code = real(which, now);
    if (!code && (which == CLOCK_REALTIME || which == CLOCK_REALTIME_COARSE)) now->tv_sec += shift();
    return code;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    int code = REAL(gettimeofday)(now, zone);
    if (!code) now->tv_sec += shift();
    return code;
}

time_t time(time_t *to) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (to) *to = now.tv_sec;
    return now.tv_sec;
}
