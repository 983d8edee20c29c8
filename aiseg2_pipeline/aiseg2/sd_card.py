"""The SD card's files, read out of the zip that the device sends: half hours, hours, days, months, years, and their cost.

The zip is untrusted: nothing is extracted and no path in it is used. A member is known by its base name alone and is
read within limits, one at a time, so that years of files take no more memory than a day. Fetching the zip belongs in
`client`, the rows of a file in `sd_table`.
"""

import io
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from aiseg2_pipeline.aiseg2.errors import Unreadable
from aiseg2_pipeline.aiseg2.models import CostRow, EnergyRow, SupplyRow
from aiseg2_pipeline.aiseg2.sd_table import (
    DAY,
    HALF_HOUR,
    HOUR,
    MONTH,
    YEAR,
    Step,
    Table,
    cost_rows,
    energy_rows,
    table_of,
    unreadable,
)

MAX_MEMBERS = 20_000
# The largest real file has 20 kB, most of it a header that does not shrink a hundredfold.
MAX_MEMBER_BYTES = 2**20
MAX_RATIO = 100
# zipfile takes the zip's directory into memory in one piece; this holds that of the most members.
MAX_READ_BYTES = 4 * 2**20


_MEMBER = re.compile(
    r"(?:(?:30min|hour|day|month)history|(?:day|month)cost)_rc_[0-9]{4,8}\.csv"
    r"|year(?:history|cost)_total_rc\.csv"
)
_DAY_MEMBER = re.compile(r"(?:30min|hour)history_rc_(20[0-9]{2})([0-9]{2})([0-9]{2})\.csv")

_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, struct.error, RuntimeError, EOFError, ValueError, OverflowError)


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
        return energy_rows(self._table(f"30minhistory_rc_{day:%Y%m%d}.csv", f"{day:%Y%m%d}", HALF_HOUR))

    def hours(self, day: date) -> tuple[EnergyRow, ...]:
        """Return the hours of a day, every series and circuit."""
        return energy_rows(self._table(f"hourhistory_rc_{day:%Y%m%d}.csv", f"{day:%Y%m%d}", HOUR))

    def day_totals(self, month: date) -> tuple[EnergyRow, ...]:
        """Return the days of the month that `month` lies in."""
        return energy_rows(self._days_table(month))

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
        return energy_rows(self._table(f"monthhistory_rc_{year}.csv", f"{year}", MONTH))

    def year_totals(self) -> tuple[EnergyRow, ...]:
        """Return the years."""
        return energy_rows(self._table("yearhistory_total_rc.csv", "", YEAR))

    def day_costs(self, month: date) -> tuple[CostRow, ...]:
        """Return the cost of the days of the month that `month` lies in."""
        return cost_rows(self._table(f"daycost_rc_{month:%Y%m}.csv", f"{month:%Y%m}", DAY))

    def month_costs(self, year: int) -> tuple[CostRow, ...]:
        """Return the cost of the months of a year."""
        return cost_rows(self._table(f"monthcost_rc_{year}.csv", f"{year}", MONTH))

    def year_costs(self) -> tuple[CostRow, ...]:
        """Return the cost of the years."""
        return cost_rows(self._table("yearcost_total_rc.csv", "", YEAR))

    def circuit_names(self, day: date) -> dict[str, str]:
        """Return by id how the day's file spells the circuits that it has numbers of: to be shown, not to go by."""
        half_hours = self._table(f"30minhistory_rc_{day:%Y%m%d}.csv", f"{day:%Y%m%d}", HALF_HOUR)
        hours = self._table(f"hourhistory_rc_{day:%Y%m%d}.csv", f"{day:%Y%m%d}", HOUR)
        return half_hours.circuit_names or hours.circuit_names

    def _days_table(self, month: date) -> Table:
        return self._table(f"dayhistory_rc_{month:%Y%m}.csv", f"{month:%Y%m}", DAY)

    def _table(self, name: str, period: str, step: Step) -> Table:
        entries = self._members.get(name, [])
        if not entries:
            return Table([], {}, {}, frozenset())
        if len(entries) > 1:
            raise unreadable(f"holds {name} twice")
        return table_of(name, self._text(name, entries[0]), period, step, self._made_at)

    def _text(self, name: str, entry: zipfile.ZipInfo) -> str:
        if entry.file_size > MAX_MEMBER_BYTES or entry.file_size > MAX_RATIO * max(1, entry.compress_size):
            raise unreadable(f"holds a {name} that unpacks to more than such a file can have")
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise unreadable(f"has {name} packed in a way that the device does not use")
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
        raise unreadable(f"holds more than {MAX_MEMBERS} files")
    return archive


@contextmanager
def _zip_errors(member: str = "the zip") -> Iterator[None]:
    try:
        yield
    except (*_ZIP_ERRORS, OSError):
        raise unreadable(f"is damaged, encrypted or not a zip, so {member} cannot be read") from None
