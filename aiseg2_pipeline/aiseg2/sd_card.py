"""The SD card's files, read from the zip that the device sends: half hours, hours, days and months, and their cost.

The zip is untrusted: nothing is extracted and no path in it is used. A member is identified by its base name only, and
is read with size limits, one at a time, so that years of files need no more memory than a day. Downloading the zip
belongs in `client`, parsing a file in `sd_table`.
"""

import io
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import date, datetime
from pathlib import Path
from typing import Self

from aiseg2_pipeline.aiseg2.errors import Unreadable
from aiseg2_pipeline.aiseg2.models import CostRow, EnergyRow
from aiseg2_pipeline.aiseg2.sd_table import DAY, HALF_HOUR, HOUR, MONTH, Step, Table, parse_table, unreadable

MAX_MEMBERS = 20_000
# The largest real file has 20 kB, most of it a header that does not compress a hundredfold.
MAX_MEMBER_BYTES = 2**20
MAX_RATIO = 100
# zipfile reads the zip's directory into memory at once; this is enough for MAX_MEMBERS.
MAX_READ_BYTES = 4 * 2**20

_MEMBER = re.compile(r"(?:(?:30min|hour|day|month)history|daycost)_rc_[0-9]{4,8}\.csv")
_DAY_MEMBER = re.compile(r"(?:30min|hour)history_rc_(20[0-9]{2})([0-9]{2})([0-9]{2})\.csv")

_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, struct.error, RuntimeError, EOFError, ValueError, OverflowError)


class Export:
    """The card's files. Use it as a context manager.

    `made_at` is the device's time when it made the zip: intervals that had not ended then are omitted. A day, month
    or year without a file has no rows. Times are UTC, the interval's start; a value that the card does not have is
    omitted. Every method raises Unreadable for a zip or a file that is not in the device's format.
    """

    def __init__(self, path: Path, *, made_at: datetime) -> None:
        """Open the zip and list its files, without reading any."""
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

    def __exit__(self, *_: object) -> None:
        """Close the zip."""
        self._zip.close()
        self._file.close()

    def days(self) -> list[date]:
        """Return the days, in order, that have a file of half hours or of hours."""
        days = set()
        for found in filter(None, map(_DAY_MEMBER.fullmatch, self._members)):
            with suppress(ValueError):
                days.add(date(*(int(part) for part in found.groups())))
        return sorted(days)

    def half_hours(self, day: date) -> tuple[EnergyRow, ...]:
        """Return the half hours of a day, every series and circuit."""
        return self._half_hours(day).energy()

    def hours(self, day: date) -> tuple[EnergyRow, ...]:
        """Return the hours of a day, every series and circuit."""
        return self._hours(day).energy()

    def day_totals(self, month: date) -> tuple[EnergyRow, ...]:
        """Return the days of the month that contains `month`."""
        return self._table("dayhistory", f"{month:%Y%m}", DAY).energy()

    def month_totals(self, year: int) -> tuple[EnergyRow, ...]:
        """Return the months of a year."""
        return self._table("monthhistory", f"{year}", MONTH).energy()

    def day_costs(self, month: date) -> tuple[CostRow, ...]:
        """Return the cost of the days of the month that contains `month`."""
        return self._table("daycost", f"{month:%Y%m}", DAY).costs()

    def circuit_names(self, day: date) -> dict[str, str]:
        """Return by id the day's file's spelling of the circuits that have values: for display, not for matching."""
        return self._half_hours(day).circuit_names or self._hours(day).circuit_names

    def _half_hours(self, day: date) -> Table:
        return self._table("30minhistory", f"{day:%Y%m%d}", HALF_HOUR)

    def _hours(self, day: date) -> Table:
        return self._table("hourhistory", f"{day:%Y%m%d}", HOUR)

    def _table(self, kind: str, period: str, step: Step) -> Table:
        name = f"{kind}_rc_{period}.csv"
        entries = self._members.get(name, [])
        if not entries:
            return Table([], {})
        if len(entries) > 1:
            raise unreadable(f"holds {name} twice")
        return parse_table(name, self._text(name, entries[0]), period, step, self._made_at)

    def _text(self, name: str, entry: zipfile.ZipInfo) -> str:
        if entry.file_size > MAX_MEMBER_BYTES or entry.file_size > MAX_RATIO * max(1, entry.compress_size):
            raise unreadable(f"holds a {name} that unpacks to more than such a file can have")
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise unreadable(f"has {name} packed in a way that the device does not use")
        with _zip_errors(name), self._zip.open(entry) as file:
            # zipfile returns at most the size checked above, and verifies the checksum at the end.
            return file.read(MAX_MEMBER_BYTES + 1).decode("utf-8-sig")


class _SmallReads(io.BufferedReader):
    """A file that refuses large reads, because a zip's directory can declare any size."""

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
