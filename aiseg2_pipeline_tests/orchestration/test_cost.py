"""What the hours cost is stored, written to InfluxDB, and computed again where energy or tariff change."""

from pathlib import Path

import pandas as pd
import pytest

from aiseg2_pipeline.frames.energy import COST
from aiseg2_pipeline.orchestration.keys import ENERGY_COST
from aiseg2_pipeline.orchestration.partitions import day_key
from aiseg2_pipeline_tests.support.influxdb import Influx
from aiseg2_pipeline_tests.support.pipeline import DAY, failure
from aiseg2_pipeline_tests.support.simulated_pipeline import (
    TODAY,
    YESTERDAY,
    SimulatedPipeline,
    simulated_pipeline,
)

FLAT = """
[[plan]]
name = "flat"
valid_from = 2020-01-01
[[plan.price]]
name = "energy"
steps = [{ to_kwh = 5, yen = 30 }, { yen = YEN }]
[[sell]]
valid_from = 2020-01-01
yen = 8.5
"""


def rows(pipeline: SimulatedPipeline, kind: str, name: str) -> pd.DataFrame:
    """Return the rows of the hours of a series."""
    table = pipeline.energy()
    return table[(table["kind"] == kind) & (table["name"] == name) & (table["interval_s"] == 3600)]


def bought_yen(pipeline: SimulatedPipeline) -> float:
    return float(rows(pipeline, COST, "bought")["value"].sum())


def test_an_hour_that_no_plan_covers_any_more_loses_its_cost(tmp_path: Path) -> None:
    path = tmp_path / "tariff.toml"
    path.write_text(FLAT.replace("YEN", "40"), encoding="utf-8")
    with simulated_pipeline(tmp_path, {"AISEG2_TARIFF": str(path)}) as pipeline:
        for day in (YESTERDAY - DAY, YESTERDAY):
            assert pipeline.run("energy_day", day_key(day)).success
        before = list(rows(pipeline, COST, "sold")["value"])
        later = FLAT.replace("2020-01-01\n[[plan.price]]", f"{day_key(YESTERDAY)}\n[[plan.price]]")
        path.write_text(later.replace("YEN", "40"), encoding="utf-8")
        assert pipeline.run("energy_day", day_key(YESTERDAY)).success
        assert rows(pipeline, COST, "bought")["time"].min() == YESTERDAY
        assert rows(pipeline, COST, "saved")["time"].min() == YESTERDAY
        # What was sold has a price of its own.
        assert list(rows(pipeline, COST, "sold")["value"]) == before


def test_costs_follow_a_late_day_and_another_tariff_and_are_in_influxdb(tmp_path: Path, influx: Influx) -> None:
    path = tmp_path / "tariff.toml"
    path.write_text(FLAT.replace("YEN", "40"), encoding="utf-8")
    with simulated_pipeline(tmp_path, {"AISEG2_TARIFF": str(path)} | influx.settings) as pipeline:
        assert pipeline.run("energy_day", day_key(YESTERDAY)).success
        bought_kwh = float(rows(pipeline, "bought", "bought")["value"].sum()) / 1000
        first_yen = bought_yen(pipeline)
        assert bought_kwh > 5
        assert first_yen == pytest.approx(5 * 30 + (bought_kwh - 5) * 40)
        sold_wh = rows(pipeline, "sold", "sold")["value"]
        assert list(rows(pipeline, COST, "sold")["value"]) == pytest.approx(list(sold_wh / 1000 * 8.5))
        assert pipeline.green(ENERGY_COST) == {day_key(YESTERDAY)}
        points = [point["yen"] for point in influx.points("cost") if point["detail-type"] == "bought"]
        assert sum(points) == pytest.approx(first_yen)

        # A day that is read late, earlier in the billing period, moves the steps.
        assert pipeline.run("energy_day", day_key(YESTERDAY - DAY)).success
        assert pipeline.green(ENERGY_COST) == {day_key(YESTERDAY - DAY), day_key(YESTERDAY)}
        moved = rows(pipeline, COST, "bought")
        assert moved.loc[moved["time"] >= YESTERDAY, "value"].sum() == pytest.approx(bought_kwh * 40)

        path.write_text(FLAT.replace("YEN", "50"), encoding="utf-8")
        before_yen = bought_yen(pipeline)
        assert pipeline.run("energy_day", day_key(TODAY)).success
        assert bought_yen(pipeline) > before_yen

        path.write_text("[[plan]]", encoding="utf-8")
        result = pipeline.run("energy_day", day_key(TODAY))
        assert not result.success
        assert "tariff.toml, line 1" in failure(result)
