"""Readings to store, and processes that use a store. Damage to its file is in `damage`."""

import multiprocessing
import os
import signal
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from typing import Any

import pandas as pd
import pytest

from aiseg2_pipeline.frames.readings import Row, frame
from aiseg2_pipeline.store import Destination

START = datetime(2026, 3, 1, 9, tzinfo=UTC)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
INFLUX = Destination("https://influx.example", "home", "power")

# Forked, a process has no store open and starts at once; spawned, it starts as the pipeline's processes do.
FORK, SPAWN = multiprocessing.get_context("fork"), multiprocessing.get_context("spawn")


def readings(start: datetime, count: int = 1, watts: float = 100.0, circuits: int = 3) -> pd.DataFrame:
    """Return the readings of `count` minutes: two totals and the circuits."""
    rows = []
    for time in (start + n * MINUTE for n in range(count)):
        rows += [Row(time, "total", name, watts / 1000, "kW", 0) for name in ("総消費電力", "売買電力")]
        rows += [Row(time, "usage", f"回路{n}", watts + n, "W", 0) for n in range(circuits)]
    return frame(rows)


def record_connections(monkeypatch: pytest.MonkeyPatch) -> list[sqlite3.Connection]:
    """Return a list that gets each SQLite connection that is opened from now on."""
    opened: list[sqlite3.Connection] = []

    def connect(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        opened.append(sqlite3.Connection(*args, **kwargs))
        return opened[-1]

    monkeypatch.setattr(sqlite3, "connect", connect)
    return opened


def in_another_process(work: Callable[..., None], *arguments: Any) -> int:
    """Run it in another process, where closing a file drops no locks of this process; return the exit code."""
    process = FORK.Process(target=work, args=arguments)
    process.start()
    process.join()
    return process.exitcode or 0


def kill_this_process() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Reporter:
    """A process that runs `work(*arguments, connection)` and sends what it has done over the connection."""

    def __init__(self, context: BaseContext, work: Callable[..., None], *arguments: Any) -> None:
        self.reports: list[Any] = []
        self._receiver: Connection[Any, Any]
        self._receiver, sender = context.Pipe(duplex=False)
        self.process = context.Process(target=work, args=(*arguments, sender), daemon=True)  # type: ignore[attr-defined]
        self.process.start()
        sender.close()

    def receive(self, count: int) -> None:
        """Wait for that many reports."""
        self.reports += [self._receiver.recv() for _ in range(count)]

    def kill(self) -> list[Any]:
        """Kill the process; return all that it reported."""
        self.process.kill()
        self.process.join()
        with suppress(EOFError):
            while True:
                self.receive(1)
        return self.reports
