"""The package keeps to its layout: which room may import which, where Dagster is imported, how long files are."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

PACKAGE = "aiseg2_pipeline"
FOLDER = Path(__file__).parents[1] / PACKAGE
MOST_LINES, MOST_LINES_OF_A_FUNCTION = 350, 60

# The rooms that each room may import, besides all that those may import.
ROOMS: dict[str, tuple[str, ...]] = {
    "aiseg2": (),
    "simulator": (),
    "tariff": (),
    "env_file": (),
    "same_site": (),
    "setting_types": (),
    "settings": ("env_file", "setting_types"),
    "japan_time": (),
    "logs": (),
    "small_files": (),
    "tags": (),
    "dagster_internals": (),
    "frames": ("aiseg2", "japan_time", "logs"),
    "store": ("frames", "small_files"),
    "ingest": ("store",),
    "influxdb": ("store",),
    "gaps": ("ingest",),
    "report": ("ingest",),
    "alerts": ("gaps",),
    "web": (
        *("store.queries", "store.damage", "store.incidents", "frames.names", "tariff", "aiseg2", "settings"),
        *("japan_time", "logs", "small_files", "same_site"),
    ),
    "orchestration": ("gaps", "report", "alerts", "influxdb", "tariff", "settings", "tags", "dagster_internals"),
    "definitions": ("orchestration",),
    "runtime": ("definitions", "same_site"),
    "demo": ("gaps", "settings", "simulator"),
    "cli": ("runtime", "simulator"),
}
# A module that may import nothing of the package.
ISOLATED = "store.queries"
WITH_DAGSTER = {"orchestration", "runtime", "definitions", "dagster_internals"}
# The modules that replace files atomically, and those whose files nobody reads after a power cut.
WRITERS = ("small_files", "aiseg2.state", "runtime.parent_watch", "simulator.")
WRITES = re.compile(r"\.write_(?:text|bytes)\(|\bopen\([^)]*[\"'][wax]")
PRIVATE_RULE = "private names of Dagster's belong in dagster_internals"
PRIVATE = re.compile(r"dagster\w*(\.\w+)*\._\w+")


def allowed(room: str) -> set[str]:
    """Return the rooms that a room may import."""
    return {room}.union(*(allowed(other) for other in ROOMS.get(room, ())))


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield the line and the dotted name of each import, those within functions included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, f"{'.' * node.level}{node.module}.{alias.name}") for alias in node.names)


def violations(module: str, source: str) -> Iterator[str]:
    """Yield each violation in a module, which is named without the package."""
    tree = ast.parse(source)
    for line, name in imports(tree):
        yield from (f"{module}, line {line}, imports {name}: {rule}" for rule in _against(module, name))
    if module != "dagster_internals":
        texts = (node for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str))
        names = (text for text in texts if PRIVATE.fullmatch(str(text.value)))
        yield from (f"{module}, line {name.lineno}, names {name.value!r}: {PRIVATE_RULE}" for name in names)
    if not module.startswith(WRITERS) and WRITES.search(source):
        yield f"{module} writes a file: `small_files` replaces it atomically"
    yield from _too_long(module, source, tree)


def _against(module: str, name: str) -> Iterator[str]:
    """Yield the rules that an import violates."""
    room = module.partition(".")[0]
    inside = name.removeprefix(f"{PACKAGE}.")
    if name.startswith("."):
        yield "write the whole name"
    elif inside not in {name, "__version__"}:
        may = {ISOLATED} if module == ISOLATED else allowed(room)
        if not may & {inside.partition(".")[0], ".".join(inside.split(".")[:2])}:
            yield f"`{room}` may import {', '.join(sorted(may - {room})) or 'nothing of ours'}"
    elif name.startswith("dagster") and room not in WITH_DAGSTER:
        yield f"Dagster is imported in {', '.join(sorted(WITH_DAGSTER))} alone"
    if PRIVATE.match(name) and module != "dagster_internals":
        yield PRIVATE_RULE


def _too_long(module: str, source: str, tree: ast.AST) -> Iterator[str]:
    lines = len(source.splitlines())
    if lines > MOST_LINES:
        yield f"{module} has {lines} lines: {MOST_LINES} are the most"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > MOST_LINES_OF_A_FUNCTION:
                yield f"{module}.{node.name} has {lines} lines: {MOST_LINES_OF_A_FUNCTION} are the most"


def test_the_package_keeps_to_its_layout() -> None:
    found: list[str] = []
    for path in sorted(FOLDER.rglob("*.py")):
        parts = path.relative_to(FOLDER).with_suffix("").parts
        module = ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)
        assert module.partition(".")[0] in {*ROOMS, "__init__"}, f"{path} is in no room of the layout"
        found += violations(module, path.read_text(encoding="utf-8"))
    assert not found, "\n".join(found)
