"""Builders of the SD card's files and of the zip that holds them."""

import zipfile
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from pathlib import Path

from aiseg2_pipeline.aiseg2.models import EnergyRow
from aiseg2_pipeline.aiseg2.sd_card import Export

DAY = date(2026, 4, 12)
LATER = datetime(2027, 6, 1, tzinfo=UTC)
HALVES = "30minhistory_rc_20260412.csv"
HOURS = "hourhistory_rc_20260412.csv"

_FIXED = (
    "計測日時,太陽光発電(創蓄パワコン),蓄電池充電,蓄電池放電,主幹買電,主幹売電,太陽光発電(PV1),太陽光発電(PV2),"
    "HP消費電力量,燃料電池発電電力量,EV充電電力量,EV放電電力量"
)
TAIL = (
    "使用電力量",
    "ガス使用量",
    "水使用量",
    "お湯使用量",
    "燃料電池ガス使用量",
    "補助熱源ガス使用量",
    "燃料電池お湯使用量",
    "補助熱源お湯使用量",
    "燃料電池排熱回収量",
)
COST_TAIL = [name for name in TAIL if "湯" not in name][:5]


def header(names: Mapping[int, str] | None = None, tail: Iterable[str] = TAIL) -> str:
    """Return a header; `names` are circuits by id."""
    return ",".join([_FIXED, *((names or {}).get(n, f"無効{n}") for n in range(51)), *tail])


def row(label: str, values: Mapping[int, int | str], width: int = 72) -> str:
    """Return a row; `values` are by column, all others are not measured."""
    return ",".join([label, *(str(values.get(column, "-")) for column in range(1, width))])


def csv(rows: Iterable[str], head: str | None = None) -> bytes:
    """Return a file of rows under a header."""
    return ("\ufeff" + "".join(line + "\n" for line in [head or header(), *rows])).encode()


def half_label(n: int) -> str:
    """Return the label of the n-th half hour of DAY."""
    return f"20260412{n // 2:02}{n % 2 * 30:02}+0900"


def halves(values: Mapping[int, int | str]) -> bytes:
    """Return DAY's file of half hours, all with the same values."""
    return csv(row(half_label(n), values) for n in range(48))


def zipped(path: Path, members: Mapping[str, bytes]) -> Path:
    """Write a zip of these members to `path`, and return `path`."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in members.items():
            archive.writestr(name, body)
    return path


def half_hours(path: Path, made_at: datetime = LATER) -> tuple[EnergyRow, ...]:
    """Read DAY's half hours from a zip."""
    with Export(path, made_at=made_at) as card:
        return card.half_hours(DAY)
