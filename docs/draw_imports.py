"""Draw which folder of this repository imports which: `python docs/draw_imports.py`.

Reads the import statements of portablenn/, backends/ and benchmarks/, including those inside functions and under TYPE_CHECKING,
writes docs/imports.svg and the table in docs/architecture.md, and prints the counts. A room is a folder or a module of
portablenn/; backends/ is one room, and so is benchmarks/. `portablenn/__init__.py` (the public names), `__main__.py` and
`version.py` are not rooms. A room's floor is the longest path of imports below it.
"""

from __future__ import annotations

import argparse
import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "imports.svg"
PAGE = ROOT / "docs" / "architecture.md"

# Each room imports rooms of earlier lines only; rooms of one line do not import each other.
ORDER = """
program
runtime
transforms
random
nn
files
data plots
callbacks
training
convert tables testing
sklearn
cli backends
benchmarks
"""
RANK = {room: rank for rank, line in enumerate(ORDER.strip().splitlines()) for room in line.split()}
FACADE = "portablenn"  # what `import portablenn` means

Arrows = dict[tuple[str, str], list[str]]


def room_of(module: str) -> str | None:
    """Return the room of an imported module, `FACADE` for the package itself, None for what is not of this repository."""
    first, *rest = module.split(".")
    if first.startswith("portablenn_"):
        return "backends"
    if first == "portablenn":
        return rest[0] if rest and rest[0] in RANK else FACADE if not rest or rest[0] != "version" else None
    return first if first == "benchmarks" else None


def imported(path: Path) -> Iterator[tuple[str, int]]:
    """Yield each module that a file imports, by its full name, and the line."""
    package = path.relative_to(ROOT).parts[:-1]
    if package[0] == "backends":
        package = package[2:]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*above, *filter(None, [node.module])])
            # `from . import nn` names modules, `from .nn import Dense` what is in one
            yield from ((f"{base}.{alias.name}" if base == FACADE else base, node.lineno) for alias in node.names)


def files() -> Iterator[tuple[str, Path]]:
    """Yield the room and the path of each Python file, but for the façade's."""
    for path in sorted((ROOT / "portablenn").rglob("*.py")):
        parts = path.relative_to(ROOT / "portablenn").with_suffix("").parts
        if parts[0] not in ("__init__", "__main__", "version"):
            yield parts[0], path
    for room in ("backends", "benchmarks"):
        yield from ((room, path) for path in sorted((ROOT / room).rglob("*.py")) if "build" not in path.parts)


def read_arrows() -> tuple[set[str], Arrows]:
    """Return the rooms, and the places ("file:line") of the imports of each pair (importing room, imported room)."""
    rooms, arrows = set[str](), Arrows()
    for room, path in files():
        rooms.add(room)
        for module, line in imported(path):
            other = room_of(module)
            if other is not None and other != room:
                arrows.setdefault((room, other), []).append(f"{path.relative_to(ROOT)}:{line}")
    return rooms, arrows


def upward(arrows: Arrows) -> Arrows:
    """Return the arrows that do not lead downward in `ORDER`; without them there is no cycle, either."""
    ranks = RANK | {FACADE: RANK["training"]}
    return {pair: places for pair, places in arrows.items() if ranks[pair[0]] <= ranks[pair[1]]}


def find_floors(rooms: set[str], arrows: Arrows) -> list[list[str]]:
    """Return the rooms of each floor, the lowest first, by the longest path of downward arrows."""

    @cache
    def floor(room: str) -> int:
        return max((1 + floor(b) for a, b in down if a == room), default=0)

    down = [pair for pair in arrows if pair not in upward(arrows) and FACADE not in pair]
    return [sorted(r for r in rooms if floor(r) == n) for n in range(1 + max(map(floor, rooms)))]


def direct(arrows: Arrows) -> list[tuple[str, str]]:
    """Return the arrows that no path of other arrows implies; there must be no cycle."""
    below: dict[str, set[str]] = {}
    for a, b in arrows:
        below.setdefault(a, set()).add(b)

    def reaches(a: str, b: str) -> bool:
        return any(c == b or reaches(c, b) for c in below.get(a, ()))

    return [(a, b) for a, b in arrows if not any(reaches(c, b) for c in below[a] - {b})]


Point = tuple[float, float]
WIDTH, ROW, BOX_WIDTH, BOX_HEIGHT = 640, 58, 92, 26


def draw(rooms: set[str], arrows: Arrows) -> str:
    """Return the picture as SVG, a row for each floor.

    Arrows that no path of others implies are dark, the others pale, and those that lead upward red.
    """
    arrows = {pair: places for pair, places in arrows.items() if FACADE not in pair}
    floors, wrong = find_floors(rooms, arrows), upward(arrows)
    strong = direct({pair: places for pair, places in arrows.items() if pair not in wrong})
    height = ROW * len(floors) + 10
    at: dict[str, Point] = {}
    for number, names in enumerate(floors):
        # a floor's rooms lie over what they import; neighbours keep their distance, single rooms alternate sides
        wanted = {r: [at[b][0] for a, b in strong if a == r and b in at] for r in names}
        names = sorted(names, key=lambda r: (sum(wanted[r]) / len(wanted[r]) if wanted[r] else 0, r))
        step = min(120, (WIDTH - BOX_WIDTH - 20) / max(1, len(names) - 1))
        start = WIDTH / 2 - step * (len(names) - 1) / 2 + (60 if number % 2 else -60) * (len(names) == 1)
        at.update({r: (start + i * step, height - ROW * (number + 0.5) - 5) for i, r in enumerate(names)})
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
        ' font-family="sans-serif" font-size="13">',
        f"<title>Imports: {len(rooms)} rooms on {len(floors)} floors, {len(arrows)} arrows</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        "<defs>",
    ]
    kinds = {"pale": ("#d0d7e2", 1), "dark": ("#3b5b8c", 1.5), "red": ("#c0392b", 2)}
    for kind, (colour, _) in kinds.items():
        lines.append(
            f'<marker id="{kind}" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="6" markerHeight="6" orient="auto">'
            f'<path d="M0 0L8 4L0 8z" fill="{colour}"/></marker>'
        )
    lines.append("</defs>")
    for kind, (colour, thickness) in kinds.items():
        for a, b in sorted(arrows):
            if kind == ("red" if (a, b) in wrong else "dark" if (a, b) in strong else "pale"):
                (x1, y1), (x2, y2) = at[a], at[b]
                half = BOX_HEIGHT / 2 if y1 < y2 else -BOX_HEIGHT / 2
                bow = 0 if kind == "pale" else find_bow(at, (x1, y1), (x2, y2))
                lines.append(
                    f'<path d="M{x1:.0f} {y1 + half:.0f}Q{(x1 + x2) / 2 + bow:.0f} {(y1 + y2) / 2:.0f}'
                    f' {x2:.0f} {y2 - half:.0f}" fill="none" stroke="{colour}"'
                    f' stroke-width="{thickness}" marker-end="url(#{kind})"><title>{a} imports {b}</title></path>'
                )
    for room, (x, y) in at.items():
        fill = "#eef2f8" if room not in ("backends", "benchmarks") else "#f6efe2"
        lines.append(
            f'<rect x="{x - BOX_WIDTH / 2:.0f}" y="{y - BOX_HEIGHT / 2:.0f}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="4"'
            f' fill="{fill}" stroke="#3b5b8c"/><text x="{x:.0f}" y="{y + 4.5:.0f}" text-anchor="middle">{room}</text>'
        )
    return "\n".join([*lines, "</svg>", ""])


def find_bow(at: dict[str, Point], start: Point, end: Point) -> int:
    """Return how far to the side the middle of an arrow's curve is drawn, so that it crosses no other room."""
    others = [point for point in at.values() if point not in (start, end)]

    def free(bow: int) -> bool:
        for t in (n / 40 for n in range(41)):
            x = (1 - t) * start[0] + t * end[0] + 2 * t * (1 - t) * bow
            y = (1 - t) * start[1] + t * end[1]
            if any(abs(x - a) < BOX_WIDTH / 2 + 4 and abs(y - b) < BOX_HEIGHT / 2 + 4 for a, b in others):
                return False
        return True

    return next((bow for bow in (0, -60, 60, -120, 120, -180, 180, -240, 240) if free(bow)), 0)


def tabulate(rooms: set[str], arrows: Arrows) -> str:
    """Return the counts and the Markdown table of floors, rooms and what each imports, the highest floor first."""
    floors = find_floors(rooms, arrows)
    lines = [counts(rooms, arrows), "", "| floor | room | imports |", "|---|---|---|"]
    for number, names in reversed(list(enumerate(floors))):
        for room in names:
            below = sorted(
                (b for a, b in arrows if a == room and b != FACADE), key=lambda b: (RANK[b], b), reverse=True
            )
            lines.append(f"| {number + 1} | `{room}` | {', '.join(below)} |")
    return "\n".join(lines)


def counts(rooms: set[str], arrows: Arrows) -> str:
    """Return the counts in a sentence."""
    number = sum(FACADE not in pair for pair in arrows)
    wrong = upward(arrows)
    cycles = [pair for pair in wrong if find_path(arrows, pair[1], pair[0])]
    return (
        f"{len(rooms)} rooms, {len(find_floors(rooms, arrows))} floors, {number} arrows, {len(wrong)} upward,"
        f" {len(cycles)} in a cycle."
    )


def find_path(arrows: Arrows, start: str, end: str) -> bool:
    """Whether arrows lead from one room to another."""
    reached, size = {start}, 0
    while len(reached) != size:
        size = len(reached)
        reached |= {b for a, b in arrows if a in reached}
    return end in reached


BEGIN, END = "<!-- written by docs/draw_imports.py -->\n", "\n<!-- end -->"


def page(text: str, table: str) -> str:
    """Return the page with its table replaced."""
    before, _, rest = text.partition(BEGIN)
    return before + BEGIN + table + END + rest.partition(END)[2]


def main() -> None:
    """Write the picture and the table; print the counts and each import that leads upward."""
    argparse.ArgumentParser(description="Draw the imports between folders into docs/.").parse_args()
    rooms, arrows = read_arrows()
    PICTURE.write_text(draw(rooms, arrows), encoding="utf-8")
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), tabulate(rooms, arrows)), encoding="utf-8")
    print(counts(rooms, arrows))
    for (a, b), places in upward(arrows).items():
        print(f"upward: {a} imports {b} in {', '.join(places)}")


if __name__ == "__main__":
    main()
