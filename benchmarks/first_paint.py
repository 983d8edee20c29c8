"""Measure what a browser needs to show the household's page: its weight, the time to the first paint, and to the last answer.

Each page is opened with an empty cache in a new context of Chromium, from the process and with the record of `page`.
The weight is that of all files of a page, by gzip, without the answers of the API.

    python -m benchmarks.first_paint
"""

import gzip
import tempfile
from pathlib import Path
from statistics import median
from typing import NamedTuple

from playwright.sync_api import Browser, Response

from aiseg2_pipeline_tests.support import browser
from aiseg2_pipeline_tests.support.page import served
from benchmarks.page import make_record
from benchmarks.side import markdown, say

PAGES = ("/", "/day", "/month", "/year", "/record")
REPEATS = 7
FIRST_PAINT = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
LAST_ANSWER = "Math.max(...performance.getEntriesByType('resource').map((one) => one.responseEnd))"


class Opened(NamedTuple):
    """One opening of a page."""

    paint_ms: float
    last_ms: float
    weight: int


def opened(chromium: Browser, url: str, path: str) -> Opened:
    """Open the page with an empty cache."""
    with browser.visit(chromium, url, phone=True) as visited:
        files: list[Response] = []
        visited.page.on("response", lambda one: files.append(one) if "/api/" not in one.url else None)
        page = visited.open(path)
        weight = sum(len(gzip.compress(one.body())) for one in files)
        return Opened(float(page.evaluate(FIRST_PAINT)), float(page.evaluate(LAST_ANSWER)), weight)


def main() -> None:
    """Print the table."""
    rows = []
    with tempfile.TemporaryDirectory() as folder, browser.chromium() as chromium:
        make_record(data := Path(folder) / "data")
        with served(data) as page:
            for path in PAGES:
                say(path)
                times = [opened(chromium, page.url, path) for _ in range(REPEATS)]
                paint, last, weight = map(median, zip(*times, strict=True))
                least = min(one.paint_ms for one in times)
                rows.append(
                    [path, f"{paint:.0f} ms", f"{least:.0f} ms", f"{last:.0f} ms", f"{weight / 1000:.0f} kB"]
                )
    print(markdown(["page", "first paint", "the fastest", "last answer", "weight, gzipped"], rows))


if __name__ == "__main__":
    main()
