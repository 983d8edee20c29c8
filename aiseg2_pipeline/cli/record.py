"""The commands on readings and energy: read, history, gaps, fill, salvage, remove, resend, report.

What they do belongs in `ingest`, `gaps`, `store` and `report`. Each imports what it needs, because pandas is slow to import.
"""

import json
from collections.abc import Callable
from contextlib import ExitStack
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from aiseg2_pipeline.cli.bill import cost_of_day
from aiseg2_pipeline.cli.context import settings_or_exit, utc_now
from aiseg2_pipeline.cli.parameters import Moment, Span, check_order
from aiseg2_pipeline.settings import InfluxSettings, Settings

if TYPE_CHECKING:
    from aiseg2_pipeline.store import Store

# A delivery of a minute's rows takes ten seconds at most.
REMOVE_WAITS_S = 30.0
PAST = "35 days ago, or the start of the record"


def _range(default: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add --from and --to to a command; without a default start, both are required."""
    first = f"The first day or time; default: {default}." if default else "The first day or time."
    last = "The last day or time, included; default: now." if default else "The last day or time, included."
    from_option = click.option("--from", "first", type=Moment(), required=not default, help=first)
    to_option = click.option("--to", "last", type=Moment(), required=not default, help=last)
    return lambda command: from_option(to_option(command))


def _echo_json(rows: list[dict[str, Any]]) -> None:
    click.echo(json.dumps(rows, ensure_ascii=False, indent=1))


@click.command()
@click.option("--format", "form", type=click.Choice(["table", "json", "lp"]), default="table")
def read(form: str) -> None:
    """Take one live reading and print it; it is not stored.

    json: a list of rows. lp: the line protocol that would be written, in nanoseconds.
    """
    with settings_or_exit() as settings:
        from aiseg2_pipeline.cli import connect, output
        from aiseg2_pipeline.frames.readings import live_frame
        from aiseg2_pipeline.influxdb.line_protocol import lines

        with connect.without_trace(settings) as looked, connect.device(looked, utc_now) as client:
            reading = client.live()
        table = live_frame(reading)
        if table.empty:
            raise click.ClickException("The AiSEG2 shows no number: open its own page to see why.")
        if form == "json":
            _echo_json(output.rows(table))
        elif form == "lp":
            click.echo("\n".join(line for row in lines(table) for line in row))
        else:
            output.reading(reading, table)
        for problem in reading.problems:
            click.echo(problem, err=True)


@click.command()
@_range("the first row")
def resend(first: Span | None, last: Span | None) -> None:
    """Mark rows pending again, so that the minute runs write them to InfluxDB once more.

    For a bucket that was emptied. Whole hours are marked.
    """
    check_order(first, last)
    with settings_or_exit() as settings:
        from aiseg2_pipeline.cli import connect

        if settings.influx is None:
            raise click.ClickException(
                "No InfluxDB is configured: set INFLUXDB_HOST, INFLUXDB_TOKEN, INFLUXDB_ORG and INFLUXDB_BUCKET."
            )
        destination = connect.destination(settings.influx)
        with connect.stores(settings) as stores:
            hours, *_ = [store.resend(first and first.start, last and last.end, destination) for store in stores]
        click.echo(
            f"{hours} hours are pending again for the bucket {settings.influx.bucket}: the minute runs write their readings, some hours "
            "a minute, and the next energy and climate runs write the rest."
        )


@click.command()
@_range("")
@click.option("--refill", is_flag=True, help="Fill the removed minutes from the energy that the AiSEG2 has kept.")
@click.option("--yes", is_flag=True, help="Remove the rows; without it, only their number is printed.")
def remove(first: Span, last: Span, *, refill: bool, yes: bool) -> None:
    """Remove wrong readings from the store and from InfluxDB. Their minutes stay empty; --refill or `fill` fills them."""
    check_order(first, last)
    with settings_or_exit() as settings:
        from aiseg2_pipeline.cli import connect
        from aiseg2_pipeline.store import Store

        influx = settings.influx
        where = "the store" + (f" and of the bucket {influx.bucket}" if influx else "")
        with connect.without_trace(settings) as looked, Store.open(looked.store_path) as store:
            rows = store.count(first.start, last.end)
            plan = _refill_plan(store, first, last) if refill else ""
        if not yes:
            click.echo(f"{rows} rows of {where} would be removed. Nothing is removed without --yes.")
            if refill:
                click.echo(f"Then --refill fills {plan}.")
            return
        with Store.open(settings.store_path) as store:
            rows = _remove(store, influx, first.start, last.end)
        click.echo(f"{rows} rows of {where} were removed.")
        if refill:
            click.echo(f"Now --refill fills {plan}.")
            _fill(settings, *_past(settings, first, last), dry_run=False)


def _refill_plan(store: "Store", first: Span, last: Span) -> str:
    """Return which minutes are filled after the removal of a range: those of its hours that are not covered then."""
    from aiseg2_pipeline.gaps.find import MINUTES_AN_HOUR, hours_between
    from aiseg2_pipeline.japan_time import HOUR, MINUTE, TOKYO

    hours = hours_between(store, first.start, last.end, utc_now())
    if not hours:
        return "nothing yet: the run after the end of the hour does"
    start, end = hours[0].start, hours[-1].start + HOUR
    kept = [time for time in store.minutes(start, end) if time >= last.end or time + MINUTE <= first.start]
    shown = " to ".join(f"{moment.astimezone(TOKYO):%Y-%m-%d %H:%M}" for moment in (start, end))
    return f"up to {len(hours) * MINUTES_AN_HOUR - len(kept)} minutes of {shown}, as far as the AiSEG2 has kept their energy"


def _remove(store: "Store", influx: InfluxSettings | None, start: datetime, end: datetime) -> int:
    """Return the number of removed rows."""
    from filelock import Timeout

    from aiseg2_pipeline.cli import connect
    from aiseg2_pipeline.influxdb.delivery import delivery_lock

    if influx is None:
        return store.remove(start, end, utc_now())
    try:
        # A delivery that has already read the rows would write them after their removal.
        with delivery_lock(store, connect.destination(influx), REMOVE_WAITS_S), connect.writer(influx) as writer:
            # InfluxDB first: if that fails, the store still has the rows, and the command can be repeated.
            writer.delete(start, end)
            return store.remove(start, end, utc_now())
    except Timeout:
        raise click.ClickException(
            f"A run is writing to the bucket {influx.bucket}, so nothing was removed: wait until it has ended, then run the command again."
        ) from None


@click.command()
@_range(PAST)
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table")
def gaps(first: Span | None, last: Span | None, form: str) -> None:
    """List the hours with missing minutes, which of them can be filled, and how many requests that takes."""
    with settings_or_exit() as settings:
        from aiseg2_pipeline.cli import connect, output
        from aiseg2_pipeline.gaps.find import find_gaps
        from aiseg2_pipeline.store import EnergyStore, Store
        from aiseg2_pipeline.store.damage import unrecovered

        with connect.without_trace(settings) as looked:
            start, end, now = _past(looked, first, last)
            with Store.open(looked.store_path) as store, EnergyStore.open(looked.energy_path) as energy:
                found = find_gaps(store, energy, start, end, now)
                began = store.live_near(now) is not None
        if form == "json":
            _echo_json(output.gaps_json(found))
        else:
            output.gaps_table(found, began=began)
        for damaged in unrecovered(settings.store_path, settings.energy_path):
            click.echo(
                f"Rows of the damaged store {damaged.path} may be recoverable: run `aiseg2-pipeline salvage`.",
                err=True,
            )


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=False)
def salvage(file: Path | None) -> None:
    """Recover the readable rows of a damaged store into the current one, which keeps its own rows.

    FILE is one of the -damaged- files in the data directory; by default, all that are not yet salvaged. The pipeline does this by itself.
    """
    with settings_or_exit() as settings:
        from aiseg2_pipeline.cli import connect
        from aiseg2_pipeline.store.damage import damaged_files, unrecovered
        from aiseg2_pipeline.store.recovery import recover

        found = [
            (kind, path, damaged)
            for kind, path in connect.store_files(settings)
            for damaged in (unrecovered(path) if file is None else damaged_files(path))
            if file is None or damaged.path.samefile(file)
        ]
        if file is not None and not found:
            raise click.ClickException(
                f"{file} is not a damaged store of {settings.data_dir}: name one like readings-damaged-20261123T071500Z.sqlite in that folder."
            )
        if not found:
            click.echo("There is no damaged store that is not salvaged yet.")
        for kind, path, damaged in found:
            with kind.open(path) as store:
                click.echo(f"{damaged.path.name}: {recover(damaged, store, click.echo)}")


@click.command()
@_range(PAST)
@click.option("--dry-run", is_flag=True, help="Only print what would be requested and filled.")
def fill(first: Span | None, last: Span | None, *, dry_run: bool) -> None:
    """Fill missing minutes from the energy that the AiSEG2 has kept; live readings stay unchanged."""
    with settings_or_exit() as settings:
        from aiseg2_pipeline.cli import connect

        with connect.without_trace(settings) as looked:
            _fill(looked, *_past(looked, first, last), dry_run=dry_run)


def _fill(settings: Settings, start: datetime, end: datetime, now: datetime, *, dry_run: bool) -> None:
    from aiseg2_pipeline.cli import connect, output
    from aiseg2_pipeline.gaps.fill import fill_hours
    from aiseg2_pipeline.gaps.find import find_gaps
    from aiseg2_pipeline.ingest.energy import History
    from aiseg2_pipeline.store import EnergyStore, Store

    with ExitStack() as stack:
        store = stack.enter_context(Store.open(settings.store_path))
        energy = stack.enter_context(EnergyStore.open(settings.energy_path))
        began = store.live_near(now) is not None
        if not began and not dry_run:
            raise click.ClickException(
                "There is no live reading yet, and a fill needs one for the names of the circuits: run the pipeline for a minute first."
            )
        if not dry_run:
            store.allow_fill(start, end)
        found = find_gaps(store, energy, start, end, now)
        if dry_run or not found.fillable:
            output.gaps_table(found, began=began)
            return

        def history() -> History:
            client = stack.enter_context(connect.device(settings, utc_now, "background"))
            return stack.enter_context(History(client, energy, settings.device_state_dir, now))

        hours = [hour.start for hour in found.fillable]
        output.fill_progress(fill_hours(store, energy, hours, now=now, history=history), found)
    if settings.influx:
        click.echo("The minute runs write the filled rows to InfluxDB.")


@click.command()
@click.argument("day", type=Moment(), metavar="DATE")
@click.option("--format", "form", type=click.Choice(["table", "json", "lp"]), default="table")
@click.option("--source", type=click.Choice(["auto", "web", "sd"]), default="auto")
def history(day: Span, form: str, source: Literal["auto", "web", "sd"]) -> None:
    """Print the energy of a day as the AiSEG2 has kept it; nothing is stored.

    json: one row for each ended hour or half hour and series. sd: the SD card's half hours; auto: those if there is a card.
    """
    with settings_or_exit() as settings:
        from aiseg2_pipeline.cli import connect, output
        from aiseg2_pipeline.ingest.energy import day_on_device
        from aiseg2_pipeline.japan_time import day_of

        date = day_of(day.start)
        if day.start > utc_now():
            raise click.ClickException(
                f"{date} is in the future, so there is no energy of it: choose today or an earlier day."
            )
        with (
            connect.without_trace(settings) as looked,
            connect.device(looked, utc_now, "background") as client,
        ):
            energy = day_on_device(client, looked.device_state_dir, date, utc_now(), source=source)
        if form == "json":
            _echo_json(output.energy_json(energy))
        elif form == "lp":
            click.echo("\n".join(output.energy_lp(energy)))
        else:
            output.energy_table(date, energy)
            if settings.tariff:
                click.echo(cost_of_day(settings, settings.tariff, date, output.whole_hours(energy)))
        for problem in energy.problems:
            click.echo(problem, err=True)


def _past(settings: Settings, first: Span | None, last: Span | None) -> tuple[datetime, datetime, datetime]:
    """Return the start of the range's first hour, its end, and now. By default it starts as `PAST` says."""
    from aiseg2_pipeline.gaps.past import Record
    from aiseg2_pipeline.japan_time import TOKYO
    from aiseg2_pipeline.store import Store

    check_order(first, last)
    now = utc_now()
    end = min(last.end if last else now, now)
    if first is not None:
        start = first.start
    else:
        with Store.open(settings.store_path) as store:
            record = Record.of(settings.first_partition_path, settings.start_date, now)
            start = max(now - timedelta(days=35), record.start(store, now))
            # Without a record, there is no start that --to could be earlier than.
            start = start if store.live_near(now) else min(start, end)
    start = start.replace(minute=0, second=0, microsecond=0)
    if end < start:
        shown = [f"{moment.astimezone(TOKYO):%Y-%m-%d %H:%M}" for moment in (start, end)]
        raise click.UsageError(
            f"The range starts at {shown[0]} and ends before that, at {shown[1]}: choose an earlier --from or a later --to."
        )
    return start, end, now


@click.command()
@click.argument("day", type=Moment(), metavar="[DATE]", required=False)
@click.option(
    "--output", type=click.Path(path_type=Path), help="The file; default: reports/DATE.png in AISEG2_DATA_DIR."
)
def report(day: Span | None, output: Path | None) -> None:
    """Draw a day as a picture, by default yesterday, and print its path. It needs the extra `report`."""
    with settings_or_exit() as settings:
        from aiseg2_pipeline.cli import connect
        from aiseg2_pipeline.japan_time import day_of
        from aiseg2_pipeline.report.saving import report_path, save_report
        from aiseg2_pipeline.store import EnergyStore, Store

        now = utc_now()
        drawn = day_of(day.start if day else now - timedelta(days=1))
        path = output or report_path(settings.data_dir, drawn)
        with (
            connect.without_trace(settings) as looked,
            Store.open(looked.store_path) as store,
            EnergyStore.open(looked.energy_path) as energy,
        ):
            save_report(store, energy, drawn, now, path, demo=settings.simulated, cost=settings.tariff is not None)
        click.echo(path)
