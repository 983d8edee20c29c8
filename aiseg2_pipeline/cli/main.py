"""The `aiseg2-pipeline` command, and its commands on the processes: run, ui, health, doctor, simulate.

Exit codes: 0; 1 for a failure, printed as one sentence on stderr; 2 for wrong use. Commands on the record belong in
`record`. Dagster and pandas are imported by the commands that need them.
"""

import os
import sys
from typing import TYPE_CHECKING

import click

from aiseg2_pipeline import __version__
from aiseg2_pipeline.cli.context import one_sentence, utc_now
from aiseg2_pipeline.cli.parameters import FaultKinds, Moment, Span
from aiseg2_pipeline.cli.record import fill, gaps, history, read, remove, report, resend, salvage

if TYPE_CHECKING:
    from aiseg2_pipeline.simulator.faults import Fault


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """Read a Panasonic AiSEG2 every minute, keep every reading, write it to InfluxDB.

    Settings come from the environment or from .env in the current folder; .env.example explains them.
    """
    # What is kept is the household's own.
    os.umask(0o077)


for _command in (read, history, gaps, fill, salvage, remove, resend, report):
    main.add_command(_command)


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
