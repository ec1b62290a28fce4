"""The front page: the story in five pictures. Everything that it shows, numbers and images, is read
here from a profile's figures and data; the script in the browser only moves it."""
import base64
import html
import io
import json
import re
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from PIL import Image

from drawings import Drawing, count_verdicts, raw, say_verdict
from pages import title_of, write_if_new
from selmatch.core import InputError
from selmatch.data.images import class_rows, pictures
from selmatch.distill.sets import distilled_mask
from selmatch.select.scores import rank_classes
from selmatch.select.window import best_beta, window_start
from selmatch.study.study import open_study
from selmatch.study.verdicts import intervals

TILES = 120      # at most so many images of a class are shown, spread evenly over its ranks


@dataclass
class Story:
    """What a profile's figures have to tell: each part is None where its file is not there."""
    profile: str
    drawings: dict[str, Drawing]

    def rows(self, name: str) -> pd.DataFrame | None:
        """The CSV of a figure."""
        drawing = self.drawings.get(name)
        return None if drawing is None else pd.read_csv(drawing.file("csv"))

    def page(self, name: str) -> str:
        return f"figures/{self.profile}/{name}.html"


def summary(table: pd.DataFrame, by: list[str], value: str = "test_accuracy") -> pd.DataFrame:
    """Means in percent with half of their 95 % interval over sets; older files name no sets, then
    every network is one look and no interval is given."""
    if "set_seed" in table:
        return intervals(table, by, value)
    groups = 100 * table.groupby(by)[value].mean()
    return pd.DataFrame({"mean": groups, "half": np.nan, "sets": 0})


def number(value: float, digits: int = 2) -> float | None:
    """A float for the browser; None for what is not known."""
    return None if pd.isna(value) else round(float(value), digits)


def size_name(ratio: float) -> str:
    return f"{ratio:.0%}"


# ------------------------------------------------------------------------------ the images shown

def rank_images(story: Story, label: int | None) -> pd.DataFrame:
    """One class, hardest first: row, rank, difficulty. From figure 2's rows where it was drawn,
    else from the score file that the profile names. Raises `InputError` where there is neither."""
    table = story.rows("fig2_method")
    if table is not None:
        return table.sort_values("rank")[["row", "rank", "difficulty"]]
    study = open_study(story.profile)
    if study.profile.score.kind != "file":
        raise InputError(f"profile {story.profile}: no image of it has a difficulty yet: "
                         f"selmatch figures --profile {story.profile} --only fig2_method")
    rows = rank_classes(study.splits.train, study.difficulty)[label or 0]
    return pd.DataFrame({"row": rows.tolist(), "rank": range(1, len(rows) + 1),
                         "difficulty": study.difficulty[rows].tolist()})


def spread(n: int, most: int = TILES) -> list[int]:
    """At most `most` places among n, evenly, the first and the last included."""
    return sorted(set(np.linspace(0, n - 1, min(n, most)).round().astype(int).tolist()))


def read_painted(story: Story, side: int) -> np.ndarray | None:
    """The images after distilling that figure 2 shows, from its SVG, `(m, side, side, 3)` uint8 in
    the order of their ranks; None where the picture has another number of images than its rows."""
    rows = story.rows("fig2_method")
    if rows is None or "role" not in rows:
        return None
    n_frozen, n_painted = ((rows.role == role).sum() for role in ("D_select", "D_distill"))
    text = story.drawings["fig2_method"].file("svg").read_text(encoding="utf-8")
    tags = re.findall(r"<image\b[^>]*>", text, re.S)
    if len(tags) != n_frozen + 2 * n_painted:
        return None
    found = []
    for tag in tags[n_frozen + n_painted:]:
        data = base64.b64decode(re.search(r"base64,([^\"]*)", tag)[1])
        with Image.open(io.BytesIO(data)) as shown:
            found.append(np.asarray(shown.convert("RGB").resize((side, side), Image.NEAREST)))
    return np.stack(found) if found else None


def as_sprite(images: np.ndarray) -> str:
    """Images side by side in one PNG, as an address that a page can hold."""
    file = io.BytesIO()
    Image.fromarray(np.concatenate(list(images), axis=1)).save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def show_images(story: Story, label: int | None) -> dict:
    """The class of the front page: its tiles from hard to easy, and those that were repainted."""
    ranked = rank_images(story, label)
    study = open_study(story.profile)
    train = study.loaded.train
    kept = ranked.iloc[spread(len(ranked))]
    tiles = pictures(train.subset(torch.tensor(kept.row.tolist())))
    tiles = np.repeat(tiles, 3, axis=3) if tiles.shape[3] == 1 else tiles
    shown = class_of(train, int(ranked.row.iloc[0]))
    painted = read_painted(story, tiles.shape[1])
    parts = [tiles] if painted is None else [tiles, painted]
    table = story.rows("fig2_method")
    first = None if painted is None else int(table.loc[table.role == "D_distill", "rank"].min())
    return {"class": str(train.classes[shown]), "n_class": len(ranked), "n_train": len(train),
            "n_classes": train.n_classes, "side": int(tiles.shape[1]),
            "ranks": kept["rank"].tolist(),
            "difficulty": [number(d, 4) for d in kept.difficulty],
            "sprite": as_sprite(np.concatenate(parts)), "tiles": len(tiles),
            "painted": None if painted is None else {"first": first, "n": len(painted)}}


def class_of(data, row: int) -> int:
    """The class of a training image."""
    return next(label for label, rows in enumerate(class_rows(data)) if row in rows.tolist())


# --------------------------------------------------------------------------- the numbers shown

def tell_window(story: Story, n_class: int) -> dict | None:
    """Along beta, by size: where the window lies in the class shown, and what it teaches."""
    table = story.rows("fig3_window")
    if table is None:
        return None
    profile = story.drawings["fig3_window"].card["profile"]
    means = summary(table, ["ratio", "beta"])
    chosen = best_beta(table, profile["window"]["choose_on"])
    accuracies = story.rows("tab1_accuracy")
    random = {} if accuracies is None else {
        ratio: row for ratio, row in summary(accuracies[accuracies.method == "Random"],
                                             ["ratio"]).iterrows()}
    sizes = []
    for ratio, rows in table.groupby("ratio"):
        ipc = min(int(rows.ipc.iloc[0]), n_class)
        points = []
        for beta in sorted(rows.beta.unique()):
            row, room = means.loc[(ratio, beta)], 1 - ipc / n_class
            start = window_start(n_class, ipc, min(float(beta), room))
            points.append({"beta": float(beta), "start": start, "mean": number(row["mean"]),
                           "half": number(row["half"])})
        level = random.get(ratio)
        sizes.append({"size": size_name(ratio), "ipc": ipc, "points": points,
                      "sets": int(means.loc[ratio].sets.min()), "chosen": float(chosen[ratio]),
                      "random": None if level is None else number(level["mean"]),
                      "random_half": None if level is None else number(level["half"])})
    return {"sizes": sizes, "on": profile["window"]["choose_on"], "page": story.page("fig3_window")}


def tell_alpha(story: Story, window: dict | None) -> dict | None:
    """Along alpha, by size: how many images are repainted, accuracy, coverage of both halves."""
    table = story.rows("fig4_alpha")
    if table is None or window is None:
        return None
    of = {size["size"]: size for size in window["sizes"]}
    plain = table[table.augmentation == "dsa"]
    sizes = []
    for ratio, rows in plain.groupby("ratio"):
        size = of[size_name(ratio)]
        columns = {what: summary(rows, ["alpha"], what)
                   for what in ("test_accuracy", "hard_coverage", "easy_coverage")}
        start = next(p["start"] for p in size["points"] if p["beta"] == size["chosen"])
        points = []
        for alpha in sorted(rows.alpha.unique()):
            said = {what: [number(t.loc[alpha, "mean"]), number(t.loc[alpha, "half"])]
                    for what, t in columns.items()}
            repainted = int(distilled_mask(1, size["ipc"], float(alpha)).sum())
            points.append({"alpha": float(alpha), "repainted": repainted} | said)
        sets = int(columns["test_accuracy"].sets.min())
        sizes.append({"size": size["size"], "ipc": size["ipc"], "start": start,
                      "beta": size["chosen"], "sets": sets, "points": points})
    return {"sizes": sizes, "page": story.page("fig4_alpha")}


def tell_verdicts(story: Story) -> list[dict]:
    """The claims of all figures of the profile, each as its JSON says."""
    return [claim | {"page": story.page(name), "title": title_of(drawing.cells)[0]}
            for name, drawing in story.drawings.items()
            for claim in drawing.card.get("claims") or []]


def tell(profile: str, everything: dict[str, list[Drawing]], label: int | None = None) -> dict:
    """All that the front page shows of a profile."""
    if profile not in everything:
        raise InputError(f"profile {profile!r} has no figures here; these have: "
                         f"{', '.join(everything)}")
    story = Story(profile, {drawing.name: drawing for drawing in everything[profile]})
    images = show_images(story, label)
    window = tell_window(story, images["n_class"])
    title = everything[profile][-1].card["profile"].get("title", profile)
    return {"profile": profile, "title": title, "images": images, "window": window,
            "alpha": tell_alpha(story, window), "verdicts": tell_verdicts(story),
            "method_page": story.page("fig2_method") if "fig2_method" in story.drawings else None}


# ------------------------------------------------------------------------------------- the page

def slide(number_: int, name: str, title: str, body: str) -> str:
    return (f'<section class="slide" id="{name}" tabindex="-1" aria-labelledby="{name}-title">'
            f'<h2 id="{name}-title"><span class="count">{number_}</span> {title}</h2>{body}'
            "</section>")


def sizes_control(name: str, sizes: list[dict]) -> str:
    """Radio buttons for the size of the set."""
    inputs = "".join(
        f'<label><input type="radio" name="{name}-size" value="{i}"'
        f'{" checked" if i == min(1, len(sizes) - 1) else ""}> {size["size"]}</label>'
        for i, size in enumerate(sizes))
    return f'<fieldset class="sizes"><legend>Share of the images kept</legend>{inputs}</fieldset>'


def slider(name: str, said: str, n: int, at: int) -> str:
    return (f'<p class="slider"><label for="{name}">{said}</label>'
            f'<input type="range" id="{name}" min="0" max="{n - 1}" step="1" value="{at}"></p>'
            f'<p class="reading" role="status" id="{name}-reading"></p>')


SHOWN = 16      # decided claims on the front page, at most


def ask_once(verdicts: list[dict]) -> list[dict]:
    """Claims without those whose numbers an earlier one has: asked again in another figure, the
    other way round, or of rows that are the same images."""
    first = {}
    for place, claim in enumerate(verdicts):
        numbers = (abs(claim["gap"]), claim["half"]) if claim["half"] else place
        first.setdefault(numbers, claim)
    return list(first.values())


def clearest(verdicts: list[dict], most: int = SHOWN) -> list[dict]:
    """Claims that hold or do not, in their order; of many, those with the smallest p."""
    decided = [claim for claim in verdicts if claim["verdict"] in ("holds", "does not hold")]
    by_p = sorted(decided, key=lambda c: 1.0 if c["p_holm"] is None else c["p_holm"])
    kept = [id(claim) for claim in by_p[:most]]
    return [claim for claim in decided if id(claim) in kept]


def by_figure(verdicts: list[dict]) -> str:
    """Each figure that makes claims, and how they came out, as HTML."""
    pages = dict.fromkeys((claim["page"], claim["title"]) for claim in verdicts)
    items = [f'<li><a href="{page}">{html.escape(title)}</a>: '
             f"{count_verdicts([c for c in verdicts if c['page'] == page])}.</li>"
             for page, title in pages]
    return f"<ul>{''.join(items)}</ul>"


def forest(verdicts: list[dict]) -> str:
    """What is decided, as HTML: the clearest claims that hold or do not, then all by figure."""
    n = {verdict: sum(c["verdict"] == verdict for c in verdicts)
         for verdict in ("holds", "does not hold", "undecided")}
    same = len(verdicts) - sum(n.values())
    alike = f", and <b>{same}</b> of the same images" if same else ""
    once = ask_once(verdicts)
    twice = len(verdicts) - len(once)
    again = f" ({twice} of them asked again, in another figure or of the same images)" * bool(twice)
    shown = clearest(once)
    left_out = len(clearest(once, len(once))) - len(shown)
    more = f" The {len(shown)} clearest; {left_out} more stand with the figures." if left_out else ""
    rows = "".join(
        f'<tr><th scope="row"><a href="{c["page"]}">{html.escape(c["sentence"])}</a></th>'
        f"<td>{say_verdict(c)}</td><td>{bar(c, shown)}</td></tr>" for c in shown)
    return (f'<p class="reading">Of <b>{len(verdicts)}</b> claims that the figures put to the '
            f'test{again}, <b>{n["holds"]}</b> hold, <b>{n["does not hold"]}</b> do not '
            f'(the other one is better){alike}, and <b>{n["undecided"]}</b> are undecided: the sets '
            "that were made cannot tell.</p>"
            '<p class="over">What is decided: points of accuracy or coverage, ± half of a 95 % '
            f"interval over paired sets, corrected within each figure.{more}</p>"
            '<div class="wide"><table class="claims forest"><thead><tr><th scope="col">claim</th>'
            '<th scope="col">verdict</th><th scope="col">difference</th></tr></thead>'
            f"<tbody>{rows}</tbody></table></div>{by_figure(verdicts)}")


def bar(claim: dict, among: list[dict]) -> str:
    """A difference with its interval, drawn against zero, on one scale for all rows."""
    reach = max(abs(c["gap"]) + (c["half"] or 0) for c in among)
    place = lambda value: f"{100 + 96 * value / reach:.1f}"      # noqa: E731
    gap, half = claim["gap"], claim["half"] or 0
    kind = "holds" if claim["verdict"] == "holds" else "fails"
    return (f'<svg class="bar {kind}" viewBox="0 0 200 20" width="200" height="20" '
            f'aria-hidden="true"><path class="zero" d="M100 0V20"/>'
            f'<path d="M{place(gap - half)} 10H{place(gap + half)}"/>'
            f'<circle cx="{place(gap)}" cy="10" r="4.5"/></svg>')


def write_slides(told: dict) -> list[str]:
    """The pictures that a profile has the files for."""
    images, window, alpha = told["images"], told["window"], told["alpha"]
    strip = '<div class="strip" role="img"></div>'
    slides = [("question", "Keep a few images. Which?", (
        (sizes_control("question", window["sizes"]) if window else "")
        + f'<div class="crowd" role="img"></div><p class="reading" role="status" '
        'id="question-reading"></p>'
        "<p>Two schools answer. <b>Selection</b> keeps real images and asks which. "
        "<b>Distillation</b> paints new ones, by gradient descent on their pixels.</p>"))]
    source = (f' From <a href="{told["method_page"]}">figure 2</a>.' if told["method_page"] else "")
    slides.append(("sorted", "Some images are harder than others", (
        f'<div class="strip ranked" role="img"></div><div class="chart" id="difficulty"></div>'
        f"<p>Every picture is an image of class <b>{html.escape(images['class'])}</b>, the hardest "
        "first. Hard is what networks forget while they learn, or get wrong when it is held out. "
        f"Point at a picture: its bar lights up.{source}</p>")))
    if window:
        slides.append(("window", "How hard may a small set be? Move the window", (
            sizes_control("beta", window["sizes"])
            + slider("beta", "β: share of the hardest images that the window skips",
                     len(window["sizes"][min(1, len(window["sizes"]) - 1)]["points"]), 0)
            + strip + '<div class="chart" id="accuracy"></div>'
            f"<p>Train on the images in the frame alone. The ring is the window that {window['on']}"
            f' images choose. From <a href="{window["page"]}">figure 3</a>.</p>')))
    if alpha:
        slides.append(("share", "Freeze or repaint? Choose the share", (
            sizes_control("alpha", alpha["sizes"])
            + slider("alpha", "α: share of the window that is repainted",
                     len(alpha["sizes"][0]["points"]), 0)
            + '<ul class="key"><li class="frozen">frozen: the harder part</li>'
            '<li class="repainted">repainted: the easier part</li></ul>'
            + '<div class="strip window-only" role="img"></div><p class="note" id="alpha-note"></p>'
            '<div class="charts"><div class="chart" id="taught"></div>'
            '<div class="chart" id="covered"></div></div>'
            f'<p>From <a href="{alpha["page"]}">figure 4</a>; networks trained with the '
            "augmentation DSA.</p>")))
    nothing = ('<p class="reading">Nothing yet: no figure of this profile puts a claim to the test. '
               "Means alone decide nothing.</p>")
    slides.append(("verdict", "What is decided, and what is not", (
        (forest(told["verdicts"]) if told["verdicts"] else nothing)
        + '<p><a class="button" href="evening.html">Do it yourself: the evening path</a></p>')))
    return [slide(i, name, title, body) for i, (name, title, body) in enumerate(slides, 1)]


def stage_story(out, profile: str, everything: dict[str, list[Drawing]], label: int | None = None):
    """Write the front page."""
    told = tell(profile, everything, label)
    slides = write_slides(told)
    data = json.dumps(told, ensure_ascii=False).replace("</", "<\\/")
    steer = ('<div class="steer" role="group" aria-label="The story in pictures">'
             '<button type="button" id="before">Back</button>'
             f'<span id="where">1 of {len(slides)}</span>'
             '<button type="button" id="after">Next picture</button>'
             '<button type="button" id="lecture" aria-pressed="false">Lecture view</button>'
             '<span class="hint">or the arrow keys</span></div>')
    text = ("---\nhide-toc: true\n---\n"
            "# Which small set of images teaches a network as much as the large one?\n\n"
            "> Dataset distillation paints such a set; coreset selection picks it; SelMatch does "
            "both. The story in pictures, all of it from files one can open.\n\n"
            + raw(f'<div class="story">{steer}{"".join(slides)}<noscript><p>The sliders need '
                  "JavaScript; the figures they are drawn from do not.</p></noscript></div>"
                  f'<script type="application/json" id="told">{data}</script>')
            + f"\n*Images and numbers: {html.escape(told['title'])}.*\n\n"
            "```{toctree}\n:hidden:\n\nevening\nlessons/index\nfigures/index\nmethods/index\n"
            "profiles/index\napi/index\nguides/index\n```\n")
    write_if_new(out / "index.md", text)
