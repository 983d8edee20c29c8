"""Columns as CSV for a spreadsheet.

A cell that begins like a formula would be computed by the spreadsheet, so a text gets an apostrophe before it, as OWASP
recommends. Names come from the device.
"""

import csv
import io
from collections.abc import Mapping
from typing import Any

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
# Lists of objects; the bills of months are in JSON only.
NESTED = ("circuits", "series", "bill")
# Without it, Excel reads UTF-8 as another encoding.
_BYTE_ORDER_MARK = "\ufeff"


def csv_text(content: Mapping[str, Any]) -> str:
    """Return the columns of an answer, and those of its circuits or series by their names."""
    columns = {name: values for name, values in content.items() if isinstance(values, list) and name not in NESTED}
    for one in content.get("circuits") or content.get("series") or ():
        name, number = _safe(one["name"]), 1
        while name in columns:
            number += 1
            name = f"{_safe(one['name'])} ({number})"
        columns[name] = one.get("kwh") or one.get("mean")
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(columns)
    writer.writerows([_safe(value) for value in row] for row in zip(*columns.values(), strict=True))
    return _BYTE_ORDER_MARK + file.getvalue()


def _safe(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, bool):
        return int(value)
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
