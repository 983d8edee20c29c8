"""Faults of a flaky unit on a flaky LAN: which request meets which, from a seed and the request's number alone.

So a client that asks one thing after the other meets the same faults again with the same seed. No fault invents a
number: what is served is true, absent, unreadable, or an announced change (a graph page names its day). What a client
can tell:

- UNAUTHORIZED, NOT_FOUND, SERVER_ERROR, STALE_NONCE by the status, SLOW by its own patience, REBOOTED by the connection.
- CUT by counting: fewer bytes come than `Content-Length` says.
- TRUNCATED only by the answer's own end: no `</html>`, JSON and zip that cannot be parsed. A page can be whole in all
  that matters (only white space is missing), and a number that stands last can have lost its last digits.
- UNRELATED by the elements that are not there, or by the page's title. Not everywhere: the settings page in place of
  the card's zip is what a unit without a card answers, and any page in place of page 41 has no rooms.
- WRONG_DAY by the day that the page shows. RESORTED by the names of all pages together, as a multiset.
- CLOCK_OFF by comparing clocks. Only the clock is wrong: watts are those of the moment, and memory and card keep the
  true hours (a real unit would count such an hour's energy for another hour, which nobody could tell afterwards).
- DASHES by the `-`. Where a real unit sorts a circuit without a reading is not known; here it stays in its place, so
  that it is never beyond a page on which a reader may stop.

How a fault is done belongs in `door` (answers and connections) and in `pages` (what a page shows).
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import count
from typing import TypeVar

import numpy as np

from aiseg2_pipeline.simulator.chance import uniform

_T = TypeVar("_T")


class Fault(StrEnum):
    """What can go wrong; the values are what a person types and reads."""

    UNAUTHORIZED = "unauthorized"  # 401 although the login is right
    NOT_FOUND = "not-found"
    SERVER_ERROR = "server-error"  # 500, 502 or 503
    SLOW = "slow"  # the right answer, but late
    CUT = "cut"  # the connection is closed in the middle of the page
    TRUNCATED = "truncated"  # the page ends early, and its length says so
    UNRELATED = "unrelated"  # a 200 with another page: an error, a login, another one of the unit's
    WRONG_DAY = "wrong-day"  # a graph page of another day
    STALE_NONCE = "stale-nonce"  # the nonce is refused in the middle of the session
    RESORTED = "resorted"  # circuits change places between two pages: one is doubled, another missed
    REBOOTED = "rebooted"  # for a while nobody answers, then all nonces are forgotten
    CLOCK_OFF = "clock-off"  # for an hour, the clock is off by hours
    DASHES = "dashes"  # `-` instead of readings


ALL = tuple(Fault)
# Those that a request meets whatever it asks for, and of those, the ones that it meets without a login.
ON_ANY_PAGE = frozenset(ALL) - {Fault.WRONG_DAY, Fault.RESORTED, Fault.DASHES, Fault.CLOCK_OFF}
BEFORE_THE_LOGIN = ON_ANY_PAGE - {Fault.UNAUTHORIZED, Fault.STALE_NONCE, Fault.TRUNCATED}

_HOUR_S = 3600


@dataclass(frozen=True)
class Drawn:
    """A fault that a request meets, and the chance by which its details are decided."""

    kind: Fault
    faults: "Faults"
    number: int

    def share(self, subject: str) -> float:
        """Return a number in [0, 1), the same for the same request and subject."""
        return _chance(self.faults.seed, f"{self.kind}: {subject}", self.number)

    def one_of(self, choices: Sequence[_T]) -> _T:
        """Return one of the choices."""
        return choices[int(self.share("choice") * len(choices))]

    def some_of(self, choices: Sequence[_T]) -> list[_T]:
        """Return at least one of the choices, often several, now and then all."""
        is_all = self.share("all") < 0.2
        some = [choice for n, choice in enumerate(choices) if is_all or self.share(f"choice {n}") < 0.3]
        return some or [self.one_of(choices)]


@dataclass(frozen=True)
class Faults:
    """A fault in `rate` of all requests, of the `kinds` that fit the page; CLOCK_OFF in `rate` of all simulated hours.

    `slow_s` and `reboot_s` are seconds of our clock, however fast the simulated one runs. The clock is off by one hour
    to `clock_off_h` hours, to either side. ValueError: a rate that is none, a negative duration.
    """

    seed: int
    rate: float
    kinds: Collection[Fault] = ALL
    slow_s: float = 12.0
    reboot_s: float = 40.0
    clock_off_h: float = 12.0

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        if not 0 <= self.rate <= 1:
            raise ValueError(f"the rate of faults is from 0 (none) to 1 (every request), not {self.rate}")
        if self.slow_s < 0 or self.reboot_s < 0 or self.clock_off_h < 1:
            raise ValueError("slow_s and reboot_s are seconds from 0, clock_off_h is hours from 1")

    def drawn(self, number: int, fitting: Collection[Fault]) -> Drawn | None:
        """Return the fault that request `number` meets, one of those that fit it; mostly None."""
        kinds = [kind for kind in Fault if kind in self.kinds and kind in fitting]
        if not kinds or _chance(self.seed, "fault", number) >= self.rate:
            return None
        return Drawn(kinds[int(_chance(self.seed, "kind of fault", number) * len(kinds))], self, number)

    def clock_off(self, now: datetime) -> timedelta:
        """Return by how much the unit's clock is ahead (negative: behind) at an aware time; mostly nothing."""
        hour = int(now.timestamp()) // _HOUR_S
        if Fault.CLOCK_OFF not in self.kinds or _chance(self.seed, "clock", hour) >= self.rate:
            return timedelta()
        hours = 1 + (self.clock_off_h - 1) * _chance(self.seed, "clock is off by", hour)
        minutes = round(60 * hours)
        return timedelta(minutes=minutes if _chance(self.seed, "clock is ahead", hour) < 0.5 else -minutes)


class Switch:
    """The faults in force, which may be others at any time and from any thread; requests are counted from then on."""

    def __init__(self, faults: Faults | None = None) -> None:
        """Begin with these faults; None: none."""
        self.faults = faults

    @property
    def faults(self) -> Faults | None:
        """The faults in force."""
        return self._in_force[0]

    @faults.setter
    def faults(self, faults: Faults | None) -> None:
        # One assignment: whoever draws meanwhile draws from the one or the other.
        self._in_force: tuple[Faults | None, Iterator[int]] = faults, count()

    def draw(self, fitting: Collection[Fault]) -> Drawn | None:
        """Return the fault that the next request meets."""
        faults, numbers = self._in_force
        return faults.drawn(next(numbers), fitting) if faults else None

    def clock_off(self, now: datetime) -> timedelta:
        """Return by how much the unit's clock is ahead at an aware time."""
        return self.faults.clock_off(now) if self.faults else timedelta()


def _chance(seed: int, subject: str, number: int) -> float:
    return float(uniform(seed, subject, np.array([number]))[0])
