"""Which circuit pages are requested, and that a reading is complete: no circuit twice, none missing."""

import itertools
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from aiseg2_pipeline.aiseg2 import live_circuits
from aiseg2_pipeline.aiseg2.errors import Unreadable
from aiseg2_pipeline.aiseg2.live_circuits import Memory
from aiseg2_pipeline.aiseg2.models import Circuit, CircuitList, CircuitPage, CircuitPower
from aiseg2_pipeline.aiseg2.transport import Deadline

NOW = datetime(2026, 7, 13, 23, 15, 50, tzinfo=UTC)
NAMES = ["ＬＤ", "ＩＨ", "電子レンジ", "-", "洋室１・エアコン", "R&D"]

Watts = Sequence[float | None]


@dataclass
class Home:
    """A device with the circuits `names`; `states` holds their watts at each page request.

    Page 734 lists `listed_names` if they are given; page 1113 shows `names` without `・`.

    Pages are sorted by watts at every request, blanks last; `dash_sorts_as_w` is where a `-` stands among them.
    """

    names: Sequence[str]
    states: Sequence[Watts]
    dash_sorts_as_w: float = -1.0
    listed_names: Sequence[str] | None = None
    requested: list[int] = field(default_factory=list)
    listed: int = 0

    def circuit_list(self, deadline: Deadline) -> CircuitList:
        assert deadline.left_s() > 0
        self.listed += 1
        names = self.names if self.listed_names is None else self.listed_names
        return CircuitList(tuple(Circuit(str(n), name) for n, name in enumerate(names, 8)), None)

    def circuit_page(self, page: int, deadline: Deadline) -> CircuitPage:
        assert deadline.left_s() > 0
        watts = self.states[min(len(self.requested), len(self.states) - 1)]
        self.requested.append(page)
        chunks = self.chunks(watts)
        if not chunks:
            raise Unreadable("no circuits")
        page = min(page, len(chunks))
        rows = chunks[page - 1]
        blank = any(row.power_w == 0 for row in rows)
        return CircuitPage(rows, has_blank=blank, is_last=page == len(chunks), device_time=None)

    def chunks(self, watts: Watts) -> list[tuple[CircuitPower, ...]]:
        rows = [
            CircuitPower(name.replace("・", ""), power_w) for name, power_w in zip(self.names, watts, strict=True)
        ]
        rows.sort(key=lambda row: self.dash_sorts_as_w if row.power_w is None else row.power_w, reverse=True)
        return [tuple(rows[n : n + 10]) for n in range(0, len(rows), 10)]

    @property
    def requests(self) -> int:
        return self.listed + len(self.requested)

    def reset(self) -> None:
        self.requested.clear()
        self.listed = 0


def read(home: Home, memory: Memory, now: datetime = NOW) -> tuple[CircuitPower, ...]:
    return live_circuits.read(home, memory, now, Deadline(20))


def still(names: Sequence[str], watts: Watts) -> Home:
    return Home(names, [watts])


def crossings(chunks: Sequence[tuple[CircuitPower, ...]]) -> bool:
    """Return whether equal circuits that are on are on both sides of a page boundary."""
    return any(bool(a[-1].power_w) and a[-1] == b[0] for a, b in itertools.pairwise(chunks))


names_strategy = st.lists(
    st.one_of(st.sampled_from(NAMES), st.integers(0, 60).map(lambda n: f"回路{n}")), min_size=0, max_size=45
)
watts_w = st.one_of(st.just(0.0), st.integers(1, 60).map(float))


@st.composite
def still_homes(draw: st.DrawFn) -> Home:
    names = draw(names_strategy)
    on = draw(st.integers(0, len(names)))
    some = st.one_of(watts_w, st.none()) if draw(st.booleans()) else watts_w
    watts = [draw(some) for _ in range(on)] + [0.0] * (len(names) - on)
    return Home(names, [watts], draw(st.sampled_from([-1.0, 30.5, 1e6])))


@settings(max_examples=400, deadline=None)
@given(still_homes())
def test_the_reading_is_the_home_cold_and_warm_at_the_cost_that_it_may_have(home: Home) -> None:
    (watts,) = home.states
    chunks = home.chunks(watts)
    truth = Counter(row for chunk in chunks for row in chunk)
    # Without circuits one page is requested, because an empty page 734 may be wrong.
    full_read = max(1, len(chunks)) * (2 if crossings(chunks) else 1)
    on = sum(1 for power_w in watts if power_w != 0)
    memory = Memory()

    assert Counter(read(home, memory)) == truth
    assert home.requests == 1 + full_read
    assert home.listed == 1

    home.reset()
    assert Counter(read(home, memory)) == truth
    one_page_is_enough = None not in watts and (on < 10 or len(watts) <= 10)
    assert home.requests == (min(1, len(chunks)) if one_page_is_enough else full_read)

    home.reset()
    kept = Memory.from_state(json.loads(json.dumps(memory.to_state())))
    assert kept == memory
    assert Counter(read(home, kept)) == truth
    assert home.listed == 0


@st.composite
def moving_homes(draw: st.DrawFn) -> Home:
    """Return a home near the limits of its pages, of which a few circuits change between page requests."""
    names = draw(names_strategy)
    state: list[float | None] = [draw(watts_w) for _ in names]
    states: list[Watts] = [list(state)]
    changed_w = st.one_of(watts_w, st.none()) if draw(st.booleans()) else watts_w
    for _ in range(draw(st.integers(1, 12))):
        for _ in range(draw(st.integers(0, 3)) if names else 0):
            state[draw(st.integers(0, len(names) - 1))] = draw(changed_w)
        states.append(list(state))
    return Home(names, states, draw(st.sampled_from([-1.0, 30.5, 1e6])))


def assert_whole_and_true(home: Home, rows: Sequence[CircuitPower]) -> None:
    """Assert that each circuit is there once, with its watts at a moment of this reading."""
    registered = Counter(name.replace("・", "") for name in home.names)
    assert Counter(row.name for row in rows) == registered
    moments = [home.states[min(n, len(home.states) - 1)] for n in range(len(home.requested))]
    for row in rows:
        if registered[row.name] == 1:
            at = [name.replace("・", "") for name in home.names].index(row.name)
            assert row.power_w in [watts[at] for watts in moments]


def assert_refused_by_name(home: Home, error: Unreadable) -> None:
    assert any(repr(name.replace("・", "")) in str(error) for name in home.names)
    assert home.requested.count(1) == 3


@settings(max_examples=600, deadline=None)
@given(moving_homes(), st.booleans())
def test_a_home_that_changes_between_the_pages_is_read_whole_or_refused_by_name(home: Home, warm: bool) -> None:  # noqa: FBT001 - passed by name
    memory = Memory()
    if warm:
        # A `-` that appears after a full read without one is found by the next full read.
        assume(not any(None in watts for watts in home.states))
        read(still(home.names, home.states[0]), memory)
    try:
        rows = read(home, memory)
    except Unreadable as error:
        assert_refused_by_name(home, error)
    else:
        assert_whole_and_true(home, rows)
        assert home.requested.count(1) <= 3
    assert home.listed == 1 or (warm and home.listed == 0)


# Examples

TWENTY = [f"回路{n}" for n in range(20)]
ON = [float(100 - n) for n in range(20)]
QUIET = [60.0, *[0.0] * 19]


def swapped(*pairs: tuple[int, float]) -> list[float]:
    watts = list(ON)
    for n, power_w in pairs:
        watts[n] = power_w
    return watts


@pytest.mark.parametrize(
    "crossed",
    [swapped((15, 99.5)), swapped((3, 80.5)), swapped((9, 90.5), (10, 91.5))],
    ids=["one comes up", "one goes down", "two change places"],
)
def test_all_pages_are_read_again_when_a_circuit_crosses_a_boundary(
    crossed: list[float],
) -> None:
    home = Home(TWENTY, [ON, crossed])
    rows = read(home, Memory())
    assert Counter(rows) == Counter(row for chunk in home.chunks(crossed) for row in chunk)
    assert home.requested == [1, 2, 1, 2]


def test_one_of_two_circuits_of_one_name_that_crosses_is_not_counted_twice() -> None:
    names = [*TWENTY[:9], "ＩＨ", "ＩＨ", *TWENTY[9:12]]
    before = [*ON[:9], 50.0, 4.0, 3.0, 2.0, 1.0]
    # The one of 50 W slips to page 2, as the other one comes up to page 1 between the two requests.
    after = [*ON[:9], 50.0, 70.0, 3.0, 2.0, 1.0]
    home = Home(names, [before, after])
    powers_w = sorted(
        row.power_w for row in read(home, Memory()) if row.name == "ＩＨ" and row.power_w is not None
    )
    assert powers_w == [50, 70]


@pytest.mark.parametrize("dash_sorts_as_w", [1e6, 50.0, -1.0], ids=["first", "between", "last"])
def test_a_dash_seen_in_a_full_read_keeps_all_pages_being_read_until_one_shows_none(
    dash_sorts_as_w: float,
) -> None:
    memory = Memory()
    quiet = [60.0, None, *[0.0] * 18]
    home = Home(TWENTY, [quiet], dash_sorts_as_w)
    for _ in range(3):
        home.requested.clear()
        assert {row.name: row.power_w for row in read(home, memory)}["回路1"] is None
        assert home.requested == [1, 2]
    home = still(TWENTY, [60.0, *[0.0] * 19])
    read(home, memory)
    assert home.requested == [1, 2]
    read(home, memory)
    assert home.requested == [1, 2, 1]


@pytest.mark.parametrize(
    ("later", "requested", "listed"),
    [
        (timedelta(minutes=59, seconds=59), [1], 0),
        (timedelta(hours=1), [1, 2], 0),
        (timedelta(hours=23), [1, 2], 0),
        (timedelta(days=1), [1, 2], 1),
        (-timedelta(seconds=1), [1, 2], 1),
    ],
)
def test_all_pages_are_read_once_an_hour_and_the_list_once_a_day(
    later: timedelta, requested: list[int], listed: int
) -> None:
    memory = Memory()
    home = still(TWENTY, QUIET)
    read(home, memory)
    home.reset()
    assert len(read(home, memory, NOW + later)) == 20
    assert (home.requested, home.listed) == (requested, listed)


def test_the_list_is_requested_once_after_a_change_of_names_and_at_most_once_an_hour() -> None:
    memory = Memory()
    hour = timedelta(hours=1)
    read(still(TWENTY, QUIET), memory)
    home = still(["書斎", *TWENTY[1:]], QUIET)
    changed_again = still(["納戸", *TWENTY[1:]], QUIET)
    for at, shown, requested, listed in (
        # The new list confirms the new name, so one read is enough.
        (hour, home, [1, 2], 1),
        (hour + timedelta(minutes=1), changed_again, [1, 2, 1, 2], 0),
        (hour + timedelta(minutes=2), changed_again, [1], 0),
        (2 * hour, changed_again, [1, 2], 1),
        (3 * hour, changed_again, [1, 2], 0),
    ):
        shown.reset()
        assert CircuitPower(shown.names[0], 60) in read(shown, memory, NOW + at)
        assert (shown.requested, shown.listed) == (requested, listed)


# The names of page 734 and of page 1113, and the whole reads until they are accepted.
DIFFERENCES = {
    "a circuit that is never shown": ([*TWENTY, "納戸"], TWENTY, 2),
    "a circuit that is not listed": (TWENTY[:19], TWENTY, 2),
    "another name": (["洋室", *TWENTY[1:]], TWENTY, 2),
    "another spelling": (["洋室１ エアコン", *TWENTY[1:]], ["洋室１エアコン", *TWENTY[1:]], 1),
    # As if a circuit were always shown twice, because it crosses a page boundary.
    "the name of another circuit": (TWENTY, [TWENTY[1], *TWENTY[1:]], 3),
}


@pytest.mark.parametrize(("listed", "names", "reads"), DIFFERENCES.values(), ids=DIFFERENCES)
def test_no_minute_loses_its_circuits_where_the_list_differs_and_later_minutes_cost_no_more(
    listed: list[str], names: list[str], reads: int
) -> None:
    memory = Memory()
    home = Home(names, [QUIET], listed_names=listed)
    (watts,) = home.states
    requests = []
    for minute in range(24 * 60):
        home.requested.clear()
        rows = read(home, memory, NOW + timedelta(minutes=minute))
        assert Counter(rows) == Counter(map(CircuitPower, names, watts))
        memory = Memory.from_state(json.loads(json.dumps(memory.to_state())))
        requests.append(list(home.requested))
    assert home.listed == 1
    assert requests.pop(0) == [1, 2] * reads
    assert requests.count([1, 2]) == 23
    assert requests.count([1]) == len(requests) - 23


def test_a_list_that_cannot_be_read_costs_no_circuit_and_is_requested_again_after_an_hour() -> None:
    class Unlisted(Home):
        def circuit_list(self, deadline: Deadline) -> CircuitList:
            super().circuit_list(deadline)
            raise Unreadable("734")

    memory = Memory()
    home = Unlisted(TWENTY, [QUIET])
    for minute in range(60):
        assert len(read(home, memory, NOW + timedelta(minutes=minute))) == 20
    assert home.listed == 1
    read(home, memory, NOW + timedelta(hours=1))
    assert home.listed == 2
    assert memory.circuits is None


def test_endless_pages_are_not_followed() -> None:
    class Endless(Home):
        def circuit_page(self, page: int, deadline: Deadline) -> CircuitPage:
            return replace(super().circuit_page(page, deadline), is_last=False)

    home = Endless(TWENTY, [ON])
    with pytest.raises(Unreadable, match="no end after 10 pages"):
        read(home, Memory())
    assert home.requested == [*range(1, 11)]


def test_an_empty_list_is_refused_while_a_page_shows_a_circuit() -> None:
    memory = Memory()
    right = read(still(TWENTY, QUIET), memory)
    listed = memory.circuits
    home = Home(TWENTY, [QUIET], listed_names=[])
    assert Counter(read(home, memory, NOW + timedelta(days=1))) == Counter(right)
    assert home.listed == 1
    assert memory.circuits == listed


Rows = Sequence[CircuitPower]


@dataclass
class Changed(Home):
    """A home whose page 1 is changed, at the first `times` requests."""

    change: Callable[[Rows], Rows] = tuple
    times: int = 99

    def circuit_page(self, page: int, deadline: Deadline) -> CircuitPage:
        shown = super().circuit_page(page, deadline)
        is_changed = page == 1 and len(self.requested) <= self.times
        return replace(shown, rows=tuple(self.change(shown.rows))) if is_changed else shown


NEW_NAMES: dict[str, Callable[[Rows], Rows]] = {
    "'回路2' more often": lambda rows: [*rows[:3], rows[2], *rows[4:]],
    "'名無し' more often": lambda rows: [*rows[:9], replace(rows[9], name="名無し")],
}
CONTRADICTIONS: dict[str, Callable[[Rows], Rows]] = {
    "fewer than 10 circuits": lambda rows: rows[:9],
    "'回路0' out of the order": lambda rows: [rows[1], rows[0], *rows[2:]],
    "'回路9' out of the order": lambda rows: [*rows[:9], replace(rows[9], power_w=999.0)],
}


@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
@pytest.mark.parametrize("named", CONTRADICTIONS)
def test_pages_that_are_no_list_in_order_are_refused_by_name(named: str, warm: bool) -> None:  # noqa: FBT001 - pytest passes parameters by name
    memory = Memory()
    watts = [*ON[:10], *[0.0] * 10]
    if warm:
        read(still(TWENTY, watts), memory)
    home = Changed(TWENTY, [watts], change=CONTRADICTIONS[named])
    with pytest.raises(Unreadable, match=named):
        read(home, memory)
    assert (home.requested, home.listed) == ([1, 2] * 3, 0 if warm else 1)


@pytest.mark.parametrize("named", NEW_NAMES | CONTRADICTIONS)
def test_one_page_is_not_enough_where_it_contradicts_the_names_or_the_order(named: str) -> None:
    memory = Memory()
    right = read(still(TWENTY, QUIET), memory)
    home = Changed(TWENTY, [QUIET], change=(NEW_NAMES | CONTRADICTIONS)[named], times=1)
    assert Counter(read(home, memory)) == Counter(right)
    assert home.requested == [1, 2, 1, 2]


def test_one_page_is_not_enough_where_it_shows_a_dash() -> None:
    memory = Memory()
    read(still(TWENTY, QUIET), memory)
    # A `-` may be on either page.
    home = Home(TWENTY, [[60.0, None, *[0.0] * 18]], dash_sorts_as_w=50.0)
    read(home, memory)
    assert home.requested == [1, 2]


def test_a_circuit_that_is_off_keeps_page_1113_s_spelling() -> None:
    names = [*TWENTY, "洋室１・エアコン"]
    home = Changed(
        names, [[*QUIET, 0.0]], change=lambda rows: [replace(row, name=row.name + "　") for row in rows]
    )
    memory = Memory()
    cold = read(home, memory)
    assert Counter(read(home, memory)) == Counter(cold)


def test_a_page_that_cannot_be_read_leaves_the_list_in_memory() -> None:
    def fail(_: Rows) -> Rows:
        raise Unreadable("page 1")

    memory = Memory()
    with pytest.raises(Unreadable, match="page 1"):
        read(Changed(TWENTY, [ON], change=fail), memory)
    home = still(TWENTY, ON)
    read(home, memory)
    assert (home.requested, home.listed) == ([1, 2], 0)
