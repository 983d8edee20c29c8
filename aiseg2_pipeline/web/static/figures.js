// What several tabs share: figures, circuits by energy, and the sentence where there is nothing to show.

import { addDays, byId, circuitList, figure, get, huesByName, kwh, orNull, percent, root, showNote, sum, t, yen } from "./common.js";

const tariff = document.body.dataset.tariff === "1";

export const dayRange = (iso) => ({ start: `${iso}T00:00:00+09:00`, end: `${addDays(iso, 1)}T00:00:00+09:00` });
export const hoursOf = (iso) => orNull(get("energy", { by: "hour", ...dayRange(iso) }));

// The cost; null without a tariff. One that cannot be computed says why, and the rest of the page stays.
export async function costOf(by, range) {
  if (!tariff) return null;
  try {
    return await get("cost", { by, ...range });
  } catch (error) {
    showNote("cost-note", t("cost.failed", { reason: error.message }));
    return null;
  }
}

export function figuresOf(found, home, { cost = null, note = () => null, more = false, none = t("no_record") } = {}) {
  const box = (kind, extra = {}) => figure({
    kind, label: t(kind), big: kwh(found[kind]), unit: "kWh", beside: found[kind] === null ? null : cost?.[kind] ?? null,
    then: found[kind] === null ? none : note(kind, (value) => `${kwh(value)} kWh`), ...extra,
  });
  const share = (key, label, extra = {}) => figure({
    label, big: percent(found[key]), unit: "%", then: found[key] === null ? none : note(key, (value) => `${percent(value)}%`), ...extra,
  });
  const boxes = home.generation ? [box("generation"), box("consumption")] : [box("consumption")];
  if (home.generation || home.battery || found.bought !== null) boxes.push(box("bought"));
  if (home.generation || found.sold > 0) boxes.push(box("sold"));
  if (home.generation) boxes.push(share("sufficiency", t("sufficiency"), { wide: !more }));
  if (home.generation && more) boxes.push(share("selfConsumption", t("self_consumption")));
  return boxes;
}

export function showCircuits(energy, now, href = () => null) {
  const hues = huesByName(now);
  const circuits = (energy?.circuits ?? []).map((one) => ({ name: one.name, hue: one.hue ?? hues.get(one.name), value: sum(one.kwh) }))
    .filter((one) => one.value !== null).sort((a, b) => b.value - a.value);
  byId("circuits-part").hidden = circuits.length === 0;
  circuitList(circuits.map((one) => ({ ...one, text: `${kwh(one.value)} kWh`, href: href(one.name) })));
}

export const circuitDay = (iso) => (name) => `${root}/day/${iso}?${new URLSearchParams({ circuit: name })}`;

// What was paid and got, beside the kWh; unknown yen are left out.
export function yenOf(cost) {
  const [bought, sold] = [sum(cost?.bought_yen), sum(cost?.sold_yen)];
  return { bought: bought === null ? null : yen(bought), sold: sold === null ? null : yen(sold) };
}

// Show a sentence, with a link where one helps, in place of the content; null shows the content.
export function empty(text, href = null, label = "") {
  byId("empty").hidden = text === null;
  byId("content").hidden = text !== null;
  byId("empty").querySelector("p").textContent = text ?? "";
  const link = byId("empty").querySelector("a");
  link.hidden = href === null;
  if (href) [link.href, link.textContent] = [href, label];
}
