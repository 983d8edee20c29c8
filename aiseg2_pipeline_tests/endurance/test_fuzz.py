"""Whatever a device, a server or a damaged file says: it is read, or refused in one sentence, and nothing else happens.

`python -m benchmarks.fuzz` does the same a million times, and shows an input that escaped again.
"""

import logging
import urllib.request
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from aiseg2_pipeline_tests.support.fuzz_lures import lured
from aiseg2_pipeline_tests.support.parsers import Parser, outcome, parsers, spoiled

SEED = 1
# How many inputs each parser gets: as many as about a second takes.
INPUTS = {
    "flow json": 4000,
    "flow html": 2500,
    "circuit page": 1000,
    "circuit list": 2500,
    "climate": 1500,
    "export page": 5000,
    "device time": 5000,
    "graph generation": 1000,
    "graph consumption": 1000,
    "graph bought": 1000,
    "graph sold": 1000,
    "graph hotwater": 1000,
    "graph gas": 1000,
    "graph usage": 1000,
    "zip": 250,
    "30minhistory": 250,
    "hourhistory": 250,
    "dayhistory": 250,
    "monthhistory": 250,
    "daycost": 250,
    "monthcost": 250,
    "live circuits": 500,
    "climate state": 1000,
    "device state": 1000,
    "http answer": 250,
    "login state": 250,
    "influxdb refusal": 250,
    "influxdb table": 250,
    "names to points": 40,
}
LURED = ("flow html", "circuit page", "climate", "graph generation", "graph usage", "circuit list", "export page")


@pytest.fixture(scope="module")
def every(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Parser]]:
    with parsers(tmp_path_factory.mktemp("garbage")) as all_of_them:
        yield {parser.name: parser for parser in all_of_them}


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """What a library says of a server's garbage, it says a thousand times."""
    logging.disable()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    logging.disable(logging.NOTSET)


def test_every_parser_is_given_garbage(every: dict[str, Parser]) -> None:
    assert set(INPUTS) == set(every)


@pytest.mark.parametrize("name", INPUTS)
def test_garbage_is_read_or_refused_in_one_sentence(every: dict[str, Parser], tmp_path: Path, name: str) -> None:
    parser, outcomes = every[name], set()
    with lured(tmp_path) as (lures, taken):
        for number in range(INPUTS[name]):
            body = spoiled(parser, SEED, number, lures)
            try:
                outcomes.add(outcome(parser, body))
            except Exception as error:
                again = f'python -m benchmarks.fuzz --only "{name}" --seed {SEED} --start {number} --inputs 1'
                error.add_note(f"{body[:500]!r}\n{again}")
                raise
        assert not taken()
    # A spoiler that spoils nothing, or all, would prove little.
    assert name == "influxdb refusal" or "read" in outcomes
    assert not parser.errors or len(outcomes) > 1 or name == "device time"


@pytest.mark.parametrize("name", LURED)
def test_no_page_makes_its_parser_open_what_it_names(every: dict[str, Parser], tmp_path: Path, name: str) -> None:
    with lured(tmp_path) as (lures, taken):
        for lure in lures:
            hostile = f"""<?xml version="1.0"?><!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0//EN" "{lure}" [
                <!ENTITY x SYSTEM "{lure}"><!ENTITY % y SYSTEM "{lure}">%y;]>""".encode()
            opened = f"""&x;<xi:include xmlns:xi="http://www.w3.org/2001/XInclude" href="{lure}" parse="text"/>
                <base href="{lure}"><link rel="stylesheet" href="{lure}"><script src="{lure}"></script>
                <iframe src="{lure}"></iframe><object data="{lure}"></object>""".encode()
            for good in every[name].good:
                page = hostile + good[max(0, good.find(b"<html")) :].replace(b"</body>", opened + b"</body>")
                outcome(every[name], page)
                outcome(every[name], page.replace(b'"><', b'">&x;<'))
        assert not taken()


def test_billions_of_laughs_stay_as_they_are_written(every: dict[str, Parser]) -> None:
    laughs = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
    doctype = f'<!DOCTYPE html [<!ENTITY l0 "1">{laughs}]>'.encode()
    for name in LURED[:-2]:
        for good in every[name].good:
            page = doctype + good[good.find(b"<html") :].replace(b"</div>", b"&l9;</div>")
            # Expanded, it would be a gigabyte, and a name longer than any.
            assert outcome(every[name], page) in ("read", "Unreadable")


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_lure_that_is_opened_tells(tmp_path: Path, number: int) -> None:
    with lured(tmp_path) as (lures, taken):
        assert not taken()
        if lures[number].startswith("http"):
            urllib.request.urlopen(lures[number]).read()  # noqa: S310 - our own server
        else:
            with Path(lures[number].removeprefix("file://")).open("rb", buffering=0) as file:
                file.read(3)
        assert taken()
