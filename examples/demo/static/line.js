// The lines of this page: one tile per topic with its honest state, one sentence for all of them, and the cut.
import { LiveTopic } from "./live.js";
import { $, bytes, element, say, seconds, whole } from "./format.js";

const WINDOW_MS = 2000, SAMPLE_MS = 250;
const lines = new Map();                       // name -> Line
let news = { kind: "calm", text: "Connecting" };

class Line {
  constructor(name, path, { rule, keeps, describe, window_ms = WINDOW_MS, ...options }) {
    Object.assign(this, { name, path, rule, keeps, describe, window_ms });
    this.messages = 0;                         // frames received since the page opened
    this.bytes = 0;
    this.until_ms = 0;                         // when the hold or the wait ends
    this.broken = false;                       // down since it was last live
    this.outcome = null;                       // {recovered, count} of the last return
    this.samples = [[performance.now(), 0, 0]];
    this.#tile();
    this.topic = new LiveTopic(path, {
      ...options,
      onBytes: (count) => { this.messages++; this.bytes += count; },
      onState: (state, detail) => { this.#state(state, detail); options.onState?.(state, detail); },
      onResumed: (outcome) => { this.#resumed(outcome); options.onResumed?.(outcome); },
      onGap: (gap) => { this.#event("messages lost, live again", "bad"); options.onGap?.(gap); },
    });
  }

  rate() {                                     // messages and bytes a second, over the last one or two seconds
    const [first, last] = [this.samples[0], this.samples.at(-1)];
    const elapsed_s = Math.max(0.2, (last[0] - first[0]) / 1000);
    return { messages: (last[1] - first[1]) / elapsed_s, bytes: (last[2] - first[2]) / elapsed_s };
  }

  sample(now) {
    this.samples.push([now, this.messages, this.bytes]);
    while (this.samples.length > 2 && this.samples[1][0] <= now - this.window_ms) this.samples.shift();
    const rate = this.rate();
    say(this.big, this.describe?.big() ?? `${whole(rate.messages)}/s`);
    say(this.small, this.describe?.small() ?? `${bytes(rate.bytes)}/s`);
  }

  tick(now) {
    const left = this.until_ms - now;
    const words = { connecting: "connecting", live: "live", cut: `cut, ${seconds(left)}`, waiting: `reconnecting in ${seconds(left)}`, ended: "ended" };
    say(this.stateText, words[this.topic.state] ?? "");
  }

  #state(state, detail) {
    this.tile.dataset.state = state;
    this.until_ms = performance.now() + (detail.hold_ms ?? detail.retry_ms ?? 0);
    if (state === "cut" || state === "waiting") this.broken = true;
    if (state === "cut") this.#event("no socket; the server goes on", "calm");
    if (state === "waiting") this.#event("no answer from the server", "bad");
    if (state === "live" && this.broken && !this.keeps) {
      this.#event("reconnected; nothing is kept here", "calm");
    }
    if (state === "live") queueMicrotask(summarise);
    else if (this.topic) summarise();
  }

  #resumed(outcome) {
    if (!this.broken) return;                  // a new rate was asked for: nothing was missed
    this.outcome = outcome;
    if (outcome.recovered) this.#event(`reconnected, ${whole(outcome.count)} recovered`, "good");
    else this.#event("history lost, live again", "bad");
  }

  #event(text, kind) {
    this.eventText.dataset.kind = kind;
    say(this.eventText, text);
  }

  #tile() {
    this.stateText = element("span", { className: "topic-state" });
    this.big = element("span", { className: "num" });
    this.small = element("span", { className: "num small" });
    this.eventText = element("div", { className: "topic-event" }, this.rule);
    this.tile = element("div", { className: "topic", title: `${this.path}: ${this.rule}` },
      element("div", { className: "topic-head" }, element("i", { className: "dot" }),
        element("span", { className: "topic-name" }, this.name), this.stateText),
      element("div", { className: "topic-rate" }, this.big, this.small), this.eventText);
    this.tile.dataset.topic = this.name;
    $("topics").append(this.tile);
  }
}

export function openLine(name, path, options) {
  const line = new Line(name, path, options);
  lines.set(name, line);
  return line;
}

function summarise() {                         // one sentence for the whole page
  const all = [...lines.values()];
  const states = all.map((line) => line.topic?.state);
  $("cut").disabled = states.includes("cut");
  if (states.includes("cut")) return announce("bad", "Cut. The server goes on without this page; back in ");
  if (states.includes("waiting")) return announce("warn", "No answer from the server; next attempt in ");
  if (!states.every((state) => state === "live")) return undefined;
  const broken = all.filter((line) => line.broken);
  if (!broken.length) return announce("calm", "All topics live");
  const lost = broken.filter((line) => line.outcome && !line.outcome.recovered);
  const count = broken.reduce((sum, line) => sum + (line.outcome?.recovered ? line.outcome.count : 0), 0);
  for (const line of broken) Object.assign(line, { broken: false, outcome: null });
  if (lost.length) return announce("warn", "Back, but the server had lost its history: live again from here");
  return announce("good", `Reconnected, ${whole(count)} messages recovered, nothing lost`);
}

function announce(kind, text) {
  news = { kind, text };
  document.querySelector(".status").dataset.kind = kind;
  say($("line-status"), text);
}

function countdown(now) {
  const waits = [...lines.values()].filter((line) => ["cut", "waiting"].includes(line.topic.state));
  const next = Math.min(...waits.map((line) => line.until_ms));
  say($("line-countdown"), waits.length ? seconds(next - now) : "");
}

$("cut").addEventListener("click", () => { for (const line of lines.values()) line.topic.cut(Number($("cut").dataset.holdMs)); });
setInterval(() => { for (const line of lines.values()) line.sample(performance.now()); }, SAMPLE_MS);
setInterval(() => {
  const now = performance.now();
  for (const line of lines.values()) line.tick(now);
  countdown(now);
}, 100);

export function snapshot() {
  return { status: news.text, topics: Object.fromEntries([...lines].map(([name, line]) => [name, {
    state: line.topic.state, event: line.eventText.textContent, messages: line.messages, bytes: line.bytes,
    position: line.topic.position }])) };
}
