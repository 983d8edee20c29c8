"""The SD card's files, out of the zip that the device sends: half hours, hours, days, months, years, and their cost.

The zip is untrusted: nothing is extracted and no path in it is used. A member is known by its base name alone and is
read within limits, one at a time, so that years of files take no more memory than a day. Fetching the zip belongs in
`client`.
"""

import io
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from aiseg2_pipeline.aiseg2.circuits import clean_name
from aiseg2_pipeline.aiseg2.errors import Unreadable
from aiseg2_pipeline.aiseg2.models import CostRow, EnergyRow, SupplyRow
from aiseg2_pipeline.aiseg2.pages import TOKYO

MAX_MEMBERS = 20_000
# The largest real file has 20 kB, most of it a header that does not shrink a hundredfold.
MAX_MEMBER_BYTES = 2**20
MAX_RATIO = 100
# A header and 48 half hours are the most.
_MAX_LINES = 100
# zipfile takes the zip's directory into memory in one piece; this holds that of the most members.
MAX_READ_BYTES = 4 * 2**20

# The columns before the circuits, by position, with the series they count to.
_FIXED = (
    ("計測日時", None),
    ("太陽光発電(創蓄パワコン)", "generation"),
    ("蓄電池充電", "battery-charge"),
    ("蓄電池放電", "battery-discharge"),
    ("主幹買電", "bought"),
    ("主幹売電", "sold"),
    ("太陽光発電(PV1)", "generation"),
    ("太陽光発電(PV2)", "generation"),
    ("HP消費電力量", "heatpump"),
    ("燃料電池発電電力量", "fuelcell"),
    ("EV充電電力量", "ev-charge"),
    ("EV放電電力量", "ev-discharge"),
)
_CONSUMPTION = 63
_CIRCUITS = range(len(_FIXED), _CONSUMPTION)
# The columns after the circuits differ between the files and are found by name.
_TAIL_BEGINS = "使用電力量"
_SUPPLIES = {"ガス使用量": "gas", "水使用量": "water", "お湯使用量": "hotwater"}

_MEMBER = re.compile(
    r"(?:(?:30min|hour|day|month)history|(?:day|month)cost)_rc_[0-9]{4,8}\.csv"
    r"|year(?:history|cost)_total_rc\.csv"
)
_DAY_MEMBER = re.compile(r"(?:30min|hour)history_rc_(20[0-9]{2})([0-9]{2})([0-9]{2})\.csv")
_VALUE = re.compile(r"[0-9]{1,12}")
_NONE = "-"
_PER_YEN = 1000
_DECEMBER = 12

_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, struct.error, RuntimeError, EOFError, ValueError, OverflowError)


class _Step(NamedTuple):
    """How a file's rows are labelled (the digits of the interval's start) and when such an interval ends."""

    label: re.Pattern[str]
    end: Callable[[datetime], datetime]


def _next_month(start: datetime) -> datetime:
    year, month = (start.year + 1, 1) if start.month == _DECEMBER else (start.year, start.month + 1)
    return start.replace(year=year, month=month)


_HALF_HOUR = _Step(re.compile(r"(20[0-9]{8}(?:00|30))\+0900"), lambda start: start + timedelta(minutes=30))
_HOUR = _Step(re.compile(r"(20[0-9]{8})\+0900"), lambda start: start + timedelta(hours=1))
_DAY = _Step(re.compile(r"(20[0-9]{6})"), lambda start: start + timedelta(days=1))
_MONTH = _Step(re.compile(r"(20[0-9]{4})"), _next_month)
_YEAR = _Step(re.compile(r"(20[0-9]{2})"), lambda start: start.replace(year=start.year + 1))


class _Row(NamedTuple):
    time: datetime
    interval_s: int
    values: list[int | None]


@dataclass(frozen=True)
class _Table:
    """A file: its rows whose intervals have ended, and where the columns are that have no fixed place."""

    rows: list[_Row]
    supplies: dict[str, int]
    circuit_names: dict[str, str]
    measured: frozenset[int]


class Export:
    """The card's files. Use it as a context manager.

    `made_at` is the device's time when it made the zip: an interval that had not ended then is absent. A day, month
    or year whose file is not there has no rows. Times are UTC, the interval's start; a number that the card does not
    have is no row. Every method raises Unreadable for a zip or a file that is not as the device writes it.
    """

    def __init__(self, path: Path, *, made_at: datetime) -> None:
        """Open the zip and list its files; read none yet."""
        self._made_at = made_at
        self._members: dict[str, list[zipfile.ZipInfo]] = {}
        self._file = _opened(path)
        try:
            self._zip = _directory(self._file)
        except BaseException:
            self._file.close()
            raise
        for entry in self._zip.infolist():
            name = entry.filename.replace("\\", "/").rpartition("/")[2]
            if _MEMBER.fullmatch(name):
                self._members.setdefault(name, []).append(entry)

    def __enter__(self) -> Self:
        """Return the export."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the zip."""
        self._zip.close()
        self._file.close()

    def days(self) -> list[date]:
        """Return the days, in order, that have a file of half hours or of hours."""
        days = set()
        for name in self._members:
            if found := _DAY_MEMBER.fullmatch(name):
                try:
                    days.add(date(*(int(part) for part in found.groups())))
                except ValueError:
                    continue
        return sorted(days)

    def half_hours(self, day: date) -> tuple[EnergyRow, ...]:
        """Return the half hours of a day, every series and circuit."""
        return _energy(self._table(f"30minhistory_rc_{day:%Y%m%d}.csv", f"{day:%Y%m%d}", _HALF_HOUR))

    def hours(self, day: date) -> tuple[EnergyRow, ...]:
        """Return the hours of a day, every series and circuit."""
        return _energy(self._table(f"hourhistory_rc_{day:%Y%m%d}.csv", f"{day:%Y%m%d}", _HOUR))

    def day_totals(self, month: date) -> tuple[EnergyRow, ...]:
        """Return the days of the month that `month` lies in."""
        return _energy(self._days_table(month))

    def day_supplies(self, month: date) -> tuple[SupplyRow, ...]:
        """Return gas, water and hot water of the days of a month."""
        table = self._days_table(month)
        return tuple(
            SupplyRow(row.time, row.interval_s, series, value)
            for row in table.rows
            for series, column in table.supplies.items()
            if (value := row.values[column]) is not None
        )

    def month_totals(self, year: int) -> tuple[EnergyRow, ...]:
        """Return the months of a year."""
        return _energy(self._table(f"monthhistory_rc_{year}.csv", f"{year}", _MONTH))

    def year_totals(self) -> tuple[EnergyRow, ...]:
        """Return the years."""
        return _energy(self._table("yearhistory_total_rc.csv", "", _YEAR))

    def day_costs(self, month: date) -> tuple[CostRow, ...]:
        """Return the cost of the days of the month that `month` lies in."""
        return _costs(self._table(f"daycost_rc_{month:%Y%m}.csv", f"{month:%Y%m}", _DAY))

    def month_costs(self, year: int) -> tuple[CostRow, ...]:
        """Return the cost of the months of a year."""
        return _costs(self._table(f"monthcost_rc_{year}.csv", f"{year}", _MONTH))

    def year_costs(self) -> tuple[CostRow, ...]:
        """Return the cost of the years."""
        return _costs(self._table("yearcost_total_rc.csv", "", _YEAR))

    def circuit_names(self, day: date) -> dict[str, str]:
        """Return by id how the day's file spells the circuits that it has numbers of: to be shown, not to go by."""
        half_hours = self._table(f"30minhistory_rc_{day:%Y%m%d}.csv", f"{day:%Y%m%d}", _HALF_HOUR)
        hours = self._table(f"hourhistory_rc_{day:%Y%m%d}.csv", f"{day:%Y%m%d}", _HOUR)
        return half_hours.circuit_names or hours.circuit_names

    def _days_table(self, month: date) -> _Table:
        return self._table(f"dayhistory_rc_{month:%Y%m}.csv", f"{month:%Y%m}", _DAY)

    def _table(self, name: str, period: str, step: _Step) -> _Table:
        entries = self._members.get(name, [])
        if not entries:
            return _Table([], {}, {}, frozenset())
        if len(entries) > 1:
            raise _unreadable(f"holds {name} twice")
        return _table(name, self._text(name, entries[0]), period, step, self._made_at)

    def _text(self, name: str, entry: zipfile.ZipInfo) -> str:
        if entry.file_size > MAX_MEMBER_BYTES or entry.file_size > MAX_RATIO * max(1, entry.compress_size):
            raise _unreadable(f"holds a {name} that unpacks to more than such a file can have")
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise _unreadable(f"has {name} packed in a way that the device does not use")
        with _zip_errors(name), self._zip.open(entry) as file:
            # zipfile gives no more than the size that was checked, and compares the sum over it at the end.
            return file.read(MAX_MEMBER_BYTES + 1).decode("utf-8-sig")


class _SmallReads(io.BufferedReader):
    """A file that nobody takes into memory: a zip's directory can claim any size."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > MAX_READ_BYTES:
            raise zipfile.BadZipFile
        return super().read(size)


def _opened(path: Path) -> io.FileIO:
    try:
        return io.FileIO(path)
    except OSError as error:
        raise Unreadable(
            f"Cannot open the AiSEG2's export {path} ({error.strerror}): let this user read it."
        ) from None


def _directory(file: io.FileIO) -> zipfile.ZipFile:
    with _zip_errors():
        archive = zipfile.ZipFile(_SmallReads(file))
    if len(archive.infolist()) > MAX_MEMBERS:
        raise _unreadable(f"holds more than {MAX_MEMBERS} files")
    return archive


@contextmanager
def _zip_errors(member: str = "the zip") -> Iterator[None]:
    try:
        yield
    except (*_ZIP_ERRORS, OSError):
        raise _unreadable(f"is damaged, encrypted or not a zip, so {member} cannot be read") from None


def _unreadable(what: str) -> Unreadable:
    return Unreadable(
        f"The export of the AiSEG2's SD card {what}: export it in a browser, and look whether the card is damaged."
    )


def _table(name: str, text: str, period: str, step: _Step, made_at: datetime) -> _Table:
    if not text.endswith("\n"):
        raise _unreadable(f"holds a {name} that ends in the middle")
    if text.count("\n") > _MAX_LINES:
        raise _unreadable(f"holds a {name} with more rows than such a file can have")
    header, *lines = (line.split(",") for line in text[:-1].split("\n"))
    width = len(lines[0]) if lines else len(header)
    # A circuit's name can hold a comma, and nothing is quoted: the tail is counted from the end.
    tail = header[_CONSUMPTION - width :] if width > _CONSUMPTION else []
    is_known = [column for column, _ in _FIXED] == header[: len(_FIXED)] and tail[:1] == [_TAIL_BEGINS]
    if not is_known or len(header) < width:
        raise _unreadable(f"holds a {name} with other columns than an AiSEG2 has")
    rows: dict[datetime, _Row] = {}
    measured: set[int] = set()
    for label, *cells in lines:
        if label == _NONE:
            continue
        start = _start(label, period, step)
        if start is None or start in rows:
            raise _unreadable(f"holds a {name} with a row of another time, or one time twice")
        if len(cells) + 1 != width:
            raise _unreadable(f"holds a {name} with a row that is cut")
        values = [None, *(_value(cell, name) for cell in cells)]
        end = step.end(start)
        measured |= {column for column, value in enumerate(values) if value is not None}
        if end <= made_at:
            rows[start] = _Row(start.astimezone(UTC), int((end - start).total_seconds()), values)
    return _Table(
        rows=[rows[start] for start in sorted(rows)],
        supplies={
            series: _CONSUMPTION + tail.index(column) for column, series in _SUPPLIES.items() if column in tail
        },
        circuit_names={
            _circuit_id(column): clean_name(header[column])
            for column in _CIRCUITS
            if column in measured and len(header) == width
        },
        measured=frozenset(measured),
    )


def _start(label: str, period: str, step: _Step) -> datetime | None:
    """Return the start of the interval that a label names, in Japan time; None where it is none of `period`."""
    found = step.label.fullmatch(label)
    if found is None or not label.startswith(period):
        return None
    digits = found.group(1)
    year, month, day, hour, minute = (digits[part] for part in _PARTS)
    try:
        return datetime(int(year), int(month or 1), int(day or 1), int(hour or 0), int(minute or 0), tzinfo=TOKYO)
    except ValueError:
        return None


_PARTS = (slice(0, 4), slice(4, 6), slice(6, 8), slice(8, 10), slice(10, 12))


def _value(cell: str, name: str) -> int | None:
    if cell == _NONE:
        return None
    if not _VALUE.fullmatch(cell):
        raise _unreadable(f"holds a {name} with something else than a number")
    return int(cell)


def _circuit_id(column: int) -> str:
    """Return page 734's `strId`: names repeat, are reversed, or read 無効N, so the position tells the circuit."""
    return str(column - _CIRCUITS.start)


def _values(table: _Table) -> Iterator[tuple[_Row, str, str | None, int]]:
    """Yield the row, the series, the circuit's id (of "usage") and the value, for each value that there is."""
    columns: dict[str, list[int]] = {}
    for column, (_, series) in enumerate(_FIXED):
        if series is not None and column in table.measured:
            columns.setdefault(series, []).append(column)
    columns["consumption"] = [_CONSUMPTION]
    for row in table.rows:
        for series, parts in columns.items():
            # Generation is the sum of the plants, absent when that of any measured plant is.
            values = [row.values[part] for part in parts]
            known = [value for value in values if value is not None]
            if len(known) == len(values):
                yield row, series, None, sum(known)
        for column in _CIRCUITS:
            value = row.values[column]
            if value is not None:
                yield row, "usage", _circuit_id(column), value


def _energy(table: _Table) -> tuple[EnergyRow, ...]:
    return tuple(
        EnergyRow(row.time, row.interval_s, series, circuit_id, value)
        for row, series, circuit_id, value in _values(table)
    )


def _costs(table: _Table) -> tuple[CostRow, ...]:
    return tuple(
        CostRow(row.time, row.interval_s, series, circuit_id, value / _PER_YEN)
        for row, series, circuit_id, value in _values(table)
    )
