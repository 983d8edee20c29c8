"""What can go wrong between us and the device, as a person would sort it.

Each message is one sentence that names the page, the element or the setting, and says what to do.
A message never holds a password, a header or a piece of a page longer than a few characters.
"""


class Aiseg2Error(Exception):
    """Anything that keeps a reading from being taken from the device."""


class Unreachable(Aiseg2Error):  # noqa: N818 - the design's word; it reads as a state of the device
    """No usable answer: nothing listens, it took too long, it answered 5xx, 4xx or a redirect."""


class Refused(Aiseg2Error):  # noqa: N818 - as above
    """The device refused the login."""


class Unreadable(Aiseg2Error):  # noqa: N818 - as above
    """An answer came, but it is not the page that was asked for, or an element of it is missing."""


class NoData(Aiseg2Error):  # noqa: N818 - as above
    """The page is right, but the device has no reading to show."""
