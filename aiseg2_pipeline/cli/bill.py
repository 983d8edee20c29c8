"""The commands on cost: `bill` of a month, and `tariff check`. Prices and bills belong in `tariff`."""

import csv
import json
import sys
from datetime import UTC, date
from pathlib import Path
from typing import TYPE_CHECKING

import click

from aiseg2_pipeline.cli.context import settings_or_exit, utc_now
from aiseg2_pipeline.japan_time import TOKYO, day_of, day_start
from aiseg2_pipeline.settings import Settings

if TYPE_CHECKING:
    import pandas as pd

    from aiseg2_pipeline.tariff.bill import Bill
    from aiseg2_pipeline.tariff.calendar import Period
    from aiseg2_pipeline.tariff.cost import EnergyHour

FILE = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.option("--month", metavar="YYYY-MM", help="The month of the bill; default: that of today.")
@click.option("--tariff", "other", type=FILE, help="Another tariff file, to see what it would have cost.")
@click.option("--format", "form", type=click.Choice(["table", "json", "csv"]), default="table")
def bill(month: str | None, other: Path | None, form: str) -> None:
    """Print the bill of a month, line by line, by the tariff of AISEG2_TARIFF."""
    with settings_or_exit() as settings:
        shown = _bill(settings, _tariff_path(settings, other), month)
        compared = _bill(settings, settings.tariff, month) if other and settings.tariff else None
        if form == "json":
            click.echo(json.dumps(_json(shown), ensure_ascii=False, indent=2))
        elif form == "csv":
            writer = csv.writer(sys.stdout)
            writer.writerow(["line", "kwh", "yen_per_kwh", "yen"])
            writer.writerows(_rows(shown))
        else:
            _print(shown, compared)


@click.group()
def tariff() -> None:
    """Work with the tariff file of AISEG2_TARIFF."""


@tariff.command()
@click.argument("file", type=FILE, required=False)
def check(file: Path | None) -> None:
    """Check a tariff file, and print what a kWh costs now and why."""
    with settings_or_exit() as settings:
        from aiseg2_pipeline.tariff.calendar import is_holiday, period_of
        from aiseg2_pipeline.tariff.cost import by_month, market_yen, price_at
        from aiseg2_pipeline.tariff.load import load_markets, load_tariff

        path = _tariff_path(settings, file)
        prices = load_tariff(path)
        markets = load_markets(path, prices)
        now = utc_now().astimezone(TOKYO)
        period = period_of(now.date(), prices.meter_day)
        plan = prices.plan_at(now.date())
        if plan is None:
            raise click.ClickException(
                f"No plan of {path} holds today: the first begins on {prices.plan[0].valid_from}."
            )
        price = price_at(plan, now)
        hour = now.replace(minute=0, second=0, microsecond=0)
        market = market_yen(price, hour.astimezone(UTC), markets)
        kind = "holiday" if is_holiday(now.date(), plan.holidays) else "weekday"
        click.echo(
            f"{now:%Y-%m-%d %H:%M}, {kind}; the bill of {period.month} is from {period.first} to {period.last}."
        )
        click.echo(f"Plan {plan.name} since {plan.valid_from}; price {price.name}:")
        if price.steps:
            for step in price.steps:
                click.echo(
                    f"  {step.yen} yen per kWh" + (f" up to {step.to_kwh} kWh" if step.to_kwh else " above")
                )
        elif price.market:
            click.echo(
                f"  {market} yen per kWh" if market is not None else f"  {price.market} has no price of now"
            )
        else:
            click.echo(f"  {price.yen} yen per kWh")
        for name, table in (("fuel adjustment", prices.fuel_adjustment), ("levy", prices.levy)):
            if table:
                known = by_month(table, period.month)
                click.echo(f"  {known.yen:+} yen {name} (of {known.month or 'no month yet'})")
        sold = prices.sell_yen(now.date())
        click.echo(f"A sold kWh earns {sold} yen." if sold is not None else "Selling is not in the tariff.")


def cost_of_day(settings: Settings, path: Path, day: date, energy: "pd.DataFrame") -> str:
    """Return a sentence on what a day's hours cost; the steps count the stored hours of its billing period before it."""
    from aiseg2_pipeline.tariff.calendar import period_of
    from aiseg2_pipeline.tariff.cost import cost_of_period, hours_of
    from aiseg2_pipeline.tariff.load import load_markets, load_tariff

    prices = load_tariff(path)
    period = period_of(day, prices.meter_day)
    before = [hour for hour in _hours(settings, period) if hour.start < day_start(day)]
    cost = cost_of_period(prices, period, [*before, *hours_of(energy)], load_markets(path, prices))
    of_day = cost.hours[len(before) :]
    sums = {
        "bought": sum(hour.bought_yen for hour in of_day if hour.bought_yen is not None),
        "sold": sum(hour.sold_yen for hour in of_day if hour.sold_yen is not None),
        "saved": sum(hour.saved_yen for hour in of_day if hour.saved_yen is not None),
    }
    return f"By the tariff: {', '.join(f'{name} {yen:.0f} yen' for name, yen in sums.items())}."


def _tariff_path(settings: Settings, given: Path | None) -> Path:
    path = given or settings.tariff
    if path is None:
        raise click.UsageError("set AISEG2_TARIFF to a tariff file; docs/tariff.md has examples.")
    return path


def _bill(settings: Settings, path: Path, month: str | None) -> "Bill":
    from aiseg2_pipeline.tariff.bill import bill_of_month
    from aiseg2_pipeline.tariff.calendar import period_of, period_of_month
    from aiseg2_pipeline.tariff.load import load_markets, load_tariff

    prices = load_tariff(path)
    now = utc_now()
    try:
        period = period_of_month(month, prices.meter_day) if month else period_of(day_of(now), prices.meter_day)
    except ValueError:
        raise click.UsageError(f"{month!r} is not a month: write it like 2026-11.") from None
    return bill_of_month(prices, period.month, _hours(settings, period), load_markets(path, prices), now)


def _hours(settings: Settings, period: "Period") -> "list[EnergyHour]":
    from aiseg2_pipeline.store import EnergyStore
    from aiseg2_pipeline.tariff.cost import hours_of

    if not settings.energy_path.exists():
        return []
    with EnergyStore.open(settings.energy_path) as store:
        return hours_of(
            store.read(day_start(period.first), day_start(period.end), ["bought", "sold", "consumption"])
        )


def _rows(shown: "Bill") -> list[tuple[str, str, str, str]]:
    rows = [
        (
            line.name,
            "" if line.kwh is None else f"{line.kwh:.1f}",
            "" if line.yen_per_kwh is None else f"{line.yen_per_kwh}",
            f"{line.yen}",
        )
        for line in (*shown.lines, *shown.sold)
    ]
    return [*rows[: len(shown.lines)], ("total", "", "", f"{shown.total_yen}"), *rows[len(shown.lines) :]]


def _json(shown: "Bill") -> dict[str, object]:
    return {
        "month": shown.period.month,
        "from": shown.period.first.isoformat(),
        "to": shown.period.last.isoformat(),
        "lines": [dict(zip(("line", "kwh", "yen_per_kwh", "yen"), row, strict=True)) for row in _rows(shown)],
        "total_yen": int(shown.total_yen),
        "sold_yen": int(shown.sold_yen),
        "missing_hours": shown.missing_hours,
        "notes": list(shown.notes),
    }


def _print(shown: "Bill", compared: "Bill | None") -> None:
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    table = Table(
        Column("line"),
        *(Column(name, justify="right") for name in ("kWh", "yen per kWh", "yen")),
        title=f"Bill of {shown.period.month}, {shown.period.first} to {shown.period.last}",
    )
    for name, *numbers in _rows(shown):
        table.add_row(Text(name), *numbers, style="bold" if name == "total" else None)
    console = Console()
    console.print(table)
    for note in shown.notes:
        console.print(note)
    if shown.missing_hours:
        console.print(
            f"The energy of {shown.missing_hours} h is missing, so the bill is too low: see `aiseg2-pipeline gaps`."
        )
    if compared is not None:
        difference = shown.total_yen - compared.total_yen
        console.print(
            f"By AISEG2_TARIFF it is {compared.total_yen} yen: this tariff is {abs(difference)} yen {'dearer' if difference > 0 else 'cheaper'}."
        )
