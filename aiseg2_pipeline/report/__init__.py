"""A day as a picture, for whoever has no Grafana: the record of a day in, a PNG out. Nothing here knows dagster.

`day` turns frames into numbers, `font` finds letters for Japanese names, `picture` draws, and `saving` does all of it
from the stores to a file. Only `font` and `picture` import matplotlib, which is an extra and large: nothing imports
these two before a picture is wanted.
"""


class ReportError(Exception):
    """Why there is no picture, in one sentence."""


class NoReadings(ReportError):  # noqa: N818 - named for what it says
    """There is nothing to draw."""
