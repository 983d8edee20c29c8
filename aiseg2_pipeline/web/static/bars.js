// Bars of a month or a year: what the home used upward (its own and bought), what it sold downward, other periods as outlines.

import { byId, element, svg, t } from "./common.js";

const LEFT = 36, BOTTOM = 26, TOP = 24;
let shown = null, chosen = -1;

// bars: [{label, mark, self, bought, sold, running, href}]; outlines: [{kind, values}]; tell: (index) => nodes
export function drawBars(found) {
  const first = shown === null;
  shown = found;
  render();
  say();
  if (!first) return;
  new ResizeObserver(render).observe(byId("chart"));
  pointing(byId("chart"));
  keys(byId("chart"));
}

const ticks = (low, high) => {
  const rough = (high - low) / 6 || 1;
  const base = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * base).find((candidate) => candidate >= rough);
  const found = [];
  for (let at = Math.ceil(low / step) * step; at <= high + step / 1e6; at += step) found.push(Number(at.toFixed(6)));
  return found;
};

function render() {
  const box = byId("chart");
  const { clientWidth: width, clientHeight: height } = box;
  if (!width || !shown) return;
  const { bars, outlines } = shown;
  const up = Math.max(0.1, ...bars.map((bar) => (bar.self ?? 0) + (bar.bought ?? 0)), ...outlines.flatMap((line) => line.values.map((value) => value ?? 0))) * 1.05;
  const down = Math.max(0, ...bars.map((bar) => bar.sold ?? 0)) * 1.05;
  const y = (value) => TOP + ((up - value) / (up + down)) * (height - TOP - BOTTOM);
  const slot = (width - LEFT) / bars.length, thick = Math.max(2, Math.min(44, slot * 0.68));
  const picture = svg("svg", { class: "bars", width, height, "aria-hidden": "true" });
  for (const value of ticks(-down, up)) {
    picture.append(svg("line", { class: value === 0 ? "zero" : "rule", x1: LEFT, x2: width, y1: y(value), y2: y(value) }));
    picture.append(svg("text", { x: LEFT - 6, y: y(value) + 5, "text-anchor": "end" }, String(Math.abs(value))));
  }
  const every = Math.ceil(30 / slot);
  bars.forEach((bar, index) => {
    const left = LEFT + index * slot;
    picture.append(svg("rect", { class: index === chosen ? "column chosen" : "column", x: left, y: TOP, width: slot, height: height - TOP - BOTTOM, rx: 3 }));
    stack(picture, bar, left + (slot - thick) / 2, thick, y);
    if (index % every === 0) picture.append(svg("text", { x: left + slot / 2, y: height - 6, "text-anchor": "middle" }, bar.mark));
  });
  for (const line of outlines) {
    const d = outline(line.values, slot, y);
    picture.append(svg("path", { class: "halo", d }), svg("path", { class: line.kind, d }));
  }
  box.replaceChildren(picture);
}

function stack(picture, bar, x, width, y) {
  const part = (kind, from, to) => {
    if (Math.abs(to - from) < 1e-6) return;
    const top = Math.min(y(from), y(to));
    picture.append(svg("rect", { class: bar.running ? `${kind} running` : kind, x, width, y: top, height: Math.max(1, Math.abs(y(from) - y(to)) - 1) }));
  };
  part(shown.plain ? "own" : "self", 0, bar.self ?? 0);
  part("bought", bar.self ?? 0, (bar.self ?? 0) + (bar.bought ?? 0));
  part("sold", 0, -(bar.sold ?? 0));
}

function outline(values, slot, y) {
  let path = "", open = false;
  values.forEach((value, index) => {
    const left = LEFT + index * slot;
    if (value === null || value === undefined) {
      if (open) path += `V${y(0)}`;
      open = false;
      return;
    }
    path += open ? `V${y(value)}H${left + slot}` : `M${left} ${y(0)}V${y(value)}H${left + slot}`;
    open = true;
  });
  return open ? `${path}V${y(0)}` : path;
}

function say() {
  byId("readout").replaceChildren(...(chosen < 0 ? [element("span", "note", t("bars.hint"))] : shown.tell(chosen)));
}

function choose(index) {
  if (index === chosen) return;
  chosen = index;
  say();
  byId("chart").querySelectorAll(".column").forEach((column, at) => column.classList.toggle("chosen", at === index));
}

// A mouse opens a bar at once; a finger chooses it first, because bars are narrower than a finger.
function pointing(box) {
  const at = (event) => {
    const slot = (box.clientWidth - LEFT) / shown.bars.length;
    const index = Math.floor((event.clientX - box.getBoundingClientRect().left - LEFT) / slot);
    return Math.min(shown.bars.length - 1, Math.max(0, index));
  };
  box.addEventListener("pointermove", (event) => choose(at(event)));
  box.addEventListener("pointerdown", (event) => choose(at(event)));
  box.addEventListener("click", (event) => {
    const bar = shown.bars[at(event)];
    if (event.pointerType === "mouse" && bar.href) location.assign(bar.href);
  });
}

function keys(box) {
  box.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (move) choose(Math.min(shown.bars.length - 1, Math.max(0, chosen < 0 ? 0 : chosen + move)));
    else if (event.key === "Enter" && shown.bars[chosen]?.href) location.assign(shown.bars[chosen].href);
    else return;
    event.preventDefault();
  });
}
