// The power flow: four nodes, a wire from each to the middle, and the sentence under it.

import { byId, power, powerParts, t, moment } from "./common.js";

const IDLE_W = 10;
const known = (value) => value !== null && value !== undefined;

export function showFlow(now) {
  const { home } = now;
  const flow = byId("flow");
  flow.setAttribute("viewBox", `0 ${home.generation ? 0 : 100} 358 ${(home.battery ? 324 : 244) - (home.generation ? 0 : 100)}`);
  const sun = known(now.solar_w) ? now.solar_w : now.generation_w;
  show("sun", home.generation, sun);
  show("grid", true, now.grid_w, now.grid_w < 0);
  show("home", true, now.consumption_w);
  show("battery", home.battery, now.battery_w, now.battery_w < 0);
  byId("node-grid").classList.toggle("selling", now.grid_w < 0);
  byId("arm-grid").classList.toggle("selling", now.grid_w < 0);
  label("grid", !known(now.grid_w) ? t("grid") : Math.abs(now.grid_w) < IDLE_W ? t("grid_idle") : t(now.grid_w < 0 ? "selling" : "buying"));
  if (home.battery) showBattery(now);
  const said = sentence(now, sun);
  if (byId("sentence").textContent !== said) byId("sentence").textContent = said;
}

function show(name, there, watts, back = false) {
  const node = byId(`node-${name}`), arm = byId(`arm-${name}`);
  for (const part of [node, arm]) part.toggleAttribute("hidden", !there);
  if (!there) return;
  const [number, unit] = powerParts(known(watts) ? Math.abs(watts) : null);
  node.querySelector(".number").textContent = number;
  node.querySelector(".unit").textContent = unit;
  const size = known(watts) ? Math.abs(watts) : 0;
  arm.classList.toggle("idle", size < IDLE_W);
  arm.classList.toggle("back", back);
  arm.querySelector(".wire").style.strokeWidth = `${Math.min(18, 3 + size / 350)}px`;
  arm.style.setProperty("--pace", `${Math.max(0.45, 1.6 - size / 4000)}s`);
  const wire = arm.querySelector(".wire");
  const middle = wire.getPointAtLength(wire.getTotalLength() * 0.52), end = wire.getPointAtLength(wire.getTotalLength());
  const angle = (Math.atan2(end.y - middle.y, end.x - middle.x) * 180) / Math.PI + (back ? 180 : 0);
  arm.querySelector(".arrow").setAttribute("transform", `translate(${middle.x} ${middle.y}) rotate(${angle})`);
}

function label(name, text) {
  byId(`node-${name}`).querySelector(".label").textContent = text;
}

function showBattery(now) {
  const state = !known(now.battery_w) ? null : Math.abs(now.battery_w) < IDLE_W ? "resting" : now.battery_w > 0 ? "discharging" : "charging";
  const level = known(now.battery_percent) ? ` ${Math.round(now.battery_percent)}%` : "";
  label("battery", (state ? t(state) : t("battery")) + level);
  byId("charge").style.strokeDasharray = `${known(now.battery_percent) ? now.battery_percent : 0} 100`;
}

// What a person would say. The home takes the sun's power first, then the battery's; the rest is bought.
function sentence(now, sun) {
  const used = now.consumption_w;
  if (!known(used) && now.state.code === "waiting") return "";
  if (!known(used)) return t("say.nothing");
  if (now.state.code === "silent" || now.state.code === "stopped") return t("say.last", { time: moment(now.time), c: power(used) });
  const said = [t("say.use", { c: power(used) })];
  const { home, grid_w: grid, battery_w: battery } = now;
  const batteryKnown = !home.battery || known(battery);
  if (home.generation && !known(sun)) said.push(t("say.no_generation"));
  else if (!known(grid) || !batteryKnown) said.push(t("say.grid_unknown"));
  else said.push(...origin(used, home.generation ? sun : 0, grid, battery ?? 0, home));
  return said.join("").trim();
}

function origin(used, sun, grid, battery, home) {
  const said = [];
  const bought = Math.min(used, Math.max(0, grid));
  const stored = Math.min(used - bought, Math.max(0, battery));
  const own = Math.min(Math.max(0, used - bought - stored), sun);
  const values = { sun: power(own), battery: power(stored) };
  const some = (watts) => watts >= IDLE_W;
  if (some(bought)) {
    const which = some(own) && some(stored) ? "some_both" : some(own) ? "some_sun" : some(stored) ? "some_battery" : "all_bought";
    if (which !== "all_bought" || home.generation || home.battery) said.push(t(`say.${which}`, values));
  } else if (some(own) || some(stored)) {
    said.push(t(some(own) && some(stored) ? "say.all_own" : some(own) ? "say.all_sun" : "say.all_battery", values));
  }
  if (some(-grid)) said.push(t("say.sell", { w: power(-grid) }));
  if (some(-battery)) said.push(t("say.charge", { w: power(-battery) }));
  return said;
}
