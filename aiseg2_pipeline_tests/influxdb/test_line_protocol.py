"""Points have the schema of the earlier forwarder, and a real server stores names as they were sent."""

import itertools
from datetime import UTC, datetime

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aiseg2_pipeline.aiseg2.circuits import clean_name
from aiseg2_pipeline.frames.readings import Row, frame
from aiseg2_pipeline.influxdb.line_protocol import lines
from aiseg2_pipeline_tests.support.influxdb import Influx

TIME = datetime(2026, 7, 14, 8, 1, 2, tzinfo=UTC)
TIME_NS = int(TIME.timestamp()) * 10**9

AWKWARD_NAMES = [
    "a,b", "a b", "a=b", 'a"b', '"quoted"', "it's", "a\\b", "a\\,b", "a\\ b", "a\\=b", "a\\", "\\", "\\\\", "\\\\,",
    " lead", "trail ", "#comment", "", "(W)", "🔌 充電", "キッチン　パントリー", "洋室１・エアコン", "-", "e\u0301",
    "\ufeffmark", "line\u2028break", 'k=v,"x y"\\', "value=1", "power,summary=x value=1 1",
]  # fmt: skip
# Mostly the characters with a meaning in line protocol.
NAMES = st.text(st.sampled_from(",= \"\\'(#") | st.characters()).map(clean_name)


def test_a_row_of_each_kind_has_its_measurement_tags_and_field() -> None:
    readings = frame(
        [
            Row(TIME, "total", "総発電電力", 2.1, "kW", 0),
            Row(TIME, "total", "総消費電力", 1.2, "kW", 0),
            Row(TIME, "total", "売買電力", -0.9, "kW", 0),
            Row(TIME, "generation", "太陽光発電", 2130, "W", 0),
            Row(TIME, "usage", "ＬＤ", 224, "W", 0),
            Row(TIME, "battery", "充電率", 80, "%", 0),
            Row(TIME, "battery", "状態", -1, "", 0),
        ]
    )
    assert lines(frame([])) == []
    assert lines(readings) == [
        (f"power,summary=総発電電力(kW) value=2.1 {TIME_NS}",),
        (f"power,summary=総消費電力(kW) value=1.2 {TIME_NS}",),
        (f"power,summary=売買電力(kW) value=-0.9 {TIME_NS}",),
        (f"power,detail-section=太陽光発電(W),detail-type=generation value=2130.0 {TIME_NS}",),
        (f"power,detail-section=ＬＤ(W),detail-type=usage value=224.0 {TIME_NS}",),
        (f"battery,detail-section=充電率(%) value=80.0 {TIME_NS}",),
        (f"battery,detail-section=状態 value=-1.0 {TIME_NS}",),
    ]


def test_a_filled_row_says_so_in_a_second_point_with_the_same_tags_and_time() -> None:
    readings = frame(
        [Row(TIME, "usage", "Ｅ Ｖ 1", 5.5, "W", 1800), Row(TIME, "total", "総消費電力", 0.25, "kW", 3600)]
    )
    assert lines(readings) == [
        (
            f"power,detail-section=Ｅ\\ Ｖ\\ 1(W),detail-type=usage value=5.5 {TIME_NS}",
            f"power_fill,detail-section=Ｅ\\ Ｖ\\ 1(W),detail-type=usage interval_s=1800i {TIME_NS}",
        ),
        (
            f"power,summary=総消費電力(kW) value=0.25 {TIME_NS}",
            f"power_fill,summary=総消費電力(kW) interval_s=3600i {TIME_NS}",
        ),
    ]


def test_awkward_names_are_stored_as_sent(influx: Influx) -> None:
    readings = frame(
        [
            Row(TIME, kind, name, number, "W", 1800)
            for kind in ("generation", "usage")
            for number, name in enumerate(AWKWARD_NAMES)
        ]
    )
    with influx.writer() as writer:
        writer.write([point for row in lines(readings) for point in row])
    assert influx.readings().equals(readings.sort_values(["time", "kind", "name"], ignore_index=True))


_examples = itertools.count()


# Each example has its own hour of the bucket.
@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sent=st.lists(st.tuples(NAMES, st.floats(allow_nan=False, allow_infinity=False)), min_size=20, max_size=60))
def test_any_name_and_number_are_stored_as_sent(influx: Influx, sent: list[tuple[str, float]]) -> None:
    begin = next(_examples) * 3600
    times = [datetime.fromtimestamp(begin + second, UTC) for second in range(len(sent))]
    rows = [Row(time, "usage", name, value, "W", 0) for time, (name, value) in zip(times, sent, strict=True)]
    with influx.writer() as writer:
        for points in lines(frame(rows)):
            writer.write(points)
    found = {row["time"]: (row["detail-section"], row["value"]) for row in influx.points("power")}
    assert [found[time] for time in times] == [(f"{name}(W)", value) for name, value in sent]
