// The tab "day": any day, its figures, its curve beside another day's, and its circuits.

import {
  HOUR, addDays, addMonths, byId, dayText, element, fullDate, get, huesByName, isoDate, legend, nowSeconds, orNull, pageDate, picker, power, root,
  seconds, showNote, stepTo, t, today, totals, watch,
} from "./common.js";
import { drawCurve } from "./curve.js";
import { circuitDay, costOf, dayRange, empty, figuresOf, showCircuits, yenOf } from "./figures.js";
import { cell, homeCurve, homeLegend, nights, readings, states, timeCell } from "./power.js";

const iso = pageDate || today();
const circuit = new URLSearchParams(location.search).get("circuit");
const STACK_STEP_S = 300;
const night = nights(iso);
let now = null, totalsOfDay = null, flow = null;

function header() {
  byId("title").textContent = (iso.slice(0, 4) === today().slice(0, 4) ? dayText : fullDate)(iso);
  const link = (id, day) => { if (day <= today()) stepTo(id, `${root}/day/${day}${location.search}`); };
  link("previous", addDays(iso, -1));
  link("next", addDays(iso, 1));
  picker(iso, today(), (day) => location.assign(`${root}/day/${day}${location.search}`));
}

// Why there is nothing. Energy can be older than the record of minutes.
function outside() {
  if (!now.first_hour) return [t("day.none")];
  const first = isoDate(seconds(now.first_hour));
  return iso < first ? [t("day.before", { date: fullDate(first) }), `${root}/day/${first}`, t("day.first")] : [t("day.none")];
}

async function figures() {
  const [energy, cost] = await Promise.all([orNull(get("energy", { by: "hour", circuits: 1, ...dayRange(iso) })), costOf("hour", dayRange(iso))]);
  const found = energy ? totals(energy) : null;
  if (found) {
    const paid = yenOf(cost);
    byId("figures").replaceChildren(...figuresOf(found, now.home, { cost: paid, more: true, none: t("no_energy") }));
    const ended = energy.start.filter((start) => seconds(start) + HOUR < nowSeconds()).length;
    const unknown = energy.consumption_kwh.slice(0, ended).filter((value) => value === null).length;
    showNote("figures-note", unknown ? t("partial") : null);
  }
  showCircuits(energy, now, circuitDay(iso));
  return found;
}

// One circuit's day, in its hue.
async function circuitCurve() {
  const read = await readings(iso, "usage", { name: circuit });
  const hue = huesByName(now).get(circuit);
  const values = [...read.of.values()][0] ?? [];
  read.missing = totalsOfDay.missing;
  show({
    ...read, night, lines: [],
    layers: [{ values: values.map((value) => (value === null ? null : value / 1000)), fill: hueName(hue) }],
    tell: (index) => (index < 0 ? [] : [timeCell(read.x[index], read.step), cell("", power(values[index])), ...(read.filled[index] ? [element("span", "", t("filled"))] : [])]),
  }, read.any);
  const items = [{ label: circuit, swatch: huedSwatch(hue) }];
  states(read, items, hueName(hue));
  legend(items);
}

const hueName = (hue) => (hue === null || hue === undefined ? "--rest" : `--c${hue}`);
function huedSwatch(hue) {
  const node = element("span", "swatch");
  node.style.background = node.style.borderColor = `var(${hueName(hue)})`;
  return node;
}

// All circuits, stacked: those with a hue one by one, the rest as one.
async function stackedCurve() {
  const read = await readings(iso, "usage", { step: STACK_STEP_S });
  const groups = new Map();
  for (const [name, values] of read.of) {
    const hue = read.hues.get(name) ?? null;
    const group = hue === null ? null : name;
    const before = groups.get(group);
    if (!before) groups.set(group, { name: group ?? t("circuits.rest"), hue, values: values.map((value) => (value === null ? null : value / 1000)) });
    else values.forEach((value, at) => { if (value !== null) before.values[at] = (before.values[at] ?? 0) + value / 1000; });
  }
  const layers = [...groups.values()].sort((a, b) => (a.hue ?? 99) - (b.hue ?? 99));
  read.missing = read.x.map((_, at) => layers.every((layer) => layer.values[at] === null) && read.missing[at]);
  // A circuit without a value in a step does not interrupt those above it.
  const some = read.x.map((_, at) => layers.some((layer) => layer.values[at] !== null));
  const drawn = layers.map((layer) => ({ ...layer, values: layer.values.map((value, at) => (some[at] ? value ?? 0 : null)), fill: hueName(layer.hue) }));
  show({ ...read, night, lines: [], layers: drawn, tell: (index) => tellStack(index, read, layers) }, read.any);
  const items = layers.map((layer) => ({ label: layer.name, swatch: huedSwatch(layer.hue) }));
  states(read, items, "--rest");
  legend(items);
}

function tellStack(index, read, layers) {
  if (index < 0) return [];
  const largest = layers.filter((layer) => layer.values[index] > 0).sort((a, b) => b.values[index] - a.values[index]).slice(0, 4);
  return [timeCell(read.x[index], read.step), ...largest.map((layer) => cell(layer.name, power(layer.values[index] * 1000)))];
}

function show(curve, any) {
  byId("chart").hidden = !any;
  showNote("chart-note", any ? null : t("curve.none"));
  if (any) drawCurve(curve);
}

async function curve() {
  try {
    if (circuit) return await circuitCurve();
    if (byId("stacked").checked) return await stackedCurve();
    const choice = document.querySelector("[name=compare]:checked").value;
    const other = { day: addDays(iso, -1), year: addMonths(iso, -12) }[choice];
    const compare = other ? await readings(other, "total") : null;
    if (compare) compare.label = dayLabel(other);
    const drawn = homeCurve(totalsOfDay, flow?.any ? flow : null, now.home, night, compare?.any ? compare : null);
    show(drawn, totalsOfDay.any);
    homeLegend(drawn, compare?.any ? compare.label : null);
    if (compare && !compare.any) showNote("chart-note", t("compare.no_data"));
  } catch {
    showNote("chart-note", t("curve.failed"));
  }
}

const dayLabel = (day) => (day.slice(0, 4) === iso.slice(0, 4) ? dayText : fullDate)(day);

async function load() {
  [totalsOfDay, flow] = await Promise.all([readings(iso, "total"), now.home.battery ? readings(iso, "flow") : null]);
  const found = await figures();
  const any = totalsOfDay.any || (found && found.consumption !== null);
  empty(...(any ? [null] : outside()));
  if (any) await curve();
}

function choices() {
  byId("compare").addEventListener("change", () => { byId("stacked").checked = false; curve(); });
  byId("stacked").addEventListener("change", () => {
    if (byId("stacked").checked) document.querySelector("[name=compare][value=none]").checked = true;
    curve();
  });
  byId("stacked-choice").hidden = !now.home.circuits;
  if (!circuit) return;
  document.querySelector(".choices").hidden = true;
  byId("chart-title").textContent = t("day.circuit", { name: circuit });
  const back = byId("back");
  back.hidden = false;
  [back.firstElementChild.href, back.firstElementChild.textContent] = [`${root}/day/${iso}`, t("day.all")];
}

header();
now = await watch(30);
if (iso > today()) empty(t("day.future"));
else {
  choices();
  await load().catch(() => showNote("chart-note", t("curve.failed")));
  if (iso === today()) setInterval(() => document.visibilityState === "visible" && load().catch(() => {}), 60000);
}
