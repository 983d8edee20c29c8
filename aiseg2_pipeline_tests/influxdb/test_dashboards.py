"""Executes every query of the Grafana dashboards on a real InfluxDB, and compares the results with the stores.

The pipeline's own delivery fills the bucket; pandas computes each panel's expected values from the stores. The JSON is
checked with Grafana's own types.
"""

import json
import re
import shutil
import subprocess
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import yaml

from aiseg2_pipeline.aiseg2.circuits import shown_name
from aiseg2_pipeline.influxdb.client import InfluxWriter
from aiseg2_pipeline.influxdb.delivery import deliver, deliver_coverage
from aiseg2_pipeline.japan_time import hour_of
from aiseg2_pipeline.orchestration.assets import energy_history
from aiseg2_pipeline.store import Destination, EnergyStore, Store
from aiseg2_pipeline_tests.support import dashboards_home as data
from aiseg2_pipeline_tests.support.dashboards import DASHBOARDS, GRAFANA, Query, View, execute, panels, queries
from aiseg2_pipeline_tests.support.dashboards_home import DAY, MINUTE, NOW, at
from aiseg2_pipeline_tests.support.influxdb import InfluxServer
from aiseg2_pipeline_tests.support.missing import missing

TOOLS = GRAFANA.parent / ".venv" / "dashboard-checks" / "node_modules"
# Days end as in Grafana; the year ends in the evening, when power is bought.
EVENING = at("2024-07-13 20:30:30")
VIEWS = {
    "today": View(at("2024-07-14"), at("2024-07-14 23:59:59.999"), NOW),
    "24 hours": View(at("2024-07-13"), at("2024-07-13 23:59:59.999"), NOW),
    "30 days": View(NOW - 30 * DAY, NOW, NOW),
    "year": View(at("2023-07-13 20:30:30"), EVENING, EVENING),
    "three years": View(at("2021-07-14"), EVENING, EVENING),
}
TWO_MONTHS, TWO_YEARS = 62 * DAY, 731 * DAY
Values = Any  # a Series or a DataFrame over time


class Home(NamedTuple):
    """A bucket and the stores' values over time, a column for each kind and name.

    `fills` has the filled rows' `interval_s`, `coverage` the minutes of each ended hour.
    """

    server: InfluxServer
    bucket: str
    power: pd.DataFrame
    fills: pd.DataFrame
    energy: pd.DataFrame
    coverage: pd.DataFrame


@pytest.fixture(scope="module")
def home(influx_server: InfluxServer, tmp_path_factory: pytest.TempPathFactory) -> Home:
    server, folder, bucket = influx_server, tmp_path_factory.mktemp("home"), "dashboards"
    server.create_bucket(bucket)
    with (
        Store.open(folder / "readings.sqlite") as store,
        EnergyStore.open(folder / "energy.sqlite") as energies,
        InfluxWriter(server.url, server.token, server.org, bucket) as writer,
    ):
        data.fill(store, energies, folder)
        send = partial(deliver, writer=writer, destination=Destination(server.url, server.org, bucket), now=NOW)
        send = partial(send, batch_rows=50_000)
        for done in (send(store), send(energies, lines=partial(energy_history.lines, store))):
            assert (done.set_aside, done.left_hours, done.stopped) == (0, 0, None)
        began = hour_of(store.live_near(data.HOURS_FROM) or NOW)
        assert (
            deliver_coverage(store, writer, Destination(server.url, server.org, bucket), now=NOW, since=began)
            is None
        )
        power, energy = store.read(data.HOURS_FROM, NOW), energies.read(data.HOURS_FROM, NOW)
        for time in (data.MINUTES_FROM, data.RENAMED_AT):
            names = {each.circuit_id: shown_name(each.name) for each in store.circuits_at(time)}
            of_time = (energy["time"] >= data.RENAMED_AT) == (time == data.RENAMED_AT)
            energy["name"] = energy["name"].mask(of_time, energy["name"].replace(names))
    filled = power[power["interval_s"] > 0].assign(value=power["interval_s"].astype("float64"))
    # Circuits with the same name are added up.
    tables = (rows.rename(columns={"time": "_time"}) for rows in (power, filled, energy))
    power, filled, energy = (rows.pivot_table("value", "_time", ["kind", "name"], "sum") for rows in tables)
    return Home(server, bucket, power, filled, energy, coverage_of(power, filled))


def coverage_of(power: pd.DataFrame, fills: pd.DataFrame) -> pd.DataFrame:
    """Count the minutes of each ended hour, from that of the first row on."""
    covered = pd.DatetimeIndex(power[EXCHANGED].dropna().index).floor("min").unique()
    filled = covered.intersection(pd.DatetimeIndex(fills[EXCHANGED].dropna().index))
    hours = pd.date_range(covered[0].floor("h"), NOW.tz_convert("UTC").floor("h"), freq="h", inclusive="left")
    counts = {
        "read": covered.difference(filled).floor("h").value_counts().reindex(hours, fill_value=0),
        "filled": filled.floor("h").value_counts().reindex(hours, fill_value=0),
    }
    return pd.DataFrame(counts).assign(missing=60 - counts["read"] - counts["filled"])


# --- Expected values

GENERATED, CONSUMED, EXCHANGED = (("total", name) for name in ("総発電電力", "総消費電力", "売買電力"))
GENERATION, CONSUMPTION, BOUGHT, SOLD = ((name, name) for name in ("generation", "consumption", "bought", "sold"))
CHARGE, STATE = ("battery", "充電率"), ("battery", "状態")
Key = tuple[str, str]
MONTH = pd.offsets.MonthBegin()


class Expected:
    """Computes what panels must show of a range; `every` is the length of a window."""

    def __init__(self, home: Home, view: View, every: str) -> None:
        self.home, self.view, self.every = home, view, every
        ranges = [(table.index >= view.start) & (table.index < view.stop) for table in home[2:]]
        tables = (table[rows] for table, rows in zip(home[2:], ranges, strict=True))
        self.power, self.fills, self.energy, self.coverage = tables

    def recent(self, age: pd.Timedelta) -> "Expected":
        return Expected(self.home, View(self.view.now - age, self.view.now, self.view.now), self.every)

    def windowed(self, values: Values, fn: str, *, empty: bool = False) -> Values:
        """Aggregate by window; include windows without a value if `empty`, but nothing for a range without any value."""
        values = values.dropna(how="all")
        # `v.windowPeriod` counts from 1970 UTC; days and months are Japan's.
        zone = "Asia/Tokyo" if self.every in ("1d", "1mo") else "UTC"
        start, stop = (pd.Timestamp(time).tz_convert(zone) for time in (self.view.start, self.view.stop))
        step: Any = MONTH if self.every == "1mo" else pd.Timedelta(self.every.replace("d", "D"))
        first = start.normalize().replace(day=1) if step == MONTH else start.floor(step)
        starts = pd.date_range(first, stop, freq=step, inclusive="left").tz_convert("UTC")
        # Flux clips the first window to the range.
        starts = starts.where(starts >= start, start.tz_convert("UTC")).rename("_time")
        grouped = values.groupby(starts[np.searchsorted(starts, values.index, side="right") - 1])
        table = grouped.sum(min_count=1) if fn == "sum" else grouped.agg(fn)
        if empty and len(values):
            return table.reindex(starts, fill_value=0 if fn == "count" else np.nan)
        return table.rename_axis("_time")

    def last(self, key: Key, sign: int = 1) -> Values:
        """Return the absolute last value within five minutes, if it has this sign."""
        value = self.recent(5 * MINUTE).power[key].dropna().iloc[-1:]
        return value[(value < 0) == (sign < 0)].abs()

    def last_time(self, table: str, key: Key) -> Values:
        """Return the time of the last value within 30 days, in milliseconds."""
        times = getattr(self.recent(30 * DAY), table)[key].dropna().index[-1:]
        return pd.Series([time.timestamp() * 1000 for time in times], times)

    def mean(self, table: str, key: Key) -> Values:
        return self.windowed(getattr(self, table)[key], "mean", empty=True)

    def range_total(self, key: Key, divisor: float = 1000) -> Values:
        return pd.Series([self.energy[key].sum(min_count=1) / divisor]).dropna()

    def window_totals(self, key: Key, divisor: float = 1000) -> Values:
        return self.windowed(self.energy[key], "sum") / divisor

    def yen(self, name: str, *, step: str = "1d") -> Values:
        """Return the yen by the tariff of each step, or the card's where there are none."""
        steps = Expected(self.home, self.view, step)
        tariff = steps.windowed(self.energy["cost", name], "sum")
        # The card does not compute what was saved.
        return (
            tariff
            if name == "saved"
            else tariff.combine_first(steps.windowed(self.energy["daily_cost", name], "sum"))
        )

    def range_yen(self, name: str) -> Values:
        return pd.Series([self.yen(name).sum(min_count=1)]).dropna()

    def window_yen(self, name: str) -> Values:
        return self.windowed(self.yen(name, step="1h" if self.every == "1h" else "1d"), "sum")

    def previous_year(self, key: Key) -> Values:
        start, stop = (pd.Timestamp(time) - pd.DateOffset(years=1) for time in self.view[:2])
        values = Expected(self.home, View(start, stop, self.view.now), self.every).window_totals(key)
        return values.set_axis((values.index.tz_convert("Asia/Tokyo") + pd.DateOffset(years=1)).tz_convert("UTC"))

    def minus(self, whole: Key, part: Key) -> Values:
        """Return the sums of `whole` minus `part`, over hours that have both."""
        return self.windowed(self.energy[whole] - self.energy[part], "sum") / 1000

    def percent(self, whole: Key, part: Key, *, windows: bool = False) -> Values:
        """Return `whole` minus `part` in percent of `whole`, over hours that have both."""
        table = self.energy[[whole, part]].dropna()
        sums: Values = self.windowed(table, "sum") if windows else table.sum().to_frame().T
        sums = sums[sums[whole] > 0]
        return 100 * (sums[whole] - sums[part]) / sums[whole]

    def percent_by_window(self, whole: Key, part: Key) -> Values:
        return self.percent(whole, part, windows=True)

    def circuits(self, table: str) -> Values:
        return pd.DataFrame(getattr(self, table)["usage"]).dropna(axis="columns", how="all")

    def latest_by_circuit(self) -> Values:
        return self.recent(5 * MINUTE).circuits("power").ffill().iloc[-1]

    def kwh_by_circuit_from_power(self) -> Values:
        """Return each circuit's kWh as the sum of its minutes' mean power; over two months, its energy."""
        if self.view.stop - self.view.start > TWO_MONTHS:
            return self.kwh_by_circuit()
        table = self.circuits("power")
        return table.groupby(table.index.floor("min")).mean().sum() / 60_000

    def kwh_by_circuit(self) -> Values:
        return self.circuits("energy").sum() / 1000

    def stacked(self, table: str, part: str) -> Values:
        """Return the curves of the eight `largest` circuits, or the sum of the `rest`.

        `power` is the mean of the hours' energy over two months.
        """
        fn, divisor = ("mean", 1) if table == "power" else ("sum", 1000)
        is_long = self.view.stop - self.view.start > TWO_MONTHS
        of_circuits = self.circuits("energy" if is_long else table)
        values = self.windowed(of_circuits, fn, empty=fn == "mean") / divisor
        largest = values.agg(fn).nlargest(8).index
        rest = values.drop(columns=largest).sum(axis=1, min_count=1)
        curves = values[largest].unstack() if part == "largest" else rest  # noqa: PD010 - no pivot
        return curves if fn == "mean" else curves.dropna()

    def coverage_total(self, column: str) -> Values:
        total = self.coverage[column].sum()
        return pd.Series([total] if total else [], dtype="float64")

    def coverage_windows(self, column: str) -> Values:
        values = self.windowed(self.coverage[column], "sum")
        return values[values > 0]

    def known_hours(self) -> Values:
        return Expected(self.home, self.view, "1d").windowed(self.energy[CONSUMPTION], "count", empty=True)


# By title, for each of the panel's queries: the method of `Expected` and its arguments.
PANELS: dict[str, list[tuple[Any, ...]]] = {
    "発電": [("last", GENERATED)],
    "消費": [("last", CONSUMED)],
    "売買": [("last", EXCHANGED, 1), ("last", EXCHANGED, -1)],
    "蓄電池": [("last", CHARGE), ("last", STATE)],
    "最後の計測": [("last_time", "power", CONSUMED)],
    "きょうの発電と消費": [("mean", "power", GENERATED), ("mean", "power", CONSUMED), ("mean", "fills", CONSUMED)],
    "きょうの売買": [("mean", "power", EXCHANGED), ("mean", "fills", CONSUMED)],
    "きょうの充電率": [("mean", "power", CHARGE)],
    "きょうの太陽光・系統・蓄電池": [("mean", "power", ("flow", name)) for name in ("太陽光", "系統", "蓄電池")],
    "いまの電力(多い順)": [("latest_by_circuit",)],
    "期間の使用量(多い順)": [("kwh_by_circuit_from_power",)],
    "回路別の電力(積み上げ)": [
        ("stacked", "power", "largest"),
        ("stacked", "power", "rest"),
        ("mean", "fills", CONSUMED),
    ],
    "発電量": [("range_total", GENERATION)],
    "消費量": [("range_total", CONSUMPTION)],
    "買電量": [("range_total", BOUGHT)],
    "売電量": [("range_total", SOLD)],
    "自家消費率": [("percent", GENERATION, SOLD)],
    "自給率": [("percent", CONSUMPTION, BOUGHT)],
    "買電の料金": [("range_yen", "bought")],
    "売電の金額": [("range_yen", "sold")],
    "消費の内訳": [("minus", CONSUMPTION, BOUGHT), ("window_totals", BOUGHT)],
    "発電の内訳": [("minus", GENERATION, SOLD), ("window_totals", SOLD)],
    "消費を前年と比べる": [("previous_year", CONSUMPTION), ("window_totals", CONSUMPTION)],
    "発電を前年と比べる": [("previous_year", GENERATION), ("window_totals", GENERATION)],
    "自家消費率と自給率": [("percent_by_window", GENERATION, SOLD), ("percent_by_window", CONSUMPTION, BOUGHT)],
    "料金": [("window_yen", name) for name in ("bought", "sold", "saved")],
    "回路別の使用量(積み上げ)": [("stacked", "energy", "largest"), ("stacked", "energy", "rest")],
    "回路別の使用量(多い順)": [("kwh_by_circuit",)],
    "最後の電力量": [("last_time", "energy", CONSUMPTION)],
    "期間に補完した分": [("coverage_total", "filled")],
    "期間に欠けている分": [("coverage_total", "missing")],
    "計測・補完・欠測": [("coverage_windows", column) for column in ("read", "filled", "missing")],
    "電力量が分かっている時間(1日24時間のうち)": [("known_hours",)],
}


def expected_of(query: Query, view: View, home: Home) -> Values:
    every = query.every
    if view.stop - view.start > TWO_YEARS:
        every = {"energy": "1mo", "circuits": "30d"}.get(query.dashboard, every)
    elif view.stop - view.start > TWO_MONTHS and (query.dashboard, every) == ("energy", "1h"):
        every = "1d"
    refs = [target["refId"] for target in query.panel["targets"]]
    what, *given = PANELS[query.panel["title"]][refs.index(query.ref)]
    return getattr(Expected(home, view, every), what)(*given).sort_index()


def difference(query: Query, expected: Values, home: Home) -> str:
    """Describe how a query's result differs from the expected values; empty if it does not."""
    where = f"{query.dashboard}, {query.panel['title']}, {query.ref} {query.every}"
    rows = execute(home.server, query.flux)
    by = [column for column in ("name", "_time") if column in rows]
    got = rows.set_index(by or "table")["_value"].sort_index()
    if list(got.index) != list(expected.index):
        return f"{where}: other rows: {expected.index.symmetric_difference(got.index)}"
    wrong = ~np.isclose(expected, got, rtol=1e-6, atol=1e-9, equal_nan=True)
    if wrong.any():
        return f"{where}: not {got[wrong]}, but {expected[wrong]}"
    # Grafana draws points in the given order, and drops those above its limit.
    curves = rows.assign(order=-rows["_value"] if by == ["name"] else rows.get("_time", 0)).groupby("table")
    if not curves["order"].is_monotonic_increasing.all() or curves.size().max() > query.most_rows:
        return f"{where}: out of order, or more than {query.most_rows} points"
    return ""


@pytest.mark.parametrize("name", VIEWS)
def test_each_panel_shows_what_the_store_holds(home: Home, name: str) -> None:
    wrong, shown = [], set()
    for query in queries(VIEWS[name], home.bucket):
        expected = expected_of(query, VIEWS[name], home)
        wrong.append(difference(query, expected, home))
        shown |= {query.panel["title"]} if expected.notna().any() else set()
    assert not any(wrong), "\n".join(filter(None, wrong))
    assert PANELS.keys() == shown


# --- The JSON, and what provisions it

# The types have enums, for which JSON has their values.
TYPES = """
import type { Dashboard } from "@grafana/schema";
import type * as stat from "@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen";
import type * as bargauge from "@grafana/schema/dist/esm/raw/composable/bargauge/panelcfg/x/BarGaugePanelCfg_types.gen";
import type * as timeseries from "@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen";
type Json<T> = T extends string ? `${T}` : T extends (infer Item)[] ? Json<Item>[]
  : T extends object ? { [Key in keyof T]: Json<T[Key]> } : T;
"""


def typescript(dashboard: dict[str, Any]) -> str:
    """Return the dashboard as constants of Grafana's types: the whole, and what each kind of panel adds to it."""
    parts = [TYPES, f"export const dashboard: Json<Dashboard> = {json.dumps(dashboard)};"]
    for number, panel in enumerate(panel for panel in panels(dashboard) if panel["type"] != "row"):
        plugin = panel["type"]
        parts.append(f"export const options{number}: Json<{plugin}.Options> = {json.dumps(panel['options'])};")
        if custom := panel["fieldConfig"]["defaults"].get("custom"):
            parts.append(f"export const custom{number}: Json<{plugin}.FieldConfig> = {json.dumps(custom)};")
    return "\n".join(parts)


def test_the_dashboards_are_of_grafanas_types(tmp_path: Path) -> None:
    if shutil.which("node") is None or not TOOLS.is_dir():
        missing("node or its packages are missing: run .ci/install-dashboard-checks to check the dashboards")
    (tmp_path / "node_modules").symlink_to(TOOLS)
    for name, dashboard in DASHBOARDS.items():
        (tmp_path / f"{name}.ts").write_text(typescript(dashboard), encoding="utf-8")
    options = ["--noEmit", "--strict", "--skipLibCheck", "--module", "esnext", "--moduleResolution", "bundler"]
    command: list[str | Path] = ["node", TOOLS / "typescript" / "bin" / "tsc", *options, *tmp_path.glob("*.ts")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)  # noqa: S603 - our own files
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_dashboard_uses_japans_time_and_its_panels_fill_no_gap(name: str) -> None:
    dashboard, source = DASHBOARDS[name], {"type": "influxdb", "uid": "${datasource}"}
    assert (dashboard["timezone"], dashboard["refresh"], dashboard.get("id")) == ("Asia/Tokyo", "1m", None)
    every = panels(dashboard)
    assert len({panel["id"] for panel in every}) == len(every)
    for panel in (panel for panel in every if panel["type"] != "row"):
        assert panel["description"]
        refs = [target["refId"] for target in panel["targets"]]
        assert len(set(refs)) == len(refs)
        named = {each["matcher"]["options"] for each in panel["fieldConfig"]["overrides"]}
        assert named == set(refs) if panel["type"] == "timeseries" else named <= set(refs), panel["title"]
        # Gaps stay visible: neither bridged by a line nor filled.
        assert panel["fieldConfig"]["defaults"].get("custom", {}).get("spanNulls", False) is False
        for target in panel["targets"]:
            assert panel["datasource"] == target["datasource"] == source
            assert set(re.findall(r"from\(bucket: (.+?)\)", target["query"])) == {"v.defaultBucket"}
            assert not re.search(r"\b(fill|interpolate\.\w+)\(", target["query"])
            # A table for each window and a call for each row took ten seconds and half a gigabyte of the server.
            assert not re.search(r'group\(columns: \["_time"\]\)|\bcontains\(', target["query"])


def test_dashboards_are_unique_and_their_links_lead_to_one_of_them() -> None:
    uids = {dashboard["uid"] for dashboard in DASHBOARDS.values()}
    assert len(uids) == len({dashboard["title"] for dashboard in DASHBOARDS.values()}) == len(DASHBOARDS) == 4
    for dashboard in DASHBOARDS.values():
        variables = {each["name"] for each in dashboard["templating"]["list"]}
        for url in filter(None, (link["url"] for link in dashboard["links"])):
            assert re.match(r"/d/([\w-]+)\?", url)[1] in uids  # type: ignore[index]
            assert set(re.findall(r"var-(\w+)=", url)) <= variables


def test_the_data_source_comes_from_the_environment_and_the_dashboards_from_the_mounted_folder() -> None:
    files = {path.parent.name: path for path in GRAFANA.glob("provisioning/*/*.yaml")}
    given = {name: yaml.safe_load(path.read_text(encoding="utf-8")) for name, path in files.items()}
    (source,), (provider,) = given["datasources"]["datasources"], given["dashboards"]["providers"]
    assert (source["type"], source["url"]) == ("influxdb", "$INFLUXDB_URL")
    settings = {"version": "Flux", "organization": "$INFLUXDB_ORG", "defaultBucket": "$INFLUXDB_BUCKET"}
    assert settings.items() <= source["jsonData"].items()
    assert source["secureJsonData"] == {"token": "$INFLUXDB_TOKEN"}
    for dashboard in DASHBOARDS.values():
        (variable,) = [each for each in dashboard["templating"]["list"] if each["type"] == "datasource"]
        assert variable["current"]["value"] == source["uid"]
    assert (provider["type"], provider["options"]) == ("file", {"path": "/etc/grafana/dashboards"})
