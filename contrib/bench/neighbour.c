/* The neighbour that a download must not disturb: a game server, reduced to what it waits for.
 *
 *   neighbour world FILE SECONDS   reads 4 KiB blocks, 80 % of them in a fifth of FILE, and prints
 *                                  p50, p99, p99.9 in microseconds and the share of FILE that is
 *                                  still in memory at the end
 *   neighbour copy PORT FILE       serves FILE over HTTP as Wings does, read and written 32 KiB at a
 *                                  time, one client after the other
 *   neighbour tick SECONDS         20 times per second 30 ms of work; prints the share of ticks that
 *                                  ended more than 10 ms late
 *
 * The first line of world and tick, "ready", comes once the world is in memory. In C: an interpreter's own pauses are
 * longer than what is measured. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define BLOCK 4096
#define READS_PER_TURN 20
#define TURN 1000000L /* ns */
#define TICK 50000000L
#define WORK 30000000L
#define LATE 10000000L

static void die(const char *what) {
    perror(what);
    exit(1);
}

static int64_t now(clockid_t clock) {
    struct timespec time;
    clock_gettime(clock, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static void sleep_until(int64_t when) {
    struct timespec time = {when / 1000000000, when % 1000000000};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, NULL);
}

static uint32_t random32(void) {
    static uint64_t state = 0x9e3779b97f4a7c15;
    state = state * 6364136223846793005u + 1442695040888963407u;
    return state >> 32;
}

static void ready(void) {
    puts("ready");
    fflush(stdout);
}

static double share_in_memory(int file, size_t size) {
    size_t pages = size / BLOCK, found = 0;
    unsigned char *map = malloc(pages);
    void *area = mmap(NULL, size, PROT_READ, MAP_SHARED, file, 0);
    if (area == MAP_FAILED || mincore(area, size, map))
        die("mincore");
    for (size_t page = 0; page < pages; page++)
        found += map[page] & 1;
    return (double)found / pages;
}

static int compare(const void *a, const void *b) {
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

static void world(const char *name, int seconds) {
    char block[BLOCK];
    struct stat stat;
    int file = open(name, O_RDONLY);
    if (file < 0 || fstat(file, &stat))
        die(name);
    uint32_t blocks = stat.st_size / BLOCK, hot = blocks / 5;
    /* Twice: what was read once only is the first to go, whoever runs beside. */
    for (int round = 0; round < 2; round++)
        for (uint32_t n = 0; n < blocks; n++)
            if (pread(file, block, BLOCK, (off_t)n * BLOCK) != BLOCK)
                die("pread");
    size_t turns = seconds * (1000000000L / TURN), count = 0;
    int32_t *times = malloc(turns * READS_PER_TURN * sizeof *times);
    ready();
    int64_t began = now(CLOCK_MONOTONIC), end = began + seconds * 1000000000LL;
    for (size_t turn = 0; turn < turns && now(CLOCK_MONOTONIC) < end; turn++) {
        sleep_until(began + turn * TURN);
        for (int n = 0; n < READS_PER_TURN; n++) {
            uint32_t at = random32() % 5 ? random32() % hot : random32() % blocks;
            int64_t before = now(CLOCK_MONOTONIC);
            if (pread(file, block, BLOCK, (off_t)at * BLOCK) != BLOCK)
                die("pread");
            times[count++] = now(CLOCK_MONOTONIC) - before;
        }
    }
    qsort(times, count, sizeof *times, compare);
    printf("p50 %.1f p99 %.1f p99.9 %.1f resident %.4f\n", times[count / 2] / 1e3,
           times[count * 99 / 100] / 1e3, times[count * 999 / 1000] / 1e3,
           share_in_memory(file, stat.st_size));
}

static void tick(int seconds) {
    long ticks = seconds * (1000000000L / TICK), late = 0;
    ready();
    int64_t began = now(CLOCK_MONOTONIC);
    for (long n = 0; n < ticks; n++) {
        int64_t due = began + n * TICK;
        sleep_until(due);
        int64_t work = now(CLOCK_THREAD_CPUTIME_ID) + WORK;
        while (now(CLOCK_THREAD_CPUTIME_ID) < work)
            ;
        late += now(CLOCK_MONOTONIC) > due + WORK + LATE;
    }
    printf("late %.4f\n", (double)late / ticks);
}

static void copy(int port, const char *name) {
    static char buffer[32 * 1024];
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 64))
        die("listen");
    signal(SIGPIPE, SIG_IGN);
    for (;;) {
        int client = accept(listener, NULL, NULL), file = open(name, O_RDONLY);
        struct stat stat;
        if (client < 0 || file < 0 || fstat(file, &stat))
            die(name);
        ssize_t count = read(client, buffer, sizeof buffer);
        if (count > 0) {
            dprintf(client, "HTTP/1.1 200 OK\r\nContent-Length: %lld\r\nConnection: close\r\n\r\n",
                    (long long)stat.st_size);
            while ((count = read(file, buffer, sizeof buffer)) > 0)
                if (send(client, buffer, count, 0) != count)
                    break;
        }
        close(file);
        close(client);
    }
}

int main(int count, char **words) {
    if (count == 4 && !strcmp(words[1], "world"))
        world(words[2], atoi(words[3]));
    else if (count == 4 && !strcmp(words[1], "copy"))
        copy(atoi(words[2]), words[3]);
    else if (count == 3 && !strcmp(words[1], "tick"))
        tick(atoi(words[2]));
    else
        return fprintf(stderr, "usage: neighbour world FILE SECONDS | copy PORT FILE | tick SECONDS\n"), 2;
    return 0;
}
