"""One response from the device: login, slots, retries and size limits.

The device is small: never more than two requests are in flight over all processes. Each process holds one of two
slots (a lock file in the state folder): `live` or `background`. A slot also has its digest challenge and counter in a
file beside the lock, so that a process that starts every minute logs in without a 401.

The possible requests are defined in `endpoints`; HTTP belongs in `connection`.
"""

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from http import HTTPStatus
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO, Literal

import filelock
import tenacity
import urllib3
from requests.auth import HTTPDigestAuth
from requests.utils import parse_dict_header

from aiseg2_pipeline.aiseg2.connection import BrokenError, Connection, DroppedError, UntrustedError
from aiseg2_pipeline.aiseg2.endpoints import Endpoint, http_request
from aiseg2_pipeline.aiseg2.errors import Refused, Unreachable
from aiseg2_pipeline.aiseg2.state import Silence, load_state, save_state

Slot = Literal["live", "background"]

MAX_ANSWER_BYTES = 8 * 2**20
REQUEST_TIMEOUT_S = 10.0
READING_TIMEOUT_S = 20.0
# Some units stop answering until they are restarted: after this time, each request is sent once.
SILENT_S = 600.0
_CHECK_SETTINGS = "check AISEG2_HOST and AISEG2_USE_HTTPS"


class _Transient(Unreachable):
    """A failure that a retry may resolve: a timeout, a dropped connection, a 5xx."""


class NotServed(Unreachable):
    """The device has no such page: it answered with a 4xx, or twice with a redirect."""


class _Redirected(NotServed):
    """A redirect, as a device sends it for a moment while it starts or shows its settings."""


class Deadline:
    """The time at which a whole reading must have ended."""

    def __init__(self, seconds: float) -> None:
        """Set the deadline to `seconds` from now."""
        self._end = time.monotonic() + seconds

    def left_s(self) -> float:
        """Return the seconds left, never below 0."""
        return max(0.0, self._end - time.monotonic())

    def part(self, seconds: float) -> "Deadline":
        """Return an earlier or equal deadline, at most `seconds` from now."""
        return Deadline(min(seconds, self.left_s()))


class Transport:
    """A connection to the device that logs in when needed.

    `base_url` is `http(s)://host[:port]`; `clock` returns the host's time as an aware datetime; `verify` is True, False or the path of a CA file. `requests` counts the
    HTTP requests sent, including those answered with 401. `on_retry` is called with the reason when a request is
    retried for the first time.
    """

    def __init__(
        self,
        base_url: str,
        user: str,
        password: str,
        *,
        state_dir: Path,
        clock: Callable[[], datetime],
        slot: Slot = "live",
        verify: bool | str = True,
        on_retry: Callable[[str], None] | None = None,
    ) -> None:
        """Prepare the connection; the first request opens it."""
        self.base_url = base_url
        self.requests = 0
        self._connection = Connection(base_url, verify)
        self._on_retry = on_retry
        self._silence = Silence(state_dir / "silent.json", base_url, clock)
        self._digest = _Digest(user, password, state_dir / f"{slot}-login.json", base_url)
        self._state_dir = state_dir
        self._lock = filelock.FileLock(state_dir / f"{slot}.lock", mode=0o600)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    @property
    def is_silent(self) -> bool:
        """Whether the device has not answered any request for `SILENT_S`."""
        return self._silence.lasts_s() >= SILENT_S

    @contextmanager
    def slot(self, deadline: Deadline) -> Iterator[None]:
        """Hold this process's slot; re-entrant. Raise Unreachable when another process does not release it in time."""
        try:
            self._state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock.acquire(timeout=deadline.left_s())
        except filelock.Timeout:
            raise Unreachable(
                "Another process is reading the AiSEG2 and did not end in time: wait for it, or check for a second "
                "pipeline on this data directory (AISEG2_DATA_DIR)."
            ) from None
        except OSError as error:
            raise Unreachable(
                f"Cannot write in {self._state_dir} ({error.strerror}): correct that, or set AISEG2_DATA_DIR to another "
                "folder."
            ) from None
        try:
            self._digest.load()
            yield
        finally:
            self._lock.release()

    @contextmanager
    def between_readings(self) -> Iterator[bool]:
        """Hold the slot of the minute's readings as well; yield False, without waiting, while one goes on."""
        lock = filelock.FileLock(self._state_dir / "live.lock", mode=0o600)
        try:
            lock.acquire(timeout=0)
        except (filelock.Timeout, OSError):
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    def request(self, endpoint: Endpoint, deadline: Deadline, *, max_bytes: int = MAX_ANSWER_BYTES) -> bytes:
        """Return the body of a 200.

        Transient failures are retried before the deadline, with growing delay, but not while the device is silent. The
        first redirect is one of them.
        """
        redirects = itertools.count()

        def is_transient(error: BaseException) -> bool:
            return isinstance(error, _Transient) or (isinstance(error, _Redirected) and next(redirects) == 0)

        def attempt() -> bytes:
            parts: list[bytes] = []
            self._exchange(endpoint, deadline.part(REQUEST_TIMEOUT_S), max_bytes, parts.append)
            return b"".join(parts)

        with self.slot(deadline):
            # Computed in the slot, as waiting for it takes time.
            retrying = tenacity.Retrying(
                retry=tenacity.retry_if_exception(is_transient),
                wait=tenacity.wait_exponential(multiplier=0.5, max=8),
                stop=tenacity.stop_after_attempt(1)
                if self.is_silent
                else tenacity.stop_before_delay(deadline.left_s()),
                before_sleep=self._report_retry,
                reraise=True,
            )
            return retrying(attempt)

    def download(
        self, endpoint: Endpoint, file: BinaryIO, deadline: Deadline, *, max_bytes: int, timeout_s: float
    ) -> None:
        """Write the body of a 200 into `file` within `timeout_s`; only a redirect is retried, as it is slow for the device."""
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_Redirected),
            wait=tenacity.wait_fixed(0.5),
            stop=tenacity.stop_after_attempt(2),
            reraise=True,
        )
        with self.slot(deadline):
            retrying(self._exchange, endpoint, deadline.part(timeout_s), max_bytes, file.write)

    def _report_retry(self, state: tenacity.RetryCallState) -> None:
        if self._on_retry and state.attempt_number == 1 and state.outcome:
            self._on_retry(f"{state.outcome.exception()} It is tried again for up to {READING_TIMEOUT_S:.0f} s.")

    def _exchange(
        self, endpoint: Endpoint, deadline: Deadline, max_bytes: int, keep: Callable[[bytes], object]
    ) -> None:
        """Pass the body of a 200 to `keep` in parts; answer one 401 with a login."""
        # Without the query, which can hold the export's token.
        page = http_request(endpoint).target.partition("?")[0]
        try:
            status = self._send(endpoint, page, deadline, max_bytes, keep)
            if status == HTTPStatus.UNAUTHORIZED:
                status = self._send(endpoint, page, deadline, max_bytes, keep)
        except UntrustedError as error:
            raise Unreachable(
                f"No trusted TLS connection to the AiSEG2 at {self.base_url} ({error}): check AISEG2_USE_HTTPS, "
                "set AISEG2_CA_FILE to its certificate, or AISEG2_TLS_VERIFY=0 to trust any."
            ) from None
        except BrokenError as error:
            self._silence.began()
            raise _Transient(
                f"The AiSEG2 at {self.base_url} did not answer {page} ({error}): {_CHECK_SETTINGS}, and that "
                "the device is on."
            ) from None
        self._silence.ended()
        if status != HTTPStatus.OK:
            raise self._error_of(status, page)

    def _error_of(self, status: int, page: str) -> Unreachable | Refused:
        if status == HTTPStatus.UNAUTHORIZED and self._digest.is_stale:
            return _Transient(
                f"The AiSEG2 at {self.base_url} rejected the login for {page} as too old twice, although the password is "
                "right: if this continues, restart the AiSEG2."
            )
        if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            return Refused(
                f"The AiSEG2 at {self.base_url} refused the login ({status}): check AISEG2_USER and AISEG2_PASSWORD."
            )
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return _Transient(
                f"The AiSEG2 at {self.base_url} answered {page} with {status}: if this continues, restart the AiSEG2."
            )
        if status >= HTTPStatus.MULTIPLE_CHOICES and status < HTTPStatus.BAD_REQUEST:
            return _Redirected(
                f"{self.base_url} redirected {page} ({status}), as an AiSEG2 does for a moment while it starts or shows its settings: if "
                f"this continues, {_CHECK_SETTINGS}."
            )
        return NotServed(f"{self.base_url} answered {page} with {status}, as no AiSEG2 does: {_CHECK_SETTINGS}.")

    def _send(
        self, endpoint: Endpoint, page: str, deadline: Deadline, max_bytes: int, keep: Callable[[bytes], object]
    ) -> int:
        """Send a request, read the response to its end, and return its status."""
        was_open = self._connection.is_open
        try:
            answer = self._request_once(endpoint, deadline)
        except DroppedError:
            # A device may close a kept connection at any time, which is no failure: use a new one at once.
            if not was_open:
                raise
            answer = self._request_once(endpoint, deadline)
        is_page = answer.status == HTTPStatus.OK
        size, limit = 0, max_bytes if is_page else min(max_bytes, MAX_ANSWER_BYTES)
        with closing(self._connection.read(answer)) as body:
            for part in body:
                size += len(part)
                if size > limit:
                    raise Unreachable(
                        f"{self.base_url} answered {page} with more than {limit // 2**20} MiB, as no AiSEG2 does: "
                        f"{_CHECK_SETTINGS}."
                    )
                if is_page:
                    keep(part)
        if answer.status == HTTPStatus.UNAUTHORIZED:
            self._digest.challenge(answer.headers.get("WWW-Authenticate", ""))
            self._digest.save()
        elif not is_page:
            # Servers end a redirect or an error in different ways, so the bytes after it are not reliable.
            self._connection.close()
        return answer.status

    def _request_once(self, endpoint: Endpoint, deadline: Deadline) -> urllib3.BaseHTTPResponse:
        self.requests += 1
        header = self._digest.header(endpoint)
        # Also where no answer follows: the counter is used up.
        self._digest.save()
        return self._connection.send(endpoint, header, deadline.left_s)


# The counter is sent as eight hexadecimal digits.
_MAX_NONCE_COUNT = 16**8


class _Digest(HTTPDigestAuth):
    """Digest authentication of `requests`, with the challenge and its counter kept in a file.

    The transport handles a 401 itself, because requests would read its body without a limit or deadline.
    """

    def __init__(self, user: str, password: str, path: Path, base_url: str) -> None:
        super().__init__(user, password)
        # One state for all threads; requests keeps it in an attribute that its type stubs do not have.
        self._state: Any = SimpleNamespace()
        self._thread_local = self._state
        self.init_per_thread_state()
        self._path = path
        self._owner = {"base_url": base_url, "user": user}

    def load(self) -> None:
        """Load the challenge and the counter that the last process saved.

        Strict servers refuse a counter that was used before, so this is done whenever the slot is taken.
        """
        state = load_state(self._path)
        challenge, count = state.get("challenge"), state.get("nonce_count")
        known = _valid(challenge) if self._owner.items() <= state.items() else {}
        if known and isinstance(count, int) and 0 <= count < _MAX_NONCE_COUNT:
            self._state.chal = known
            self._state.last_nonce = known["nonce"]
            self._state.nonce_count = count

    def header(self, endpoint: Endpoint) -> str | None:
        """Return the Authorization header of a request; None without a challenge that can be answered."""
        if not self._state.chal:
            return None
        header: str | None = self.build_digest_header(*http_request(endpoint)[:2])  # type: ignore[no-untyped-call]  # not in the stubs
        # Parts of it come from the device and must not end the line.
        return header if header and header.isascii() and header.isprintable() else None

    @property
    def is_stale(self) -> bool:
        """Whether the device rejected only the nonce as too old, and accepted the password."""
        return str(self._state.chal.get("stale", "")).lower() == "true"

    def challenge(self, header: str) -> None:
        """Replace the challenge with that of a 401; remove it where the header has none."""
        scheme, _, fields = header.partition(" ")
        parsed = parse_dict_header(fields) if scheme.lower() == "digest" else {}  # type: ignore[no-untyped-call]  # as above
        self._state.chal = _valid(parsed)

    def save(self) -> None:
        state = {"challenge": self._state.chal, "nonce_count": self._state.nonce_count}
        save_state(self._path, self._owner | state)


def _valid(challenge: object) -> dict[str, str]:
    """Return a challenge's text fields; {} where it cannot be answered."""
    fields = challenge if isinstance(challenge, dict) else {}
    fields = {name: value for name, value in fields.items() if isinstance(value, str)}
    return fields if {"realm", "nonce"} <= fields.keys() else {}
