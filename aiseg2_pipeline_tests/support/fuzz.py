"""Spoils what a device, a file or a server sends: from bytes that are right to bytes that are not, by chance.

One chance is one garbage, so an input can be made again from its seed. Nothing here knows a parser; what stands where
on a page is found by its look (digits, Japanese letters, `{"`, `<`). Zips and their files are spoiled in `garbage_zips`.
"""

import json
import re
from collections.abc import Callable, Sequence
from html import escape
from random import Random
from typing import Any

NUMBERS = (
    "-1", "-0", "-0.0", "+1", "１２", "٣٤", "1_000", "0x10", "1e999", "-1e999", "1e-999", "5e-324", "NaN", "-NaN",
    "Infinity", "-Infinity", "inf", "9" * 30, "9" * 5000, "1" + "0" * 308, "1.", ".5", ".", "1,5", "1.2.3", "", "-",
    "--", "- 5", "²", "Ⅷ", "null", "true", "[1]", '"1"', "0" * 400 + "1", "99999999999999999999", "1 2", "1\0", "1e1",
    "0.1", "7", "100", "101", "999", "24", "1.0000000000000000000000000000001", "4294967296", "-2147483649",
)  # fmt: skip
NAMES = (
    "", " ", "　", "-", "a,b", "a b=c", '"', "\\", "a\\", '\\ \\=,"', 'a\\ b\\="c', "\n", "x\npower,summary=y value=1 1",
    "\r\n", "\t", "\0", "a\0b", "\x1b[31m", "\x7f", "\x85", "\u2028", "\ud800", "\udfff\ud800", "\U0010ffff", "\ufffe",
    "\ufeff", "\u202e", "e\u0301", "e" + "\u0301" * 2000, "x" * 5000, "電" * 300, "#", "# x", "value=1", "power value=1 1",
    "../../etc/passwd", "<script>alert(1)</script>", "<br />", "&amp;", "&lt;b&gt;", "&#0;", "]]>", "-->", "'", "');",
    "})", "*/", "\\u0000", "\\ud800", "%s%n", "{0}", "NaN", "１２Ｗ", "🔌", "(W)", "総消費電力", "太陽光発電", "ＬＤ", "a・b", "・",
)  # fmt: skip
HTML = (
    "<!--", "-->", "<!-- 9 -->", "<?x 9 ?>", "<![CDATA[9]]>", "<![CDATA[", "]]>", "<!DOCTYPE", "<!DOCTYPE html [",
    "&#xD800;", "&#0;", "&#x110000;", "&#99999999999999999999;", "&#57;", "&#65297;", "&nbsp;", "&", "&x;", "&lt;", "&#",
    "<", ">", "</", "<>", "</html>", "</body>", "</div>", "</div>" * 50, "<div>", "<div", "<div id=stage_1>",
    '<div id="g_capacity">7', '<div id="val_kwh">', '<div class="c_value">9W</div>', '<div class="num no7">', "<script>",
    "</script>", "<style>", "<textarea>", "<plaintext>", "<template>", "<svg>", "<math>", "<table>", "<select>",
    "<frameset>", "<noscript>", "<title>", "<meta charset=utf-16>", "<meta charset=shift_jis>", "<br/>", "<p " * 30,
    '<a href="/page/electricflow/1113?id=99">', '<a href="/page/electricflow/1113?' + "&" * 500 + '">', "<html>" * 30,
    "\0", "\x1f", '"', "'", "=", " id=", ' id="stage_2"', ' id="base1_1"', " style='display:none'", "\ufeff",
    "<b>" * 300, "<div>" * 3000, "<b " + " ".join(f"a{n}=1" for n in range(300)) + ">", "<x:y xmlns:x='z'>",
)  # fmt: skip
BYTES = (
    b"\xff",
    b"\xc0\xaf",
    b"\xed\xa0\x80",
    b"\xe3\x81",
    b"\xf4\x90\x80\x80",
    b"\0",
    b"\xef\xbb\xbf",
    b"\xff\xfe",
)
VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    -1,
    0,
    2**70,
    1e308,
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
# Stands in dumped JSON for what no dump can hold: nesting that is deeper than the dump itself can go.
_DEEP = "@deep@"

_NUMBER = re.compile(rb"[0-9]+(?:\.[0-9]+)?")
_NAME = re.compile(rb"[^\x00-\x7f]+")
_TAG = re.compile(rb"[<>]")
_OBJECT = re.compile(rb'\{"|\[')
# Beyond it a parser refuses unread, so it is seldom worth making.
_LARGE = 400_000


class Garbage:
    """What one chance makes of good inputs; `lures` are addresses that nothing should ever open."""

    def __init__(self, chance: Random, lures: Sequence[str] = ()) -> None:
        self.chance = chance
        self._html = HTML + tuple(
            piece
            for lure in lures
            for piece in (
                f'<!DOCTYPE html [<!ENTITY x SYSTEM "{lure}"><!ENTITY % y SYSTEM "{lure}">%y;]>&x;',
                f'<!DOCTYPE html PUBLIC "x" "{lure}">',
                f'<?xml-stylesheet href="{lure}"?>',
                f'<xi:include xmlns:xi="http://www.w3.org/2001/XInclude" href="{lure}" parse="text"/>',
                f'<iframe src="{lure}"></iframe><link rel=stylesheet href="{lure}"><base href="{lure}">',
            )
        )

    def spoil(self, good: Sequence[bytes]) -> bytes:
        """Return one of the good inputs after some mishaps; another one may have got into it."""
        chance = self.chance
        body = chance.choice(good)
        if chance.random() < 0.02:
            return chance.randbytes(chance.randrange(200)) + chance.choice((b"", b"</html>", b"\n", body))
        for _ in range(chance.choice((1, 1, 1, 2, 2, 3, 6))):
            mishap = chance.choice(self._MISHAPS)
            body = mishap(self, body, good)
        return body

    def name(self) -> str:
        """Return a name that is hard to bear, or two of them in one."""
        chance = self.chance
        if chance.random() < 0.3:
            letters = ",= \"\\'(#\n\0\ud800" + chr(chance.randrange(0x110000))
            return "".join(chance.choice(letters) for _ in range(chance.randrange(1, 12)))
        return "".join(chance.choice(NAMES) for _ in range(chance.choice((1, 1, 2))))

    def value(self) -> Any:
        """Return a JSON value that is none of those expected."""
        chance = self.chance
        return chance.choice(
            (chance.choice(VALUES), chance.choice(NUMBERS), self.name(), chance.randrange(-9, 10**6), _DEEP)
        )

    # Each takes the body and the other good inputs.

    def _flip(self, body: bytes, _: Sequence[bytes]) -> bytes:
        spoiled = bytearray(body)
        for _time in range(self.chance.choice((1, 1, 4, 30))):
            if spoiled:
                spoiled[self.chance.randrange(len(spoiled))] ^= 1 << self.chance.randrange(8)
        return bytes(spoiled)

    def _drop(self, body: bytes, _: Sequence[bytes]) -> bytes:
        start, end = self._piece(body)
        return body[:start] + body[end:]

    def _double(self, body: bytes, _: Sequence[bytes]) -> bytes:
        start, end = self._piece(body)
        piece = body[start:end]
        times = self.chance.choice((1, 1, 1, 2, 9, _LARGE // max(1, len(piece))))
        if times > 9 and self.chance.random() < 0.95:
            times = 1
        return body[:end] + piece * times + body[end:]

    def _splice(self, body: bytes, good: Sequence[bytes]) -> bytes:
        other = self.chance.choice(good)
        return body[: self._at(body)] + other[self._at(other) :]

    def _graft(self, body: bytes, good: Sequence[bytes]) -> bytes:
        start, end = self._piece(other := self.chance.choice(good))
        at = self._at(body)
        return body[:at] + other[start:end] + body[at:]

    def _cut(self, body: bytes, _: Sequence[bytes]) -> bytes:
        return body[: self._at(body)] + self.chance.choice((b"", b"</html>", b"</body></html>\n", b"\n", b'"}]}'))

    def _insert(self, body: bytes, _: Sequence[bytes]) -> bytes:
        at = self._at(body)
        piece = self.chance.choice(BYTES) if self.chance.random() < 0.3 else _utf8(self.chance.choice(self._html))
        return body[:at] + piece + body[at:]

    def _between_tags(self, body: bytes, _: Sequence[bytes]) -> bytes:
        found = self._one_of(_TAG, body)
        piece = _utf8(self.chance.choice(self._html))
        if self.chance.random() < 0.003:
            piece = self.chance.choice((b"<div>", b"<b>", b"<p>", b"<table><tr><td>", b"<!--", b"</p>")) * 100_000
        return body if found is None else body[: found.start()] + piece + body[found.start() :]

    def _number(self, body: bytes, _: Sequence[bytes]) -> bytes:
        return self._replaced(_NUMBER, body, _utf8(self.chance.choice(NUMBERS)))

    def _named(self, body: bytes, _: Sequence[bytes]) -> bytes:
        name = self.name()
        written = self.chance.choice((_utf8(name), _utf8(escape(name)), json.dumps(name).encode()[1:-1]))
        return self._replaced(_NAME, body, written)

    def _json(self, body: bytes, _: Sequence[bytes]) -> bytes:
        """Change the structure of a JSON value that stands in the body."""
        found = self._one_of(_OBJECT, body)
        text = "" if found is None else body[found.start() :].decode("utf-8", "surrogateescape")
        try:
            value, end = json.JSONDecoder().raw_decode(text)
        except (ValueError, RecursionError):
            return self._insert(body, ())
        for _time in range(self.chance.choice((1, 1, 3))):
            value = self._restructured(value)
        written = json.dumps(value, ensure_ascii=self.chance.random() < 0.5, separators=(",", ":"))
        if self.chance.random() < 0.1:
            written = written.replace(":", f":1,{json.dumps(self.name())}:", self.chance.randrange(3))
        opening = self.chance.choice(("[", '{"a":', '[{"a":'))
        deep = opening * (100_000 if self.chance.random() < 0.01 else self.chance.choice((3, 50, 900)))
        start = body[: len(body) - len(text.encode("utf-8", "surrogateescape"))]
        return start + _utf8(written.replace(f'"{_DEEP}"', deep, 1)) + _utf8(text[end:])

    def _restructured(self, value: Any) -> Any:
        chance = self.chance
        if not isinstance(value, dict | list) or not value or chance.random() < 0.1:
            return self.value()
        key = chance.choice(list(value)) if isinstance(value, dict) else chance.randrange(len(value))
        changed: Any = value.copy()
        if isinstance(value[key], dict | list) and chance.random() < 0.8:
            changed[key] = self._restructured(value[key])
            return changed
        kind = chance.choice(("drop", "rename", "type", "new", "new"))
        if kind == "type":
            changed[key] = _of_other_type(value[key])
        elif kind == "new":
            changed[key] = self.value()
        elif isinstance(value, list) and kind == "rename":
            changed *= chance.choice((2, 3, 50))
        else:
            del changed[key]
            if kind == "rename":
                changed[self.name() if chance.random() < 0.5 else str(key).upper()] = value[key]
        return changed

    def _encoded(self, body: bytes, _: Sequence[bytes]) -> bytes:
        """Write the text in another encoding, or as if in two."""
        text = body.decode("utf-8", "replace")
        encodings = ("utf-16", "utf-16-be", "utf-32", "utf-8-sig", "utf-7", "shift_jis", "euc_jp", "latin-1")
        if self.chance.random() < 0.3:
            return body.replace(b"<", b"\xc0\xbc").replace(b"/", b"\xc0\xaf")
        return text.encode(self.chance.choice(encodings), "replace")

    def _at(self, body: bytes) -> int:
        return self.chance.randrange(len(body) + 1)

    def _piece(self, body: bytes) -> tuple[int, int]:
        start = self._at(body)
        return start, min(len(body), start + self.chance.choice((1, 1, 3, 20, 300, 5000)))

    def _one_of(self, pattern: re.Pattern[bytes], body: bytes) -> re.Match[bytes] | None:
        """Return the next match after a place of chance."""
        return pattern.search(body, self._at(body)) or pattern.search(body)

    def _replaced(self, pattern: re.Pattern[bytes], body: bytes, by: bytes) -> bytes:
        found = self._one_of(pattern, body)
        return body if found is None else body[: found.start()] + by + body[found.end() :]

    _MISHAPS: Sequence[Callable[["Garbage", bytes, Sequence[bytes]], bytes]] = (
        *(_number, _number, _named, _named, _json, _json, _between_tags, _between_tags),
        *(_flip, _drop, _double, _splice, _graft, _cut, _insert, _encoded),
    )


def _utf8(text: str) -> bytes:
    """Encode what may hold lone surrogates, be they of a broken byte or of a hostile name."""
    return text.encode("utf-8", "surrogatepass")


def _of_other_type(value: Any) -> Any:
    if not isinstance(value, str):
        return str(value)
    return float(value) if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", value) else len(value)
