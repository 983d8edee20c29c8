"""The answer `cost`: yen by hour or day from the stored costs, and by month as the bill has them."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aiseg2_pipeline.store.queries import Queries
from aiseg2_pipeline.tariff.bill import Bill, bill_of_month
from aiseg2_pipeline.tariff.calendar import period_of_month
from aiseg2_pipeline.tariff.cost import KINDS, Markets, hours_of_rows
from aiseg2_pipeline.tariff.load import load_markets, load_tariff
from aiseg2_pipeline.tariff.plans import Tariff
from aiseg2_pipeline.web.record import Record
from aiseg2_pipeline.web.times import HOUR_S, JAPAN, By, iso, parsed, periods

COST = "cost"
NAMES = ("bought", "sold", "saved")


class Costs:
    """Answers `cost`; the tariff file is read again when it has changed."""

    def __init__(self, record: Record, path: Path) -> None:
        """Use these stores and this tariff file."""
        self._record, self._path = record, path
        self._known: tuple[float, Tariff, Markets] | None = None

    def answer(self, by: By, spans: Sequence[tuple[int, int]], now_s: float) -> dict[str, Any]:
        """Return the columns of these periods. Raise TariffError."""
        with self._record.energy() as queries:
            if by == "month":
                return self._months(queries, spans, now_s)
            sums: dict[str, dict[int, float]] = {name: {} for name in NAMES}
            hours: dict[int, int] = defaultdict(int)
            for one in queries.sums([COST], HOUR_S, spans) if queries else ():
                if one.name in sums:
                    sums[one.name][one.start] = round(one.sum, 2)
                    hours[one.start] += one.n if one.name == "bought" else 0
        expected = [max(0, int(min(end, now_s) - start) // HOUR_S) for start, end in spans]
        return {
            "start": [iso(start) for start, _ in spans],
            **{f"{name}_yen": [sums[name].get(start) for start, _ in spans] for name in NAMES},
            "missing_hours": [
                max(0, count - hours[start]) for count, (start, _) in zip(expected, spans, strict=True)
            ],
        }

    def _months(self, queries: Queries | None, spans: Sequence[tuple[int, int]], now_s: float) -> dict[str, Any]:
        """Return a billing period for each calendar month, in which the period ends."""
        tariff, markets = self._tariff()
        bills = [_bill(queries, tariff, markets, start, now_s) for start, _ in spans]
        saved = [
            queries.sums([COST], HOUR_S, [(_time(bill.period.first), _time(bill.period.end))]) if queries else []
            for bill in bills
        ]
        sums = [{one.name: round(one.sum, 2) for one in of} for of in saved]
        return {
            "start": [iso(_time(bill.period.first)) for bill in bills],
            "end": [iso(_time(bill.period.end)) for bill in bills],
            "month": [bill.period.month for bill in bills],
            "bought_yen": [of.get("bought") for of in sums],
            "sold_yen": [
                int(bill.sold_yen) if bill.sold else of.get("sold") for bill, of in zip(bills, sums, strict=True)
            ],
            "saved_yen": [of.get("saved") for of in sums],
            "total_yen": [int(bill.total_yen) if _is_known(bill) else None for bill in bills],
            "missing_hours": [bill.missing_hours for bill in bills],
            "bill": [_lines(bill) for bill in bills],
        }

    def _tariff(self) -> tuple[Tariff, Markets]:
        try:
            changed = self._path.stat().st_mtime
        except OSError:
            changed = 0.0
        if self._known is None or self._known[0] != changed:
            tariff = load_tariff(self._path)
            self._known = changed, tariff, load_markets(self._path, tariff)
        return self._known[1:]


def _bill(queries: Queries | None, tariff: Tariff, markets: Markets, month_s: int, now_s: float) -> Bill:
    period = period_of_month(f"{datetime.fromtimestamp(month_s, JAPAN):%Y-%m}", tariff.meter_day)
    start, end = _time(period.first), min(_time(period.end), int(now_s))
    sums = queries.sums(KINDS, HOUR_S, periods("hour", start, end)) if queries else []
    hours = hours_of_rows((datetime.fromtimestamp(one.start, UTC), one.kind, one.sum) for one in sums)
    return bill_of_month(tariff, period.month, hours, markets, datetime.fromtimestamp(now_s, UTC))


def _is_known(bill: Bill) -> bool:
    """Return whether any hour of the bill is known: without one it is only the base fee."""
    return any(line.kwh for line in bill.lines)


def _lines(bill: Bill) -> dict[str, Any]:
    return {
        "lines": [
            {
                "name": line.name,
                "kwh": None if line.kwh is None else float(round(line.kwh, 3)),
                "yen_per_kwh": None if line.yen_per_kwh is None else float(line.yen_per_kwh),
                "yen": float(line.yen),
            }
            for line in bill.lines
        ],
        "notes": list(bill.notes),
    }


def _time(day: Any) -> int:
    return parsed(day.isoformat())
