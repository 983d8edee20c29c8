"""Start the process that stores the past of the demo's simulated home: beside the services, and only at the first start.

It is no service, because the services end when one of them ends.
"""

import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from aiseg2_pipeline.gaps import simulated
from aiseg2_pipeline.runtime import parent_watch
from aiseg2_pipeline.settings import Settings, SettingsError

PROGRAM = "aiseg2_pipeline.demo.past"


def check_home(settings: Settings) -> None:
    """Raise SettingsError for a real device where a simulated home's past is stored: the rows would be mixed."""
    if simulated.has_begun(settings.data_dir) and not settings.simulated:
        raise SettingsError(
            f"The data directory {settings.data_dir} has readings of a simulated home (AISEG2_DEMO): set AISEG2_DATA_DIR to another folder "
            "for a real AiSEG2."
        )


def start_past(settings: Settings, variables: Mapping[str, str], lock: Path, say: Callable[[str], None]) -> None:
    """Start the process if a past is to be stored; it ends with the supervisor that holds `lock`."""
    check_home(settings)
    if not settings.simulated:
        return
    # Before the definitions are loaded, because the first partition is stored here.
    simulated.begin(settings.data_dir, settings.first_partition_path, settings.store_path, datetime.now(UTC))
    if simulated.due(settings.data_dir):
        say("A year of the simulated home is being computed; all of it is there within a few minutes.")
        command = [sys.executable, "-m", parent_watch.__name__, str(lock), "", PROGRAM]
        # A group of its own, which `parent_watch` ends.
        process = subprocess.Popen(command, env=variables, start_new_session=True)  # noqa: S603 - our own module
        threading.Thread(target=process.wait, daemon=True).start()
