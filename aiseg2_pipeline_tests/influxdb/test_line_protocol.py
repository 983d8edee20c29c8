"""Points have the schema of the earlier forwarder: measurements, tags, fields and times that dashboards rely on."""

from datetime import UTC, datetime, timedelta

from aiseg2_pipeline.frames import energy
from aiseg2_pipeline.frames.energy import interval
from aiseg2_pipeline.frames.readings import Row, frame
from aiseg2_pipeline.influxdb.line_protocol import energy_lines, lines

TIME = datetime(2026, 7, 14, 8, 1, 2, tzinfo=UTC)
TIME_NS = int(TIME.timestamp()) * 10**9
# Midnight and noon in Japan.
DAY, NOON = datetime(2026, 7, 13, 15, tzinfo=UTC), datetime(2026, 7, 14, 3, tzinfo=UTC)
DAY_NS, NOON_NS = (int(time.timestamp()) * 10**9 for time in (DAY, NOON))


def test_a_row_of_each_kind_has_its_measurement_tags_and_field() -> None:
    rows = [
        Row(TIME, "total", "総発電電力", 2.1, "kW", 0),
        Row(TIME, "total", "総消費電力", 1.2, "kW", 0),
        Row(TIME, "total", "売買電力", -0.9, "kW", 0),
        Row(TIME, "generation", "太陽光発電", 2130, "W", 0),
        Row(TIME, "usage", "ＬＤ", 224, "W", 0),
        Row(TIME, "battery", "充電率", 80, "%", 0),
        Row(TIME, "battery", "状態", -1, "", 0),
        Row(TIME, "flow", "系統", -1.3, "kW", 0),
    ]
    assert lines(frame([])) == []
    assert lines(frame(rows)) == [
        (f"power,summary=総発電電力(kW) value=2.1 {TIME_NS}",),
        (f"power,summary=総消費電力(kW) value=1.2 {TIME_NS}",),
        (f"power,summary=売買電力(kW) value=-0.9 {TIME_NS}",),
        (f"power,detail-section=太陽光発電(W),detail-type=generation value=2130.0 {TIME_NS}",),
        (f"power,detail-section=ＬＤ(W),detail-type=usage value=224.0 {TIME_NS}",),
        (f"battery,detail-section=充電率(%) value=80.0 {TIME_NS}",),
        (f"battery,detail-section=状態 value=-1.0 {TIME_NS}",),
        (f"flow,summary=系統(kW) value=-1.3 {TIME_NS}",),
    ]


def test_a_filled_row_says_so_in_a_second_point_with_the_same_tags_and_time() -> None:
    rows = [Row(TIME, "usage", "Ｅ Ｖ 1", 5.5, "W", 1800), Row(TIME, "total", "総消費電力", 0.25, "kW", 3600)]
    assert lines(frame(rows)) == [
        (
            f"power,detail-section=Ｅ\\ Ｖ\\ 1(W),detail-type=usage value=5.5 {TIME_NS}",
            f"power_fill,detail-section=Ｅ\\ Ｖ\\ 1(W),detail-type=usage interval_s=1800i {TIME_NS}",
        ),
        (
            f"power,summary=総消費電力(kW) value=0.25 {TIME_NS}",
            f"power_fill,summary=総消費電力(kW) interval_s=3600i {TIME_NS}",
        ),
    ]


def name_of(circuit_id: str, time: datetime) -> str | None:
    """Return the names of circuits 8, which is renamed at noon, 10 and 11."""
    if circuit_id == "8":
        return "書斎エアコン" if time >= NOON else "洋室１エアコン"
    return {"10": "ＬＤ", "11": "ＬＤ"}.get(circuit_id)


def test_each_kind_of_energy_has_its_measurement_tags_and_field() -> None:
    expected = {
        **{
            interval(NOON, each, each, 359, 3600): f"energy,detail-section={each},detail-type={each} wh=359.0 {NOON_NS}"
            for each in energy.SERIES
        },
        # Circuits with the same name keep their ids; a renamed circuit has the name of its time.
        interval(NOON, "usage", "10", 7, 3600): f"energy,circuit-id=10,detail-section=ＬＤ,detail-type=usage wh=7.0 {NOON_NS}",
        interval(NOON, "usage", "11", 7, 3600): f"energy,circuit-id=11,detail-section=ＬＤ,detail-type=usage wh=7.0 {NOON_NS}",
        interval(NOON, "usage", "8", 7, 3600): f"energy,circuit-id=8,detail-section=書斎エアコン,detail-type=usage wh=7.0 {NOON_NS}",
        interval(DAY, "usage", "8", 7, 3600): f"energy,circuit-id=8,detail-section=洋室１エアコン,detail-type=usage wh=7.0 {DAY_NS}",
        # The name is unknown.
        interval(NOON, "usage", "39", 7, 3600): f"energy,circuit-id=39,detail-section=39,detail-type=usage wh=7.0 {NOON_NS}",
        Row(DAY, "daily_total", "湯(L)", 0.4, "L", 86_400): f"daily_total,detail-section=湯(L) value=0.4 {DAY_NS}",
        # A day has the name of its start.
        Row(DAY, "circuit_daily_total", "8", 1.5, "kWh", 86_400): f"circuit_daily_total,circuit-id=8,detail-section=洋室１エアコン(kWh) value=1.5 {DAY_NS}",
        Row(DAY, "daily_cost", "bought", 143.065, "yen", 86_400): f"daily_cost,detail-section=bought,detail-type=bought yen=143.065 {DAY_NS}",
        Row(DAY, "daily_cost", "usage/10", 12.5, "yen", 86_400): f"daily_cost,circuit-id=10,detail-section=ＬＤ,detail-type=usage yen=12.5 {DAY_NS}",
    }  # fmt: skip
    assert energy_lines(energy.frame(expected), name_of) == [(line,) for line in expected.values()]


def test_half_hours_have_no_points() -> None:
    rows = [
        interval(NOON, "consumption", "consumption", 50, 1800),
        interval(NOON + timedelta(minutes=30), "usage", "10", 50, 1800),
    ]
    assert energy_lines(energy.frame(rows), name_of) == [(), ()]
