"""How complete each ended hour is, in the bucket's `coverage`: with and without rows, and as the store is now."""

from datetime import datetime, timedelta

import pandas as pd
import pytest

from aiseg2_pipeline.frames.readings import Row, frame
from aiseg2_pipeline.store import Store
from aiseg2_pipeline_tests.support.influxdb import Influx
from aiseg2_pipeline_tests.support.pipeline import HOUR, MINUTE, NOW, Pipeline, device, environment, pipeline

# Fixtures of `support.pipeline`.
__all__ = ["device", "environment", "pipeline"]

RUNNING = NOW.replace(minute=0, second=0)
FIRST, SECOND, THIRD = (RUNNING - n * HOUR for n in (3, 2, 1))


def rows(start: datetime, minutes: int, interval_s: int = 0) -> pd.DataFrame:
    names = ("総発電電力", "総消費電力", "売買電力")
    return frame(
        Row(start + n * MINUTE, "total", name, 1.0, "kW", interval_s) for n in range(minutes) for name in names
    )


def coverage(influx: Influx) -> dict[datetime, tuple[int, int, int]]:
    """Return the minutes read, filled and missing of each hour in the bucket."""
    hours: dict[datetime, dict[str, int]] = {}
    for point in influx.points("coverage"):
        hours.setdefault(point["time"], {}).update(point)
    return {hour: (point["read"], point["filled"], point["missing"]) for hour, point in hours.items()}


@pytest.fixture
def store(pipeline: Pipeline) -> Store:
    """The store of a record whose second of three hours has no row."""
    store = Store.open(pipeline.settings.store_path)
    store.upsert(pd.concat([rows(FIRST, 50), rows(THIRD, 60)], ignore_index=True))
    return store


def test_the_coverage_of_every_ended_hour_follows_what_changes_it(
    pipeline: Pipeline, influx: Influx, store: Store
) -> None:
    with store:
        assert pipeline.minute().success
        complete = {FIRST: (50, 0, 10), SECOND: (0, 0, 60), THIRD: (60, 0, 0)}
        assert coverage(influx) == complete
        influx.proxy.requests.clear()
        assert pipeline.minute(NOW + MINUTE).success
        assert not any("coverage" in line for request in influx.proxy.requests for line in request.lines)
        # Fills.
        store.upsert(pd.concat([rows(FIRST + 50 * MINUTE, 10, 3600), rows(SECOND, 60, 3600)], ignore_index=True))
        store.remove(THIRD + 10 * MINUTE, THIRD + 20 * MINUTE, NOW)
        assert pipeline.minute(NOW + 2 * MINUTE).success
        changed = {FIRST: (50, 10, 0), SECOND: (0, 60, 0), THIRD: (50, 0, 0)}
        assert coverage(influx) == changed
        store.allow_fill(THIRD, RUNNING)
        # Another bucket, and this one when it was emptied.
        influx.empty()
        store.resend(destination=influx.destination)
        assert pipeline.minute(NOW + 3 * MINUTE).success
        assert coverage(influx) == changed | {THIRD: (50, 0, 10)}


def test_an_hour_without_readings_is_covered_while_the_device_is_away(
    pipeline: Pipeline, influx: Influx, store: Store
) -> None:
    store.close()
    assert pipeline.minute().success
    pipeline.set_clock(NOW + 2 * HOUR)
    pipeline.execute_requests("power_pending")
    assert coverage(influx)[RUNNING] == (1, 0, 59)
    assert coverage(influx)[RUNNING + HOUR] == (0, 0, 60)
    pipeline.set_clock(NOW + 2 * HOUR + timedelta(minutes=1))
    assert "power_pending" not in {request.job_name for request in pipeline.healing()}
