"""Parameter types of the commands: a date or time, and kinds of faults."""

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

import click

from aiseg2_pipeline.japan_time import DAY, MINUTE, TOKYO

if TYPE_CHECKING:
    from aiseg2_pipeline.simulator.faults import Fault


FORMATS = {
    "%Y-%m-%d": DAY,
    "%Y-%m-%dT%H:%M": MINUTE,
    "%Y-%m-%dT%H:%M%z": MINUTE,
    "%Y-%m-%dT%H:%M:%S": timedelta(seconds=1),
    "%Y-%m-%dT%H:%M:%S%z": timedelta(seconds=1),
}

DAYS_AGO = {"today": 0, "yesterday": 1}


class Span(NamedTuple):
    """The interval that a date or a time names, in UTC; `end` is exclusive."""

    start: datetime
    end: datetime


class Moment(click.ParamType[Span]):
    """A date, or a date and time, or `today` or `yesterday`; Japan time unless it has an offset."""

    name = "DATE[THH:MM[:SS]]"

    def convert(self, value: str | Span, param: click.Parameter | None, ctx: click.Context | None) -> Span:  # noqa: RET503 - fail() does not return
        """Return the interval of the named day, minute or second."""
        if isinstance(value, Span):
            return value
        if value in DAYS_AGO:
            value = f"{datetime.now(TOKYO) - DAYS_AGO[value] * DAY:%Y-%m-%d}"
        for form, length in FORMATS.items():
            try:
                named = datetime.strptime(value, form)  # noqa: DTZ007 - the next line adds a missing zone
                start = (named if named.tzinfo else named.replace(tzinfo=TOKYO)).astimezone(UTC)
                return Span(start, start + length)
            except (ValueError, OverflowError):
                continue
        self.fail(
            f"{value!r} is not a date or a time: write it like 2026-07-14, 2026-07-14T08:15 or yesterday.",
            param,
            ctx,
        )


class FaultKinds(click.ParamType["tuple[Fault, ...]"]):
    """Kinds of faults of the simulated device, separated by commas."""

    name = "KIND[,KIND...]"

    def convert(
        self, value: "str | tuple[Fault, ...]", param: click.Parameter | None, ctx: click.Context | None
    ) -> "tuple[Fault, ...]":
        """Return the named kinds."""
        from aiseg2_pipeline.simulator.faults import Fault

        if isinstance(value, tuple):
            return value
        names = [name.strip().lower() for name in value.split(",")]
        for name in names:
            if name not in set(Fault):
                self.fail(f"{name!r} is not a kind of fault: choose from {', '.join(Fault)}.", param, ctx)
        return tuple(Fault(name) for name in names)


def check_order(first: Span | None, last: Span | None) -> None:
    """Raise a usage error for a range that ends before it starts."""
    if first and last and last.end <= first.start:
        raise click.UsageError("--to is earlier than --from: write the earlier one as --from.")
