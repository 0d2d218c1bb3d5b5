/*
 * The load client that sends: echoes and uploads. One thread, epoll; every frame it sends was masked before the
 * measurement (RFC 6455 5.3: a mask for each frame, from /dev/urandom), so that it never becomes the bottleneck; it
 * reports how much of its time it was busy to prove that.
 *
 * Echo: on each connection --depth messages of --size bytes are under way; whatever comes back is compared with what
 * was sent, byte by byte, and as many are sent again with one send(). Upload: binary messages of --size bytes on one
 * connection, one after the other; then a message of one byte asks the server, which answers with a text message:
 * how many bytes came, that one included.
 *
 * Talks by lines. To stdout, JSON: {"event":"ready",..}, {"event":"echo",..}, {"event":"upload",..}, {"event":"error",..}
 * From stdin:
 *   echo SECONDS       send for so long, then wait for what is under way
 *   upload MESSAGES    send so many, then ask
 *
 * Linux only: epoll.
 */
#include "common.h"

enum { RING = 64, HEAD_BYTES_MAX = 1024 };

struct connection {
    struct line line;
    bool open;
    uint32_t sent, received; /* messages, modulo 2^32 */
    size_t at;               /* bytes of the frame that is coming in, already compared */
    size_t unsent;           /* bytes of frames begun that the kernel did not take yet */
    char head[HEAD_BYTES_MAX];
    size_t head_bytes;
};

static struct options {
    const char *path;
    int port, connections, depth;
    size_t size;
    bool spin;
    double idle_timeout_s;
} opt = {.path = "/", .connections = 1, .depth = 1, .size = 32, .idle_timeout_s = 10};

static struct connection *connections;
static int epoll_fd, opened;
static char buffer[1 << 18];

/* RING messages, each as the frame that is sent (masked) and as the one that must come back */
static unsigned char *outgoing, *expected;
static size_t out_bytes, back_bytes;

static struct phase {
    uint64_t started_ns, stop_ns, ended_ns, busy_ns, last_ns, messages, wanted;
    bool running, upload, asked;
} phase;

/* ----------------------------------------------------------------- frames */

static size_t put_head(unsigned char *p, int opcode, size_t size, bool masked) {
    unsigned char bit = masked ? 0x80 : 0;
    *p++ = (unsigned char)(0x80 | opcode);
    if (size < 126) {
        *p = (unsigned char)(bit | size);
        return 2;
    }
    int bytes = size < 65536 ? 2 : 8;
    *p++ = (unsigned char)(bit | (bytes == 2 ? 126 : 127));
    for (int i = bytes - 1; i >= 0; i--) *p++ = (unsigned char)(size >> 8 * i);
    return (size_t)(2 + bytes);
}

static void mask_bytes(unsigned char *to, const unsigned char *from, size_t size, const unsigned char mask[4]) {
    for (size_t i = 0; i < size; i++) to[i] = from[i] ^ mask[i & 3];
}

static size_t put_masked(unsigned char *p, int opcode, const unsigned char *payload, size_t size, const unsigned char mask[4]) {
    size_t head = put_head(p, opcode, size, true);
    memcpy(p + head, mask, 4);
    mask_bytes(p + head + 4, payload, size, mask);
    return head + 4 + size;
}

/* Texts that differ from one another; twice in a row, so that any run of them is one piece of memory. */
static void make_frames(int opcode, int different) {
    unsigned char masks[RING * 4], *payload = malloc(opt.size + 16);
    int random = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
    if (random < 0 || read(random, masks, sizeof masks) != (ssize_t)sizeof masks) fail("no random numbers");
    close(random);
    out_bytes = opt.size + 14;
    outgoing = malloc(2 * (size_t)different * out_bytes);
    expected = malloc(2 * (size_t)different * (opt.size + 10));
    if (!payload || !outgoing || !expected) fail("out of memory");
    memset(payload, 'x', opt.size);
    size_t out = 0, back = 0;
    for (int i = 0; i < 2 * different; i++) {
        char number[16];
        int digits = snprintf(number, sizeof number, "%08d ", i % different);
        memcpy(payload, number, opt.size < (size_t)digits ? opt.size : (size_t)digits);
        out += put_masked(outgoing + out, opcode, payload, opt.size, masks + 4 * (i % different));
        size_t head = put_head(expected + back, opcode, opt.size, false);
        memcpy(expected + back + head, payload, opt.size);
        back += head + opt.size;
    }
    out_bytes = out / (2 * (size_t)different);
    back_bytes = back / (2 * (size_t)different);
    free(payload);
}

/* ------------------------------------------------------------ connections */

static void watch(struct connection *c, uint32_t events, int how) {
    struct epoll_event event = {.events = events, .data.ptr = c};
    if (epoll_ctl(epoll_fd, how, c->line.fd, &event) < 0) fail("epoll_ctl: %s", strerror(errno));
}

static void open_connection(struct connection *c) {
    c->line.fd = begin_connect(opt.port, -1, 0);
    watch(c, EPOLLOUT, EPOLL_CTL_ADD);
}

static void send_request(struct connection *c) {
    char request[1024];
    check_connected(c->line.fd);
    int length = snprintf(request, sizeof request,
        "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " WS_KEY "\r\n\r\n", opt.path, opt.port);
    if (line_send(&c->line, request, (size_t)length) != length) fail("the request could not be sent");
    watch(c, EPOLLIN, EPOLL_CTL_MOD);
}

static void take_answer(struct connection *c) {
    ssize_t count = line_recv(&c->line, c->head + c->head_bytes, sizeof c->head - 1 - c->head_bytes);
    if (count < 0 && errno == EAGAIN) return;
    if (count <= 0) fail("the server closed the connection during the handshake");
    c->head_bytes += (size_t)count;
    c->head[c->head_bytes] = 0;
    char *end = strstr(c->head, "\r\n\r\n");
    if (!end) return;
    if (strncmp(c->head, "HTTP/1.1 101", 12) != 0) fail("the server answered %.*s", (int)strcspn(c->head, "\r\n"), c->head);
    if (!strstr(c->head, WS_ACCEPT)) fail("the answer has no valid Sec-WebSocket-Accept");
    if (end + 4 != c->head + c->head_bytes) fail("the server sent something before it was spoken to");
    c->open = true;
    opened++;
}

/* ------------------------------------------------------------------- echo */

static size_t under_way(const struct connection *c) {
    return (size_t)(c->sent - c->received);
}

/* Send until so many messages are under way as there should be, as many as possible with one send(). */
static void send_more(struct connection *c) {
    size_t begun = c->unsent;
    if (phase.running && phase.last_ns < phase.stop_ns) {
        size_t more = (size_t)opt.depth - under_way(c);
        c->sent += (uint32_t)more;
        begun += more * out_bytes;
    }
    while (begun) {
        /* the frame at which the unsent bytes begin */
        size_t frames = (begun + out_bytes - 1) / out_bytes;
        size_t offset = ((c->sent - frames) % RING) * out_bytes + (frames * out_bytes - begun);
        size_t piece = 2 * RING * out_bytes - offset < begun ? 2 * RING * out_bytes - offset : begun;
        ssize_t count = line_send(&c->line, outgoing + offset, piece);
        if (count < 0 && errno == EAGAIN) break;
        if (count < 0) fail("the server closed a connection");
        begun -= (size_t)count;
    }
    if (!begun != !c->unsent) watch(c, begun ? EPOLLIN | EPOLLOUT : EPOLLIN, EPOLL_CTL_MOD);
    c->unsent = begun;
}

static void take_echoes(struct connection *c) {
    ssize_t count = line_recv(&c->line, buffer, sizeof buffer);
    if (count < 0 && errno == EAGAIN) return;
    if (count <= 0) fail("the server closed a connection");
    for (size_t at = 0, size = (size_t)count; at < size;) {
        if (!under_way(c)) fail("more came back than was sent");
        size_t piece = back_bytes - c->at < size - at ? back_bytes - c->at : size - at;
        if (memcmp(buffer + at, expected + (c->received % RING) * back_bytes + c->at, piece) != 0)
            fail("something else came back than was sent");
        at += piece;
        c->at += piece;
        if (c->at == back_bytes) {
            c->at = 0;
            c->received++;
            phase.messages++;
        }
    }
    send_more(c);
}

static void begin(bool upload) {
    memset(&phase, 0, sizeof phase);
    phase.running = true;
    phase.upload = upload;
    phase.started_ns = phase.last_ns = read_clock();
}

static void check_echo(void) {
    if (phase.last_ns < phase.stop_ns) return;
    for (int i = 0; i < opt.connections; i++)
        if (under_way(&connections[i])) return;
    double wall_s = (double)(phase.last_ns - phase.started_ns) / 1e9;
    printf("{\"event\":\"echo\",\"messages\":%lu,\"wall_s\":%.6f,\"client_busy_s\":%.6f}\n",
        phase.messages, wall_s, (double)phase.busy_ns / 1e9);
    fflush(stdout);
    phase.running = false;
}

/* ----------------------------------------------------------------- upload */

static void send_upload(struct connection *c) {
    static const unsigned char mask[4] = {0x37, 0xfa, 0x21, 0x3d};
    unsigned char question[16];
    size_t question_bytes = put_masked(question, 2, (const unsigned char *)"?", 1, mask);
    while (phase.messages < phase.wanted) {
        /* at: how much of the frame the kernel has already */
        ssize_t count = line_send(&c->line, outgoing + c->at, out_bytes - c->at);
        if (count < 0 && errno == EAGAIN) {
            watch(c, EPOLLIN | EPOLLOUT, EPOLL_CTL_MOD);
            return;
        }
        if (count < 0) fail("the server closed the connection");
        c->at += (size_t)count;
        if (c->at == out_bytes) {
            c->at = 0;
            phase.messages++;
        }
    }
    if (!phase.asked) {
        ssize_t count = line_send(&c->line, question, question_bytes);
        if (count < 0 && errno == EAGAIN) return;
        if (count != (ssize_t)question_bytes) fail("the question could not be sent");
        phase.asked = true;
        watch(c, EPOLLIN, EPOLL_CTL_MOD);
    }
}

static void take_ack(struct connection *c) {
    ssize_t count = line_recv(&c->line, buffer, sizeof buffer);
    if (count < 0 && errno == EAGAIN) return;
    if (count <= 0) fail("the server closed the connection");
    if ((buffer[0] & 0x0f) == 9) return; /* a ping: the upload is over before its answer is due */
    size_t size = (size_t)count < 2 ? 0 : (size_t)buffer[1];
    if ((unsigned char)buffer[0] != 0x81 || size > 20 || (size_t)count != 2 + size) fail("the answer is no short text message");
    buffer[count] = 0;
    uint64_t wanted = phase.wanted * opt.size + 1, got = strtoull(buffer + 2, NULL, 10);
    if (!phase.asked || got != wanted) fail("the server says %lu bytes arrived, %lu were sent", got, wanted);
    double wall_s = (double)(phase.last_ns - phase.started_ns) / 1e9;
    printf("{\"event\":\"upload\",\"messages\":%lu,\"bytes\":%lu,\"wall_s\":%.6f,\"client_busy_s\":%.6f}\n",
        phase.messages, got, wall_s, (double)phase.busy_ns / 1e9);
    fflush(stdout);
    phase.running = false;
}

/* -------------------------------------------------------------------- run */

static void on_line(char *line) {
    if (phase.running) fail("one phase at a time");
    if (strncmp(line, "echo ", 5) == 0) {
        begin(false);
        phase.stop_ns = phase.started_ns + (uint64_t)(atof(line + 5) * 1e9);
        for (int i = 0; i < opt.connections; i++) send_more(&connections[i]);
    } else if (strncmp(line, "upload ", 7) == 0) {
        begin(true);
        phase.wanted = strtoull(line + 7, NULL, 10);
        send_upload(&connections[0]);
    } else fail("not a command: %s", line);
}

static void on_event(struct connection *c, uint32_t events) {
    if (!c) read_lines(on_line);
    else if (!c->open && events & EPOLLOUT) send_request(c);
    else if (!c->open) take_answer(c);
    else if (phase.upload) {
        if (events & EPOLLIN) take_ack(c);
        if (events & EPOLLOUT && phase.running) send_upload(c);
    } else {
        if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) take_echoes(c);
        if (events & EPOLLOUT) send_more(c);
    }
}

static void run_events(int timeout_ms) {
    struct epoll_event events[256];
    int count = epoll_wait(epoll_fd, events, 256, timeout_ms);
    uint64_t began_ns = read_clock();
    if (count > 0) phase.last_ns = began_ns;
    for (int i = 0; i < count; i++) on_event(events[i].data.ptr, events[i].events);
    uint64_t ended_ns = read_clock();
    if (phase.running && count > 0 && phase.started_ns <= began_ns) phase.busy_ns += ended_ns - began_ns;
    if (phase.running && (double)(ended_ns - phase.last_ns) / 1e9 > opt.idle_timeout_s)
        fail("nothing came back for %.0f s", opt.idle_timeout_s);
    if (phase.running && !phase.upload) check_echo();
}

static void parse_options(int argc, char **argv) {
    static const struct option names[] = {
        {"port", 1, 0, 'p'}, {"path", 1, 0, 'a'}, {"connections", 1, 0, 'n'}, {"depth", 1, 0, 'd'}, {"size", 1, 0, 's'},
        {"spin", 0, 0, 'b'}, {"idle-timeout", 1, 0, 'i'}, {0}};
    for (int name; (name = getopt_long(argc, argv, "", names, NULL)) != -1;) {
        switch (name) {
        case 'p': opt.port = atoi(optarg); break;
        case 'a': opt.path = optarg; break;
        case 'n': opt.connections = atoi(optarg); break;
        case 'd': opt.depth = atoi(optarg); break;
        case 's': opt.size = (size_t)atol(optarg); break;
        case 'b': opt.spin = true; break;
        case 'i': opt.idle_timeout_s = atof(optarg); break;
        default: fail("an option is not known");
        }
    }
    if (!opt.port || opt.connections < 1 || opt.depth < 1 || opt.depth > RING || opt.size < 10)
        fail("--port is needed, --connections at least 1, --depth 1 to %d, --size at least 10", RING);
}

int main(int argc, char **argv) {
    parse_options(argc, argv);
    raise_open_files(opt.connections);
    /* large messages are all the same: what matters is their number of bytes */
    if (opt.size > 65535) make_frames(2, 1);
    else make_frames(1, RING);
    if (!(connections = calloc((size_t)opt.connections, sizeof *connections))) fail("out of memory");
    if ((epoll_fd = epoll_create1(EPOLL_CLOEXEC)) < 0) fail("epoll_create1: %s", strerror(errno));
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, STDIN_FILENO, &event);
    for (int i = 0; i < opt.connections; i++) {
        open_connection(&connections[i]);
        while (opened <= i) run_events(1000);
    }
    printf("{\"event\":\"ready\",\"connections\":%d}\n", opt.connections);
    fflush(stdout);
    for (;;) run_events(opt.spin && phase.running ? 0 : 50);
}
