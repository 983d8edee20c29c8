"""The `aiseg2-pipeline` command: arguments in, sentences and tables out.

Exit codes: 0; 1 for a failure, said in one sentence on stderr; 2 for wrong use. What a command does belongs in the
rooms below; pandas and Dagster are imported by the commands that need them.
"""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import click

from aiseg2_pipeline import __version__
from aiseg2_pipeline.japan_time import TOKYO
from aiseg2_pipeline.settings import InfluxSettings, Settings, SettingsError, load_settings

if TYPE_CHECKING:
    from aiseg2_pipeline.simulator.faults import Fault
    from aiseg2_pipeline.store import Store

# A minute's write-out takes ten seconds at most.
REMOVE_WAITS_S = 30.0
DEMO_HINT = "No AISEG2_HOST is set, so this is the demo: start its simulated home with `make run` or `aiseg2-pipeline simulate`."


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


@contextmanager
def one_sentence() -> Iterator[Settings]:
    """Give the settings, and turn the errors that people can do something about into one sentence."""
    demo = False
    try:
        settings = load_settings()
        demo = settings.demo
        yield settings
    except Exception as error:
        from aiseg2_pipeline.aiseg2.errors import Aiseg2Error, Unreachable
        from aiseg2_pipeline.influxdb.client import InfluxError
        from aiseg2_pipeline.report import ReportError
        from aiseg2_pipeline.runtime.services import ServicesError
        from aiseg2_pipeline.store.database import StoreError

        if not isinstance(
            error, SettingsError | Aiseg2Error | StoreError | InfluxError | ServicesError | ReportError
        ):
            raise
        hint = f" {DEMO_HINT}" if demo and isinstance(error, Unreachable) else ""
        raise click.ClickException(f"{error}{hint}") from None


def utc_now() -> datetime:
    """Return the host's time."""
    return datetime.now(UTC)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """Read a Panasonic AiSEG2 every minute, keep every reading, write it to InfluxDB.

    Settings come from the environment or from .env in the current folder; .env.example explains them.
    """
    # What is kept is the household's own.
    os.umask(0o077)


@main.command()
def run() -> None:
    """Run everything until Ctrl-C: code server, daemon, webserver, and without an AISEG2_HOST the demo."""
    from aiseg2_pipeline.runtime import services

    with one_sentence() as settings:
        sys.exit(services.run(settings, click.echo))


@main.command()
def ui() -> None:
    """Serve Dagster's pages of the running pipeline until Ctrl-C (for where AISEG2_UI=0 leaves them out)."""
    from aiseg2_pipeline.runtime import services

    with one_sentence() as settings:
        sys.exit(services.serve_pages(settings, click.echo))


@main.command()
@click.option("--format", "form", type=click.Choice(["table", "json", "lp"]), default="table", show_default=True)
def read(form: str) -> None:
    """Take one live reading and print it; it is not stored.

    json: a list of rows. lp: the line protocol that would be written, in nanoseconds.
    """
    with one_sentence() as settings:
        from aiseg2_pipeline.cli import connect
        from aiseg2_pipeline.cli import output as printing
        from aiseg2_pipeline.frames.readings import live_frame
        from aiseg2_pipeline.influxdb.line_protocol import lines

        with connect.device(settings, utc_now) as client:
            reading = client.live()
        table = live_frame(reading)
        if table.empty:
            raise click.ClickException("The AiSEG2 shows no number at all: look at its own page.")
        if form == "json":
            click.echo(json.dumps(printing.rows(table), ensure_ascii=False, indent=1))
        elif form == "lp":
            click.echo("\n".join(line for row in lines(table) for line in row))
        else:
            printing.reading(reading, table)
        if reading.circuits_error is not None:
            click.echo(f"The circuits are missing. {reading.circuits_error}", err=True)


@main.command()
@click.option("--from", "first", type=Moment(), help="The first day or time; default: the beginning.")
@click.option("--to", "last", type=Moment(), help="The last day or time, included; default: now.")
def resend(first: Span | None, last: Span | None) -> None:
    """Mark rows pending again, so that the minute runs write them to InfluxDB once more.

    For a bucket that was emptied. Whole hours are marked.
    """
    check_order(first, last)
    with one_sentence() as settings:
        from aiseg2_pipeline.cli import connect
        from aiseg2_pipeline.store import ClimateStore, EnergyStore, Store

        if settings.influx is None:
            raise click.ClickException("No InfluxDB is configured: set INFLUXDB_HOST and the settings beside it.")
        destination = connect.destination(settings.influx)
        with (
            Store.open(settings.store_path) as store,
            EnergyStore.open(settings.energy_path) as energy,
            ClimateStore.open(settings.climate_path) as climate,
        ):
            hours = store.resend(first and first.start, last and last.end, destination)
            for other in (energy, climate):
                other.resend(first and first.start, last and last.end, destination)
        click.echo(
            f"{hours} hours are pending again for the bucket {settings.influx.bucket}: the minute runs write them, some hours a minute, and "
            "the next energy and climate runs the rest."
        )


@main.command()
@click.option("--from", "first", type=Moment(), required=True, help="The first day or time.")
@click.option("--to", "last", type=Moment(), required=True, help="The last day or time, included.")
@click.option("--refill", is_flag=True, help="Fill the removed minutes from what the AiSEG2 remembers.")
@click.option("--yes", is_flag=True, help="Remove; without it, only say what would be removed.")
def remove(first: Span, last: Span, *, refill: bool, yes: bool) -> None:
    """Remove readings that are wrong, in the store and in InfluxDB alike; --refill fills their minutes again."""
    check_order(first, last)
    with one_sentence() as settings:
        from aiseg2_pipeline.store import Store

        influx = settings.influx
        where = "the store" + (f" and of the bucket {influx.bucket}" if influx else "")
        with Store.open(settings.store_path) as store:
            if not yes:
                rows = store.count(first.start, last.end)
                click.echo(f"{rows} rows of {where} would be removed. Nothing is removed without --yes.")
                return
            rows = _remove(store, influx, first.start, last.end)
        click.echo(f"{rows} rows of {where} were removed.")
        if refill:
            _fill(settings, *_past(settings, first, last), dry_run=False)


def _remove(store: "Store", influx: InfluxSettings | None, start: datetime, end: datetime) -> int:
    """Return how many rows there were."""
    from filelock import Timeout

    from aiseg2_pipeline.cli import connect
    from aiseg2_pipeline.influxdb.delivery import delivery_lock

    if influx is None:
        return store.delete(start, end)
    try:
        # A delivery that has read the rows already would write them after they were removed.
        with delivery_lock(store, connect.destination(influx), REMOVE_WAITS_S), connect.writer(influx) as writer:
            # First there: should it fail, the store still knows what to remove.
            writer.delete(start, end)
            return store.delete(start, end)
    except Timeout:
        raise click.ClickException(
            f"A run is writing to the bucket {influx.bucket}, so nothing was removed: wait until it has ended, and try again."
        ) from None


@main.command()
@click.option(
    "--from",
    "first",
    type=Moment(),
    help="The first day or time; default: 35 days back, or when the record began.",
)
@click.option("--to", "last", type=Moment(), help="The last day or time, included; default: now.")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
def gaps(first: Span | None, last: Span | None, form: str) -> None:
    """List the hours with missing minutes, which of them may be filled, and what asking for them costs."""
    with one_sentence() as settings:
        from aiseg2_pipeline.cli import output as printing
        from aiseg2_pipeline.gaps.fill import find_gaps
        from aiseg2_pipeline.store import EnergyStore, Store
        from aiseg2_pipeline.store.damage import unsalvaged

        start, end, now = _past(settings, first, last)
        with Store.open(settings.store_path) as store, EnergyStore.open(settings.energy_path) as energy:
            found = find_gaps(store, energy, start, end, now)
        if form == "json":
            click.echo(json.dumps(printing.gaps_json(found), ensure_ascii=False, indent=1))
        else:
            printing.gaps_table(found)
        for damaged in unsalvaged(settings.store_path, settings.energy_path):
            click.echo(
                f"Rows of the damaged store {damaged.path} may come back: run `aiseg2-pipeline salvage`.", err=True
            )


@main.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=False)
def salvage(file: Path | None) -> None:
    """Bring what can still be read of a damaged store into the one in its place; rows that are there stay.

    FILE is one of the -damaged- files in the data directory; without it, all that nobody has looked at. The pipeline does so by itself.
    """
    with one_sentence() as settings:
        from aiseg2_pipeline.cli import connect
        from aiseg2_pipeline.store.damage import damaged_files, unsalvaged
        from aiseg2_pipeline.store.recovery import salvage as bring_back

        found = [
            (kind, path, damaged)
            for kind, path in connect.stores(settings)
            for damaged in (unsalvaged(path) if file is None else damaged_files(path))
            if file is None or damaged.path.samefile(file)
        ]
        if file is not None and not found:
            raise click.ClickException(
                f"{file} is no damaged store of {settings.data_dir}: name one like readings-damaged-20261123T071500Z.sqlite in that folder."
            )
        if not found:
            click.echo("There is no damaged store of which nothing was brought back yet.")
        for kind, path, damaged in found:
            with kind.open(path) as store:
                click.echo(f"{damaged.path.name}: {bring_back(damaged, store, click.echo)}")


@main.command()
@click.option(
    "--from",
    "first",
    type=Moment(),
    help="The first day or time; default: 35 days back, or when the record began.",
)
@click.option("--to", "last", type=Moment(), help="The last day or time, included; default: now.")
@click.option("--dry-run", is_flag=True, help="Only say what would be asked for and filled.")
def fill(first: Span | None, last: Span | None, *, dry_run: bool) -> None:
    """Fill missing minutes from what the AiSEG2 remembers; what is read live stays as it is."""
    with one_sentence() as settings:
        _fill(settings, *_past(settings, first, last), dry_run=dry_run)


def _fill(settings: Settings, start: datetime, end: datetime, now: datetime, *, dry_run: bool) -> None:
    from aiseg2_pipeline.cli import connect
    from aiseg2_pipeline.cli import output as printing
    from aiseg2_pipeline.gaps.fill import fill_hours, find_gaps
    from aiseg2_pipeline.ingest.energy import History
    from aiseg2_pipeline.store import EnergyStore, Store

    with ExitStack() as stack:
        store = stack.enter_context(Store.open(settings.store_path))
        energy = stack.enter_context(EnergyStore.open(settings.energy_path))
        found = find_gaps(store, energy, start, end, now)
        if dry_run:
            printing.gaps_table(found)
            return
        if store.live_near(now) is None:
            raise click.ClickException(
                "There is no live reading yet, and a fill must know the home's circuits: run the pipeline for a minute first."
            )

        def history() -> History:
            client = stack.enter_context(connect.device(settings, utc_now, "background"))
            return stack.enter_context(History(client, energy, settings.device_state_dir, now))

        hours = [hour.start for hour in found.fillable]
        printing.fill_progress(fill_hours(store, energy, hours, now=now, history=history), found)
    if settings.influx:
        click.echo("What was filled goes to InfluxDB with the minute runs.")


@main.command()
@click.argument("day", type=Moment(), metavar="DATE")
@click.option("--format", "form", type=click.Choice(["table", "json", "lp"]), default="table", show_default=True)
@click.option("--source", type=click.Choice(["auto", "web", "sd"]), default="auto", show_default=True)
def history(day: Span, form: str, source: Literal["auto", "web", "sd"]) -> None:
    """Print the energy of a day as the AiSEG2 remembers it; nothing is stored.

    json: one row for each ended hour or half hour and series. sd: the SD card's half hours; auto: those where there is a card.
    """
    with one_sentence() as settings:
        from aiseg2_pipeline.cli import connect
        from aiseg2_pipeline.cli import output as printing
        from aiseg2_pipeline.ingest.energy import day_on_device
        from aiseg2_pipeline.japan_time import day_of

        with connect.device(settings, utc_now, "background") as client:
            told = day_on_device(client, settings.device_state_dir, day_of(day.start), utc_now(), source=source)
        if form == "json":
            click.echo(json.dumps(printing.energy_json(told), ensure_ascii=False, indent=1))
        elif form == "lp":
            click.echo("\n".join(printing.energy_lp(told)))
        else:
            printing.energy_table(told)
        for problem in told.problems:
            click.echo(problem, err=True)


def _past(settings: Settings, first: Span | None, last: Span | None) -> tuple[datetime, datetime, datetime]:
    """Return the range that is meant, from the start of an hour, and now; by default 35 days, or since the record began."""
    from aiseg2_pipeline.gaps.fill import record_start
    from aiseg2_pipeline.store import Store

    check_order(first, last)
    now = utc_now()
    if first is not None:
        start = first.start
    else:
        with Store.open(settings.store_path) as store:
            start = max(now - timedelta(days=35), record_start(store, settings.start_date, now))
    return start.replace(minute=0, second=0, microsecond=0), min(last.end if last else now, now), now


@main.command()
@click.argument("day", type=Moment(), metavar="[DATE]", required=False)
@click.option(
    "--output", type=click.Path(path_type=Path), help="The file; default: reports/DATE.png in AISEG2_DATA_DIR."
)
def report(day: Span | None, output: Path | None) -> None:
    """Draw a day as a picture, by default yesterday, and print where it is. It needs the extra `report`."""
    with one_sentence() as settings:
        from aiseg2_pipeline.japan_time import day_of
        from aiseg2_pipeline.report.saving import report_path, save_report
        from aiseg2_pipeline.store import EnergyStore, Store

        now = utc_now()
        drawn = day_of(day.start if day else now - timedelta(days=1))
        path = output or report_path(settings.data_dir, drawn)
        with Store.open(settings.store_path) as store, EnergyStore.open(settings.energy_path) as energy:
            save_report(store, energy, drawn, now, path, demo=settings.demo)
        click.echo(path)


@main.command()
@click.option("--alert", is_flag=True, help="Send a test message to every service of AISEG2_ALERT_URLS.")
def doctor(*, alert: bool) -> None:
    """Look at everything the pipeline needs, and say what to do where it fails."""
    from aiseg2_pipeline.cli import doctor as examination

    with one_sentence() as settings:
        if not examination.examine(settings, utc_now, click.echo, alert=alert):
            sys.exit(1)


@main.command()
def health() -> None:
    """Say whether the pipeline's own processes work: for Docker, every minute, so it takes a quarter of a second."""
    from aiseg2_pipeline.runtime import health as processes

    with one_sentence() as settings:
        problems = processes.problems(settings, utc_now())
    if problems:
        raise click.ClickException(" ".join(problems))
    click.echo("The code server answers, and the daemon works.")


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", type=click.IntRange(1, 65535), help="Default: AISEG2_SIMULATOR_PORT.")
@click.option("--seed", type=int, default=1, show_default=True, help="Another number, another household.")
@click.option(
    "--latency-ms", type=click.FloatRange(min=0), default=0, show_default=True, help="What each answer takes."
)
@click.option("--sd-card", is_flag=True, help="With an SD card in the unit, which has the last 60 days.")
@click.option("--rooms/--no-rooms", default=True, show_default=True, help="Two rooms with sensors, or none.")
@click.option("--battery", is_flag=True, help="With a storage battery, on the live page only.")
@click.option("--start", type=Moment(), help="The time that it shows at first; default: now.")
@click.option(
    "--speed", type=click.FloatRange(min=0), default=1.0, show_default=True, help="How fast its clock runs."
)
@click.option(
    "--fault-rate",
    type=click.FloatRange(0, 1),
    default=0,
    show_default=True,
    help="Which part of the requests goes wrong.",
)
@click.option("--fault-seed", type=int, default=1, show_default=True, help="Another number, other faults.")
@click.option(
    "--faults",
    "kinds",
    type=FaultKinds(),
    help="Only these: unauthorized, not-found, server-error, slow, cut, truncated, unrelated, wrong-day, stale-nonce, "
    "resorted, rebooted, clock-off, dashes. Default: all.",
)
def simulate(  # noqa: PLR0913, PLR0917 - each is an option of the command
    host: str,
    port: int | None,
    seed: int,
    latency_ms: float,
    start: Span | None,
    speed: float,
    fault_rate: float,
    fault_seed: int,
    kinds: "tuple[Fault, ...] | None",
    *,
    sd_card: bool,
    rooms: bool,
    battery: bool,
) -> None:
    """Be an AiSEG2: a simulated household behind the device's web pages, until Ctrl-C."""
    from aiseg2_pipeline.simulator import DEFAULT_PASSWORD, DEFAULT_USER, server
    from aiseg2_pipeline.simulator.faults import ALL, Faults
    from aiseg2_pipeline.simulator.household import Household
    from aiseg2_pipeline.simulator.rooms import ROOMS

    if kinds and not fault_rate:
        raise click.UsageError("--faults needs --fault-rate: set how many requests go wrong, such as 0.05.")
    if port is None:
        with one_sentence() as settings:
            port = settings.simulator_port
    click.echo(
        f"A simulated AiSEG2 at http://{host}:{port}, user {DEFAULT_USER}, password {DEFAULT_PASSWORD}. Ctrl-C stops it."
    )
    try:
        server.serve(
            port,
            host,
            household=Household(seed, battery=battery),
            latency_ms=latency_ms,
            start=start and start.start,
            speed=speed,
            sd_card=sd_card,
            rooms=ROOMS if rooms else (),
            faults=Faults(fault_seed, fault_rate, kinds or ALL),
        )
    except OSError as error:
        raise click.ClickException(f"{error} (--port, AISEG2_SIMULATOR_PORT).") from None
