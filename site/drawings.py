"""A page for each figure, and a gallery for each profile, from whatever a folder of figures has."""
import csv
import html
import json
import re
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path

from lessons import is_imports, describe_picture
from pages import (ROOT, Links, escape, plain, read_cells, table, title_of, words_cell, write_book,
                   write_if_new)

sys.path.insert(0, str(ROOT / "scripts"))
from write_readme import gather_claims  # noqa: E402  (the scripts are no package)

KINDS = ("svg", "csv", "json")      # what travels with a page
NARROW = "narrow.svg"               # and the picture for a phone, where there is one
WORDS = {"holds": "holds", "does not hold": "fails", "undecided": "open", "the same": "same"}


@dataclass(frozen=True)
class Drawing:
    """A figure that a folder has: its files and what its provenance says."""
    folder: Path
    name: str
    card: dict = field(compare=False, repr=False)       # what NAME.json says

    @property
    def profile(self) -> str:
        return self.folder.name

    def file(self, kind: str) -> Path:
        return self.folder / f"{self.name}.{kind}"

    @property
    def cells(self) -> list[dict]:
        return read_cells(self.file("ipynb"))

    @property
    def is_narrow_too(self) -> bool:
        return self.file(NARROW).exists()


def order_of(name: str) -> tuple:
    """Tables after figures, both by their numbers."""
    number = re.match(r"[a-z]+(\d+)", name)
    return name[:3] != "fig", int(number[1]) if number else 99, name


def find_drawings(root: Path = ROOT) -> dict[str, list[Drawing]]:
    """profile -> its figures: every NAME.json of a folder below `figures` that says it is NAME's,
    and has the picture, the rows and the notebook beside it."""
    found = {}
    for path in sorted((root / "figures").glob("*/*.json"), key=lambda path: order_of(path.stem)):
        card = json.loads(path.read_text(encoding="utf-8"))
        whole = all(path.with_suffix(f".{kind}").exists() for kind in (*KINDS, "ipynb"))
        if isinstance(card, dict) and card.get("figure") == path.stem and whole:
            found.setdefault(path.parent.name, []).append(Drawing(path.parent, path.stem, card))
    return dict(sorted(found.items(), key=lambda item: (item[0] != "digits", item[0])))


# --------------------------------------------------------------------------------------- claims

def say_verdict(claim: dict) -> str:
    """A verdict with its difference, as HTML: `holds +1.20 ± 0.40`."""
    kind, word = WORDS.get(claim["verdict"], "open"), html.escape(claim["verdict"])
    if claim["gap"] is None or claim["verdict"] == "the same":
        number = ""
    elif claim["half"] is None:
        number = f"{claim['gap']:+.2f}"
    else:
        number = f"{claim['gap']:+.2f} ± {claim['half']:.2f}"
    return (f'<span class="verdict {kind}">{word}</span> '
            f'<span class="number">{number.replace("-", "−")}</span>')


def claims_table(claims: list[dict]) -> str:
    """What a figure decides: a row for each sentence, a column for each size."""
    groups = gather_claims(claims)
    sizes = list(dict.fromkeys(size for looks in groups.values() for size, _ in looks))
    head = "".join(f'<th scope="col">{size or "verdict"}</th>' for size in sizes)
    rows = []
    for sentence, looks in groups.items():
        of = dict(looks)
        cells = "".join(f"<td>{say_verdict(of[size]) if size in of else '–'}</td>"
                        for size in sizes)
        rows.append(f'<tr><th scope="row">{html.escape(sentence)}</th>{cells}</tr>')
    sets = sorted({claim["sets"] for claim in claims})
    looked = f"{sets[0]} to {sets[-1]}" if len(sets) > 1 else f"{sets[0]}"
    return (f'<p class="over">What it decides: differences in points, ± half of a 95 % interval '
            f"over {looked} paired sets; verdicts corrected for their number (Holm).</p>"
            '<div class="wide"><table class="claims"><thead><tr><th scope="col">claim</th>'
            f"{head}</tr></thead>"
            f"<tbody>{''.join(rows)}</tbody></table></div>")


def count_verdicts(claims: list[dict]) -> str:
    """`3 hold, 1 does not, 12 undecided`, for the gallery."""
    n = {verdict: sum(c["verdict"] == verdict for c in claims) for verdict in WORDS}
    said = [f"{n['holds']} hold" + "s" * (n["holds"] == 1),
            f"{n['does not hold']} do" + "es" * (n["does not hold"] == 1) + " not",
            f"{n['undecided']} undecided"]
    said += [f"{n['the same']} compares the same images"] if n["the same"] else []
    return f"Of {len(claims)} claims " + ", ".join(said) if claims else ""


# ---------------------------------------------------------------------------------- one page each

def raw(text: str) -> str:
    """HTML that the generator is to pass on."""
    return f"```{{raw}} html\n{text}\n```\n"


def switch(drawing_or_profile, everything: dict[str, list[Drawing]]) -> str:
    """Links to the same page of the other profiles."""
    single = isinstance(drawing_or_profile, Drawing)
    mine = drawing_or_profile.profile if single else drawing_or_profile
    ways = []
    for profile, drawings in everything.items():
        has = not single or drawing_or_profile.name in {d.name for d in drawings}
        page = f"{drawing_or_profile.name}.html" if single and has else "index.html"
        if profile == mine:
            ways.append(f'<span aria-current="true">{html.escape(profile)}</span>')
        elif has:
            ways.append(f'<a href="../{profile}/{page}">{html.escape(profile)}</a>')
    words = "".join(ways)
    return raw(f'<nav class="switch" aria-label="Profile"><span>Profile</span>{words}</nav>')


PLAIN = "**In plain words.** "      # begins the paragraph that a newcomer is to understand


def say_plainly(cells: list[dict]) -> str:
    """The paragraph of a figure's notebook that is for newcomers; nothing for one without it."""
    return next((line.removeprefix(PLAIN) for line in cells[0]["source"].splitlines()
                 if line.startswith(PLAIN)), "")


def show_picture(drawing: Drawing, caption: str) -> str:
    """The picture of a page: on a phone its narrow form, where it has one."""
    wide = f'<img src="{drawing.name}.svg" alt="{html.escape(plain(caption))}">'
    if not drawing.is_narrow_too:
        return f'<div class="wide">{wide}</div>'
    return (f'<picture class="wide"><source media="(max-width: 600px)" '
            f'srcset="{drawing.name}.{NARROW}">{wide}</picture>')


def has_versions(folder: Path) -> bool:
    """Whether the page of a folder says that its profile changed between the figures."""
    page = folder / "README.md"
    return page.exists() and "versions of the profile" in page.read_text(encoding="utf-8")


def head_cell(drawing: Drawing, everything: dict) -> str:
    """What a figure page begins with: picture, caption, what it shows in plain words, claims."""
    title, lead = title_of(drawing.cells)
    caption, words = drawing.card["caption"], say_plainly(drawing.cells)
    claims = drawing.card.get("claims") or []
    older = ("\n:::{admonition} Read with care\n:class: warning\n\nThe figures of this folder "
             "were drawn by several versions of its profile: [which drew what](README.md)."
             "\n:::\n" if has_versions(drawing.folder) else "")
    shown = raw(f'<figure class="drawing">{show_picture(drawing, caption)}'
                f'<figcaption>{html.escape(caption)} '
                f'<a href="{drawing.name}.svg">Full size</a></figcaption></figure>')
    words = f"\n{PLAIN}{words}\n" if words else ""
    return (f"# {title}\n\n> {lead}\n\n{switch(drawing, everything)}\n{shown}\n{words}{older}\n"
            + (raw(claims_table(claims)) if claims else ""))


def rows_table(path: Path, n: int = 6) -> str:
    """The first rows of a CSV."""
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    head, body = rows[0], rows[1:]
    lines = "".join("<tr>" + "".join(f"<td>{html.escape(v)}</td>" for v in row) + "</tr>"
                    for row in body[:n])
    return (f'<div class="wide"><table class="rows"><caption>The first {min(n, len(body))} of '
            f"{len(body):,} rows</caption><thead><tr>"
            + "".join(f'<th scope="col">{html.escape(v)}</th>' for v in head)
            + f"</tr></thead><tbody>{lines}</tbody></table></div>")


def tail_cell(drawing: Drawing) -> str:
    """What a figure page ends with: the rows, the files, where they come from."""
    card, name = drawing.card, drawing.name
    files = " · ".join(f'<a href="{name}.{kind}">{kind.upper()}</a>' for kind in KINDS)
    versions = ", ".join(f"{k} {v}" for k, v in card["versions"].items())
    parts = ", ".join(f"{v:,} {k}" for k, v in card["data"].items() if isinstance(v, int))
    origin = [["profile", f"[{escape(drawing.profile)}](../../profiles/index.md): "
               + escape(card["profile"].get("title", ""))],
              ["images", escape(parts)], ["data", f"`{card['data'].get('fingerprint', '')}`"],
              ["code", f"`{card['code']}`"], ["versions", escape(versions)],
              ["device", escape(f"{card['device']}, {card.get('threads', '?')} thread(s) a worker")],
              ["seed", escape(card["profile"].get("seed", ""))]]
    return ("## The numbers behind it\n\n" + raw(rows_table(drawing.file("csv")))
            + f"\nFiles: {files}\n\n## Where it comes from\n\n" + table(["what", "which"], origin))


def draws_it(code: str) -> bool:
    return bool(re.search(r"^publish\(", code, re.M))


def body_cells(drawing: Drawing, links: Links) -> list[dict]:
    """The notebook that drew the figure: its words, its code folded, its tables. The picture
    itself stands above, and is not shown twice."""
    home = here = f"figures/{drawing.profile}/{drawing.name}.ipynb"
    shown, heading, said = [], title_of(drawing.cells)[0], ""
    for number, cell in enumerate(drawing.cells):
        source = cell["source"]
        if cell["cell_type"] == "markdown":
            if number == 0:
                rest = [line for line in source.splitlines()[2:] if not line.startswith(PLAIN)]
                source = "## What it asks\n\n" + "\n".join(rest).strip()
            heading = ([heading] + re.findall(r"^#{1,3} (.+)$", source, re.M))[-1]
            said = source
            shown.append(words_cell(links.mend(source, home, here)))
            continue
        outputs = [] if draws_it(source) else cell["outputs"]
        tags = cell["metadata"].get("tags", [])
        prompt = ("Show the parameters" if "parameters" in tags else "Show the imports"
                  if is_imports(source) else "Show the code")
        if "injected-parameters" in tags:       # folders of the machine that drew it
            continue
        look = {"code_prompt_show": prompt, "image": {"alt": describe_picture(heading, said)}}
        shown.append({"cell_type": "code", "source": source, "outputs": outputs,
                      "execution_count": cell["execution_count"],
                      "metadata": {"tags": ["hide-input"], "mystnb": look}})
    return shown


def stage_drawings(out: Path, links: Links, everything: dict[str, list[Drawing]]):
    """Write the pages of all figures below `out`, a gallery for each profile, and their list."""
    for profile, drawings in everything.items():
        place = out / "figures" / profile
        files = out / "extra" / "figures" / profile
        files.mkdir(parents=True, exist_ok=True)
        for drawing in drawings:
            for kind in (*KINDS, *[NARROW] * drawing.is_narrow_too):
                copy_if_new(drawing.file(kind), files / f"{drawing.name}.{kind}")
            cells = [words_cell(head_cell(drawing, everything)), *body_cells(drawing, links),
                     words_cell(tail_cell(drawing))]
            write_book(place / f"{drawing.name}.ipynb", cells)
        stage_gallery(place, profile, everything)
    stage_index(out / "figures" / "index.md", everything)


def copy_if_new(source: Path, target: Path):
    if not target.exists() or target.read_bytes() != source.read_bytes():
        shutil.copyfile(source, target)


def stage_gallery(place: Path, profile: str, everything: dict[str, list[Drawing]]):
    """The pictures of one profile, each with what it is about and what it decides. A gallery shows
    narrow pictures, where there are some: their text can be read at that size."""
    drawings = everything[profile]
    title = drawings[-1].card["profile"].get("title", profile)
    entries = []
    for drawing in drawings:
        name, lead = title_of(drawing.cells)
        caption = plain(drawing.card["caption"])
        decided = count_verdicts(drawing.card.get("claims") or [])
        more = f'<p class="decided">{decided}.</p>' if decided else ""
        kind = NARROW if drawing.is_narrow_too else "svg"
        entries.append(
            f'<li><a class="picture" href="{drawing.name}.html"><img '
            f'src="{drawing.name}.{kind}" loading="lazy" alt="{html.escape(caption)}"></a>'
            f'<h2><a href="{drawing.name}.html">'
            f"{html.escape(name)}</a></h2><p>{html.escape(lead)}</p>{more}</li>")
    readme = drawings[0].folder / "README.md"
    note, tree = "", [drawing.name for drawing in drawings]
    if readme.exists():
        text = re.sub(r"\]\((\w+)\.ipynb\)", r"](\1.ipynb)", readme.read_text(encoding="utf-8"))
        write_if_new(place / "README.md", text)
        note, tree = "\n[Which version of the profile drew what](README.md)\n", [*tree, "README"]
    write_if_new(place / "index.md", (
        f"# The figures of {profile}\n\n> {escape(title)}\n\n{switch(profile, everything)}{note}\n"
        + raw(f'<ul class="gallery">{"".join(entries)}</ul>')
        + "\n```{toctree}\n:hidden:\n\n" + "\n".join(tree) + "\n```\n"))


def stage_index(path: Path, everything: dict[str, list[Drawing]]):
    """Which profiles have figures here."""
    rows = [[f"[{profile}]({profile}/index.md)",
             escape(drawings[-1].card["profile"].get("title", "")), str(len(drawings))]
            for profile, drawings in everything.items()]
    tree = "\n".join(f"{profile}/index" for profile in everything)
    write_if_new(path, (
        "# Every figure, drawn from files one can open\n\n"
        "> Each picture stands with its caption, its claims and their verdicts, its rows, and the "
        "notebook that drew it.\n\n" + table(["profile", "what it is", "figures"], rows)
        + f"\n```{{toctree}}\n:hidden:\n\n{tree}\n```\n"))
