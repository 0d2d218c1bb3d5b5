// The options grid on a canvas: one frame per animation frame, only the cells that changed, only the rows in sight.
import { calm, css } from "./format.js";

const HEAD = 46, FADE_MS = 400, FRAME_MS = 30;
const money = (n) => n.toFixed(2), percent = (n) => (100 * n).toFixed(1), greek = (digits) => (n) => n.toFixed(digits);
const FIELDS = {
  bid: ["Bid", money], ask: ["Ask", money], iv: ["IV %", percent],
  delta: ["Delta", greek(2)], gamma: ["Gamma", greek(4)], theta: ["Theta", greek(2)], vega: ["Vega", greek(2)],
};
const FLASHES = new Set(["bid", "ask", "iv"]);
const SETS = [[880, ["iv", "delta", "gamma", "theta", "vega"]], [620, ["iv", "delta", "gamma"]], [440, ["iv", "delta"]], [0, ["iv"]]];

function columnsFor(width) {
  const greeks = SETS.find(([least]) => width >= least)[1];
  const side = (name, fields) => fields.map((field) => ({ side: name, field, title: FIELDS[field][0], format: FIELDS[field][1] }));
  return [...side("call", [...greeks].reverse().concat("bid", "ask")), { side: "strike", title: "Strike" }, ...side("put", ["bid", "ask", ...greeks])];
}

export class Grid {
  constructor(scroller) {
    this.scroller = scroller;
    this.view = scroller.querySelector(".grid-view");
    this.space = scroller.querySelector(".grid-space");
    this.line = scroller.querySelector(".spot-line");
    this.pointer = this.line.querySelector("i");
    this.canvas = scroller.querySelector("canvas");
    this.context = this.canvas.getContext("2d", { alpha: false });
    this.rows = [];                            // by strike: {strike, row, cells: [{text, direction, at}]}
    this.byStrike = new Map();
    this.spot = 0;
    this.atm = -1;                             // index of the row nearest to the spot
    this.stale = true;                         // everything is to be painted
    this.touched_ms = -1e9;                    // when somebody last scrolled: then we stop following the spot
    this.flashing = new Set();                 // cells to paint again: changed, or still fading
    this.painted_ms = 0;
    scroller.addEventListener("scroll", () => { this.stale = true; });
    for (const hand of ["wheel", "touchmove", "keydown", "pointerdown"]) {
      scroller.addEventListener(hand, () => { this.touched_ms = performance.now(); }, { passive: true });
    }
    new ResizeObserver(() => this.#resize()).observe(scroller);
    this.retheme();
    this.#resize();
    requestAnimationFrame((now) => this.#frame(now));
  }

  retheme() {
    const names = ["card", "itm", "atm", "atm-itm", "text", "muted", "faint", "line", "line-soft", "up", "down", "accent", "raised", "flash"];
    this.colour = Object.fromEntries(names.map((name) => [name, css(`--${name}`)]));
    this.stale = true;
  }

  setSpot(spot) {
    this.spot = spot;
    this.#findMoney();
  }

  setRow(row) {
    let entry = this.byStrike.get(row.id);
    if (!entry) {
      entry = { strike: row.id, row, cells: this.columns.map(() => ({ text: "", direction: 0, at: -1e9 })) };
      this.byStrike.set(row.id, entry);
      this.rows.push(entry);
      this.rows.sort((a, b) => a.strike - b.strike);
      this.space.style.height = `${HEAD + this.rows.length * this.rowHeight}px`;
      this.stale = true;
      this.#findMoney();
    }
    const now = performance.now();
    this.columns.forEach((column, index) => {
      const cell = entry.cells[index];
      if (column.side === "strike") { cell.text = String(row.id); return; }
      const value = row[column.side][column.field], text = column.format(value);
      if (text === cell.text) return;
      if (cell.text && FLASHES.has(column.field) && !calm.matches) {
        cell.direction = value > entry.row[column.side][column.field] ? 1 : -1;
        cell.at = now;
      }
      cell.text = text;
      this.flashing.add(cell);
      cell.entry = entry;
      cell.column = index;
    });
    entry.row = row;
  }

  #findMoney() {
    let best = -1;
    this.rows.forEach((entry, index) => {
      entry.index = index;
      if (best < 0 || Math.abs(entry.strike - this.spot) < Math.abs(this.rows[best].strike - this.spot)) best = index;
    });
    const inTheMoney = this.rows.filter((entry) => entry.strike < this.spot).length;
    if (best !== this.atm || inTheMoney !== this.boundary) this.stale = true;
    this.atm = best;
    this.boundary = inTheMoney;
  }

  #follow(now) {                               // keeps the spot in the middle third, unless somebody is reading elsewhere
    if (this.atm < 0 || now - this.touched_ms < 15000) return;
    const offset = this.#spotRow() * this.rowHeight - this.scroller.scrollTop, room = this.height - HEAD;
    if (offset > room / 3 && offset < (2 * room) / 3) return;
    const wanted = Math.round(Math.max(0, Math.min((this.atm + 0.5) * this.rowHeight - room / 2, this.space.offsetHeight - this.height)));
    if (Math.abs(wanted - this.scroller.scrollTop) < 2) return;
    this.scroller.scrollTop = wanted;
  }

  #spotRow() {
    if (this.rows.length < 2) return 0;
    return (this.spot - this.rows[0].strike) / (this.rows[1].strike - this.rows[0].strike) + 0.5;
  }

  #resize() {
    const width = this.scroller.clientWidth, height = this.scroller.clientHeight, ratio = devicePixelRatio;
    if (!width || !height) return;
    const columns = columnsFor(width);
    if (columns.length !== this.columns?.length) {
      this.columns = columns;
      const rows = this.rows.map((entry) => entry.row);
      this.rows = [];
      this.byStrike.clear();
      this.flashing.clear();
      rows.forEach((row) => this.setRow(row));
    }
    this.width = width;
    this.height = height;
    this.rowHeight = 22;
    this.fontSize = width < 440 ? 11 : 12;
    this.edge = Array.from({ length: columns.length + 1 }, (_, n) => Math.round((n * width) / columns.length));
    this.view.style.height = `${height}px`;
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(height * ratio);
    this.canvas.style.width = `${width}px`;
    this.canvas.style.height = `${height}px`;
    this.context.setTransform(ratio, 0, 0, ratio, 0, 0);
    this.stale = true;
  }

  #frame(now) {
    requestAnimationFrame((next) => this.#frame(next));
    if (!this.width || !this.rows.length || (!this.stale && now - this.painted_ms < FRAME_MS)) return;
    this.painted_ms = now;
    this.#follow(now);
    const top = this.scroller.scrollTop;
    const line = HEAD + this.#spotRow() * this.rowHeight - top;
    this.line.style.transform = `translateY(${line.toFixed(1)}px)`;
    this.line.hidden = line < HEAD;
    const middle = this.columns.findIndex((column) => column.side === "strike");
    this.pointer.style.left = `${this.edge[middle]}px`;
    this.pointer.style.width = `${this.edge[middle + 1] - this.edge[middle]}px`;
    this.stale ? this.#paintAll(now, top) : this.#paintChanged(now, top);
  }

  #paintAll(now, top) {
    const { context, colour } = this;
    this.stale = false;
    context.fillStyle = colour.card;
    context.fillRect(0, 0, this.width, this.height);
    const first = Math.max(0, Math.floor(top / this.rowHeight));
    const last = Math.min(this.rows.length - 1, Math.ceil((top + this.height - HEAD) / this.rowHeight));
    for (let index = first; index <= last; index++) {
      this.rows[index].cells.forEach((cell, column) => this.#paintCell(cell, index, column, top, now));
    }
    this.#paintHead();
  }

  #paintChanged(now, top) {
    let underHead = false;
    for (const cell of this.flashing) {
      const y = HEAD + cell.entry.index * this.rowHeight - top;
      if (y > HEAD - this.rowHeight && y < this.height) {
        this.#paintCell(cell, cell.entry.index, cell.column, top, now);
        underHead ||= y < HEAD;
      }
      if (now - cell.at > FADE_MS) this.flashing.delete(cell);
    }
    if (underHead) this.#paintHead();
  }

  #paintCell(cell, index, number, top, now) {
    const { context, colour, edge, rowHeight } = this;
    const column = this.columns[number], strike = this.rows[index].strike;
    const x = edge[number], width = edge[number + 1] - x, y = HEAD + index * rowHeight - top;
    const inMoney = column.side === "call" ? strike < this.spot : column.side === "put" && strike > this.spot;
    const atm = index === this.atm;
    context.fillStyle = column.side === "strike" && !atm ? colour.raised : atm ? (inMoney ? colour["atm-itm"] : colour.atm) : inMoney ? colour.itm : colour.card;
    context.fillRect(x, y, width, rowHeight);
    const age = (now - cell.at) / FADE_MS;
    if (age < 1) {
      context.globalAlpha = Number(colour.flash) * (1 - Math.max(0, age)) ** 1.3;
      context.fillStyle = cell.direction > 0 ? colour.up : colour.down;
      context.fillRect(x + 2, y + 2, width - 4, rowHeight - 4);
      context.globalAlpha = 1;
    }
    if (!atm) {
      context.fillStyle = colour["line-soft"];
      context.fillRect(x, y + rowHeight - 1, width, 1);
    }
    const isStrike = column.side === "strike", price = column.field === "bid" || column.field === "ask";
    context.font = `${isStrike ? 600 : price ? 500 : 400} ${this.fontSize}px "Geist Mono", ui-monospace, monospace`;
    context.fillStyle = isStrike ? (atm ? colour.accent : colour.text) : age < 0.6 ? (cell.direction > 0 ? colour.up : colour.down) : price ? colour.text : colour.muted;
    context.textBaseline = "middle";
    context.textAlign = isStrike ? "center" : "right";
    context.fillText(cell.text, isStrike ? x + width / 2 : x + width - this.#inset(width), y + rowHeight / 2 + 0.5);
  }

  #inset(width) { return Math.max(6, Math.round(width * 0.2)); }

  #paintHead() {
    const { context, colour, edge, columns } = this;
    const middle = columns.findIndex((column) => column.side === "strike");
    context.fillStyle = colour.card;
    context.fillRect(0, 0, this.width, HEAD);
    context.textBaseline = "middle";
    context.font = "600 11px Geist, sans-serif";
    context.textAlign = "center";
    context.fillStyle = colour.text;
    context.fillText("Calls", edge[middle] / 2, 14);
    context.fillText("Puts", (edge[middle + 1] + this.width) / 2, 14);
    context.font = "400 11px Geist, sans-serif";
    context.fillStyle = colour.muted;
    columns.forEach((column, index) => {
      const width = edge[index + 1] - edge[index], isStrike = index === middle;
      context.textAlign = isStrike ? "center" : "right";
      context.fillText(column.title, isStrike ? edge[index] + width / 2 : edge[index + 1] - this.#inset(width), 33);
    });
    context.fillStyle = colour.line;
    context.fillRect(0, HEAD - 1, this.width, 1);
  }
}
