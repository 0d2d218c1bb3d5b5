// This machine: the newest sample from `pulse`, the last minute from `pulse/history`.
import { timeChart } from "./charts.js";
import { openLine } from "./line.js";
import { $, bytes, calm, element, say } from "./format.js";

const KEEP = 600, BREAK_S = 1, MANY_CORES = 8;
const columns = [[], [], [], [], [], []];      // at, cpu, in, out, read, write
const spans = [];                              // stretches that were missed
let latest = null, last = null, missing = 0, heard_ms = 0, recovering = 0, lost = false;
let cores = [];

const clock = () => columns[0].length ? columns[0].at(-1) + Math.min(30, (performance.now() - heard_ms) / 1000) : 0;

function showSample(sample) {
  latest = sample;
  say($("cpu"), sample.cpu.toFixed(1));
  say($("load"), sample.load.toFixed(2));
  say($("system"), `${sample.system}, ${sample.cores.length} cores`);
  say($("memory"), `${bytes(sample.memory.used)} of ${bytes(sample.memory.total)}`);
  $("memory-bar").style.transform = `scaleX(${sample.memory.used / sample.memory.total})`;
  const rates = { "net-in": sample.network?.[0], "net-out": sample.network?.[1], "disk-read": sample.disk?.[0], "disk-write": sample.disk?.[1] };
  for (const [id, rate] of Object.entries(rates)) say($(id), rate == null ? "n/a" : bytes(rate));
  showCores(sample.cores);
  showProcesses(sample.processes);
}

function showCores(loads) {
  if (cores.length !== loads.length) {
    const many = loads.length > MANY_CORES;
    $("cores").classList.toggle("many", many);
    cores = loads.map((_, index) => {
      const bar = element("i"), value = element("span", { className: "num" });
      $("cores").append(element("div", { className: "core" }, element("span", {}, `core ${index}`), element("span", { className: "meter" }, bar), value));
      return { bar, value, many };
    });
    $("cores").replaceChildren(...[...$("cores").children].slice(-loads.length));
  }
  loads.forEach((load, index) => {
    cores[index].bar.style.transform = cores[index].many ? `scaleY(${load / 100})` : `scaleX(${load / 100})`;
    say(cores[index].value, `${Math.round(load)}%`);
  });
}

function showProcesses(processes) {
  const body = $("processes");
  while (body.rows.length < processes.length) body.insertRow().append(element("td"), element("td"), element("td"));
  while (body.rows.length > processes.length) body.deleteRow(-1);
  processes.forEach((process, index) => {
    const [name, cpu, memory] = body.rows[index].cells;
    say(name, process.name.slice(0, 40));
    say(cpu, `${process.cpu.toFixed(1)}%`);
    say(memory, bytes(process.memory));
  });
}

function audit(position) {                     // of one epoch no offset may be missing or come twice: counted, for the tests
  const [epoch, offset] = position.split(":");
  if (last?.epoch === epoch) missing += Math.abs(Number(offset) - last.offset - 1);
  last = { epoch, offset: Number(offset) };
}

function addPoint([at, ...values], { position }) {
  audit(position);
  const before = columns[0].at(-1);
  if (before !== undefined && at - before > BREAK_S) {         // nothing was measured in between: show the hole
    columns.forEach((column, index) => column.push(index ? null : before + 0.001));
    if (lost) spans.push({ from: before, to: at, kind: "lost" });
  }
  lost = false;
  if (recovering > 0) {
    recovering--;
    const span = spans.at(-1);
    if (span?.kind === "recovered" && span.open) span.to = at;
    else spans.push({ from: before ?? at, to: at, kind: "recovered", open: true });
    if (!recovering) spans.at(-1).open = false;
  }
  [at, ...values].forEach((value, index) => columns[index].push(value));
  if (columns[0].length > KEEP + 20) for (const column of columns) column.splice(0, 20);
  while (spans.length && spans[0].to < columns[0][0]) spans.shift();
  heard_ms = performance.now();
}

export function startPulse() {
  const options = { now: clock, spans };
  const charts = [
    [timeChart($("cpu-chart"), ["--accent"], { ...options, ceiling: 100, axis: "percent" }), [0, 1]],
    [timeChart($("network-chart"), ["--accent", "--second"], options), [0, 2, 3]],
    [timeChart($("disk-chart"), ["--accent", "--second"], options), [0, 4, 5]],
  ];
  let drawn_ms = 0;
  const draw = (now) => {
    requestAnimationFrame(draw);
    if (!columns[0].length || now - drawn_ms < (calm.matches ? 500 : 90)) return;
    drawn_ms = now;
    for (const [chart, picked] of charts) chart.plot.setData(picked.map((index) => columns[index]));
  };
  requestAnimationFrame(draw);

  openLine("pulse", "/live/pulse", { rule: "newest value, ten times a second", keeps: true, silence_ms: 10000, onMessage: showSample });
  openLine("pulse/history", "/live/pulse/history", {
    rule: "a log of the last minute", keeps: true, since: "-1", silence_ms: 10000, onMessage: addPoint,
    onResumed: ({ recovered, count }) => { recovering = recovered ? count : 0; lost = !recovered; },
    onGap: () => { lost = true; },
  });
}

export const snapshot = () => ({ pulse: latest, points: columns[0].length, holes: columns[1].filter((value) => value === null).length, missing, spans: spans.map(({ from, to, kind }) => ({ from, to, kind })) });
