"""What the warm process imports before the first run is forked from it: all that a run imports, and the definitions.

Nothing is opened here, for what is open would be shared by all runs. A module that cannot be imported is left to the
run itself, which then says so.
"""

import gc
from importlib import import_module

from aiseg2_pipeline.dagster_internals import RUN_MODULES
from aiseg2_pipeline.logs import log_warning

# What is imported only once a run goes.
MODULES = (
    *RUN_MODULES,
    "multiprocessing.popen_forkserver",
    "multiprocessing.queues",
    "multiprocessing.synchronize",
    "sqlalchemy.dialects.sqlite",
    "upath.implementations.local",
    "aiseg2_pipeline.runtime.run_coordinator",
)


def preload() -> None:
    """Import the modules and resolve the definitions; say in one line what could not be."""
    for name in MODULES:
        try:
            import_module(name)
        except Exception as error:  # noqa: BLE001 - any other than ImportError would end the warm process
            log_warning(
                f"{name} is not preloaded, so every run takes longer ({error}): install the pipeline's own versions again."
            )
    try:
        import_module("aiseg2_pipeline.definitions").defs.get_repository_def().get_all_jobs()
    except Exception:  # noqa: BLE001 - as above
        log_warning(
            "The definitions are not preloaded, so every run takes longer: look at what the first run says."
        )
    # Objects that the collector does not touch stay shared with the runs.
    gc.freeze()


preload()
