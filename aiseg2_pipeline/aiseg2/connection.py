"""One kept-alive HTTP connection to the device: an ask goes out, an answer comes in, and it ends in time.

`requests` speaks HTTP. Added is what it leaves to its caller: one limit of time over status line, headers and body
together (a socket's own time-out starts anew with every byte), and one of size over what comes before a body. It
follows no redirect, keeps no cookie and takes no proxy from the environment. Login and trying again belong in `transport`.
"""

import http.client
import io
import re
import socket
import ssl
import warnings
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from typing import Any

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection

from aiseg2_pipeline.aiseg2 import endpoints

# Says how many seconds are left, never below 0.
Left = Callable[[], float]

_CHUNK_BYTES = 64 * 2**10
# What a status line with its headers, or a chunk with its framing, may take on the wire.
_MOST_AT_ONCE_BYTES = 512 * 2**10
_NO_TRUST = "the certificate or the TLS handshake failed"
_BASE_URL = re.compile(r"https?://(?:\[[^\[\]/?#@\s]+\]|[^\[\]/?#@:\s]+)(?::[0-9]+)?")


class BrokenError(Exception):
    """An exchange that did not come to its end: why, in a few words without anything that the peer sent."""


class DroppedError(BrokenError):
    """The connection was closed."""


class UntrustedError(BrokenError):
    """There is no TLS connection, or none to be trusted."""


class Connection:
    """A connection to `http(s)://host[:port]`; `verify` is True, False or the path of a CA file."""

    def __init__(self, base_url: str, verify: bool | str) -> None:  # noqa: FBT001 - it may also be a path
        """Open nothing yet: the first ask does."""
        if not _BASE_URL.fullmatch(base_url):
            raise ValueError("a device's address is http(s)://host[:port]")
        self._base_url = base_url
        self._limit = _Limit()
        self._session = _Session()
        # No proxy and no .netrc from the environment: the device is on the LAN and has its own login.
        self._session.trust_env = False
        self._session.verify = verify
        self._session.headers.update({"User-Agent": "aiseg2-pipeline", "Accept-Encoding": "identity"})
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))
        self._session.mount(base_url, _Adapter(self._limit))
        self.is_open = False
        """Whether the next ask goes out on a connection that was used before."""

    def close(self) -> None:
        """Close the connection; the next ask opens another one."""
        self._session.close()
        self.is_open = False

    def ask(self, ask: endpoints.Ask, authorization: str | None, left_s: Left) -> "Answer":
        """Send an ask, and return its answer once its headers are there; read its body before the next ask.

        Raise BrokenError; DroppedError where the device may not have seen the ask.
        """
        # The one place that writes to the device: nothing that `endpoints` does not know comes past this line.
        method, target, body = endpoints.wire(ask)
        headers = {}
        if body is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        if authorization is not None:
            headers["Authorization"] = authorization
        self._limit.left_s = left_s
        if isinstance(self._session.verify, str) and not Path(self._session.verify).exists():
            raise UntrustedError(_NO_TRUST)
        with self.closed_when_broken(), warnings.catch_warnings():
            # Who sets AISEG2_TLS_VERIFY=0 has been told what it means, and not by a warning each minute.
            warnings.simplefilter("ignore", urllib3.exceptions.InsecureRequestWarning)
            response = self._session.request(
                method,
                self._base_url + target,
                data=body,
                headers=headers,
                timeout=self._limit.seconds(),
                allow_redirects=False,
                stream=True,
            )
        self.is_open = True
        return Answer(self, response, self._limit)

    @contextmanager
    def closed_when_broken(self) -> Iterator[None]:
        """Close the connection where what is done with it fails, and say why in our words."""
        try:
            yield
        except BaseException as error:
            self.close()
            if isinstance(error, OSError | http.client.HTTPException | ValueError | urllib3.exceptions.HTTPError):
                raise _told(error) from None
            raise


class Answer:
    """An answer whose headers are there: its `status`, its headers, and its body, to be read once."""

    def __init__(self, connection: Connection, response: requests.Response, limit: "_Limit") -> None:
        """Read nothing yet."""
        self.status = response.status_code
        self._connection = connection
        self._response = response
        self._limit = limit

    def header(self, name: str) -> str:
        """Return a header's value, empty where there is none."""
        return self._response.headers.get(name) or ""

    def body(self) -> Generator[bytes, None, None]:
        """Yield the body as it comes. Raise BrokenError where it ends too soon or not in time."""
        whole = False
        try:
            with self._connection.closed_when_broken():
                while part := self._response.raw.read(_CHUNK_BYTES, decode_content=False):
                    self._limit.taken_bytes = 0
                    yield part
            self._response.raw.release_conn()
            whole = True
        finally:
            if not whole:
                self._response.close()
                self._connection.close()


class _Session(requests.Session):
    def get_redirect_target(self, _: requests.Response) -> None:
        """Follow nothing: requests would read the whole body and the address even where it need not go there."""


class _Limit:
    """What an exchange may still take, of time and of bytes at once."""

    def __init__(self) -> None:
        self.left_s: Left = lambda: 0.0
        self.taken_bytes = 0

    def seconds(self) -> float:
        """Return the seconds left. Raise TimeoutError at 0, which a socket would take for `do not wait`."""
        if seconds := self.left_s():
            return seconds
        raise TimeoutError


class _Adapter(HTTPAdapter):
    """requests' adapter, whose one connection reads within a limit."""

    def __init__(self, limit: _Limit) -> None:
        self._limit = limit
        super().__init__(pool_connections=1, pool_maxsize=1)

    def init_poolmanager(self, connections: int, maxsize: int, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(connections, maxsize, *args, **kwargs)

        def response_class(*args: Any, **kwargs: Any) -> _Response:
            return _Response(*args, limit=self._limit, **kwargs)

        class Http(urllib3.HTTPConnectionPool):
            ConnectionCls = type("Http", (HTTPConnection,), {"response_class": staticmethod(response_class)})

        class Https(urllib3.HTTPSConnectionPool):
            ConnectionCls = type("Https", (HTTPSConnection,), {"response_class": staticmethod(response_class)})

        self.poolmanager.pool_classes_by_scheme = {"http": Http, "https": Https}


class _Response(http.client.HTTPResponse):
    """A response that is read within a limit, in however small pieces it comes."""

    def __init__(self, sock: socket.socket, *args: Any, limit: _Limit, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        limit.taken_bytes = 0
        self.fp = io.BufferedReader(_Source(self.fp.detach(), sock, limit))


class _Source(io.RawIOBase):
    """What a socket gives until the time is up, and not without limit at once: headers, or chunks that have no size."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, limit: _Limit) -> None:
        super().__init__()
        self._raw, self._sock, self._limit = raw, sock, limit

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if self._limit.taken_bytes > _MOST_AT_ONCE_BYTES:
            raise http.client.HTTPException
        self._sock.settimeout(self._limit.seconds())
        taken: int = self._raw.readinto(buffer)
        self._limit.taken_bytes += taken
        return taken

    def close(self) -> None:
        self._raw.close()
        super().close()


def _told(error: BaseException) -> BrokenError:
    """Return a failure in our words, whichever library's error it is wrapped in."""
    seen: BaseException | None = error
    while seen is not None:
        for kinds, broken, words in _CAUSES:
            if isinstance(seen, kinds):
                return broken(words)
        inner = getattr(seen, "reason", None) or next(
            (one for one in seen.args if isinstance(one, Exception)), None
        )
        seen = inner if isinstance(inner, BaseException) else seen.__cause__ or seen.__context__
    return BrokenError("what it sent is no HTTP")


# More special kinds stand first.
_CAUSES: tuple[tuple[tuple[type[BaseException], ...], type[BrokenError], str], ...] = (
    ((urllib3.exceptions.NameResolutionError,), BrokenError, "its name is not known"),
    ((requests.exceptions.InvalidURL, UnicodeError), BrokenError, "that is no address"),
    ((urllib3.exceptions.NewConnectionError,), BrokenError, "nothing listens there"),
    ((urllib3.exceptions.ConnectTimeoutError,), BrokenError, "it took too long to connect"),
    ((urllib3.exceptions.ReadTimeoutError, TimeoutError), BrokenError, "it took too long"),
    ((urllib3.exceptions.IncompleteRead, http.client.IncompleteRead), BrokenError, "the answer was cut short"),
    ((ssl.SSLEOFError, ssl.SSLZeroReturnError), DroppedError, "the connection was dropped"),
    ((ssl.SSLError, urllib3.exceptions.SSLError), UntrustedError, _NO_TRUST),
    ((ConnectionError,), DroppedError, "the connection was dropped"),
)
