"""What a person reads of a run in Dagster's pages and in the services' output: warnings, failures, checks that failed."""

import asyncio
import gc
import json
import logging
import os
import sqlite3
import sys
from collections.abc import Callable, MutableMapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from multiprocessing.context import ForkServerProcess
from typing import Any, NoReturn

import pytest
from dagster import (
    AssetCheckResult,
    DagsterExecutionInterruptedError,
    DagsterInstance,
    build_sensor_context,
    job,
    op,
)
from dagster._core.execution.execute_in_process_result import ExecuteInProcessResult

from aiseg2_pipeline.aiseg2.models import Circuit
from aiseg2_pipeline.dagster_internals import MissingInternalError
from aiseg2_pipeline.frames import energy
from aiseg2_pipeline.frames.readings import Row, frame
from aiseg2_pipeline.gaps.find import Hour
from aiseg2_pipeline.ingest.power import take_minute
from aiseg2_pipeline.orchestration.checks import balance, completeness, evaluate
from aiseg2_pipeline.orchestration.keys import DAILY_REPORT
from aiseg2_pipeline.orchestration.loggers import error_lines
from aiseg2_pipeline.orchestration.maintenance.storage import drop_ticks
from aiseg2_pipeline.orchestration.partitions import day_key
from aiseg2_pipeline.runtime import code_server, prepare_storage
from aiseg2_pipeline.runtime.dagster_tuning import CalmLogger
from aiseg2_pipeline.runtime.webserver import Door
from aiseg2_pipeline_tests.aiseg2.test_climate import rooms_page
from aiseg2_pipeline_tests.orchestration.test_power import failure
from aiseg2_pipeline_tests.support.device import FLOW, LIST, circuit_list, circuit_page, circuits_path, flow_json
from aiseg2_pipeline_tests.support.error_messages import Sentence
from aiseg2_pipeline_tests.support.error_stage import DAY, HOUR, MINUTE, NOW, Stage, said_in
from aiseg2_pipeline_tests.support.store import readings

CLIMATE = "GET /page/airenvironment/41?page=1"
HOUR_START = NOW.replace(minute=0, second=0)


def _minute(stage: Stage, *times: datetime, samples: int = 1) -> str:
    """Take a minute's readings; the clock shows these times, one after the other, and the last for good."""
    shown_times = list(times)

    def clock() -> datetime:
        return shown_times.pop(0) if len(shown_times) > 1 else shown_times[0]

    with stage.store() as store, stage.client(now=times[-1]) as client:
        minute = times[0].replace(second=0)
        taken = take_minute(client, store, minute=minute, samples=samples, clock=clock, sleep=lambda _: None)
        return taken.problems[0]


def _not_kept(stage: Stage) -> str:
    with stage.store() as store:
        store.upsert(frame([Row(NOW, "total", "売買電力", 1.0, "kW", 0)]))
    return _minute(stage, NOW - DAY)


def _no_number(stage: Stage) -> str:
    stage.shows({FLOW: flow_json(g_capacity="-", u_capacity="-", g_d_1_title="")})
    stage.shows({LIST: circuit_list([]), circuits_path(1): circuit_page([])})
    return _minute(stage, NOW)


def _late(stage: Stage) -> str:
    with stage.pipeline() as pipeline:
        result = pipeline.minute(NOW + 2 * MINUTE, NOW.replace(second=0))
        return said_in(pipeline, result.run_id)[0]


def _climate(*pages: bytes, ago: timedelta = timedelta(0)) -> Callable[[Stage], str]:
    """Read the rooms, a page each time; the machine's clock is then behind by `ago`."""

    def said(stage: Stage) -> str:
        with stage.pipeline(AISEG2_START_DATE="2026-07-01") as pipeline:
            for n, page in enumerate(pages):
                stage.shows({CLIMATE: page})
                pipeline.now = NOW - n * ago
                job = pipeline.definitions.resolve_job_def("climate_rooms")
                key = day_key(pipeline.now)
                result = job.execute_in_process(
                    partition_key=key, instance=pipeline.instance, raise_on_error=False
                )
            return said_in(pipeline, result.run_id)[0]

    return said


def _writing(status: int, message: str = "") -> Callable[[Stage], tuple[list[str], ExecuteInProcessResult]]:
    def run(stage: Stage) -> tuple[list[str], ExecuteInProcessResult]:
        stage.influx.status, stage.influx.body = status, f'{{"message":"{message}"}}'.encode()
        for module in ("resources", "assets.influxdb"):
            stage.patch.setattr(f"aiseg2_pipeline.orchestration.{module}.WRITE_OUT_S", 0.9)
        with stage.pipeline(**stage.to_influx) as pipeline:
            result = pipeline.minute()
            return said_in(pipeline, result.run_id), result

    return run


def _failed_writing(status: int, message: str = "") -> Callable[[Stage], str]:
    return lambda stage: failure(_writing(status, message)(stage)[1])


def _refused_rows(stage: Stage) -> str:
    return next(said for said in _writing(422, "field type conflict")(stage)[0] if "set aside" in said)


def _alert(stage: Stage) -> str:
    said: list[str] = []
    stage.patch.setattr("aiseg2_pipeline.orchestration.sensors.alerts.log_warning", said.append)
    with stage.pipeline(AISEG2_ALERT_URLS="json://127.0.0.1:1") as pipeline:
        sensor = pipeline.definitions.resolve_sensor_def("tell_the_household")
        since = NOW - HOUR
        cursor = json.dumps({"watching_since": since.isoformat(), "seen_at": NOW.isoformat()})
        sensor.evaluate_tick(build_sensor_context(pipeline.instance, cursor=cursor))
    return said[0]


def _warm(changes: dict[str, object]) -> Callable[[Stage], str]:
    """Start the code server where runs cannot be forked."""

    def said(stage: Stage) -> str:
        told: list[str] = []
        stage.patch.setattr("aiseg2_pipeline.logs.log_warning", told.append)
        stage.patch.setattr("dagster._cli.api.grpc_command", lambda: None)
        for name, value in ({"PRELOADED": "json"} | changes).items():
            stage.patch.setattr(code_server, name, value)
        for name, value in stage.given.items():
            stage.patch.setenv(name, value)
        code_server.main()
        return told[0]

    return said


def _no_context(_: object) -> NoReturn:
    raise MissingInternalError("this Dagster has no `_other`")


def _warm_process(end: Callable[..., object]) -> Callable[[Stage], str]:
    """Start the code server where the process from which runs are forked ends so."""
    return _warm({"_nothing": end})


def _no_process(stage: Stage) -> str:
    def start(_: object) -> NoReturn:
        raise OSError(11, "Resource temporarily unavailable")

    stage.patch.setattr(ForkServerProcess, "start", start)
    return _warm({})(stage)


def _preloading(stage: Stage, n: int) -> str:
    """Preload where nothing can be imported; a module that does it as it is imported is made to forget that."""
    told: list[str] = []

    def unknown(name: str) -> NoReturn:
        raise ImportError(f"No module named {name!r}")

    stage.patch.setattr("aiseg2_pipeline.logs.log_warning", told.append)
    stage.patch.setattr("importlib.import_module", unknown)
    name = "aiseg2_pipeline.runtime.preload"
    stage.patch.delitem(sys.modules, name, raising=False)
    __import__(name)
    gc.unfreeze()
    del sys.modules[name]
    return told[n]


def _stopped(stage: Stage) -> str:
    told: list[str] = []
    stage.patch.setattr("aiseg2_pipeline.orchestration.loggers.log_warning", lambda said, **_: told.append(said))

    @op
    def long() -> None:
        raise DagsterExecutionInterruptedError

    @job(logger_defs={"console": error_lines()}, config={"loggers": {"console": {}}})
    def interrupted() -> None:
        long()

    with pytest.raises(DagsterExecutionInterruptedError):
        interrupted.execute_in_process()
    return told[0]


def _large_picture(stage: Stage) -> str:
    stage.patch.setattr("aiseg2_pipeline.orchestration.assets.daily_report.MOST_BYTES_SHOWN", 0)
    stage.patch.setattr("aiseg2_pipeline.report.picture.draw", lambda *_, **__: b"png")
    with stage.store() as store:
        store.upsert(readings(HOUR_START, 2))
    with stage.pipeline() as pipeline:
        drawing = pipeline.definitions.resolve_job_def("draw_the_day")
        drawing.execute_in_process(partition_key="2026-07-14", instance=pipeline.instance)
        return str(pipeline.metadata(DAILY_REPORT)["picture"])


def _full_disk_of_dagster(_: Stage) -> str:
    logger = CalmLogger("dagster")
    error = sqlite3.OperationalError("database or disk is full")
    record = logger.makeRecord("dagster", logging.ERROR, "", 0, "Caught an error", (), (type(error), error, None))
    logger.handle(record)
    return record.getMessage()


def _pages(method: str, **headers: str) -> Callable[[Stage], str]:
    """Ask for Dagster's pages so; return what the door says."""

    def said(_: Stage) -> str:
        told: list[bytes] = []

        async def send(message: MutableMapping[str, Any]) -> None:
            await asyncio.sleep(0)
            told.append(message.get("body", b""))

        async def served(*_: object) -> None:
            raise AssertionError

        async def receive() -> MutableMapping[str, Any]:
            raise AssertionError

        sent = [(name.encode(), value.encode()) for name, value in headers.items()]
        scope = {"type": "http", "method": method, "path": "/graphql", "headers": sent}
        asyncio.run(Door(served, host="127.0.0.1")(scope, receive, send))
        return b"".join(told).decode().removesuffix("\n")

    return said


def _storage(_: Stage) -> str:
    with DagsterInstance.ephemeral() as instance:
        try:
            next(drop_ticks(instance, NOW))
        except TypeError as error:
            return str(error)
    return ""


def _check(name: str, rows: Sequence[Row] = (), **known: object) -> Callable[[Stage], str]:
    def said(_: Stage) -> str:
        facts: dict[str, object] = {"clock_offset_s": None, "circuits": None, "future": []}
        results = evaluate(frame(rows), **(facts | known))  # type: ignore[arg-type] # a keyword each
        return _description(next(result for result in results if result.check_name == name))

    return said


def _description(result: AssetCheckResult | None) -> str:
    assert result
    assert not result.passed
    return result.description or ""


def _balance(_: Stage) -> str:
    wh = {"bought": 0.0, "generation": 0.0, "sold": 0.0, "consumption": 500.0}
    table = energy.frame(energy.interval(HOUR_START, kind, kind, value, 3600) for kind, value in wh.items())
    return _description(balance(table))


def _unjudged(stage: Stage) -> str:
    stage.given["AISEG2_HOST"] = "127.0.0.1:1"
    stage.patch.setattr("aiseg2_pipeline.orchestration.checks.READING_TIMEOUT_S", 0.1)
    with stage.pipeline() as pipeline:
        asset = pipeline.definitions.resolve_asset_graph()
        keys = [key for key in asset.asset_check_keys if key.name == "device_clock"]
        job = pipeline.definitions.resolve_implicit_global_asset_job_def()
        subset = job.get_subset(asset_selection=set(), asset_check_selection=set(keys))
        result = subset.execute_in_process(instance=pipeline.instance, raise_on_error=False)
        return result.get_asset_check_evaluations()[0].description or ""


def _usage(watts: float) -> list[Row]:
    return [Row(NOW, "total", "総消費電力", 0.1, "kW", 0), Row(NOW, "usage", "ＬＤ", watts, "W", 0)]


OF_RUNS = [
    Sentence("minute: clock behind", _not_kept, ("23:15:20", "clock")),
    Sentence("minute: no number", _no_number, ("g_capacity",)),
    Sentence("minute: samples left out", lambda stage: _minute(stage, NOW, NOW, NOW, NOW + MINUTE, samples=3), ("of 3",), "AISEG2_SAMPLES_PER_MINUTE"),
    Sentence("minute: late", _late, ("08:15",)),
    Sentence("climate: no numbers", _climate(rooms_page(("居間", "", ""))), ("1 rooms",)),
    Sentence("climate: clock behind", _climate(*[rooms_page(("居間", "235", "48"))] * 2, ago=DAY), ("clock",)),
    Sentence("write-out: refused for good", _refused_rows, ("rows", "aiseg2-pipeline doctor")),
    Sentence("write-out: a wrong token", _failed_writing(401, "unauthorized"), ("token", "kept"), "INFLUXDB_TOKEN"),
    Sentence("write-out: did not come back", _failed_writing(503), ("InfluxDB", "kept")),
    Sentence("alert: not taken", _alert, ("Service 1",), "AISEG2_ALERT_URLS"),
    Sentence("warm runs: another Dagster", _warm({"set_run_context": _no_context}), ("`_other`",), "AISEG2_WARM_RUNS"),
    Sentence("warm runs: forked in vain", _warm_process(partial(os._exit, 3)), ("exit code 3",), "AISEG2_WARM_RUNS"),
    Sentence("warm runs: no process", _no_process, ("Resource temporarily unavailable",), "AISEG2_WARM_RUNS"),
    Sentence("warm runs: a module", lambda stage: _preloading(stage, 0), ("dagster._cli.api", "No module named")),
    Sentence("warm runs: the definitions", lambda stage: _preloading(stage, -1), ("definitions",)),
    Sentence("run: stopped", _stopped, ("run",)),
    Sentence("run: the pipeline ended before", lambda _: prepare_storage.ENDED, ("run",)),
    Sentence("history: full disk", _full_disk_of_dagster, ("run history", "full")),
    Sentence("pages: another name", _pages("POST", host="evil.example"), ("'evil.example'",), "AISEG2_UI_NAMES"),
    Sentence("pages: a foreign page", _pages("POST", host="127.0.0.1:3000", origin="http://evil.example"), ("evil.example",), "AISEG2_UI_NAMES"),
    Sentence("pages: a query in an address", _pages("GET", host="127.0.0.1:3000"), ("/graphql", "POST")),
    Sentence("report: large picture", _large_picture, ("2026-07-14.png",)),
    Sentence("history: neither SQLite nor Postgres", _storage, ("storage", "dagster.yaml")),
    Sentence("check: clock", _check("device_clock", clock_offset_s=90.0), ("AiSEG2", "90 s")),
    Sentence("check: circuits over total", _check("circuits_within_total", _usage(900)), ("900 W", "100 W")),
    Sentence("check: circuit without a reading", _check("every_circuit_present", _usage(1), circuits=[Circuit("9", "ＩＨ")]), ("ＩＨ",)),
    Sentence("check: future", _check("no_rows_from_the_future", future=[NOW]), ("2026-07-14T08:15:20", "aiseg2-pipeline remove")),
    Sentence("check: not judged", _unjudged, ("device",)),
    Sentence("check: incomplete", lambda _: _description(completeness([Hour(HOUR_START, 30, 0, 0, 30)])), ("2026-07-14-08:00", "aiseg2-pipeline gaps")),
    Sentence("check: balance", _balance, ("2026-07-14-08:00", "500 Wh")),
]  # fmt: skip
