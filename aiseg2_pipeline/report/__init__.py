"""The daily report: a day's readings and energy as a PNG, for homes without Grafana.

`day` computes the numbers from frames, `font` finds a Japanese font, `picture` draws, and `saving` reads the stores and
writes the file. Only `font` and `picture` import matplotlib, a large extra; import them only to draw. Nothing here
imports Dagster.
"""


class ReportError(Exception):
    """The picture cannot be drawn or written."""


class NoReadings(ReportError):  # noqa: N818 - a usual condition, not an error
    """The day has no reading to draw."""
