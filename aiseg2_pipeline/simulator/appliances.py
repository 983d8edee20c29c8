"""The appliances on each of the 32 circuits and their power, and the household's hot water.

Ids, names and duplicate names are those of a real device. Most circuits take exactly 0 W most of the time: fewer than
ten are on at night, more than ten in the evening, because programs have to handle both.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from aiseg2_pipeline.simulator.chance import BoolArray, FloatArray, IntArray, uniform, wave
from aiseg2_pipeline.simulator.weather import DAY_S, JAPAN_S, STEP_S, Weather, is_rainy_day


class _Days:
    """The steps as hours of days that begin at `begins_h` (Japan time); hours continue past 24 until then."""

    def __init__(self, steps: IntArray, begins_h: int) -> None:
        since = steps * STEP_S + JAPAN_S - begins_h * 3600
        self.hour: FloatArray = since % DAY_S / 3600 + begins_h
        self.numbers, self.of_step = np.unique(since // DAY_S, return_inverse=True)
        self.is_weekend: BoolArray = (self.numbers + 3) % 7 >= 5  # day 0 was a Thursday


class Moments:
    """The weather, time of day and random events of steps. All methods return one value for each step."""

    def __init__(self, seed: int, steps: IntArray) -> None:
        """Describe these steps (10 s each, counted from 1970 UTC, in any order)."""
        self.seed = seed
        self.seconds: IntArray = steps * STEP_S
        self.weather = Weather(seed, steps)
        self.days = _Days(steps, begins_h=4)
        self.nights = _Days(steps, begins_h=12)
        self.is_rainy: BoolArray = is_rainy_day(seed, self.days.numbers)

    def once(
        self,
        what: str,
        at_h: float,
        lasts_h: float,
        *,
        give_or_take_h: float = 0.4,
        chance: float | FloatArray = 1.0,
        at_night: bool = False,
    ) -> BoolArray:
        """Return when `what` is on: once a day with a probability of `chance` (one value, or one a day), at about `at_h`.

        It lasts between 0.75 and 1.25 times `lasts_h`. With `at_night`, days begin at noon.
        """
        days = self.nights if at_night else self.days
        start = at_h + give_or_take_h * (2 * uniform(self.seed, what + " starts", days.numbers) - 1)
        end = start + lasts_h * (0.75 + 0.5 * uniform(self.seed, what + " lasts", days.numbers))
        end = np.where(uniform(self.seed, what + " happens", days.numbers) < chance, end, start)
        on: BoolArray = (days.hour >= start[days.of_step]) & (days.hour < end[days.of_step])
        return on

    def blocks(self, what: str, every_s: int) -> FloatArray:
        """Return numbers in [0, 1) that change abruptly every `every_s` seconds."""
        return uniform(self.seed, what, self.seconds // every_s)

    def drift(self, what: str, every_s: int) -> FloatArray:
        """Return numbers in [0, 1) that change continuously, from one to the next in `every_s` seconds."""
        return wave(self.seed, what, self.seconds / every_s)

    def on_weekends(self, chance: float, otherwise: float = 0.0) -> FloatArray:
        """Return each day's probability: `chance` at weekends, `otherwise` on other days."""
        return np.where(self.days.is_weekend, chance, otherwise)


def _fridge_and_pantry(at: Moments) -> FloatArray:
    cycle = at.seconds / 2700 + 0.3 * at.drift("fridge is opened", 7200)
    share = np.clip(0.3 + 0.012 * at.weather.temperature_c, 0.3, 0.7)
    compressor = np.where(
        cycle % 1 < share, 62 + 20 * uniform(at.seed, "fridge", np.floor(cycle).astype(np.int64)), 0
    )
    return 4 + compressor


def _kitchen(at: Moments) -> FloatArray:
    cooking = at.once("cooker hood", 18.3, 0.9)
    return 27 + 3 * at.blocks("kitchen", 60) + 45 * cooking


def _living_lights(at: Moments) -> FloatArray:
    evening = at.once("living room lights", 17.2, 5.8, give_or_take_h=0.2)
    morning = at.once("living room lights in the morning", 6.2, 1.8)
    return (95 + 25 * at.blocks("living room lights", 1800)) * ((evening | morning) & at.weather.is_dark)


def _television(at: Moments) -> FloatArray:
    on = at.once("television", 18.6, 3.6)
    on |= at.once("morning news", 6.6, 1.0, chance=0.8)
    on |= at.once("weekend television", 10.5, 3.0, chance=at.on_weekends(0.7))
    return (95 + 40 * at.blocks("television", 30)) * on


def _entrance(at: Moments) -> FloatArray:
    """Return the power of a light with a motion sensor."""
    people = at.once("coming home", 17.5, 4.0) | at.once("leaving", 7.0, 1.2)
    return 18.0 * (people & at.weather.is_dark & (at.blocks("someone at the door", 120) < 0.2))


def _garage(at: Moments) -> FloatArray:
    return 65.0 * (
        at.once("car leaves", 8.0, 0.06, chance=0.7) | at.once("car comes home", 18.0, 0.06, chance=0.7)
    )


def _toilet(at: Moments, what: str, keeps_warm_w: float) -> FloatArray:
    awake = (at.days.hour > 6) & (at.days.hour < 23.5)
    used = awake & (at.blocks(what, 120) < 0.035)
    return keeps_warm_w + 4 * at.blocks(what + " seat", 600) + 320 * used


def _bathroom(at: Moments) -> FloatArray:
    light = at.once("bathroom", 20.0, 2.2, give_or_take_h=0.25) | at.once("bathroom in the morning", 6.6, 0.8)
    dryer = at.once("hair dryer", 21.3, 0.13) | at.once("second hair dryer", 22.2, 0.13, chance=0.8)
    return 42.0 * light + 1080 * dryer


def _stairs(at: Moments) -> FloatArray:
    """Return the power of the network devices under the stairs and of a lamp."""
    return 44 + 4 * at.blocks("network", 60) + 13 * at.once("lamp on the stairs", 18.0, 5.0)


def _study(at: Moments) -> FloatArray:
    """Return the power of a computer that is always on, and of a desk on some days."""
    working = at.once("work at home", 9.0, 8.0, chance=at.on_weekends(0.1, otherwise=0.35))
    return 62 + 7 * at.blocks("study", 60) + (70 + 25 * at.blocks("desk", 300)) * working


def _child(at: Moments, what: str, from_h: float) -> FloatArray:
    return (52 + 22 * at.blocks(what, 600)) * at.once(what, from_h, 3.0)


def _microwave(at: Moments, what: str, dinner_h: float) -> FloatArray:
    on = at.once(what + " at breakfast", 6.9, 0.06, chance=0.7) | at.once(what + " at dinner", dinner_h, 0.12)
    on |= at.once(what + " at lunch", 12.2, 0.08, chance=at.on_weekends(0.8, otherwise=0.1))
    return (880 + 320 * at.blocks(what, 60)) * on


def _rice_cooker(at: Moments) -> FloatArray:
    heating = at.blocks("rice cooker heats", 40) < 0.55
    return (40.0 + 820 * heating) * at.once("rice cooker", 17.4, 0.75, chance=0.8)


def _dishwasher(at: Moments) -> FloatArray:
    heating = at.blocks("dishwasher heats", 360) < 0.45
    return (55.0 + 830 * heating) * at.once("dishwasher", 20.5, 1.0, chance=0.8)


def _washing_machine(at: Moments) -> FloatArray:
    washing = at.once("washing", 7.0, 0.9, chance=0.85)
    drying = at.once("tumble dryer", 8.6, 2.0, chance=np.where(at.is_rainy, 0.8, 0.1))
    return (60 + 330 * at.blocks("drum", 20)) * washing + (560 + 120 * at.blocks("tumble dryer", 120)) * drying


def _bathroom_dryer(at: Moments) -> FloatArray:
    on = at.once("bathroom dryer", 10.5, 2.5, chance=np.where(at.is_rainy, 0.6, 0.03))
    return (at.blocks("bathroom dryer heats", 300) < 0.8) * 1150.0 * on + 30 * on


def _air_conditioner(at: Moments, what: str, on: BoolArray, size: float) -> FloatArray:
    temperature = at.weather.temperature_c
    need = 75 * np.maximum(temperature - 25, 0) + 50 * np.maximum(14 - temperature, 0)
    return np.where(on & (need > 30), size * (110 + need) * (0.75 + 0.5 * at.drift(what, 240)), 0)


def _living_air_conditioner(at: Moments) -> FloatArray:
    on = at.once("living room is used", 17.0, 6.0) | at.once("living room in the morning", 6.2, 2.0)
    on |= at.once("living room at the weekend", 9.0, 8.0, chance=at.on_weekends(0.9, otherwise=0.15))
    return _air_conditioner(at, "living room air", on, size=1.3)


def _bedroom_air_conditioner(at: Moments) -> FloatArray:
    is_summer_night = at.weather.temperature_c > 22
    on = at.once("bedroom air conditioner", 22.0, 7.5, at_night=True) & is_summer_night
    return _air_conditioner(at, "bedroom air", on, size=0.6)


def _room_air_conditioner(at: Moments, what: str, at_h: float, lasts_h: float, chance: float) -> FloatArray:
    return _air_conditioner(at, what, at.once(what, at_h, lasts_h, chance=chance), size=0.6)


def _car(at: Moments, what: str, power_w: float, chance: float) -> FloatArray:
    charging = at.once(what, 23.6, 3.5, chance=chance, at_night=True)
    return (power_w + 20 * at.drift(what, 600)) * charging


def _water_heater(at: Moments) -> FloatArray:
    """Return the power of the heat pump (EcoCute): every night, more in the cold, sometimes in the evening."""
    on = at.once("water heater", 26.2, 3.6, at_night=True)
    on |= at.once("water heater in the evening", 21.6, 0.9, chance=0.25, at_night=True)
    return (860 + 14 * np.maximum(22 - at.weather.temperature_c, 0) + 10 * at.drift("water heater", 600)) * on


def hot_water_l_per_h(at: Moments) -> FloatArray:
    """Return the hot water use: a bath, showers, and the tap."""
    bath = at.once("bath is filled", 19.6, 0.3, chance=0.85)
    shower = at.once("shower", 20.6, 0.15) | at.once("second shower", 21.8, 0.15, chance=0.8)
    tap = (at.days.hour > 6) & (at.days.hour < 23.5) & (at.blocks("tap", 60) < 0.02)
    used: FloatArray = 600.0 * bath + 480.0 * shower + 240.0 * tap
    return used


def _hob(at: Moments, what: str, chance: float) -> FloatArray:
    on = at.once(what + " at dinner", 18.4, 0.5, give_or_take_h=0.3, chance=chance)
    on |= at.once(what + " at breakfast", 6.7, 0.15, chance=chance * 0.7)
    on |= at.once(what + " at lunch", 11.9, 0.3, chance=at.on_weekends(chance * 0.7))
    level = at.blocks(what, 40)
    return (200 + 1500 * level) * (on & (level > 0.25))


class Circuit(NamedTuple):
    """A circuit: page 734's `strId` and spelling, and its power in W, unrounded."""

    circuit_id: int
    name: str
    takes_w: Callable[[Moments], FloatArray]


CIRCUITS = (
    Circuit(8, "キッチン　パントリー", _fridge_and_pantry),
    Circuit(9, "キッチン", _kitchen),
    Circuit(10, "ＬＤ", _living_lights),
    Circuit(11, "ＬＤ", _television),
    Circuit(12, "玄関", _entrance),
    Circuit(13, "車庫", _garage),
    Circuit(14, "トイレ１", lambda at: _toilet(at, "toilet 1", 20)),
    Circuit(15, "UB　洗面所", _bathroom),
    Circuit(16, "階段", _stairs),
    Circuit(17, "トイレ２", lambda at: _toilet(at, "toilet 2", 16)),
    Circuit(18, "主寝室", lambda at: 48.0 * at.once("bedroom", 22.2, 1.0, at_night=True)),
    Circuit(19, "ウォークインクローゼット", lambda at: 5 + 1.4 * at.blocks("closet", 300)),
    Circuit(20, "洋室１", _study),
    Circuit(21, "洋室２", lambda at: _child(at, "room 2", 19.2)),
    Circuit(22, "洋室３", lambda at: _child(at, "room 3", 19.5)),
    Circuit(23, "電子レンジ", lambda at: _microwave(at, "microwave 1", 18.7)),
    Circuit(24, "電子レンジ", lambda at: _microwave(at, "microwave 2", 19.1)),
    Circuit(25, "電子レンジ", _rice_cooker),
    Circuit(26, "食洗機", _dishwasher),
    Circuit(27, "洗濯機", _washing_machine),
    Circuit(28, "浴室乾燥機", _bathroom_dryer),
    Circuit(29, "寝室　エアコン", _bedroom_air_conditioner),
    Circuit(30, "洋室１・エアコン", lambda at: _room_air_conditioner(at, "room 1 air", 9.2, 7.5, 0.3)),
    Circuit(31, "洋室２・エアコン", lambda at: _room_air_conditioner(at, "room 2 air", 19.4, 2.5, 0.6)),
    Circuit(32, "洋室３・エアコン", lambda at: _room_air_conditioner(at, "room 3 air", 20.0, 2.5, 0.5)),
    Circuit(33, "ＬＤＫ・エアコン", _living_air_conditioner),
    Circuit(34, "電気自動車１", lambda at: _car(at, "second car", 1500, 0.08)),
    Circuit(35, "エコキュート", _water_heater),
    Circuit(36, "ＩＨ", lambda at: _hob(at, "hob 1", 0.95)),
    Circuit(37, "-", lambda at: np.zeros(at.seconds.shape)),
    Circuit(38, "電気自動車", lambda at: _car(at, "car", 2900, 0.4)),
    Circuit(39, "ＩＨ", lambda at: _hob(at, "hob 2", 0.6)),
)
