// Numbers as people read them.
const UNITS = ["B", "KB", "MB", "GB", "TB"];

export function bytes(count) {
  if (count == null) return "n/a";
  let unit = 0;
  while (count >= 999.5 && unit < UNITS.length - 1) { count /= 1000; unit++; }
  return `${count.toFixed(unit === 0 || count >= 9.95 ? 0 : 1)} ${UNITS[unit]}`;
}

export const whole = (count) => Math.round(count).toLocaleString("en-US");
export const seconds = (ms) => `${(Math.max(0, ms) / 1000).toFixed(1)} s`;
export const $ = (id) => document.getElementById(id);

export function element(tag, properties = {}, ...children) {   // text only ever enters as text
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

const said = new WeakMap();
export function say(node, text) {              // writes only what changed: the page updates ten times a second
  if (said.get(node) === text) return;
  said.set(node, text);
  node.textContent = text;
}

const colours = new Map();                     // reading computed styles in every frame would be the dearest thing we do
export function css(name) {
  if (!colours.has(name)) colours.set(name, getComputedStyle(document.documentElement).getPropertyValue(name).trim());
  return colours.get(name);
}
export const forgetColours = () => colours.clear();

export const calm = matchMedia("(prefers-reduced-motion: reduce)");
