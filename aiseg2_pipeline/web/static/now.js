// The tab "now": the flow, the circuits, and today.

import { MINUTE, byId, circuitList, moment, power, root, showNote, t, today, watch } from "./common.js";
import { showFlow } from "./flow.js";
import { showToday } from "./today.js";

const TODAY_EVERY_S = MINUTE;
let drawn = 0;

function listen(now) {
  if (now.home) showFlow(now);
  const day = today();
  byId("circuits").closest("section").hidden = !now.circuits?.length;
  byId("circuits-at").textContent = now.circuits_time ? t("circuits.at", { time: moment(now.circuits_time) }) : "";
  circuitList((now.circuits ?? []).map((circuit) => ({
    name: circuit.name, hue: circuit.hue, value: circuit.w, text: power(circuit.w), isSum: circuit.is_sum,
    href: `${root}/day/${day}?${new URLSearchParams({ circuit: circuit.name })}`,
  })));
  if (Date.now() - drawn > TODAY_EVERY_S * 1000) {
    drawn = Date.now();
    showToday(now).catch(() => {
      drawn = 0;
      showNote("chart-note", t("curve.failed"));
    });
  }
}

watch(5, listen);
