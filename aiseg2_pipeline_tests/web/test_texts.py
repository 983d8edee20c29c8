"""The page's texts and files, without a browser."""

import gzip
import hashlib
import re

import pytest

from aiseg2_pipeline.web import pages
from aiseg2_pipeline.web.texts import chosen, texts

MOST_BYTES = 250_000
SCRIPTS = sorted(pages.STATIC.glob("*.js"))
TEMPLATES = sorted((pages.HERE / "templates").glob("*.html"))
# From `npm pack uplot@1.6.32`.
VENDORED = {
    "uPlot-1.6.32.iife.min.js": "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
    "uPlot-1.6.32.min.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
    "uPlot-LICENSE.txt": "8f989229699b4fe2f1a0432d0e9edc338a8a911e250e2d1b01ecd770a5f5b1bd",
}


def test_both_languages_have_the_same_texts_and_all_that_are_used() -> None:
    japanese, english = texts("ja"), texts("en")
    assert japanese.keys() == english.keys()
    for key, text in japanese.items():
        assert text, key
        assert english[key], key
    source = "".join(path.read_text(encoding="utf-8") for path in (*SCRIPTS, *TEMPLATES))
    used = set(re.findall(r"\bt(?:\(|\[)\"([\w.]+)\"(?:\)|\]|,)", source))
    assert used, "the pattern finds nothing"
    assert used <= japanese.keys()


@pytest.mark.parametrize(
    ("accepted", "language"),
    [
        ("ja", "ja"),
        ("ja-JP,ja;q=0.9,en;q=0.8", "ja"),
        ("en-US,en;q=0.9,ja;q=0.8", "en"),
        ("fr,ja;q=0.5", "ja"),
        ("fr", "en"),
        ("", "en"),
    ],
)
def test_the_language_is_the_one_that_the_browser_prefers(accepted: str, language: str) -> None:
    assert chosen(accepted) == language


def test_the_chart_library_is_the_published_one() -> None:
    files = {path.name: path for path in (pages.STATIC / "vendor").iterdir()}
    assert {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()} == VENDORED


def test_the_whole_page_is_light() -> None:
    files = [path for path in pages.STATIC.rglob("*") if path.is_file()] + TEMPLATES
    assert sum(len(gzip.compress(path.read_bytes())) for path in files) < MOST_BYTES


def test_nothing_is_inline_and_nothing_becomes_html() -> None:
    for path in TEMPLATES:
        html = path.read_text(encoding="utf-8")
        assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:|\|safe", html), path.name
        assert all("src=" in tag or "application/json" in tag for tag in re.findall(r"<script[^>]*>", html)), (
            path.name
        )
    for path in SCRIPTS:
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|https?://(?!www\.w3\.org/2000/svg)",
            path.read_text(encoding="utf-8"),
        ), path.name
