/* delaytun NAMESPACE NAMESPACE DELAY_MS: joins two network namespaces by a TUN device in each, and brings every packet
 * from one to the other after the delay, in both directions, as netem would; not every kernel has netem. It says
 * "ready" when both devices are there, and ends with its parent.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#define PACKETS 4096
#define LARGEST 9100
#define NS_PER_S 1000000000LL

struct packet {
    struct timespec due;
    ssize_t size;
    char data[LARGEST];
};

struct direction {
    int in, out;
    long long delay_ns;
    sem_t filled, empty;
    struct packet packets[PACKETS];
};

static void fail(const char *what) {
    fprintf(stderr, "delaytun: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int open_device(const char *namespace) {
    char path[256];
    snprintf(path, sizeof path, "/var/run/netns/%s", namespace);
    int inside = open(path, O_RDONLY | O_CLOEXEC);
    if (inside < 0 || setns(inside, CLONE_NEWNET)) fail(path);
    close(inside);
    struct ifreq request = {.ifr_flags = IFF_TUN | IFF_NO_PI};
    strcpy(request.ifr_name, "delay");
    int device = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    if (device < 0 || ioctl(device, TUNSETIFF, &request)) fail("/dev/net/tun");
    return device;
}

static void *take(void *argument) {
    struct direction *way = argument;
    for (size_t i = 0;; i = (i + 1) % PACKETS) {
        struct packet *packet = &way->packets[i];
        while (sem_wait(&way->empty)) {}
        while ((packet->size = read(way->in, packet->data, LARGEST)) <= 0)
            if (errno != EINTR && errno != EIO) fail("read"); /* EIO: the device is not up yet */
            else usleep(1000);
        clock_gettime(CLOCK_MONOTONIC, &packet->due);
        long long due = packet->due.tv_nsec + way->delay_ns;
        packet->due.tv_sec += due / NS_PER_S;
        packet->due.tv_nsec = due % NS_PER_S;
        sem_post(&way->filled);
    }
    return NULL;
}

static void *give(void *argument) {
    struct direction *way = argument;
    prctl(PR_SET_TIMERSLACK, 1000);
    for (size_t i = 0;; i = (i + 1) % PACKETS) {
        struct packet *packet = &way->packets[i];
        while (sem_wait(&way->filled)) {}
        while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &packet->due, NULL) == EINTR) {}
        /* a packet that is not taken is lost, as on any network */
        if (write(way->out, packet->data, packet->size) < 0 && errno == EBADF) fail("write");
        sem_post(&way->empty);
    }
    return NULL;
}

int main(int count, char **words) {
    if (count != 4) return 2;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    int one = open_device(words[1]), other = open_device(words[2]);
    for (int i = 0; i < 2; i++) {
        struct direction *way = calloc(1, sizeof *way);
        if (!way) fail("memory");
        way->in = i ? other : one;
        way->out = i ? one : other;
        way->delay_ns = (long long)(atof(words[3]) * 1e6);
        sem_init(&way->filled, 0, 0);
        sem_init(&way->empty, 0, PACKETS);
        pthread_t thread;
        if (pthread_create(&thread, NULL, take, way) || pthread_create(&thread, NULL, give, way)) fail("thread");
    }
    puts("ready");
    fflush(stdout);
    for (;;) pause();
}
