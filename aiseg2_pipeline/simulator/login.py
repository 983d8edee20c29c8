"""HTTP Digest authentication as the device requires it: MD5, `qop=auth`, on every path.

A nonce is valid for many requests, each with a new counter. The pages behind the login belong in `device`.
"""

import enum
import hashlib
import hmac
import secrets
import time
from urllib.parse import urlsplit
from urllib.request import parse_http_list, parse_keqv_list

_REALM = "AiSEG2"
_OPAQUE = "5ccc069c403ebaf9f0171e9517f40e41"
_MAX_NONCES = 10_000


class Answer(enum.Enum):
    """The result of checking an `Authorization` header."""

    WELCOME = "welcome"
    STALE = "stale"  # the password is correct, but the nonce is expired or unknown, or its counter was used before
    REFUSED = "refused"


class DigestLogin:
    """One user, one password, and the issued nonces."""

    def __init__(self, user: str, password: str, *, nonce_life_s: float = 3600) -> None:
        """Accept this user and password; a nonce is stale after `nonce_life_s`."""
        self._user = user.encode()
        self._secret = _md5(f"{user}:{_REALM}:{password}")
        self._nonce_life_s = nonce_life_s
        self._nonces: dict[str, tuple[float, set[int]]] = {}  # time of issue and used counters, oldest first

    def challenge(self, *, is_stale: bool) -> str:
        """Return the `WWW-Authenticate` header with a new nonce."""
        if len(self._nonces) >= _MAX_NONCES:
            self._nonces.pop(next(iter(self._nonces)))
        nonce = secrets.token_hex(16)
        self._nonces[nonce] = (time.monotonic(), set())
        stale = ", stale=true" if is_stale else ""
        return f'Digest realm="{_REALM}", nonce="{nonce}", opaque="{_OPAQUE}", algorithm=MD5, qop="auth"{stale}'

    def check(self, method: str, target: str, authorization: str) -> Answer:
        """Check an `Authorization` header for the request's method and target (path and query as sent).

        Accepts every value quoted or unquoted, because clients differ from the standard in this.
        """
        scheme, _, _ = authorization.partition(" ")
        try:
            values = _values(authorization)
            nonce, counter = values["nonce"], int(values["nc"], 16)
            request = _md5(f"{method}:{values['uri']}")
            middle = f"{nonce}:{values['nc']}:{values['cnonce']}:{values['qop']}"
            is_valid = (
                scheme.lower() == "digest"
                and values["qop"] == "auth"
                and values.get("algorithm", "MD5").upper() == "MD5"
                and values["username"].encode("latin-1") == self._user
                # A client may send an absolute URL.
                and urlsplit(values["uri"])._replace(scheme="", netloc="").geturl() == target
                and hmac.compare_digest(_md5(f"{self._secret}:{middle}:{request}"), values["response"].lower())
            )
        except (KeyError, ValueError, IndexError, TypeError):  # an invalid header
            return Answer.REFUSED
        if not is_valid:
            return Answer.REFUSED
        issued, counters = self._nonces.get(nonce, (float("-inf"), set()))
        if time.monotonic() - issued > self._nonce_life_s or counter in counters:
            return Answer.STALE
        # Concurrent requests may arrive out of order: accept each counter once, in any order.
        counters.add(counter)
        return Answer.WELCOME

    def forget(self, authorization: str) -> None:
        """Invalidate the nonce of an accepted header."""
        self._nonces.pop(_values(authorization)["nonce"], None)

    def forget_all(self) -> None:
        """Invalidate every nonce."""
        self._nonces.clear()


def _values(authorization: str) -> dict[str, str]:
    """Return the values of a header; ValueError or IndexError for an invalid one."""
    _, _, rest = authorization.partition(" ")
    return {key.strip().lower(): value for key, value in parse_keqv_list(parse_http_list(rest)).items()}


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
