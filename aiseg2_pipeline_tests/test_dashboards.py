"""The Grafana dashboards are such as Grafana takes, and ask for what the pipeline really writes.

Grafana's own types check the JSON, and the front end of Flux each query: its syntax, its types, and the tree in which
the measurements, tags and fields are found that `points` must know. No query is executed here.
"""

import copy
import itertools
import json
import os
import re
import shutil
import subprocess
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pytest
import yaml

from aiseg2_pipeline.aiseg2.models import Battery, BatteryState
from aiseg2_pipeline.energy import SERIES, USAGE
from aiseg2_pipeline.fill import Home, filled_frame
from aiseg2_pipeline.history import day_start
from aiseg2_pipeline.points import ENERGY_MEASUREMENTS, MEASUREMENTS, energy_lines, lines
from aiseg2_pipeline.readings import live_frame
from aiseg2_pipeline_tests.test_history import remembered

PROJECT = Path(__file__).parents[1]
GRAFANA = PROJECT / "grafana"
TOOLS = PROJECT / ".venv" / "dashboard-checks" / "node_modules"
FILES = sorted((GRAFANA / "dashboards").glob("*.json"))
YESTERDAY = date(2026, 7, 13)
Node = dict[str, Any]


class Query(NamedTuple):
    """A panel's query as Grafana sends it, its own variables put in."""

    where: str
    flux: str


@dataclass(frozen=True)
class Series:
    """What InfluxDB keeps apart: a field of a measurement under tags."""

    columns: Mapping[str, str]

    @property
    def tags(self) -> set[str]:
        return {name for name in self.columns if not name.startswith("_")}


# --- The dashboards, and the tools that they are checked with


def load(file: Path) -> Node:
    dashboard: Node = json.loads(file.read_text(encoding="utf-8"))
    return dashboard


def panels(dashboard: Node) -> Iterator[Node]:
    for panel in dashboard["panels"]:
        yield panel
        yield from panel.get("panels", ())


def targets(dashboard: Node) -> Iterator[tuple[Node, Node]]:
    return ((panel, target) for panel in panels(dashboard) for target in panel.get("targets", ()))


def queries() -> Iterator[Query]:
    """Yield every query with each value of the dashboard's own variables."""
    grafana = {
        "v.timeRangeStart": "2026-07-13T15:00:00Z",
        "v.timeRangeStop": "2026-07-14T15:00:00Z",
        "v.windowPeriod": "1m0s",
        "v.defaultBucket": '"home"',
    }
    for file in FILES:
        dashboard = load(file)
        variables = [each for each in dashboard["templating"]["list"] if each["type"] == "custom"]
        options = [[(f"${{{each['name']}}}", option["value"]) for option in each["options"]] for each in variables]
        for panel, target in targets(dashboard):
            for chosen in itertools.product(*options):
                flux = target["query"]
                for name, value in [*grafana.items(), *chosen]:
                    flux = flux.replace(name, value)
                values = " ".join(value for _, value in chosen)
                yield Query(f"{file.name}, {panel['title']}, {target['refId']} {values}", flux)


@pytest.fixture(scope="module")
def tools() -> Path:
    if shutil.which("node") is None or not TOOLS.is_dir():
        missing = "node or its packages are missing: run .ci/install-dashboard-checks to check the dashboards"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    return TOOLS


def front_end(scripts: Collection[str], folder: Path) -> list[Node]:
    """Return what Flux's front end says of each script: `valid`, `messages` and `ast`."""
    answers = folder / "answers.json"
    subprocess.run(  # noqa: S603 - our own script
        ["node", PROJECT / ".ci" / "flux-front-end.cjs", answers],  # noqa: S607 - the node of whoever tests
        input=json.dumps(list(scripts)),
        stdout=subprocess.DEVNULL,
        text=True,
        check=True,
        timeout=120,
    )
    told: list[Node] = json.loads(answers.read_text(encoding="utf-8"))
    return told


@pytest.fixture(scope="module")
def asked(tools: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[Query, Node]:
    """Every query with what the front end says of it."""
    del tools
    every = list(queries())
    told = front_end([query.flux for query in every], tmp_path_factory.mktemp("flux"))
    return dict(zip(every, told, strict=True))


# --- What the pipeline writes


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> list[Series]:
    """The series of a simulated home with an SD card: a live reading, a filled hour, and a day's energy and cost."""
    with remembered(tmp_path_factory.mktemp("home"), sd_card=True) as memory:
        with memory.client() as client:
            reading = client.live()
        with memory.history() as history:
            history.bring(YESTERDAY, circuits=True)
            circuits = history.circuits
        energy = memory.rows(YESTERDAY)
    # The simulated home has no battery.
    flow = replace(reading.flow, battery=Battery(80, BatteryState.CHARGING))
    hour = day_start(YESTERDAY) + timedelta(hours=12)
    of_hour = energy[(energy["time"] >= hour) & (energy["time"] < hour + timedelta(hours=1))]
    home = Home(circuits, generating=True, generator=reading.flow.generators[0].name)
    readings = pd.concat(
        [live_frame(replace(reading, flow=flow)), filled_frame(hour, of_hour, [], home)], ignore_index=True
    )
    names = {circuit.circuit_id: circuit.name for circuit in circuits}
    points = [*lines(readings), *energy_lines(energy, lambda circuit_id, _: names.get(circuit_id))]
    heads = {point.rsplit(" ", 1)[0].rsplit("=", 1)[0] for row in points for point in row}
    return [_series(head) for head in sorted(heads)]


def _series(head: str) -> Series:
    """Return the series of a line of protocol that ends before its field's number."""
    key, field = re.split(r"(?<!\\) ", head)
    measurement, *tags = re.split(r"(?<!\\),", key)
    columns = {"_measurement": measurement, "_field": field} | dict(re.split(r"(?<!\\)=", tag) for tag in tags)
    return Series({_unescaped(name): _unescaped(value) for name, value in columns.items()})


def _unescaped(text: str) -> str:
    return re.sub(r"\\([,= ])", r"\1", text)


# --- What a query asks for


def walk(node: Any) -> Iterator[Node]:
    if isinstance(node, dict):
        yield node
        node = list(node.values())
    if isinstance(node, list):
        for child in node:
            yield from walk(child)


def call(node: Node) -> tuple[str, dict[str, Any]]:
    """Return a call's function and its arguments."""
    given = node["arguments"][0]["properties"] if node.get("arguments") else []
    return node["callee"].get("name", ""), {entry["key"]["name"]: entry["value"] for entry in given}


def calls(ast: Node) -> Iterator[tuple[str, dict[str, Any]]]:
    return (call(node) for node in walk(ast) if "callee" in node)


def chains(ast: Node) -> Iterator[list[tuple[str, dict[str, Any]]]]:
    """Yield the calls of each `from(…) |> … |> …`, in order."""
    pipes = [node for node in walk(ast) if node.get("type") == "PipeExpression"]
    for last in pipes:
        if any(last is pipe["argument"] for pipe in pipes):
            continue
        node, stages = last, []
        while node["type"] == "PipeExpression":
            stages.append(call(node["call"]))
            node = node["argument"]
        if node["type"] == "CallExpression" and call(node)[0] == "from":
            yield [call(node), *reversed(stages)]


def column(node: Node) -> str | None:
    """Return the column that `r.name` or `r["name"]` means."""
    if node.get("type") != "MemberExpression" or node["object"].get("name") != "r":
        return None
    name: str = node["property"].get("name") or node["property"]["value"]
    return name


def comparisons(predicate: Node) -> list[Node]:
    return [node for node in walk(predicate) if node.get("type") == "BinaryExpression"]


def holds(predicate: Node, series: Series) -> bool:
    """Return whether a series passes a filter of `==`, `and` and `or`."""
    if predicate["type"] == "ParenExpression":
        return holds(predicate["expression"], series)
    if predicate["type"] == "LogicalExpression":
        both = [holds(predicate["left"], series), holds(predicate["right"], series)]
        return all(both) if predicate["operator"] == "and" else any(both)
    name = column(predicate["left"])
    assert predicate["type"] == "BinaryExpression", predicate["type"]
    assert predicate["operator"] == "==", predicate["operator"]
    assert name is not None
    wanted: str = predicate["right"]["value"]
    return series.columns.get(name) == wanted


def selection(chain: list[tuple[str, dict[str, Any]]]) -> Node | None:
    """Return the predicate that selects series: of the filter that follows the range."""
    names = [name for name, _ in chain]
    if names[:3] != ["from", "range", "filter"]:
        return None
    predicate: Node = chain[2][1]["fn"]["body"]
    return predicate


def problems(ast: Node, written: Collection[Series]) -> list[str]:
    """Return what a query asks for that the pipeline does not write."""
    found = [] if list(chains(ast)) else ["it asks for nothing"]
    known = {"_measurement", "_field", "_value", "_time", "_start", "_stop", *_made_columns(ast)}
    for chain in chains(ast):
        predicate = selection(chain)
        if predicate is None:
            found.append("it does not begin with a range and a filter")
            continue
        chosen = [series for series in written if holds(predicate, series)]
        if len({(series.columns["_measurement"], series.columns["_field"]) for series in chosen}) != 1:
            found.append("a filter does not select one field of one measurement")
        found += [
            f"{column(each['left'])} is never {each['right']['value']}"
            for each in comparisons(predicate)
            if not any(holds(each, series) for series in chosen)
        ]
        known.update(*(series.tags for series in chosen))
        if any(name == "pivot" for name, _ in chain):
            known.update(*(series.columns.values() for series in chosen))
    used = {name for node in walk(ast) if (name := column(node)) is not None}
    used |= {each["value"] for each in named_columns(ast)}
    return found + [f"there is no column {name}" for name in sorted(used - known)]


def _made_columns(ast: Node) -> Iterator[str]:
    """Yield the columns that the functions of `map` and `reduce` return."""
    for node in walk(ast):
        if node.get("type") == "FunctionExpression" and node["body"]["type"] == "ParenExpression":
            yield from (entry["key"]["name"] for entry in node["body"]["expression"].get("properties", ()))


def named_columns(ast: Node) -> Iterator[Node]:
    """Yield the strings that name a column in a call's arguments."""
    for node in walk(ast):
        if node.get("type") == "Property" and node["key"].get("name") in (
            "columns",
            "column",
            "rowKey",
            "columnKey",
        ):
            yield from (each for each in walk(node["value"]) if each.get("type") == "StringLiteral")


# --- Tests of the queries


def test_every_query_is_valid_flux(asked: dict[Query, Node]) -> None:
    wrong = {
        query.where: told["messages"] for query, told in asked.items() if told["messages"] or not told["valid"]
    }
    assert not wrong


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ('from(bucket: "home") |> range(start: -5m) |> meen()', "meen"),
        ('from(bucket: "home") |> range(start: -5m) |> sort(columns: "_value")', "expected"),
        ('from(bucket: "home") |> range(start: -5m', "expected"),
    ],
    ids=["a function that is not", "an argument of another type", "syntax"],
)
def test_what_is_no_flux_is_refused(tools: Path, tmp_path: Path, script: str, message: str) -> None:
    del tools
    (told,) = front_end([script], tmp_path)
    assert not told["valid"]
    assert message in " ".join(told["messages"])


def test_every_query_asks_for_what_the_pipeline_writes(asked: dict[Query, Node], written: list[Series]) -> None:
    wrong = {query.where: found for query, told in asked.items() if (found := problems(told["ast"], written))}
    assert not wrong


def test_the_pipeline_writes_each_of_its_measurements_here(written: list[Series]) -> None:
    assert {series.columns["_measurement"] for series in written} == {*MEASUREMENTS, *ENERGY_MEASUREMENTS}
    types = {series.columns["detail-type"] for series in written if "detail-type" in series.columns}
    assert {"generation", "consumption", "bought", "sold", USAGE} <= types <= {*SERIES, USAGE}


def test_another_name_in_any_filter_of_any_query_is_noticed(
    asked: dict[Query, Node], written: list[Series]
) -> None:
    changed = 0
    for query, told in asked.items():
        filters = [predicate for chain in chains(told["ast"]) if (predicate := selection(chain))]
        for number in range(sum(len(comparisons(predicate)) for predicate in filters)):
            for side in ("left", "right"):
                ast = copy.deepcopy(told["ast"])
                compared = [each for chain in chains(ast) for each in comparisons(selection(chain) or {})][number]
                if side == "right":
                    compared["right"]["value"] += "x"
                else:
                    compared["left"]["property"] = {"type": "StringLiteral", "value": "detail-sectionx"}
                assert problems(ast, written), query.where
                changed += 1
    assert changed > 4 * len(asked)


def test_another_column_in_any_query_is_noticed(asked: dict[Query, Node], written: list[Series]) -> None:
    changed = 0
    for query, told in asked.items():
        for number in range(sum(1 for _ in named_columns(told["ast"]))):
            ast = copy.deepcopy(told["ast"])
            list(named_columns(ast))[number]["value"] += "x"
            assert problems(ast, written), query.where
            changed += 1
    assert changed > len(asked)


@pytest.mark.parametrize("name", ["_measurement", "_field", "summary", "detail-type", "detail-section"])
def test_a_name_that_the_pipeline_changes_is_noticed(
    asked: dict[Query, Node], written: list[Series], name: str
) -> None:
    compared = [
        each
        for told in asked.values()
        for chain in chains(told["ast"])
        for each in comparisons(selection(chain) or {})
    ]
    used = {each["right"]["value"] for each in compared if column(each["left"]) == name}
    assert used
    for value in used:
        renamed = [
            Series(dict(series.columns) | ({name: f"{value}2"} if series.columns.get(name) == value else {}))
            for series in written
        ]
        assert any(problems(told["ast"], renamed) for told in asked.values()), value


def test_a_missing_number_is_never_made_up(asked: dict[Query, Node]) -> None:
    """Neither filled in as 0 or the last one, nor drawn over: a gap is a gap."""
    for query, told in asked.items():
        called = {name for name, _ in calls(told["ast"])}
        assert {"from", "range", "filter"} <= called, query.where
        assert not called & {"fill", "interpolate"}, query.where
    for file in FILES:
        for panel in panels(load(file)):
            custom = panel.get("fieldConfig", {}).get("defaults", {}).get("custom", {})
            assert custom.get("spanNulls", False) is False, panel["title"]


def test_days_and_months_are_those_of_japan(asked: dict[Query, Node]) -> None:
    cut = 0
    for query, told in asked.items():
        windows = [given["every"] for name, given in calls(told["ast"]) if name in ("window", "aggregateWindow")]
        units = {part["unit"] for every in windows for part in every["values"]}
        if units & {"d", "w", "mo", "y"}:
            cut += 1
            assert 'option location = timezone.location(name: "Asia/Tokyo")' in query.flux, query.where
    assert cut


# --- Tests of the JSON and of what provisions it

# The types have enums, for which JSON has their values.
TYPES = """
import type { Dashboard, Panel } from "@grafana/schema";
type Json<T> = T extends string ? `${T}` : T extends (infer Item)[] ? Json<Item>[]
  : T extends object ? { [Key in keyof T]: Json<T[Key]> } : T;
"""
PLUGINS = {"stat": "Stat", "bargauge": "BarGauge", "timeseries": "TimeSeries"}


def typescript(dashboard: Node) -> str:
    """Return the dashboard as constants of Grafana's types: the whole, and what each kind of panel adds to it."""
    parts = [TYPES, f"export const dashboard: Json<Dashboard> = {json.dumps(dashboard)};"]
    for kind, name in PLUGINS.items():
        parts.append(
            f'import type * as {name} from "@grafana/schema/dist/esm/raw/composable/{kind}/panelcfg/x/{name}PanelCfg_types.gen";'
        )
    for number, panel in enumerate(panels(dashboard)):
        if panel["type"] == "row":
            continue
        plugin = PLUGINS[panel["type"]]
        parts.append(f"export const options{number}: Json<{plugin}.Options> = {json.dumps(panel['options'])};")
        if custom := panel["fieldConfig"]["defaults"].get("custom"):
            parts.append(f"export const custom{number}: Json<{plugin}.FieldConfig> = {json.dumps(custom)};")
    return "\n".join(parts)


def type_errors(dashboards: Mapping[str, Node], tools: Path, folder: Path) -> str:
    (folder / "node_modules").symlink_to(tools)
    for name, dashboard in dashboards.items():
        (folder / f"{name}.ts").write_text(typescript(dashboard), encoding="utf-8")
    options = ["--noEmit", "--strict", "--skipLibCheck", "--module", "esnext", "--moduleResolution", "bundler"]
    files = [f"{name}.ts" for name in dashboards]
    done = subprocess.run(  # noqa: S603 - our own files
        ["node", tools / "typescript" / "bin" / "tsc", *options, *files],  # noqa: S607 - the node of whoever tests
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    return done.stdout + done.stderr


def test_the_dashboards_are_of_grafanas_types(tools: Path, tmp_path: Path) -> None:
    wrong = copy.deepcopy(load(FILES[0]))
    wrong["panels"][0]["options"]["orientation"] = "upwards"
    wrong["panels"][1]["fieldConfig"]["defaults"]["untis"] = "W"
    told = type_errors({file.stem: load(file) for file in FILES} | {"wrong": wrong}, tools, tmp_path)
    errors = re.findall(r"^(\w+)\.ts.*", told, re.MULTILINE)
    assert errors, told
    assert set(errors) == {"wrong"}, told
    assert "upwards" in told
    assert "untis" in told


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_dashboard_shows_japan_every_minute_from_the_chosen_data_source(file: Path) -> None:
    dashboard = load(file)
    assert (dashboard["timezone"], dashboard["refresh"], dashboard.get("id")) == ("Asia/Tokyo", "1m", None)
    source = {"type": "influxdb", "uid": "${datasource}"}
    for panel, target in targets(dashboard):
        assert panel["datasource"] == target["datasource"] == source
    assert "from(bucket: v.defaultBucket)" in json.dumps(dashboard)
    assert not re.findall(r'bucket: "', json.dumps(dashboard))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_panels_are_told_apart_named_and_beside_one_another(file: Path) -> None:
    every = list(panels(load(file)))
    assert len({panel["id"] for panel in every}) == len(every)
    taken: set[tuple[int, int]] = set()
    for panel in every:
        place = panel["gridPos"]
        cells = set(
            itertools.product(
                range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])
            )
        )
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24, panel["title"]
        taken |= cells
        if panel["type"] != "row":
            assert panel["description"]
            refs = [target["refId"] for target in panel["targets"]]
            assert len(set(refs)) == len(refs)
            named = {each["matcher"]["options"] for each in panel["fieldConfig"]["overrides"]}
            assert named <= set(refs), panel["title"]
            if panel["type"] == "timeseries":
                assert named == set(refs), f"{panel['title']}: a curve has no name"


def test_dashboards_are_told_apart_and_links_between_them_lead_somewhere() -> None:
    dashboards = [load(file) for file in FILES]
    uids = {dashboard["uid"] for dashboard in dashboards}
    assert len(uids) == len({dashboard["title"] for dashboard in dashboards}) == len(FILES) == 4
    for dashboard in dashboards:
        variables = {each["name"] for each in dashboard["templating"]["list"]}
        for link in dashboard["links"]:
            if link["url"]:
                assert re.match(r"/d/([\w-]+)\?", link["url"])[1] in uids  # type: ignore[index]
                assert set(re.findall(r"var-(\w+)=", link["url"])) <= variables


def test_the_data_source_comes_from_the_environment_and_is_the_dashboards_own() -> None:
    text = (GRAFANA / "provisioning" / "datasources" / "influxdb.yaml").read_text(encoding="utf-8")
    (source,) = yaml.safe_load(text)["datasources"]
    assert (source["type"], source["jsonData"]["version"]) == ("influxdb", "Flux")
    assert source["url"] == "$INFLUXDB_URL"
    assert source["jsonData"]["organization"] == "$INFLUXDB_ORG"
    assert source["jsonData"]["defaultBucket"] == "$INFLUXDB_BUCKET"
    assert source["secureJsonData"] == {"token": "$INFLUXDB_TOKEN"}
    for file in FILES:
        (variable,) = [each for each in load(file)["templating"]["list"] if each["type"] == "datasource"]
        assert variable["current"]["value"] == source["uid"]


def test_the_dashboards_are_read_from_the_folder_that_is_mounted() -> None:
    (provisioning,) = (GRAFANA / "provisioning" / "dashboards").glob("*.yaml")
    (provider,) = yaml.safe_load(provisioning.read_text(encoding="utf-8"))["providers"]
    assert (provider["type"], provider["options"]) == ("file", {"path": "/etc/grafana/dashboards"})
