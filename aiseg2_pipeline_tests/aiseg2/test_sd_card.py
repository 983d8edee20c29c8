"""The card's zip: values are exact and belong to the right circuit, and no content of it can do harm."""

import contextlib
import struct
import tracemalloc
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from aiseg2_pipeline.aiseg2 import sd_card
from aiseg2_pipeline.aiseg2.errors import Unreadable
from aiseg2_pipeline.aiseg2.models import EnergyRow
from aiseg2_pipeline.aiseg2.sd_card import Export
from aiseg2_pipeline_tests.support.device import CAPTURES, needs_captures
from aiseg2_pipeline_tests.support.sd_card import (
    COST_TAIL,
    DAY,
    HALVES,
    HOURS,
    LATER,
    TAIL,
    csv,
    half_hours,
    half_label,
    halves,
    header,
    row,
    zipped,
)

CARD = CAPTURES / "sd_export"

MONTH = date(2026, 4, 1)
MIDNIGHT = datetime(2026, 4, 11, 15, tzinfo=UTC)

PV1, CONSUMPTION, GAS = 6, 63, 64


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


@needs_captures
def test_real_rows_balance_and_two_half_hours_are_the_hour(real: Path) -> None:
    with Export(real, made_at=LATER) as card:
        assert card.days() == [DAY]
        halves, hours = card.half_hours(DAY), card.hours(DAY)
    for rows, interval_s, count in ((halves, 1800, 48), (hours, 3600, 24)):
        assert {each.interval_s for each in rows} == {interval_s}
        times: dict[datetime, Counter[str]] = {}
        for each in rows:
            times.setdefault(each.time, Counter())[each.series] += each.wh
        assert (len(times), min(times)) == (count, MIDNIGHT)
        for wh in times.values():
            assert wh["bought"] + wh["generation"] - wh["sold"] == wh["consumption"]
            assert 0.5 < wh["usage"] / wh["consumption"] <= 1
    sums: Counter[tuple[datetime, str, str | None]] = Counter()
    for each in halves:
        sums[each.time.replace(minute=0), each.series, each.circuit_id] += each.wh
    assert sums == {(each.time, each.series, each.circuit_id): each.wh for each in hours}


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


def test_generation_is_omitted_while_the_value_of_a_plant_is_missing(target: Path) -> None:
    rows = [row(half_label(0), {PV1: 5, 7: 3}), row(half_label(1), {PV1: 5}), row(half_label(2), {PV1: 4, 7: 0})]
    zipped(target, {HALVES: csv(rows)})
    assert [each.wh for each in half_hours(target)] == [8, 4]


def test_intervals_that_had_not_ended_when_the_zip_was_made_are_omitted(target: Path) -> None:
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


def test_gas_and_water_are_no_energy(target: Path) -> None:
    swapped = ["使用電力量", "お湯使用量", "ガス使用量", *TAIL[4:], "水使用量"]
    rows = [row("20260412", {GAS: 342, GAS + 1: 17, 71: 5})]
    zipped(target, {"dayhistory_rc_202604.csv": csv(rows, header(tail=swapped))})
    with Export(target, made_at=LATER) as card:
        assert card.day_totals(MONTH) == ()


def test_a_day_without_a_file_is_not_listed_and_has_no_rows(target: Path) -> None:
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


def test_days_and_months_have_their_own_lengths_and_a_dash_is_no_row(target: Path) -> None:
    rows = [row("20260412", {CONSUMPTION: 3, 4: 0}), row("20260413", {}), row("-", {4: 9})]
    months = csv(row(label, {CONSUMPTION: 4}) for label in ("202402", "202412"))
    zipped(target, {"dayhistory_rc_202604.csv": csv(rows), "monthhistory_rc_2024.csv": months})
    with Export(target, made_at=LATER) as card:
        assert card.day_totals(DAY) == (
            EnergyRow(MIDNIGHT, 86_400, "bought", None, 0),
            EnergyRow(MIDNIGHT, 86_400, "consumption", None, 3),
        )
        assert [each.interval_s // 86_400 for each in card.month_totals(2024)] == [29, 31]


def test_costs_are_in_yen_and_read_from_a_shorter_file(target: Path) -> None:
    head = header(tail=COST_TAIL)
    assert head.count(",") == 67
    costs = {4: 1234567, 20: 1, CONSUMPTION: 500, GAS: 9}
    zipped(target, {"daycost_rc_202604.csv": csv([row("20260412", costs, 68)], head)})
    with Export(target, made_at=LATER) as card:
        assert [(each.series, each.circuit_id, each.yen) for each in card.day_costs(MONTH)] == [
            ("bought", None, 1234.567),
            ("consumption", None, 0.5),
            ("usage", "8", 0.001),
        ]


# Files in another format

OTHER_LABELS = ("202604130000+0900", "202604122400+0900", "202604120015+0900", "2026041200+0900", "202604120000+0800",
                "20260412000+0900", "202604120000+09:00", "２０２６04120000+0900")  # fmt: skip


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (halves({4: 1})[:-1], "ends in the middle"),
        (b"", "ends in the middle"),
        (b"\n", "other columns"),
        (csv([row(half_label(0), {4: 1}, 71)], header()), "other columns"),
        (csv([row(half_label(0), {4: 1}), row(half_label(1), {4: 1}, 71)]), "an incomplete row"),
        (csv([row(half_label(0), {4: 1})], header().replace("主幹買電", "主幹")), "other columns"),
        (csv([row(half_label(0), {4: 1})], header().replace("使用電力量", "x")), "other columns"),
        (csv([row(half_label(0), {4: 1})] * 2), "one time twice"),
        *((csv([row(label, {4: 1})]), "another time") for label in OTHER_LABELS),
        (csv([row(half_label(0), {4: "1.5"})]), "not a number"),
        (csv([row(half_label(0), {4: ""})]), "not a number"),
        (csv([row(half_label(0), {4: "１"})]), "not a number"),
        (csv([row(half_label(0), {4: "9" * 13})]), "not a number"),
        (b"\xff" + halves({4: 1}), "damaged"),
    ],
)
def test_an_invalid_file_is_refused_by_its_name(target: Path, body: bytes, words: str) -> None:
    zipped(target, {HALVES: body, HOURS: csv([row("2026041200+0900", {4: 1})])})
    refused(target, words)
    refused(target, HALVES)
    # The other files can still be read.
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


@contextlib.contextmanager
def memory_below(limit: int) -> Iterator[None]:
    """Assert that the block allocates less than `limit` bytes at once."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()


def test_a_file_or_directory_of_any_declared_size_needs_little_memory(target: Path) -> None:
    zipped(target, {HALVES: b" " * 2**26})
    target.write_bytes(target.read_bytes().replace(struct.pack("<I", 2**26), struct.pack("<I", 2**19)))
    with memory_below(2**23):
        refused(target, "more than such a file can have|damaged")
    with target.open("wb") as file:
        file.truncate(2**28)
        file.seek(2**28)
        file.write(struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 65535, 65535, 2**28, 0, 0))
    with memory_below(2**23):
        refused(target, "not a zip")


@pytest.mark.parametrize("chunk", ["\n", "-\n", ",", "電,"])
def test_a_file_of_the_largest_size_needs_little_memory(target: Path, chunk: str) -> None:
    head = csv([]).decode()
    body = (head + chunk * ((2**20 - len(head.encode()) - 1) // len(chunk.encode())) + "\n").encode()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr(HALVES, body)
    with memory_below(2**25):
        refused(target, f"{HALVES} with (more rows|other col)")


def encrypted(target: Path) -> None:
    body = zipped(target, {HALVES: halves({4: 1})}).read_bytes()
    directory = body.rindex(b"PK\x01\x02") + 8
    target.write_bytes(body[:directory] + b"\x01" + body[directory + 1 :])


def packed_with(method: int) -> Callable[[Path], None]:
    def write(target: Path) -> None:
        with zipfile.ZipFile(target, "w", method) as archive:
            archive.writestr(HALVES, halves({4: 1}))

    return write


INVALID_ZIPS: dict[str, tuple[Callable[[Path], object], str]] = {
    "twice": (lambda path: zipped(path, {HALVES: halves({4: 1}), f"b/{HALVES}": halves({4: 2})}), "twice"),
    "large": (lambda path: zipped(path, {HALVES: b" " * (sd_card.MAX_MEMBER_BYTES + 1)}), "more than such a file"),
    "compressed too well": (lambda path: zipped(path, {HALVES: b" " * 2**20}), "more than such a file"),
    "nested": (
        lambda path: zipped(path, {HALVES: zipped(path, {HALVES: halves({4: 1})}).read_bytes()}),
        "damaged",
    ),
    "bzip2": (packed_with(zipfile.ZIP_BZIP2), "does not use"),
    "lzma": (packed_with(zipfile.ZIP_LZMA), "does not use"),
    "encrypted": (encrypted, "encrypted"),
    "empty": (lambda path: path.write_bytes(b""), "not a zip"),
    "no zip": (lambda path: path.write_bytes(b"PK\x03\x04" + b"x" * 100), "not a zip"),
    "absent": (Path.exists, "No such file"),
}


@pytest.mark.parametrize("kind", INVALID_ZIPS)
def test_a_zip_that_no_device_creates_is_refused(target: Path, kind: str) -> None:
    write, words = INVALID_ZIPS[kind]
    write(target)
    refused(target, words)


def test_a_zip_of_very_many_files_is_refused(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zipped(target, {f"{n}": b"" for n in range(11)})
    monkeypatch.setattr(sd_card, "MAX_MEMBERS", 10)
    refused(target, "more than 10 files")


def test_a_damaged_zip_or_file_is_refused_or_reads_the_same(target: Path) -> None:
    body = csv(row(half_label(n), {4: n * n}) for n in range(48))
    whole = half_hours(zipped(target, {HALVES: body}))
    packed = target.read_bytes()
    assert len(whole) == 48
    for at in range(0, len(packed), 5):
        for damaged in (packed[:at], bytes([*packed[:at], packed[at] ^ 0x41, *packed[at + 1 :]])):
            target.write_bytes(damaged)
            with contextlib.suppress(Unreadable):
                assert half_hours(target) in (whole, ())
    for length in [*range(0, len(body), 97), *range(len(body) - 30, len(body))]:
        with contextlib.suppress(Unreadable):
            assert set(half_hours(zipped(target, {HALVES: body[:length]}))) <= set(whole)
