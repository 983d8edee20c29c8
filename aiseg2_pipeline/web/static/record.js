// The tab "record": three sentences, a calendar of days split into read, filled and missing, and the 24 hours of one.

import {
  DAY, addDays, byId, dayStart, dayText, element, fullDate, get, getAll, isoDate, minutesText, orNull, root, seconds, svg, t, today, watch,
  shortMonth,
} from "./common.js";

const GAP = 2, LEAST_STEP = 13, MOST_STEP = 22, TOP = 20, LEAST_PX = 1.5, WEEKDAYS = 7;
let days = new Map(), firstDay = null, chosen = null, step = LEAST_STEP, cell = LEAST_STEP - GAP;

function sentences(record) {
  const said = [];
  if (!record.first_hour) return [t("record.empty")];
  said.push(t("record.since", { date: fullDate(isoDate(seconds(record.first_hour))) })
    + (record.missing_minutes ? t("record.missing", { n: minutesText(record.missing_minutes) }) : t("record.complete")));
  if (record.missing_minutes) {
    const until = record.can_be_filled_until;
    said.push(until ? t("record.fillable", { n: minutesText(record.fillable_minutes), date: fullDate(isoDate(seconds(until))) }) : t("record.not_fillable"));
  }
  const { configured, pending_hours: pending, oldest } = record.influxdb ?? {};
  if (!configured) said.push(t("record.influx.none"));
  else said.push(pending ? t("record.influx.behind", { n: pending, date: oldest ? dayText(isoDate(seconds(oldest))) : "" }) : t("record.influx.ok"));
  return said;
}

// A strip split from the bottom up: read, filled (hatched), missing. A share is never too thin to see.
function split(group, { read, filled, missing }, x, y, width, height) {
  const total = read + filled + missing;
  if (!total) return;
  const least = (minutes) => (minutes ? Math.max(LEAST_PX, (minutes / total) * height) : 0);
  const missed = least(missing), fill = least(filled);
  const rest = Math.max(0, height - missed - fill);
  const bar = (kind, top, size) => size > 0 && group.append(svg("rect", { class: kind, x, y: top, width, height: size }));
  bar("missing", y, missed);
  bar("filled", y + missed, fill);
  if (fill) group.append(svg("path", { class: "hatch", d: hatching(x, y + missed, width, fill) }));
  bar("read", y + missed + fill, rest);
}

// 45° lines within a rectangle.
function hatching(x, y, width, height) {
  const lines = [];
  for (let c = 4; c < width + height; c += 4) {
    const from = c <= height ? [0, c] : [c - height, height];
    const to = c <= width ? [c, 0] : [width, c - width];
    lines.push(`M${x + from[0]} ${y + from[1]}L${x + to[0]} ${y + to[1]}`);
  }
  return lines.join("");
}

const weekday = (iso) => new Date(`${iso}T00:00:00Z`).getUTCDay();

function calendar() {
  const width = byId("calendar").clientWidth;
  const wide = width >= 54 * LEAST_STEP;
  step = Math.min(MOST_STEP, Math.max(LEAST_STEP, Math.floor(width / (wide ? 54 : 27))));
  cell = step - GAP;
  const last = today();
  const blocks = [];
  for (let year = Number(last.slice(0, 4)); year >= Number(firstDay.slice(0, 4)); year -= 1) {
    const halves = wide ? [[`${year}-01-01`, `${year + 1}-01-01`]] : [[`${year}-07-01`, `${year + 1}-01-01`], [`${year}-01-01`, `${year}-07-01`]];
    const block = element("div", "year");
    block.append(element("h3", "", t("date.year", { y: year })));
    block.append(...halves.filter(([from, to]) => from <= last && to > firstDay).map(([from, to]) => weeks(from, to)));
    blocks.push(block);
  }
  byId("calendar").replaceChildren(...blocks);
  mark();
}

function weeks(from, to) {
  const lead = weekday(from);
  const count = Math.round((dayStart(to) - dayStart(from)) / DAY);
  const columns = Math.ceil((lead + count) / WEEKDAYS);
  const picture = svg("svg", { width: columns * step, height: TOP + WEEKDAYS * step, role: "application", tabindex: 0, "aria-label": t("record.calendar") });
  picture.dataset.from = from;
  picture.dataset.to = to;
  let labelled = -9;
  for (let index = 0, iso = from; index < count; index += 1, iso = addDays(iso, 1)) {
    const column = Math.floor((lead + index) / WEEKDAYS), row = (lead + index) % WEEKDAYS;
    const x = column * step, y = TOP + row * step;
    if (iso.endsWith("-01") && column - labelled >= 3) {
      picture.append(svg("text", { x, y: 14 }, shortMonth(iso)));
      labelled = column;
    }
    const found = days.get(iso);
    if (iso > today()) continue;
    if (iso < firstDay || !found) picture.append(svg("rect", { class: "outside", x, y, width: cell, height: cell, rx: 1 }));
    else split(picture, found, x, y, cell, cell);
  }
  picture.append(svg("rect", { class: "chosen-day", width: cell + 2, height: cell + 2, rx: 2, hidden: "" }));
  picture.addEventListener("click", (event) => {
    const box = picture.getBoundingClientRect();
    const column = Math.floor((event.clientX - box.left) / step), row = Math.floor((event.clientY - box.top - TOP) / step);
    choose(addDays(from, column * WEEKDAYS + Math.min(6, Math.max(0, row)) - lead));
  });
  picture.addEventListener("keydown", keys);
  return picture;
}

function keys(event) {
  const move = { ArrowLeft: -7, ArrowRight: 7, ArrowUp: -1, ArrowDown: 1 }[event.key];
  if (move) choose(addDays(chosen ?? today(), chosen ? move : 0));
  else if (event.key === "Enter" && chosen) location.assign(`${root}/day/${chosen}`);
  else return;
  event.preventDefault();
}

function mark() {
  for (const picture of byId("calendar").querySelectorAll("svg")) {
    const frame = picture.querySelector(".chosen-day"), { from, to } = picture.dataset;
    const there = chosen !== null && chosen >= from && chosen < to;
    frame.toggleAttribute("hidden", !there);
    if (!there) continue;
    const index = weekday(from) + Math.round((dayStart(chosen) - dayStart(from)) / DAY);
    frame.setAttribute("x", Math.floor(index / WEEKDAYS) * step - 1);
    frame.setAttribute("y", TOP + (index % WEEKDAYS) * step - 1);
  }
}

async function choose(iso) {
  if (iso < firstDay || iso > today() || iso === chosen) return;
  chosen = iso;
  mark();
  const found = days.get(iso) ?? { read: 0, filled: 0, missing: 0 };
  byId("hours-title").textContent = t("record.day", { date: fullDate(iso) });
  byId("split").textContent = splitText(found);
  byId("open").hidden = false;
  [byId("open").firstElementChild.href, byId("open").firstElementChild.textContent] = [`${root}/day/${iso}`, t("day.open")];
  const hours = await orNull(get("coverage", { by: "hour", start: `${iso}T00:00:00+09:00`, end: `${addDays(iso, 1)}T00:00:00+09:00` })).catch(() => null);
  if (chosen === iso) byId("hours").replaceChildren(hourStrip(hours, iso));
}

const splitText = ({ read, filled, missing }) => t("record.split", { read: minutesText(read), filled: minutesText(filled), missing: minutesText(missing) });

function hourStrip(hours, iso) {
  const width = Math.min(760, byId("hours").clientWidth), slot = width / 24, height = 44;
  const picture = svg("svg", { width, height: height + 20, role: "img", "aria-label": t("record.day", { date: fullDate(iso) }) });
  for (let hour = 0; hour < 24; hour += 1) {
    const box = svg("g");
    const index = (hours?.start ?? []).findIndex((start) => Math.round((seconds(start) - dayStart(iso)) / 3600) === hour);
    const found = index < 0 ? { read: 0, filled: 0, missing: 0 } : { read: hours.read[index], filled: hours.filled[index], missing: hours.missing[index] };
    box.append(svg("title", {}, `${t("record.hour", { h: hour })}: ${splitText(found)}`));
    box.append(svg("rect", { class: "outside", x: hour * slot, y: 0, width: slot - 2, height }));
    split(box, found, hour * slot, 0, slot - 2, height);
    if (hour % 6 === 0) box.append(svg("text", { x: hour * slot, y: height + 16 }, t("record.hour", { h: hour })));
    picture.append(box);
  }
  return picture;
}

async function load() {
  const record = await get("record");
  byId("sentences").replaceChildren(...sentences(record).map((text) => element("li", "", text)));
  if (!record.first_hour) return;
  firstDay = isoDate(seconds(record.first_hour));
  const covered = await getAll("coverage", { by: "day", start: `${firstDay}T00:00:00+09:00`, end: `${addDays(today(), 1)}T00:00:00+09:00` });
  days = new Map(covered.start.map((start, index) => [isoDate(seconds(start)), { read: covered.read[index], filled: covered.filled[index], missing: covered.missing[index] }]));
  calendar();
  choose(today());
  let width = byId("calendar").clientWidth;
  new ResizeObserver(() => {
    if (byId("calendar").clientWidth === width) return;
    width = byId("calendar").clientWidth;
    calendar();
  }).observe(byId("calendar"));
}

watch(30);
load().catch(() => byId("sentences").replaceChildren(element("li", "", t("failed"))));
