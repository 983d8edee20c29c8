"""Draw the rooms of the code and what they import, from the imports themselves: writes rooms.svg beside this file.

Run `python docs/draw_rooms.py`. Needs nothing but Python.
"""
# ruff: noqa: INP001 - a script, in no package

import ast
from html import escape
from pathlib import Path
from textwrap import wrap

PACKAGE = "aiseg2_pipeline"
# Small modules that many rooms import: their arrows would hide the others.
SHARED = (
    *("settings", "setting_types", "env_file", "japan_time", "logs", "small_files", "same_site", "tags"),
    "dagster_internals",
)
BOX_W, BOX_H, GAP, MARGIN, NAME_W, LANE, CHARS = 780, 50, 22, 20, 150, 22, 86
# Its own background keeps it readable on a page whose mode is not the system's.
STYLE = """
text { font: 13.5px system-ui, sans-serif; fill: #33475b; } .page { fill: #ffffff; }
.room { fill: #eaf2fb; stroke: #4a7fb5; } .shared { fill: #f3f3f3; stroke: #888888; }
.name { font-weight: 600; font-size: 16px; fill: #12273d; }
.arrow { fill: none; stroke: #52667a; stroke-width: 1.6; } .head { fill: #52667a; }
@media (prefers-color-scheme: dark) {
  text { fill: #b4c0cc; } .page { fill: #0d1117; } .name { fill: #e6edf3; } .arrow { stroke: #93a1b0; }
  .room { fill: #16263a; stroke: #5b93cf; } .shared { fill: #1c2128; stroke: #7d8590; } .head { fill: #93a1b0; }
}
"""


def imports(path: Path) -> set[str]:
    """Return the rooms that a file imports anything of."""
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import | ast.ImportFrom):
            origin = getattr(node, "module", None)
            names += [f"{origin}.{name.name}" if origin else name.name for name in node.names]
    return {name.split(".")[1] for name in names if name.startswith(f"{PACKAGE}.")}


def read_rooms(root: Path) -> tuple[dict[str, set[str]], dict[str, str]]:
    """Return what each room imports of others, and the first sentence of its docstring."""
    uses: dict[str, set[str]] = {}
    about: dict[str, str] = {}
    for entry in sorted(root.iterdir()):
        own = entry / "__init__.py" if entry.is_dir() else entry
        if own.suffix != ".py" or not own.is_file() or entry.name == "__init__.py":
            continue
        files = sorted(entry.rglob("*.py")) if entry.is_dir() else [entry]
        text = ast.get_docstring(ast.parse(own.read_text(encoding="utf-8"))) or ""
        about[entry.stem] = " ".join(text.split("\n\n")[0].split()).split(". ")[0].rstrip(".").replace("`", "")
        uses[entry.stem] = set().union(*(imports(file) for file in files)) - {entry.stem}
    # The package's own names, such as its version, are no room.
    return {room: used & uses.keys() for room, used in uses.items()}, about


def in_order(uses: dict[str, set[str]]) -> list[str]:
    """Return the rooms from top to bottom, each above all that it imports."""
    depth: dict[str, int] = {}
    while len(depth) < len(uses):
        ready = [room for room in uses if room not in depth and uses[room] <= depth.keys()]
        if not ready:
            raise SystemExit(f"These rooms import each other in a circle: {', '.join(uses.keys() - depth.keys())}")
        depth |= {room: 1 + max((depth[use] for use in uses[room]), default=-1) for room in ready}
    return sorted(uses, key=lambda room: (-depth[room], room))


def direct(order: list[str], uses: dict[str, set[str]]) -> list[tuple[int, int]]:
    """Return the arrows, as places in `order`, without those that a chain of others implies; short ones first."""
    reached: dict[str, set[str]] = {}
    for room in reversed(order):
        reached[room] = uses[room].union(*(reached[use] for use in uses[room]))
    kept = {room: uses[room] - set().union(*(reached[use] for use in uses[room])) for room in order}
    arrows = [(order.index(room), order.index(use)) for room in order for use in kept[room]]
    return sorted(arrows, key=lambda arrow: (arrow[1] - arrow[0], arrow))


def draw(root: Path) -> str:
    """Return the picture as SVG: a box a room, and an arrow down to each room that it imports."""
    every, about = read_rooms(root)
    shared = [room for room in SHARED if room in every]
    uses = {room: used.difference(shared) for room, used in every.items() if room not in shared}
    order = in_order(uses)
    tops = [MARGIN + n * (BOX_H + GAP) for n in range(len(order) + 1)]
    parts = [box(top, room, about[room], "room") for top, room in zip(tops, order, strict=False)]
    parts.append(box(tops[-1], "shared", f"{', '.join(shared)}: imported by many rooms, no arrows", "shared"))
    # The arrows that are in a lane to the right of the boxes; two share one where they do not meet.
    lanes: list[list[tuple[int, int]]] = []
    right = MARGIN + BOX_W
    for start, end in direct(order, uses):
        if end == start + 1:
            path = f"M{MARGIN + NAME_W / 2:.0f} {tops[start] + BOX_H}V{tops[end] - 9}"
        else:
            fits = (n for n, lane in enumerate(lanes) if all(start >= b or end <= a for a, b in lane))
            lane = next(fits, len(lanes))
            lanes += [[]] if lane == len(lanes) else []
            lanes[lane].append((start, end))
            x, from_y, to_y = right + (lane + 1) * LANE, tops[start] + 36, tops[end] + 14
            path = f"M{right} {from_y}H{x - 8}q8 0 8 8V{to_y - 8}q0 8 -8 8H{right + 9}"
        parts.append(f'<path class="arrow" marker-end="url(#head)" d="{path}"/>')
    width, height = right + (len(lanes) + 1) * LANE, tops[-1] + BOX_H + MARGIN
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">
<title>The rooms of {PACKAGE}: an arrow points to a room that is imported</title><style>{STYLE}</style>
<marker id="head" viewBox="0 0 10 10" refX="1" refY="5" markerWidth="6" markerHeight="6" orient="auto">
<path class="head" d="M0 0 10 5 0 10z"/></marker><rect class="page" width="100%" height="100%" rx="8"/>
{chr(10).join(parts)}\n</svg>\n"""


def box(top: int, name: str, what: str, kind: str) -> str:
    """Return a box with a room's name and what it is."""
    lines = wrap(what, CHARS, max_lines=2, placeholder=" …")
    x, y = MARGIN + NAME_W, top + BOX_H / 2 + 5 - 9 * (len(lines) - 1)
    texts = [f'<text x="{x}" y="{y + 18 * n:.0f}">{escape(line)}</text>' for n, line in enumerate(lines)]
    rect = f'<rect class="{kind}" x="{MARGIN}" y="{top}" width="{BOX_W}" height="{BOX_H}" rx="7"/>'
    return f'{rect}<text class="name" x="{MARGIN + 14}" y="{top + 31}">{escape(name)}</text>{"".join(texts)}'


if __name__ == "__main__":
    folder = Path(__file__).resolve().parent
    (folder / "rooms.svg").write_text(draw(folder.parent / PACKAGE), encoding="utf-8")
