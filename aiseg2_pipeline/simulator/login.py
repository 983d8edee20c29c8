"""HTTP Digest login as the unit asks for it: MD5, `qop=auth`, on every path.

A nonce serves for many requests while its counter rises. What is served behind the login belongs in `server`.
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
_NONCES_KEPT = 10_000


class Answer(enum.Enum):
    """What comes of an `Authorization` header."""

    WELCOME = "welcome"
    STALE = "stale"  # the password is right, the nonce is too old, unknown or its counter was used before
    REFUSED = "refused"


class DigestLogin:
    """One user, one password, and the nonces that were given out."""

    def __init__(self, user: str, password: str, *, nonce_life_s: float = 3600) -> None:
        """Ask for this user and password; a nonce is refused as stale after `nonce_life_s`."""
        self._user = user.encode()
        self._secret = _md5(f"{user}:{_REALM}:{password}")
        self._nonce_life_s = nonce_life_s
        self._nonces: dict[str, tuple[float, set[int]]] = {}  # when given out, and the counters used, oldest first

    def challenge(self, *, is_stale: bool) -> str:
        """Return the `WWW-Authenticate` header with a new nonce."""
        if len(self._nonces) >= _NONCES_KEPT:
            self._nonces.pop(next(iter(self._nonces)))
        nonce = secrets.token_hex(16)
        self._nonces[nonce] = (time.monotonic(), set())
        stale = ", stale=true" if is_stale else ""
        return f'Digest realm="{_REALM}", nonce="{nonce}", opaque="{_OPAQUE}", algorithm=MD5, qop="auth"{stale}'

    def check(self, method: str, target: str, authorization: str) -> Answer:
        """Check an `Authorization` header for the request's method and target (path and query as sent).

        Values may be quoted or not, whatever the standard says of each: clients differ.
        """
        scheme, _, _ = authorization.partition(" ")
        try:
            given = _given(authorization)
            nonce, counter = given["nonce"], int(given["nc"], 16)
            asked = _md5(f"{method}:{given['uri']}")
            middle = f"{nonce}:{given['nc']}:{given['cnonce']}:{given['qop']}"
            is_right = (
                scheme.lower() == "digest"
                and given["qop"] == "auth"
                and given.get("algorithm", "MD5").upper() == "MD5"
                and given["username"].encode("latin-1") == self._user
                and _is_target(given["uri"], target)
                and hmac.compare_digest(_md5(f"{self._secret}:{middle}:{asked}"), given["response"].lower())
            )
        except (KeyError, ValueError, IndexError, TypeError):  # a header that is none
            return Answer.REFUSED
        if not is_right:
            return Answer.REFUSED
        given_out, counters = self._nonces.get(nonce, (float("-inf"), set()))
        if time.monotonic() - given_out > self._nonce_life_s or counter in counters:
            return Answer.STALE
        # Two requests in flight may overtake each other: a counter is good once, in any order.
        counters.add(counter)
        return Answer.WELCOME

    def forget(self, authorization: str) -> None:
        """Refuse the nonce of a header that was welcome from now on."""
        self._nonces.pop(_given(authorization)["nonce"], None)

    def forget_all(self) -> None:
        """Refuse every nonce that was given out."""
        self._nonces.clear()


def _given(authorization: str) -> dict[str, str]:
    """Return the values of a header; ValueError or IndexError for one that is none."""
    _, _, rest = authorization.partition(" ")
    return {key.strip().lower(): value for key, value in parse_keqv_list(parse_http_list(rest)).items()}


def _is_target(uri: str, target: str) -> bool:
    """Tell whether `uri` (a path with its query, or a whole address) is what the request asks for."""
    if uri == target:
        return True
    parts = urlsplit(uri)
    return bool(parts.netloc) and target == parts.path + (f"?{parts.query}" if parts.query else "")


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
