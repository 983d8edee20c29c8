"""Show readings, energy, gaps and the lines of `doctor` on a terminal, the first three also as JSON or line protocol.

Times are those of Japan, and names the device's.

Nothing here reads a store or the device.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import date, datetime
from itertools import groupby
from typing import Any

import click
import pandas as pd
from rich.console import Console
from rich.progress import Progress
from rich.table import Column, Table
from rich.text import Text

from aiseg2_pipeline.aiseg2.models import LiveReading
from aiseg2_pipeline.frames.energy import HALF, HOUR_S, USAGE, frame, interval
from aiseg2_pipeline.gaps.fill import FilledDay
from aiseg2_pipeline.gaps.find import Gaps, Hour
from aiseg2_pipeline.influxdb.line_protocol import energy_lines
from aiseg2_pipeline.ingest.energy import DeviceDay
from aiseg2_pipeline.japan_time import HOUR, TOKYO

OK, HINT, FAILED = "ok  ", "--  ", "FAIL"
COLOURS = {OK: "green", HINT: "yellow", FAILED: "red"}

# Mark, subject, finding.
Line = tuple[str, str, str]


def rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the frame's rows as JSON values, times as ISO 8601 in Japan time."""
    shown = table.assign(time=[time.isoformat() for time in table["time"].dt.tz_convert(TOKYO)])
    return [{str(column): value for column, value in row.items()} for row in shown.to_dict("records")]


def reading(taken: LiveReading, table: pd.DataFrame) -> None:
    """Print one live reading."""
    when = taken.answered_at.astimezone(TOKYO)
    shown = Table(title=f"{when:%Y-%m-%d %H:%M:%S} ({taken.requests} requests, {taken.elapsed_s:.2f} s)")
    for column in ("kind", "name", "value", "unit"):
        shown.add_column(column, justify="right" if column == "value" else "left")
    # As Text: a bracket in one of the device's names is not markup.
    for kind, name, value, unit in zip(table["kind"], table["name"], table["value"], table["unit"], strict=True):
        shown.add_row(Text(kind), Text(name), Text(f"{value:g}"), Text(unit))
    Console().print(shown)


def energy_json(day: DeviceDay) -> list[dict[str, Any]]:
    """Return a row for each interval and series, times as ISO 8601 in Japan time."""
    return [
        {
            "time": time.tz_convert(TOKYO).isoformat(),
            "interval_s": interval_s,
            "kind": "circuit" if circuit_id else "total",
            "name": name,
            "circuit_id": circuit_id,
            "wh": wh,
        }
        for time, interval_s, name, circuit_id, wh in _intervals(day)
    ]


def whole_hours(day: DeviceDay) -> pd.DataFrame:
    """Return the day's whole hours as an energy frame; each from two half hours where the day has those."""
    table = day.table.assign(kind=day.table["kind"].str.removesuffix(HALF), time=day.table["time"].dt.floor("h"))
    sums = table.groupby(["time", "kind", "name"], sort=False)["value"].agg(["sum", "count"]).reset_index()
    whole = sums[sums["count"] == (1 if (table["interval_s"] == HOUR_S).all() else 2)]
    return frame(
        interval(time.to_pydatetime(), kind, name, wh, HOUR_S)
        for time, kind, name, wh in zip(whole["time"], whole["kind"], whole["name"], whole["sum"], strict=True)
    )


def energy_lp(day: DeviceDay) -> list[str]:
    """Return the line protocol that would be written, in nanoseconds, of whole hours."""
    return [
        line for row in energy_lines(whole_hours(day), lambda circuit, _: day.names.get(circuit)) for line in row
    ]


def energy_table(day: date, energy: DeviceDay) -> None:
    """Print the totals of each hour or half hour of a day, and a line for each circuit."""
    length = "half hours" if (energy.table["interval_s"] < HOUR_S).all() else "hours"
    totals: dict[str, dict[str, float]] = {}
    circuits: dict[str, list[tuple[float, str]]] = {}
    for time, _, name, circuit_id, wh in _intervals(energy):
        at = f"{time.tz_convert(TOKYO):%H:%M}"
        if circuit_id is None:
            totals.setdefault(name, {})[at] = wh
        else:
            circuits.setdefault(f"{name} ({circuit_id})", []).append((wh, at))
    source = "SD card" if energy.source == "sd" else "graph pages"
    shown = Table(Column("from"), title=f"{day}, kWh ({source}, {length})", show_footer=True)
    for name, by_time in totals.items():
        shown.add_column(name, _kwh(sum(by_time.values())), justify="right")
    for at in sorted({at for by_time in totals.values() for at in by_time}):
        shown.add_row(at, *(_kwh(by_time[at]) if at in by_time else "" for by_time in totals.values()))
    shown.columns[0].footer = "sum"
    Console().print(shown)
    if circuits:
        shown = Table(Column("circuit"), title=f"{day}, kWh of each circuit")
        for name in ("sum", "largest", "at"):
            shown.add_column(name, justify="right")
        for name, values in circuits.items():
            largest_wh, at = max(values)
            # As Text: a bracket in one of the device's names is not markup.
            shown.add_row(
                Text(name), _kwh(sum(wh for wh, _ in values)), _kwh(largest_wh), at if largest_wh else ""
            )
        Console().print(shown)


def _kwh(wh: float) -> str:
    return f"{wh / 1000:.2f}"


def gaps_json(found: Gaps) -> list[dict[str, Any]]:
    """Return a row for each hour with missing or removed minutes."""
    fillable = set(found.fillable)
    return [
        {
            "hour": hour.start.astimezone(TOKYO).isoformat(),
            "live": hour.live,
            "filled": hour.filled,
            "missing": hour.missing,
            "removed": hour.removed,
            "fillable": hour in fillable,
        }
        for hour in sorted({*found.fillable, *found.hopeless, *found.removed}, key=lambda hour: hour.start)
    ]


def gaps_table(found: Gaps, *, began: bool) -> None:
    """Print the gaps as ranges of hours, and the number of requests that filling them takes; `began`: there is a reading."""
    if not began and not found.fillable:
        Console().print("There is no reading yet: run the pipeline for a minute first.")
        return
    if not found.fillable and not found.hopeless and not found.removed:
        Console().print("No minute is missing.")
        return
    shown = Table()
    for column in ("from", "to", "minutes", "the AiSEG2"):
        shown.add_column(column)
    states = (
        (found.fillable, "may have it"),
        (found.hopeless, "had nothing; requested again after a day"),
        (found.removed, "is not asked: they were removed"),
    )
    for hours, state in states:
        for run in _contiguous(hours):
            first, end = run[0].start.astimezone(TOKYO), (run[-1].start + HOUR).astimezone(TOKYO)
            missing = sum(hour.removed if hours is found.removed else hour.missing for hour in run)
            shown.add_row(f"{first:%Y-%m-%d %H:%M}", f"{end:%Y-%m-%d %H:%M}", str(missing), state)
    Console().print(shown)
    needed = f"at most {found.requests} requests (5 with an SD card)" if found.requests else "no request"
    Console().print(f"Filling takes {needed}.")
    if found.oldest_energy is not None:
        oldest = found.oldest_energy.astimezone(TOKYO)
        Console().print(f"The oldest energy from the AiSEG2 is of {oldest:%Y-%m-%d}.")


def fill_progress(days: Iterable[FilledDay], found: Gaps) -> None:
    """Show the progress of a fill, and print the result and the problems of each day."""
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("filling", total=len(found.fillable))
        for day in days:
            missing = sum(hour.missing for hour in day.hours)
            progress.console.print(f"{day.day}: {day.filled_minutes} minutes filled, {missing} still missing")
            for problem in day.problems:
                progress.console.print(Text(problem))
            progress.advance(task, len(day.hours))


def checks(lines: Iterable[Line], say: Callable[[str], None]) -> bool:
    """Pass the lines of `doctor`, coloured, and a last one that sums them up to `say`; return whether none failed."""
    marks: Counter[str] = Counter()
    failed: dict[str, None] = {}
    for mark, subject, finding in lines:
        say(f"{click.style(mark, fg=COLOURS[mark])} {subject}: {finding}")
        marks[mark] += 1
        if mark == FAILED:
            failed[subject] = None
    made = marks[OK] + marks[FAILED]
    hints = f" Hints (--): {marks[HINT]}." if marks[HINT] else ""
    if failed:
        summary = click.style(
            f"{marks[FAILED]} of {made} checks failed: {', '.join(failed)}.", fg="red", bold=True
        )
    else:
        summary = click.style(f"All {made} checks passed.", fg="green", bold=True)
    say(f"{summary}{hints}")
    return not failed


def japan_time(moment: datetime) -> str:
    """Return a time as a person reads it."""
    return f"{moment.astimezone(TOKYO):%Y-%m-%d %H:%M:%S}"


def _contiguous(hours: Iterable[Hour]) -> Iterator[list[Hour]]:
    """Yield the runs of hours that follow each other."""
    for _, run in groupby(enumerate(hours), lambda item: item[1].start - item[0] * HOUR):
        yield [hour for _, hour in run]


def _intervals(day: DeviceDay) -> Iterator[tuple[pd.Timestamp, int, str, str | None, float]]:
    """Yield time, interval (s), name, circuit id and Wh of each row; a total has no circuit id."""
    columns = (day.table[column] for column in ("time", "interval_s", "kind", "name", "value"))
    for time, interval_s, kind, name, wh in zip(*columns, strict=True):
        if kind.removesuffix(HALF) == USAGE:
            yield time, int(interval_s), day.names.get(name, name), name, wh
        else:
            yield time, int(interval_s), name, None, wh
