"""One file of the SD card: parse its text to rows, for half hours, hours, days and months alike.

Which files exist, and reading them from the zip, belongs in `sd_card`.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from aiseg2_pipeline.aiseg2.circuits import clean_name
from aiseg2_pipeline.aiseg2.errors import Unreadable
from aiseg2_pipeline.aiseg2.models import CostRow, EnergyRow
from aiseg2_pipeline.aiseg2.pages import TOKYO

# The longest file has a header and 48 half hours.
_MAX_LINES = 100
# The columns before the circuits, by position, with the series that they are added to.
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
# The columns after the circuits differ between the files; those of gas and water have no unit and are not read.
_TAIL_BEGINS = "使用電力量"
_VALUE = re.compile(r"[0-9]{1,12}")
_NONE = "-"
_PER_YEN = 1000
_DECEMBER = 12


class Step(NamedTuple):
    """The format of a file's row labels, which are the interval's start, and the end of such an interval."""

    label: str
    end: Callable[[datetime], datetime]


def _next_month(start: datetime) -> datetime:
    year, month = (start.year + 1, 1) if start.month == _DECEMBER else (start.year, start.month + 1)
    return start.replace(year=year, month=month)


HALF_HOUR = Step("%Y%m%d%H%M%z", lambda start: start + timedelta(minutes=30))
HOUR = Step("%Y%m%d%H%z", lambda start: start + timedelta(hours=1))
DAY = Step("%Y%m%d", lambda start: start + timedelta(days=1))
MONTH = Step("%Y%m", _next_month)


class _Row(NamedTuple):
    time: datetime
    interval_s: int
    values: list[int | None]
    """By column of the file."""


@dataclass(frozen=True)
class Table:
    """A file's rows whose intervals have ended."""

    rows: list[_Row]
    circuit_names: dict[str, str]
    fixed_columns: tuple[tuple[str, list[int]], ...] = ()
    """The measured columns of each series but the circuits."""

    def energy(self) -> tuple[EnergyRow, ...]:
        """Return the file's values as energy in Wh."""
        return tuple(
            EnergyRow(row.time, row.interval_s, series, circuit_id, value)
            for row, series, circuit_id, value in self._values()
        )

    def costs(self) -> tuple[CostRow, ...]:
        """Return the file's values as yen."""
        return tuple(
            CostRow(row.time, row.interval_s, series, circuit_id, value / _PER_YEN)
            for row, series, circuit_id, value in self._values()
        )

    def _values(self) -> Iterator[tuple[_Row, str, str | None, int]]:
        """Yield the row, the series, the circuit's id (of "usage") and the value of each value present."""
        for row in self.rows:
            for series, columns in self.fixed_columns:
                # Generation is the sum of the plants, absent while the value of a measured plant is.
                values = [value for column in columns if (value := row.values[column]) is not None]
                if len(values) == len(columns):
                    yield row, series, None, sum(values)
            for column in _CIRCUITS:
                value = row.values[column]
                if value is not None:
                    yield row, "usage", _circuit_id(column), value


def unreadable(what: str) -> Unreadable:
    """Return the error for an export that is not in the device's format; `what` is the verb phrase that says why."""
    return Unreadable(
        f"The export of the AiSEG2's SD card {what}: export it in a browser, and check whether the card is damaged."
    )


def parse_table(name: str, text: str, period: str, step: Step, made_at: datetime) -> Table:
    """Return a file's rows that had ended at `made_at`. Raise Unreadable where it is not in the device's format.

    All its labels must begin with `period`.
    """
    if not text.endswith("\n"):
        raise unreadable(f"holds a {name} that ends in the middle")
    if text.count("\n") > _MAX_LINES:
        raise unreadable(f"holds a {name} with more rows than such a file can have")
    header, *lines = (line.split(",") for line in text[:-1].split("\n"))
    width = len(lines[0]) if lines else len(header)
    _check_columns(name, header, width)
    rows: dict[datetime, _Row] = {}
    measured: set[int] = set()
    for label, *cells in lines:
        if label == _NONE:
            continue
        start = _start(label, period, step)
        if start is None or start in rows:
            raise unreadable(f"holds a {name} with a row of another time, or one time twice")
        if len(cells) + 1 != width:
            raise unreadable(f"holds a {name} with an incomplete row")
        values = [None, *(_value(cell, name) for cell in cells)]
        measured |= {column for column, value in enumerate(values) if value is not None}
        end = step.end(start)
        if end <= made_at:
            rows[start] = _Row(start.astimezone(UTC), int((end - start).total_seconds()), values)
    # Where a comma in a name shifts the header, the names have no sure column.
    named = [column for column in _CIRCUITS if column in measured and len(header) == width]
    return Table(
        rows=[rows[start] for start in sorted(rows)],
        circuit_names={_circuit_id(column): clean_name(header[column]) for column in named},
        fixed_columns=_fixed_columns(measured),
    )


def _check_columns(name: str, header: Sequence[str], width: int) -> None:
    """Check the names of the columns besides the circuits, for rows of `width` columns."""
    # A circuit's name can hold a comma, and nothing is quoted: the tail is counted from the end.
    tail = header[_CONSUMPTION - width :] if width > _CONSUMPTION else []
    is_known = [column for column, _ in _FIXED] == header[: len(_FIXED)] and tail[:1] == [_TAIL_BEGINS]
    if not is_known or len(header) < width:
        raise unreadable(f"holds a {name} with other columns than an AiSEG2 has")


def _fixed_columns(measured: set[int]) -> tuple[tuple[str, list[int]], ...]:
    columns: dict[str, list[int]] = {}
    for column, (_, series) in enumerate(_FIXED):
        if series is not None and column in measured:
            columns.setdefault(series, []).append(column)
    return (*columns.items(), ("consumption", [_CONSUMPTION]))


def _start(label: str, period: str, step: Step) -> datetime | None:
    """Return the start of a label's interval in Japan time; None for a label outside `period` or in another format."""
    try:
        start = datetime.strptime(label, step.label).replace(tzinfo=TOKYO)
    except ValueError:
        return None
    # `strptime` also accepts other digits, fewer of them, other time zones, and years for which no end can be computed.
    is_exact = start.strftime(step.label) == label and label.startswith("20") and start.minute in (0, 30)
    return start if is_exact and label.startswith(period) else None


def _value(cell: str, name: str) -> int | None:
    if cell == _NONE:
        return None
    if not _VALUE.fullmatch(cell):
        raise unreadable(f"holds a {name} with a value that is not a number")
    return int(cell)


def _circuit_id(column: int) -> str:
    """Return page 734's `strId` of a column: names repeat, are reversed, or read 無効N, so only the position is reliable."""
    return str(column - _CIRCUITS.start)
