// The readings of a day as layers of the curve: where the consumption came from, and what was sold.

import { DAY, HOUR, addDays, dayStart, element, get, hatchSwatch, legend, nowSeconds, orNull, power, seconds, t } from "./common.js";

const GENERATION = "総発電電力", CONSUMPTION = "総消費電力", EXCHANGE = "売買電力";
const GRID = "系統", BATTERY = "蓄電池";
const MINUTE_S = 60, QUARTER = 15;
const known = (value) => value !== null && value !== undefined;
// A layer of no height has no edge either.
const some = (value) => (value > 0 ? value : null);
const whole = (count) => Array(count).fill(null);

// The minutes of a day, or of one kind: {x, filled, missing, of: Map(name → kW or W), hues}.
export async function readings(iso, kind, { name = null, step = MINUTE_S } = {}) {
  const start = dayStart(iso), end = start + DAY;
  const points = step === MINUTE_S ? null : Math.round(DAY / step);
  const answer = await orNull(get("series", { kind, name, start: `${iso}T00:00:00+09:00`, end: `${addDays(iso, 1)}T00:00:00+09:00`, points }));
  const count = DAY / step;
  const x = Array.from({ length: count }, (_, index) => index * step);
  const found = { x, step, filled: Array(count).fill(false), missing: Array(count).fill(false), of: new Map(), hues: new Map(), any: false };
  const times = (answer?.time ?? []).map((time) => Math.floor((seconds(time) - start) / step));
  for (const series of answer ? answer.series ?? [{ ...answer }] : []) {
    const values = whole(count);
    times.forEach((index, at) => {
      if (index < 0 || index >= count || !known(series.mean[at])) return;
      values[index] = series.mean[at];
      found.any = true;
      const interval = (series.interval_s ?? answer.interval_s)?.[at];
      if (interval > 0) found.filled[index] = true;
    });
    found.of.set(series.name, values);
    found.hues.set(series.name, series.hue);
  }
  const until = Math.min(DAY, nowSeconds() - start - 2 * MINUTE_S);
  const covered = [...found.of.values()];
  found.missing = x.map((at, index) => at + step <= until && !covered.some((values) => known(values[index])));
  return found;
}

// Where each minute's consumption came from, in kW.
function sources(totals, flow) {
  const consumption = totals.of.get(CONSUMPTION) ?? whole(totals.x.length);
  const generation = totals.of.get(GENERATION) ?? null;
  const grid = flow?.of.get(GRID), battery = flow?.of.get(BATTERY), exchange = totals.of.get(EXCHANGE);
  const found = { consumption, generation, sun: [], battery: [], bought: [], sold: [], charged: [] };
  consumption.forEach((used, at) => {
    const bought = grid ? grid[at] : known(exchange?.[at]) ? -exchange[at] : null;
    const flowKnown = known(used) && known(bought);
    const buying = flowKnown ? Math.min(used, Math.max(0, bought)) : null;
    const stored = flowKnown ? Math.min(used - buying, Math.max(0, battery?.[at] ?? 0)) : null;
    found.bought.push(flowKnown ? buying : used);
    found.battery.push(flowKnown ? stored : known(used) ? 0 : null);
    found.sun.push(flowKnown ? used - buying - stored : known(used) ? 0 : null);
    found.charged.push(flowKnown ? Math.max(0, -(battery?.[at] ?? 0)) : 0);
    found.sold.push(flowKnown ? Math.max(0, -bought) : known(used) ? 0 : null);
  });
  return found;
}

const toWatts = (value) => (known(value) ? value * 1000 : null);

export function cell(label, value) {
  const node = element("span");
  node.append(`${label} `, element("b", "", value));
  return node;
}

export function timeCell(at, step) {
  const label = (s) => `${Math.floor(s / HOUR)}:${String((s % HOUR) / 60).padStart(2, "0")}`;
  return element("b", "", step > MINUTE_S ? `${label(at)}–${label(at + step)}` : label(at));
}

// The curve of the whole home. `compare` is another day's totals, drawn as dashed lines.
export function homeCurve(totals, flow, home, night, compare = null) {
  const from = sources(totals, flow);
  const layers = [];
  if (home.generation || flow) layers.push({ kind: "from_sun", values: from.sun.map(some), fill: "--sun", edge: "--sun-line" });
  if (home.battery && flow) layers.push({ kind: "from_battery", values: from.battery.map(some), fill: "--battery" });
  layers.push({ kind: "bought", values: from.bought, fill: "--bought" });
  if (from.sold.some((value) => value > 0)) layers.push({ kind: "sold", values: from.sold.map(some), fill: "--sold", edge: "--sold-line" });
  if (from.charged.some((value) => value > 0)) layers.push({ kind: "charged", values: from.charged.map(some), fill: "--charged", edge: "--battery" });
  const lines = [];
  if (from.generation) lines.push({ values: from.generation, colour: "--ground", width: 4 }, { values: from.generation, colour: "--sun-line", width: 2 });
  if (compare) {
    const was = { consumption: compare.of.get(CONSUMPTION), generation: compare.of.get(GENERATION) };
    for (const [values, colour, dash] of [[was.consumption, "--text", [6, 4]], [was.generation, "--sun-line", [2, 3]]]) {
      if (values) lines.push({ values: smooth(values), colour: "--ground", width: 3.5 }, { values: smooth(values), colour, width: 1.75, dash });
    }
  }
  return {
    ...totals, layers, lines, night, generation: from.generation !== null,
    tell: (index) => tellHome(index, totals, from, home, compare),
  };
}

// The quarters' means: another day's minutes would hide this day's.
function smooth(values) {
  const found = whole(values.length);
  for (let from = 0; from < values.length; from += QUARTER) {
    const there = values.slice(from, from + QUARTER).filter(known);
    if (there.length) found.fill(there.reduce((total, value) => total + value, 0) / there.length, from, from + QUARTER);
  }
  return found;
}

function tellHome(index, totals, from, home, compare) {
  if (index < 0) return [];
  const nodes = [timeCell(totals.x[index], totals.step)];
  const add = (label, value) => nodes.push(cell(label, power(toWatts(value))));
  if (totals.missing[index]) nodes.push(element("span", "", t("missing")));
  if (known(from.consumption[index])) {
    add(t("consumption"), from.consumption[index]);
    if (from.generation) add(t("generation"), from.generation[index]);
    if (home.generation || home.battery) add(t(from.sold[index] > 0 ? "sold" : "bought"), from.sold[index] || from.bought[index]);
    if (from.battery[index] > 0) add(t("from_battery"), from.battery[index]);
    if (from.charged[index] > 0) add(t("charged"), from.charged[index]);
    if (totals.filled[index]) nodes.push(element("span", "", t("filled")));
  }
  if (compare && known(compare.of.get(CONSUMPTION)?.[index])) nodes.push(cell(`(${compare.label}: ${t("consumption")}`, `${power(toWatts(compare.of.get(CONSUMPTION)[index]))})`));
  return nodes;
}

export function homeLegend(drawn, compareLabel = null) {
  const items = drawn.layers.map((layer) => ({ kind: layer.kind, label: t(layer.kind) }));
  if (drawn.generation) items.push({ kind: "line generation", label: t("generation") });
  if (compareLabel) items.push({ kind: "dashed", label: `${compareLabel} (${t("consumption")})` });
  states(drawn, items, "--bought");
  legend(items);
}

export function states(drawn, items, colourName) {
  if (drawn.filled.some(Boolean)) items.push({ label: t("filled"), swatch: hatchSwatch(colourName) });
  if (drawn.missing.some(Boolean)) items.push({ kind: "gap", label: t("missing") });
}

// The sun's rise and set in the middle of Japan, roughly: the night is there to orient, not to calculate with.
const LATITUDE = 36, LONGITUDE = 138;
export function nights(iso) {
  const day = (dayStart(iso) - Date.UTC(2000, 0, 1, 12) / 1000) / DAY + 0.875;
  const radians = (degrees) => (degrees * Math.PI) / 180;
  const anomaly = radians(357.53 + 0.98560028 * day);
  const longitude = radians(280.46 + 0.9856474 * day + 1.915 * Math.sin(anomaly) + 0.02 * Math.sin(2 * anomaly));
  const declination = Math.asin(Math.sin(radians(23.44)) * Math.sin(longitude));
  const equation = -1.915 * Math.sin(anomaly) + 2.466 * Math.sin(2 * longitude); // degrees
  const half = Math.acos((Math.sin(radians(-0.83)) - Math.sin(radians(LATITUDE)) * Math.sin(declination)) / (Math.cos(radians(LATITUDE)) * Math.cos(declination)));
  const noon = 12 - (LONGITUDE - 135) / 15 - equation / 15;
  const width = (half * 180) / Math.PI / 15;
  return [[0, (noon - width) * HOUR], [(noon + width) * HOUR, DAY]];
}
