"""Search the files and output of a pipeline for secrets, in every encoding that a program might use.

A secret is searched for as plain text and as URLs, JSON, HTML, Python, hexadecimal or Base64 encode it. Databases are
read value by value; compressed data, and Base64 of it, is decompressed.
"""

import base64
import html
import json
import re
import sqlite3
import zlib
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote, quote_plus

# The first bytes of zlib (at any level) and of gzip.
_COMPRESSED = re.compile(rb"\x78[\x01\x5e\x9c\xda]|\x1f\x8b\x08")
_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{24,}={0,2}")
_SQLITE = b"SQLite format 3\0"
_DEPTH = 4
_ZLIB_OR_GZIP = zlib.MAX_WBITS | 32


def encodings(secret: str) -> set[bytes]:
    """Return the byte strings as which data can hold the secret."""
    raw = secret.encode()
    texts = {
        secret,
        quote(secret),
        quote(secret, safe=""),
        quote_plus(secret),
        html.escape(secret),
        repr(secret)[1:-1],
    }
    texts |= {json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]}
    # JSON within JSON, such as a message within an event.
    texts |= {json.dumps(text)[1:-1] for text in tuple(texts)}
    found = {text.encode() for text in texts} | {raw.hex().encode(), raw.hex().upper().encode()}
    for before in range(3):
        # The encoding depends on the offset within three bytes; its first and last character also hold bits of neighbours.
        whole = base64.b64encode(bytes(before) + raw)
        inner = whole[-(-before * 8 // 6) : (before + len(raw)) * 8 // 6]
        found |= {inner, inner.replace(b"+", b"-").replace(b"/", b"_")}
    return found


def found_in(data: bytes, secrets: Iterable[str]) -> set[str]:
    """Return which of the secrets the data holds, in any encoding, at any depth of compression."""
    layers = list(_layers(data, _DEPTH))
    return {secret for secret in secrets if any(text in layer for text in encodings(secret) for layer in layers)}


def found_in_folder(folder: Path, secrets: Iterable[str]) -> dict[str, set[str]]:
    """Return the secrets in the content and the name of each file below a folder, by path."""
    secrets = tuple(secrets)
    found = {}
    for path in sorted(folder.rglob("*")):
        data = str(path.relative_to(folder)).encode() + b"\n"
        if path.is_file():
            content = path.read_bytes()
            # SQLite can split a long value; deleted values are only in the raw content.
            values = b"\n".join(_values(path)) if content.startswith(_SQLITE) else b""
            data += content + b"\n" + values
        if here := found_in(data, secrets):
            found[str(path)] = here
    return found


def _values(path: Path) -> Iterator[bytes]:
    with closing(sqlite3.connect(path)) as connection:
        connection.text_factory = bytes
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        for (table,) in tables:
            for row in connection.execute(f'SELECT * FROM "{table.decode()}"'):
                yield from (value for value in row if isinstance(value, bytes))


def _layers(data: bytes, depth: int) -> Iterator[bytes]:
    """Yield the data, and the decompressed data within it."""
    yield data
    if depth:
        for start in _COMPRESSED.finditer(data):
            if inner := _decompressed(data[start.start() :]):
                yield from _layers(inner, depth - 1)
        for text in _BASE64.findall(data):
            plain = text.rstrip(b"=").replace(b"-", b"+").replace(b"_", b"/")
            inner = base64.b64decode(plain[: len(plain) // 4 * 4])
            if _COMPRESSED.match(inner):
                yield from _layers(inner, depth - 1)


def _decompressed(data: bytes) -> bytes:
    """Return the content of a compressed stream at the start of the data; empty where there is none."""
    try:
        return zlib.decompressobj(_ZLIB_OR_GZIP).decompress(data, 1 << 26)
    except zlib.error:
        return b""
