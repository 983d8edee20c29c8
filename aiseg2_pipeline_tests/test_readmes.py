"""The two READMEs tell the same, and name every setting and command."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from aiseg2_pipeline.cli.main import main
from aiseg2_pipeline.frames.readings import TOTAL_CONSUMPTION, Row, frame
from aiseg2_pipeline.settings import Settings
from aiseg2_pipeline.store import Store

ENGLISH, JAPANESE = (
    (Path(__file__).parents[1] / name).read_text(encoding="utf-8") for name in ("README.md", "README.ja.md")
)
CODE_BLOCK = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
both = pytest.mark.parametrize("readme", [ENGLISH, JAPANESE], ids=["english", "japanese"])


def heading_levels(readme: str) -> list[int]:
    return [len(hashes) for hashes in re.findall(r"^(#+) ", CODE_BLOCK.sub("", readme), re.MULTILINE)]


def code_blocks(readme: str) -> list[str]:
    """Return the blocks without their comments, which are translated."""
    return [re.sub(r" +# .*", "", block) for block in CODE_BLOCK.findall(readme)]


def first_column(readme: str) -> list[list[str]]:
    """Return the code in the first cell of each row of each table."""
    cells = [re.split(r"(?<!\\)\|", line)[1] for line in readme.splitlines() if line.startswith("|")]
    return [re.findall(r"`([^`]+)`", cell) for cell in cells]


def test_both_have_the_same_headings_level_by_level() -> None:
    assert heading_levels(ENGLISH)
    assert heading_levels(JAPANESE) == heading_levels(ENGLISH)


def test_both_have_the_same_code_blocks() -> None:
    assert code_blocks(ENGLISH)
    assert code_blocks(JAPANESE) == code_blocks(ENGLISH)


def test_both_have_the_same_tables() -> None:
    assert first_column(JAPANESE) == first_column(ENGLISH)


def test_each_links_to_the_other() -> None:
    assert "(README.ja.md)" in ENGLISH
    assert "(README.md)" in JAPANESE


def test_the_example_in_python_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```$", ENGLISH, re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    now = datetime.now(UTC).replace(microsecond=0)
    with Store.open(Path("data/readings.sqlite")) as store:
        store.upsert(frame([Row(now - timedelta(minutes=1), "total", TOTAL_CONSUMPTION, 1.5, "kW", 0)]))
    exec(code, {})  # noqa: S102 - the README's own
    assert "1.5" in capsys.readouterr().out


@both
def test_every_setting_is_in_a_table(readme: str) -> None:
    named = {code for cell in first_column(readme) for code in cell}
    assert {str(field.alias) for field in Settings.model_fields.values()} <= named


@both
def test_every_command_is_in_a_table(readme: str) -> None:
    named = {code.split()[0] for cell in first_column(readme) for code in cell}
    assert set(main.commands) <= named
