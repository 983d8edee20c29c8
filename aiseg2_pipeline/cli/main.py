"""The `aiseg2-pipeline` command, and its commands on the processes: run, ui, health, doctor, simulate.

Exit codes: 0; 1 for a failure, printed as one message on stderr; 2 for wrong use. Commands on readings and energy
belong in `record`. Each command imports Dagster and pandas itself if it needs them.
"""

import os
import sys
from typing import TYPE_CHECKING

import click

from aiseg2_pipeline import __version__
from aiseg2_pipeline.cli.bill import bill, tariff
from aiseg2_pipeline.cli.context import errors_or_exit, settings_or_exit, utc_now
from aiseg2_pipeline.cli.parameters import FaultKinds, Moment, Span
from aiseg2_pipeline.cli.record import fill, gaps, history, read, remove, report, resend, salvage

if TYPE_CHECKING:
    from aiseg2_pipeline.simulator.faults import Fault


@click.group(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(__version__)
def main() -> None:
    """Read a Panasonic AiSEG2 every minute, keep every reading, write it to InfluxDB.

    Settings come from the environment or from .env in the current folder; .env.example explains them.
    """
    _use_utf8()
    # https://no-color.org; click itself only looks at whether the output is a terminal.
    if os.environ.get("NO_COLOR"):
        click.get_current_context().color = False
    # The files show when somebody is at home: only their owner may read them.
    os.umask(0o077)


def _use_utf8() -> None:
    """Start again in Python's UTF-8 mode where the locale cannot encode names of circuits, buckets and folders."""
    if sys.getfilesystemencoding() != "utf-8":
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])  # noqa: S606 - the same command


for _command in (read, history, gaps, fill, salvage, remove, resend, report, bill, tariff):
    main.add_command(_command)


@main.command()
def run() -> None:
    """Run everything until Ctrl-C: code server, daemon, webserver, and the demo's device if AISEG2_HOST is not set."""
    from aiseg2_pipeline.runtime import services, simulated_past, standard_output

    standard_output.drop_what_cannot_be_written()
    with settings_or_exit() as settings:
        simulated_past.check_home(settings)
        sys.exit(services.run(settings, click.echo))


@main.command()
def ui() -> None:
    """Serve Dagster's pages of the running pipeline until Ctrl-C, when AISEG2_UI=0 leaves them out."""
    from aiseg2_pipeline.runtime import services, standard_output

    standard_output.drop_what_cannot_be_written()
    with settings_or_exit() as settings:
        sys.exit(services.serve_pages(settings, click.echo))


@main.command()
@click.option("--alert", is_flag=True, help="Send a test message to every service of AISEG2_ALERT_URLS.")
def doctor(*, alert: bool) -> None:
    """Check everything that the pipeline needs, and print what to do where a check fails."""
    from aiseg2_pipeline.cli import doctor as examination

    with errors_or_exit():
        passed = examination.examine(utc_now, click.echo, alert=alert)
    sys.exit(0 if passed else 1)


@main.command()
def health() -> None:
    """Check the pipeline's own processes, as Docker does every minute. It takes a quarter of a second."""
    from aiseg2_pipeline.runtime import health as processes

    with settings_or_exit() as settings:
        problems = processes.problems(settings, utc_now())
    if problems:
        raise click.ClickException(" ".join(problems))
    click.echo("The code server answers, and the daemon works.")


@main.command()
@click.option("--host", default="127.0.0.1", help="The address to listen on.")
@click.option("--port", type=click.IntRange(1, 65535), help="Default: AISEG2_SIMULATOR_PORT.")
@click.option("--seed", type=int, default=1, help="The random seed of the household.")
@click.option("--latency-ms", type=click.FloatRange(min=0), default=0, help="The delay of each answer.")
@click.option("--sd-card", is_flag=True, help="With an SD card that holds the last 60 days.")
@click.option("--rooms/--no-rooms", default=True, help="Two rooms with sensors, or none.")
@click.option("--battery", is_flag=True, help="With a storage battery, on the live pages only.")
@click.option("--start", type=Moment(), help="The time that its clock starts at; default: now.")
@click.option("--speed", type=click.FloatRange(min=0), default=1.0, help="The speed of its clock; 1 is real time.")
@click.option("--fault-rate", type=click.FloatRange(0, 1), default=0, help="The share of requests that fail.")
@click.option("--fault-seed", type=int, default=1, help="The random seed of the faults.")
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
    """Serve a simulated AiSEG2: the device's web pages with a simulated household, until Ctrl-C."""
    from aiseg2_pipeline.simulator import DEFAULT_PASSWORD, DEFAULT_USER, server
    from aiseg2_pipeline.simulator.faults import ALL, Faults
    from aiseg2_pipeline.simulator.household import Household
    from aiseg2_pipeline.simulator.rooms import ROOMS

    if kinds and not fault_rate:
        raise click.UsageError("--faults needs --fault-rate: set the share of requests that fail, such as 0.05.")
    if port is None:
        with settings_or_exit() as settings:
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
