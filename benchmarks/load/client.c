/*
 * The load client of the benchmarks: opens many WebSocket, SSE or Socket.IO connections to one topic and checks
 * and times every message that arrives. One thread, epoll, no allocation per message, no JSON parser,
 * so that it never becomes the bottleneck; it reports how much of its time it was busy to prove that. With
 * --spin it polls without ever sleeping, so that no send of the server pays for waking it up (clients on other
 * machines cost a server no wake-up either; in a virtual machine it is a third of the price of a small send).
 *
 * A message is JSON that holds "seq":<n> and, when latency is asked for, "t":<CLOCK_MONOTONIC ns> after it
 * (the time it should have been sent at, so that the numbers are free of coordinated omission). With --keys N it
 * holds "id":<0 to N - 1> as well, each number of which only the newest counts: numbers may be left out, and LAST
 * is reached when each of the N keys has one of the last N numbers (the publisher takes the keys in turn).
 *
 * Socket.IO: the Engine.IO 4 WebSocket transport, one namespace. Messages are "42[...]", pings are answered.
 * TLS (built with -DWITH_TLS, --tls): certificates are not checked, the server is our own.
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
#include "common.h"

/* ------------------------------------------------------------------ state */

enum { READ_BYTES = 1 << 18, EVENTS_PER_WAIT = 512, MESSAGE_BYTES_MAX = 1 << 24 };

enum state { UNUSED, CONNECTING, SECURING, SHAKING_HANDS, JOINING, OPEN, CLOSED };
enum dialect { WEBSOCKET, SSE, SOCKETIO, SESSION };

struct connection {
    struct line line;
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
    char *text;
    size_t text_bytes, text_capacity;
    bool event_is_message;  /* SSE: no "event:" line so far in this event */
    bool event_is_gap;
    uint64_t *newest;       /* --keys: the newest number of each key; 0: none yet */
    int fresh;              /* --keys: how many keys have one of the last --keys numbers before "until" */
};

static struct options {
    const char *path;
    int port, connections, stalled, parallel, keys, sources;
    enum dialect dialect;
    bool latency, spin, tls;
    double idle_timeout_s;
    int stalled_receive_bytes;
} opt = {.path = "/", .parallel = 64, .idle_timeout_s = 10, .stalled_receive_bytes = 4096};

static struct phase {
    uint64_t started_ns, first_arrival_ns, last_arrival_ns;
    uint64_t messages, bytes, reads, gaps, missing, repeated, malformed, closed, told_gaps;
    uint64_t silence_max_ns;
    uint64_t busy_ns;       /* spent on what arrived, waiting apart */
} phase;

static struct connection *connections;
static int total, opened, epoll_fd, done, closed_total, next_to_open;
static uint64_t until;      /* 0: the phase has no known end yet */
static struct latencies latencies;
static int close_codes[5000];
static char buffer[READ_BYTES + MESSAGE_BYTES_MAX];
static uint64_t now_ns;

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

static const char *read_number(const char *p, const char *end, uint64_t *number) {
    uint64_t n = 0;
    while (p < end && (unsigned)(*p - '0') < 10) n = n * 10 + (unsigned)(*p++ - '0');
    *number = n;
    return p;
}

static void count_message(struct connection *c, uint64_t seq) {
    if (!c->phase_first) c->phase_first = seq;
    c->phase_count++;
    phase.messages++;
}

/* Every connection must see every number once and in order. */
static void check_sequence(struct connection *c, uint64_t seq) {
    if (c->last && seq <= c->last) {
        phase.repeated++;
        return;
    }
    if (c->last && seq != c->last + 1) {
        phase.gaps++;
        phase.missing += seq - c->last - 1;
    }
    bool was_short = c->last < until;
    c->last = seq;
    count_message(c, seq);
    if (until && was_short && seq >= until) done++;
}

static bool is_fresh(uint64_t seq) {
    return seq && seq + (uint64_t)opt.keys > until;
}

/* Numbers of a key must grow; which of them arrive is the server's choice. */
static void check_key(struct connection *c, uint64_t key, uint64_t seq) {
    if (key >= (uint64_t)opt.keys) {
        phase.malformed++;
        return;
    }
    if (seq <= c->newest[key]) {
        phase.repeated++;
        return;
    }
    if (until && is_fresh(seq) && !is_fresh(c->newest[key]) && ++c->fresh == opt.keys) done++;
    c->newest[key] = seq;
    if (seq > c->last) c->last = seq;
    count_message(c, seq);
}

/* The number after mark, at p (where it almost always is) or later; NULL when there is none. */
static const char *find_number(const char *p, const char *end, const char *mark, size_t size, uint64_t *number) {
    if ((size_t)(end - p) < size || memcmp(p, mark, size) != 0)
        if (!(p = memmem(p, (size_t)(end - p), mark, size))) return NULL;
    return read_number(p + size, end, number);
}

static void take_message(struct connection *c, const char *p, size_t size) {
    const char *end = p + size;
    uint64_t seq, sent_ns = 0, key;
    if (!(p = find_number(size && *p == '{' ? p + 1 : p, end, "\"seq\":", 6, &seq))) {
        phase.malformed++;
        return;
    }
    if (opt.latency || opt.keys) {
        const char *after = find_number(p, end, ",\"t\":", 5, &sent_ns);
        if (after) p = after;
    }
    if (!opt.keys) check_sequence(c, seq);
    else if (find_number(p, end, ",\"id\":", 6, &key)) check_key(c, key, seq);
    else phase.malformed++;
    if (opt.latency && sent_ns) record_latency(&latencies, now_ns > sent_ns ? now_ns - sent_ns : 0);
}

static void close_connection(struct connection *c, int code) {
    if (c->state == CLOSED) return;
    c->state = CLOSED;
    close(c->line.fd);
    phase.closed++;
    closed_total++;
    if (code >= 0 && code < (int)(sizeof close_codes / sizeof *close_codes)) close_codes[code]++;
}

/* -------------------------------------------------------------- WebSocket */

static void send_frame(struct connection *c, int opcode, const void *payload, size_t size) {
    /* an all-zero mask changes nothing */
    unsigned char frame[6 + 125] = {(unsigned char)(0x80 | opcode), (unsigned char)(0x80 | size)};
    memcpy(frame + 6, payload, size);
    if (line_send(&c->line, frame, 6 + size) < 0 && errno != EAGAIN) close_connection(c, 1006);
}

static void take_control(struct connection *c, int opcode, const unsigned char *payload, size_t size) {
    if (opcode == 9 && size <= 125) send_frame(c, 10, payload, size);
    else if (opcode == 8) close_connection(c, size >= 2 ? payload[0] << 8 | payload[1] : 1005);
}

static void note_open(struct connection *c);

/* Engine.IO 4: "0" open, "2" ping, "3" pong, "4" message; Socket.IO 5 within it: "0" connect, "2" event. */
static void take_packet(struct connection *c, const char *p, size_t size) {
    if (size && p[0] == '2') send_frame(c, 1, "3", 1);
    else if (c->state == JOINING && size && p[0] == '0') send_frame(c, 1, "40", 2);
    else if (c->state == JOINING && size > 1 && p[0] == '4' && p[1] == '0') note_open(c);
    else if (c->state == OPEN && size > 1 && p[0] == '4' && p[1] == '2') take_message(c, p, size);
    else phase.malformed++;
}

/* Centrifuge v2, JSON: several packets a frame, joined by newlines; an empty one is a ping. */
static void take_packets(struct connection *c, const char *p, size_t size) {
    const char *end = p + size;
    while (p < end) {
        const char *newline = memchr(p, '\n', (size_t)(end - p));
        size_t length = newline ? (size_t)(newline - p) : (size_t)(end - p);
        if (length == 2) send_frame(c, 1, "{}", 2);
        else if (c->state == OPEN && length > 7 && memcmp(p, "{\"push\"", 7) == 0) take_message(c, p, length);
        else if (c->state == JOINING && length > 7 && memcmp(p, "{\"id\":2", 7) == 0) note_open(c);
        else if (c->state != JOINING) phase.malformed++;
        p += length + 1;
    }
}

/* Returns how many of the bytes were whole frames. */
static size_t take_frames(struct connection *c, const char *data, size_t size) {
    size_t at = 0;
    while (size - at >= 2 && (c->state == OPEN || c->state == JOINING)) {
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
        else if (opt.dialect == SOCKETIO) take_packet(c, data + at + head, length);
        else if (opt.dialect == SESSION) take_packets(c, data + at + head, length);
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
    if (c->text_bytes) {
        newline = memchr(p, '\n', size);
        size_t more = newline ? (size_t)(newline - p) : size;
        if (c->text_bytes + more > c->text_capacity) {
            c->text_capacity = (c->text_bytes + more) * 2;
            if (!(c->text = realloc(c->text, c->text_capacity))) fail("out of memory");
        }
        memcpy(c->text + c->text_bytes, p, more);
        c->text_bytes += more;
        if (!newline) return;
        take_line(c, c->text, c->text_bytes);
        c->text_bytes = 0;
        p = newline + 1;
    }
    while (p < end && (newline = memchr(p, '\n', (size_t)(end - p)))) {
        take_line(c, p, (size_t)(newline - p));
        p = newline + 1;
    }
    if (p < end) keep(&c->text, &c->text_bytes, &c->text_capacity, p, (size_t)(end - p));
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
    if (epoll_ctl(epoll_fd, how, c->line.fd, &event) < 0) fail("epoll_ctl: %s", strerror(errno));
}

static void open_next(void) {
    struct connection *c = &connections[next_to_open];
    int source = opt.sources ? next_to_open % opt.sources : -1;
    next_to_open++;
    c->stalled = c - connections < opt.stalled;
    c->chunk_left = -1;
    c->event_is_message = true;
    if (opt.keys && !(c->newest = calloc((size_t)opt.keys, sizeof *c->newest))) fail("out of memory");
    c->line.fd = begin_connect(opt.port, source, c->stalled ? opt.stalled_receive_bytes : 0);
    c->state = CONNECTING;
    watch(c, EPOLLOUT, EPOLL_CTL_ADD);
}

static void send_request(struct connection *c) {
    char request[1024];
    int length = snprintf(request, sizeof request,
        opt.dialect == SSE ? "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAccept: text/event-stream\r\n\r\n"
                : "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                  "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " WS_KEY "\r\n\r\n",
        opt.path, opt.port);
    if (line_send(&c->line, request, (size_t)length) != length) fail("the request could not be sent");
    c->state = SHAKING_HANDS;
    watch(c, EPOLLIN, EPOLL_CTL_MOD);
}

#ifdef WITH_TLS
static SSL_CTX *tls_context;

static void secure(struct connection *c) {
    if (!c->line.ssl) {
        if (!tls_context && !(tls_context = SSL_CTX_new(TLS_client_method()))) fail("TLS could not be set up");
        SSL_CTX_set_mode(tls_context, SSL_MODE_RELEASE_BUFFERS);
        if (!(c->line.ssl = SSL_new(tls_context)) || !SSL_set_fd(c->line.ssl, c->line.fd)) fail("TLS could not be set up");
        c->state = SECURING;
    }
    int result = SSL_connect(c->line.ssl);
    if (result == 1) {
        send_request(c);
        return;
    }
    int error = SSL_get_error(c->line.ssl, result);
    if (error == SSL_ERROR_WANT_READ) watch(c, EPOLLIN, EPOLL_CTL_MOD);
    else if (error == SSL_ERROR_WANT_WRITE) watch(c, EPOLLOUT, EPOLL_CTL_MOD);
    else fail("the TLS handshake failed: %s", ERR_reason_error_string(ERR_peek_error()));
}
#else
static void secure(struct connection *c) {
    (void)c;
    fail("this load client was built without TLS");
}
#endif

static void on_connected(struct connection *c) {
    if (c->state == CONNECTING) check_connected(c->line.fd);
    if (opt.tls) secure(c);
    else send_request(c);
}

static void note_open(struct connection *c) {
    /* Who has asked something over a connection counts as interactive: on loopback its kernel then acknowledges inside
     * of the server's next send, at the server's cost. Nobody here is, so that all dialects cost the server the same. */
    int one = 1;
    setsockopt(c->line.fd, IPPROTO_TCP, TCP_QUICKACK, &one, sizeof one);
    c->state = OPEN;
    c->last_arrival_ns = now_ns;
    opened++;
    if (c->stalled) epoll_ctl(epoll_fd, EPOLL_CTL_DEL, c->line.fd, NULL);
    if (next_to_open < total) open_next();
}

static void check_answer(struct connection *c, char *head) {
    char line[200];
    bool sse = opt.dialect == SSE;
    snprintf(line, sizeof line, "%.*s", (int)strcspn(head, "\r\n"), head);
    if (strncmp(head, sse ? "HTTP/1.1 200" : "HTTP/1.1 101", 12) != 0) fail("the server answered %s", line);
    if (sse && !strcasestr(head, "\r\ncontent-type: text/event-stream")) fail("the answer is no event stream");
    if (!sse && !strstr(head, WS_ACCEPT)) fail("the answer has no valid Sec-WebSocket-Accept");
    c->chunked = sse && strcasestr(head, "\r\ntransfer-encoding: chunked");
    if (opt.dialect == SOCKETIO) c->state = JOINING;
    else if (opt.dialect == SESSION) {
        static const char hello[] = "{\"id\":1,\"connect\":{}}\n{\"id\":2,\"subscribe\":{\"channel\":\"bench\"}}";
        c->state = JOINING;
        send_frame(c, 1, hello, sizeof hello - 1);
    } else note_open(c);
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
    if ((c->state == OPEN || c->state == JOINING) && !c->stalled && used < size)
        used += opt.dialect == SSE ? take_chunks(c, data + used, size - used) : take_frames(c, data + used, size - used);
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

/* Returns whether there may be more to read at once: within TLS, where epoll does not see it. */
static bool read_once(struct connection *c) {
    size_t before = c->rest_bytes;
    if (before) memcpy(buffer, c->rest, before);
    ssize_t count = line_recv(&c->line, buffer + before, READ_BYTES);
    if (count < 0 && (errno == EAGAIN || errno == EINTR)) return false;
    if (count <= 0) {
        if (c->state == SHAKING_HANDS) fail("the server closed the connection during the handshake");
        close_connection(c, count == 0 ? 1006 : 0);
        return false;
    }
    if (opt.latency) now_ns = read_clock();
    phase.bytes += (uint64_t)count;
    phase.reads++;
    uint64_t messages_before = phase.messages;
    take_bytes(c, buffer, before + (size_t)count);
    if (c->state == OPEN) note_arrival(c, messages_before);
    return opt.tls && c->state != CLOSED;
}

static void on_readable(struct connection *c) {
    while (read_once(c)) continue;
}

/* ----------------------------------------------------------------- phases */

static void begin_phase(void) {
    memset(&phase, 0, sizeof phase);
    memset(&latencies, 0, sizeof latencies);
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
        if (getsockopt(connections[i].line.fd, IPPROTO_TCP, TCP_INFO, &info, &size) == 0 && info.tcpi_state == TCP_ESTABLISHED)
            count++;
    }
    return count;
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
    if (opt.latency) print_latency(&latencies);
    printf("}\n");
    fflush(stdout);
    begin_phase();
}

static bool has_all(struct connection *c) {
    if (!opt.keys) return c->last >= until;
    c->fresh = 0;
    for (int key = 0; key < opt.keys; key++) c->fresh += is_fresh(c->newest[key]);
    return c->fresh == opt.keys;
}

static void expect(uint64_t last) {
    until = last;
    done = 0;
    phase.last_arrival_ns = phase.last_arrival_ns ? phase.last_arrival_ns : now_ns;
    for (int i = opt.stalled; i < total; i++)
        if (has_all(&connections[i])) done++;
}

static void on_line(char *line) {
    if (strncmp(line, "until ", 6) == 0) expect(strtoull(line + 6, NULL, 10));
    else if (strcmp(line, "now") == 0) end_phase(true);
    else if (strcmp(line, "quit") == 0) exit(0);
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
        if (!c) read_lines(on_line);
        else if (c->state == CONNECTING || c->state == SECURING) on_connected(c);
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
        {"port", 1, 0, 'p'}, {"path", 1, 0, 'a'}, {"dialect", 1, 0, 'd'}, {"connections", 1, 0, 'n'}, {"stalled", 1, 0, 'k'},
        {"keys", 1, 0, 'w'}, {"latency", 0, 0, 'l'}, {"spin", 0, 0, 'b'}, {"parallel", 1, 0, 'c'}, {"sources", 1, 0, 's'},
        {"tls", 0, 0, 't'}, {"idle-timeout", 1, 0, 'i'}, {"stalled-receive-bytes", 1, 0, 'r'}, {0}};
    for (int name; (name = getopt_long(argc, argv, "", names, NULL)) != -1;) {
        switch (name) {
        case 'p': opt.port = atoi(optarg); break;
        case 'a': opt.path = optarg; break;
        case 'd': opt.dialect = *optarg == 'w' ? WEBSOCKET : strcmp(optarg, "sse") == 0 ? SSE : strcmp(optarg, "session") == 0 ? SESSION : SOCKETIO; break;
        case 'n': opt.connections = atoi(optarg); break;
        case 'k': opt.stalled = atoi(optarg); break;
        case 'w': opt.keys = atoi(optarg); break;
        case 'l': opt.latency = true; break;
        case 'b': opt.spin = true; break;
        case 'c': opt.parallel = atoi(optarg); break;
        case 's': opt.sources = atoi(optarg); break;
        case 't': opt.tls = true; break;
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
    raise_open_files(total);
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
