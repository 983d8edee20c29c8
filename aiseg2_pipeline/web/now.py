"""The answer `now`: the newest reading or a live power flow, the circuits, and the state of the pipeline.

A number that is not known is None, never 0. How a live flow is read belongs in `live`.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aiseg2_pipeline.aiseg2.models import BatteryState, CurrentFlow
from aiseg2_pipeline.frames import names
from aiseg2_pipeline.japan_time import hour_from_key
from aiseg2_pipeline.settings import Settings
from aiseg2_pipeline.store import incidents
from aiseg2_pipeline.store.damage import unrecovered
from aiseg2_pipeline.store.queries import Queries, Value
from aiseg2_pipeline.web.record import Record, UnavailableError
from aiseg2_pipeline.web.times import DAY_S, MINUTE_S, iso, start_of

HUES = 8
HUES_OF_DAYS = 30
W_PER_KW = 1000
# A reading is late once two minutes have passed without one.
LATE_S = 120
# A failing run notes that each minute; without a note and a reading for so long, nothing runs.
NOTED_S, STOPPED_S = 180, 300
# The time that a start takes until the first reading, and a minute's run until its reading is stored.
START_S, RUN_S = 120, 15
_STATES = {BatteryState.CHARGING: "charging", BatteryState.DISCHARGING: "discharging", BatteryState.IDLE: "idle"}


@dataclass
class Power:
    """A power flow in W; `grid_w` is positive while buying, `battery_w` while discharging."""

    time_s: float
    source: str
    generation_w: int | None = None
    consumption_w: int | None = None
    solar_w: int | None = None
    grid_w: int | None = None
    battery_w: int | None = None
    battery_percent: float | None = None
    charge_state: str | None = None


class Now:
    """Answers `now`."""

    def __init__(self, record: Record, clock: Callable[[], datetime]) -> None:
        """Use these stores; `clock` returns the host's time."""
        self._record, self._settings, self._clock = record, record.settings, clock
        self._hues: tuple[int, dict[str, int]] = (0, {})

    def answer(self, live: CurrentFlow | None = None) -> dict[str, Any]:
        """Return the answer, with `live` in place of the stored power flow."""
        now_s = self._clock().timestamp()
        values: list[Value] = []
        newest = first = None
        kinds: set[str] = set()
        shared: set[str] = set()
        problem = None
        is_read = True
        try:
            with self._record.readings() as queries:
                if queries is not None:
                    newest, first = queries.newest_live(), queries.oldest_hour()
                    values = queries.values_at(newest) if newest is not None else []
                    kinds = {kind if kind != "total" else name for _, kind, name, _ in queries.series()}
                    counted = Counter(name for _, name in queries.circuits_in_force())
                    shared = {name for name, count in counted.items() if count > 1}
                    problem = "upgrading" if queries.is_upgrading() else None
        except UnavailableError as error:
            problem, is_read = error.code, False
        power = stored_power(newest, values) if newest is not None else None
        if live is not None:
            power = live_power(live)
        return {
            **_power(power, now_s),
            "circuits_time": iso(newest) if newest is not None and "usage" in kinds else None,
            "circuits": self._circuits(values, shared),
            "home": {
                "generation": names.TOTAL_GENERATION in kinds,
                "battery": "battery" in kinds,
                "circuits": "usage" in kinds,
                "tariff": self._settings.tariff is not None,
            },
            "state": self._state(newest, problem, now_s) if is_read else _state(problem),
            "first_hour": iso(first) if (first := first_hour(self._settings, first)) is not None else None,
            "demo": self._settings.simulated,
            "live": self._settings.page_live,
        }

    def hues(self) -> dict[str, int]:
        """Return the hue of the circuits that used most in the last 30 days; it changes at midnight at most."""
        today = start_of("day", self._clock().timestamp())
        if self._hues[0] != today:
            with self._record.readings() as queries:
                used = _used(queries, today) if queries else {}
            ranked = sorted(used, key=lambda name: (-used[name], name))[:HUES]
            # Nothing is kept of a record that has no ended hour yet.
            self._hues = (today if ranked else 0, {name: rank for rank, name in enumerate(ranked)})
        return self._hues[1]

    def _circuits(self, values: Iterable[Value], shared: set[str]) -> list[dict[str, Any]]:
        try:
            hues = self.hues()
        except UnavailableError:
            hues = {}
        circuits = [
            {"name": name, "w": round(watts), "hue": hues.get(name), "is_sum": name in shared}
            for kind, name, _, watts in values
            if kind == "usage"
        ]
        return sorted(circuits, key=lambda circuit: -circuit["w"])

    def _state(self, newest: int | None, problem: str | None, now_s: float) -> dict[str, Any]:
        """Return the state of the pipeline with a store that can be read; `problem` is what is wrong with older rows."""
        settings = self._settings
        if newest is None or now_s - newest >= LATE_S:
            trouble = incidents.read(settings.data_dir, incidents.DEVICE)
            begun_s = max(_modified(settings.supervisor_lock_path), _modified(settings.code_server_socket))
            if trouble and trouble.at and now_s - trouble.at.timestamp() < NOTED_S:
                return _state("silent", since=iso(trouble.since.timestamp()), reason=trouble.sentence)
            if now_s - begun_s < (STOPPED_S if newest is None else START_S):
                return _state("waiting", wait_s=MINUTE_S - int(now_s % MINUTE_S) + RUN_S)
            if newest is None or now_s - newest >= STOPPED_S:
                return _state("stopped", since=None if newest is None else iso(newest))
        return _state(problem or ("moved_aside" if unrecovered(settings.store_path) else "ok"))


def _state(
    code: str | None, since: str | None = None, wait_s: int | None = None, reason: str | None = None
) -> dict[str, Any]:
    return {"code": code, "since": since, "wait_s": wait_s, "reason": reason}


def first_hour(settings: Settings, oldest: int | None) -> int | None:
    """Return the start of the record: the first hour that the pipeline fills, or the first with rows."""
    with suppress(OSError, ValueError):
        begins = hour_from_key(settings.first_partition_path.read_text(encoding="ascii").strip())
        return min(int(begins.timestamp()), oldest or int(begins.timestamp()))
    return oldest


def stored_power(time_s: int, values: Iterable[Value]) -> Power:
    """Return the power flow of a stored reading."""
    watts = {name: round(value * W_PER_KW) for kind, name, unit, value in values if unit == "kW"}
    battery = {name: value for kind, name, _, value in values if kind == "battery"}
    exchange_w = watts.get(names.TOTAL_EXCHANGE)
    generation_w = watts.get(names.TOTAL_GENERATION)
    # Generation less consumption is the exchange with the grid only in a home without a battery.
    grid_w = None if battery or exchange_w is None else -exchange_w
    state = battery.get(names.BATTERY_STATE)
    return Power(
        time_s,
        "stored",
        generation_w,
        watts.get(names.TOTAL_CONSUMPTION),
        watts.get(names.FLOW_SUN, generation_w),
        watts.get(names.FLOW_GRID, grid_w),
        watts.get(names.FLOW_BATTERY),
        battery.get(names.BATTERY_CHARGE),
        None if state is None else _STATES.get(BatteryState(int(state))),
    )


def live_power(live: CurrentFlow) -> Power:
    """Return the power flow that was just read."""
    flow, of_battery = live.flow, live.battery_flow
    generation_w = _watts(flow.generation_kw) if flow.generators else None
    consumption_w = _watts(flow.consumption_kw)
    grid_w = None
    if flow.battery is None and consumption_w is not None and (generation_w is not None or not flow.generators):
        grid_w = consumption_w - (generation_w or 0)
    state = flow.battery.state if flow.battery else None
    return Power(
        live.answered_at.timestamp(),
        "live",
        generation_w,
        consumption_w,
        _watts(of_battery.sun_kw) if of_battery else generation_w,
        _watts(of_battery.grid_kw) if of_battery else grid_w,
        _watts(of_battery.battery_kw) if of_battery else None,
        flow.battery.charge_percent if flow.battery else None,
        None if state is None else _STATES[state],
    )


def _power(power: Power | None, now_s: float) -> dict[str, Any]:
    shown = power or Power(0, "stored")
    return {
        "time": iso(power.time_s) if power else None,
        "age_s": max(0, round(now_s - power.time_s)) if power else None,
        **{name: value for name, value in vars(shown).items() if name != "time_s"},
    }


def _watts(kilowatts: float | None) -> int | None:
    return None if kilowatts is None else round(kilowatts * W_PER_KW)


def _used(queries: Queries, today: int) -> dict[str, float]:
    used: dict[str, float] = {}
    for one in queries.by_day("usage", today - HUES_OF_DAYS * DAY_S, today + DAY_S):
        used[one.name] = used.get(one.name, 0.0) + one.sum / one.n
    return used


def _modified(path: Path) -> float:
    """Return when a file was written; 0 where it is not there."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def utc_now() -> datetime:
    """Return the host's time."""
    return datetime.now(UTC)
