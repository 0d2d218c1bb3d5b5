/*
 * What the C programs of the benchmarks share: the clock, errors as lines of JSON, latencies, sockets (plain
 * or, built with -DWITH_TLS, TLS) and lines from standard input. Linux only.
 */
#ifndef TIDEWIRE_BENCHMARKS_COMMON_H
#define TIDEWIRE_BENCHMARKS_COMMON_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#ifdef WITH_TLS
#include <openssl/err.h>
#include <openssl/ssl.h>
#endif

/* RFC 6455, section 1.3: the example key and the answer it must get */
#define WS_KEY "dGhlIHNhbXBsZSBub25jZQ=="
#define WS_ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

static inline uint64_t read_clock(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

__attribute__((format(printf, 1, 2), noreturn)) static inline void fail(const char *format, ...) {
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    for (char *p = text; *p; p++)
        if (*p == '"' || *p == '\\' || (unsigned char)*p < ' ') *p = ' ';
    printf("{\"event\":\"error\",\"error\":\"%s\"}\n", text);
    fflush(stdout);
    exit(1);
}

/* -------------------------------------------------------------- latencies */

/* 64 buckets per power of two of nanoseconds, about 1.5 percent wide */
enum { SUB_BITS = 6, SUB = 1 << SUB_BITS, BUCKETS = (64 - SUB_BITS) * SUB };

struct latencies {
    uint64_t count, max_ns;
    uint64_t buckets[BUCKETS];
};

static inline void record_latency(struct latencies *l, uint64_t ns) {
    int shift = ns < SUB ? 0 : 63 - SUB_BITS - __builtin_clzll(ns);
    l->buckets[shift <= 0 ? (int)ns : shift * SUB + (int)(ns >> shift)]++;
    l->count++;
    if (ns > l->max_ns) l->max_ns = ns;
}

static inline uint64_t bucket_top(int index) {
    if (index < 2 * SUB) return (uint64_t)index;
    int shift = index / SUB - 1;
    return ((uint64_t)(index - shift * SUB) + 1) << shift;
}

static inline uint64_t quantile(const struct latencies *l, double q) {
    uint64_t rank = (uint64_t)(q * (double)l->count), seen = 0;
    for (int i = 0; i < BUCKETS; i++) {
        seen += l->buckets[i];
        if (seen > rank) return bucket_top(i) < l->max_ns ? bucket_top(i) : l->max_ns;
    }
    return l->max_ns;
}

/* ,"latency_ns":{...},"histogram_ns":[[top of the bucket, how many], ...] */
static inline void print_latency(const struct latencies *l) {
    printf(",\"latency_ns\":{\"count\":%lu,\"p50\":%lu,\"p90\":%lu,\"p99\":%lu,\"p999\":%lu,\"max\":%lu}",
        l->count, quantile(l, .5), quantile(l, .9), quantile(l, .99), quantile(l, .999), l->max_ns);
    printf(",\"histogram_ns\":[");
    bool comma = false;
    for (int i = 0; i < BUCKETS; i++)
        if (l->buckets[i]) {
            printf("%s[%lu,%lu]", comma ? "," : "", bucket_top(i), l->buckets[i]);
            comma = true;
        }
    printf("]");
}

/* ---------------------------------------------------------------- sockets */

struct line {
    int fd;
#ifdef WITH_TLS
    SSL *ssl; /* NULL: plain */
#endif
};

/*
 * Begin to connect to 127.0.0.1:port, from 127.0.0.(2 + source) where source is not negative: many thousand
 * connections need the ports of several addresses.
 */
static inline int begin_connect(int port, int source, int receive_bytes) {
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0) fail("socket: %s", strerror(errno));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (receive_bytes) setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive_bytes, sizeof receive_bytes);
    if (source >= 0) {
        struct sockaddr_in from = {.sin_family = AF_INET};
        from.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1 + (uint32_t)source);
        setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
        if (bind(fd, (struct sockaddr *)&from, sizeof from) < 0) fail("bind: %s", strerror(errno));
    }
    if (connect(fd, (struct sockaddr *)&to, sizeof to) < 0 && errno != EINPROGRESS) fail("connect: %s", strerror(errno));
    return fd;
}

/* Fails when the connection could not be made. */
static inline void check_connected(int fd) {
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error) fail("connect: %s", strerror(error));
}

#ifdef WITH_TLS
/* Like recv and send: -1 with errno EAGAIN when it would have to wait. */
static inline ssize_t line_result(struct line *l, int count) {
    if (count > 0) return count;
    int error = SSL_get_error(l->ssl, count);
    if (error == SSL_ERROR_ZERO_RETURN) return 0;
    errno = error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE ? EAGAIN : ECONNRESET;
    return -1;
}
#endif

static inline ssize_t line_recv(struct line *l, void *into, size_t size) {
#ifdef WITH_TLS
    if (l->ssl) return line_result(l, SSL_read(l->ssl, into, (int)size));
#endif
    return recv(l->fd, into, size, 0);
}

static inline ssize_t line_send(struct line *l, const void *from, size_t size) {
#ifdef WITH_TLS
    if (l->ssl) return line_result(l, SSL_write(l->ssl, from, (int)size));
#endif
    return send(l->fd, from, size, MSG_NOSIGNAL);
}

static inline void raise_open_files(int wanted) {
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    if (files.rlim_cur < (rlim_t)wanted + 16) fail("the limit of open files is %lu: raise it", (unsigned long)files.rlim_cur);
}

/* --------------------------------------------------------------- commands */

/* Hands every line that standard input holds to on_line; ends the process with the input. */
static inline void read_lines(void (*on_line)(char *line)) {
    static char text[1024];
    static size_t have;
    ssize_t count = read(STDIN_FILENO, text + have, sizeof text - 1 - have);
    if (count < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (count <= 0) exit(0);
    have += (size_t)count;
    text[have] = 0;
    for (char *newline; (newline = strchr(text, '\n'));) {
        *newline = 0;
        on_line(text);
        have -= (size_t)(newline + 1 - text);
        memmove(text, newline + 1, have + 1);
    }
}

#endif
