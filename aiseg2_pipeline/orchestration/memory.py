"""Keeps the memory of services flat that run for years: what would pile up in them, and was seen to by measuring.

What is the C library's to keep (its heaps) is an environment variable in `services`.
"""

import functools
import gc


def look_up_files_once() -> None:
    """Have alembic look up Dagster's files once.

    Dagster makes its storages anew for each tick, and for each of them alembic keeps something to be closed at
    exit: 5 MB a day.
    """
    from alembic import util  # noqa: PLC0415 - the daemon and the webserver have no need of it

    # An alembic without it is left as it is: growing memory is better than no start.
    if look_up := getattr(util, "coerce_resource_to_filename", None):
        util.coerce_resource_to_filename = functools.cache(look_up)


def leave_what_is_there_alone() -> None:
    """Have Python's collector pass over what has been imported until now, which lives as long as the process.

    It looks through everything only when a quarter as much is new. So some 20 MB of a service's would be garbage, the
    last of it hours after the start.
    """
    gc.collect()
    gc.freeze()
    # So that it knows how little is left to look through.
    gc.collect()
