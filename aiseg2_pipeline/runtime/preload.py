"""Import, in the warm process, all modules that a run imports, and resolve the definitions, before the first fork.

Nothing is opened here, because all runs would share it. A module that cannot be imported is left to the run itself,
which then reports the error.
"""

from importlib import import_module

from aiseg2_pipeline.logs import log_warning
from aiseg2_pipeline.runtime.shared_objects import share_imported_objects
from aiseg2_pipeline.runtime.warm_parent import MODULES_OF_A_RUN


def preload() -> None:
    """Import the modules and resolve the definitions; log a warning for each that fails."""
    for name in MODULES_OF_A_RUN:
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
            "The definitions are not preloaded, so every run takes longer: see the error of the first run."
        )
    share_imported_objects()


preload()
