"""The errors that reading the device can raise, by what a person can do about them.

Each message names the page, the element or the setting, and says what to do. It never holds a password, a header or
more than a few characters of a page.
"""


class Aiseg2Error(Exception):
    """Any failure to take a reading from the device."""


class Unreachable(Aiseg2Error):  # noqa: N818 - the name describes the state of the device
    """No usable response: no server, a timeout, or the status 5xx, 4xx or a redirect."""


class Refused(Aiseg2Error):  # noqa: N818 - as above
    """The device refused the login."""


class Unreadable(Aiseg2Error):  # noqa: N818 - as above
    """The response is not the requested page, or an element of the page is missing."""


class NoData(Aiseg2Error):  # noqa: N818 - as above
    """The page is valid, but the device has no reading for it."""
