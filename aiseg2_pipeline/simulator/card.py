"""The device's SD card: the zip of CSV files that the settings page exports.

Columns, labels, `-`, BOM and the lack of quotes are those of a real card, which also has files of years. All rows are of
ended intervals, and all files cover the same days, up to today. Every file, however old its day, has the circuits'
current names in its header. The energy belongs in `meter`, the circuits in `household`.
"""

import io
import math
import zipfile
from calendar import monthrange
from collections.abc import Mapping
from datetime import datetime, timedelta

import numpy as np

from aiseg2_pipeline.simulator.appliances import CIRCUITS
from aiseg2_pipeline.simulator.chance import FloatArray
from aiseg2_pipeline.simulator.meter import Meter

CARD_D = 60

Rows = list[tuple[str, FloatArray]]  # label (start of the interval) and values by column

_FIRST_TITLES = (
    "計測日時",
    "太陽光発電(創蓄パワコン)",
    "蓄電池充電",
    "蓄電池放電",
    "主幹買電",
    "主幹売電",
    "太陽光発電(PV1)",
    "太陽光発電(PV2)",
    "HP消費電力量",
    "燃料電池発電電力量",
    "EV充電電力量",
    "EV放電電力量",
)
_LAST_TITLES = (
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
_NO_COST = {"お湯使用量", "燃料電池お湯使用量", "補助熱源お湯使用量", "燃料電池排熱回収量"}
_PLACES = 51
_FIRST_CIRCUIT = len(_FIRST_TITLES)  # a circuit's column is its id + 12
_COLUMNS = _FIRST_CIRCUIT + _PLACES + len(_LAST_TITLES)
_BOUGHT, _SOLD, _PV1, _HEAT_PUMP, _CAR = 4, 5, 6, 8, 10
_CONSUMPTION = _FIRST_CIRCUIT + _PLACES
_HOT_WATER = _CONSUMPTION + 3
_WITH_COST = [
    column
    for column in range(_COLUMNS)
    if column < _CONSUMPTION or _LAST_TITLES[column - _CONSUMPTION] not in _NO_COST
]
_CIRCUIT_COLUMNS = [circuit.circuit_id + _FIRST_CIRCUIT for circuit in CIRCUITS]

# In yen per kWh, which is thousandths of a yen per Wh.
_BUYS_AT_YEN = 31  # for generation and consumption as well
_SELLS_AT_YEN = 16

_NOTHING: FloatArray = np.full(_COLUMNS, np.nan)
_NO_QUOTES = str.maketrans(",\r\n", "   ")  # the format cannot contain these
_SETTINGS = "[system]\nlanguage=ja\n"


class Card:
    """The last days of a meter in the card's format; the zip is cached until a half hour ends or a name changes."""

    def __init__(self, meter: Meter, *, card_days: int = CARD_D) -> None:
        """Keep today and the `card_days` - 1 days before it."""
        self._meter = meter
        self._days = card_days
        self._cached: tuple[tuple[datetime, dict[int, str]], bytes] | None = None

    def export(self, now: datetime, names: Mapping[int, str]) -> bytes:
        """Return the zip at `now` (the device's clock in Japan time); `names` are the registered circuits', by id."""
        half_hour = now.replace(minute=now.minute // 30 * 30, second=0, microsecond=0)
        key = (half_hour, dict(names))
        if self._cached is None or self._cached[0] != key:
            self._cached = key, self._zip(half_hour, names)
        return self._cached[1]

    def _zip(self, now: datetime, names: Mapping[int, str]) -> bytes:
        days = [now.date() - timedelta(days=back) for back in reversed(range(self._days))]
        halves = np.stack([_columns(self._meter.half_hours(day, now)) for day in days])
        titles = [*_FIRST_TITLES, *_circuit_titles(names), *_LAST_TITLES]
        cost_titles = [titles[index] for index in _WITH_COST]
        yen = np.full(_COLUMNS, _BUYS_AT_YEN)
        yen[_SOLD] = _SELLS_AT_YEN

        content = io.BytesIO()
        with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:

            def add(name: str, text: str) -> None:
                archive.writestr(zipfile.ZipInfo(name, now.timetuple()[:6]), text.encode(), zipfile.ZIP_DEFLATED)

            add("setting.ini", _SETTINGS)
            for day, day_halves in zip(days, halves, strict=True):
                hours = _added_up(day_halves.reshape(24, 2, _COLUMNS), axis=1)
                if day == days[-1]:
                    hours[now.hour :] = np.nan  # the current one may have its first half
                half_rows = [
                    (f"{day:%Y%m%d}{i // 2:02}{i % 2 * 30:02}+0900", row) for i, row in enumerate(day_halves)
                ]
                hour_rows = [(f"{day:%Y%m%d}{i:02}+0900", row) for i, row in enumerate(hours)]
                add(f"30minhistory_rc_{day:%Y%m%d}.csv", _csv(titles, half_rows))
                add(f"hourhistory_rc_{day:%Y%m%d}.csv", _csv(titles, hour_rows))
            daily = {f"{day:%Y%m%d}": row for day, row in zip(days, _added_up(halves, axis=1), strict=True)}
            for (period, rest), rows in _long_files(daily, f"{now:%Y%m%d}").items():
                costs = [(label, (row * yen)[_WITH_COST]) for label, row in rows]
                add(f"{period}history_{rest}.csv", _csv(titles, rows))
                add(f"{period}cost_{rest}.csv", _csv(cost_titles, costs))
        return content.getvalue()


def _long_files(daily: Mapping[str, FloatArray], today: str) -> dict[tuple[str, str], Rows]:
    """Return the rows of the day and month files, by the beginning and end of the files' names."""
    ended = {day: row for day, row in daily.items() if day < today}
    months = sorted({day[:6] for day in daily})
    monthly = {
        month: _added_up(np.stack([row for day, row in daily.items() if day.startswith(month)]), axis=0)
        for month in months
        if month < today[:6]
    }

    files: dict[tuple[str, str], Rows] = {}
    for month in months:
        _, length = monthrange(int(month[:4]), int(month[4:]))
        labels = [f"{month}{day:02}" for day in range(1, length + 1)]
        files["day", f"rc_{month}"] = [(label, ended.get(label, _NOTHING)) for label in labels]
    for year in sorted({month[:4] for month in months}):
        labels = [f"{year}{month:02}" for month in range(1, 13)]
        files["month", f"rc_{year}"] = [(label, monthly.get(label, _NOTHING)) for label in labels]
    return files


def _columns(half_hours: FloatArray) -> FloatArray:
    """Return the meter's half hours (48, 36) as the card's columns (48, 72); the first is for the label."""
    own, bought, sold, hot_water, *circuits = half_hours.T
    columns = np.full((len(half_hours), _COLUMNS), np.nan)
    columns[:, _BOUGHT] = bought
    columns[:, _SOLD] = sold
    columns[:, _PV1] = own + sold
    columns[:, _CONSUMPTION] = own + bought
    columns[:, _HOT_WATER] = hot_water
    columns[:, [_HEAT_PUMP, _CAR]] = np.where(np.isnan(own), np.nan, 0)[:, None]  # not connected to the device
    columns[:, _CIRCUIT_COLUMNS] = np.stack(circuits, axis=1)
    return columns


def _added_up(wh: FloatArray, axis: int) -> FloatArray:
    """Return sums that ignore NaN; NaN where all values are NaN."""
    return np.where(np.isnan(wh).all(axis=axis), np.nan, np.nansum(wh, axis=axis))


def _circuit_titles(names: Mapping[int, str]) -> list[str]:
    """Return the titles of all places: a name's parts are in reverse order, free places are numbered."""
    titles = []
    free_places = 0
    for place in range(_PLACES):
        if place not in names:
            free_places += 1
            titles.append(f"無効{free_places}")
        elif names[place] == "-":
            titles.append("未使用")
        else:
            titles.append("・".join(reversed(names[place].split("・"))).translate(_NO_QUOTES))
    return titles


def _csv(titles: list[str], rows: Rows) -> str:
    """Return a file with BOM; the first column is the label."""
    lines = [",".join(titles)]
    for label, row in rows:
        numbers = ("-" if math.isnan(value) else str(int(value)) for value in row[1:].tolist())
        lines.append(",".join([label, *numbers]))
    return "\ufeff" + "\n".join(lines) + "\n"
