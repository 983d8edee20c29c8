"""A virtual AiSEG2 for people without one: a household that is a function of time, and its web interface.

It stands alone: nothing here knows the rest of the package, and the rest speaks to it over HTTP, as to a real unit.
What programs rely on (element ids, classes, orders, quirks) is built as on the real unit. What it remembers, on its
pages and on its SD card, is computed from time too: nothing is stored, and nothing that a client sends changes
anything.
"""

DEFAULT_USER = "aiseg"
DEFAULT_PASSWORD = "simulator"  # noqa: S105 - there is nothing behind it to protect
