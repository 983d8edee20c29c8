"""Starts Dagster's daemon or webserver as one that looks at the code server every 20 seconds, not every second.

Each look is a new connection, from both, answered by the code server: half of what the three cost while nothing runs.
What they look for is a code server that was replaced, and ours never is without them. The interval is a private
name of Dagster's; where that is gone, they look every second again.

    python -m aiseg2_pipeline.orchestration.calm dagster_webserver <its arguments>
"""

import runpy
import sys

from dagster._grpc import server_watcher

ATTRIBUTE = "WATCH_INTERVAL"
WATCH_S = 20


def main() -> None:
    """Run the module that the first argument names, with the arguments that follow."""
    if hasattr(server_watcher, ATTRIBUTE):
        setattr(server_watcher, ATTRIBUTE, WATCH_S)
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
