"""How readings look on a terminal and as JSON. Japan time, the device's own names, no I/O but printing."""

from typing import Any
from zoneinfo import ZoneInfo

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from aiseg2_pipeline.aiseg2.models import LiveReading

TOKYO = ZoneInfo("Asia/Tokyo")


def rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the frame's rows as JSON values, times as ISO 8601 in Japan time."""
    shown = table.assign(time=[time.isoformat() for time in table["time"].dt.tz_convert(TOKYO)])
    return [{str(column): value for column, value in row.items()} for row in shown.to_dict("records")]


def reading(taken: LiveReading, table: pd.DataFrame) -> None:
    """Print one live reading."""
    when = taken.answered_at.astimezone(TOKYO)
    # The title is ours, the names are the device's: as Text, so that no bracket in them is markup.
    shown = Table(title=f"{when:%Y-%m-%d %H:%M:%S} ({taken.requests} requests, {taken.elapsed_s:.2f} s)")
    for column, justify in (("kind", "left"), ("name", "left"), ("value", "right"), ("unit", "left")):
        shown.add_column(column, justify="right" if justify == "right" else "left")
    for kind, name, value, unit in zip(table["kind"], table["name"], table["value"], table["unit"], strict=True):
        shown.add_row(Text(kind), Text(name), Text(f"{value:g}"), Text(unit))
    Console().print(shown)
