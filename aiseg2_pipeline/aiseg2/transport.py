"""One answer from the device: login, pacing, time-outs, retries, size limits. It knows no page.

The device is small: never more than two requests are in flight over all processes. Each process holds one of two
slots (a lock file in the state folder): `live` or `background`. A slot also owns its digest challenge and counter,
kept in a file beside the lock, so that a process that starts afresh every minute logs in without a 401.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO, Literal, NamedTuple

import filelock
import requests
import tenacity
import urllib3
from requests.auth import HTTPDigestAuth
from requests.utils import parse_dict_header

from aiseg2_pipeline.aiseg2.errors import Refused, Unreachable

Slot = Literal["live", "background"]

MAX_ANSWER_BYTES = 8 * 2**20
REQUEST_TIMEOUT_S = 10.0
READING_TIMEOUT_S = 20.0
_CHUNK_BYTES = 64 * 2**10
_CHECK_SETTINGS = "check AISEG2_HOST and AISEG2_USE_HTTPS"


class _Passing(Unreachable):
    """A failure that the next try may not meet: a time-out, a dropped connection, a 5xx."""


class NotServed(Unreachable):
    """The device answered that it has no such page (4xx or a redirect)."""


class _Ask(NamedTuple):
    """One request; with a `file`, the body of a 200 goes there as it comes."""

    method: str
    path: str
    data: str | None = None
    max_bytes: int = MAX_ANSWER_BYTES
    timeout_s: float = REQUEST_TIMEOUT_S
    file: BinaryIO | None = None


class Deadline:
    """The moment by which a whole reading must have ended."""

    def __init__(self, seconds: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Start the `seconds` now."""
        self._monotonic = monotonic
        self._end = monotonic() + seconds

    def left_s(self) -> float:
        """Return the seconds left, never below 0."""
        return max(0.0, self._end - self._monotonic())


class Transport:
    """A connection to the device that is logged in when needed. Use it as a context manager.

    `base_url` is `http(s)://host[:port]`; `verify` is True, False or the path of a CA file. `requests` counts the
    HTTP requests sent, those answered with 401 included.
    """

    def __init__(
        self,
        base_url: str,
        user: str,
        password: str,
        *,
        state_dir: Path,
        slot: Slot = "live",
        verify: bool | str = True,
    ) -> None:
        """Open nothing yet: the first request does."""
        self.base_url = base_url
        self.requests = 0
        self._session = requests.Session()
        # No proxy and no .netrc from the environment: the device is on the LAN and has its own login.
        self._session.trust_env = False
        self._session.verify = verify
        self._session.headers.update({"User-Agent": "aiseg2-pipeline", "Accept-Encoding": "identity"})
        self._digest = _Digest(user, password, state_dir / f"{slot}-login.json", base_url)
        self._state_dir = state_dir
        self._lock = filelock.FileLock(state_dir / f"{slot}.lock", mode=0o600)

    def __repr__(self) -> str:
        """Name the device, not the login."""
        return f"Transport({self.base_url!r})"

    def close(self) -> None:
        """Close the connection."""
        self._session.close()

    @contextmanager
    def slot(self, deadline: Deadline) -> Iterator[None]:
        """Hold this process's place at the device; re-entrant. Raise Unreachable when another one keeps it."""
        try:
            self._state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock.acquire(timeout=deadline.left_s())
        except filelock.Timeout:
            raise Unreachable(
                "Another process is reading the AiSEG2 and did not end in time: wait for it, or look for a second "
                "pipeline on this data directory (AISEG2_DATA_DIR)."
            ) from None
        except OSError as error:
            raise Unreachable(
                f"Cannot write in {self._state_dir} ({error.strerror}): free space or set AISEG2_DATA_DIR to a folder "
                "of your own."
            ) from None
        try:
            self._digest.load()
            yield
        finally:
            self._lock.release()

    def request(
        self,
        method: Literal["GET", "POST"],
        path: str,
        deadline: Deadline,
        *,
        data: str | None = None,
        max_bytes: int = MAX_ANSWER_BYTES,
    ) -> bytes:
        """Return the body of a 200. Passing failures are tried again inside the deadline, with growing delay."""
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_Passing),
            wait=tenacity.wait_exponential(multiplier=0.5, max=8),
            stop=tenacity.stop_before_delay(deadline.left_s()),
            reraise=True,
        )
        with self.slot(deadline):
            return retrying(self._once, _Ask(method, path, data, max_bytes), deadline)

    def download(self, path: str, file: BinaryIO, deadline: Deadline, *, max_bytes: int, timeout_s: float) -> None:
        """Write the body of a 200 into `file` as it comes, asking once: what is worth a file is slow for the device.

        `timeout_s` is how long the device may be silent.
        """
        with self.slot(deadline):
            self._once(_Ask("GET", path, max_bytes=max_bytes, timeout_s=timeout_s, file=file), deadline)

    def _once(self, ask: _Ask, deadline: Deadline) -> bytes:
        path = ask.path
        try:
            status, body = self._send(ask, deadline)
            if status == requests.codes.unauthorized:
                status, body = self._send(ask, deadline)
        except requests.exceptions.SSLError as error:
            raise Unreachable(
                f"No trusted TLS connection to the AiSEG2 at {self.base_url} ({_cause(error)}): check AISEG2_USE_HTTPS, "
                "set AISEG2_CA_FILE to its certificate, or AISEG2_TLS_VERIFY=0 to trust any."
            ) from None
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, UnicodeError) as error:
            raise _Passing(
                f"The AiSEG2 at {self.base_url} did not answer {path} ({_cause(error)}): {_CHECK_SETTINGS}, and that "
                "the device is on."
            ) from None
        if status in (requests.codes.unauthorized, requests.codes.forbidden):
            raise Refused(
                f"The AiSEG2 at {self.base_url} refused the login ({status}): check AISEG2_USER and AISEG2_PASSWORD."
            )
        if status >= requests.codes.server_error:
            raise _Passing(
                f"The AiSEG2 at {self.base_url} answered {path} with {status}: if this goes on, restart the device."
            )
        if status != requests.codes.ok:
            raise NotServed(
                f"{self.base_url} answered {path} with {status}, as no AiSEG2 does: {_CHECK_SETTINGS}."
            )
        return body

    def _send(self, ask: _Ask, deadline: Deadline) -> tuple[int, bytes]:
        timeout_s = min(ask.timeout_s, deadline.left_s())
        if timeout_s <= 0:
            raise requests.Timeout("the reading's time is up")
        self.requests += 1
        response = self._session.request(
            ask.method,
            self.base_url + ask.path,
            data=ask.data,
            headers={"Content-Type": "application/x-www-form-urlencoded"} if ask.data is not None else None,
            auth=self._digest,
            timeout=timeout_s,
            allow_redirects=False,
            stream=True,
        )
        try:
            if ask.file is not None and response.status_code == requests.codes.ok:
                body = _store(self._parts(response, ask.path, deadline, ask.max_bytes), ask.file)
            else:
                most = min(ask.max_bytes, MAX_ANSWER_BYTES)
                body = b"".join(self._parts(response, ask.path, deadline, most))
        except BaseException:
            response.close()
            raise
        response.raw.release_conn()
        if response.status_code == requests.codes.unauthorized:
            self._digest.challenge(response.headers.get("WWW-Authenticate", ""))
        self._digest.save()
        return response.status_code, body

    def _parts(
        self, response: requests.Response, path: str, deadline: Deadline, max_bytes: int
    ) -> Iterator[bytes]:
        size = 0
        # read1 gives what is there, so a device that sends a byte now and then does not outlive the deadline.
        while part := response.raw.read1(_CHUNK_BYTES, decode_content=True):
            size += len(part)
            if size > max_bytes:
                raise Unreachable(
                    f"{self.base_url} answered {path} with more than {max_bytes // 2**20} MiB, as no AiSEG2 does: "
                    f"{_CHECK_SETTINGS}."
                )
            if not deadline.left_s():
                raise requests.Timeout("the reading's time is up")
            yield part


class _Digest(HTTPDigestAuth):
    """requests' digest, with the challenge and its counter kept in a file and the 401 left to the transport.

    The transport answers a 401 itself because requests would read its body without limit or deadline.
    """

    def __init__(self, user: str, password: str, path: Path, base_url: str) -> None:
        super().__init__(user, password)
        # One state whatever thread asks; requests keeps it in an attribute that its type stubs leave out.
        self._state: Any = SimpleNamespace()
        self._thread_local = self._state
        self.init_per_thread_state()
        self._path = path
        self._known = {"base_url": base_url, "user": user}

    def load(self) -> None:
        """Take up the challenge and the counter where the last process left them.

        A counter that is sent twice is refused by careful servers, so this is done whenever the slot is taken.
        """
        state = load_state(self._path)
        challenge, count = state.get("challenge"), state.get("nonce_count")
        if not (self._known.items() <= state.items() and isinstance(challenge, dict) and isinstance(count, int)):
            return
        if {"realm", "nonce"} <= challenge.keys():
            self._state.chal = {str(key): str(value) for key, value in challenge.items()}
            self._state.last_nonce = self._state.chal["nonce"]
            self._state.nonce_count = count

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._state.chal:
            header: str | None = self.build_digest_header(str(request.method), str(request.url))  # type: ignore[no-untyped-call]  # the stubs leave it out
            if header:
                request.headers["Authorization"] = header
        return request

    def challenge(self, header: str) -> None:
        """Take a new challenge from a 401; forget the old one where the header holds none."""
        scheme, _, fields = header.partition(" ")
        told = parse_dict_header(fields) if scheme.lower() == "digest" else {}  # type: ignore[no-untyped-call]  # as above
        self._state.chal = told if {"realm", "nonce"} <= told.keys() else {}

    def save(self) -> None:
        save_state(
            self._path,
            self._known | {"challenge": self._state.chal, "nonce_count": self._state.nonce_count},
        )


def _store(parts: Iterator[bytes], file: BinaryIO) -> bytes:
    for part in parts:
        try:
            file.write(part)
        except OSError as error:
            raise Unreachable(
                f"Cannot keep the AiSEG2's answer on disk ({error.strerror}): free space, or set AISEG2_DATA_DIR to "
                "another one."
            ) from None
    return b""


def load_state(path: Path) -> dict[str, Any]:
    """Return what `save_state` wrote, or {} where there is nothing readable: all of it can be asked again."""
    try:
        state = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return state if isinstance(state, dict) else {}


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Replace the file in one step. A disk that takes nothing costs a request next time, not this reading."""
    new = path.with_suffix(".new")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        new.write_text(json.dumps(state, ensure_ascii=False), encoding="utf-8")
        new.chmod(0o600)
        new.replace(path)
    except OSError:
        new.unlink(missing_ok=True)


def _cause(error: BaseException) -> str:
    """Return the shortest true name of a failure, without addresses of objects or text that the peer sent."""
    seen: BaseException | None = error
    while seen is not None:
        for kind, words in _CAUSES:
            if isinstance(seen, kind):
                return words
        inner = getattr(seen, "reason", None) or (seen.args[0] if seen.args else None)
        seen = inner if isinstance(inner, BaseException) else seen.__cause__ or seen.__context__
    return type(error).__name__


_CAUSES: tuple[tuple[type[BaseException], str], ...] = (
    (urllib3.exceptions.NameResolutionError, "its name is not known"),
    # urllib3 calls a refused connection a kind of connect time-out, so it stands first.
    (urllib3.exceptions.NewConnectionError, "nothing listens there"),
    (urllib3.exceptions.ConnectTimeoutError, "it took too long to connect"),
    (urllib3.exceptions.ReadTimeoutError, "it took too long"),
    (requests.Timeout, "it took too long"),
    (urllib3.exceptions.IncompleteRead, "the answer was cut short"),
    (urllib3.exceptions.SSLError, "the certificate or the TLS handshake failed"),
    (ConnectionError, "the connection was dropped"),
)
