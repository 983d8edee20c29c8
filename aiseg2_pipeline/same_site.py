"""Which requests of a browser are of this server's own pages: by their host name and their origin.

A web site whose own name resolves to this machine's address (DNS rebinding) sends that name as host, so a server answers
only to addresses, to localhost, and to the names that it is given. What a refused request gets belongs to the servers.
"""

from collections.abc import Collection
from ipaddress import ip_address
from urllib.parse import urlsplit


class SameSite:
    """The names of a server that listens on `host`, and that a proxy serves under `names`."""

    def __init__(self, host: str, names: Collection[str] = ()) -> None:
        """Accept these names, addresses and localhost."""
        self._names = {name.lower() for name in names}
        self._hosts = self._names | {"localhost", host.lower()}

    def serves(self, host: str) -> bool:
        """Return whether a Host header names this server. DNS rebinding needs a name: an address is never one of it."""
        name = hostname(f"//{host}")
        return name in self._hosts or is_address(name)

    def is_own(self, origin: str | None, host: str) -> bool:
        """Return whether an Origin header is that of this server's own pages; programs send none."""
        return (
            origin is None or origin.partition("://")[2].lower() == host.lower() or hostname(origin) in self._names
        )


def hostname(url: str) -> str:
    """Return the lower-case host of a URL without its port; empty where it is invalid."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def is_address(name: str) -> bool:
    """Return whether a name is an IP address."""
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def is_loopback(name: str) -> bool:
    """Return whether a name is this machine's own."""
    return name == "localhost" or (is_address(name) and ip_address(name).is_loopback)
