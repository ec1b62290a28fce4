"""A card for each method of the catalogue: idea, equation, cost, result, lesson. All of it is read
from the catalogue, the registers, the lessons and the figures' files."""
import inspect
import json
import re
from functools import cache
from pathlib import Path

import pandas as pd

from drawings import Drawing, raw, claims_table
from pages import ROOT, escape, escape_words, read_cells, table, title_of, write_if_new
from selmatch.methods import Method, load_registers, methods, variants
from selmatch.select.coresets import scores_needed
from selmatch.select.window import easiest, hardest
from selmatch.study.verdicts import describe_sample, intervals

LABELS = {"hard": "the classes, as they are", "soft": "probabilities, learned with the images",
          "teacher": "probabilities, given once by a teacher",
          "online": "a teacher's probabilities, asked in every step of training"}


# what a method does, in the words of a reader who has not seen `Method.kind`
kinds = {"selection": "selects real images", "made": "makes images without descent",
         "distillation": "distils", "both": "selects and distils",
         "with a teacher": "has its labels from a teacher",
         "with a teacher online": "asks a teacher in every step"}


@cache
def register(kind: str) -> dict:
    return load_registers()[kind]


def lesson_of(thing) -> str:
    """The notebook that exports a function or a class."""
    text = Path(inspect.getsourcefile(thing)).read_text(encoding="utf-8")
    return re.search(r"File to edit: \S*?(\w+\.ipynb)", text)[1]


@cache
def lesson_cells(file: str) -> list[dict]:
    return read_cells(ROOT / "nbs" / file)


def place_of(thing) -> tuple[str, str]:
    """The lesson of a function or class, and the section in which it is defined."""
    file, head = lesson_of(thing), ""
    for cell in lesson_cells(file):
        if cell["cell_type"] == "markdown":
            head = ([head] + re.findall(r"^## (.+)$", cell["source"], re.M))[-1]
        elif re.search(rf"^(def|class) {thing.__name__}\b", cell["source"], re.M):
            return file, head
    return file, ""


def equation_of(thing) -> str:
    """The display equation of a function or class: the last one before it in the section of its
    lesson in which it is defined; a class without one may have that of the class it extends."""
    file, section = place_of(thing)
    mine, head = "", ""
    for cell in lesson_cells(file):
        if cell["cell_type"] != "markdown":
            if re.search(rf"^(def|class) {thing.__name__}\b", cell["source"], re.M):
                break
            continue
        for part in re.split(r"(?m)^(?=## )", cell["source"]):
            head = ([head] + re.findall(r"^## (.+)$", part, re.M))[-1]
            found = re.findall(r"\$\$(.+?)\$\$", part, re.S)
            mine = found[-1] if found and head == section else mine
    return mine.strip()


def idea_of(file: str) -> str:
    """The display equation that opens a lesson."""
    for cell in lesson_cells(file):
        found = re.findall(r"\$\$(.+?)\$\$", cell["source"], re.S)
        if cell["cell_type"] == "markdown" and found:
            return found[0].strip()
    return ""


def say_equations(method: Method) -> str:
    """What is asked, as formulas: of the start, of the share that is repainted, of the objective.
    Where a section has none of its own, the formula that opens its lesson, and it is said so."""
    start, goal = register("start")[method.start], register("objective").get(method.objective)
    asked = [("The start", start)] if goal is None or method.start != "random" else []
    asked += [("What is asked of the images", goal)] if goal is not None else []
    parts = []
    for name, thing in asked:
        file, section = place_of(thing)
        mine = equation_of(thing)
        equation = mine or idea_of(file)
        where = f"[{title_of(lesson_cells(file))[0]}](../lessons/{file})"
        said = (f"**{name}**, from {where}:" if mine else
                f"**{name}**, by the formula that opens {where}:")
        if method.start == "random" and thing is start:
            parts.append("**The start** needs no formula: every image of a class is as likely as "
                         "any other.")
        elif equation:
            parts.append(f"{said}\n\n$$\n{equation}\n$$")
    if goal is not None and method.alpha != 1 and not method.completed:
        parts.insert(1, "**The share** of the set that it repaints, its easier part:\n\n$$\n"
                     f"{idea_of('00_tour.ipynb')}\n$$")
    return "\n\n".join(parts)


def first_sentence(thing) -> str:
    text = inspect.getdoc(thing) or ""
    return " ".join(text.split("\n\n")[0].split())


# -------------------------------------------------------------------------------------- results

ACCURACIES = {"method", "ratio", "ipc", "set_seed", "iteration", "images", "augmentation", "labels",
              "seed", "validation_accuracy", "test_accuracy", "easy_accuracy", "hard_accuracy"}


@cache
def read_rows(drawing: Drawing) -> pd.DataFrame:
    return pd.read_csv(drawing.file("csv"))


def find_rows(method: Method, drawings: list[Drawing]) -> list[tuple[Drawing, pd.DataFrame]]:
    """The figures whose rows are accuracies of sets, one judge for all, and name the method."""
    found = []
    for drawing in drawings:
        rows = read_rows(drawing)
        if {"method", "ratio", "test_accuracy", "set_seed"} <= set(rows.columns) <= ACCURACIES:
            own = rows[rows.method == method.title]
            if len(own):
                found.append((drawing, own))
    return found


def say_results(method: Method, everything: dict[str, list[Drawing]]) -> str:
    """Test accuracy by size, from every profile that has the method; the figure with most sizes
    of a profile speaks for it."""
    rows = []
    for profile, drawings in everything.items():
        found = find_rows(method, drawings)
        if not found:
            continue
        drawing, own = max(found, key=lambda pair: (pair[1].ratio.nunique(), len(pair[1])))
        means = intervals(own, ["ratio"])
        said = [f"{ratio:.0%}: {row['mean']:.1f}"
                + (f" ± {row['half']:.1f}" if row["half"] == row["half"] else "")
                for ratio, row in means.iterrows()]
        way = f"../figures/{profile}/{drawing.name}.ipynb"
        rows.append([escape(profile), "; ".join(said), describe_sample(own),
                     f"[{escape(title_of(drawing.cells)[0])}]({way})"])
    if not rows:
        return ("No figure that is shown here has its numbers yet. `make figures-all` draws the "
                "table of every method.\n")
    return ("Test accuracy in percent, mean over sets ± half of Student's 95 % interval, by the "
            "share of images kept.\n\n" + table(["profile", "accuracy", "sample", "from"], rows))


def own_claims(method: Method, everything: dict[str, list[Drawing]]) -> list[tuple[Drawing, list]]:
    """Claims that are about this method, by figure."""
    others = [m.title for m in (methods | variants).values() if m.title != method.title
              and method.title in m.title]
    found = []
    for drawings in everything.values():
        for drawing in drawings:
            mine = []
            for claim in drawing.card.get("claims") or []:
                text = claim["sentence"]
                for other in others:
                    text = text.replace(other, "")
                if re.search(rf"(?<![\w-]){re.escape(method.title)}(?![\w-])", text):
                    mine.append(claim)
            if mine:
                found.append((drawing, mine))
    return found


# ------------------------------------------------------------------------------------ the pages

def describe(method: Method) -> str:
    """The idea in words, from what the start and the objective say of themselves."""
    start, goal = register("start")[method.start], register("objective").get(method.objective)
    score = scores_needed.get(method.start)
    by = f" The score is `{score}`." if score else ""
    lines = [f"**It begins with** `{method.start}`. {escape_words(first_sentence(start))}{by}"]
    if goal is not None:
        share = ("all of that base, the profile's share α of the set, is" if method.completed else
                 "all images of the set are" if method.alpha == 1 else
                 "the profile's share α of the set, its easier part, is" if method.alpha is None
                 else f"{method.alpha:.0%} of the set, its easier part, is")
        lines.append(f"**Then** {share} repainted by `{method.objective}`. "
                     f"{escape_words(first_sentence(goal))}")
    else:
        lines.append("**Nothing is repainted.**")
    if method.completed:
        lines.append("**Real images join afterwards**, chosen by a curriculum.")
    lines.append(f"**Its labels**: {LABELS[method.labels]}. **Networks trained on it** see the "
                 f"augmentation `{method.augmentation}`.")
    return "\n\n".join(lines) + "\n"


def title_sentence(method: Method) -> str:
    """What a card is called: the method and what it does."""
    if method.objective is None:
        return f"{method.title} keeps real images" if method.start not in ("kmeans", "average") \
            else f"{method.title} makes images without descent"
    if method.alpha == 1:
        return f"{method.title} repaints every image"
    if method.completed:
        return f"{method.title} repaints a base and adds real images"
    return f"{method.title} repaints a part and keeps the rest"


def write_card(method: Method, everything: dict) -> str:
    """The page of a method, as Markdown."""
    start, goal = register("start")[method.start], register("objective").get(method.objective)
    of = goal if goal is not None else start
    file, section = place_of(of)
    lessons = dict.fromkeys([place_of(thing)[0] for thing in (of, start)]
                            + ["20_scores.ipynb"] * (start in (hardest, easiest))
                            + ["40_methods.ipynb"])
    reading = "\n".join(f"* [{title_of(lesson_cells(name))[0]}](../lessons/{name})"
                        + (f", section *{section}*" if name == file and section else "")
                        for name in lessons)
    words = json.dumps({"start": method.start, "alpha": method.alpha,
                        "objective": method.objective, "labels": method.labels,
                        "augmentation": method.augmentation}, ensure_ascii=False)
    parts = [f"# {title_sentence(method)}",
             f"> {escape(method.source)} · {kinds[method.kind]} · `selmatch "
             f"{'select' if method.objective is None else 'distill'} --method {method.name}`",
             "## The idea", describe(method)]
    parts += ["## The equation", say_equations(method), "## What it costs", "Besides training the networks that judge it: "
              f"{escape(method.cost)}.", "## What it reaches", say_results(method, everything)]
    for drawing, claims in own_claims(method, everything):
        name = title_of(drawing.cells)[0]
        parts += [f"**{escape(drawing.profile)}, [{escape(name)}]"
                  f"(../figures/{drawing.profile}/{drawing.name}.ipynb)**", raw(claims_table(claims))]
    parts += ["## Where to read it", reading, "## In the catalogue",
              f"```json\n{words}\n```"]
    return "\n\n".join(parts) + "\n"


def stage_cards(out: Path, everything: dict[str, list[Drawing]]):
    """Write a card for each method and variant, and their list by kind."""
    groups: dict[str, list[Method]] = {}
    for method in (methods | variants).values():
        kind = "six variants, written down before they were measured" if method.name in variants \
            else kinds[method.kind]
        groups.setdefault(kind, []).append(method)
        write_if_new(out / "methods" / f"{method.name}.md", write_card(method, everything))
    text = [f"# {len(methods)} ways to make a small set\n\n> Each is five words: a start, a share, "
            "an objective, labels, an augmentation.\n"]
    for kind, members in groups.items():
        rows = [[f"[{escape(m.title)}]({m.name}.md)", escape(m.source), escape(m.cost)]
                for m in members]
        text.append(f"## {kind[0].upper()}{kind[1:]}\n\n"
                    + table(["method", "source", "what it takes"], rows))
    tree = "\n".join(m.name for members in groups.values() for m in members)
    text.append(f"```{{toctree}}\n:hidden:\n\n{tree}\n```\n")
    write_if_new(out / "methods" / "index.md", "\n".join(text))
