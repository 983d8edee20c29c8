"""What may go wrong between a writer and InfluxDB, one write at a time, drawn by a seed.

Hand an `InfluxFaults` to `InfluxServer.fault`. Each kind is what a real installation answers or does; what they do
to the pipeline, the tests say. Stopping the server itself is the server's matter (`stop`, `start`).
"""

import json
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

# A proxy in front of InfluxDB with a small limit.
TOO_LARGE_ABOVE_LINES = 20

KINDS = (
    "unavailable",  # 503
    "busy",  # 429 with Retry-After
    "unauthorized",  # 401
    "no_bucket",  # 404
    "too_large",  # 413 for all but small requests
    "refused",  # 422 because of one line, which is refused for good
    "slow",  # taken, but answered too late
    "silent",  # not taken, and the connection is cut after a long time
    "cut_before",  # the connection is cut before the write was taken
    "cut_after",  # the connection is cut after it
)


@dataclass(frozen=True)
class Fault:
    """What to answer instead; `take` hands a write to the server first, `cut` then breaks the connection.

    The answer, or the cut, comes after `delay_s`; no `status` is the server's own answer to what it took. `then` is
    called once the server has taken the write, before that.
    """

    status: int | None = 500
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    take: bool = False
    cut: bool = False
    delay_s: float = 0.0
    then: Callable[[], None] | None = None


@dataclass
class Exchange:
    """One request as the front saw it, and the status that was answered (0: the connection was cut)."""

    path: str
    params: Mapping[str, str]
    lines: list[str]
    status: int = 0


class InfluxFaults:
    """Draws a fault for a write with probability `rate`; it holds for that write and up to `lasts` - 1 following ones.

    `slow_s` must be longer than the writer waits. `tally` counts the answers by kind. `poisoned` are the lines that
    are refused for good, as after a type conflict: what the writer has to set aside. Same seed and same writes,
    same faults.
    """

    def __init__(
        self, seed: int, rate: float, kinds: Sequence[str] = KINDS, *, slow_s: float = 0.3, lasts: int = 3
    ) -> None:
        """Draw nothing yet."""
        if unknown := set(kinds) - set(KINDS):
            raise ValueError(f"there are no faults {sorted(unknown)}: choose from {', '.join(KINDS)}")
        self.rate = rate
        self.kinds = tuple(kinds)
        self.tally: Counter[str] = Counter()
        self.poisoned: set[str] = set()
        self._slow_s = slow_s
        self._lasts = lasts
        self._chance = random.Random(seed)  # noqa: S311 - a test's dice, to be thrown again
        self._kind = ""
        self._left = 0

    def stop(self) -> None:
        """Let everything be well from now on, what was refused for good included."""
        self.rate = 0.0
        self._left = 0
        self.poisoned.clear()

    def __call__(self, exchange: Exchange) -> Fault | None:
        """Return what becomes of this write; None: nothing."""
        if not self.poisoned.isdisjoint(exchange.lines):
            return self._refused()
        if self._left == 0 and self._chance.random() < self.rate:
            self._kind = self._chance.choice(self.kinds)
            self._left = self._chance.randint(1, self._lasts)
        if self._left == 0:
            return None
        self._left -= 1
        fault = self._fault(self._kind, exchange)
        if fault is not None:
            self.tally[self._kind] += 1
        return fault

    def _fault(self, kind: str, exchange: Exchange) -> Fault | None:
        if kind == "too_large" and len(exchange.lines) <= TOO_LARGE_ABOVE_LINES:
            return None
        if kind == "refused":
            self._left = 0
            self.poisoned.add(self._chance.choice(exchange.lines))
            return self._refused()
        return {
            "unavailable": _answer(503, "unavailable", "the server is starting"),
            "busy": _answer(429, "too many requests", "slow down", {"Retry-After": "1"}),
            "unauthorized": _answer(401, "unauthorized", "unauthorized access"),
            "no_bucket": _answer(404, "not found", f'bucket "{exchange.params["bucket"]}" not found'),
            "too_large": _answer(413, "request too large", "request body too large"),
            "slow": Fault(None, take=True, delay_s=self._slow_s),
            "silent": Fault(cut=True, delay_s=self._slow_s),
            "cut_before": Fault(cut=True),
            "cut_after": Fault(take=True, cut=True),
        }[kind]

    def _refused(self) -> Fault:
        reason = "failure writing points to database: partial write: field type conflict dropped=1"
        return _answer(422, "unprocessable entity", reason)


def _answer(status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> Fault:
    return Fault(status, headers or {}, json.dumps({"code": code, "message": message}).encode())
