"""The code server: Dagster's own, whose runs are forked from a process that has imported everything already.

Dagster starts every run in a new Python, and nearly all of what a minute then costs is imports. The context of its
run processes is a private attribute, which is given another one here; all else (one process a run, cancelling,
watching for crashes) stays Dagster's. Where that attribute is gone, or forking fails, runs are started Dagster's way:
slower, and right. `AISEG2_WARM_RUNS=0` chooses that.

    python -m aiseg2_pipeline.runtime.code_server <arguments of `dagster api grpc`>
"""

import contextlib
import multiprocessing
import sys
from importlib import import_module
from multiprocessing.context import BaseContext

from aiseg2_pipeline.dagster_internals import MissingInternalError, serve_code, set_run_context
from aiseg2_pipeline.runtime.dagster_tuning import leave_what_is_there_alone, look_up_files_once
from aiseg2_pipeline.settings import SettingsError, load_settings

PRELOADED = "aiseg2_pipeline.runtime.preload"


class WarmRunsError(Exception):
    """Why runs cannot be forked from a warm process, in a few words."""


def start_runs_warm() -> None:
    """Have Dagster's code server fork its runs. Raise WarmRunsError where that cannot be."""
    try:
        set_run_context(_warm_context)
    except MissingInternalError as error:
        raise WarmRunsError(str(error)) from None


def _warm_context() -> BaseContext:
    """Return a context whose processes are forked from one that has imported what a run needs."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([PRELOADED])
    trial = context.Process(target=_nothing)
    try:
        trial.start()
        trial.join()
    except (OSError, EOFError) as error:
        raise WarmRunsError(
            f"the warm process does not start ({getattr(error, 'strerror', None) or 'it ended at once'})"
        ) from None
    if trial.exitcode:
        raise WarmRunsError(f"a process forked from the warm one ended with exit code {trial.exitcode}")
    return context


def _nothing() -> None:
    """Do nothing: what a trial process runs."""


def main() -> None:
    """Serve the definitions until the process is ended."""
    from aiseg2_pipeline.logs import log_warning  # noqa: PLC0415 - a run's own process has no need of it

    try:
        settings = load_settings()
    except SettingsError as error:
        sys.exit(f"Error: {error}")
    if settings.warm_runs:
        try:
            start_runs_warm()
        except WarmRunsError as error:
            log_warning(
                f"Every run starts in a new Python, which costs some seconds each time, because {error}: start the pipeline again, or set AISEG2_WARM_RUNS=0 to choose that."
            )
    look_up_files_once()
    with contextlib.suppress(Exception):
        # Dagster imports them next, and says what is wrong with them.
        import_module("aiseg2_pipeline.definitions")
    leave_what_is_there_alone()
    try:
        serve_code()
    except MissingInternalError as error:
        sys.exit(
            f"Error: the definitions cannot be served, because {error}: install the pipeline's own versions again."
        )


if __name__ == "__main__":
    main()
