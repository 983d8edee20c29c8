"""`doctor`'s findings on the rooms' sensors."""

from collections.abc import Callable, Iterator
from datetime import datetime

from aiseg2_pipeline.aiseg2.client import Aiseg2Client
from aiseg2_pipeline.aiseg2.errors import Aiseg2Error, NoData
from aiseg2_pipeline.aiseg2.models import Room
from aiseg2_pipeline.ingest.climate import Sensors, read_climate
from aiseg2_pipeline.settings import Settings


def findings(
    client: Aiseg2Client, settings: Settings, clock: Callable[[], datetime]
) -> Iterator[tuple[bool, str]]:
    """Yield sentences on the rooms' values, each with whether all is well; most homes have no sensors."""
    try:
        reading = read_climate(client, Sensors(settings.device_state_dir, settings.device_url), clock)
    except NoData as error:
        yield True, str(error)
    except Aiseg2Error as error:
        yield False, f"unknown, and not needed for other readings. {error}"
    else:
        yield True, ", ".join(map(_shown, reading.rooms))
        for problem in reading.problems:
            yield False, problem


def _shown(room: Room) -> str:
    values = ((room.temperature_c, "℃"), (room.humidity_percent, "%"))
    return " ".join([room.name, *(f"{value:g} {unit}" for value, unit in values if value is not None)])
