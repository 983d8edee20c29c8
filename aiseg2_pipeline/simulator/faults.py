"""Faults of a flaky device on a flaky LAN: which request gets which, from a seed and the request's number alone.

So a client that sends its requests in sequence gets the same faults again with the same seed. No fault invents a
number: each response is correct, missing, unreadable, or says what changed (a graph page shows its day). How a client
can detect each:

- UNAUTHORIZED, NOT_FOUND, SERVER_ERROR, STALE_NONCE by the status, SLOW by a timeout, REBOOTED by the connection.
- CUT by fewer bytes than `Content-Length` declares.
- TRUNCATED only by the end of the body: no `</html>`, JSON and zip that cannot be parsed. A page can be complete in
  all that matters (only white space is missing), and a number at the end can have lost its last digits.
- UNRELATED by missing elements, or by the page's title. Not always: the settings page in place of the card's zip is
  also the response of a device without a card, and any page in place of page 41 has no rooms.
- WRONG_DAY by the day that the page shows. RESORTED by the names of all pages together, as a multiset.
- CLOCK_OFF by comparing clocks. Only the clock is wrong: watts are those of the moment, and history and card keep the
  true hours (a real device would count such an hour's energy for another hour, which cannot be detected afterwards).
- DASHES by the `-`. Where a real device sorts a circuit without a reading is not known; here it keeps its place, so
  that it is never after the page at which a client may stop.

Applying a fault belongs in `middleware` (responses and connections) and in `pages` (what a page shows).
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
    """The kinds of faults; the values are those of the option `--faults`."""

    UNAUTHORIZED = "unauthorized"  # 401 although the login is correct
    NOT_FOUND = "not-found"
    SERVER_ERROR = "server-error"  # 500, 502 or 503
    SLOW = "slow"  # the correct response, but late
    CUT = "cut"  # the connection is closed in the middle of the page
    TRUNCATED = "truncated"  # the page ends early, with a `Content-Length` to match
    UNRELATED = "unrelated"  # a 200 with another page: an error, a login, another one of the device's
    WRONG_DAY = "wrong-day"  # a graph page of another day
    STALE_NONCE = "stale-nonce"  # the nonce expires during the session
    RESORTED = "resorted"  # circuits swap places between two pages: one is duplicated, another missing
    REBOOTED = "rebooted"  # no response for a while, then all nonces are unknown
    CLOCK_OFF = "clock-off"  # for an hour, the clock is off by hours
    DASHES = "dashes"  # `-` instead of readings


ALL = tuple(Fault)
# Faults of any request, and those of them that need no login.
ON_ANY_PAGE = frozenset(ALL) - {Fault.WRONG_DAY, Fault.RESORTED, Fault.DASHES, Fault.CLOCK_OFF}
BEFORE_THE_LOGIN = ON_ANY_PAGE - {Fault.UNAUTHORIZED, Fault.STALE_NONCE, Fault.TRUNCATED}

_HOUR_S = 3600
_CLOCK_OFF_H = 12


@dataclass(frozen=True)
class InjectedFault:
    """The fault of one request, and the random choice of its details."""

    kind: Fault
    faults: "Faults"
    number: int

    def random(self, subject: str) -> float:
        """Return a number in [0, 1), the same for the same request and subject."""
        return _random(self.faults.seed, f"{self.kind}: {subject}", self.number)

    def choose(self, choices: Sequence[_T]) -> _T:
        """Return one of the choices."""
        return choices[int(self.random("choice") * len(choices))]

    def choose_some(self, choices: Sequence[_T]) -> list[_T]:
        """Return at least one of the choices, often several, sometimes all."""
        is_all = self.random("all") < 0.2
        some = [choice for n, choice in enumerate(choices) if is_all or self.random(f"choice {n}") < 0.3]
        return some or [self.choose(choices)]


@dataclass(frozen=True)
class Faults:
    """Inject faults into `rate` of all requests, and CLOCK_OFF into `rate` of all simulated hours.

    Each is one of the `kinds` that the page can show. `slow_s` and `reboot_s` are real seconds, however fast the
    simulated clock runs. The clock is off by one to twelve hours, ahead or behind. ValueError: a rate
    outside 0 to 1, a negative duration.
    """

    seed: int
    rate: float
    kinds: Collection[Fault] = ALL
    slow_s: float = 12.0
    reboot_s: float = 40.0

    def __post_init__(self) -> None:
        """Check the values."""
        if not 0 <= self.rate <= 1:
            raise ValueError(f"the rate of faults is {self.rate}: choose 0 (none) to 1 (every request)")
        if self.slow_s < 0 or self.reboot_s < 0:
            raise ValueError("slow_s and reboot_s must be at least 0")

    def draw(self, number: int, possible: Collection[Fault]) -> InjectedFault | None:
        """Return the fault of request `number`, one of the `possible` kinds; mostly None."""
        kinds = [kind for kind in Fault if kind in self.kinds and kind in possible]
        if not kinds or _random(self.seed, "fault", number) >= self.rate:
            return None
        return InjectedFault(kinds[int(_random(self.seed, "kind of fault", number) * len(kinds))], self, number)

    def clock_off(self, now: datetime) -> timedelta:
        """Return how far the device's clock is ahead (negative: behind) at an aware time; mostly 0."""
        hour = int(now.timestamp()) // _HOUR_S
        if Fault.CLOCK_OFF not in self.kinds or _random(self.seed, "clock", hour) >= self.rate:
            return timedelta()
        hours = 1 + (_CLOCK_OFF_H - 1) * _random(self.seed, "clock is off by", hour)
        minutes = round(60 * hours)
        return timedelta(minutes=minutes if _random(self.seed, "clock is ahead", hour) < 0.5 else -minutes)


class ActiveFaults:
    """The current faults; they may be replaced at any time, from any thread, which restarts the request numbers."""

    def __init__(self, faults: Faults | None = None) -> None:
        """Start with these faults; None: no faults."""
        self.faults = faults

    @property
    def faults(self) -> Faults | None:
        """The current faults."""
        return self._current[0]

    @faults.setter
    def faults(self, faults: Faults | None) -> None:
        # One assignment, so that another thread sees either the old or the new pair.
        self._current: tuple[Faults | None, Iterator[int]] = faults, count()

    def draw(self, possible: Collection[Fault]) -> InjectedFault | None:
        """Return the fault of the next request, if it gets one."""
        faults, numbers = self._current
        return faults.draw(next(numbers), possible) if faults else None

    def clock_off(self, now: datetime) -> timedelta:
        """Return how far the device's clock is ahead at an aware time."""
        return self.faults.clock_off(now) if self.faults else timedelta()


def _random(seed: int, subject: str, number: int) -> float:
    return float(uniform(seed, subject, np.array([number]))[0])
