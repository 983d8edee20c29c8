"""The stores as the page opens them: read-only, for one request, whatever state their files are in.

A file is opened anew for each request, because the path of a store that was damaged leads to another file afterwards.
"""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from aiseg2_pipeline.settings import Settings
from aiseg2_pipeline.store.queries import TABLES_VERSION, Queries

UPGRADING = "The record is being upgraded to this version of aiseg2-pipeline: try again in a minute."
UNREADABLE = "The record cannot be read: run `aiseg2-pipeline doctor`, which says why."


class UnavailableError(Exception):
    """A store cannot be read now; the message is one sentence, and `code` the state that the page shows."""

    def __init__(self, code: str, sentence: str) -> None:
        """Use this code and this sentence."""
        super().__init__(sentence)
        self.code = code


class Record:
    """The stores of these settings. Each is None while it has no table, as before the first reading."""

    def __init__(self, settings: Settings) -> None:
        """Open nothing yet."""
        self.settings = settings

    @contextlib.contextmanager
    def readings(self) -> Iterator[Queries | None]:
        """Open the store of readings. Raise UnavailableError, also for what SQLite raises meanwhile."""
        with _opened(self.settings.store_path) as queries:
            yield queries

    @contextlib.contextmanager
    def energy(self) -> Iterator[Queries | None]:
        """Open the store of energy, as `readings` does."""
        with _opened(self.settings.energy_path) as queries:
            yield queries


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Queries | None]:
    if not path.exists():
        yield None
        return
    try:
        with Queries(path) as queries:
            version = queries.tables_version()
            if 0 < version < TABLES_VERSION:
                raise UnavailableError("upgrading", UPGRADING)
            if version > TABLES_VERSION:
                raise UnavailableError("unreadable", UNREADABLE)
            yield queries if version else None
    except sqlite3.Error as error:
        raise UnavailableError("unreadable", UNREADABLE) from error
