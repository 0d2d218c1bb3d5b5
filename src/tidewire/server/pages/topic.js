// The live page of one topic: an EventSource on this very URL, shown as text.
const byId = (id) => document.getElementById(id);
const SHOWN_MAX = 200;
let count = 0;
let recent = 0;
let rows = [];
let drawing = false;

byId("curl").textContent = `curl -N -H "Accept: text/event-stream" ${location.href}`;

function show(text, className = "") {
  rows.unshift({ text, className });
  rows.length = Math.min(rows.length, SHOWN_MAX);
  if (!drawing) {
    drawing = true;
    requestAnimationFrame(draw);
  }
}

function draw() {
  drawing = false;
  byId("count").textContent = count.toLocaleString();
  byId("messages").replaceChildren(...rows.map(({ text, className }) => {
    const row = document.createElement("li");
    row.textContent = text;
    row.className = className;
    return row;
  }));
}

function setState(text, className = "") {
  byId("state").textContent = text;
  byId("state").className = className;
}

function onMessage(event) {
  count += 1;
  recent += 1;
  if (event.lastEventId) byId("position").textContent = event.lastEventId;
  show(event.type === "binary" ? `binary, base64: ${event.data}` : event.data);
}

const source = new EventSource(location.href);
let opened = false;
source.addEventListener("open", () => setState(opened ? "live again" : "live", "live"));
source.addEventListener("error", () => {
  if (source.readyState === EventSource.CLOSED) setState("refused, or finished", "lost");
  else setState("cut, coming back", "lost");
});
source.addEventListener("position", (event) => {
  const { recovered, replayed } = JSON.parse(event.data);
  if (recovered === true) setState(`reconnected, ${replayed} recovered`, "live");
  opened = true;
  byId("position").textContent = event.lastEventId || "-";
});
source.addEventListener("gap", () => {
  setState("history lost, live again", "lost");
  show("messages were lost here", "note");
});
source.addEventListener("removed", (event) => show(`removed: ${JSON.parse(event.data).key}`, "note"));
source.addEventListener("end", (event) => {
  const { error } = JSON.parse(event.data);
  setState(error ? `finished: ${error}` : "finished", error ? "lost" : "live");
  source.close();
});
source.addEventListener("message", onMessage);
source.addEventListener("binary", onMessage);

setInterval(() => {
  byId("rate").textContent = String(recent);
  recent = 0;
}, 1000);
