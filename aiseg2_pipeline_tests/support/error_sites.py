"""Finds in the package's source every text that may be an error that a person meets.

What counts is turned round: each literal of three words or more (two where it is raised) is such a text, wherever it stands, unless it stands
where no error is told (a docstring, an option's help, a line that says how far something is, SQL). So an error that is
put together from pieces is found by its pieces, and a new way of telling errors is not overlooked. Modules that are made
of texts are searched for what they raise alone.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "aiseg2_pipeline"
WORDS, WORDS_RAISED = 3, 2
# Stands for a value while the words are counted.
VALUE = "\0"
# Calls that tell how far something is, explain, draw or ask: their texts are no errors.
NO_ERRORS_IN = {
    *("info", "say", "log_line", "print", "option", "Field", "Table", "add_column"),
    *("execute", "executescript", "compile", "fullmatch", "sub", "search", "xpath"),
}
EXPLAINING = {"description", "help", "title"}
# A check's description is what it found.
FINDING = "AssetCheckResult"
SQL_FLUX_OR_SHELL = re.compile(
    r"\s*(SELECT|INSERT|UPDATE|DELETE|CREATE|ALTER|DROP|PRAGMA|BEGIN|from\(bucket|until \[|trap )|.* (CROSS JOIN|WHERE) "
)
# Pages of the device's double, drawings, tables, and what jobs are for.
MADE_OF_TEXTS = ("simulator.", "report.picture", "cli.output", "orchestration.jobs", "orchestration.schedules")
# A value in a text that is formatted later.
LATER = re.compile(r"\{\w+\}")


@dataclass(frozen=True)
class Site:
    """A text in the source: its literal parts, in order, with a value between each two."""

    module: str
    line: int
    parts: tuple[str, ...]

    @property
    def text(self) -> str:
        """The text with `…` for each value."""
        return "…".join(self.parts)

    def is_in(self, sentence: str) -> bool:
        """Return whether a sentence was made here, as far as its words tell."""
        return re.search(".*".join(re.escape(part) for part in self.parts), sentence, re.DOTALL) is not None


@cache
def sites() -> list[Site]:
    """Return all texts of the package that may be errors, in order."""
    found: list[Site] = []
    for path in sorted(PACKAGE.rglob("*.py")):
        module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        tree = ast.parse(path.read_text(encoding="utf-8"))
        raised = [
            site
            for node in ast.walk(tree)
            if isinstance(node, ast.Raise)
            for site in _below(module, node, WORDS_RAISED)
        ]
        others = [] if module.startswith(MADE_OF_TEXTS) else _below(module, tree, WORDS)
        found += dict.fromkeys([*raised, *others])
    return found


def _below(module: str, node: ast.AST, words: int) -> Iterator[Site]:
    for text in _texts(node):
        parts = tuple(piece for part in _parts(text) for piece in LATER.split(part))
        if not SQL_FLUX_OR_SHELL.match(VALUE.join(parts)) and _is_sentence(VALUE.join(parts), words):
            yield Site(module, text.lineno, parts)


def _is_sentence(text: str, least: int) -> bool:
    words = [word for word in text.split() if any(char.isalpha() or char == VALUE for char in word)]
    return (len(words) >= least and any(char.isalpha() for char in text)) or "。" in text


def _texts(node: ast.AST) -> Iterator[ast.Constant | ast.JoinedStr]:
    """Yield the outermost texts below a node, but those that stand where no error is told."""
    if isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str)):
        yield node
        # A value can hold texts of its own: a choice of words.
        for value in ast.iter_child_nodes(node):
            if isinstance(value, ast.FormattedValue):
                yield from _texts(value.value)
        return
    if isinstance(node, ast.Call) and _tells_no_error(node):
        return
    explaining = EXPLAINING if isinstance(node, ast.Call) and _name(node.func) != FINDING else set()
    for child in ast.iter_child_nodes(node):
        is_docstring = isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant)
        if not is_docstring and not (isinstance(child, ast.keyword) and child.arg in explaining):
            yield from _texts(child)


def _tells_no_error(call: ast.Call) -> bool:
    name = _name(call.func)
    to_stdout = name == "echo" and all(keyword.arg != "err" for keyword in call.keywords)
    return name in NO_ERRORS_IN or to_stdout


def _name(function: ast.expr) -> str:
    """Return the last name of what is called."""
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _parts(node: ast.Constant | ast.JoinedStr) -> Iterator[str]:
    """Yield the literal parts of a text; values stand between them."""
    part = ""
    for value in node.values if isinstance(node, ast.JoinedStr) else [node]:
        if isinstance(value, ast.Constant):
            part += str(value.value)
        else:
            yield part
            part = ""
    yield part
