// Small uPlot charts that follow the theme. A time chart shows the last minute and moves with the clock.
import { css } from "./format.js";

const MONO = '11px "Geist Mono", ui-monospace, monospace';
const charts = new Set();

function fade(name, strength) {                // from the line down to nothing
  return (u) => {
    const { top, height } = u.bbox;
    if (!height) return "transparent";
    const gradient = u.ctx.createLinearGradient(0, top, 0, top + height);
    gradient.addColorStop(0, css(name) + strength);
    gradient.addColorStop(1, css(name) + "00");
    return gradient;
  };
}

function make(host, options, data) {
  const build = () => new uPlot({ width: host.clientWidth || 200, height: host.clientHeight || 40, legend: { show: false },
    cursor: { show: false }, ...options }, data, host);
  const chart = { host, plot: build(), rebuild() { const kept = chart.plot.data; chart.plot.destroy(); data = kept; chart.plot = build(); } };
  new ResizeObserver(() => {
    if (host.clientWidth && host.clientHeight) chart.plot.setSize({ width: host.clientWidth, height: host.clientHeight });
  }).observe(host);
  charts.add(chart);
  return chart;
}

export function repaint() { for (const chart of charts) chart.rebuild(); }

function drawSpans(u, spans) {                 // the stretches that were missed: got back, or lost for good
  u.ctx.save();                                // uPlot remembers what it set last: leave its context as it was
  for (const { from, to, kind } of spans) {
    const left = Math.max(u.valToPos(from, "x", true), u.bbox.left);
    const right = Math.min(u.valToPos(to, "x", true), u.bbox.left + u.bbox.width);
    if (right - left < 1) continue;
    u.ctx.fillStyle = css(kind === "lost" ? "--down" : "--second") + "24";
    u.ctx.fillRect(left, u.bbox.top, right - left, u.bbox.height);
    if (u.height < 60) continue;               // a sparkline has no room for words
    const ratio = devicePixelRatio, roomLeft = left - u.bbox.left > 62 * ratio;
    u.ctx.font = `500 ${11 * ratio}px Geist, sans-serif`;
    u.ctx.fillStyle = css(kind === "lost" ? "--down" : "--second");
    u.ctx.textAlign = roomLeft ? "right" : "left";
    u.ctx.textBaseline = "bottom";
    u.ctx.fillText(kind, roomLeft ? left - 5 * ratio : right + 5 * ratio, u.bbox.top + u.bbox.height - 4 * ratio);
  }
  u.ctx.restore();
}

export function timeChart(host, colours, { now, spans = [], window_s = 60, ceiling, floor = 0, axis }) {
  return make(host, {
    padding: axis === "percent" ? [7, 0, 7, 0] : [4, 0, 0, 0],
    scales: {
      x: { time: false, range: () => [now() - window_s, now()] },
      y: { range: (_u, low, high) => ceiling ? [floor, ceiling] : axis === "tight" ? tight(low, high) : [0, Math.max(high * 1.15, 4000)] },
    },
    axes: [{ show: false }, axis === "percent" ? {
      side: 1, size: 34, gap: 4, font: MONO, stroke: () => css("--faint"), ticks: { show: false },
      grid: { stroke: () => css("--line-soft"), width: 1 }, splits: () => [0, 50, 100], values: (_u, ticks) => ticks.map((n) => `${n}%`),
    } : { show: false }],
    series: [{}, ...colours.map((name, index) => ({
      stroke: () => css(name), width: 1.5, fill: fade(name, index ? "26" : "3a"), points: { show: false }, spanGaps: false,
    }))],
    hooks: { drawClear: [(u) => drawSpans(u, spans)] },
  }, [[], ...colours.map(() => [])]);
}

function tight(low, high) {
  if (low == null) return [0, 1];
  const margin = Math.max((high - low) * 0.12, 0.2);
  return [low - margin, high + margin];
}

export function smileChart(host, spot) {
  return make(host, {
    padding: [6, 6, 0, 0],
    scales: { x: { time: false }, y: { range: (_u, low, high) => low == null ? [10, 30] : [Math.floor(low - 1), Math.ceil(high + 1)] } },
    axes: [
      { size: 22, gap: 4, font: MONO, stroke: () => css("--faint"), ticks: { show: false }, grid: { show: false }, space: 48 },
      { size: 36, gap: 4, font: MONO, stroke: () => css("--faint"), ticks: { show: false }, space: 26,
        grid: { stroke: () => css("--line-soft"), width: 1 }, values: (_u, ticks) => ticks.map((n) => `${n}%`) },
    ],
    series: [{}, { stroke: () => css("--second"), width: 2, fill: fade("--second", "30"), points: { show: false } }],
    hooks: { draw: [(u) => {
      const x = u.valToPos(spot(), "x", true);
      if (!Number.isFinite(x)) return;
      u.ctx.fillStyle = css("--accent");
      u.ctx.fillRect(x - devicePixelRatio / 2, u.bbox.top, devicePixelRatio, u.bbox.height);
    }] },
  }, [[], []]);
}
