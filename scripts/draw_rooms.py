"""Draw the rooms of the house, from the imports that are really there.

    python scripts/draw_rooms.py        writes figures/structure/rooms.png and rooms.svg

Each box is a module, each coloured field a package; what stands higher imports from what stands
lower. An arrow goes from a package (or a module that stands alone) to one that it imports from. An
import that points upward would be drawn in red, and the script then ends with status 1.
"""
import ast
import re
import sys
from collections import defaultdict
from graphlib import TopologicalSorter
from pathlib import Path

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from selmatch.core import write_atomic

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "selmatch"
COLORS = {"data": "#dbe9f6", "train": "#dff0e0", "select": "#fdf0d5", "distill": "#f9dfd9",
          "study": "#e8e0f2", "show": "#dcefef"}
ALONE = "#eeeeee"
PITCH = 2.88       # from one module to the next


def find_modules() -> dict[str, int]:
    "Dotted module name -> number of its notebook, in reading order."
    numbers = {}
    for path in sorted((ROOT / "nbs").glob("[0-9]*.ipynb")):
        named = re.search(r"#\| default_exp ([\w.]+)", path.read_text(encoding="utf-8"))
        if named:
            numbers[named[1]] = int(path.name.split("_")[0])
    return numbers


def read_imports(name: str, known: set[str]) -> set[str]:
    "The modules that one module imports by relative imports, at any depth."
    parts, found = name.split("."), set()
    text = (PACKAGE / f"{name.replace('.', '/')}.py").read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom):
            if not node.level and (node.module or "").split(".")[0] != "selmatch":
                continue
            base = parts[: len(parts) - node.level] if node.level else []
            tail = (node.module or "").removeprefix("selmatch").strip(".")
            whole = [*base, *filter(None, tail.split("."))]
            found |= {".".join(whole), *(".".join([*whole, alias.name]) for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name.removeprefix("selmatch.") for alias in node.names}
    return found & known - {name}


def room_of(module: str) -> str:
    "The package of a module, or the module itself where it stands alone."
    return module.split(".")[0]


def find_layers(arrows: dict[str, set[str]], rooms: list[str]) -> dict[str, int]:
    "Room -> layer: one above the highest room that it imports from, whatever the order of reading."
    order = TopologicalSorter({room: arrows[room] for room in rooms}).static_order()
    layers = {}
    for room in order:
        layers[room] = 1 + max((layers[other] for other in arrows[room]), default=-1)
    return {room: layers[room] for room in rooms}


def without_detours(arrows: dict[str, set[str]]) -> dict[str, set[str]]:
    "The arrows that do not follow from two others: a → c is left out where a → b → … → c."
    def reach(room, seen):
        for other in arrows[room]:
            if other not in seen:
                seen.add(other)
                reach(other, seen)
        return seen
    return {room: {other for other in others
                   if not any(other in reach(between, set()) for between in others - {other})}
            for room, others in arrows.items()}


def place_rooms(rooms: dict[str, list[str]], layers: dict[str, int]) -> dict[str, tuple]:
    "Room -> (left, bottom, width, height), rooms of one layer side by side."
    rows, boxes, bottom = defaultdict(list), {}, 0.0
    for room, layer in layers.items():
        rows[layer].append(room)
    for layer in sorted(rows):
        sizes = {room: size_room(rooms[room]) for room in rows[layer]}
        left = -sum(width + 1.2 for width, _ in sizes.values()) / 2 + 0.6
        for room, (width, height) in sizes.items():
            boxes[room] = (left, bottom, width, height)
            left += width + 1.2
        bottom += max(height for _, height in sizes.values()) + 1.0
    return boxes


def size_room(modules: list[str]) -> tuple[float, float]:
    "Width and height of a field, five modules a line."
    lines = -(-len(modules) // 5)
    is_package = "." in modules[0]
    return PITCH * min(len(modules), 5) + 0.25, 0.62 * lines + (0.55 if is_package else 0.2)


def draw_room(ax: plt.Axes, room: str, modules: list[str], box: tuple):
    "One field with its modules, numbered as their notebooks."
    left, bottom, width, height = box
    color = COLORS.get(room, ALONE)
    ax.add_patch(FancyBboxPatch((left, bottom), width, height, "round,pad=0,rounding_size=0.12",
                                fc=color, ec="#777777", lw=0.8, zorder=2))
    is_package = "." in modules[0]
    if is_package:
        ax.text(left + 0.18, bottom + height - 0.28, f"{room}/", weight="bold", size=9, va="center",
                zorder=4)
    numbers = find_modules()
    top = bottom + height - (0.5 if is_package else 0.12)
    for i, module in enumerate(modules):
        x, y = left + 0.2 + PITCH * (i % 5), top - 0.62 * (i // 5) - 0.46
        ax.add_patch(FancyBboxPatch((x, y), PITCH - 0.15, 0.44, "round,pad=0,rounding_size=0.08",
                                    fc="white", ec="#bbbbbb", lw=0.6, zorder=3))
        name = f"{numbers[module]:02d} {module.split('.')[-1]}"
        ax.text(x + PITCH / 2 - 0.075, y + 0.22, name, size=6, ha="center", va="center", zorder=4)


def draw_arrow(ax: plt.Axes, start: tuple, end: tuple, upward: bool):
    "From the lower edge of the room that imports to the upper edge of the room that is imported."
    middle = lambda box: box[0] + box[2] / 2
    lean = max(-0.4, min(0.4, (middle(end) - middle(start)) / 12))
    tail = (middle(start) + lean * start[2], start[1])
    head = (middle(end) - lean * end[2], end[1] + end[3])
    ax.add_patch(FancyArrowPatch(tail, head, arrowstyle="-|>", mutation_scale=9, lw=1.0, shrinkA=1,
                                 shrinkB=1, color="#cc0000" if upward else "#555555", zorder=1))


def main() -> int:
    numbers = find_modules()
    imports = {name: read_imports(name, set(numbers)) for name in numbers}
    upward = [(a, b) for a, others in imports.items() for b in others if numbers[b] >= numbers[a]]
    rooms, arrows = defaultdict(list), defaultdict(set)
    for name in numbers:
        rooms[room_of(name)].append(name)
        arrows[room_of(name)] |= {room_of(other) for other in imports[name]} - {room_of(name)}
    layers = find_layers(arrows, list(rooms))
    boxes, shown = place_rooms(rooms, layers), without_detours(arrows)
    fig, ax = plt.subplots(figsize=(9, 10))
    for room, modules in rooms.items():
        draw_room(ax, room, modules, boxes[room])
        for other in shown[room]:
            draw_arrow(ax, boxes[room], boxes[other], layers[other] >= layers[room])
    n_arrows = sum(map(len, arrows.values()))
    note = (f"{len(numbers)} modules in {len(rooms)} rooms, {sum(map(len, imports.values()))} imports "
            f"between modules, {n_arrows} between rooms, {len(upward)} upward")
    lines = f"{note}\nArrows that follow from others are left out; numbers are those of the notebooks."
    ax.text(0, -0.35, lines, size=8, ha="center", va="top", color="#444444")
    ax.set_aspect("equal")
    ax.autoscale_view()
    ax.set_axis_off()
    folder = ROOT / "figures" / "structure"
    with plt.rc_context({"svg.hashsalt": "rooms"}):
        write_atomic(folder / "rooms.svg", lambda draft: fig.savefig(draft, metadata={"Date": None}, bbox_inches="tight"))
    write_atomic(folder / "rooms.png", lambda draft: fig.savefig(draft, dpi=150, bbox_inches="tight"))
    print(note)
    for a, b in upward:
        print(f"upward: {a} imports {b}", file=sys.stderr)
    return int(bool(upward))


if __name__ == "__main__":
    sys.exit(main())
