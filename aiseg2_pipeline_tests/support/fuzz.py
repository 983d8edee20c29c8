"""Mutate valid inputs of a parser at random: bytes, text, HTML, JSON, tables and zips.

A mutator with the same random generator returns the same input. It knows no parser: numbers, names and JSON values are
found by their form.
"""

import io
import json
import re
import struct
import zipfile
from collections.abc import Callable, Mapping, Sequence
from html import escape
from random import Random
from typing import Any

NUMBERS = (
    "-1", "-0", "-0.0", "+1", "１２", "٣٤", "1_000", "0x10", "1e999", "-1e999", "1e-999", "5e-324", "NaN", "-NaN",
    "Infinity", "-Infinity", "inf", "9" * 30, "9" * 5000, "1" + "0" * 308, "1.", ".5", ".", "1,5", "1.2.3", "", "-",
    "²", "Ⅷ", "null", "true", "[1]", "99999999999999999999", "1 2", "1\0", "1e1", "0.1", "7", "100", "101", "4294967296",
)  # fmt: skip
NAMES = (
    "", " ", "　", "-", "a,b", "a b=c", '"', "\\", "a\\", '\\ \\=,"', 'a\\ b\\="c', "\n", "x\npower,summary=y value=1 1",
    "\r\n", "\t", "\0", "a\0b", "\x1b[31m", "\x7f", "\x85", "\u2028", "\ud800", "\udfff\ud800", "\U0010ffff", "\ufffe",
    "\ufeff", "\u202e", "e\u0301", "e" + "\u0301" * 2000, "x" * 5000, "電" * 300, "#", "# x", "value=1", "power value=1 1",
    "../../etc/passwd", "<script>alert(1)</script>", "<br />", "&amp;", "&lt;b&gt;", "&#0;", "]]>", "-->", "'", "');",
    "})", "*/", "\\u0000", "\\ud800", "%s%n", "{0}", "NaN", "１２Ｗ", "🔌", "(W)", "総消費電力", "太陽光発電", "ＬＤ", "a・b", "・",
)  # fmt: skip
PIECES = (
    "<!--", "-->", "<?x 9 ?>", "<![CDATA[9]]>", "<![CDATA[", "<!DOCTYPE html [", "&#xD800;", "&#0;", "&#57;", "&nbsp;", "&",
    "&x;", "<", ">", "</html>", "</body>", "</div>", "</div>" * 50, "<div", "<div id=stage_1>", '<div id="g_capacity">7',
    '<div class="c_value">9W</div>', '<div class="num no7">', "<script>", "</script>", "<textarea>", "<template>", "<svg>",
    "<table>", "<frameset>", "<meta charset=utf-16>", '<a href="/page/electricflow/1113?id=99">', "<html>" * 30, "\0", '"',
    "'", ' id="stage_2"', " style='display:none'", "\ufeff", "<div>" * 3000, "<x:y xmlns:x='z'>", ",", "\n",
)  # fmt: skip
BYTES = (b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xe3\x81", b"\0", b"\xff\xfe")
VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    2**70,
    -0.0,
    float("inf"),
    float("nan"),
    "",
    "-",
    [],
    {},
    [[]],
    {"": 0},
)
LABELS = (
    "202604122400+0900",
    "202604120015+0900",
    "20260431",
    "202613",
    "0000",
    "20260412 030+0900",
    "2026041200Z",
    "-",
)
# Replaced in the dumped JSON by nesting that is too deep for `json.dumps`.
_DEEP = "@deep@"
_LARGE_BYTES = 400_000
_NUMBER = re.compile(rb"[0-9]+(?:\.[0-9]+)?")
_NAME = re.compile(rb"[^\x00-\x7f]+")
_JSON = re.compile(rb'\{"|\[')
# The numbers in a zip's records: offset after the signature and format of `struct`.
_ZIP_FIELDS = {
    b"PK\5\6": ((8, "H"), (10, "H"), (12, "I"), (16, "I"), (20, "H")),
    b"PK\1\2": ((8, "H"), (10, "H"), (16, "I"), (20, "I"), (24, "I"), (28, "H"), (30, "H"), (32, "H"), (42, "I")),
    b"PK\3\4": ((6, "H"), (8, "H"), (14, "I"), (18, "I"), (22, "I"), (26, "H"), (28, "H")),
}  # fmt: skip
_ZIP_NUMBERS = (0, 1, 8, 9, 99, 0x800, 0xFFFF, 2**20, 2**20 + 1, 0x7FFFFFFF, 0xFFFFFFFF)


class Mutator:
    """Creates invalid inputs with one random generator."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng

    def mutate(self, valid: Sequence[bytes]) -> bytes:
        """Return one of the valid inputs after a few mutations, which may insert a part of another one."""
        body = self.rng.choice(valid)
        for _ in range(self.rng.choice((1, 1, 1, 2, 2, 3, 6))):
            body = self.rng.choice(self._MUTATIONS)(self, body, valid)
        return body

    def table(self, valid: Sequence[bytes]) -> bytes:
        """Return a CSV file after mutations of its rows and cells, or of its text."""
        rng = self.rng
        if rng.random() < 0.4:
            return self.mutate(valid)
        rows = [line.split(b",") for line in rng.choice(valid).split(b"\n")]
        for _ in range(rng.choice((1, 1, 2, 3))):
            row, n = rng.choice(rows), rng.randrange(len(rows))
            column = rng.randrange(len(row))
            replaced: list[bytes] = [
                _utf8(rng.choice((rng.choice(NUMBERS), rng.choice(LABELS), self.name()))).replace(b"\n", b" ")
            ]
            start, end, cells = rng.choice(
                (
                    (column, column + 1, replaced),
                    (0, 1, [rng.choice(LABELS).encode()]),
                    (column, column, replaced * rng.choice((1, 1, 5, 60))),
                    (column, column + rng.choice((1, 1, 3, 99)), []),
                )
            )
            row[start:end] = cells
            rows[n:n] = rng.choice(([], [], [list(rng.choice(rows))], [[b"-"]] * 60))
            rows = [row or [b""] for row in rows]
        return rng.choice((b"\n", b"\n", b"\n", b"\r\n")).join(b",".join(row) for row in rows)

    def zip(self, valid: Sequence[bytes]) -> bytes:
        """Return a zip after mutations of its bytes, of the numbers in its records, or of a member."""
        rng = self.rng
        kind, body = rng.randrange(10), rng.choice(valid)
        if kind < 2:
            return self.mutate([body])
        if kind < 6:
            with zipfile.ZipFile(io.BytesIO(body)) as archive:
                members = {name: archive.read(name) for name in archive.namelist()}
            name = rng.choice(list(members))
            members[name] = rng.choice((self.table([members[name]]), body, members[name] * 3))
            members[rng.choice((name, f"../{name}", f"{name}/", f"{name}\n", "x.csv"))] = members[name]
            return zipped(members, rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2)))
        for _ in range(rng.choice((1, 1, 2, 4))):
            signature = rng.choice(tuple(_ZIP_FIELDS))
            records = [at for at in range(len(body)) if body.startswith(signature, at)]
            if records:
                offset, form = rng.choice(_ZIP_FIELDS[signature])
                start = rng.choice(records) + offset
                number = rng.choice((*_ZIP_NUMBERS, rng.randrange(2**32))) % 2 ** (8 * struct.calcsize(form))
                written = struct.pack(f"<{form}", number)
                body = body[:start] + written + body[start + len(written) :]
        return body

    def name(self) -> str:
        """Return a name with unusual characters."""
        if self.rng.random() < 0.3:
            letters = ",= \"\\'(#\n\0\ud800" + chr(self.rng.randrange(0x110000))
            return "".join(self.rng.choices(letters, k=self.rng.randrange(1, 12)))
        return "".join(self.rng.choices(NAMES, k=self.rng.choice((1, 1, 2))))

    # Each mutation takes the body and the valid inputs.

    def _flip(self, body: bytes, _: Sequence[bytes]) -> bytes:
        changed = bytearray(body)
        for _time in range(self.rng.choice((1, 1, 4, 30)) if body else 0):
            changed[self.rng.randrange(len(changed))] ^= 1 << self.rng.randrange(8)
        return bytes(changed)

    def _delete(self, body: bytes, _: Sequence[bytes]) -> bytes:
        start, end = self._part(body)
        return body[:start] + body[end:]

    def _repeat(self, body: bytes, _: Sequence[bytes]) -> bytes:
        start, end = self._part(body)
        times = _LARGE_BYTES // max(1, end - start) if self.rng.random() < 0.02 else self.rng.choice((1, 1, 2, 9))
        return body[:end] + body[start:end] * times + body[end:]

    def _splice(self, body: bytes, valid: Sequence[bytes]) -> bytes:
        start, end = self._part(other := self.rng.choice(valid))
        at = self._at(body)
        return body[:at] + other[start:] if self.rng.random() < 0.5 else body[:at] + other[start:end] + body[at:]

    def _truncate(self, body: bytes, _: Sequence[bytes]) -> bytes:
        return body[: self._at(body)] + self.rng.choice((b"", b"</html>", b"</body></html>\n", b"\n", b'"}]}'))

    def _insert(self, body: bytes, _: Sequence[bytes]) -> bytes:
        at = self._at(body)
        if self.rng.random() < 0.5:
            at = body.find(b"<", at) if b"<" in body[at:] else at
        piece = self.rng.choice(BYTES) if self.rng.random() < 0.2 else _utf8(self.rng.choice(PIECES))
        return body[:at] + piece + body[at:]

    def _number(self, body: bytes, _: Sequence[bytes]) -> bytes:
        return self._replaced(_NUMBER, body, _utf8(self.rng.choice(NUMBERS)))

    def _named(self, body: bytes, _: Sequence[bytes]) -> bytes:
        name = self.name()
        return self._replaced(
            _NAME, body, self.rng.choice((_utf8(name), _utf8(escape(name)), json.dumps(name).encode()[1:-1]))
        )

    def _json(self, body: bytes, valid: Sequence[bytes]) -> bytes:
        """Change the structure of a JSON value in the body."""
        found = self._match(_JSON, body)
        text = "" if found is None else body[found.start() :].decode("utf-8", "surrogateescape")
        try:
            value, end = json.JSONDecoder().raw_decode(text)
        except (ValueError, RecursionError):
            return self._insert(body, valid)
        written = json.dumps(
            self._restructured(value), ensure_ascii=self.rng.random() < 0.5, separators=(",", ":")
        )
        deep = self.rng.choice(("[", '{"a":')) * (
            100_000 if self.rng.random() < 0.01 else self.rng.choice((3, 900))
        )
        start = body[: len(body) - len(text.encode("utf-8", "surrogateescape"))]
        return start + _utf8(written.replace(f'"{_DEEP}"', deep, 1)) + _utf8(text[end:])

    def _restructured(self, value: Any) -> Any:
        rng = self.rng
        if not isinstance(value, dict | list) or not value or rng.random() < 0.1:
            return rng.choice(
                (rng.choice(VALUES), rng.choice(NUMBERS), self.name(), rng.randrange(-9, 10**6), _DEEP)
            )
        key = rng.choice(list(value)) if isinstance(value, dict) else rng.randrange(len(value))
        changed: Any = value.copy()
        if rng.random() < 0.7:
            changed[key] = self._restructured(value[key])
        elif isinstance(value, list) and rng.random() < 0.5:
            changed *= rng.choice((2, 3, 50))
        else:
            del changed[key]
        return changed

    def _at(self, body: bytes) -> int:
        return self.rng.randrange(len(body) + 1)

    def _part(self, body: bytes) -> tuple[int, int]:
        start = self._at(body)
        return start, min(len(body), start + self.rng.choice((1, 1, 3, 20, 300, 5000)))

    def _match(self, pattern: re.Pattern[bytes], body: bytes) -> re.Match[bytes] | None:
        return pattern.search(body, self._at(body)) or pattern.search(body)

    def _replaced(self, pattern: re.Pattern[bytes], body: bytes, by: bytes) -> bytes:
        found = self._match(pattern, body)
        return body if found is None else body[: found.start()] + by + body[found.end() :]

    _MUTATIONS: Sequence[Callable[["Mutator", bytes, Sequence[bytes]], bytes]] = (
        *(_number, _number, _named, _named, _json, _json, _insert, _insert),
        *(_flip, _delete, _repeat, _splice, _truncate),
    )


def zipped(members: Mapping[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    """Return a zip of these members."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", method) as archive:
        for name, body in members.items():
            archive.writestr(zipfile.ZipInfo(name), body, method)
    return content.getvalue()


def _utf8(text: str) -> bytes:
    """Encode text that may have lone surrogates."""
    return text.encode("utf-8", "surrogatepass")
