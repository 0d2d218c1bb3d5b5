// Starts the page. Everything it shows arrives over plain topic URLs; live.js is how.
import * as chain from "./chain.js";
import { repaint } from "./charts.js";
import * as chat from "./chat.js";
import * as line from "./line.js";
import * as pulse from "./pulse.js";
import { $, forgetColours, say } from "./format.js";

const trips = [];                              // the last round trips in milliseconds
const mine = Array.from(crypto.getRandomValues(new Uint8Array(8)), (byte) => byte.toString(16).padStart(2, "0")).join("");

function quantile(share) {
  const sorted = [...trips].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))];
}

const short = (ms) => ms.toFixed(ms < 99.5 ? 1 : 0);

function startEcho() {                         // one clock, ours: publish, hear it back, subtract
  const echo = line.openLine("echo", `/live/echo/${mine}`, {
    rule: "a signal: publish and hear it back", keeps: false,
    describe: {
      big: () => trips.length ? `${short(quantile(0.5))} ms` : "\u2013",
      small: () => trips.length ? `round trip, p95 ${short(quantile(0.95))}` : "round trip",
    },
    onMessage: ({ sent_ms }) => {
      if (typeof sent_ms !== "number") return;
      trips.push(performance.now() - sent_ms);
      if (trips.length > 60) trips.shift();
    },
  });
  setInterval(() => { if (!document.hidden) echo.topic.send({ sent_ms: performance.now() }); }, 500);
}

function startTheme() {
  $("theme").addEventListener("click", () => {
    const next = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    document.documentElement.dataset.theme = next;
    localStorage.setItem("tidewire-theme", next);
    forgetColours();
    repaint();
    chain.retheme();
  });
}

function startFoot() {
  const command = `curl -N -H 'Accept: text/event-stream' ${location.origin}/live/pulse`;
  say($("curl"), command);
  $("copy").addEventListener("click", async () => {
    await navigator.clipboard?.writeText(command);
    say($("copy"), "copied");
  });
}

await Promise.all([document.fonts.load('500 12px "Geist Mono"'), document.fonts.load("500 12px Geist")]).catch(() => {});
pulse.startPulse();
chain.startChain();
chat.startChat();
startEcho();
startTheme();
startFoot();

// For tests and for the curious: what the page knows, as plain data.
window.__demo = { snapshot: () => ({ ...line.snapshot(), ...pulse.snapshot(), chain: chain.snapshot(), chat: chat.snapshot(), trips: [...trips] }) };
