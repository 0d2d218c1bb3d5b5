/*
 * The load client of the benchmarks: opens many WebSocket or SSE connections to one topic and checks
 * and times every message that arrives. One thread, epoll, no allocation per message, no JSON parser,
 * so that it never becomes the bottleneck; it reports how much of its time it was busy to prove that. With
 * --spin it polls without ever sleeping, so that no send of the server pays for waking it up (clients on other
 * machines cost a server no wake-up either; in a virtual machine it is a third of the price of a small send).
 *
 * A message is JSON that holds "seq":<n> and, when latency is asked for, "t":<CLOCK_MONOTONIC ns> after it
 * (the time it should have been sent at, so that the numbers are free of coordinated omission).
 *
 * Talks by lines. To stdout, JSON:
 *   {"event":"ready",...}    every connection is open
 *   {"event":"phase",...}    what arrived since ready or since the last phase
 *   {"event":"error",...}    a connection could not be opened; the process ends with 1
 * From stdin:
 *   until LAST   end the phase once every connection has seen sequence number LAST, or nothing
 *                arrived for --idle-timeout seconds
 *   now          end the phase at once
 *   quit         (or end of input) end the process
 *
 * Linux only: epoll, TCP_INFO.
 */
#define _GNU_SOURCE
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

/* ------------------------------------------------------------------ state */

enum { READ_BYTES = 1 << 18, EVENTS_PER_WAIT = 512, MESSAGE_BYTES_MAX = 1 << 24 };

/* RFC 6455, section 1.3: the example key and the answer it must get */
#define WS_KEY "dGhlIHNhbXBsZSBub25jZQ=="
#define WS_ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

enum state { UNUSED, CONNECTING, SHAKING_HANDS, OPEN, CLOSED };

struct connection {
    int fd;
    enum state state;
    bool stalled;
    bool chunked;
    uint64_t last;          /* newest sequence number seen; 0: none yet */
    uint64_t phase_first;   /* first one of this phase; 0: none yet */
    uint64_t phase_count;
    uint64_t last_arrival_ns;
    /* an incomplete frame, line or chunk head kept for the next read */
    char *rest;
    size_t rest_bytes, rest_capacity;
    /* SSE: bytes of the current chunk still to come (-1: a chunk head is next, -2: its closing CRLF is) */
    int64_t chunk_left;
    /* SSE: the decoded text of an incomplete line */
    char *line;
    size_t line_bytes, line_capacity;
    bool event_is_message;  /* SSE: no "event:" line so far in this event */
    bool event_is_gap;
};

/* Latencies: 64 buckets per power of two of nanoseconds, about 1.5 percent wide. */
enum { SUB_BITS = 6, SUB = 1 << SUB_BITS, BUCKETS = (64 - SUB_BITS) * SUB };

static struct options {
    const char *host, *path;
    int port, connections, stalled, parallel;
    bool sse, newest_only, latency, spin;
    double idle_timeout_s;
    int stalled_receive_bytes;
} opt = {.host = "127.0.0.1", .path = "/", .parallel = 64, .idle_timeout_s = 10, .stalled_receive_bytes = 4096};

static struct phase {
    uint64_t started_ns, first_arrival_ns, last_arrival_ns;
    uint64_t messages, bytes, reads, gaps, missing, repeated, malformed, closed, told_gaps;
    uint64_t silence_max_ns, latency_max_ns, latency_count;
    uint64_t busy_ns;       /* spent on what arrived, waiting apart */
} phase;

static struct connection *connections;
static int total, opened, epoll_fd, done, closed_total, next_to_open;
static uint64_t until;      /* 0: the phase has no known end yet */
static uint64_t histogram[BUCKETS];
static int close_codes[5000];
static char buffer[READ_BYTES + MESSAGE_BYTES_MAX];
static uint64_t now_ns;

static uint64_t read_clock(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

__attribute__((format(printf, 1, 2), noreturn)) static void fail(const char *format, ...) {
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

static void keep(char **where, size_t *bytes, size_t *capacity, const char *from, size_t count) {
    if (count > *capacity) {
        *capacity = count < 256 ? 256 : count * 2;
        free(*where);
        if (!(*where = malloc(*capacity))) fail("out of memory");
    }
    if (count) memcpy(*where, from, count);
    *bytes = count;
}

/* --------------------------------------------------------------- messages */

static void record_latency(uint64_t sent_ns) {
    uint64_t ns = now_ns > sent_ns ? now_ns - sent_ns : 0;
    int shift = ns < SUB ? 0 : 63 - SUB_BITS - __builtin_clzll(ns);
    int index = shift <= 0 ? (int)ns : shift * SUB + (int)(ns >> shift);
    histogram[index]++;
    phase.latency_count++;
    if (ns > phase.latency_max_ns) phase.latency_max_ns = ns;
}

static uint64_t bucket_top(int index) {
    if (index < 2 * SUB) return (uint64_t)index;
    int shift = index / SUB - 1;
    return ((uint64_t)(index - shift * SUB) + 1) << shift;
}

static uint64_t quantile(double q) {
    uint64_t rank = (uint64_t)(q * (double)phase.latency_count), seen = 0;
    for (int i = 0; i < BUCKETS; i++) {
        seen += histogram[i];
        if (seen > rank) return bucket_top(i) < phase.latency_max_ns ? bucket_top(i) : phase.latency_max_ns;
    }
    return phase.latency_max_ns;
}

static const char *read_number(const char *p, const char *end, uint64_t *number) {
    uint64_t n = 0;
    while (p < end && (unsigned)(*p - '0') < 10) n = n * 10 + (unsigned)(*p++ - '0');
    *number = n;
    return p;
}

/* Every connection must see every number once and in order (or, newest only, growing ones). */
static void check_sequence(struct connection *c, uint64_t seq) {
    if (c->last && seq <= c->last) {
        phase.repeated++;
        return;
    }
    if (c->last && seq != c->last + 1 && !opt.newest_only) {
        phase.gaps++;
        phase.missing += seq - c->last - 1;
    }
    bool was_short = c->last < until;
    c->last = seq;
    if (!c->phase_first) c->phase_first = seq;
    c->phase_count++;
    phase.messages++;
    if (until && was_short && seq >= until) done++;
}

static void take_message(struct connection *c, const char *p, size_t size) {
    static const char seq_mark[] = "{\"seq\":", t_mark[] = ",\"t\":";
    const char *end = p + size;
    uint64_t seq;
    if (size < sizeof seq_mark || memcmp(p, seq_mark, sizeof seq_mark - 1) != 0) {
        p = memmem(p, size, "\"seq\":", 6);
        if (!p) {
            phase.malformed++;
            return;
        }
        p--;
    }
    p = read_number(p + sizeof seq_mark - 1, end, &seq);
    check_sequence(c, seq);
    if (!opt.latency) return;
    if ((size_t)(end - p) < sizeof t_mark || memcmp(p, t_mark, sizeof t_mark - 1) != 0)
        if (!(p = memmem(p, (size_t)(end - p), t_mark, sizeof t_mark - 1))) return;
    uint64_t sent_ns;
    read_number(p + sizeof t_mark - 1, end, &sent_ns);
    if (sent_ns) record_latency(sent_ns);
}

static void close_connection(struct connection *c, int code) {
    if (c->state == CLOSED) return;
    c->state = CLOSED;
    close(c->fd);
    phase.closed++;
    closed_total++;
    if (code >= 0 && code < (int)(sizeof close_codes / sizeof *close_codes)) close_codes[code]++;
}

/* -------------------------------------------------------------- WebSocket */

static void send_pong(struct connection *c, const unsigned char *payload, size_t size) {
    unsigned char frame[6 + 125] = {0x8A, (unsigned char)(0x80 | size)}; /* an all-zero mask changes nothing */
    memcpy(frame + 6, payload, size);
    if (send(c->fd, frame, 6 + size, MSG_NOSIGNAL) < 0 && errno != EAGAIN) close_connection(c, 1006);
}

static void take_control(struct connection *c, int opcode, const unsigned char *payload, size_t size) {
    if (opcode == 9 && size <= 125) send_pong(c, payload, size);
    else if (opcode == 8) close_connection(c, size >= 2 ? payload[0] << 8 | payload[1] : 1005);
}

/* Returns how many of the bytes were whole frames. */
static size_t take_frames(struct connection *c, const char *data, size_t size) {
    size_t at = 0;
    while (size - at >= 2 && c->state == OPEN) {
        const unsigned char *p = (const unsigned char *)data + at;
        size_t head = 2, length = p[1] & 127;
        if (p[1] & 128) fail("the server sent a masked frame");
        if (length == 126) {
            head = 4;
            if (size - at < head) break;
            length = (size_t)(p[2] << 8 | p[3]);
        } else if (length == 127) {
            head = 10;
            if (size - at < head) break;
            length = 0;
            for (int i = 2; i < 10; i++) length = length << 8 | p[i];
            if (length > MESSAGE_BYTES_MAX) fail("a frame of %zu bytes is more than this client reads", length);
        }
        if (size - at < head + length) break;
        int opcode = p[0] & 15;
        if (opcode & 8) take_control(c, opcode, p + head, length);
        else if (p[0] & 0x70 || !(p[0] & 0x80)) fail("the server sent a compressed or fragmented frame");
        else take_message(c, data + at + head, length);
        at += head + length;
    }
    return at;
}

/* -------------------------------------------------------------------- SSE */

static void take_line(struct connection *c, const char *p, size_t size) {
    if (size && p[size - 1] == '\r') size--;
    if (!size) {
        c->event_is_message = true;
        c->event_is_gap = false;
    } else if (*p == 'd' && size > 5 && memcmp(p, "data:", 5) == 0) {
        size_t skip = p[5] == ' ' ? 6 : 5;
        if (c->event_is_message) take_message(c, p + skip, size - skip);
        else if (c->event_is_gap) phase.told_gaps++;
    } else if (*p == 'e' && size > 6 && memcmp(p, "event:", 6) == 0) {
        const char *name = p + (p[6] == ' ' ? 7 : 6);
        c->event_is_message = (size_t)(p + size - name) == 7 && memcmp(name, "message", 7) == 0;
        c->event_is_gap = (size_t)(p + size - name) == 3 && memcmp(name, "gap", 3) == 0;
    }
}

static void take_text(struct connection *c, const char *data, size_t size) {
    const char *p = data, *end = data + size, *newline;
    if (c->line_bytes) {
        newline = memchr(p, '\n', size);
        size_t more = newline ? (size_t)(newline - p) : size;
        if (c->line_bytes + more > c->line_capacity) {
            c->line_capacity = (c->line_bytes + more) * 2;
            if (!(c->line = realloc(c->line, c->line_capacity))) fail("out of memory");
        }
        memcpy(c->line + c->line_bytes, p, more);
        c->line_bytes += more;
        if (!newline) return;
        take_line(c, c->line, c->line_bytes);
        c->line_bytes = 0;
        p = newline + 1;
    }
    while (p < end && (newline = memchr(p, '\n', (size_t)(end - p)))) {
        take_line(c, p, (size_t)(newline - p));
        p = newline + 1;
    }
    if (p < end) keep(&c->line, &c->line_bytes, &c->line_capacity, p, (size_t)(end - p));
}

/* Undoes the chunked coding; returns how many bytes were used. */
static size_t take_chunks(struct connection *c, const char *data, size_t size) {
    size_t at = 0;
    if (!c->chunked) {
        take_text(c, data, size);
        return size;
    }
    while (at < size) {
        if (c->chunk_left == -1) {
            const char *newline = memchr(data + at, '\n', size - at);
            if (!newline) break;
            c->chunk_left = (int64_t)strtoull(data + at, NULL, 16);
            at = (size_t)(newline - data) + 1;
            if (c->chunk_left == 0) {
                close_connection(c, 0);
                return size;
            }
        } else if (c->chunk_left == -2) {
            if (size - at < 2) break;
            at += 2;
            c->chunk_left = -1;
        } else {
            size_t part = size - at < (size_t)c->chunk_left ? size - at : (size_t)c->chunk_left;
            take_text(c, data + at, part);
            at += part;
            c->chunk_left -= (int64_t)part;
            if (c->chunk_left == 0) c->chunk_left = -2;
        }
    }
    return at;
}

/* ------------------------------------------------------------- connection */

static void watch(struct connection *c, uint32_t events, int how) {
    struct epoll_event event = {.events = events, .data.ptr = c};
    if (epoll_ctl(epoll_fd, how, c->fd, &event) < 0) fail("epoll_ctl: %s", strerror(errno));
}

static void open_next(void) {
    struct connection *c = &connections[next_to_open++];
    int one = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)opt.port)};
    if (inet_pton(AF_INET, opt.host, &address.sin_addr) != 1) fail("%s is not an IPv4 address", opt.host);
    c->stalled = c - connections < opt.stalled;
    c->chunk_left = -1;
    c->event_is_message = true;
    if ((c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)) < 0) fail("socket: %s", strerror(errno));
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (c->stalled)
        setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &opt.stalled_receive_bytes, sizeof opt.stalled_receive_bytes);
    if (connect(c->fd, (struct sockaddr *)&address, sizeof address) < 0 && errno != EINPROGRESS)
        fail("connect: %s", strerror(errno));
    c->state = CONNECTING;
    watch(c, EPOLLOUT, EPOLL_CTL_ADD);
}

static void send_request(struct connection *c) {
    char request[1024];
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error) fail("connect to %s:%d: %s", opt.host, opt.port, strerror(error));
    int length = snprintf(request, sizeof request,
        opt.sse ? "GET %s HTTP/1.1\r\nHost: %s:%d\r\nAccept: text/event-stream\r\n\r\n"
                : "GET %s HTTP/1.1\r\nHost: %s:%d\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                  "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " WS_KEY "\r\n\r\n",
        opt.path, opt.host, opt.port);
    if (send(c->fd, request, (size_t)length, MSG_NOSIGNAL) != length) fail("the request could not be sent");
    c->state = SHAKING_HANDS;
    watch(c, EPOLLIN, EPOLL_CTL_MOD);
}

static void check_answer(struct connection *c, char *head) {
    char line[200];
    snprintf(line, sizeof line, "%.*s", (int)strcspn(head, "\r\n"), head);
    if (strncmp(head, opt.sse ? "HTTP/1.1 200" : "HTTP/1.1 101", 12) != 0) fail("the server answered %s", line);
    if (opt.sse && !strcasestr(head, "\r\ncontent-type: text/event-stream")) fail("the answer is no event stream");
    if (!opt.sse && !strstr(head, WS_ACCEPT)) fail("the answer has no valid Sec-WebSocket-Accept");
    c->chunked = opt.sse && strcasestr(head, "\r\ntransfer-encoding: chunked");
    c->state = OPEN;
    c->last_arrival_ns = now_ns;
    opened++;
    if (c->stalled) epoll_ctl(epoll_fd, EPOLL_CTL_DEL, c->fd, NULL);
    if (next_to_open < total) open_next();
}

/* Returns how many bytes were used. */
static size_t take_answer(struct connection *c, char *data, size_t size) {
    char *end = memmem(data, size, "\r\n\r\n", 4);
    if (!end) return 0;
    end[2] = 0;
    check_answer(c, data);
    return (size_t)(end + 4 - data);
}

static void take_bytes(struct connection *c, char *data, size_t size) {
    size_t used = 0;
    if (c->state == SHAKING_HANDS) used = take_answer(c, data, size);
    if (c->state == OPEN && !c->stalled && used < size)
        used += opt.sse ? take_chunks(c, data + used, size - used) : take_frames(c, data + used, size - used);
    keep(&c->rest, &c->rest_bytes, &c->rest_capacity, data + used, size - used);
}

static void note_arrival(struct connection *c, uint64_t messages_before) {
    if (phase.messages == messages_before) return;
    uint64_t since = c->last_arrival_ns > phase.started_ns ? c->last_arrival_ns : phase.started_ns;
    if (c->phase_count > phase.messages - messages_before && now_ns - since > phase.silence_max_ns)
        phase.silence_max_ns = now_ns - since;
    c->last_arrival_ns = phase.last_arrival_ns = now_ns;
    if (!phase.first_arrival_ns) phase.first_arrival_ns = now_ns;
}

static void on_readable(struct connection *c) {
    size_t before = c->rest_bytes;
    if (before) memcpy(buffer, c->rest, before);
    ssize_t count = recv(c->fd, buffer + before, READ_BYTES, 0);
    if (count < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (count <= 0) {
        if (c->state == SHAKING_HANDS) fail("the server closed the connection during the handshake");
        close_connection(c, count == 0 ? 1006 : 0);
        return;
    }
    if (opt.latency) now_ns = read_clock();
    phase.bytes += (uint64_t)count;
    phase.reads++;
    uint64_t messages_before = phase.messages;
    take_bytes(c, buffer, before + (size_t)count);
    if (c->state == OPEN) note_arrival(c, messages_before);
}

/* ----------------------------------------------------------------- phases */

static void begin_phase(void) {
    memset(&phase, 0, sizeof phase);
    memset(histogram, 0, sizeof histogram);
    memset(close_codes, 0, sizeof close_codes);
    for (int i = 0; i < total; i++) connections[i].phase_first = connections[i].phase_count = 0;
    phase.started_ns = now_ns = read_clock();
    until = 0;
    done = 0;
}

static int stalled_established(void) {
    int count = 0;
    for (int i = 0; i < opt.stalled && i < total; i++) {
        struct tcp_info info;
        socklen_t size = sizeof info;
        if (getsockopt(connections[i].fd, IPPROTO_TCP, TCP_INFO, &info, &size) == 0 && info.tcpi_state == TCP_ESTABLISHED)
            count++;
    }
    return count;
}

static void print_latency(void) {
    printf(",\"latency_ns\":{\"count\":%lu,\"p50\":%lu,\"p90\":%lu,\"p99\":%lu,\"p999\":%lu,\"max\":%lu}",
        phase.latency_count, quantile(.5), quantile(.9), quantile(.99), quantile(.999), phase.latency_max_ns);
    printf(",\"histogram_ns\":[");
    bool comma = false;
    for (int i = 0; i < BUCKETS; i++)
        if (histogram[i]) {
            printf("%s[%lu,%lu]", comma ? "," : "", bucket_top(i), histogram[i]);
            comma = true;
        }
    printf("]");
}

static void print_spread(void) {
    uint64_t first_min = UINT64_MAX, first_max = 0, last_min = UINT64_MAX, count_min = UINT64_MAX, count_max = 0;
    for (int i = opt.stalled; i < total; i++) {
        struct connection *c = &connections[i];
        if (c->phase_first < first_min) first_min = c->phase_first;
        if (c->phase_first > first_max) first_max = c->phase_first;
        if (c->last < last_min) last_min = c->last;
        if (c->phase_count < count_min) count_min = c->phase_count;
        if (c->phase_count > count_max) count_max = c->phase_count;
    }
    printf(",\"first_min\":%lu,\"first_max\":%lu,\"last_min\":%lu,\"count_min\":%lu,\"count_max\":%lu",
        first_min, first_max, last_min, count_min, count_max);
}

static void end_phase(bool complete) {
    double wall_s = (double)(read_clock() - phase.started_ns) / 1e9;
    printf("{\"event\":\"phase\",\"complete\":%s,\"connections\":%d,\"done\":%d,\"until\":%lu", complete ? "true" : "false",
        total - opt.stalled, done, until);
    printf(",\"messages\":%lu,\"bytes\":%lu,\"reads\":%lu", phase.messages, phase.bytes, phase.reads);
    printf(",\"gaps\":%lu,\"missing\":%lu,\"repeated\":%lu,\"malformed\":%lu,\"told_gaps\":%lu",
        phase.gaps, phase.missing, phase.repeated, phase.malformed, phase.told_gaps);
    printf(",\"closed\":%lu,\"closed_total\":%d,\"close_codes\":{", phase.closed, closed_total);
    bool comma = false;
    for (size_t i = 0; i < sizeof close_codes / sizeof *close_codes; i++)
        if (close_codes[i]) {
            printf("%s\"%zu\":%d", comma ? "," : "", i, close_codes[i]);
            comma = true;
        }
    printf("},\"stalled_established\":%d", stalled_established());
    print_spread();
    printf(",\"wall_s\":%.6f,\"arrival_s\":%.6f,\"silence_max_s\":%.6f,\"client_busy_s\":%.6f", wall_s,
        (double)(phase.last_arrival_ns - phase.first_arrival_ns) / 1e9, (double)phase.silence_max_ns / 1e9,
        (double)phase.busy_ns / 1e9);
    if (opt.latency) print_latency();
    printf("}\n");
    fflush(stdout);
    begin_phase();
}

static void expect(uint64_t last) {
    until = last;
    done = 0;
    phase.last_arrival_ns = phase.last_arrival_ns ? phase.last_arrival_ns : now_ns;
    for (int i = opt.stalled; i < total; i++)
        if (connections[i].last >= until) done++;
}

static void read_commands(void) {
    static char line[256];
    static size_t have;
    ssize_t count = read(STDIN_FILENO, line + have, sizeof line - 1 - have);
    if (count < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (count <= 0) exit(0);
    have += (size_t)count;
    line[have] = 0;
    char *newline;
    while ((newline = strchr(line, '\n'))) {
        *newline = 0;
        if (strncmp(line, "until ", 6) == 0) expect(strtoull(line + 6, NULL, 10));
        else if (strcmp(line, "now") == 0) end_phase(true);
        else if (strcmp(line, "quit") == 0) exit(0);
        have -= (size_t)(newline + 1 - line);
        memmove(line, newline + 1, have + 1);
    }
}

static void check_phase(void) {
    int counted = total - opt.stalled;
    if (!until) return;
    if (done == counted) end_phase(true);
    else if (closed_total >= counted) end_phase(false);
    else {
        uint64_t quiet_since = phase.last_arrival_ns > phase.started_ns ? phase.last_arrival_ns : phase.started_ns;
        uint64_t clock = read_clock();
        if (clock > quiet_since && (double)(clock - quiet_since) / 1e9 > opt.idle_timeout_s) end_phase(false);
    }
}

/* -------------------------------------------------------------------- run */

static void run_events(int timeout_ms) {
    static struct epoll_event events[EVENTS_PER_WAIT];
    int count = epoll_wait(epoll_fd, events, EVENTS_PER_WAIT, timeout_ms);
    if (count <= 0) return;
    uint64_t began_ns = now_ns = read_clock();
    for (int i = 0; i < count; i++) {
        struct connection *c = events[i].data.ptr;
        if (!c) read_commands();
        else if (c->state == CONNECTING) send_request(c);
        else if (c->state != CLOSED) on_readable(c);
    }
    if (phase.started_ns <= began_ns) phase.busy_ns += read_clock() - began_ns;
}

static void open_all(void) {
    uint64_t started = read_clock();
    now_ns = started;
    for (int i = 0; i < opt.parallel && next_to_open < total; i++) open_next();
    while (opened < total) {
        run_events(100);
        if (read_clock() - started > 120000000000u) fail("only %d of %d connections opened within 120 s", opened, total);
    }
    printf("{\"event\":\"ready\",\"connections\":%d,\"stalled\":%d,\"connect_s\":%.6f}\n",
        total - opt.stalled, opt.stalled, (double)(read_clock() - started) / 1e9);
    fflush(stdout);
}

static void parse_options(int argc, char **argv) {
    static const struct option names[] = {
        {"host", 1, 0, 'h'}, {"port", 1, 0, 'p'}, {"path", 1, 0, 'a'}, {"sse", 0, 0, 's'},
        {"connections", 1, 0, 'n'}, {"stalled", 1, 0, 'k'}, {"newest-only", 0, 0, 'w'}, {"latency", 0, 0, 'l'}, {"spin", 0, 0, 'b'},
        {"parallel", 1, 0, 'c'}, {"idle-timeout", 1, 0, 'i'}, {"stalled-receive-bytes", 1, 0, 'r'}, {0}};
    for (int name; (name = getopt_long(argc, argv, "", names, NULL)) != -1;) {
        switch (name) {
        case 'h': opt.host = optarg; break;
        case 'p': opt.port = atoi(optarg); break;
        case 'a': opt.path = optarg; break;
        case 's': opt.sse = true; break;
        case 'n': opt.connections = atoi(optarg); break;
        case 'k': opt.stalled = atoi(optarg); break;
        case 'w': opt.newest_only = true; break;
        case 'l': opt.latency = true; break;
        case 'b': opt.spin = true; break;
        case 'c': opt.parallel = atoi(optarg); break;
        case 'i': opt.idle_timeout_s = atof(optarg); break;
        case 'r': opt.stalled_receive_bytes = atoi(optarg); break;
        default: fail("an option is not known");
        }
    }
    total = opt.connections + opt.stalled;
    if (!opt.port || total < 1) fail("--port and --connections or --stalled are needed");
}

int main(int argc, char **argv) {
    parse_options(argc, argv);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    if (files.rlim_cur < (rlim_t)total + 16) fail("the limit of open files is %lu: raise it", (unsigned long)files.rlim_cur);
    signal(SIGPIPE, SIG_IGN);
    if (!(connections = calloc((size_t)total, sizeof *connections))) fail("out of memory");
    if ((epoll_fd = epoll_create1(EPOLL_CLOEXEC)) < 0) fail("epoll_create1: %s", strerror(errno));
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, STDIN_FILENO, &event); /* fails for a plain file: no commands then */
    open_all();
    begin_phase();
    for (;;) {
        run_events(opt.spin ? 0 : 50);
        check_phase();
    }
}
