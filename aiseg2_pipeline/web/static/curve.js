// A day's curve on uPlot: stacked areas, lines, the night, filled stretches hatched, missing ones with a grey foot.
// A value holds for its whole step: nothing is interpolated, and no line crosses a gap.

import { DAY, HOUR, byId, colour, element, onTheme, t } from "./common.js";

const STEPS = [60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 14400, 21600];
const LEAST_SPAN_S = 900;
const FOOT_PX = 5;
const known = (value) => value !== null && value !== undefined;
let chart = null, data = null;

// data: {x: seconds of the day, step, layers: [{values, fill, edge}], lines: [{values, colour, dash, width}], filled: [bool],
//        missing: [bool], night: [[from, to]], tell: (index) => nodes, title}. Values are in kW.
export function drawCurve(found) {
  data = found;
  data.stacks = stack(found.layers);
  const box = byId("chart");
  const zoom = chart ? [chart.scales.x.min, chart.scales.x.max] : null;
  if (!chart) {
    chart = new uPlot(options(box), columns(), box);
    new ResizeObserver(() => chart.setSize(size(box))).observe(box);
    gestures(box);
    keys(box);
    onTheme(() => chart.redraw(false, true));
    byId("zoom-out").onclick = whole;
  } else {
    chart.setData(columns(), false);
    chart.setScale("x", { min: zoom[0], max: zoom[1] });
  }
  tell();
}

const size = (box) => ({ width: Math.max(200, box.clientWidth), height: Math.max(120, box.clientHeight) });

function columns() {
  const top = data.x.map((_, index) => {
    const values = [...data.stacks.map(({ top }) => top[index]), ...data.lines.map((line) => line.values[index])].filter(known);
    return values.length ? Math.max(...values) : null;
  });
  return [data.x, top];
}

// The lower and the upper edge of each layer.
function stack(layers) {
  const sums = layers[0]?.values.map(() => 0) ?? [];
  return layers.map((layer) => {
    const base = [...sums];
    layer.values.forEach((value, index) => { sums[index] += value ?? 0; });
    return { base, top: layer.values.map((value, index) => (known(value) ? sums[index] : null)) };
  });
}

function options(box) {
  const axis = { font: `14px ${getComputedStyle(document.body).fontFamily}`, stroke: () => colour("--muted"), ticks: { show: false } };
  return {
    ...size(box),
    padding: [20, 20, 0, 0],
    legend: { show: false },
    cursor: { y: false, points: { show: false }, drag: { x: true, y: false, dist: 8, setScale: false }, focus: { prox: -1 } },
    select: { show: true },
    scales: {
      x: { time: false, range: (_, min, max) => [min ?? 0, max ?? DAY] },
      y: { range: (_, __, max) => [0, Math.max(0.5, (max ?? 0) * 1.08)] },
    },
    axes: [
      { ...axis, grid: { show: false }, splits: (u) => hours(u), values: (_, splits) => splits.map(clockLabel), size: 30, gap: 6 },
      { ...axis, grid: { stroke: () => colour("--rule"), width: 1 }, size: 36, gap: 6, space: 44 },
    ],
    series: [{}, { paths: () => null, points: { show: false } }],
    hooks: {
      drawClear: [drawBelow], draw: [drawAbove], setCursor: [tell], setSelect: [zoomTo],
      setScale: [(u, key) => key === "x" && zoomed()],
      ready: [(u) => { u.setScale("x", { min: 0, max: DAY }); u.over.addEventListener("dblclick", whole); }],
    },
  };
}

function hours(u) {
  const { min, max } = u.scales.x;
  const most = Math.max(2, Math.floor(u.bbox.width / devicePixelRatio / 62));
  const step = STEPS.find((candidate) => (max - min) / candidate <= most) ?? 21600;
  const splits = [];
  for (let at = Math.ceil(min / step) * step; at <= max; at += step) splits.push(at);
  return splits;
}

const clockLabel = (at) => `${Math.floor(at / HOUR)}:${String(Math.round((at % HOUR) / 60)).padStart(2, "0")}`;

// Drawing. Each stretch of values is one path of steps.
function drawBelow(u) {
  const { ctx, bbox } = u;
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  ctx.clip();
  ctx.fillStyle = colour("--night");
  for (const [from, to] of data.night) {
    const left = u.valToPos(from, "x", true);
    ctx.fillRect(left, bbox.top, u.valToPos(to, "x", true) - left, bbox.height);
  }
  data.layers.forEach((layer, index) => {
    const { base, top } = data.stacks[index];
    for (const filled of [false, true]) {
      const path = area(u, top, base, (at) => Boolean(data.filled[at]) === filled);
      ctx.fillStyle = filled ? hatch(ctx, colour(layer.fill)) : colour(layer.fill);
      if (filled) {
        ctx.globalAlpha = 0.22;
        ctx.fillStyle = colour(layer.fill);
        ctx.fill(path);
        ctx.globalAlpha = 1;
        ctx.fillStyle = hatch(ctx, colour(layer.fill));
      }
      ctx.fill(path);
    }
    if (layer.edge) stroke(u, top, colour(layer.edge), 1);
  });
  ctx.restore();
}

function drawAbove(u) {
  const { ctx, bbox } = u;
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  ctx.clip();
  for (const line of data.lines) stroke(u, line.values, colour(line.colour), line.width ?? 2, line.dash);
  ctx.fillStyle = colour("--missing-line");
  const foot = FOOT_PX * devicePixelRatio;
  for (const [from, to] of runs((at) => data.missing[at])) {
    const left = u.valToPos(data.x[from], "x", true);
    const right = u.valToPos(data.x[to] + data.step, "x", true);
    ctx.fillRect(left, bbox.top + bbox.height - foot, Math.max(devicePixelRatio, right - left), foot);
  }
  ctx.restore();
}

function* runs(inside) {
  let from = null;
  for (let at = 0; at <= data.x.length; at += 1) {
    const there = at < data.x.length && inside(at) && (from === null || data.x[at] === data.x[at - 1] + data.step);
    if (from !== null && !there) {
      yield [from, at - 1];
      from = null;
    }
    if (from === null && at < data.x.length && inside(at)) from = at;
  }
}

function area(u, above, below, inside) {
  const path = new Path2D();
  for (const [from, to] of runs((at) => known(above[at]) && inside(at))) {
    path.moveTo(u.valToPos(data.x[from], "x", true), u.valToPos(below?.[from] ?? 0, "y", true));
    steps(u, path, above, from, to, 1);
    steps(u, path, below, to, from, -1);
    path.closePath();
  }
  return path;
}

function steps(u, path, values, from, to, way) {
  for (let at = from; way > 0 ? at <= to : at >= to; at += way) {
    const y = u.valToPos(values?.[at] ?? 0, "y", true);
    const start = u.valToPos(data.x[at], "x", true), end = u.valToPos(data.x[at] + data.step, "x", true);
    path.lineTo(way > 0 ? start : end, y);
    path.lineTo(way > 0 ? end : start, y);
  }
}

function stroke(u, values, style, width, dash = []) {
  const path = new Path2D();
  for (const [from, to] of runs((at) => known(values[at]))) {
    path.moveTo(u.valToPos(data.x[from], "x", true), u.valToPos(values[from], "y", true));
    steps(u, path, values, from, to, 1);
  }
  u.ctx.strokeStyle = style;
  u.ctx.lineWidth = width * devicePixelRatio;
  u.ctx.lineJoin = "round";
  u.ctx.setLineDash(dash.map((part) => part * devicePixelRatio));
  u.ctx.stroke(path);
  u.ctx.setLineDash([]);
}

function hatch(ctx, style) {
  const unit = Math.round(7 * devicePixelRatio);
  const tile = document.createElement("canvas");
  tile.width = tile.height = unit;
  const pen = tile.getContext("2d");
  pen.strokeStyle = style;
  pen.lineWidth = 2 * devicePixelRatio;
  pen.beginPath();
  for (const shift of [-unit, 0, unit]) {
    pen.moveTo(shift - 1, unit + 1);
    pen.lineTo(shift + unit + 1, -1);
  }
  pen.stroke();
  return ctx.createPattern(tile, "repeat");
}

// The line above the chart: the time and the values under finger, mouse or keys.
function tell() {
  if (!chart || !data) return;
  const left = chart.cursor.left;
  const at = left >= 0 ? Math.floor(chart.posToVal(left, "x") / data.step) * data.step : null;
  const index = at === null ? -1 : at / data.step;
  const said = data.tell(index);
  byId("readout").replaceChildren(...(said.length ? said : [element("span", "note", t("curve.hint"))]));
}

function zoomTo(u) {
  if (u.select.width < 8) return;
  const from = u.posToVal(u.select.left, "x"), to = u.posToVal(u.select.left + u.select.width, "x");
  u.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
  scale(from, to);
}

function scale(from, to) {
  const span = Math.min(DAY, Math.max(LEAST_SPAN_S, to - from));
  const start = Math.min(Math.max(0, (from + to - span) / 2), DAY - span);
  chart.setScale("x", { min: start, max: start + span });
}

const whole = () => chart.setScale("x", { min: 0, max: DAY });

function zoomed() {
  const { min, max } = chart?.scales.x ?? { min: 0, max: DAY };
  byId("zoom-out").hidden = !(max - min < DAY - 1);
}

function gestures(box) {
  const fingers = new Map();
  let grip = null, lastTap = 0;
  const at = (event) => event.clientX - chart.over.getBoundingClientRect().left;
  const point = (left) => chart.setCursor({ left: Math.min(Math.max(0, left), chart.over.clientWidth - 1), top: 1 });
  box.addEventListener("pointerdown", (event) => {
    if (event.pointerType === "mouse") return;
    fingers.set(event.pointerId, at(event));
    if (fingers.size === 2) {
      const [a, b] = [...fingers.values()].map((left) => chart.posToVal(left, "x"));
      grip = [Math.min(a, b), Math.max(a, b)];
    } else {
      const now = event.timeStamp;
      if (now - lastTap < 300) whole();
      lastTap = now;
      point(at(event));
    }
  });
  box.addEventListener("pointermove", (event) => {
    if (!fingers.has(event.pointerId)) return;
    fingers.set(event.pointerId, at(event));
    if (fingers.size === 2 && grip) {
      const [a, b] = [...fingers.values()].sort((one, other) => one - other);
      if (b - a < 20) return;
      const perPixel = (grip[1] - grip[0]) / (b - a);
      const from = grip[0] - a * perPixel;
      const span = perPixel * chart.over.clientWidth;
      if (span >= DAY) whole();
      else scale(from, from + span);
    } else {
      point(at(event));
    }
  });
  for (const name of ["pointerup", "pointercancel", "pointerleave"]) {
    box.addEventListener(name, (event) => {
      fingers.delete(event.pointerId);
      if (fingers.size < 2) grip = null;
    });
  }
}

function keys(box) {
  const middle = () => {
    const { min, max } = chart.scales.x;
    return chart.cursor.left >= 0 ? chart.posToVal(chart.cursor.left, "x") : (min + max) / 2;
  };
  box.addEventListener("keydown", (event) => {
    const { min, max } = chart.scales.x;
    const wide = event.shiftKey ? HOUR : Math.max(data.step, 300 * ((max - min) / DAY));
    const move = { ArrowLeft: -wide, ArrowRight: wide, PageUp: -HOUR, PageDown: HOUR }[event.key];
    if (move) {
      const next = Math.min(DAY - 1, Math.max(0, middle() + move));
      if (next < min || next > max) scale(min + move, max + move);
      chart.setCursor({ left: chart.valToPos(Math.round(next / data.step) * data.step + 1, "x"), top: 1 });
    } else if (event.key === "+" || event.key === "-") {
      const at = middle(), factor = event.key === "+" ? 0.5 : 2;
      scale(at - (at - min) * factor, at + (max - at) * factor);
    } else if (event.key === "0" || event.key === "Escape") {
      whole();
    } else {
      return;
    }
    event.preventDefault();
  });
}
