"""Whatever goes wrong, a person reads one sentence that names the thing, the setting and the next step; and none is missing here."""

import re
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from dotenv import dotenv_values

from aiseg2_pipeline_tests.support import error_messages_in_japanese as sentences_in_japanese
from aiseg2_pipeline_tests.support.error_messages import BY_ITSELF, LEFT_OUT, STEP, Sentence
from aiseg2_pipeline_tests.support.error_sites import Site, sites
from aiseg2_pipeline_tests.support.error_stage import stages
from aiseg2_pipeline_tests.support.errors_of_device import OF_DEVICE
from aiseg2_pipeline_tests.support.errors_of_influxdb import OF_INFLUXDB
from aiseg2_pipeline_tests.support.errors_of_machine import OF_MACHINE
from aiseg2_pipeline_tests.support.errors_of_runs import OF_RUNS

ALL = [*OF_DEVICE, *OF_INFLUXDB, *OF_MACHINE, *OF_RUNS]
EXAMPLE = Path(__file__).parents[1] / ".env.example"
SETTING = re.compile(r"\b(?:AISEG2|INFLUXDB)_[A-Z0-9_]*[A-Z0-9]\b")
# A second sentence only goes on where the first one ended: how it is with the rows, what the demo needs, what to do.
ENDS = re.compile(r"[.:]\)?(?= [A-Z])")
MOST_SENTENCES, MOST_CHARS = 2, 300
# A command to be copied stands at the end, without a full stop behind it.
COMMAND_AT_THE_END = re.compile(r": aiseg2-pipeline [^.]*$")
OF_A_PROGRAM = re.compile(
    r"Traceback|\b\w*(?:Error|Exception)\b|<[\w.]+ object|0x[0-9a-f]{6}|\[Errno|None\b(?! is)"
)
SECRETS = ("correct horse", "CORRECT HORSE", "t0ken", "top-secret")

Told = Callable[[Sentence], str]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    """Bring a sentence about, once."""
    known: dict[str, str] = {}
    with stages(tmp_path_factory.mktemp("stages")) as stage:

        def bring(sentence: Sentence) -> str:
            if sentence.id not in known:
                with stage() as own:
                    known[sentence.id] = sentence.said(own).replace(str(own.folder), "/data")
            return known[sentence.id]

        yield bring


@pytest.mark.parametrize("sentence", ALL, ids=lambda sentence: sentence.id)
def test_an_error_is_one_sentence_that_names_the_thing_the_setting_and_the_next_step(
    sentence: Sentence, told: Told
) -> None:
    said = told(sentence)
    assert_for_people(said)
    assert len(said) <= MOST_CHARS
    if not sentence.line:
        first = said.split()[0]
        assert not first[0].islower() or re.search("[/:.]|aiseg2-pipeline", first), "it begins like a sentence"
        assert said.endswith(".") or COMMAND_AT_THE_END.search(said), "it ends like a sentence"
        assert len(ENDS.split(said)) <= MOST_SENTENCES
    for name in (*sentence.names, sentence.setting):
        assert name in said
    assert STEP.search(said) or any(words in said for words in BY_ITSELF), "it says what to do"
    assert set(SETTING.findall(said)) <= settings() | {"AISEG2_HOTS"}


def assert_for_people(said: str) -> None:
    """It is text on one line, in no program's words, and tells no secret."""
    assert said
    assert not [char for char in said if unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp")]
    assert not OF_A_PROGRAM.search(said)
    assert not [secret for secret in SECRETS if secret in said]


def settings() -> set[str]:
    """Return the settings' names as .env.example spells them."""
    text = EXAMPLE.read_text(encoding="utf-8")
    return {*dotenv_values(EXAMPLE), *re.findall(r"^#([A-Z0-9_]+)=", text, re.MULTILINE)}


def test_the_ids_are_unique() -> None:
    assert len({sentence.id for sentence in ALL}) == len(ALL)


# The list is whole


def test_every_error_in_the_source_is_in_the_list(told: Told) -> None:
    said = [told(sentence) for sentence in ALL]
    said += [f"{message.title}\n{message.body}" for message, _ in sentences_in_japanese.wrong().values()]
    said += [f"{message.title}\n{message.body}" for message in sentences_in_japanese.over()]
    missing = [site for site in sites() if not is_left_out(site) and not any(site.is_in(one) for one in said)]
    assert not missing, (
        "These texts are in no sentence of the list. Add a Sentence for each error to sentences_of_….py, and what is none to "
        "LEFT_OUT in sentences.py:\n"
        + "\n".join(f"{site.module}, line {site.line}: {site.text}" for site in missing)
    )


def is_left_out(site: Site) -> bool:
    return any(site.text.startswith(begins) for begins, _ in LEFT_OUT.get(site.module, ()))


def test_what_is_left_out_is_still_there() -> None:
    there = [(site.module, site.text) for site in sites()]
    gone = [
        (module, begins)
        for module, texts in LEFT_OUT.items()
        for begins, _ in texts
        if not any(where == module and text.startswith(begins) for where, text in there)
    ]
    assert not gone, "Take out of LEFT_OUT what is no longer in the source."


def test_a_new_error_anywhere_is_noticed() -> None:
    texts = {site.text for site in sites()}
    # Raised, put together from pieces, noted as a problem, given as a constant, returned.
    for known in (
        "--to is earlier than --from: write the earlier one as --from.",
        "is read-only for this user",
        "The circuits are missing. …",
        "nothing listens there",
        "must be at least …",
        "ends in the middle",
    ):
        assert known in texts


# What a household reads


@pytest.mark.parametrize("name", sentences_in_japanese.WRONG)
def test_a_message_says_in_japanese_what_to_do_and_tells_the_error_beside(name: str) -> None:
    message, error = sentences_in_japanese.wrong()[name]
    body, *beside = message.body.split("\n")
    assert beside == ([error] if error else [])
    for text in (message.title, body):
        assert_for_people(text)
    assert body.endswith("。")
    assert any(step in body for step in sentences_in_japanese.STEPS)


def test_a_message_that_it_is_over_is_japanese_too() -> None:
    for message in sentences_in_japanese.over():
        for text in (message.title, message.body):
            assert_for_people(text)
            assert re.search("[ぁ-ん]", text)
        assert message.body.endswith("。")
