"""One kept-alive HTTP connection to the device: a request is sent, and its response is read within a time limit.

urllib3 implements HTTP. This module adds one time limit over status line, headers and body together (a socket's
timeout restarts with every byte), and a size limit on the bytes that precede a body. No redirect is followed, no
cookie is kept, and proxies and logins of the environment are ignored. Login and retries belong in `transport`.
"""

import http.client
import io
import re
import socket
import ssl
import warnings
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import urllib3
from requests.utils import DEFAULT_CA_BUNDLE_PATH
from urllib3 import exceptions

from aiseg2_pipeline.aiseg2.endpoints import Endpoint, http_request

# Returns the seconds left, never below 0.
Left = Callable[[], float]

_CHUNK_BYTES = 64 * 2**10
# The most that a status line with its headers, or a chunk with its framing, may have.
_MAX_BYTES_AT_ONCE = 512 * 2**10
_HEADERS = {
    "User-Agent": "aiseg2-pipeline",
    "Accept": "*/*",
    "Accept-Encoding": "identity",
    "Connection": "keep-alive",
}
_NO_TRUST = "the certificate or the TLS handshake failed"
_BASE_URL = re.compile(r"https?://(?:\[[^\[\]/?#@\s]+\]|[^\[\]/?#@:\s]+)(?::[0-9]+)?")


class BrokenError(Exception):
    """A failed exchange; the reason in a few words, without any data of the peer."""


class DroppedError(BrokenError):
    """The connection was closed."""


class UntrustedError(BrokenError):
    """There is no TLS connection, or its certificate is not trusted."""


class Connection:
    """A connection to `http(s)://host[:port]`; `verify` is True, False or the path of a CA file."""

    def __init__(self, base_url: str, verify: bool | str) -> None:  # noqa: FBT001 - it may also be a path
        """Prepare the connection; the first request opens it."""
        if not _BASE_URL.fullmatch(base_url):
            raise ValueError("a device's address is http(s)://host[:port]")
        self._base_url = base_url
        self._verify = verify
        self._limit = _Limit()
        self._pool: urllib3.HTTPConnectionPool | None = None
        self.is_open = False
        """Whether the next request uses a connection that has been used before."""

    def close(self) -> None:
        """Close the connection; the next request opens a new one."""
        if self._pool is not None:
            self._pool.close()
        self._pool = None
        self.is_open = False

    def send(self, endpoint: Endpoint, authorization: str | None, left_s: Left) -> urllib3.BaseHTTPResponse:
        """Send a request, and return its response once the headers have arrived; `read` it before the next request.

        Raise BrokenError; DroppedError where the device may not have received the request.
        """
        # The only place that writes to the device: every request is one that `endpoints` defines.
        method, target, body = http_request(endpoint)
        headers = dict(_HEADERS)
        if body is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        if authorization is not None:
            headers["Authorization"] = authorization
        self._limit.left_s = left_s
        if isinstance(self._verify, str) and not Path(self._verify).exists():
            raise UntrustedError(_NO_TRUST)
        with self._closed_when_broken(), warnings.catch_warnings():
            # AISEG2_TLS_VERIFY=0 is a deliberate choice: no warning every minute.
            warnings.simplefilter("ignore", exceptions.InsecureRequestWarning)
            self._pool = self._pool or self._new_pool()
            response: urllib3.BaseHTTPResponse = self._pool.urlopen(
                method,
                target,
                body=body,
                headers=headers,
                timeout=self._limit.seconds(),
                retries=False,
                redirect=False,
                preload_content=False,
            )
        self.is_open = True
        return response

    def read(self, response: urllib3.BaseHTTPResponse) -> Generator[bytes, None, None]:
        """Yield a response's body in parts as it arrives. Raise BrokenError where it ends too early or too late."""
        complete = False
        try:
            with self._closed_when_broken():
                while part := response.read(_CHUNK_BYTES, decode_content=False):
                    self._limit.taken_bytes = 0
                    yield part
            response.release_conn()
            complete = True
        finally:
            if not complete:
                response.close()
                self.close()

    def _new_pool(self) -> urllib3.HTTPConnectionPool:
        tls: dict[str, Any] = {}
        if self._base_url.startswith("https:"):
            ca_file = self._verify if isinstance(self._verify, str) else DEFAULT_CA_BUNDLE_PATH
            tls = (
                {"ca_certs": ca_file, "cert_reqs": "CERT_REQUIRED"} if self._verify else {"cert_reqs": "CERT_NONE"}
            )
        pool = urllib3.connection_from_url(self._base_url, maxsize=1, **tls)
        limited = staticmethod(partial(_Response, limit=self._limit))
        pool.ConnectionCls = type("Limited", (pool.ConnectionCls,), {"response_class": limited})
        return pool

    @contextmanager
    def _closed_when_broken(self) -> Iterator[None]:
        """Close the connection on any exception, and raise a library's error as a BrokenError."""
        try:
            yield
        except BaseException as error:
            self.close()
            if isinstance(error, OSError | http.client.HTTPException | ValueError | exceptions.HTTPError):
                raise _broken(error) from None
            raise


class _Limit:
    """The time left for an exchange, and the bytes read since the last part of a body."""

    def __init__(self) -> None:
        self.left_s: Left = lambda: 0.0
        self.taken_bytes = 0

    def seconds(self) -> float:
        """Return the seconds left. Raise TimeoutError at 0, which a socket would take as non-blocking."""
        if seconds := self.left_s():
            return seconds
        raise TimeoutError


class _Response(http.client.HTTPResponse):
    """A response that is read within a limit, however small its pieces are."""

    def __init__(self, sock: socket.socket, *args: Any, limit: _Limit, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        limit.taken_bytes = 0
        self.fp = io.BufferedReader(_Source(self.fp.detach(), sock, limit))


class _Source(io.RawIOBase):
    """A socket's bytes within the limits: headers, and chunks without a size, could be endless."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, limit: _Limit) -> None:
        super().__init__()
        self._raw, self._sock, self._limit = raw, sock, limit

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if self._limit.taken_bytes > _MAX_BYTES_AT_ONCE:
            raise http.client.HTTPException
        self._sock.settimeout(self._limit.seconds())
        taken: int = self._raw.readinto(buffer)
        self._limit.taken_bytes += taken
        return taken

    def close(self) -> None:
        self._raw.close()
        super().close()


# In order of priority, as an error can wrap others.
_CAUSES: tuple[tuple[tuple[type[BaseException], ...], type[BrokenError], str], ...] = (
    ((exceptions.NameResolutionError,), BrokenError, "its name is not known"),
    ((exceptions.LocationParseError, UnicodeError), BrokenError, "its address is invalid"),
    ((exceptions.NewConnectionError,), BrokenError, "nothing listens there"),
    ((exceptions.ConnectTimeoutError,), BrokenError, "it took too long to connect"),
    ((exceptions.ReadTimeoutError, TimeoutError), BrokenError, "it took too long"),
    ((exceptions.IncompleteRead, http.client.IncompleteRead), BrokenError, "the answer was cut short"),
    ((ssl.SSLEOFError, ssl.SSLZeroReturnError), DroppedError, "the connection was dropped"),
    ((ssl.SSLError, exceptions.SSLError), UntrustedError, _NO_TRUST),
    ((ConnectionError,), DroppedError, "the connection was dropped"),
)


def _broken(error: BaseException) -> BrokenError:
    """Return the BrokenError for a library's error, or for one that it wraps."""
    chain: list[BaseException] = []
    inner: BaseException | None = error
    while inner is not None:
        chain.append(inner)
        wrapped = next((one for one in inner.args if isinstance(one, Exception)), None)
        inner = wrapped or inner.__cause__ or inner.__context__
    for kinds, broken, words in _CAUSES:
        if any(isinstance(one, kinds) for one in chain):
            return broken(words)
    return BrokenError("its answer is not HTTP")
