"""Lessons as pages: the notebooks with the outputs they have, and the evening path through them."""
import re
from dataclasses import dataclass
from pathlib import Path

from pages import (ROOT, Links, count_words, cut_sections, plain, read_cells, table, title_of,
                   words_cell, write_book, write_if_new)

PARTS = {"0": "Foundations", "1": "Training", "2": "Selection", "3": "Distillation",
         "4": "The catalogue, and how we judge", "5": "The study", "6": "What is shown",
         "7": "Your own"}


def list_lessons(root: Path = ROOT) -> list[Path]:
    """The notebooks, in reading order."""
    return sorted((root / "nbs").glob("[0-9]*.ipynb"))


def is_imports(code: str) -> bool:
    """Whether a cell only imports."""
    inside = re.sub(r"\([^)]*\)", "", code)
    return all(re.match(r"(import|from) ", line) for line in inside.splitlines() if line.strip())


def describe_picture(heading: str, said: str) -> str:
    """The alternative text of a picture: its section, and the last sentence before it."""
    sentences = re.split(r"(?<=[.!?:])\s+(?=[A-Z*])", plain(said))
    return f"{heading}: {sentences[-1]}" if sentences[-1] else heading


def show_cells(cells: list[dict]) -> list[dict]:
    """Cells as the site shows them. Marks for the exporter go, what is exported and what only
    imports is tagged, and each picture gets an alternative text; outputs stay as they are."""
    shown, heading, said = [], title_of(cells)[0], ""
    for cell in cells:
        source = cell["source"]
        if cell["cell_type"] == "markdown":
            heading = ([heading] + re.findall(r"^#{1,3} (.+)$", source, re.M))[-1]
            said = source if plain(source) else said
            shown.append(words_cell(source))
            continue
        if source.startswith(("#| default_exp", "#| hide")):
            continue
        code = re.sub(r"^#\| .*\n?", "", source, flags=re.M)
        tags = [tag for tag, holds in [("exported", source.startswith("#| export")),
                                       ("hide-input", is_imports(code))] if holds]
        look = {"image": {"alt": describe_picture(heading, said)}}
        look |= {"code_prompt_show": "Show the imports"} if is_imports(code) else {}
        shown.append({"cell_type": "code", "source": code, "outputs": cell["outputs"],
                      "execution_count": cell["execution_count"],
                      "metadata": {"tags": tags, "mystnb": look}})
    return shown


# ------------------------------------------------------------------------------ the evening path

@dataclass(frozen=True)
class EveningStep:
    """A lesson of the evening path, or its first sections."""
    file: str         # the notebook
    title: str        # what the step is called
    last: str         # the last section that belongs to it; "": all of it
    minutes: str      # as the tour states them
    words: int        # counted


def read_words(cells: list[dict], last: str) -> int:
    """The words of a lesson up to the end of its section `last`."""
    return sum(count_words(cell["source"]) for cell in cells[:end_of(cells, last)]
               if cell["cell_type"] == "markdown")


def end_of(cells: list[dict], last: str) -> int:
    """The cell before which a reader stops who reads to the end of the section `last`."""
    sections = cut_sections(cells)
    names = [name for name, _ in sections]
    if not last:
        return len(cells)
    if last not in names:
        raise ValueError(f"{names[0]!r} has no section {last!r}")
    after = names.index(last) + 1
    return sections[after][1] if after < len(sections) else len(cells)


def evening_path(root: Path = ROOT) -> list[EveningStep]:
    """The steps that the tour's table names: `| 2 | [title](file) | to the end of "…" | 8 + 1 |`."""
    tour = "\n".join(cell["source"] for cell in read_cells(root / "nbs" / "00_tour.ipynb")
                     if cell["cell_type"] == "markdown")
    row = r'^\| *\d+ *\| *\[([^\]]+)\]\((\w+\.ipynb)\) *\|([^|]*)\| *([^|]*?) *\|$'
    steps = []
    for title, file, how_far, minutes in re.findall(row, tour, re.M):
        last = (re.findall(r"[“\"]([^”\"]+)[”\"]", how_far) + [""])[0]
        words = read_words(read_cells(root / "nbs" / file), last)
        steps.append(EveningStep(file, title, last, minutes, words))
    return steps


def stop_sign(number: int, steps: list[EveningStep]) -> str:
    """What stands where a step of the evening path ends."""
    if number + 1 == len(steps):
        on = "That was the last step: **you are through.**"
    else:
        on = f"Next: [{steps[number + 1].title}]({steps[number + 1].file})."
    return (":::{admonition} The evening path\n:class: evening tip\n\n"
            f"Step {number + 1} of {len(steps)} ends here. {on}\n"
            "What follows is for another evening.\n:::")


def stage_evening(out: Path, steps: list[EveningStep]):
    """The page of the evening path."""
    rows = [[str(number), f"[{step.title}](lessons/{step.file})",
             f"to the end of “{step.last}”" if step.last else "all of it",
             step.minutes, f"{step.words:,}"] for number, step in enumerate(steps, 1)]
    total = sum(step.words for step in steps)
    write_if_new(out / "evening.md", (
        "# In one evening, from the question to the verdict\n\n"
        "> Six notebooks, in this order. At the end you have distilled a set yourself, and have "
        "seen what it teaches.\n\n"
        + table(["step", "what", "how far", "minutes (reading + running)", "words"], rows)
        + f"\n{total:,} words in all. A sign in each lesson says where its step ends. "
        "To run the cells as you read, type `make lab` in a clone of the project and open "
        "`00_tour.ipynb`; here the outputs are those of the notebooks as they were run.\n"))


# ------------------------------------------------------------------------------------ all lessons

def stage_lessons(out: Path, links: Links, root: Path = ROOT) -> list[EveningStep]:
    """Write the pages of all lessons below `out`, and their list."""
    steps = evening_path(root)
    stops = {step.file: number for number, step in enumerate(steps)}
    for path in list_lessons(root):
        cells = read_cells(path)
        if path.name in stops and steps[stops[path.name]].last:
            at = end_of(cells, steps[stops[path.name]].last)
            cells.insert(at, words_cell(stop_sign(stops[path.name], steps)))
        elif path.name in stops:
            cells.append(words_cell(stop_sign(stops[path.name], steps)))
        here = f"lessons/{path.name}"
        for cell in cells:
            if cell["cell_type"] == "markdown":
                cell["source"] = links.mend(cell["source"], f"nbs/{path.name}", here)
        write_book(out / here, show_cells(cells))
    stage_list(out, root)
    stage_evening(out, steps)
    return steps


def stage_list(out: Path, root: Path):
    """The list of lessons, in parts."""
    text = ["# All lessons, in reading order\n\n> Each chapter needs only those before it.\n"]
    for digit, part in PARTS.items():
        files = [path for path in list_lessons(root) if path.name[0] == digit]
        rows = []
        for path in files:
            title, lead = title_of(read_cells(path))
            rows.append([path.name[:2], f"[{title}]({path.name})", lead])
        text.append(f"## {part}\n\n" + table(["", "lesson", "what it says"], rows))
        text.append("```{toctree}\n:hidden:\n\n" + "\n".join(p.stem for p in files) + "\n```\n")
    write_if_new(out / "lessons" / "index.md", "\n".join(text))
