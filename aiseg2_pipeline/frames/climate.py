"""The climate frame: temperature and humidity of the rooms that have sensors.

It has the columns of the readings frame and the key (`time`, `kind`, `name`). No I/O here.

| kind | name | unit | interval_s |
|---|---|---|---|
| `temperature` | the room, as the device shows it | `℃` | 0 |
| `humidity` | as above | `%` | 0 |

`time` is when the device answered, to the second.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import count

import pandas as pd

from aiseg2_pipeline.aiseg2.models import Room
from aiseg2_pipeline.frames import readings
from aiseg2_pipeline.frames.readings import Row, Shape

TEMPERATURE, HUMIDITY = "temperature", "humidity"
CLIMATE = Shape("climate", (TEMPERATURE, HUMIDITY), (0,))


def frame(time: datetime, rooms: Sequence[Room]) -> pd.DataFrame:
    """Return the rooms' values at a time as a frame; a value that is None is omitted."""
    rows = []
    for name, room in zip(_distinct([room.name for room in rooms]), rooms, strict=True):
        for kind, value, unit in (
            (TEMPERATURE, room.temperature_c, "℃"),
            (HUMIDITY, room.humidity_percent, "%"),
        ):
            if value is not None:
                rows.append(Row(time.replace(microsecond=0), kind, name, value, unit, 0))
    return readings.frame(rows, CLIMATE)


def _distinct(names: Sequence[str]) -> Iterator[str]:
    """Yield the names, a second room of a name as `name (2)`, as the page has no id to distinguish them."""
    taken = set(names)
    seen: set[str] = set()
    for name in names:
        if name in seen:
            numbered = (f"{name} ({n})" for n in count(2))
            name = next(other for other in numbered if other not in taken)  # noqa: PLW2901 - it is the room's name from here on
            taken.add(name)
        seen.add(name)
        yield name
