// The options chain: one key per strike, as many updates a second as the slider asks for.
import { smileChart } from "./charts.js";
import { Grid } from "./grid.js";
import { openLine } from "./line.js";
import { $, bytes, element, say, whole } from "./format.js";

const NEAR = 5;                                // strikes on each side of the spot in the text version
const rows = new Map();                        // strike -> row
let underlying = null, grid = null, line = null, smile = null, asked = 0;

function receive(row) {
  if (row.id === "spot") return showUnderlying(row);
  rows.set(row.id, row);
  grid.setRow(row);
}

function showUnderlying(row) {
  underlying = row;
  grid.setSpot(row.spot);
  say($("spot"), row.spot.toFixed(2));
  say($("change"), `${row.change < 0 ? "" : "+"}${row.change.toFixed(2)}`);
  $("change").dataset.kind = row.change < 0 ? "down" : "up";
  say($("days"), String(row.days));
}

function showFlow() {
  if (!underlying) return;
  const rate = line.rate(), published = Math.max(underlying.published_per_s, 1);
  $("published-bar").style.transform = "scaleX(1)";
  $("delivered-bar").style.transform = `scaleX(${Math.min(1, rate.messages / published)})`;
  say($("published"), `${whole(published)} rows/s`);
  say($("delivered"), `${whole(rate.messages)} rows/s`);
  say($("delivered-bytes"), `${bytes(rate.bytes)}/s`);
}

function showSmile() {
  if (!underlying || !rows.size) return;
  const strikes = [...rows.keys()].sort((a, b) => a - b);
  smile.plot.setData([strikes, strikes.map((strike) => 100 * rows.get(strike).call.iv)]);
  say($("atm-iv"), `${(100 * nearest(strikes, 0)[0].call.iv).toFixed(1)}% at the money`);
}

function nearest(strikes, reach) {
  const middle = strikes.reduce((best, strike, index) =>
    Math.abs(strike - underlying.spot) < Math.abs(strikes[best] - underlying.spot) ? index : best, 0);
  return strikes.slice(Math.max(0, middle - reach), middle + reach + 1).map((strike) => rows.get(strike));
}

function showTable() {                         // the same rows as text, for those who cannot see a canvas
  if (!underlying || !rows.size) return;
  const strikes = [...rows.keys()].sort((a, b) => a - b);
  $("chain-table").tBodies[0].replaceChildren(...nearest(strikes, NEAR).map(({ id, call, put }) =>
    element("tr", {}, element("th", { scope: "row" }, String(id)),
      ...[call.bid, call.ask, 100 * call.iv, put.bid, put.ask].map((n) => element("td", {}, n.toFixed(2))))));
}

export function startChain() {
  grid = new Grid($("grid"));
  smile = smileChart($("smile-chart"), () => underlying?.spot);
  const slider = $("rate");
  line = openLine("chain/30d", "/live/chain/30d", {
    rule: "newest row per strike, at your rate", keeps: true, silence_ms: 10000, window_ms: 1000,
    params: { max_per_s: slider.value }, onMessage: receive,
  });
  slider.addEventListener("input", () => {
    say($("rate-value"), slider.value);
    clearTimeout(asked);
    asked = setTimeout(() => line.topic.set({ max_per_s: slider.value }), 120);
  });
  say($("rate-value"), slider.value);
  setInterval(showFlow, 250);
  setInterval(showSmile, 200);
  setInterval(showTable, 2000);
}

export const retheme = () => grid?.retheme();
export const snapshot = () => ({ spot: underlying?.spot ?? null, asked: Number(line?.topic.state === "live" ? line.topic.params.max_per_s : 0),
  published_per_s: underlying?.published_per_s ?? 0, rows: [...rows.values()] });
