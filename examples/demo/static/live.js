// A live topic in about a hundred lines: one WebSocket per topic, comes back by itself, misses nothing silently.
// Copy it, change it. No dependencies; the server side is a plain Tidewire topic URL.
//
//   const topic = new LiveTopic("/live/chat/lobby", {
//     since: "-1",                              // everything kept; "now" (default) = from here on
//     onMessage: (data, message) => {},         // message: {position, data | text | base64, key?, removed?, snapshot?}
//     onState: (state, detail) => {},           // connecting, live, waiting {retry_ms}, cut {hold_ms}, ended {error}
//     onResumed: ({recovered, count}) => {},    // after a break: `count` messages follow that were missed, or history is lost
//     onGap: ({from, to}) => {},                // messages were lost while connected
//   });
//   topic.send({hello: "world"});               // false if the line is down: nothing is sent, nothing is queued

const RETRY_FIRST_MS = 250, RETRY_MAX_MS = 8000;

export class LiveTopic {
  constructor(path, options = {}) {
    this.path = path;
    this.options = options;
    this.params = options.params ?? {};      // further query parameters, such as max_per_s
    this.position = null;                    // of the last message seen: where a new socket goes on
    this.state = "new";
    this.attempts = 0;                       // in a row that brought no connection
    this.socket = null;
    this.timer = 0;                          // the next attempt
    this.watchdog = 0;                       // fires when a topic that always speaks falls silent
    addEventListener("online", () => this.state === "waiting" && this.open());
    this.open();
  }

  open() {
    clearTimeout(this.timer);
    this.#drop();
    const url = new URL(this.path, location.href);
    url.protocol = url.protocol.replace("http", "ws");
    url.searchParams.set("positions", "1");
    const since = this.position ?? this.options.since;
    if (since) url.searchParams.set("since", since);
    for (const [name, value] of Object.entries(this.params)) url.searchParams.set(name, value);
    this.#enter("connecting");
    const socket = this.socket = new WebSocket(url);
    let greeted = false;
    socket.onmessage = (event) => {
      this.options.onBytes?.(event.data.length);
      this.#watch();
      const message = JSON.parse(event.data);
      if (greeted) return this.#receive(message);
      greeted = true;
      this.#greet(message);
    };
    socket.onclose = () => this.#retry();
    this.#watch();
  }

  send(value) {
    if (this.state !== "live" || this.socket.readyState !== WebSocket.OPEN) return false;
    this.socket.send(typeof value === "string" ? value : JSON.stringify(value));
    return true;
  }

  set(params) {                              // e.g. {max_per_s: 2}: asks again, and goes on where it was
    this.params = { ...this.params, ...params };
    if (this.state === "live" || this.state === "connecting") this.open();
  }

  cut(hold_ms) {                             // for demonstrations: drop the line without a word, stay away, come back
    clearTimeout(this.timer);
    this.#drop();
    this.#enter("cut", { hold_ms });
    this.timer = setTimeout(() => this.open(), hold_ms);
  }

  close() {
    clearTimeout(this.timer);
    this.#drop();
    this.#enter("ended", { error: null });
  }

  #greet({ position, recovered, replayed }) {
    const resumed = this.position !== null && position !== null;
    this.attempts = 0;
    this.position = position;
    this.#enter("live", { replayed });
    if (resumed) this.options.onResumed?.({ recovered: recovered === true, count: replayed });
    this.toldOfLoss = resumed && recovered === false;
  }

  #receive(message) {
    if (message.gap) {
      this.position = message.gap.to;
      if (!this.toldOfLoss) this.options.onGap?.(message.gap);   // right after a greeting it says the same again
      this.toldOfLoss = false;
    } else if (message.end) {
      this.#drop();
      this.#enter("ended", { error: message.end.error });
    } else {
      if (message.position) this.position = message.position;
      this.options.onMessage?.(message.data ?? message.text ?? message.base64, message);
    }
  }

  #retry() {
    this.#drop();
    const ceiling = Math.min(RETRY_MAX_MS, RETRY_FIRST_MS * 2 ** this.attempts++);
    const retry_ms = ceiling * (0.5 + Math.random() / 2);        // jitter: a thousand pages must not return at once
    this.#enter("waiting", { retry_ms });
    this.timer = setTimeout(() => this.open(), retry_ms);
  }

  #watch() {                                 // a half-open line looks open for minutes: silence is the only sign
    clearTimeout(this.watchdog);
    const limit = this.options.silence_ms;
    if (limit) this.watchdog = setTimeout(() => this.#retry(), limit);
  }

  #drop() {
    clearTimeout(this.watchdog);
    if (!this.socket) return;
    this.socket.onmessage = this.socket.onclose = null;
    this.socket.close();
    this.socket = null;
  }

  #enter(state, detail = {}) {
    this.state = state;
    this.options.onState?.(state, detail);
  }
}
