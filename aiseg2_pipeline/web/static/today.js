// Today: five figures beside yesterday's at the same hour, and the curve.

import { HOUR, addDays, byId, dayStart, nowSeconds, showNote, sum, t, today, totals, withShares, yen } from "./common.js";
import { drawCurve } from "./curve.js";
import { costOf, dayRange, figuresOf, hoursOf, yenOf } from "./figures.js";
import { homeCurve, homeLegend, nights, readings } from "./power.js";

// The sum of the hours until `elapsed` seconds of the day, the last one by its share.
function untilNow(values, starts, iso, elapsed) {
  if (!values) return null;
  return sum(values.map((value, at) => {
    const share = Math.min(1, Math.max(0, (elapsed - (Date.parse(starts[at]) / 1000 - dayStart(iso))) / HOUR));
    return value === null || share === 0 ? null : value * share;
  }));
}

function byNow(energy, iso, elapsed) {
  const found = {};
  for (const key of ["generation", "consumption", "bought", "sold"]) found[key] = untilNow(energy[`${key}_kwh`], energy.start, iso, elapsed);
  return withShares(found);
}

export async function showToday(now) {
  const iso = today(), before = addDays(iso, -1);
  const elapsed = nowSeconds() - dayStart(iso);
  const [energy, earlier, cost, earlierCost, drawn, flow] = await Promise.all([
    hoursOf(iso), hoursOf(before), costOf("hour", dayRange(iso)), costOf("hour", dayRange(before)), readings(iso, "total"),
    now.home.battery ? readings(iso, "flow") : null,
  ]);
  const found = energy ? totals(energy) : { generation: null, consumption: null, bought: null, sold: null, sufficiency: null };
  const was = earlier ? byNow(earlier, before, elapsed) : {};
  const wasCost = earlierCost ? { bought: untilNow(earlierCost.bought_yen, earlierCost.start, before, elapsed), sold: untilNow(earlierCost.sold_yen, earlierCost.start, before, elapsed) } : {};
  const paid = yenOf(cost);
  const note = (key, format) => {
    const value = was[key];
    if (value === null || value === undefined) return null;
    const money = wasCost[key] === null || wasCost[key] === undefined ? "" : ` · ${yen(wasCost[key])}`;
    return [t("yesterday_now"), `${format(value)}${money}`];
  };
  byId("figures").replaceChildren(...figuresOf(found, now.home, { cost: paid, note, none: t("not_yet") }));
  const gaps = energy?.consumption_kwh.some((value, at) => value === null && Date.parse(energy.start[at]) / 1000 + HOUR < nowSeconds() && energy.consumption_kwh.some((other) => other !== null));
  showNote("figures-note", gaps ? t("partial") : null);
  byId("chart").hidden = !drawn.any;
  showNote("chart-note", drawn.any ? null : t("curve.none"));
  if (!drawn.any) return;
  const curve = homeCurve(drawn, flow?.any ? flow : null, now.home, nights(iso));
  drawCurve(curve);
  homeLegend(curve);
}
