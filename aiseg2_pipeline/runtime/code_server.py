"""Run Dagster's code server, with runs forked from a process that has already imported their modules.

Dagster starts every run in a new Python, and imports are then nearly all of the cost of a minute. This module replaces
the multiprocessing context of its runs, a private attribute; one process a run, cancelling and crash detection stay
Dagster's. Where the attribute is missing or forking fails, runs start Dagster's way: slower, but correct.
`AISEG2_WARM_RUNS=0` chooses that.

    python -m aiseg2_pipeline.runtime.code_server <arguments of `dagster api grpc`>
"""

import contextlib
import multiprocessing
import sys
from importlib import import_module
from multiprocessing import ProcessError
from multiprocessing.context import BaseContext

from aiseg2_pipeline.dagster_internals import MissingInternalError, serve_code, set_run_context
from aiseg2_pipeline.runtime import warm_parent
from aiseg2_pipeline.runtime.dagster_tuning import cache_storage_setup, freeze_imported_objects
from aiseg2_pipeline.settings import SettingsError, load_settings

PRELOADED = "aiseg2_pipeline.runtime.preload"


def _warm_context() -> BaseContext:
    """Return a context that forks from a process with all imports done. Raise ProcessError where a trial fails."""
    context = multiprocessing.get_context("forkserver")
    # For a new Python: where the system cannot fork, or in place of a killed one, as this process has threads by then.
    context.set_forkserver_preload([PRELOADED])
    trial = context.Process()
    try:
        with warm_parent.forked_helpers() if warm_parent.CAN_FORK else contextlib.nullcontext():
            import_module(PRELOADED)
            trial.start()
        trial.join()
    except (OSError, EOFError) as error:
        raise ProcessError(
            f"the warm process does not start ({getattr(error, 'strerror', None) or 'it ended at once'})"
        ) from None
    if trial.exitcode:
        raise ProcessError(f"a process forked from the warm one ended with exit code {trial.exitcode}")
    return context


def prepare() -> None:
    """Import the definitions, and start the process that runs are forked from."""
    from aiseg2_pipeline.logs import log_warning  # noqa: PLC0415 - a run's own process does not need it

    try:
        settings = load_settings()
    except SettingsError as error:
        sys.exit(f"Error: {error}")
    cache_storage_setup()
    with contextlib.suppress(Exception):
        # Dagster imports the definitions next, and reports their errors.
        import_module("aiseg2_pipeline.definitions")
    if settings.warm_runs:
        try:
            set_run_context(_warm_context)
        except (ProcessError, MissingInternalError) as error:
            log_warning(
                f"Every run starts in a new Python, which costs some seconds each time, because {error}: start the pipeline again, or set AISEG2_WARM_RUNS=0 to choose that."
            )
    freeze_imported_objects()


def serve() -> None:
    """Serve the definitions until the process is ended."""
    try:
        serve_code()
    except MissingInternalError as error:
        sys.exit(
            f"Error: the definitions cannot be served, because {error}: install the pipeline's own versions again."
        )


def main() -> None:
    """Prepare and serve."""
    prepare()
    serve()


if __name__ == "__main__":
    main()
