"""Reads a tariff file (TOML) and the market prices (CSV) that it names. Errors are one sentence with line and key."""

import csv
import re
import tomllib
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from zoneinfo import ZoneInfo

from pydantic import ValidationError

from aiseg2_pipeline.tariff.plans import Tariff

TOKYO = ZoneInfo("Asia/Tokyo")
MARKET_COLUMNS = ["time", "yen"]
_HEADER = re.compile(r"^\s*(\[\[?)([\w.]+)\]")
_KEY = re.compile(r"^\s*\"?([\w-]+)\"?\s*=")
_MESSAGES = {"extra_forbidden": "there is no such key", "missing": "is missing"}
# Yen per kWh by the start of a half hour (UTC).
MarketPrices = dict[datetime, Decimal]


class TariffError(Exception):
    """The tariff cannot be used; the message is one sentence."""


def load_tariff(path: Path) -> Tariff:
    """Return the tariff of a file. Raise TariffError."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise TariffError(f"The tariff {path} cannot be read ({reason}): correct AISEG2_TARIFF.") from None
    try:
        content = tomllib.loads(text, parse_float=Decimal)
        tariff = Tariff.model_validate(content)
    except tomllib.TOMLDecodeError as error:
        raise TariffError(f"The tariff {path} is no TOML: {error}.") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = tuple(part for part in first["loc"] if part != "[key]")
        names = (f"[{part + 1}]" if isinstance(part, int) else f".{part}" for part in where)
        key = "".join(names).removeprefix(".") or "plan"
        message = _MESSAGES.get(first["type"], first["msg"].removeprefix("Value error, "))
        raise TariffError(f"The tariff {path}, line {_line(text, where)}, `{key}`: {message}.") from None
    return tariff


def load_market(path: Path) -> MarketPrices:
    """Return the prices of a CSV file with the columns `time` (start of a half hour) and `yen` (of a kWh).

    A time without a zone is Japan's. Raise TariffError.
    """
    prices: MarketPrices = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            if rows.fieldnames is None or not set(MARKET_COLUMNS) <= set(rows.fieldnames):
                raise TariffError(
                    f"The market prices {path} need the columns {', '.join(MARKET_COLUMNS)}: correct the first line."
                )
            for row in rows:
                time = datetime.fromisoformat(row["time"])
                prices[(time if time.tzinfo else time.replace(tzinfo=TOKYO)).astimezone(UTC)] = Decimal(row["yen"])
    except (OSError, ValueError, InvalidOperation, TypeError) as error:
        reason = (
            error.strerror if isinstance(error, OSError) else f"line {len(prices) + 2} has no time or no number"
        )
        raise TariffError(f"The market prices {path} cannot be read ({reason}): correct the file.") from None
    return prices


def load_markets(path: Path, tariff: Tariff) -> dict[Path, MarketPrices]:
    """Return the market prices that a tariff file names; their paths are relative to it. Raise TariffError."""
    named = {price.market for plan in tariff.plan for price in plan.price if price.market}
    return {market: load_market(path.parent / market) for market in named}


def _line(text: str, where: tuple[int | str, ...]) -> int:
    """Return the line of the longest part of `where` that has one, such as ("plan", 1, "price", 0, "steps")."""
    lines = [(len(path), number) for number, path in _paths(text) if path == where[: len(path)]]
    return max(lines, key=lambda line: (line[0], -line[1]), default=(0, 1))[1]


def _paths(text: str) -> Iterator[tuple[int, tuple[int | str, ...]]]:
    """Yield the number and the path of each line with a table's header or a key; `[[…]]` counts its tables from 0."""
    table: tuple[int | str, ...] = ()
    counts: Counter[tuple[int | str, ...]] = Counter()
    for number, line in enumerate(text.splitlines(), 1):
        if header := _HEADER.match(line):
            table, names = (), header[2].split(".")
            for name in names:
                table = (*table, name)
                if header[1] == "[[" and name is names[-1]:
                    counts[table] += 1
                if table in counts:
                    table = (*table, counts[table] - 1)
            yield number, table
        elif key := _KEY.match(line):
            yield number, (*table, key[1])
