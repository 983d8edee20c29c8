"""The documentation is the same in both languages (the architecture is in English only), and what it names exists."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from aiseg2_pipeline.cli.main import main
from aiseg2_pipeline.frames.names import TOTAL_CONSUMPTION
from aiseg2_pipeline.frames.readings import Row, frame
from aiseg2_pipeline.settings import Settings
from aiseg2_pipeline.store import Store

ROOT = next(folder for folder in Path(__file__).parents if (folder / "pyproject.toml").is_file())
FILES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
TEXTS = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in FILES}
TESTS = "".join(path.read_text(encoding="utf-8") for path in ROOT.glob("aiseg2_pipeline_tests/**/test_*.py"))
PAGES = {path.name for path in ROOT.glob("docs/*.md")}
TRANSLATED = [*sorted(f"docs/{page}" for page in PAGES - {"architecture.md"}), "README.md"]
CODE_BLOCK = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def headings(text: str) -> list[tuple[str, str]]:
    return re.findall(r"^(#+) (.+)", CODE_BLOCK.sub("", text), re.MULTILINE)


def first_column(text: str) -> list[list[str]]:
    """Return the code in the first cell of each row of each table."""
    cells = [re.split(r"(?<!\\)\|", line)[1] for line in text.splitlines() if line.startswith("|")]
    return [re.findall(r"`([^`]+)`", cell) for cell in cells]


def untranslated(text: str) -> object:
    blocks = [re.sub(r" +# .*", "", block) for block in CODE_BLOCK.findall(text)]
    return [level for level, _ in headings(text)], blocks, first_column(text)


@pytest.mark.parametrize("page", TRANSLATED)
def test_both_languages_have_the_same_headings_code_blocks_and_tables(page: str) -> None:
    japanese = "README.ja.md" if page == "README.md" else page.replace("docs/", "docs/ja/")
    assert untranslated(TEXTS[japanese]) == untranslated(TEXTS[page])


@pytest.mark.parametrize("contents", ["README.md", "docs/README.md", "README.ja.md", "docs/ja/README.md"])
def test_every_page_is_in_the_tables_of_contents(contents: str) -> None:
    japanese = {path.name for path in ROOT.glob("docs/ja/*.md")}
    assert japanese == PAGES <= {*re.findall(r"([\w-]+\.md)\)", TEXTS[contents]), "README.md"}


@pytest.mark.parametrize("page", TEXTS)
def test_every_link_leads_to_a_file_and_every_named_test_exists(page: str) -> None:
    for link, anchor in re.findall(r"\]\((?!https?:)([^)#]+)#?([^)]*)\)", TEXTS[page]):
        target = (ROOT / page).parent / link
        assert target.exists(), link
        titles = [title for _, title in headings(target.read_text(encoding="utf-8"))] if anchor else []
        assert anchor in {"", *(re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles)}
    assert [name for name in re.findall(r"`(test_\w+)`", TEXTS[page]) if f"def {name}(" not in TESTS] == []


def test_the_example_in_python_works_in_the_demo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```$", TEXTS["docs/data-access.md"], re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    now = datetime.now(UTC).replace(microsecond=0)
    for name in ("AISEG2_HOST", "AISEG2_DATA_DIR", "INFLUXDB_HOST"):
        monkeypatch.delenv(name, raising=False)
    with Store.open(Path("data/demo/readings.sqlite")) as store:
        store.upsert(frame([Row(now - timedelta(minutes=1), "total", TOTAL_CONSUMPTION, 1.5, "kW", 0)]))
    exec(code, {})  # noqa: S102 - the documentation's own
    assert "1.5" in capsys.readouterr().out


def test_the_settings_and_commands_are_those_of_the_tables() -> None:
    settings = {code for cell in first_column(TEXTS["docs/configuration.md"]) for code in cell}
    commands = {code.split()[0] for cell in first_column(TEXTS["docs/commands.md"]) for code in cell}
    assert settings == {str(field.alias) for field in Settings.model_fields.values()}
    assert commands == set(main.commands)
