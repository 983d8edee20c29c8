"""A virtual AiSEG2 for people without one: a household that is a function of time, and its web interface.

This package imports nothing else of the project; other code uses it over HTTP, like a real device. The elements that
programs rely on (ids, classes, orders, quirks) are those of the real device. The history on its pages and its SD card
is computed from time too: nothing is stored, and no request changes anything.
"""

DEFAULT_USER = "aiseg"
DEFAULT_PASSWORD = "simulator"  # noqa: S105 - it protects nothing
