"""What every kind of page shares: where a file of the project stands on the site, links, words."""
import html
import json
import os
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


WRITTEN: list[Path] = []      # every page that this build has, changed or not


def write_if_new(path: Path, text: str):
    """Write a page only where it changed, so that the generator reads again only what did."""
    WRITTEN.append(path)
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def read_cells(path: Path) -> list[dict]:
    """The cells of a notebook, their source as one string."""
    book = json.loads(path.read_text(encoding="utf-8"))
    return [cell | {"source": "".join(cell["source"])} for cell in book["cells"]]


def write_book(path: Path, cells: list[dict]):
    """A notebook for the generator: the cells as they are given, ids by their place."""
    for number, cell in enumerate(cells):
        cell["id"] = f"c{number}"
    book = {"cells": cells, "nbformat": 4, "nbformat_minor": 5,
            "metadata": {"kernelspec": {"display_name": "python3", "language": "python",
                                        "name": "python3"}, "file_format": "mystnb"}}
    write_if_new(path, json.dumps(book, indent=1, ensure_ascii=False, sort_keys=True) + "\n")


def words_cell(text: str) -> dict:
    """A cell of prose."""
    return {"cell_type": "markdown", "metadata": {}, "source": text}


def title_of(cells: list[dict]) -> tuple[str, str]:
    """The title of a notebook, and the line below it that says what it is about."""
    lines = cells[0]["source"].splitlines()
    return lines[0].removeprefix("# "), lines[1].removeprefix("> ")


def plain(text: str) -> str:
    """Markdown as one would read it aloud: no marks, no links, formulas as they were typed."""
    text = re.sub(r"```.*?```|\$\$.*?\$\$|<[^>]+>", " ", text, flags=re.S)
    text = re.sub(r"^\|.*$|^#+ .*$", " ", text, flags=re.M)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"[*`$]|\\(?=\w)", "", text)
    return " ".join(text.split())


def count_words(text: str) -> int:
    """Words that are read: formulas that stand alone, code and tables are looked at instead."""
    return len(plain(text).split())


def cut_sections(cells: list[dict]) -> list[tuple[str, int]]:
    """Headings of the second level and the cell in which each begins; the first is the title."""
    found = [(title_of(cells)[0], 0)]
    for number, cell in enumerate(cells):
        if cell["cell_type"] == "markdown":
            found += [(head, number) for head in re.findall(r"^## (.+)$", cell["source"], re.M)]
    return found


MARKS = re.compile(r"([\\`*_{}\[\]<>|$~])")


def escape(text: str) -> str:
    """Text that is to stand in a cell of a Markdown table, or in a line of prose, as it is."""
    return MARKS.sub(r"\\\1", " ".join(str(text).split()))


def escape_words(text: str) -> str:
    """The same for a docstring, in which `this` is code already."""
    parts = " ".join(text.split()).split("`")
    return "`".join(part if i % 2 else MARKS.sub(r"\\\1", part) for i, part in enumerate(parts))


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table of texts that are Markdown already."""
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


class Links:
    """Where the files of the project stand on the site, and what becomes of links between them."""

    def __init__(self):
        self.places: dict[str, str] = {}    # path in the project -> page or file in the sources

    def put(self, inside: str | Path, place: str):
        """`inside` of the project is shown, or lies, at `place` of the sources."""
        self.places[Path(inside).as_posix()] = place

    def find(self, inside: str) -> str | None:
        """The place of a file or folder of the project; None for one that the site leaves out."""
        return self.places.get(os.path.normpath(inside).rstrip("/"))

    def mend(self, text: str, home: str, here: str) -> str:
        """Markdown from the file `home` of the project, with links that hold on the page `here`.
        A link to a file that the site leaves out becomes its text."""
        def one(match):
            mark, said, target = match.groups()
            if re.match(r"[a-z]+:|#", target):
                return match[0]
            file, _, anchor = target.partition("#")
            place = self.find(os.path.join(os.path.dirname(home), file))
            if place is None:
                return said
            way = os.path.relpath(place, os.path.dirname(here) or ".")
            if mark:
                return f'<img class="shown" src="{way}" alt="{html.escape(said)}">'
            if not place.endswith((".md", ".ipynb")):
                return f'<a href="{way}">{html.escape(said)}</a>'
            return f"[{said}]({way}{'#' + anchor if anchor else ''})"
        parts = re.split(r"(```.*?```|`[^`\n]*`(?!\]))", text, flags=re.S)
        mended = [re.sub(r"(!?)\[([^\]\n]*)\]\(([^)\s]+)\)", one, part) if not part.startswith("`")
                  else part for part in parts]
        return "".join(mended)
