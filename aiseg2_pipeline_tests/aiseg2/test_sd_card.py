"""The card's zip: its numbers come out to the Wh and under the right circuit, and nothing in it can do harm."""

import contextlib
import io
import struct
import tracemalloc
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiseg2_pipeline.aiseg2 import sd_card
from aiseg2_pipeline.aiseg2.errors import Aiseg2Error, Unreadable
from aiseg2_pipeline.aiseg2.models import EnergyRow, SupplyRow
from aiseg2_pipeline.aiseg2.sd_card import Export
from aiseg2_pipeline_tests.support.device import CAPTURES

CARD = CAPTURES / "sd_export"
needs_captures = pytest.mark.skipif(not CARD.exists(), reason="the captures of a real unit are not here")

DAY = date(2026, 4, 12)
MONTH = date(2026, 4, 1)
MIDNIGHT = datetime(2026, 4, 11, 15, tzinfo=UTC)
LATER = datetime(2027, 6, 1, tzinfo=UTC)
HALVES = "30minhistory_rc_20260412.csv"
HOURS = "hourhistory_rc_20260412.csv"

FIXED = [
    "計測日時",
    "太陽光発電(創蓄パワコン)",
    "蓄電池充電",
    "蓄電池放電",
    "主幹買電",
    "主幹売電",
    "太陽光発電(PV1)",
    "太陽光発電(PV2)",
    "HP消費電力量",
    "燃料電池発電電力量",
    "EV充電電力量",
    "EV放電電力量",
]
TAIL = [
    "使用電力量",
    "ガス使用量",
    "水使用量",
    "お湯使用量",
    "燃料電池ガス使用量",
    "補助熱源ガス使用量",
    "燃料電池お湯使用量",
    "補助熱源お湯使用量",
    "燃料電池排熱回収量",
]
COST_TAIL = [name for name in TAIL if "湯" not in name][:5]
PV1, CONSUMPTION, GAS = 6, 63, 64


def header(names: Mapping[int, str] | None = None, tail: Iterable[str] = TAIL) -> str:
    """Return a header; `names` are circuits by id."""
    circuits = [(names or {}).get(n, f"無効{n}") for n in range(51)]
    return ",".join([*FIXED, *circuits, *tail])


def row(label: str, values: Mapping[int, int | str], width: int = 72) -> str:
    """Return a row; `values` are by column, and the rest is not measured."""
    return ",".join([label, *(str(values.get(column, "-")) for column in range(1, width))])


def csv(rows: Iterable[str], head: str | None = None) -> bytes:
    return ("\ufeff" + "".join(line + "\n" for line in [head or header(), *rows])).encode()


def half_label(n: int) -> str:
    return f"20260412{n // 2:02}{n % 2 * 30:02}+0900"


def halves(values: Mapping[int, int | str]) -> bytes:
    """Return a day of half hours, every one with the same values."""
    return csv(row(half_label(n), values) for n in range(48))


def zipped(path: Path, members: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in members.items():
            archive.writestr(name, body)
    return path


def half_hours(path: Path, made_at: datetime = LATER) -> tuple[EnergyRow, ...]:
    with Export(path, made_at=made_at) as card:
        return card.half_hours(DAY)


def refused(path: Path, words: str) -> None:
    with pytest.raises(Unreadable, match=words):
        half_hours(path)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "export.zip"


# A real unit's files


@pytest.fixture
def real(target: Path) -> Path:
    return zipped(target, {f"any/folder/{path.name}": path.read_bytes() for path in CARD.iterdir()})


def by_series(rows: Iterable[EnergyRow]) -> dict[datetime, dict[str, int]]:
    times: dict[datetime, dict[str, int]] = {}
    for each in rows:
        key = f"circuit {each.circuit_id}" if each.circuit_id else each.series
        assert key not in times.setdefault(each.time, {})
        times[each.time][key] = each.wh
    return times


@needs_captures
def test_in_every_real_row_bought_and_generation_less_sold_are_the_consumption(real: Path) -> None:
    with Export(real, made_at=LATER) as card:
        assert card.days() == [DAY]
        tables = [by_series(card.half_hours(DAY)), by_series(card.hours(DAY)), by_series(card.year_totals())]
    assert [len(table) for table in tables] == [48, 24, 4]
    for values in (values for table in tables for values in table.values()):
        assert values["bought"] + values["generation"] - values["sold"] == values["consumption"]
        circuits = sum(wh for name, wh in values.items() if name.startswith("circuit"))
        assert 0.5 < circuits / values["consumption"] <= 1


@needs_captures
def test_two_real_half_hours_are_the_hour_for_every_series_and_circuit(real: Path) -> None:
    with Export(real, made_at=LATER) as card:
        parts, hours = card.half_hours(DAY), card.hours(DAY)
    sums: Counter[tuple[datetime, str, str | None]] = Counter()
    for each in parts:
        assert each.interval_s == 1800
        sums[each.time.replace(minute=0), each.series, each.circuit_id] += each.wh
    assert sums == {(each.time, each.series, each.circuit_id): each.wh for each in hours}
    assert {each.interval_s for each in hours} == {3600}
    assert min(each.time for each in hours) == MIDNIGHT


@needs_captures
def test_real_circuits_of_one_name_are_apart_by_id(real: Path) -> None:
    with Export(real, made_at=LATER) as card:
        names = card.circuit_names(DAY)
        night = {each.circuit_id: each.wh for each in card.hours(DAY) if each.time == MIDNIGHT}
    assert Counter(names.values())["ＬＤ"] == 2
    ids = [circuit_id for circuit_id, name in names.items() if name == "ＬＤ"]
    assert [night[circuit_id] for circuit_id in ids] == [19, 1]
    # Page 734 registers the circuits 8 to 39; 36 and 38 have no reading, 37 has one and no name.
    assert set(names) == {str(n) for n in range(8, 40)} - {"36", "38"}
    assert names["37"] == "未使用"


@needs_captures
def test_a_real_file_that_is_cut_is_never_another_reading(target: Path) -> None:
    body = (CARD / HALVES).read_bytes()
    whole = half_hours(zipped(target, {HALVES: body}))
    for length in [*range(0, len(body), 41), *range(len(body) - 30, len(body))]:
        with contextlib.suppress(Aiseg2Error):
            assert set(half_hours(zipped(target, {HALVES: body[:length]}))) <= set(whole)


# What the columns mean


def test_a_circuit_is_its_column_whatever_its_name(target: Path) -> None:
    names = {8: "ＬＤ", 9: "ＬＤ", 38: "使用電力量", 50: "お湯使用量"}
    rows = [row(half_label(0), {20: 7, 21: 8, 50: 9, 62: 10, CONSUMPTION: 40})]
    zipped(target, {HALVES: csv(rows, header(names))})
    found = {each.circuit_id: (each.series, each.wh) for each in half_hours(target)}
    assert found == {
        "8": ("usage", 7),
        "9": ("usage", 8),
        "38": ("usage", 9),
        "50": ("usage", 10),
        None: ("consumption", 40),
    }
    with Export(target, made_at=LATER) as card:
        assert card.circuit_names(DAY) == {str(n): name for n, name in names.items()}


def test_a_comma_in_a_circuits_name_moves_no_column(target: Path) -> None:
    rows = [row(half_label(0), {20: 7, CONSUMPTION: 40})]
    zipped(target, {HALVES: csv(rows, header({8: 'a,"b', 50: "x,使用電力量"}))})
    assert [(each.circuit_id, each.wh) for each in half_hours(target)] == [(None, 40), ("8", 7)]
    with Export(target, made_at=LATER) as card:
        assert card.circuit_names(DAY) == {}


def test_every_fixed_column_has_its_series(target: Path) -> None:
    zipped(target, {HALVES: csv([row(half_label(3), {column: 2**column for column in range(1, 12)})])})
    assert {each.series: each.wh for each in half_hours(target)} == {
        "generation": 2**1 + 2**6 + 2**7,
        "battery-charge": 2**2,
        "battery-discharge": 2**3,
        "bought": 2**4,
        "sold": 2**5,
        "heatpump": 2**8,
        "fuelcell": 2**9,
        "ev-charge": 2**10,
        "ev-discharge": 2**11,
    }
    assert {each.time for each in half_hours(target)} == {MIDNIGHT + timedelta(minutes=90)}


def test_generation_is_absent_while_one_of_the_plants_is(target: Path) -> None:
    rows = [row(half_label(0), {PV1: 5, 7: 3}), row(half_label(1), {PV1: 5}), row(half_label(2), {PV1: 4, 7: 0})]
    zipped(target, {HALVES: csv(rows)})
    assert [each.wh for each in half_hours(target)] == [8, 4]


def test_a_dash_is_no_row_and_nought_is_one(target: Path) -> None:
    zipped(target, {HALVES: csv([row(half_label(0), {4: 0}), row(half_label(1), {}), row("-", {4: 9})])})
    assert [(each.series, each.wh) for each in half_hours(target)] == [("bought", 0)]


def test_intervals_that_had_not_ended_when_the_zip_was_made_are_absent(target: Path) -> None:
    zipped(
        target,
        {
            HALVES: halves({CONSUMPTION: 1}),
            HOURS: csv(row(f"20260412{n:02}+0900", {CONSUMPTION: 2}) for n in range(24)),
            "dayhistory_rc_202604.csv": csv(row(f"202604{n:02}", {CONSUMPTION: 3}) for n in range(1, 31)),
        },
    )
    made_at = MIDNIGHT + timedelta(hours=5, minutes=29, seconds=59)
    with Export(target, made_at=made_at) as card:
        assert (len(card.half_hours(DAY)), len(card.hours(DAY)), len(card.day_totals(DAY))) == (10, 5, 11)
    with Export(target, made_at=made_at + timedelta(seconds=1)) as card:
        assert len(card.half_hours(DAY)) == 11


def test_days_months_and_years_have_their_own_lengths(target: Path) -> None:
    zipped(
        target,
        {
            "dayhistory_rc_202604.csv": csv([row("20260412", {CONSUMPTION: 3})]),
            "monthhistory_rc_2024.csv": csv(row(label, {CONSUMPTION: 4}) for label in ("202402", "202412")),
            "yearhistory_total_rc.csv": csv([*(row(y, {CONSUMPTION: 5}) for y in ("2025", "2024")), row("-", {})]),
        },
    )
    with Export(target, made_at=LATER) as card:
        assert card.day_totals(DAY) == (EnergyRow(MIDNIGHT, 86_400, "consumption", None, 3),)
        assert [each.interval_s // 86_400 for each in card.month_totals(2024)] == [29, 31]
        assert [each.interval_s // 86_400 for each in card.year_totals()] == [366, 365]
        assert card.year_totals()[0].time == datetime(2023, 12, 31, 15, tzinfo=UTC)


def test_costs_are_yen_and_their_shorter_tail_is_no_obstacle(target: Path) -> None:
    head = header(tail=COST_TAIL)
    assert head.count(",") == 67
    costs = {4: 1234567, 20: 1, CONSUMPTION: 500, GAS: 9}
    zipped(
        target,
        {
            "daycost_rc_202604.csv": csv([row("20260412", costs, 68)], head),
            "monthcost_rc_2026.csv": csv([row("202604", costs, 68)], head),
            "yearcost_total_rc.csv": csv([row("2026", costs, 68)], head),
        },
    )
    with Export(target, made_at=LATER) as card:
        days = card.day_costs(MONTH)
        assert [each.yen for each in card.month_costs(2026)] == [each.yen for each in days]
        assert [each.time.year for each in card.year_costs()] == [2025] * 3
    assert [(each.series, each.circuit_id, each.yen) for each in days] == [
        ("bought", None, 1234.567),
        ("consumption", None, 0.5),
        ("usage", "8", 0.001),
    ]


def test_gas_and_water_are_found_by_name_and_are_no_energy(target: Path) -> None:
    swapped = ["使用電力量", "お湯使用量", "ガス使用量", *TAIL[4:], "水使用量"]
    rows = [row("20260412", {GAS: 342, GAS + 1: 17, 71: 5})]
    zipped(target, {"dayhistory_rc_202604.csv": csv(rows, header(tail=swapped))})
    with Export(target, made_at=LATER) as card:
        assert card.day_totals(MONTH) == ()
        assert set(card.day_supplies(MONTH)) == {
            SupplyRow(MIDNIGHT, 86_400, "hotwater", 342),
            SupplyRow(MIDNIGHT, 86_400, "gas", 17),
            SupplyRow(MIDNIGHT, 86_400, "water", 5),
        }


def test_days_are_those_with_a_file_and_the_others_have_no_rows(target: Path) -> None:
    zipped(
        target,
        {
            HALVES: halves({}),
            "hourhistory_rc_20260411.csv": csv([]),
            HOURS: csv([]),
            "30minhistory_rc_20260230.csv": b"",
            "30minhistory_rc_20260410.csv.bak": b"",
            "dayhistory_rc_202604.csv": csv([]),
            "settings.ini": b"\xff",
        },
    )
    with Export(target, made_at=LATER) as card:
        assert card.days() == [date(2026, 4, 11), DAY]
        assert not any((card.half_hours(DAY), card.hours(date(2020, 1, 1)), card.day_costs(MONTH)))


# What is not as the device writes it


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (halves({4: 1})[:-1], "ends in the middle"),
        (b"", "ends in the middle"),
        (b"\n", "other columns"),
        (csv([row(half_label(0), {4: 1}, 71)], header()), "other columns"),
        (csv([row(half_label(0), {4: 1}), row(half_label(1), {4: 1}, 71)]), "a row that is cut"),
        (csv([row(half_label(0), {4: 1})], header().replace("主幹買電", "主幹")), "other columns"),
        (csv([row(half_label(0), {4: 1})], header().replace("使用電力量", "x")), "other columns"),
        (csv([row(half_label(0), {4: 1})] * 2), "one time twice"),
        (csv([row("202604130000+0900", {4: 1})]), "another time"),
        (csv([row("202604122400+0900", {4: 1})]), "another time"),
        (csv([row("202604120015+0900", {4: 1})]), "another time"),
        (csv([row("202604120000+0000", {4: 1})]), "another time"),
        (csv([row("2026041200+0900", {4: 1})]), "another time"),
        (csv([row(half_label(0), {4: "1.5"})]), "something else than a number"),
        (csv([row(half_label(0), {4: "-1"})]), "something else than a number"),
        (csv([row(half_label(0), {4: ""})]), "something else than a number"),
        (csv([row(half_label(0), {4: "１"})]), "something else than a number"),
        (csv([row(half_label(0), {4: "9" * 13})]), "something else than a number"),
        (b"\xff" + halves({4: 1}), "damaged"),
    ],
)
def test_a_file_that_is_not_whole_is_named(target: Path, body: bytes, words: str) -> None:
    zipped(target, {HALVES: body, HOURS: csv([row("2026041200+0900", {4: 1})])})
    refused(target, words)
    refused(target, HALVES)
    # One bad file is no reason to lose the others.
    with Export(target, made_at=LATER) as card:
        assert len(card.hours(DAY)) == 1


def test_no_path_in_the_zip_is_used(tmp_path: Path, target: Path) -> None:
    body = halves({4: 1})
    names = [f"../../{HALVES}", f"/etc/{HALVES}", f"C:\\windows\\{HALVES}", f"{HALVES}/../{HALVES}"]
    for name in names:
        assert len(half_hours(zipped(target, {name: body}))) == 48
    assert [path.name for path in tmp_path.rglob("*")] == ["export.zip"]
    for name in (f"x{HALVES}", f"{HALVES}/", HALVES.upper(), HALVES.replace("30", "３０"), HALVES + "\n"):
        assert half_hours(zipped(target, {name: body})) == ()


def test_a_file_that_is_there_twice_is_refused(target: Path) -> None:
    refused(zipped(target, {HALVES: halves({4: 1}), f"b/{HALVES}": halves({4: 2})}), "twice")


def test_a_file_that_unpacks_to_too_much_is_refused_unread(target: Path) -> None:
    refused(zipped(target, {HALVES: b" " * (sd_card.MAX_MEMBER_BYTES + 1)}), "more than such a file can have")
    refused(zipped(target, {HALVES: b" " * sd_card.MAX_MEMBER_BYTES}), "more than such a file can have")


def test_a_size_that_lies_is_found_out(target: Path) -> None:
    zipped(target, {HALVES: b" " * 2**26})
    body = target.read_bytes().replace(struct.pack("<I", 2**26), struct.pack("<I", 2**19))
    target.write_bytes(body)
    tracemalloc.start()
    try:
        refused(target, "more than such a file can have|damaged")
        assert tracemalloc.get_traced_memory()[1] < 2**23
    finally:
        tracemalloc.stop()


def test_a_zip_of_very_many_files_is_refused(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zipped(target, {f"{n}": b"" for n in range(11)})
    monkeypatch.setattr(sd_card, "MAX_MEMBERS", 10)
    refused(target, "more than 10 files")


def test_a_directory_of_any_size_is_not_taken_into_memory(target: Path) -> None:
    with target.open("wb") as file:
        file.truncate(2**28)
        file.seek(2**28)
        file.write(struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 65535, 65535, 2**28, 0, 0))
    tracemalloc.start()
    try:
        refused(target, "not a zip")
        assert tracemalloc.get_traced_memory()[1] < 2**23
    finally:
        tracemalloc.stop()


def test_nested_zips_are_never_opened(target: Path) -> None:
    inner = zipped(target, {HALVES: halves({4: 1})}).read_bytes()
    assert half_hours(zipped(target, {"inner.zip": inner})) == ()
    refused(zipped(target, {HALVES: inner}), "damaged")


def test_packings_that_the_device_does_not_use_are_refused(target: Path) -> None:
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        with zipfile.ZipFile(target, "w", method) as archive:
            archive.writestr(HALVES, halves({4: 1}))
        refused(target, "does not use")


def test_an_encrypted_file_is_refused(target: Path) -> None:
    body = zipped(target, {HALVES: halves({4: 1})}).read_bytes()
    directory = body.rindex(b"PK\x01\x02") + 8
    target.write_bytes(body[:directory] + b"\x01" + body[directory + 1 :])
    refused(target, "encrypted")


@pytest.mark.parametrize("body", [b"", b"PK", b"<html></html>", b"PK\x03\x04" + b"x" * 100])
def test_what_is_no_zip_is_refused(target: Path, body: bytes) -> None:
    target.write_bytes(body)
    refused(target, "not a zip")


def test_a_zip_that_is_not_there_is_named(target: Path) -> None:
    refused(target, "No such file")


def test_a_cut_or_changed_zip_is_refused_or_the_same(target: Path) -> None:
    body = zipped(target, {HALVES: csv(row(half_label(n), {4: n * n}) for n in range(48))}).read_bytes()
    whole = half_hours(target)
    assert len(whole) == 48
    for at in range(0, len(body), 3):
        for damaged in (body[:at], bytes([*body[:at], body[at] ^ 0x41, *body[at + 1 :]])):
            target.write_bytes(damaged)
            with contextlib.suppress(Unreadable):
                assert half_hours(target) in (whole, ())


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 9000))
def test_garbage_gives_only_our_errors(tmp_path_factory: pytest.TempPathFactory, body: bytes, at: int) -> None:
    whole = halves({4: 1})
    path = tmp_path_factory.getbasetemp() / "garbage.zip"
    for damaged in (body, whole[:at] + body + whole[at:], whole[:at] + body + whole[at + len(body) :]):
        with contextlib.suppress(Aiseg2Error):
            half_hours(zipped(path, {HALVES: damaged}))
        packed = io.BytesIO(zipped(path, {HALVES: whole}).read_bytes())
        packed.seek(at % 1000)
        packed.write(body)
        path.write_bytes(packed.getvalue())
        with contextlib.suppress(Aiseg2Error):
            half_hours(path)


def test_years_of_files_take_no_more_memory_than_a_day(target: Path) -> None:
    days = [DAY + timedelta(days=n) for n in range(400)]
    body = halves(dict.fromkeys(range(1, 72), 1)).decode()
    zipped(
        target,
        {
            HALVES.replace("20260412", f"{d:%Y%m%d}"): body.replace("20260412", f"{d:%Y%m%d}").encode()
            for d in days
        },
    )
    with Export(target, made_at=datetime(2030, 1, 1, tzinfo=UTC)) as card:
        assert card.days() == days
        assert len(card.half_hours(days[0])) == 48 * 61
        tracemalloc.start()
        try:
            for day in days[:5]:
                card.half_hours(day)
            few = tracemalloc.get_traced_memory()[1]
            for day in days[5:40]:
                card.half_hours(day)
            assert tracemalloc.get_traced_memory()[1] < few * 1.1 + 2**18
        finally:
            tracemalloc.stop()
