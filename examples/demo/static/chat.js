// The lobby: a log topic that everybody may publish to. What others wrote is shown as text, never as markup.
import { openLine } from "./line.js";
import { $, element } from "./format.js";

const SHOWN = 200, TEXT_MAX = 280, NAME_MAX = 24, HUES = 6;
const FIRST = ["Amber", "Brisk", "Calm", "Dune", "Ebb", "Foam", "Gale", "Harbour", "Inlet", "Jetty", "Kelp", "Lagoon"];
const SECOND = ["otter", "heron", "seal", "tern", "crab", "gull", "ray", "whale", "plover", "cod"];
const pick = (list) => list[Math.floor(Math.random() * list.length)];

const seen = new Set();                        // ids shown: a line that was sent twice is shown once
const pending = new Map();                     // id -> {line, node}: written here, not yet heard back
let line = null;

function readable(line) {                      // anybody can publish anything here: take only what we can show
  if (!line || typeof line !== "object" || typeof line.text !== "string" || typeof line.name !== "string") return null;
  const text = line.text.trim().slice(0, TEXT_MAX), name = line.name.trim().slice(0, NAME_MAX) || "nobody";
  if (!text) return null;
  return { id: String(line.id ?? "").slice(0, 64), at: Number.isFinite(line.at) ? line.at : null, name, text };
}

function lineNode({ at, name, text }) {
  const hue = [...name].reduce((sum, letter) => (sum * 31 + letter.codePointAt(0)) % 9973, 7) % HUES;
  const when = at === null ? "" : new Date(at).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hour12: false });
  return element("li", { className: "line" }, element("span", { className: "when" }, when),
    element("span", { className: `who hue-${hue}` }, name), element("span", { className: "said" }, text));
}

function add(node, before = null) {
  const list = $("chat"), atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
  list.querySelector(".empty")?.remove();
  list.insertBefore(node, before);
  while (list.children.length > SHOWN) list.firstElementChild.remove();
  if (atEnd) list.scrollTop = list.scrollHeight;
}

function receive(data) {
  const said = readable(data);
  if (!said || (said.id && seen.has(said.id))) return;
  if (said.id) seen.add(said.id);
  if (seen.size > 5 * SHOWN) seen.delete(seen.values().next().value);
  pending.get(said.id)?.node.remove();
  pending.delete(said.id);
  add(lineNode(said), pending.values().next().value?.node ?? null);
}

function mark(text, kind) {
  const node = element("li", { className: "line mark" }, text);
  node.dataset.kind = kind;
  add(node, pending.values().next().value?.node ?? null);
}

function submit(event) {
  event.preventDefault();
  const text = $("text").value.trim();
  if (!text) return;
  const said = { id: crypto.randomUUID?.() ?? String(Math.random()).slice(2), at: Date.now(), name: $("name").value.trim() || "nobody", text };
  const node = lineNode(said);
  node.dataset.pending = "";
  pending.set(said.id, { said, node });
  add(node);
  line.topic.send(said);
  $("text").value = "";
  localStorage.setItem("tidewire-name", said.name);
}

function resend(state) {                       // after a break: what was not heard back goes out again; ids keep it single
  if (state !== "live") return;
  setTimeout(() => { for (const { said } of pending.values()) line.topic.send(said); }, 300);
}

export function startChat() {
  $("name").value = localStorage.getItem("tidewire-name") ?? `${pick(FIRST)} ${pick(SECOND)}`;
  $("say").addEventListener("submit", submit);
  add(element("li", { className: "line empty" }, "Nobody has said anything yet. Open a second window and talk to yourself."));
  line = openLine("chat/lobby", "/live/chat/lobby", {
    rule: "a log; everybody may write", keeps: true, since: "-1", onMessage: receive, onState: resend,
    onResumed: ({ recovered, count }) => {
      if (!recovered) mark("the server lost the older lines", "bad");
      else if (count) mark(count === 1 ? "1 line recovered" : `${count} lines recovered`, "good");
    },
    onGap: () => mark("some lines were lost", "bad"),
  });
}

export const snapshot = () => [...document.querySelectorAll("#chat .line:not(.mark, .empty, [data-pending]) .said")].map((node) => node.textContent);
