// What every tab needs: texts, numbers, Japan's dates, the API, and the header's chip with the state of the pipeline.
// Names of devices are untrusted: they reach the page through textContent alone.

const TEXTS = JSON.parse(document.getElementById("texts").textContent);
const MINUTE = 60, HOUR = 3600, DAY = 86400, TOKYO = 9 * HOUR;
const EN_MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(" ");
const japanese = document.documentElement.lang === "ja";

export const { root, tab, date: pageDate } = document.body.dataset;
export const byId = (id) => document.getElementById(id);
export { MINUTE, HOUR, DAY };

export function t(key, values = {}) {
  return (TEXTS[key] ?? key).replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "");
}

export function element(tag, className = "", text = null) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== null) node.textContent = text;
  return node;
}

export function svg(tag, attributes = {}, text = null) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== null) node.textContent = text;
  return node;
}

// Numbers. A missing one is a dash, never 0.
const DASH = "—";
const known = (value) => value !== null && value !== undefined;

export function powerParts(watts) {
  if (!known(watts)) return [DASH, ""];
  const rounded = Math.round(watts);
  return Math.abs(rounded) < 1000 ? [String(rounded), "W"] : [(watts / 1000).toFixed(2), "kW"];
}
export const power = (watts) => powerParts(watts).join("\u00A0").trim();
export const kwh = (value) => (known(value) ? grouped(value, 1) : DASH);
export const yen = (value) => (known(value) ? `￥${grouped(value, 0)}` : DASH);
export const percent = (share) => (known(share) ? String(Math.round(share * 100)) : DASH);

function grouped(value, digits) {
  const [whole, fraction] = (Math.round(Math.abs(value) * 10 ** digits) / 10 ** digits).toFixed(digits).split(".");
  const sign = value < 0 && Number(whole + (fraction ?? "")) > 0 ? "−" : "";
  return sign + whole.replace(/\B(?=(\d{3})+$)/g, ",") + (fraction ? `.${fraction}` : "");
}

export function minutesText(minutes) {
  const h = Math.floor(minutes / 60), m = minutes % 60;
  const number = (value) => grouped(value, 0);
  if (h === 0) return t("unit.min", { n: m });
  return m === 0 || h >= 100 ? t("unit.h", { n: number(h) }) : t("unit.h_min", { h: number(h), m });
}

export function sum(values) {
  const numbers = (values ?? []).filter(known);
  return numbers.length ? numbers.reduce((total, value) => total + value, 0) : null;
}

// Dates are Japan's wherever the browser is: a Date whose UTC fields are Japan's clock.
export const seconds = (iso) => Date.parse(iso) / 1000;
const clock = (unix) => new Date((unix + TOKYO) * 1000);
export const nowSeconds = () => Date.now() / 1000;
export const isoDate = (unix) => clock(unix).toISOString().slice(0, 10);
export const dayStart = (iso) => Date.parse(`${iso}T00:00:00+09:00`) / 1000;
export const today = () => isoDate(nowSeconds());
const hhmm = (unix) => clock(unix).toISOString().slice(11, 16);
export const addDays = (iso, days) => isoDate(dayStart(iso) + days * DAY);

export function addMonths(iso, months) {
  const [year, month, day] = iso.split("-").map(Number);
  const index = year * 12 + month - 1 + months;
  const of = [Math.floor(index / 12), (index % 12) + 1];
  const last = new Date(Date.UTC(of[0], of[1], 0)).getUTCDate();
  return [String(of[0]).padStart(4, "0"), String(of[1]).padStart(2, "0"), String(Math.min(day ?? 1, last)).padStart(2, "0")].join("-");
}

const parts = (iso) => {
  const [y, m, d] = iso.split("-").map(Number);
  const names = t("date.weekdays");
  const weekday = new Date(Date.UTC(y, m - 1, d ?? 1)).getUTCDay();
  return { y, m, d, mon: EN_MONTHS[m - 1], w: japanese ? names[weekday] : names.split(" ")[weekday] };
};
export const dayText = (iso) => t("date.day", parts(iso));
export const fullDate = (iso) => t("date.full", parts(iso));
export const monthText = (iso) => t("date.month", parts(iso));
export const shortMonth = (iso) => t("date.month_short", parts(iso));
// A time of today is a clock, an older one has its date.
export const moment = (iso) => {
  const day = isoDate(seconds(iso));
  return day === today() ? hhmm(seconds(iso)) : `${dayText(day)} ${hhmm(seconds(iso))}`;
};

// The API. Long ranges come in pieces, and `next` is the address of the following one.
class ApiError extends Error {}

export async function get(path, values = {}) {
  const query = new URLSearchParams(Object.entries(values).filter(([, value]) => known(value)));
  const response = await fetch(`${root}/api/v1/${path}${query.size ? `?${query}` : ""}`, {
    headers: { Accept: "application/json" }, signal: AbortSignal.timeout(15000),
  });
  if (response.status === 401) location.reload();
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw Object.assign(new ApiError(body.error ?? response.statusText), { status: response.status });
  return body;
}

export async function getAll(path, values) {
  const whole = await get(path, values);
  let { next } = whole;
  for (let pieces = 0; next && pieces < 60; pieces += 1) {
    const url = new URL(next, location.href);
    const piece = await get(url.pathname.split("/api/v1/")[1], Object.fromEntries(url.searchParams));
    join(whole, piece);
    next = piece.next;
  }
  return whole;
}

function join(whole, piece) {
  for (const [key, value] of Object.entries(piece)) {
    if (!Array.isArray(value)) continue;
    if (key === "circuits") {
      const before = whole.start.length - piece.start.length;
      for (const circuit of value) {
        const same = whole.circuits.find((other) => other.id === circuit.id);
        if (same) same.kwh.push(...circuit.kwh);
        else whole.circuits.push({ ...circuit, kwh: [...Array(before).fill(null), ...circuit.kwh] });
      }
    } else {
      (whole[key] ??= []).push(...value);
    }
  }
}

export const orNull = (promise) => promise.catch((error) => {
  if (error instanceof ApiError && error.status < 500) return null;
  throw error;
});

// The chip and the notice. Each tab asks for `now`: the tab "now" every 5 s and live, the others every 30 s.
const GOOD_S = 150;
let last = null, received = 0, failed = false, listener = () => {}, answered = () => {};

function ageText(age) {
  if (age < 100) return t("age.s", { n: Math.max(0, Math.round(age)) });
  return age < 100 * MINUTE ? t("age.min", { n: Math.round(age / MINUTE) }) : t("age.h", { n: Math.round(age / HOUR) });
}

function chipOf(now) {
  const { code, since } = now.state;
  const time = since ? moment(since) : "";
  if (failed) return ["bad", t("age.offline")];
  if (code === "silent" || code === "stopped") return ["bad", since ? t(`age.${code}`, { time }) : t(`age.${code}`, { time: "" })];
  if (code === "unreadable") return ["bad", t("age.unreadable")];
  if (code === "upgrading" && !known(now.age_s)) return ["warn", t("age.upgrading")];
  if (!known(now.age_s)) return ["warn", t("age.waiting")];
  const age = now.age_s + nowSeconds() - received;
  return [age <= GOOD_S ? "good" : "warn", ageText(age)];
}

function noticeOf(now) {
  const { code, since, wait_s: wait } = now.state;
  if (failed) return ["bad", t("state.offline")];
  if (code === "ok") return null;
  if (code === "waiting" && known(now.age_s)) return ["warn", t("state.restarted", { n: Math.max(1, Math.round(wait ?? 60)) })];
  if (code === "waiting") return ["warn", known(wait) ? t("state.waiting_s", { n: Math.max(1, Math.round(wait)) }) : t("state.waiting")];
  const sentence = t(`state.${code}`, { since: since ? t("since", { time: moment(since) }) : "" });
  return [code === "upgrading" || code === "moved_aside" ? "warn" : "bad", sentence, last.state.reason];
}

function show() {
  const chip = byId("age"), notice = byId("notice");
  const [state, text] = last ? chipOf(last) : failed ? ["bad", t("age.offline")] : ["loading", t("age.loading")];
  chip.dataset.state = state;
  if (chip.firstElementChild.textContent !== text) chip.firstElementChild.textContent = text;
  const found = last ? noticeOf(last) : failed ? ["bad", t("state.offline")] : null;
  notice.hidden = found === null;
  if (found && notice.dataset.said !== found.join()) {
    const [kind, sentence, reason] = found;
    Object.assign(notice.dataset, { state: kind, said: found.join() });
    notice.replaceChildren(element("p", "", sentence), ...(reason ? [element("p", "note", reason)] : []));
  }
  document.body.classList.toggle("stale", state === "bad");
}

async function ask() {
  try {
    last = await get("now", tab === "now" ? { live: 1 } : {});
    received = nowSeconds();
    failed = false;
    listener(last);
    answered(last);
  } catch {
    failed = true;
  }
  show();
}

// Poll only while somebody looks; one request at a time. Return the first answer, however long that takes.
export function watch(every, listen = () => {}) {
  listener = listen;
  const first = new Promise((resolve) => { answered = resolve; });
  let timer = null, busy = false;
  const visible = () => document.visibilityState === "visible";
  const round = async () => {
    clearTimeout(timer);
    if (busy || !visible()) return;
    busy = true;
    await ask();
    busy = false;
    clearTimeout(timer);
    if (visible()) timer = setTimeout(round, every * 1000);
  };
  document.addEventListener("visibilitychange", () => (visible() ? round() : clearTimeout(timer)));
  setInterval(() => visible() && last && show(), 1000);
  round();
  return first;
}

// The same circuit has the same hue everywhere: by its rank of the month.
const hueClass = (hue) => (known(hue) ? `h${hue}` : "");
export const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
export const huesByName = (now) => new Map((now?.circuits ?? []).map((circuit) => [circuit.name, circuit.hue]));

export function onTheme(redraw) {
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
}

// Lists of circuits as bars: [{name, hue, value, text, href, isSum}] in order.
const FIRST = 10;
export function circuitList(circuits) {
  const list = byId("circuits"), more = byId("all-circuits");
  const open = more.getAttribute("aria-expanded") === "true";
  const most = Math.max(1e-9, ...circuits.map((circuit) => circuit.value ?? 0));
  const focused = list.contains(document.activeElement) ? document.activeElement.dataset.name : null;
  list.replaceChildren(...circuits.slice(0, open ? undefined : FIRST).map((circuit) => circuitRow(circuit, most)));
  if (focused !== null) [...list.querySelectorAll("a")].find((row) => row.dataset.name === focused)?.focus({ preventScroll: true });
  more.hidden = circuits.length <= FIRST;
  more.textContent = open ? t("circuits.fewer") : t("circuits.all", { n: circuits.length });
  more.onclick = () => {
    more.setAttribute("aria-expanded", String(!open));
    circuitList(circuits);
  };
}

function circuitRow(circuit, most) {
  const item = element("li"), row = element(circuit.href ? "a" : "div", "row");
  if (circuit.href) row.href = circuit.href;
  row.dataset.name = circuit.name;
  const label = element("span", "label", circuit.name);
  label.dir = "auto";
  if (circuit.isSum) label.append(element("small", "", t("circuits.sum")));
  const meter = element("span", `meter ${hueClass(circuit.hue)}`), bar = element("span");
  bar.style.width = `${(100 * Math.max(0, circuit.value ?? 0)) / most}%`;
  meter.append(bar);
  row.append(label, element("span", "amount", circuit.text), meter);
  item.append(row);
  return item;
}

// One figure: {kind, label, big, unit, beside, then}. `then` is a small line, or several.
export function figure({ kind, label, big, unit = "", beside = null, then = [], wide = false }) {
  const box = element("div", wide ? "figure wide" : "figure");
  const term = element("dt");
  if (kind) term.append(element("span", `swatch ${kind}`));
  // A long number takes its unit's place.
  const long = big.length > 5 && unit !== "";
  term.append(long ? `${label} (${unit})` : label);
  const value = element("dd", big.length > 8 ? "big small" : "big", big);
  if (unit && big !== DASH && !long) value.append(element("small", "", unit));
  box.append(term, value);
  if (beside) box.append(element("dd", "beside", beside));
  for (const line of [then].flat().filter(Boolean)) box.append(element("dd", "then", line));
  return box;
}

// The links to the period before and after: one that leads nowhere has no address.
export function stepTo(id, address) {
  byId(id).href = address;
  byId(id).removeAttribute("aria-disabled");
}

// The date picker: `go` gets the date that was chosen.
export function picker(value, max, go) {
  const pick = byId("pick");
  Object.assign(pick, { value, max });
  pick.addEventListener("click", () => { try { pick.showPicker?.(); } catch { /* It is open already. */ } });
  pick.addEventListener("change", () => { if (pick.value && pick.checkValidity()) go(pick.value); });
}

export const showNote = (id, text) => {
  const node = byId(id);
  node.hidden = !text;
  node.textContent = text ?? "";
};

export function legend(items) {
  byId("legend").replaceChildren(...items.map(({ kind, label, swatch }) => {
    const item = element("li");
    item.append(swatch ?? element("span", `swatch ${kind}`), label);
    return item;
  }));
}

let hatchings = 0;
export function hatchSwatch(name = "--consumption") {
  const box = svg("svg", { class: "swatch", viewBox: "0 0 14 14", "aria-hidden": "true" });
  const lines = svg("path", { d: "M-2 6 6 -2M-2 13 13 -2M2 16 16 2M9 16 16 9", fill: "none" });
  lines.style.stroke = `var(${name})`;
  lines.style.strokeWidth = "2";
  const frame = svg("rect", { width: 13, height: 13, x: 0.5, y: 0.5, fill: "none" });
  frame.style.stroke = `var(${name})`;
  const clip = svg("clipPath", { id: `swatch-${(hatchings += 1)}` });
  clip.append(svg("rect", { width: 14, height: 14 }));
  lines.setAttribute("clip-path", `url(#swatch-${hatchings})`);
  box.append(clip, lines, frame);
  return box;
}

// What the energy of a stretch comes to: sums of [from, to) of an answer of `energy`, and the shares.
export function totals(energy, from = 0, to = undefined) {
  const part = (key) => sum(energy[key]?.slice(from, to));
  const found = {};
  for (const key of ["generation_kwh", "consumption_kwh", "bought_kwh", "sold_kwh"]) found[key.slice(0, -4)] = part(key);
  return withShares(found);
}

export function withShares(found) {
  const { generation, consumption, bought, sold } = found;
  const share = (own, whole) => (known(own) && whole > 0 ? Math.min(1, Math.max(0, own / whole)) : null);
  found.sufficiency = known(bought) ? share(consumption - bought, consumption) : null;
  found.selfConsumption = known(sold) ? share(generation - sold, generation) : null;
  return found;
}
