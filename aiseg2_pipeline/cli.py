"""The `aiseg2-pipeline` command: arguments in, sentences and tables out.

Exit codes: 0; 1 for a failure, said in one sentence on stderr; 2 for wrong use. What a command does belongs in the
rooms below; pandas and Dagster are imported by the commands that need them.
"""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

import click

from aiseg2_pipeline import __version__
from aiseg2_pipeline.settings import Settings, SettingsError, load_settings

TOKYO = ZoneInfo("Asia/Tokyo")
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
        self.fail(f"{value!r} is no date like 2026-07-14 and no time like 2026-07-14T08:15.", param, ctx)


def check_order(first: Span | None, last: Span | None) -> None:
    """Refuse a range that ends before it begins."""
    if first and last and last.end <= first.start:
        raise click.UsageError("--to is earlier than --from.")


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
        from aiseg2_pipeline.influx import InfluxError
        from aiseg2_pipeline.services import ServicesError
        from aiseg2_pipeline.store_file import StoreError

        if not isinstance(error, SettingsError | Aiseg2Error | StoreError | InfluxError | ServicesError):
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
    """Run everything until Ctrl-C: webserver, daemon, and without an AISEG2_HOST the demo."""
    from aiseg2_pipeline import services

    with one_sentence() as settings:
        sys.exit(services.run(settings, click.echo))


@main.command()
@click.option("--format", "form", type=click.Choice(["table", "json", "lp"]), default="table", show_default=True)
def read(form: str) -> None:
    """Take one live reading and print it; it is not stored.

    json: a list of rows. lp: the line protocol that would be written, in nanoseconds.
    """
    with one_sentence() as settings:
        from aiseg2_pipeline import printing
        from aiseg2_pipeline.aiseg2.client import Aiseg2Client
        from aiseg2_pipeline.points import lines
        from aiseg2_pipeline.readings import live_frame

        with Aiseg2Client(
            settings.device_url,
            settings.device_user,
            settings.device_password.get_secret_value(),
            state_dir=settings.device_state_dir,
            clock=utc_now,
            verify=settings.device_verify,
        ) as client:
            reading = client.live()
        table = live_frame(reading)
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
        from aiseg2_pipeline.store import Destination, Store

        if settings.influx is None:
            raise click.ClickException("No InfluxDB is configured: set INFLUXDB_HOST and the settings beside it.")
        destination = Destination(settings.influx.host, settings.influx.org, settings.influx.bucket)
        with Store.open(settings.store_path) as store:
            hours = store.resend(first and first.start, last and last.end, destination)
        click.echo(
            f"{hours} hours are pending again for the bucket {settings.influx.bucket}: the minute runs write them, some hours a minute."
        )


@main.command()
@click.option("--from", "first", type=Moment(), required=True, help="The first day or time.")
@click.option("--to", "last", type=Moment(), required=True, help="The last day or time, included.")
@click.option("--yes", is_flag=True, help="Remove; without it, only say what would be removed.")
def remove(first: Span, last: Span, *, yes: bool) -> None:
    """Remove readings that are wrong, in the store and in InfluxDB alike."""
    check_order(first, last)
    with one_sentence() as settings:
        from aiseg2_pipeline.influx import InfluxWriter
        from aiseg2_pipeline.store import Store

        influx = settings.influx
        where = "the store" + (f" and of the bucket {influx.bucket}" if influx else "")
        with Store.open(settings.store_path) as store:
            rows = len(store.read(first.start, last.end))
            if not yes:
                click.echo(f"{rows} rows of {where} would be removed. Nothing is removed without --yes.")
                return
            if influx:
                # First there: should it fail, the store still knows what to remove.
                with InfluxWriter(
                    influx.url, influx.token.get_secret_value(), influx.org, influx.bucket, verify=influx.verify
                ) as writer:
                    writer.delete(first.start, last.end)
            store.delete(first.start, last.end)
        click.echo(f"{rows} rows of {where} were removed.")


@main.command()
def doctor() -> None:
    """Look at everything the pipeline needs, and say what to do where it fails."""
    from aiseg2_pipeline import doctor as examination

    with one_sentence() as settings:
        if not examination.examine(settings, utc_now, click.echo):
            sys.exit(1)


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", type=click.IntRange(1, 65535), help="Default: AISEG2_SIMULATOR_PORT.")
@click.option("--seed", type=int, default=1, show_default=True, help="Another number, another household.")
@click.option(
    "--latency-ms", type=click.FloatRange(min=0), default=0, show_default=True, help="What each answer takes."
)
@click.option("--start", type=Moment(), help="The time that it shows at first; default: now.")
@click.option(
    "--speed", type=click.FloatRange(min=0), default=1.0, show_default=True, help="How fast its clock runs."
)
def simulate(host: str, port: int | None, seed: int, latency_ms: float, start: Span | None, speed: float) -> None:
    """Be an AiSEG2: a simulated household behind the device's web pages, until Ctrl-C."""
    from aiseg2_pipeline.simulator import DEFAULT_PASSWORD, DEFAULT_USER, server

    if port is None:
        with one_sentence() as settings:
            port = settings.simulator_port
    click.echo(
        f"A simulated AiSEG2 at http://{host}:{port}, user {DEFAULT_USER}, password {DEFAULT_PASSWORD}. Ctrl-C stops it."
    )
    try:
        server.serve(port, host, seed=seed, latency_ms=latency_ms, start=start and start.start, speed=speed)
    except OSError as error:
        raise click.ClickException(f"{error} (--port, AISEG2_SIMULATOR_PORT)") from None


if __name__ == "__main__":
    main(prog_name="aiseg2-pipeline")
