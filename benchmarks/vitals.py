"""Sample the memory, files, sockets and threads of each process, and the disk, from Linux's /proc.

The table's last column is the growth in an hour. The limits of growth belong in `soak`.
"""

import csv
import os
import re
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from statistics import median
from typing import Self

import numpy as np

from benchmarks.processes import Tree
from benchmarks.side import markdown

MINUTE_S = 60
HOUR_S = 3600
MB = 1e6
# The value at a moment is the median of the samples around it: a run that happens to be active must not count.
AROUND_S = 60
_STATUS = re.compile(r"^(VmRSS|Threads):\s*(\d+)", re.MULTILINE)
_MEMORY = re.compile(r"^(Pss|Anonymous):\s*(\d+)", re.MULTILINE)


@dataclass(frozen=True)
class Vitals:
    """The resources that the processes of one role use together.

    RSS counts shared pages in each process, PSS divides them; `anonymous_mb` is the memory that the processes allocated
    themselves, where a leak shows.
    """

    processes: int = 0
    pss_mb: float = 0.0
    rss_mb: float = 0.0
    anonymous_mb: float = 0.0
    files: int = 0
    sockets: int = 0
    threads: int = 0

    def __add__(self, other: Self) -> "Vitals":
        """Return the sums of two roles."""
        return Vitals(*(mine + its for mine, its in zip(astuple(self), astuple(other), strict=True)))


@dataclass(frozen=True)
class Sample:
    """A sample: seconds since the start, the vitals by role, and MB on disk by kind."""

    at_s: float
    by_role: dict[str, Vitals]
    disk_mb: dict[str, float]


MEASURES = {
    "pss_mb": "PSS MB",
    "anonymous_mb": "own MB",
    "files": "files",
    "sockets": "sockets",
    "threads": "threads",
}


def sample(tree: Tree, data: Path, at_s: float) -> Sample:
    """Sample the processes of the tree and the data directory."""
    by_role: dict[str, Vitals] = defaultdict(Vitals)
    for pid, role in tree.roles():
        with suppress(FileNotFoundError, ProcessLookupError):
            # It may end meanwhile.
            by_role[role] += _vitals(Path("/proc") / str(pid))
    return Sample(at_s, dict(by_role), _disk_mb(data))


def _vitals(process: Path) -> Vitals:
    status = dict(_STATUS.findall((process / "status").read_text(encoding="utf-8", errors="replace")))
    memory = dict(_MEMORY.findall((process / "smaps_rollup").read_text(encoding="utf-8", errors="replace")))
    opened = []
    for descriptor in (process / "fd").iterdir():
        with suppress(FileNotFoundError):
            opened.append(str(descriptor.readlink()))
    sockets = sum(name.startswith("socket:") for name in opened)
    return Vitals(
        processes=1,
        pss_mb=int(memory.get("Pss", 0)) / 1024,
        rss_mb=int(status.get("VmRSS", 0)) / 1024,
        anonymous_mb=int(memory.get("Anonymous", 0)) / 1024,
        files=len(opened) - sockets,
        sockets=sockets,
        threads=int(status.get("Threads", 0)),
    )


def _disk_mb(data: Path) -> dict[str, float]:
    sizes: dict[str, float] = {"data directory": 0.0, "Dagster's home": 0.0, "write-ahead logs": 0.0}
    for folder, _, names in os.walk(data):
        home = "Dagster's home" if "dagster" in Path(folder).relative_to(data).parts else "data directory"
        for name in names:
            with suppress(FileNotFoundError):
                # A write-ahead log does not shrink until its last connection is closed.
                kind = "write-ahead logs" if name.endswith("-wal") else home
                sizes[kind] += (Path(folder) / name).stat().st_size / MB
    return sizes


@dataclass(frozen=True)
class Line:
    """One measure over time: its name and unit, and (seconds, value) of each sample."""

    name: str
    measure: str
    points: Sequence[tuple[float, float]]

    def at(self, second: float) -> float | None:
        """Return the median around a moment; None without a sample."""
        near = [value for at_s, value in self.points if abs(at_s - second) <= AROUND_S]
        return median(near) if near else None

    @property
    def peak(self) -> float:
        """Return the highest value."""
        return max(value for _, value in self.points)

    def growth_an_hour(self, since_s: float) -> float | None:
        """Return the growth in an hour, from a line through the medians of the minutes since then.

        None for fewer than five minutes, and for runs, which are sampled at any moment of their short lives.
        """
        minutes: dict[int, list[float]] = defaultdict(list)
        for at_s, value in self.points:
            if at_s >= since_s:
                minutes[int(at_s // MINUTE_S)].append(value)
        if len(minutes) < 5 or self.name == "run":  # noqa: PLR2004 - see above
            return None
        hours = [minute * MINUTE_S / HOUR_S for minute in minutes]
        return float(np.polyfit(hours, [median(values) for values in minutes.values()], 1)[0])


def lines(samples: Sequence[Sample]) -> list[Line]:
    """Return every measure of every role, and of the disk."""
    roles = sorted({role for sample in samples for role in sample.by_role})
    found = [
        Line(
            role,
            title,
            [
                (sample.at_s, float(getattr(sample.by_role[role], name)))
                for sample in samples
                if role in sample.by_role
            ],
        )
        for name, title in MEASURES.items()
        for role in roles
    ]
    disk = sorted({kind for sample in samples for kind in sample.disk_mb})
    return found + [Line(kind, "MB on disk", [(one.at_s, one.disk_mb[kind]) for one in samples]) for kind in disk]


def table(found: Sequence[Line], marks_s: Sequence[float], since_s: float) -> str:
    """Return the lines as a table: at some moments, at their peak, and their growth in an hour after `since_s`."""
    head = ["", "measure", *(f"{mark / MINUTE_S:.0f} min" for mark in marks_s), "peak", "an hour"]
    return markdown(head, (_row(line, marks_s, since_s) for line in found))


def _row(line: Line, marks_s: Sequence[float], since_s: float) -> list[str]:
    digits = {"MB on disk": 2, "PSS MB": 1, "own MB": 1}.get(line.measure, 0)
    numbers = [*map(line.at, marks_s), line.peak]
    growth = line.growth_an_hour(since_s)
    return [
        line.name,
        line.measure,
        *("–" if number is None else f"{number:.{digits}f}" for number in numbers),
        "–" if growth is None else f"{growth:+.2f}",
    ]


def save(samples: Sequence[Sample], path: Path) -> None:
    """Write all samples as CSV, a line for each role and sample."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["at_s", "role", *(field.name for field in fields(Vitals))])
        for sample in samples:
            for role, vitals in sample.by_role.items():
                writer.writerow([f"{sample.at_s:.1f}", role, *astuple(vitals)])
            for kind, size_mb in sample.disk_mb.items():
                writer.writerow([f"{sample.at_s:.1f}", kind, "", f"{size_mb:.3f}"])


def draw(samples: Sequence[Sample], events: Sequence[tuple[float, str]], path: Path) -> None:
    """Draw the memory of each role over the time, with a mark at each event."""
    import matplotlib as mpl  # noqa: PLC0415 - slow to import, and needed once

    mpl.use("agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415 - as above

    figure, axes = plt.subplots(figsize=(14, 7), layout="constrained")
    for line in lines(samples):
        if line.measure == MEASURES["pss_mb"]:
            style = "." if line.name == "run" else "-"
            axes.plot(
                [at_s / MINUTE_S for at_s, _ in line.points], [mb for _, mb in line.points], style, label=line.name
            )
    for at_s, what in events:
        axes.axvline(at_s / MINUTE_S, color="0.8", linewidth=0.8, zorder=0)
        axes.text(
            at_s / MINUTE_S, axes.get_ylim()[1], what, rotation=90, fontsize=6, va="top", ha="right", color="0.4"
        )
    axes.set(xlabel="minutes", ylabel="PSS MB", title="Memory by process")
    axes.set_ylim(bottom=0)
    axes.legend(loc="center right", fontsize=8)
    figure.savefig(path, dpi=110)
