// The tabs "month" and "year": bars a day or a month, figures, the bill, circuits, and a table of the same numbers.

import {
  DAY, addDays, addMonths, byId, dayStart, dayText, element, fullDate, getAll, isoDate, kwh, legend, monthText, nowSeconds, orNull,
  pageDate, percent, picker, root, seconds, shortMonth, stepTo, sum, t, tab, today, totals, watch, yen, figure,
} from "./common.js";
import { drawBars } from "./bars.js";
import { costOf, empty, figuresOf, showCircuits, yenOf } from "./figures.js";
import { cell } from "./power.js";

const monthly = tab === "year";
const iso = pageDate || today().slice(0, monthly ? 4 : 7);
const by = monthly ? "month" : "day";
const span = monthly ? 12 : 1;
const first = monthly ? `${iso}-01-01` : `${iso}-01`;
const known = (value) => value !== null && value !== undefined;
let now = null;

const rangeOf = (start) => ({ start: `${start}T00:00:00+09:00`, end: `${addMonths(start, span)}T00:00:00+09:00` });
const titleOf = (start) => (monthly ? t("date.year", { y: start.slice(0, 4) }) : monthText(start));
const address = (start) => `${root}/${tab}/${start.slice(0, monthly ? 4 : 7)}`;

function header() {
  byId("title").textContent = titleOf(first);
  for (const [id, start] of [["previous", addMonths(first, -span)], ["next", addMonths(first, span)]]) {
    if (start <= today()) stepTo(id, address(start));
  }
  if (monthly) return;
  // A browser without a picker of months shows a text field: previous and next do there.
  byId("pick").parentElement.hidden = byId("pick").type !== "month";
  picker(iso, today().slice(0, 7), (month) => location.assign(`${root}/month/${month}`));
}

// The days or months of the period, those to come included.
function* slots(start) {
  const end = addMonths(start, span);
  for (let at = start; at < end; at = monthly ? addMonths(at, 1) : addDays(at, 1)) yield at;
}

const energyOf = (start, circuits = null) => orNull(getAll("energy", { by, ...rangeOf(start), circuits }));

function bySlot(energy, start) {
  const rows = new Map((energy?.start ?? []).map((time, index) => [isoDate(seconds(time)), index]));
  return [...slots(start)].map((slot) => {
    const index = rows.get(slot);
    const value = (key) => (index === undefined ? null : energy[key]?.[index] ?? null);
    const [used, bought, sold, generation] = ["consumption_kwh", "bought_kwh", "sold_kwh", "generation_kwh"].map(value);
    const there = known(used) && known(bought);
    return {
      slot, generation, used, bought, sold, complete: index === undefined ? false : energy.complete?.[index] ?? true,
      self: there ? Math.max(0, used - bought) : used,
      buying: there ? Math.min(used, bought) : null,
    };
  });
}

const running = (slot) => slot <= today() && (monthly ? addMonths(slot, 1) : addDays(slot, 1)) > today();
const slotText = (slot) => (monthly ? shortMonth(slot) : dayText(slot));
const hrefOf = (slot) => (slot > today() ? null : monthly ? `${root}/month/${slot.slice(0, 7)}` : `${root}/day/${slot}`);

// Why there is nothing. Energy can be older than the record of minutes.
function outside() {
  if (!now?.first_hour) return [t("period.none")];
  const start = isoDate(seconds(now.first_hour));
  if (addMonths(first, span) > start) return [t("period.none")];
  return [t("period.before", { date: fullDate(start) }), address(start), t("period.first")];
}

function showBars(rows, others) {
  const home = now.home;
  const bars = rows.map((row) => ({
    label: slotText(row.slot), mark: monthly ? shortMonth(row.slot).slice(0, 3) : String(Number(row.slot.slice(8))),
    self: row.self, bought: row.buying, sold: row.sold, running: running(row.slot), href: hrefOf(row.slot),
  }));
  const outlines = others.filter((other) => other.shown).map((other) => ({ kind: other.kind, values: rows.map((_, index) => other.rows[index]?.used ?? null) }));
  drawBars({ bars, outlines, plain: !home.generation && !home.battery, tell: (index) => tell(rows[index], others, index) });
  const items = [];
  if (home.generation || home.battery) items.push({ kind: "self_used", label: t("self_used") }, { kind: "bought", label: t("bought") });
  else items.push({ kind: "consumption", label: t("consumption") });
  if (rows.some((row) => row.sold > 0)) items.push({ kind: "sold", label: t("sold") });
  items.push(...others.filter((other) => other.shown).map((other) => ({ kind: other.kind === "before" ? "dashed" : "dotted", label: `${other.label} (${t("consumption")})` })));
  legend(items);
}

function tell(row, others, index) {
  if (!row) return [];
  const nodes = [element("b", "", slotText(row.slot) + (running(row.slot) ? ` (${t("so_far")})` : ""))];
  const add = (label, value) => known(value) && nodes.push(cell(label, `${kwh(value)} kWh`));
  add(t("consumption"), row.used);
  if (now.home.generation) add(t("generation"), row.generation);
  add(t("bought"), row.bought);
  if (now.home.generation) add(t("sold"), row.sold);
  for (const other of others.filter((one) => one.shown)) add(other.label, other.rows[index]?.used);
  if (!known(row.used)) nodes.push(element("span", "", t("no_record")));
  const href = hrefOf(row.slot);
  if (href) {
    const link = element("a", "quiet", t(monthly ? "month.open" : "day.open"));
    link.href = href;
    nodes.push(link);
  }
  return nodes;
}

function choices(rows, others) {
  const box = byId("compare");
  box.hidden = others.length === 0;
  box.classList.add("several");
  for (const other of others) {
    const label = element("label"), input = element("input");
    input.type = "checkbox";
    input.checked = other.shown;
    input.addEventListener("change", () => {
      other.shown = input.checked;
      showBars(rows, others);
    });
    label.append(input, element("span", "", other.label));
    box.append(label);
  }
}

// The same stretch of another period: a running month is compared with as many days.
function sameStretch(other) {
  const elapsed = (nowSeconds() - dayStart(first)) / DAY;
  const rows = other.rows.map((row, index) => [row, monthly ? 1 : Math.min(1, Math.max(0, elapsed - index))]);
  const part = (key) => sum(rows.map(([row, share]) => (share === 0 || !known(row[key]) ? null : row[key] * share)));
  return { generation: part("generation"), consumption: part("used"), bought: part("bought"), sold: part("sold") };
}

function showFigures(energy, others, cost, bill) {
  const found = totals(energy);
  const over = addMonths(first, span) <= today();
  const other = over || !monthly ? others.find((one) => one.kind === "lastyear") ?? others[0] : null;
  const was = other ? sameStretch(other) : {};
  const label = other ? t(over ? "period.versus" : "period.so_far", { name: other.label, value: "" }).trim() : "";
  const note = (key, format) => (known(was[key]) ? [label, format(was[key])] : null);
  const boxes = figuresOf(found, now.home, { cost: yenOf(cost), note, more: true });
  if (known(sum(bill?.total_yen) ?? sum(cost?.bought_yen))) boxes.unshift(billBox(cost, bill));
  byId("figures").replaceChildren(...boxes);
}

// The bill by month, in whose calendar month its period ends: from one reading of the meter to the next.
function billBox(cost, bill) {
  const total = sum(bill?.total_yen);
  const hours = sum(known(total) ? bill.missing_hours : cost?.missing_hours) ?? 0;
  const then = [];
  const day = (time) => dayText(isoDate(time));
  if (!monthly && known(total)) then.push(t("cost.period", { from: day(seconds(bill.start[0])), to: day(seconds(bill.end[0]) - DAY) }));
  const end = known(total) ? isoDate(seconds(bill.end.at(-1))) : addMonths(first, span);
  if (end > today()) then.push(t("so_far"));
  if (hours) then.push(t("cost.partial", { n: hours }));
  return figure({ label: t(known(total) ? "cost.bill" : "cost"), big: yen(total ?? sum(cost?.bought_yen)), then, wide: true });
}

function showTable(rows, cost) {
  const { generation, battery } = now.home;
  const money = new Map((cost?.month?.map((month) => `${month}-01`) ?? cost?.start?.map((time) => isoDate(seconds(time))) ?? []).map((slot, index) => [slot, index]));
  const paid = (key) => (row) => cost?.[key]?.[money.get(row.slot)] ?? null;
  const columns = [[t("consumption"), (row) => row.used, kwh], [t("bought"), (row) => row.bought, kwh]];
  if (generation) columns.unshift([t("generation"), (row) => row.generation, kwh]);
  if (generation) columns.push([t("sold"), (row) => row.sold, kwh]);
  if (generation || battery) columns.push([t("sufficiency"), (row) => (known(row.bought) && row.used > 0 ? Math.max(0, row.used - row.bought) / row.used : null), (value) => (known(value) ? `${percent(value)}%` : percent(value))]);
  const bought = monthly ? "total_yen" : "bought_yen";
  if (known(sum(cost?.[bought]))) columns.push([t("table.yen"), paid(bought), yen]);
  if (known(sum(cost?.sold_yen)) && generation) columns.push([t("table.sold_yen"), paid("sold_yen"), yen]);
  const past = rows.filter((row) => row.slot <= today());
  const line = (cells, tag, head) => {
    const row = element("tr");
    row.append(head, ...cells.map((text) => element(tag, "", text)));
    return row;
  };
  const scope = (value, node) => Object.assign(node, { scope: value });
  byId("table").tHead.replaceChildren(line([], "th", scope("col", element("th", "", t(`table.${by}`)))));
  byId("table").tHead.rows[0].append(...columns.map(([name]) => scope("col", element("th", "", name))));
  byId("table").tBodies[0].replaceChildren(...past.map((row) => {
    const head = scope("row", element("th")), link = element("a", "", slotText(row.slot));
    link.href = hrefOf(row.slot);
    head.append(link);
    const made = line(columns.map(([, value, format]) => format(value(row))), "td", head);
    if (!row.complete && known(row.used)) made.className = "part";
    return made;
  }));
  byId("table-part").hidden = past.length === 0;
  const { start, end } = rangeOf(first);
  byId("csv").href = `${root}/api/v1/energy.csv?${new URLSearchParams({ by, start, end })}`;
  byId("copy").onclick = copy;
}

// navigator.clipboard needs https or localhost, which a page in the LAN has not.
async function copy() {
  const text = [...byId("table").rows].map((row) => [...row.cells].map((one) => one.textContent).join("\t")).join("\n");
  const done = await (navigator.clipboard?.writeText(text) ?? Promise.reject(new Error("no clipboard"))).then(() => true, () => selectAndCopy());
  byId("copied").textContent = t(done ? "table.copied" : "table.copy_failed");
}

function selectAndCopy() {
  getSelection().selectAllChildren(byId("table"));
  return document.execCommand("copy");
}

async function load() {
  const before = monthly ? [["before", t("period.last_year"), addMonths(first, -12)]]
    : [["before", t("period.last_month"), addMonths(first, -1)], ["lastyear", t("period.last_year_month"), addMonths(first, -12)]];
  const [energy, cost, bill, ...past] = await Promise.all([
    energyOf(first, 1), costOf(by, rangeOf(first)), costOf("month", rangeOf(first)), ...before.map(([, , start]) => energyOf(start)),
  ]);
  if (!energy || !known(sum(energy.consumption_kwh))) return empty(...outside());
  empty(null);
  const rows = bySlot(energy, first);
  const others = before.map(([kind, label, start], index) => ({ kind, label, rows: bySlot(past[index], start), shown: true }))
    .filter((other) => other.rows.some((row) => known(row.used)));
  showFigures(energy, others, cost, bill);
  choices(rows, others);
  showBars(rows, others);
  showCircuits(energy, now);
  showTable(rows, cost);
  return undefined;
}

header();
now = await watch(30);
await load().catch(() => empty(t("failed")));
