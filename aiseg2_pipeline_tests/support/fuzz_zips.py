"""Spoils the card's zip: its files' text, its members' names, and the numbers in which it speaks of itself."""

import io
import struct
import warnings
import zipfile
from collections.abc import Mapping, Sequence

from aiseg2_pipeline_tests.support.fuzz import NAMES, NUMBERS, Garbage

_CELLS = (
    *NUMBERS,
    "202604120030+0900",
    "2026041200+0900",
    "20260412",
    "202604",
    "2026",
    '"',
    '"1"',
    "1;2",
    "計測日時",
)
_ZONES = ("+0800", "-0900", "+0000", "Z", "", "+09:00", "+0900 ", "+９００")
_LABELS = (
    "202604122400",
    "202604120015",
    "2026041299",
    "20260431",
    "202613",
    "0000",
    "9999",
    "20260412 030",
    "-",
    "",
)
_PATHS = (
    "../",
    "../../../tmp/",
    "/",
    "C:\\",
    "\\\\server\\share\\",
    "./",
    "a/" * 500,
    "~/",
    "\0",
    "con/",
    "\u202e",
)
_METHODS = (0, 8, 9, 12, 14, 93, 95, 97, 98, 99, 65535)
_FLAGS = (0x1, 0x8, 0x20, 0x40, 0x800, 0x2000, 0xFFFF)
_LIES = (0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 0xFFFFFFFE, 2**20, 2**20 + 1, 2**31)
_END = b"PK\5\6"
_CENTRAL = b"PK\1\2"
_LOCAL = b"PK\3\4"
# Where a record has a number of its own: place after the signature, struct's letter.
_FIELDS = {
    _END: ((4, "H"), (6, "H"), (8, "H"), (10, "H"), (12, "I"), (16, "I"), (20, "H")),
    _CENTRAL: (
        *((4, "H"), (6, "H"), (8, "H"), (10, "H"), (12, "I"), (16, "I"), (20, "I"), (24, "I"), (28, "H")),
        *((30, "H"), (32, "H"), (34, "H"), (36, "H"), (38, "I"), (42, "I")),
    ),
    _LOCAL: ((4, "H"), (6, "H"), (8, "H"), (10, "I"), (14, "I"), (18, "I"), (22, "I"), (26, "H"), (28, "H")),
}
_SYMLINK = 0o120777 << 16


def spoiled_csv(  # noqa: C901, PLR0912 - a branch is a mishap
    garbage: Garbage, good: Sequence[bytes]
) -> bytes:
    """Return one of the good files after a mishap that only a table can have, or one that any text can."""
    chance = garbage.chance
    if chance.random() < 0.4:
        return garbage.spoil(good)
    rows = [line.split(b",") for line in chance.choice(good).split(b"\n")]
    for _ in range(chance.choice((1, 1, 2, 3))):
        row = chance.choice(rows)
        column = chance.randrange(len(row))
        kind = chance.randrange(12)
        if kind == 0:
            row[column] = chance.choice(_CELLS).encode()
        elif kind == 1:
            row[column:column] = [chance.choice(_CELLS)[:40].encode()] * chance.choice(
                (1, 1, 1, 5, 5, 5, 60, 100_000)
            )
        elif kind == 2:
            del row[column : column + chance.choice((1, 1, 3, 99))]
        elif kind == 3:
            rows[chance.randrange(len(rows))] = list(chance.choice(rows))
        elif kind == 4:
            del rows[chance.randrange(len(rows))]
        elif kind == 5:
            row[:1] = [chance.choice(_LABELS).encode() + chance.choice(_ZONES).encode()]
        elif kind == 6 and row:
            row[0] = row[0].replace(b"+0900", chance.choice(_ZONES).encode())
        elif kind == 7:
            rows[0][chance.randrange(len(rows[0]))] = garbage.name().encode("utf-8", "surrogatepass")
        elif kind == 8:
            row[column : column + 1] = [b'"' + b",".join(row[column : column + 2]) + b'"']
        elif kind == 9:
            times = chance.choice((2, 50)) if sum(map(len, rows)) < 5000 else 1
            rows = [list(each) for _time in range(times) for each in rows]
        elif kind == 10:
            row[column] = chance.choice(NAMES).encode("utf-8", "surrogatepass")
        else:
            rows.sort(key=lambda _: chance.random())
        rows = [row or [b""] for row in rows] or [[b""]]
    end = chance.choice((b"\n", b"\n", b"\n", b"\n", b"\r\n", b"\r", b"\n\n"))
    return chance.choice((b"", b"", b"", b"\xef\xbb\xbf")) + end.join(b",".join(row) for row in rows)


def zipped(members: Mapping[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    """Return the files as a zip."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", method) as archive:
        for name, body in members.items():
            archive.writestr(zipfile.ZipInfo(name), body, method)
    return content.getvalue()


def spoiled_zip(garbage: Garbage, good: Sequence[bytes]) -> bytes:
    """Return one of the good zips with its bytes, its records or its members spoiled."""
    chance = garbage.chance
    kind = chance.randrange(10)
    if kind < 2:
        return garbage.spoil(good)
    body = _other_members(garbage, chance.choice(good)) if kind < 6 else chance.choice(good)
    for _ in range(chance.choice((0, 1, 1, 2, 4)) if kind < 6 else chance.choice((1, 1, 2, 4))):
        body = _lied(garbage, body)
    return body


def _lied(garbage: Garbage, body: bytes) -> bytes:
    """Put another number into a record of the zip."""
    chance = garbage.chance
    signature = chance.choice(tuple(_FIELDS))
    places = [at for at in range(len(body)) if body.startswith(signature, at)] if len(body) < 20_000 else []
    at = chance.choice(places) if places else body.rfind(signature)
    if at < 0:
        return body
    offset, letter = chance.choice(_FIELDS[signature])
    most = 2 ** (8 * struct.calcsize(letter)) - 1
    options = (*_LIES, *_METHODS, *_FLAGS, chance.randrange(2**32), chance.randrange(200))
    number = chance.choice(options) & most
    written = struct.pack(f"<{letter}", number)
    changed = body[: at + offset] + written + body[at + offset + len(written) :]
    if chance.random() < 0.2:
        # A zip64 directory, which speaks of itself in 64 bits.
        end = changed.rfind(_END)
        big = chance.choice((0, 1, 2**63, 2**64 - 1, 2**32, len(body), chance.randrange(10**6)))
        record = struct.pack(
            "<4sQ2H2I4Q", b"PK\6\6", chance.choice((44, 0, big)), 45, 45, 0, 0, big, big, big, big
        )
        where = chance.choice((end, big))
        locator = struct.pack(
            "<4sIQI", b"PK\6\7", chance.choice((0, 0, 1)), where & (2**64 - 1), chance.choice((1, 9))
        )
        changed = changed[:end] + record + locator + changed[end:] if end >= 0 else changed
    return changed


def _other_members(  # noqa: C901, PLR0912 - a branch is a mishap
    garbage: Garbage, body: bytes
) -> bytes:
    """Pack the members anew: under other names, twice, as links, in folders, within one another, or huge."""
    chance = garbage.chance
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, text in members:
            entry, packed = zipfile.ZipInfo(name), text
            method = chance.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
            kind = chance.randrange(16)
            if kind == 0:
                entry.filename = chance.choice(_PATHS) + name
            elif kind == 1:
                entry.filename = name + chance.choice(("/", "\0", "\n", " ", ".bak", "\\", "\0.csv"))
            elif kind == 2:
                entry.external_attr = _SYMLINK
                packed = b"/etc/passwd"
            elif kind == 3:
                packed = zipped(dict(members), zipfile.ZIP_DEFLATED)
            elif kind == 4:
                packed = text + b"\n" * chance.choice((10**5, 2**20, 2**21)) if chance.random() < 0.1 else text * 3
            elif kind == 5:
                packed = spoiled_csv(garbage, [text])
            elif kind == 6:
                entry.filename = garbage.name().encode("utf-8", "replace").decode()[:60000]
            elif kind == 7:
                entry.extra = chance.randbytes(chance.randrange(60))
            elif kind == 8:
                archive.writestr(zipfile.ZipInfo(name), packed)
            elif kind == 9:
                entry.comment = chance.randbytes(30) + _END
            archive.writestr(entry, packed, method if kind == 10 else chance.choice((0, 8)))
        if chance.random() < 0.001:
            for n in range(chance.choice((20_001, 100_000))):
                archive.writestr(zipfile.ZipInfo(f"{n}"), b"")
    return content.getvalue()
