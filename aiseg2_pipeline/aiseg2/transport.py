"""One answer from the device: login, pacing, retries, size limits. What may be asked, says `endpoints`; HTTP is `connection`'s.

The device is small: never more than two requests are in flight over all processes. Each process holds one of two
slots (a lock file in the state folder): `live` or `background`. A slot also owns its digest challenge and counter,
kept in a file beside the lock, so that a process that starts afresh every minute logs in without a 401.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from http import HTTPStatus
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO, Literal

import filelock
import tenacity
from requests.auth import HTTPDigestAuth
from requests.utils import parse_dict_header

from aiseg2_pipeline.aiseg2.connection import Answer, BrokenError, Connection, DroppedError, UntrustedError
from aiseg2_pipeline.aiseg2.endpoints import Ask, wire
from aiseg2_pipeline.aiseg2.errors import Refused, Unreachable

Slot = Literal["live", "background"]

MAX_ANSWER_BYTES = 8 * 2**20
REQUEST_TIMEOUT_S = 10.0
READING_TIMEOUT_S = 20.0
_CHECK_SETTINGS = "check AISEG2_HOST and AISEG2_USE_HTTPS"


class _Passing(Unreachable):
    """A failure that the next try may not meet: a time-out, a dropped connection, a 5xx."""


class NotServed(Unreachable):
    """The device answered that it has no such page (4xx or a redirect)."""


class Deadline:
    """The moment by which a whole reading must have ended."""

    def __init__(self, seconds: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Start the `seconds` now."""
        self._monotonic = monotonic
        self._end = monotonic() + seconds

    def left_s(self) -> float:
        """Return the seconds left, never below 0."""
        return max(0.0, self._end - self._monotonic())

    def part(self, seconds: float) -> "Deadline":
        """Return the deadline of a part, which has `seconds` at most."""
        return Deadline(min(seconds, self.left_s()), self._monotonic)


class Transport:
    """A connection to the device that is logged in when needed. Use it as a context manager.

    `base_url` is `http(s)://host[:port]`; `verify` is True, False or the path of a CA file. `requests` counts the
    HTTP requests sent, those answered with 401 included. `on_retry` is told why, when a request has to be tried again.
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
        on_retry: Callable[[str], None] | None = None,
    ) -> None:
        """Open nothing yet: the first request does."""
        self.base_url = base_url
        self.requests = 0
        self._connection = Connection(base_url, verify)
        self._on_retry = on_retry
        self._digest = _Digest(user, password, state_dir / f"{slot}-login.json", base_url)
        self._state_dir = state_dir
        self._lock = filelock.FileLock(state_dir / f"{slot}.lock", mode=0o600)

    def __repr__(self) -> str:
        """Name the device, not the login."""
        return f"Transport({self.base_url!r})"

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

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

    def request(self, ask: Ask, deadline: Deadline, *, max_bytes: int = MAX_ANSWER_BYTES) -> bytes:
        """Return the body of a 200. Passing failures are tried again inside the deadline, with growing delay."""

        def once() -> bytes:
            parts: list[bytes] = []
            self._once(ask, deadline.part(REQUEST_TIMEOUT_S), max_bytes, parts.append)
            return b"".join(parts)

        with self.slot(deadline):
            # In the slot: the time waited for it is gone.
            retrying = tenacity.Retrying(
                retry=tenacity.retry_if_exception_type(_Passing),
                wait=tenacity.wait_exponential(multiplier=0.5, max=8),
                stop=tenacity.stop_before_delay(deadline.left_s()),
                before_sleep=self._tell,
                reraise=True,
            )
            return retrying(once)

    def download(self, ask: Ask, file: BinaryIO, deadline: Deadline, *, max_bytes: int, timeout_s: float) -> None:
        """Write the body of a 200 into `file` as it comes, asking once: what is worth a file is slow for the device.

        `timeout_s` is how long it may take.
        """
        with self.slot(deadline):
            self._once(ask, deadline.part(timeout_s), max_bytes, partial(_write, file))

    def _tell(self, state: tenacity.RetryCallState) -> None:
        if self._on_retry and state.attempt_number == 1 and state.outcome:
            self._on_retry(f"{state.outcome.exception()} It is tried again for up to {READING_TIMEOUT_S:.0f} s.")

    def _once(self, ask: Ask, deadline: Deadline, max_bytes: int, keep: Callable[[bytes], object]) -> None:
        """Give the body of a 200 to `keep` as it comes; answer one 401."""
        # Without the query: that of the export holds its token.
        page = wire(ask).target.partition("?")[0]
        try:
            status = self._send(ask, page, deadline, max_bytes, keep)
            if status == HTTPStatus.UNAUTHORIZED:
                status = self._send(ask, page, deadline, max_bytes, keep)
        except UntrustedError as error:
            raise Unreachable(
                f"No trusted TLS connection to the AiSEG2 at {self.base_url} ({error}): check AISEG2_USE_HTTPS, "
                "set AISEG2_CA_FILE to its certificate, or AISEG2_TLS_VERIFY=0 to trust any."
            ) from None
        except BrokenError as error:
            raise _Passing(
                f"The AiSEG2 at {self.base_url} did not answer {page} ({error}): {_CHECK_SETTINGS}, and that "
                "the device is on."
            ) from None
        if status == HTTPStatus.UNAUTHORIZED and self._digest.is_stale:
            raise _Passing(
                f"The AiSEG2 at {self.base_url} called the login for {page} too old twice, though its password is right: "
                "if this goes on, restart the device."
            )
        if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            raise Refused(
                f"The AiSEG2 at {self.base_url} refused the login ({status}): check AISEG2_USER and AISEG2_PASSWORD."
            )
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise _Passing(
                f"The AiSEG2 at {self.base_url} answered {page} with {status}: if this goes on, restart the device."
            )
        if status != HTTPStatus.OK:
            raise NotServed(
                f"{self.base_url} answered {page} with {status}, as no AiSEG2 does: {_CHECK_SETTINGS}."
            )

    def _send(
        self, ask: Ask, page: str, deadline: Deadline, max_bytes: int, keep: Callable[[bytes], object]
    ) -> int:
        """Ask, and read the answer to its end; return its status."""
        used = self._connection.is_open
        try:
            answer = self._answer(ask, deadline)
        except DroppedError:
            # A device may close a connection that it had kept, at any moment: that says nothing about the device.
            if not used:
                raise
            answer = self._answer(ask, deadline)
        is_page = answer.status == HTTPStatus.OK
        size, most = 0, max_bytes if is_page else min(max_bytes, MAX_ANSWER_BYTES)
        with closing(answer.body()) as body:
            for part in body:
                size += len(part)
                if size > most:
                    raise Unreachable(
                        f"{self.base_url} answered {page} with more than {most // 2**20} MiB, as no AiSEG2 does: "
                        f"{_CHECK_SETTINGS}."
                    )
                if is_page:
                    keep(part)
        if answer.status == HTTPStatus.UNAUTHORIZED:
            self._digest.challenge(answer.header("WWW-Authenticate"))
        elif not is_page:
            # Nobody knows what comes after it: a redirect's or an error's end is told in many ways.
            self._connection.close()
        self._digest.save()
        return answer.status

    def _answer(self, ask: Ask, deadline: Deadline) -> Answer:
        self.requests += 1
        return self._connection.ask(ask, self._digest.header(ask), deadline.left_s)


# It is sent with eight hexadecimal digits.
_MAX_NONCE_COUNT = 16**8


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
        told = _told(challenge) if self._known.items() <= state.items() else {}
        if told and isinstance(count, int) and 0 <= count < _MAX_NONCE_COUNT:
            self._state.chal = told
            self._state.last_nonce = told["nonce"]
            self._state.nonce_count = count

    def header(self, ask: Ask) -> str | None:
        """Return the login for an ask; None where there is no challenge yet, or none that can be met."""
        if not self._state.chal:
            return None
        header: str | None = self.build_digest_header(*wire(ask)[:2])  # type: ignore[no-untyped-call]  # the stubs leave it out
        # Parts of it come from the device: they must not end the line.
        return header if header and header.isascii() and header.isprintable() else None

    @property
    def is_stale(self) -> bool:
        """Whether the newest challenge says that only the one before was too old: the password was right."""
        return str(self._state.chal.get("stale", "")).lower() == "true"

    def challenge(self, header: str) -> None:
        """Take a new challenge from a 401; forget the old one where the header holds none."""
        scheme, _, fields = header.partition(" ")
        told = parse_dict_header(fields) if scheme.lower() == "digest" else {}  # type: ignore[no-untyped-call]  # as above
        self._state.chal = _told(told)

    def save(self) -> None:
        save_state(
            self._path,
            self._known | {"challenge": self._state.chal, "nonce_count": self._state.nonce_count},
        )


def _told(challenge: object) -> dict[str, str]:
    """Return a challenge as far as it is text; {} where it is none that can be answered."""
    told = challenge if isinstance(challenge, dict) else {}
    told = {name: value for name, value in told.items() if isinstance(value, str)}
    return told if {"realm", "nonce"} <= told.keys() else {}


def _write(file: BinaryIO, part: bytes) -> None:
    try:
        file.write(part)
    except OSError as error:
        raise Unreachable(
            f"Cannot keep the AiSEG2's answer on disk ({error.strerror}): free space, or set AISEG2_DATA_DIR to "
            "another one."
        ) from None


def load_state(path: Path) -> dict[str, Any]:
    """Return what `save_state` wrote, or {} where there is nothing readable: all of it can be asked again."""
    try:
        state = json.loads(path.read_bytes())
        # What cannot be written again (a lone surrogate) would end every later reading.
        json.dumps(state, ensure_ascii=False).encode()
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
