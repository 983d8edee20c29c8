"""The types of the commands' parameters: a date or a time, and kinds of faults."""

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

import click

from aiseg2_pipeline.japan_time import TOKYO

if TYPE_CHECKING:
    from aiseg2_pipeline.simulator.faults import Fault


class Span(NamedTuple):
    """What a person means by a date or a time: from its start to its end (UTC)."""

    start: datetime
    end: datetime


class Moment(click.ParamType[Span]):
    """A date, or a date and time; Japan time unless it says otherwise."""

    name = "DATE[THH:MM[:SS]]"

    def convert(self, value: str | Span, param: click.Parameter | None, ctx: click.Context | None) -> Span:  # noqa: RET503 - fail() does not return
        """Return the span of the day, minute or second that is named."""
        if isinstance(value, Span):
            return value
        for form, length in (
            ("%Y-%m-%d", timedelta(days=1)),
            ("%Y-%m-%dT%H:%M", timedelta(minutes=1)),
            ("%Y-%m-%dT%H:%M%z", timedelta(minutes=1)),
            ("%Y-%m-%dT%H:%M:%S", timedelta(seconds=1)),
            ("%Y-%m-%dT%H:%M:%S%z", timedelta(seconds=1)),
        ):
            try:
                named = datetime.strptime(value, form)  # noqa: DTZ007 - the zone is given below where there is none
                start = (named if named.tzinfo else named.replace(tzinfo=TOKYO)).astimezone(UTC)
                return Span(start, start + length)
            except (ValueError, OverflowError):
                continue
        self.fail(f"{value!r} is no date and no time: write it like 2026-07-14 or 2026-07-14T08:15.", param, ctx)


class FaultKinds(click.ParamType["tuple[Fault, ...]"]):
    """Kinds of faults of the simulated device, with commas between them."""

    name = "KIND[,KIND...]"

    def convert(
        self, value: "str | tuple[Fault, ...]", param: click.Parameter | None, ctx: click.Context | None
    ) -> "tuple[Fault, ...]":
        """Return the kinds that are named."""
        from aiseg2_pipeline.simulator.faults import Fault

        if isinstance(value, tuple):
            return value
        names = [name.strip().lower() for name in value.split(",")]
        for name in names:
            if name not in set(Fault):
                self.fail(f"{name!r} is no kind of fault: choose of {', '.join(Fault)}.", param, ctx)
        return tuple(Fault(name) for name in names)


def check_order(first: Span | None, last: Span | None) -> None:
    """Refuse a range that ends before it begins."""
    if first and last and last.end <= first.start:
        raise click.UsageError("--to is earlier than --from: write the earlier one as --from.")
