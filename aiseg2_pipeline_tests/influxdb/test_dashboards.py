"""Every query of the Grafana dashboards, executed on a real InfluxDB that the pipeline filled.

What a panel must show is computed by pandas from the stores, as its title and description promise. Grafana's own types
check the JSON.
"""

import contextlib
import copy
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
from aiseg2_pipeline.influxdb.delivery import deliver
from aiseg2_pipeline.orchestration.assets import energy_history
from aiseg2_pipeline.store import Destination, EnergyStore, Store
from aiseg2_pipeline_tests.support import dashboards_home as past
from aiseg2_pipeline_tests.support.dashboards import DASHBOARDS, GRAFANA, Query, View, execute, panels, queries
from aiseg2_pipeline_tests.support.dashboards_home import DAY, MINUTE, NOW, at
from aiseg2_pipeline_tests.support.influxdb import InfluxServer
from aiseg2_pipeline_tests.support.missing import missing

TOOLS = GRAFANA.parent / ".venv" / "dashboard-checks" / "node_modules"
# Days end as Grafana's do; the year ends in the evening, when power is bought.
EVENING = at("2024-07-13 20:30:30")
VIEWS = {
    "today": View(at("2024-07-14"), at("2024-07-14 23:59:59.999"), NOW),
    "24 hours": View(at("2024-07-13"), at("2024-07-13 23:59:59.999"), NOW),
    "30 days": View(NOW - 30 * DAY, NOW, NOW),
    "year": View(at("2023-07-13 20:30:30"), EVENING, EVENING),
}
Values = Any  # a Series or a DataFrame over time


class Home(NamedTuple):
    """A bucket, and the values it was filled from over time, a column for each kind and name; `fills`: the intervals of filled ones."""

    server: InfluxServer
    bucket: str
    power: pd.DataFrame
    fills: pd.DataFrame
    energy: pd.DataFrame


@pytest.fixture(scope="module")
def home(influx_server: InfluxServer, tmp_path_factory: pytest.TempPathFactory) -> Home:
    server, folder, bucket = influx_server, tmp_path_factory.mktemp("home"), "dashboards"
    server.create_bucket(bucket)
    with (
        Store.open(folder / "readings.sqlite") as store,
        EnergyStore.open(folder / "energy.sqlite") as energies,
        InfluxWriter(server.url, server.token, server.org, bucket) as writer,
    ):
        past.fill(store, energies, folder)
        send = partial(deliver, writer=writer, destination=Destination(server.url, server.org, bucket), now=NOW)
        send = partial(send, running_hour=NOW, max_older_rows=10**9, batch_rows=50_000)
        for done in (send(store), send(energies, lines=partial(energy_history.lines, store))):
            assert (done.set_aside, done.left_hours, done.stopped) == (0, 0, None)
        power, energy = store.read(past.HOURS_FROM, NOW), energies.read(past.HOURS_FROM, NOW)
        for time in (past.MINUTES_FROM, past.RENAMED_AT):
            names = {each.circuit_id: shown_name(each.name) for each in store.circuits_at(time)}
            of_time = (energy["time"] >= past.RENAMED_AT) == (time == past.RENAMED_AT)
            energy["name"] = energy["name"].mask(of_time, energy["name"].replace(names))
    filled = power[power["interval_s"] > 0].assign(value=power["interval_s"].astype("float64"))
    # Circuits of one name are added up.
    tables = (rows.rename(columns={"time": "_time"}) for rows in (power, filled, energy))
    return Home(server, bucket, *(rows.pivot_table("value", "_time", ["kind", "name"], "sum") for rows in tables))


# --- What each panel must show

GENERATED, CONSUMED, EXCHANGED = (("total", name) for name in ("総発電電力", "総消費電力", "売買電力"))
GENERATION, CONSUMPTION, BOUGHT, SOLD = ((name, name) for name in ("generation", "consumption", "bought", "sold"))
BOUGHT_YEN, SOLD_YEN = ("daily_cost", "bought"), ("daily_cost", "sold")
CHARGE, STATE = ("battery", "充電率"), ("battery", "状態")
Key = tuple[str, str]
MONTH = pd.offsets.MonthBegin()


class Shown:
    """A home in a range, as panels show it; `every` is the length of a window."""

    def __init__(self, home: Home, view: View, every: str) -> None:
        self.home, self.view, self.every = home, view, every
        ranges = [(table.index >= view.start) & (table.index < view.stop) for table in home[2:]]
        self.power, self.fills, self.energy = (table[rows] for table, rows in zip(home[2:], ranges, strict=True))

    def lately(self, age: pd.Timedelta) -> "Shown":
        return Shown(self.home, View(self.view.now - age, self.view.now, self.view.now), self.every)

    def windowed(self, values: Values, fn: str, *, empty: bool = False) -> Values:
        """Return the value of each window, by its start; windows with no value only if `empty`, and none without any."""
        values = values.dropna(how="all")
        # Grafana's own windows know no time zone, days and months are Japan's.
        zone = "Asia/Tokyo" if self.every in ("1d", "1mo") else "UTC"
        start, stop = (pd.Timestamp(time).tz_convert(zone) for time in (self.view.start, self.view.stop))
        step: Any = MONTH if self.every == "1mo" else pd.Timedelta(self.every.replace("d", "D"))
        first = start.normalize().replace(day=1) if step == MONTH else start.floor(step)
        starts = pd.date_range(first, stop, freq=step, inclusive="left").tz_convert("UTC")
        # The first window begins where the range does.
        starts = starts.where(starts >= start, start.tz_convert("UTC")).rename("_time")
        grouped = values.groupby(starts[np.searchsorted(starts, values.index, side="right") - 1])
        table = grouped.sum(min_count=1) if fn == "sum" else grouped.agg(fn)
        if empty and len(values):
            return table.reindex(starts, fill_value=0 if fn == "count" else np.nan)
        return table.rename_axis("_time")

    def last(self, key: Key, sign: int = 1) -> Values:
        """Return the last value within five minutes without its sign, if it has this one."""
        value = self.lately(5 * MINUTE).power[key].dropna().iloc[-1:]
        return value[(value < 0) == (sign < 0)].abs()

    def last_time(self, table: str, key: Key) -> Values:
        """Return the time of the last value within 30 days, in milliseconds."""
        times = getattr(self.lately(30 * DAY), table)[key].dropna().index[-1:]
        return pd.Series([time.timestamp() * 1000 for time in times], times)

    def mean(self, table: str, key: Key) -> Values:
        return self.windowed(getattr(self, table)[key], "mean", empty=True)

    def total(self, key: Key, divisor: float = 1000) -> Values:
        return pd.Series([self.energy[key].sum(min_count=1) / divisor]).dropna()

    def totals(self, key: Key, divisor: float = 1000) -> Values:
        return self.windowed(self.energy[key], "sum") / divisor

    def year_before(self, key: Key) -> Values:
        start, stop = (pd.Timestamp(time) - pd.DateOffset(years=1) for time in self.view[:2])
        values = Shown(self.home, View(start, stop, self.view.now), self.every).totals(key)
        return values.set_axis((values.index.tz_convert("Asia/Tokyo") + pd.DateOffset(years=1)).tz_convert("UTC"))

    def own(self, whole: Key, part: Key) -> Values:
        """Return what of the whole is not the part, of the hours of which both are known."""
        return self.windowed(self.energy[whole] - self.energy[part], "sum") / 1000

    def share(self, whole: Key, part: Key, *, windows: bool = False) -> Values:
        """Return the same in percent of the whole."""
        table = self.energy[[whole, part]].dropna()
        sums: Values = self.windowed(table, "sum") if windows else table.sum().to_frame().T
        sums = sums[sums[whole] > 0]
        return 100 * (sums[whole] - sums[part]) / sums[whole]

    def shares(self, whole: Key, part: Key) -> Values:
        return self.share(whole, part, windows=True)

    def circuits(self, table: str) -> Values:
        return pd.DataFrame(getattr(self, table)["usage"]).dropna(axis="columns", how="all")

    def circuits_now(self) -> Values:
        return self.lately(5 * MINUTE).circuits("power").ffill().iloc[-1]

    def circuits_of_minutes(self) -> Values:
        """Return each circuit's kWh: the means of its minutes, added up."""
        table = self.circuits("power")
        return table.groupby(table.index.floor("min")).mean().sum() / 60_000

    def circuits_of_hours(self) -> Values:
        return self.circuits("energy").sum() / 1000

    def stacked(self, table: str, part: str) -> Values:
        """Return the curves of the eight `largest` circuits, or the sum of the `rest`."""
        fn, divisor = ("mean", 1) if table == "power" else ("sum", 1000)
        values = self.windowed(self.circuits(table), fn, empty=fn == "mean") / divisor
        largest = values.agg(fn).nlargest(8).index
        rest = values.drop(columns=largest).sum(axis=1, min_count=1)
        curves = values[largest].unstack() if part == "largest" else rest  # noqa: PD010 - no pivot
        return curves if fn == "mean" else curves.dropna()

    def covered(self) -> pd.DatetimeIndex:
        """Return the minutes that were read or filled."""
        return pd.DatetimeIndex(self.power[EXCHANGED].dropna().index).floor("min").unique()

    def read(self) -> Values:
        return self.windowed(pd.Series(~self.covered().isin(self.fills.index), self.covered()).astype(int), "sum")

    def filled(self) -> Values:
        return self.windowed(self.fills[EXCHANGED], "count")

    def lacking(self) -> Values:
        """Return the minutes without a value since the first one, until two minutes ago."""
        begin = Shown(self.home, View(past.HOURS_FROM, NOW, NOW), "1m").covered()[0]
        start = max(pd.Timestamp(self.view.start).tz_convert("UTC").ceil("min"), begin)
        stop = min(pd.Timestamp(self.view.stop), pd.Timestamp(self.view.now).floor("min") - 2 * MINUTE)
        every = pd.date_range(start, stop.tz_convert("UTC"), freq="min", inclusive="left")
        return self.windowed(pd.Series(1, every.difference(self.covered())), "sum")

    def known_hours(self) -> Values:
        return Shown(self.home, self.view, "1d").windowed(self.energy[CONSUMPTION], "count", empty=True)


# By title: for each query of the panel what of `Shown` it must answer.
PANELS: dict[str, list[tuple[Any, ...]]] = {
    "発電": [("last", GENERATED)],
    "消費": [("last", CONSUMED)],
    "売買": [("last", EXCHANGED, 1), ("last", EXCHANGED, -1)],
    "蓄電池": [("last", CHARGE), ("last", STATE)],
    "最後の計測": [("last_time", "power", CONSUMED)],
    "きょうの発電と消費": [("mean", "power", GENERATED), ("mean", "power", CONSUMED), ("mean", "fills", CONSUMED)],
    "きょうの売買": [("mean", "power", EXCHANGED), ("mean", "fills", CONSUMED)],
    "きょうの充電率": [("mean", "power", CHARGE)],
    "いまの電力(多い順)": [("circuits_now",)],
    "期間の使用量(多い順)": [("circuits_of_minutes",)],
    "回路別の電力(積み上げ)": [
        ("stacked", "power", "largest"),
        ("stacked", "power", "rest"),
        ("mean", "fills", CONSUMED),
    ],
    "発電量": [("total", GENERATION)],
    "消費量": [("total", CONSUMPTION)],
    "買電量": [("total", BOUGHT)],
    "売電量": [("total", SOLD)],
    "自家消費率": [("share", GENERATION, SOLD)],
    "自給率": [("share", CONSUMPTION, BOUGHT)],
    "買電の料金": [("total", BOUGHT_YEN, 1)],
    "売電の金額": [("total", SOLD_YEN, 1)],
    "消費の内訳": [("own", CONSUMPTION, BOUGHT), ("totals", BOUGHT)],
    "発電の内訳": [("own", GENERATION, SOLD), ("totals", SOLD)],
    "消費を前年と比べる": [("year_before", CONSUMPTION), ("totals", CONSUMPTION)],
    "発電を前年と比べる": [("year_before", GENERATION), ("totals", GENERATION)],
    "自家消費率と自給率": [("shares", GENERATION, SOLD), ("shares", CONSUMPTION, BOUGHT)],
    "料金": [("totals", BOUGHT_YEN, 1), ("totals", SOLD_YEN, 1)],
    "回路別の使用量(積み上げ)": [("stacked", "energy", "largest"), ("stacked", "energy", "rest")],
    "回路別の使用量(多い順)": [("circuits_of_hours",)],
    "最後の電力量": [("last_time", "energy", CONSUMPTION)],
    "期間に補完した分": [("filled",)],
    "期間に欠けている分": [("lacking",)],
    "計測・補完・欠測": [("read",), ("filled",), ("lacking",)],
    "電力量が分かっている時間(1日24時間のうち)": [("known_hours",)],
}


def expected_of(query: Query, view: View, home: Home) -> Values:
    refs = [target["refId"] for target in query.panel["targets"]]
    what, *given = PANELS[query.panel["title"]][refs.index(query.ref)]
    return getattr(Shown(home, view, query.every), what)(*given).sort_index()


def difference(query: Query, expected: Values, home: Home) -> str:
    """Return how InfluxDB's answer differs from what is expected by time, name, or both; nothing where it does not."""
    where = f"{query.dashboard}, {query.panel['title']}, {query.ref} {query.every}"
    rows = execute(home.server, query.flux)
    by = [column for column in ("name", "_time") if column in rows]
    got = rows.set_index(by or "table")["_value"].sort_index()
    if list(got.index) != list(expected.index):
        return f"{where}: other rows: {expected.index.symmetric_difference(got.index)}"
    wrong = ~np.isclose(expected, got, rtol=1e-6, atol=1e-9, equal_nan=True)
    if wrong.any():
        return f"{where}: not {got[wrong]}, but {expected[wrong]}"
    # Grafana draws points in the order in which they come, and leaves out what is too many.
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
    # What a day costs is known at its end.
    assert PANELS.keys() - shown == ({"買電の料金", "売電の金額", "料金"} if name == "today" else set())


def test_another_name_in_any_query_is_noticed(home: Home) -> None:
    """So no name is there in vain, and nothing is compared with nothing."""
    view, changed = VIEWS["24 hours"], 0
    for query in queries(view, home.bucket):
        expected = expected_of(query, view, home)
        if not query.as_opened or not expected.notna().any():
            continue
        for name in re.finditer(r'(?<=== ")[^"]+', query.flux):
            flux = f"{query.flux[: name.end()]}x{query.flux[name.end() :]}"
            with contextlib.suppress(ValueError):  # the server refuses it
                assert difference(query._replace(flux=flux), expected, home), flux
            changed += 1
    assert changed > 3 * len(PANELS)


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
    wrong = copy.deepcopy(DASHBOARDS["circuits"])
    wrong["panels"][0]["options"]["orientation"] = "upwards"
    wrong["panels"][1]["fieldConfig"]["defaults"]["untis"] = "W"
    (tmp_path / "node_modules").symlink_to(TOOLS)
    for name, dashboard in {**DASHBOARDS, "wrong": wrong}.items():
        (tmp_path / f"{name}.ts").write_text(typescript(dashboard), encoding="utf-8")
    options = ["--noEmit", "--strict", "--skipLibCheck", "--module", "esnext", "--moduleResolution", "bundler"]
    command: list[str | Path] = ["node", TOOLS / "typescript" / "bin" / "tsc", *options, *tmp_path.glob("*.ts")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)  # noqa: S603 - our own files
    assert set(re.findall(r"^(\w+)\.ts.*", done.stdout, re.MULTILINE)) == {"wrong"}, done.stdout + done.stderr
    assert "upwards" in done.stdout
    assert "untis" in done.stdout


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_dashboard_is_in_japans_time_and_its_panels_have_names_and_make_nothing_up(name: str) -> None:
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
        # A gap is a gap: nothing is drawn over it, nothing filled in.
        assert panel["fieldConfig"]["defaults"].get("custom", {}).get("spanNulls", False) is False
        for target in panel["targets"]:
            assert panel["datasource"] == target["datasource"] == source
            assert set(re.findall(r"from\(bucket: (.+?)\)", target["query"])) == {"v.defaultBucket"}
            assert not re.search(r"\b(fill|interpolate\.\w+)\(", target["query"])


def test_dashboards_are_told_apart_and_links_between_them_lead_somewhere() -> None:
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
