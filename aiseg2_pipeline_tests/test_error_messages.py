"""All error messages of the source, compared with `error_messages.txt`, and the rules that hold for each of them.

The scan collects every text of several words that a person may read: it excludes docstrings, help, progress, SQL and
the modules that consist of texts. A message that is put together from parts appears as its parts.
After a change of messages, rewrite the file and review its diff:

    UPDATE_ERROR_MESSAGES=1 python -m pytest aiseg2_pipeline_tests/test_error_messages.py
"""

import ast
import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

from aiseg2_pipeline.cli.main import main
from aiseg2_pipeline.settings import Settings

PROJECT = Path(__file__).parents[1]
PACKAGE = PROJECT / "aiseg2_pipeline"
SNAPSHOT = Path(__file__).with_name("error_messages.txt")
VALUE = "{…}"
# Calls whose texts are progress, help, tables, SQL or patterns.
NO_ERRORS_IN = {
    *("info", "say", "log_line", "print", "option", "Field", "Table", "add_column"),
    *("execute", "executescript", "compile", "fullmatch", "sub", "search", "xpath"),
}
# A check's description is an error message; every other description is not.
CHECK_RESULTS = ("AssetCheckResult", "_result")
SQL_FLUX_OR_SHELL = re.compile(
    r"\s*(SELECT|FROM|AND|INSERT|UPDATE|DELETE|CREATE|ALTER|DROP|PRAGMA|BEGIN|from\(bucket|until \[|trap )|.* (CROSS JOIN|WHERE) "
)
# Here only what is raised counts.
MADE_OF_TEXTS = (
    "simulator.",
    "store.queries",
    "report.picture",
    "cli.output",
    "orchestration.jobs",
    "orchestration.schedules",
)
# Their texts are parts of a line that ends elsewhere.
PARTS = ("cli.bucket", "cli.doctor", "settings", "simulator.server")
MOST_SENTENCES = {"alerts.rules": 4}
INTERNAL_WORDS = re.compile(r"Traceback|\b\w+(?:Error|Exception)\b|0x[0-9a-f]{6}|\bNone\b(?! is)|[\n\r\t]")
SENTENCE_END = re.compile(r"[.。:](?= ?[A-Z\u3040-\u9fff])")
SETTING = re.compile(r"\b(?:AISEG2|INFLUXDB)_[A-Z0-9_]*[A-Z0-9]\b")


def name_of(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def literals(node: ast.AST, *, raised: bool = False) -> Iterator[tuple[str, bool]]:
    """Yield the texts below a node, values as `{…}`, each with whether it is raised."""
    raised = raised or isinstance(node, ast.Raise)
    if isinstance(node, ast.JoinedStr):
        yield "".join(str(part.value) if isinstance(part, ast.Constant) else VALUE for part in node.values), raised
        for part in node.values:
            if isinstance(part, ast.FormattedValue):
                yield from literals(part.value, raised=raised)
        return
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value, raised
    skipped: set[str] = set()
    if isinstance(node, ast.Call):
        name = name_of(node.func)
        if name in NO_ERRORS_IN or (name == "echo" and all(keyword.arg != "err" for keyword in node.keywords)):
            return
        skipped = {"help", "title"} | (set() if name in CHECK_RESULTS else {"description"})
    for child in ast.iter_child_nodes(node):
        is_docstring = isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant)
        if not is_docstring and not (isinstance(child, ast.keyword) and child.arg in skipped):
            yield from literals(child, raised=raised)


def is_message(text: str, *, raised: bool) -> bool:
    words = [word for word in text.split() if re.search(r"[^\W\d_]|…", word)]
    enough = len(words) >= (2 if raised else 3) and re.search(r"[^\W\d_]", text.replace(VALUE, ""))
    return bool(enough or "。" in text) and not SQL_FLUX_OR_SHELL.match(text)


def scan() -> dict[tuple[str, str], bool]:
    """Return module and text of each message, with whether it is raised."""
    found: dict[tuple[str, str], bool] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        for text, raised in literals(ast.parse(path.read_text(encoding="utf-8"))):
            if is_message(text, raised=raised) and (raised or not module.startswith(MADE_OF_TEXTS)):
                found[module, text] = raised or found.get((module, text), False)
    return found


MESSAGES = scan()


def test_the_error_messages_are_those_that_were_reviewed() -> None:
    current = sorted(f"{module}: {text!r}" for module, text in MESSAGES)
    if os.environ.get("UPDATE_ERROR_MESSAGES"):
        SNAPSHOT.write_text("\n".join(current) + "\n", encoding="utf-8")
    assert current == SNAPSHOT.read_text(encoding="utf-8").splitlines(), (
        "Rewrite the snapshot with UPDATE_ERROR_MESSAGES=1 and review its diff."
    )


def test_a_message_is_one_line_of_at_most_two_sentences_without_internal_words() -> None:
    assert not [text for _, text in MESSAGES if INTERNAL_WORDS.search(text)]
    assert not [text for _, text in MESSAGES if len(text) > 300]
    assert not [text for module, text in MESSAGES if len(SENTENCE_END.split(text)) > MOST_SENTENCES.get(module, 2)]


def test_a_sentence_ends_with_punctuation_and_a_raised_one_names_the_next_step() -> None:
    sentences = {
        text: raised
        for (module, text), raised in MESSAGES.items()
        if re.match(r"[A-Z]", text) and re.search(r"[:.;] |\.$", text) and not module.startswith(PARTS)
    }
    assert not [text for text in sentences if not re.search(rf"(?:[.)]|{VALUE})$", text)]
    assert not [text for text, raised in sentences.items() if raised and not re.search(r"[:;.] \S", text)]


def test_an_alert_is_japanese() -> None:
    alerts = [text for module, text in MESSAGES if module == "alerts.rules"]
    assert alerts
    assert not [text for text in alerts if not re.search(rf"[ぁ-ん].*(?:。|す|した|{VALUE})$", text)]


def test_the_settings_commands_options_and_extras_that_a_message_names_exist() -> None:
    text = "\n".join(text for _, text in MESSAGES)
    assert set(SETTING.findall(text)) <= {str(field.alias) for field in Settings.model_fields.values()}
    assert set(re.findall(r"`aiseg2-pipeline ([a-z]+)", text)) <= main.commands.keys()
    options = {name for command in main.commands.values() for option in command.params for name in option.opts}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text)) <= options
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(re.findall(r"aiseg2-pipeline\[(\w+)\]", text)) <= project["optional-dependencies"].keys()
