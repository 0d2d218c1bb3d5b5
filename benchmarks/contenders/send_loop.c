/*
 * The limit: what one process can do with one send() per subscriber and tick, in C. Not a server for anybody: it shakes
 * hands, forgets what clients say, and fans out. Frames are made once and joined; a socket that takes nothing is
 * waited for.
 *
 * Commands as in contenders/harness.py (flood and pace). Linux only: epoll.
 */
#include "../load/common.h"

enum { SUBSCRIBERS_MAX = 1 << 16, BATCH_BYTES = 1 << 20 };

struct subscriber {
    struct line line;
    int index; /* among the open ones; -1: its handshake is not over */
};

static struct subscriber *open_ones[SUBSCRIBERS_MAX];
static int open_count, epoll_fd, listener, port;
static uint64_t seq;
static char batch[BATCH_BYTES], scratch[1 << 16];
static size_t batch_bytes;

/* ------------------------------------------------------- handshake (SHA-1) */

static uint32_t rotate(uint32_t x, int by) {
    return x << by | x >> (32 - by);
}

/* FIPS 180-4, section 6.1, one block of 64 bytes */
static void sha1_block(uint32_t h[5], const unsigned char *p) {
    static const uint32_t k[4] = {0x5A827999, 0x6ED9EBA1, 0x8F1BBCDC, 0xCA62C1D6};
    uint32_t w[80], a = h[0], b = h[1], c = h[2], d = h[3], e = h[4];
    for (int i = 0; i < 16; i++) w[i] = (uint32_t)p[4 * i] << 24 | (uint32_t)p[4 * i + 1] << 16 | (uint32_t)p[4 * i + 2] << 8 | p[4 * i + 3];
    for (int i = 16; i < 80; i++) w[i] = rotate(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
    for (int i = 0; i < 80; i++) {
        uint32_t f = i < 20 ? (b & c) | (~b & d) : i < 40 || i >= 60 ? b ^ c ^ d : (b & c) | (b & d) | (c & d);
        uint32_t next = rotate(a, 5) + f + e + k[i / 20] + w[i];
        e = d, d = c, c = rotate(b, 30), b = a, a = next;
    }
    h[0] += a, h[1] += b, h[2] += c, h[3] += d, h[4] += e;
}

/* RFC 6455, section 4.2.2: key and GUID are 60 bytes, so two blocks */
static void accept_of(const char *key, char out[29]) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    unsigned char text[128] = {0}, digest[21] = {0};
    uint32_t h[5] = {0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0};
    memcpy(text, key, 24);
    memcpy(text + 24, "258EAFA5-E914-47DA-95CA-C5AB0DC85B11", 36);
    text[60] = 0x80;
    text[126] = 480 >> 8, text[127] = 480 & 255; /* the length in bits */
    sha1_block(h, text);
    sha1_block(h, text + 64);
    for (int i = 0; i < 20; i++) digest[i] = (unsigned char)(h[i / 4] >> (24 - 8 * (i % 4)));
    for (int i = 0; i < 7; i++) {
        uint32_t three = (uint32_t)digest[3 * i] << 16 | (uint32_t)digest[3 * i + 1] << 8 | digest[3 * i + 2];
        for (int j = 0; j < 4; j++) out[4 * i + j] = digits[three >> (18 - 6 * j) & 63];
    }
    out[27] = '=', out[28] = 0;
}

static void forget(struct subscriber *s) {
    if (s->index >= 0) {
        open_ones[s->index] = open_ones[--open_count];
        open_ones[s->index]->index = s->index;
    }
    close(s->line.fd);
    free(s);
}

static void answer(struct subscriber *s, const char *request) {
    char text[200], accept[29];
    const char *key = strcasestr(request, "\r\nsec-websocket-key: ");
    if (!key || strlen(key) < 45) {
        forget(s);
        return;
    }
    accept_of(key + 21, accept);
    int size = snprintf(text, sizeof text, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Accept: %s\r\n\r\n", accept);
    if (send(s->line.fd, text, (size_t)size, MSG_NOSIGNAL) != size || open_count == SUBSCRIBERS_MAX) {
        forget(s);
        return;
    }
    s->index = open_count;
    open_ones[open_count++] = s;
}

static void on_readable(struct subscriber *s) {
    ssize_t count = recv(s->line.fd, scratch, sizeof scratch - 1, 0);
    if (count < 0 && errno == EAGAIN) return;
    if (count <= 0) forget(s);
    else if (s->index < 0) { /* a request of one segment, as the load client sends it */
        scratch[count] = 0;
        answer(s, scratch);
    }
}

static void accept_all(void) {
    for (int one = 1, fd; (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0;) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        struct subscriber *s = calloc(1, sizeof *s);
        if (!s) fail("out of memory");
        s->line.fd = fd;
        s->index = -1;
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = s};
        epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event);
    }
}

/* ---------------------------------------------------------------- fan-out */

static void put_message(uint64_t due_ns, size_t size) {
    char *p = batch + batch_bytes;
    size_t head = size < 126 ? 2 : 4;
    if (size > 65535 || batch_bytes + head + size > BATCH_BYTES) fail("a batch is too large");
    p[0] = (char)0x81;
    p[1] = (char)(head == 2 ? size : 126);
    if (head == 4) p[2] = (char)(size >> 8), p[3] = (char)size;
    p += head;
    memset(p, 'x', size);
    seq++;
    int used = snprintf(scratch, sizeof scratch, "{\"seq\":%lu,\"t\":%lu,\"id\":%lu,\"pad\":\"", seq, due_ns, seq % 100);
    memcpy(p, scratch, (size_t)used);
    memcpy(p + size - 2, "\"}", 2);
    batch_bytes += head + size;
}

static void send_all(struct subscriber *s) {
    for (size_t at = 0; at < batch_bytes;) {
        ssize_t count = send(s->line.fd, batch + at, batch_bytes - at, MSG_NOSIGNAL);
        if (count > 0) at += (size_t)count;
        else if (errno != EAGAIN) return; /* its end will be read */
        else {
            struct epoll_event event = {.events = EPOLLOUT}, got;
            int waiting = epoll_create1(EPOLL_CLOEXEC);
            epoll_ctl(waiting, EPOLL_CTL_ADD, s->line.fd, &event);
            epoll_wait(waiting, &got, 1, 1000);
            close(waiting);
        }
    }
}

static void flush_batch(void) {
    for (int i = 0; i < open_count; i++) send_all(open_ones[i]);
    batch_bytes = 0;
}

static void run_events(int timeout_ms);

static double field(const char *line, const char *name) {
    char mark[40];
    snprintf(mark, sizeof mark, "\"%s\": ", name);
    const char *p = strstr(line, mark);
    return p ? atof(p + strlen(mark)) : 0;
}

static void tell(uint64_t first, uint64_t started_ns) {
    printf("{\"published\": %lu, \"last\": %lu, \"seconds\": %.6f, \"errors\": 0}\n", seq - first, seq,
        (double)(read_clock() - started_ns) / 1e9);
    fflush(stdout);
}

static void flood(const char *line) {
    uint64_t started_ns = read_clock(), first = seq, stop_ns = started_ns + (uint64_t)(field(line, "seconds") * 1e9);
    int burst = (int)field(line, "burst");
    size_t size = (size_t)field(line, "size");
    while (read_clock() < stop_ns) {
        for (int i = 0; i < burst; i++) put_message(read_clock(), size);
        flush_batch();
        run_events(0);
    }
    tell(first, started_ns);
}

static void pace(const char *line) {
    uint64_t started_ns = read_clock(), first = seq;
    double rate = field(line, "rate"), lead_in = field(line, "lead_in_s") * rate;
    uint64_t count = (uint64_t)((field(line, "seconds") + field(line, "lead_in_s")) * rate);
    size_t size = (size_t)field(line, "size");
    for (uint64_t i = 0; i < count; i++) {
        uint64_t due_ns = started_ns + (uint64_t)((double)(i + 1) * 1e9 / rate), now_ns;
        run_events(0);
        if ((now_ns = read_clock()) < due_ns) {
            struct timespec rest = {(time_t)((due_ns - now_ns) / 1000000000u), (long)((due_ns - now_ns) % 1000000000u)};
            nanosleep(&rest, NULL);
        }
        put_message((double)i >= lead_in ? due_ns : 0, size);
        flush_batch();
    }
    tell(first, started_ns);
}

static void on_line(char *line) {
    if (strstr(line, "\"flood\"")) flood(line);
    else if (strstr(line, "\"pace\"")) pace(line);
    else {
        printf("{\"error\": \"the C loop knows flood and pace only\"}\n");
        fflush(stdout);
    }
}

/* -------------------------------------------------------------------- run */

static void run_events(int timeout_ms) {
    struct epoll_event events[256];
    int count = epoll_wait(epoll_fd, events, 256, timeout_ms);
    for (int i = 0; i < count; i++) {
        if (events[i].data.ptr == &listener) accept_all();
        else if (events[i].data.ptr == &port) read_lines(on_line);
        else on_readable(events[i].data.ptr);
    }
}

int main(int argc, char **argv) {
    if (argc != 3 || strcmp(argv[1], "--port") != 0) fail("--port is needed");
    port = atoi(argv[2]);
    raise_open_files(1024);
    signal(SIGPIPE, SIG_IGN);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int one = 1;
    listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(listener, 4096) < 0)
        fail("port %d: %s", port, strerror(errno));
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = &listener};
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &event);
    event.data.ptr = &port; /* stands for standard input */
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, STDIN_FILENO, &event);
    for (;;) run_events(-1);
}
