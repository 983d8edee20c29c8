"""Dagster's own SQLite files are damaged while everything runs, as by a failing disk."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from aiseg2_pipeline.frames.readings import Row, frame
from aiseg2_pipeline.gaps.past import note_first_hour
from aiseg2_pipeline.japan_time import hour_of
from aiseg2_pipeline.store import Store
from aiseg2_pipeline_tests.support.alerts import telephone
from aiseg2_pipeline_tests.support.damage import zero_table_until
from aiseg2_pipeline_tests.support.running_pipeline import Pipeline, free_ports, needs_proc, started

# The next minute's reading, without a person; a minute and the start are part of it.
WITHIN_S = 120
MESSAGE = "【デモ】壊れた実行履歴を新しくしました"
YESTERDAY = hour_of(datetime.now(UTC) - timedelta(days=1))


def reads_after(pipeline: Pipeline, moment: datetime) -> bool:
    return any(time > moment for time in pipeline.times())


@needs_proc
def test_a_damaged_history_is_replaced_within_two_minutes_and_past_days_are_green_again(tmp_path: Path) -> None:
    data = tmp_path / "a folder" / "data" / "demo"
    note_first_hour(data / "first_partition", YESTERDAY)
    with Store.open(data / "readings.sqlite") as store:
        store.upsert(frame([Row(YESTERDAY, "total", "売買電力", 1.0, "kW", 0)]))
    with (
        telephone() as phone,
        started(tmp_path, free_ports() | {"AISEG2_ALERT_URLS": phone.address}) as pipeline,
    ):
        pipeline.wait(lambda: reads_after(pipeline, YESTERDAY))
        assert "a new record begins" not in pipeline.output
        events = data / "dagster" / "event_log.db"
        notes = "event_log-damaged-*.json"
        damaged_at = datetime.now(UTC)
        damaged = zero_table_until(events, "event_logs", lambda: bool(list(events.parent.glob(notes))))
        pipeline.wait(lambda: next(damaged), WITHIN_S)
        pipeline.wait(lambda: reads_after(pipeline, damaged_at), WITHIN_S)
        assert len(list(events.parent.glob(notes))) == 1
        pipeline.wait(pipeline.pages.served)
        pipeline.wait(lambda: ("close_the_day", "SUCCESS") in runs(pipeline))
        pipeline.wait(lambda: MESSAGE in phone.titles)
        assert phone.titles.count(MESSAGE) == 1


def runs(pipeline: Pipeline) -> set[tuple[str, str]]:
    return {(run["jobName"], run["status"]) for run in pipeline.pages.runs()}
