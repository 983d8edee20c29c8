"""Sun, clouds and temperature in Tokyo, step by step."""

import numpy as np

from aiseg2_pipeline.simulator.chance import BoolArray, FloatArray, IntArray, uniform, wave

STEP_S = 10
DAY_S = 86_400
JAPAN_S = 9 * 3600  # Japan time is UTC+9 all year

_LATITUDE = np.radians(35.68)
_LONGITUDE_H = 139.69 / 15
_TILT_OF_THE_EARTH = np.radians(23.44)
_YEAR_D = 365.2422
_MARCH_EQUINOX_D = 79.0  # days after 1 January 1970
_COLDEST_D = 28.0
_RAINY_BELOW = 0.25


class Weather:
    """The weather at each of the steps (10 s each, counted from 1970 UTC)."""

    def __init__(self, seed: int, steps: IntArray) -> None:
        """Compute the weather; the arrays have the shape of `steps`."""
        seconds = (steps * STEP_S).astype(np.float64)
        days = seconds / DAY_S
        local_days = (seconds + JAPAN_S) / DAY_S

        declination = _TILT_OF_THE_EARTH * np.sin(2 * np.pi * (days - _MARCH_EQUINOX_D) / _YEAR_D)
        hour_angle = 2 * np.pi * (days % 1 + (_LONGITUDE_H - 12) / 24)
        height = np.sin(_LATITUDE) * np.sin(declination)
        height += np.cos(_LATITUDE) * np.cos(declination) * np.cos(hour_angle)
        self.sun_height: FloatArray = np.maximum(height, 0.0)  # sine of the sun's angle over the horizon
        self.is_dark: BoolArray = self.sun_height < 0.08

        # The wave's whole positions are noons, so that a day's weather agrees with `is_rainy_day`.
        fine = wave(seed, "weather", local_days - 0.5)
        clear_sky = np.clip(0.12 + 1.3 * fine, 0.12, 1.0)
        broken = 4 * clear_sky * (1 - clear_sky)  # neither a blue nor a grey sky has passing clouds
        passing = wave(seed, "clouds", seconds / 150) * wave(seed, "banks of clouds", seconds / 1500)
        self.sunshine: FloatArray = self.sun_height * clear_sky * (1 - 0.75 * broken * passing)

        season = -10.5 * np.cos(2 * np.pi * (days - _COLDEST_D) / _YEAR_D)
        day_and_night = -3.5 * np.cos(2 * np.pi * (local_days - 3 / 24))
        spell = 8 * (wave(seed, "warm and cold spells", local_days / 2) - 0.5)
        self.temperature_c: FloatArray = 16.0 + season + day_and_night + spell


def is_rainy_day(seed: int, local_day: IntArray) -> BoolArray:
    """Return for each day (in Japan, counted from 1970) whether it is rainy."""
    return uniform(seed, "weather", local_day) < _RAINY_BELOW
