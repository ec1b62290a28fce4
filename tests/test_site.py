"""The site: what is staged from notebooks, figures and the catalogue; and the pages in a browser.

The default tests stage the whole site and build a few of its pages; the slow ones build all of it."""
import json
import os
import re
import shutil
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlparse

import pandas as pd
import pytest

from conftest import ROOT

pytest.importorskip("myst_nb", reason="the site's generator is in the extra `docs`")
pytest.importorskip("furo", reason="the site's theme is in the extra `docs`")
sys.path.insert(0, str(ROOT / "site"))
import drawings  # noqa: E402
import generator  # noqa: E402
import lessons  # noqa: E402
import make  # noqa: E402
import pages  # noqa: E402
import story  # noqa: E402
from selmatch.core import InputError  # noqa: E402
from selmatch.methods import methods, variants  # noqa: E402

FEW = ["index.md", "evening.md", "lessons/22_window.ipynb", "figures/digits/fig3_window.ipynb", "figures/digits/index.md",
       "methods/selmatch.md"]


def made_once(factory, name, work):
    """A folder that one of the test processes fills, for all of them."""
    base = factory.getbasetemp()
    place = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    done, failed = place.with_suffix(".done"), place.with_suffix(".failed")
    try:
        place.mkdir()
    except FileExistsError:
        while not done.exists():
            assert not failed.exists(), f"another process could not make {name}"
            time.sleep(0.2)
        return place
    try:
        work(place)
    except BaseException:
        failed.touch()
        raise
    done.touch()
    return place


@pytest.fixture(scope="session")
def sources(tmp_path_factory):
    """All pages, as the generator reads them."""
    def work(place):
        (place / "sources" / "extra").mkdir(parents=True)
        make.stage(place / "sources", "digits")
    return made_once(tmp_path_factory, "site", work) / "sources"


def built_by(out, work, few):
    """Build in a process of its own: the generator changes the process that it runs in."""
    code = f"import sys; sys.path.insert(0, {str(ROOT / 'site')!r}); import generator; from pathlib import Path; " \
           f"sys.exit(generator.build(Path({str(out)!r}), Path({str(work)!r}), {few!r}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]


@pytest.fixture(scope="session")
def small_site(sources, tmp_path_factory):
    return made_once(tmp_path_factory, "few", lambda place: built_by(place, sources.parent, FEW))


@pytest.fixture(scope="session")
def whole_site(sources, tmp_path_factory):
    return made_once(tmp_path_factory, "whole", lambda place: built_by(place, sources.parent, None))


# ---------------------------------------------------------------- what is staged

def test_every_lesson_figure_method_module_and_profile_has_a_page(sources):
    staged = {path.relative_to(sources).as_posix() for path in generator.list_sources(sources.parent)}
    notebooks = {f"lessons/{path.name}" for path in (ROOT / "nbs").glob("[0-9]*.ipynb")}
    cards = {f"methods/{name}.md" for name in [*methods, *variants]}
    figures = {f"figures/{path.parent.name}/{path.name}" for path in (ROOT / "figures").glob("*/*.ipynb")}
    profiles = {f"profiles/{path.stem}.md" for path in (ROOT / "selmatch" / "profiles").glob("*.yaml")}
    assert len(methods) == 42
    assert notebooks | cards | figures | profiles <= staged
    assert "api/distill.sweep.md" in staged


def test_titles_are_sentences_and_no_two_are_alike(sources):
    titles = {}
    for path in generator.list_sources(sources.parent):
        text = pages.read_cells(path)[0]["source"] if path.suffix == ".ipynb" else path.read_text(encoding="utf-8")
        title = re.search(r"^# (.+)$", text, re.M)
        assert title, path
        assert path.stem not in (title[1], title[1].lower()) or path.stem in ("whitening", "training"), title[1]
        if "figures/" not in path.as_posix():      # a figure has its title in every profile
            titles.setdefault(title[1], []).append(path.name)
    assert {t: p for t, p in titles.items() if len(p) > 1} == {}


def test_links_between_the_sources_hold(sources):
    """Markdown links to pages, and to files that travel beside them."""
    broken, seen = [], 0
    for path in generator.list_sources(sources.parent):
        texts = [c["source"] for c in pages.read_cells(path) if c["cell_type"] == "markdown"] if path.suffix == ".ipynb" \
            else [path.read_text(encoding="utf-8")]
        for text in texts:
            text = re.sub(r"```(?!\{raw).*?```|`[^`\n]*`", "", text, flags=re.S)
            for target in re.findall(r"\]\(([^)\s#]+)[^)]*\)", text) + re.findall(r'(?:href|src)="([^"#]+)"', text):
                if re.match(r"[a-z]+:", target):
                    continue
                seen += 1
                here = path.parent / target
                beside = Path(os.path.normpath(sources / "extra" / path.parent.relative_to(sources) / target))
                pages_of = [here.with_suffix(kind) for kind in (".md", ".ipynb")] if target.endswith(".html") else [here]
                if not any(p.exists() for p in [*pages_of, beside]):
                    broken.append((path.relative_to(sources).as_posix(), target))
    assert seen > 500
    assert not broken


def test_outputs_are_shown_as_they_are():
    """Nothing is run, nothing is lost: each output of a lesson is on its page."""
    path = ROOT / "nbs" / "22_window.ipynb"
    cells = pages.read_cells(path)
    shown = lessons.show_cells(cells)
    assert [c["outputs"] for c in shown if c.get("outputs")] == [c["outputs"] for c in cells if c.get("outputs")]
    code = [c["source"] for c in shown if c["cell_type"] == "code"]
    assert not any(line.startswith("#|") for text in code for line in text.splitlines())
    assert all(c["metadata"]["mystnb"]["image"]["alt"] for c in shown if c["cell_type"] == "code")


def test_figures_are_found_in_the_folders_and_in_no_list(tmp_path):
    shutil.copytree(ROOT / "figures" / "digits", tmp_path / "figures" / "digits")
    for kind in ("json", "csv", "svg", "ipynb"):
        shutil.copy(ROOT / "figures" / "digits" / f"fig3_window.{kind}", tmp_path / "figures" / "digits" / f"fig77_new.{kind}")
    card = tmp_path / "figures" / "digits" / "fig77_new.json"
    card.write_text(json.dumps(json.loads(card.read_text()) | {"figure": "fig77_new"}))
    found = {d.name for d in drawings.find_drawings(tmp_path)["digits"]}
    assert "fig77_new" in found
    (tmp_path / "figures" / "digits" / "fig77_new.csv").unlink()
    assert "fig77_new" not in {d.name for d in drawings.find_drawings(tmp_path)["digits"]}, "a figure without its rows"


def test_a_figure_page_says_what_its_json_says():
    drawing = next(d for d in drawings.find_drawings()["digits"] if d.name == "tab1_accuracy")
    head = drawings.head_cell(drawing, drawings.find_drawings())
    shown = drawings.claims_table(drawing.card["claims"])
    assert drawing.card["caption"].split(".")[0] in head
    for claim in drawing.card["claims"]:
        assert f"{claim['gap']:+.2f}".replace("-", "−") in shown
    for verdict in ("holds", "does not hold", "undecided"):
        assert shown.count(f">{verdict}<") == sum(c["verdict"] == verdict for c in drawing.card["claims"])


def test_only_a_folder_of_several_versions_is_to_be_read_with_care(tmp_path):
    """The page beside the figures says so, and a folder drawn by one version has no warning."""
    everything = drawings.find_drawings(ROOT)
    for name in ("cifar10-jpeg-lite", "digits"):
        assert "Read with care" not in drawings.head_cell(everything[name][0], everything)
    shutil.copytree(ROOT / "figures" / "cifar10-jpeg-lite", tmp_path / "figures" / "cifar10-jpeg-lite")
    page = tmp_path / "figures" / "cifar10-jpeg-lite" / "README.md"
    page.write_text(page.read_text().replace("come from one version of the profile", "come from **2 versions of the profile**"))
    found = drawings.find_drawings(tmp_path)
    assert "Read with care" in drawings.head_cell(found["cifar10-jpeg-lite"][0], found)


def test_a_phone_is_shown_the_narrow_picture_where_there_is_one(tmp_path):
    shutil.copytree(ROOT / "figures" / "digits", tmp_path / "figures" / "digits")
    folder = tmp_path / "figures" / "digits"
    (folder / "fig3_window.narrow.svg").write_text("<svg/>")
    (folder / "tab1_accuracy.narrow.svg").unlink(missing_ok=True)
    book = json.loads((folder / "fig3_window.ipynb").read_text(encoding="utf-8"))
    lines = "".join(book["cells"][0]["source"]).splitlines()
    kept = [line for line in lines if not line.startswith("**In plain words.**")]
    book["cells"][0]["source"] = "\n".join([*kept[:2], "", "**In plain words.** Few or many?", *kept[2:]])
    (folder / "fig3_window.ipynb").write_text(json.dumps(book), encoding="utf-8")
    found = drawings.find_drawings(tmp_path)
    both, wide = (next(d for d in found["digits"] if d.name == name) for name in ("fig3_window", "tab1_accuracy"))
    head = drawings.head_cell(both, found)
    assert '<source media="(max-width: 600px)" srcset="fig3_window.narrow.svg"><img src="fig3_window.svg" alt="' in head
    assert "**In plain words.** Few or many?" in head and "Few or many?" not in drawings.body_cells(both, pages.Links())[0]["source"]
    assert "<source" not in drawings.head_cell(wide, found)
    drawings.stage_drawings(tmp_path / "out", pages.Links(), found)
    assert (tmp_path / "out" / "extra" / "figures" / "digits" / "fig3_window.narrow.svg").exists()
    gallery = (tmp_path / "out" / "figures" / "digits" / "index.md").read_text(encoding="utf-8")
    assert 'src="fig3_window.narrow.svg"' in gallery and 'src="tab1_accuracy.svg"' in gallery


def test_folders_of_the_machine_that_drew_a_figure_are_not_shown(tmp_path):
    shutil.copytree(ROOT / "figures" / "digits", tmp_path / "figures" / "digits")
    path = tmp_path / "figures" / "digits" / "fig3_window.ipynb"
    book = json.loads(path.read_text(encoding="utf-8"))
    book["cells"].insert(2, {"cell_type": "code", "source": ['home = "/somewhere/else"'], "outputs": [], "id": "given",
                             "execution_count": 1, "metadata": {"tags": ["injected-parameters"]}})
    path.write_text(json.dumps(book), encoding="utf-8")
    found = next(d for d in drawings.find_drawings(tmp_path)["digits"] if d.name == "fig3_window")
    shown = drawings.body_cells(found, pages.Links())
    assert not any("/somewhere/else" in cell["source"] for cell in shown)
    assert any("Show the parameters" in str(cell["metadata"]) for cell in shown)


def test_no_place_of_a_machine_is_shown(sources):
    for path in generator.list_sources(sources.parent):
        assert str(ROOT) not in path.read_text(encoding="utf-8"), path


def test_a_card_has_its_parts(sources):
    for name in [*methods, *variants]:
        text = (sources / "methods" / f"{name}.md").read_text(encoding="utf-8")
        for part in ("## The idea", "## The equation", "## What it costs", "## What it reaches", "## Where to read it"):
            assert part in text, (name, part)
        assert "../lessons/" in text, name
    own = (sources / "methods" / "herding.md").read_text(encoding="utf-8")
    assert r"\mu - \sum_{j\in S_t}" in own, "herding's own equation"


def test_the_results_on_a_card_are_those_of_the_rows(sources):
    rows = pd.read_csv(ROOT / "figures" / "digits" / "tab1_accuracy.csv")
    mine = rows[(rows.method == "SelMatch") & (rows.ratio == 0.05)]
    mean = 100 * mine.groupby("set_seed").test_accuracy.mean().mean()
    assert f"5%: {mean:.1f} ±" in (sources / "methods" / "selmatch.md").read_text(encoding="utf-8")


# ---------------------------------------------------------------- the evening path

def test_the_evening_path_is_short_and_its_steps_exist():
    steps = lessons.evening_path()
    assert [step.file for step in steps][0] == "00_tour.ipynb"
    assert len(steps) == 6
    assert sum(step.words for step in steps) <= 6000
    minutes = [list(map(int, re.findall(r"\d+", step.minutes))) for step in steps]
    assert all(len(pair) == 2 for pair in minutes)
    assert sum(running for _, running in minutes) <= 15


def test_a_step_of_the_path_ends_with_a_sign(sources):
    for number, step in enumerate(lessons.evening_path(), 1):
        cells = [c["source"] for c in pages.read_cells(sources / "lessons" / step.file)]
        sign = [i for i, text in enumerate(cells) if f"Step {number} of 6 ends here" in text]
        assert len(sign) == 1, step.file
        after = "\n".join(cells[sign[0] + 1:])
        assert not step.last or step.last not in re.findall(r"^## (.+)$", after, re.M)


def test_a_step_to_a_section_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="no section 'Nowhere'"):
        lessons.end_of(pages.read_cells(ROOT / "nbs" / "22_window.ipynb"), "Nowhere")


# ---------------------------------------------------------------- the story's numbers

@pytest.fixture(scope="session")
def told(sources):
    text = (sources / "index.md").read_text(encoding="utf-8")
    return json.loads(re.search(r'id="told">(.*?)</script>', text, re.S)[1])


def test_the_numbers_of_the_story_are_those_of_the_rows(told):
    rows = pd.read_csv(ROOT / "figures" / "digits" / "fig3_window.csv")
    means = 100 * rows.groupby(["ratio", "beta"]).test_accuracy.mean()      # one network a set
    for size, (_, part) in zip(told["window"]["sizes"], means.groupby(level=0)):
        assert [p["mean"] for p in size["points"]] == pytest.approx(part.tolist(), abs=0.006)
    rows = pd.read_csv(ROOT / "figures" / "digits" / "fig4_alpha.csv").query("augmentation == 'dsa'")
    means = 100 * rows.groupby(["ratio", "alpha"]).hard_coverage.mean()
    for size, (_, part) in zip(told["alpha"]["sizes"], means.groupby(level=0)):
        assert [p["hard_coverage"][0] for p in size["points"]] == pytest.approx(part.tolist(), abs=0.006)


def test_the_story_freezes_what_figure_2_froze(told):
    rows = pd.read_csv(ROOT / "figures" / "digits" / "fig2_method.csv")
    frozen, painted = (rows[rows.role == role]["rank"] for role in ("D_select", "D_distill"))
    size = next(s for s in told["alpha"]["sizes"] if s["ipc"] == len(frozen) + len(painted))
    assert size["start"] == frozen.min() - 1
    at = next(p for p in size["points"] if p["repainted"] == len(painted))
    assert told["images"]["painted"] == {"first": painted.min(), "n": at["repainted"]}


def test_painted_images_are_read_from_the_picture(told):
    """What figure 2 shows after distilling is not what it shows before."""
    everything = drawings.find_drawings()
    one = story.Story("digits", {d.name: d for d in everything["digits"]})
    painted = story.read_painted(one, 8)
    assert painted.shape == (told["images"]["painted"]["n"], 8, 8, 3)
    assert len({image.tobytes() for image in painted}) == len(painted)


def test_a_profile_without_figures_or_difficulties_is_refused(tmp_path):
    everything = drawings.find_drawings()
    with pytest.raises(InputError, match="'cifar100' has no figures here; these have: digits"):
        story.tell("cifar100", everything)
    with pytest.raises(InputError, match="--only fig2_method"):
        story.rank_images(story.Story("digits", {}), None)


def test_the_front_page_counts_all_claims_and_shows_the_clearest(told):
    claims = [c for path in (ROOT / "figures" / "digits").glob("*.json") for c in json.loads(path.read_text(encoding="utf-8")).get("claims", [])]
    shown = story.forest(told["verdicts"])
    assert f"<b>{len(claims)}</b> claims" in shown
    assert f"<b>{sum(c['verdict'] == 'undecided' for c in claims)}</b> are undecided" in shown
    many = [{"verdict": "holds", "p_holm": p / 1000, "sentence": f"claim {p}"} for p in range(49, 0, -1)] + [{"verdict": "undecided", "p_holm": .9}]
    assert [c["sentence"] for c in story.clearest(many, 3)] == ["claim 3", "claim 2", "claim 1"]


def test_a_story_is_told_as_far_as_its_files_go(told):
    """A profile with figure 3 alone has no slider for alpha, and says that nothing is decided."""
    slides = story.write_slides(told | {"alpha": None, "verdicts": [], "method_page": None})
    names = [re.search(r'id="(\w+)"', slide)[1] for slide in slides]
    assert names == ["question", "sorted", "window", "verdict"]
    assert "Nothing yet" in slides[-1]


def test_a_profile_that_is_refused_is_named_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["make.py", "--profile", "cifar100", "--out", str(tmp_path / "site")])
    with pytest.raises(SystemExit, match="^make site: profile 'cifar100' has no figures here"):
        make.main()
    assert not (tmp_path / "site").exists()


def test_many_images_are_spread_over_all_ranks():
    assert story.spread(5) == [0, 1, 2, 3, 4]
    many = story.spread(5000)
    assert len(many) == story.TILES and many[0] == 0 and many[-1] == 4999


# ---------------------------------------------------------------- pages as a browser has them

class Page(HTMLParser):
    """What a page refers to, and its anchors, headings and pictures."""

    def __init__(self, path):
        super().__init__()
        self.targets, self.ids, self.levels, self.bare = [], set(), [], []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, pairs):
        of = dict(pairs)
        self.ids |= {of[key] for key in ("id", "name") if of.get(key)}
        self.targets += [of[key] for key in ("href", "src") if of.get(key)]
        if re.fullmatch("h[1-6]", tag):
            self.levels.append(int(tag[1]))
        if tag == "img" and not of.get("alt"):
            self.bare.append(of.get("src"))


def broken_links(site):
    """(page, target) for every internal link, picture, script and anchor that is not there."""
    read = {path: Page(path) for path in site.rglob("*.html")}
    broken = []
    for path, page in read.items():
        for target in page.targets:
            url = urlparse(target)
            if url.scheme:
                continue
            file = (path.parent / unquote(url.path)).resolve() if url.path else path
            here = read.get(file)
            if not file.exists() or (url.fragment and here and not url.fragment.startswith("svg-")
                                     and unquote(url.fragment) not in here.ids):
                broken.append((path.relative_to(site).as_posix(), target))
    return broken


def test_headings_are_in_order_and_pictures_have_words(small_site):
    for name in FEW:
        page = Page((small_site / name).with_suffix(".html"))
        assert page.levels[0] == 1 and page.levels.count(1) == 1, name
        assert all(b - a <= 1 for a, b in zip(page.levels, page.levels[1:])), (name, page.levels)
        assert not page.bare, name
        assert any(i == "furo-main-content" for i in page.ids), "where the skip link leads"


def test_formulas_are_rendered_while_building(small_site):
    text = (small_site / "lessons" / "22_window.html").read_text(encoding="utf-8")
    assert text.count("<math") > 10
    assert "$$" not in re.sub(r"<(script|pre).*?</\1>", "", text, flags=re.S)
    assert not re.search(r"mathjax[\w./-]*\.js|katex", text, re.I)


CHROMIUM = next(filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome", "chrome"])), None)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]


@pytest.fixture(scope="session")
def browser():
    """A headless Chromium; skipped where there is none."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is in the extra `dev`")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


class Visit:
    """A page in the browser, with what it asked for and complained of."""

    def __init__(self, browser, file, width=1280, scheme="light"):
        self.context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.page, self.said, self.asked = self.context.new_page(), [], []
        self.page.on("console", lambda message: self.said.append(message.text) if message.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(file.as_uri())
        self.page.wait_for_timeout(150)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.context.close()

    def outside(self):
        return [url for url in self.asked if not url.startswith(("file:", "data:"))]


def check_quiet(browser, file):
    """No request leaves, no error is logged, nothing scrolls sideways on a phone."""
    with Visit(browser, file, 390) as visit:
        assert visit.outside() == []
        assert visit.said == []
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= 390, file.name
        pictures = visit.page.evaluate("[...document.images].filter(i => i.loading != 'lazy' && !i.naturalWidth).map(i => i.src)")
        assert pictures == []


@pytest.mark.parametrize("name", FEW)
def test_a_page_is_quiet_and_fits_a_phone(browser, small_site, name):
    check_quiet(browser, (small_site / name).with_suffix(".html"))


RULES = ["color-contrast", "image-alt", "svg-img-alt", "role-img-alt", "label", "button-name", "link-name", "heading-order",
         "document-title", "html-has-lang", "duplicate-id-aria", "aria-valid-attr-value", "aria-required-attr", "skip-link",
         "scrollable-region-focusable", "table-fake-caption", "td-headers-attr", "landmark-one-main"]


def faults_of(browser, file, scheme):
    """What axe-core finds: contrast below 4.5, a picture without words, headings out of order …"""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is in the extra `dev`")
    with Visit(browser, file, 1280, scheme) as visit:
        found = axe.Axe().run(visit.page, options={"runOnly": {"type": "rule", "values": RULES}})
    return [(v["id"], n["target"], n.get("failureSummary", "")[:200]) for v in found.response["violations"] for n in v["nodes"]]


@pytest.mark.parametrize("name, scheme", [("index.md", "light"), ("index.md", "dark"), ("figures/digits/fig3_window.ipynb", "light"),
                                          ("methods/selmatch.md", "dark")])
def test_a_page_can_be_read_by_everybody(browser, small_site, name, scheme):
    assert faults_of(browser, (small_site / name).with_suffix(".html"), scheme) == []


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["lessons/31_sweep", "lessons/00_tour", "lessons/index", "figures/digits/tab1_accuracy", "figures/digits/index", "methods/herding",
                                  "methods/index", "profiles/digits", "api/select.window", "guides/readme", "evening", "search"])
def test_every_kind_of_page_can_be_read_by_everybody(browser, whole_site, name, scheme):
    assert faults_of(browser, whole_site / f"{name}.html", scheme) == []


def test_low_contrast_would_be_seen(browser, tmp_path):
    page = tmp_path / "pale.html"
    page.write_text('<!doctype html><html lang="en"><title>pale</title><main><h1>x</h1><p style="color:#999;background:#fff">pale</p><img src="data:,">')
    assert {rule for rule, *_ in faults_of(browser, page, "light")} >= {"color-contrast", "image-alt"}


def test_the_beta_slider_moves_window_dot_and_number(browser, small_site, told):
    with Visit(browser, small_site / "index.html") as visit:
        page = visit.page
        def seen():
            lit = page.eval_on_selector_all("#window .tile.in", "tiles => tiles.map(t => Number(t.dataset.rank))")
            return lit, page.inner_text("#beta-reading"), page.get_attribute("#accuracy .dot", "cx")
        for i, size in enumerate(told["window"]["sizes"]):
            page.check(f'input[name="beta-size"][value="{i}"]')
            before = None
            for k in (0, len(size["points"]) - 1):
                page.fill("#beta", str(k))
                point, (lit, words, dot) = size["points"][k], seen()
                assert lit == list(range(point["start"] + 1, point["start"] + size["ipc"] + 1))
                assert f"{point['mean']:.1f} ± {point['half']:.1f} %" in words and size["size"] in words
                assert dot != before
                before = dot


def test_the_alpha_slider_repaints_and_its_numbers_follow(browser, small_site, told):
    with Visit(browser, small_site / "index.html") as visit:
        page = visit.page
        for i, size in enumerate(told["alpha"]["sizes"]):
            page.check(f'input[name="alpha-size"][value="{i}"]')
            for k, point in enumerate(size["points"]):
                page.fill("#alpha", str(k))
                words = page.inner_text("#alpha-reading")
                assert page.locator("#share .tile.repainted").count() == point["repainted"]
                assert page.locator("#share .tile.frozen").count() == size["ipc"] - point["repainted"]
                assert f"{point['hard_coverage'][0]:.1f} ±" in words and f"{point['test_accuracy'][0]:.1f} ±" in words


def test_the_arrow_keys_walk_through_the_story(browser, small_site):
    with Visit(browser, small_site / "index.html") as visit:
        page = visit.page
        n = page.locator(".slide").count()
        assert n == 5
        page.keyboard.press("ArrowRight")
        assert page.inner_text("#where") == f"2 of {n}"
        page.focus("#lecture")
        page.keyboard.press("Enter")            # a click would miss it while the page still scrolls
        assert page.locator(".slide:visible").count() == 1
        for _ in range(n):
            page.keyboard.press("ArrowRight")
        assert page.inner_text("#where") == f"{n} of {n}"
        assert page.locator("#verdict").is_visible()
        page.keyboard.press("ArrowLeft")
        assert page.inner_text("#where") == f"{n - 1} of {n}"
        page.focus("#alpha")
        page.keyboard.press("ArrowRight")      # on a slider the arrows are the slider's
        assert (page.inner_text("#where"), page.input_value("#alpha")) == (f"{n - 1} of {n}", "1")
        page.keyboard.press("Escape")
        assert page.url.startswith("file:")


def test_the_first_key_skips_to_the_words(browser, small_site):
    with Visit(browser, small_site / "lessons" / "22_window.html") as visit:
        visit.page.keyboard.press("Tab")
        assert visit.page.evaluate("document.activeElement.className").startswith("skip-to-content")


# ---------------------------------------------------------------- all of it

@pytest.mark.slow
def test_the_whole_site_is_built_small_and_whole(whole_site):
    assert sum(path.stat().st_size for path in whole_site.rglob("*") if path.is_file()) <= 25e6
    assert broken_links(whole_site) == []
    pages_ = list(whole_site.rglob("*.html"))
    assert len(pages_) > 180
    for path in pages_:
        page = Page(path)
        assert not page.bare, path
        assert all(b - a <= 1 for a, b in zip(page.levels, page.levels[1:])), (path, page.levels)
        assert not re.search(r'(?:src|<link[^>]*href)="https?:', path.read_text(encoding="utf-8")), path


def test_a_broken_link_would_be_seen(tmp_path):
    (tmp_path / "a.html").write_text('<a href="b.html#there">x</a><a href="b.html#gone">x</a><a href="c.html">x</a><a href="https://x.org">x</a>')
    (tmp_path / "b.html").write_text('<p id="there">')
    assert broken_links(tmp_path) == [("a.html", "b.html#gone"), ("a.html", "c.html")]


def test_comments_beside_parameters_are_read_to_their_end():
    import finish
    from selmatch.select.window import window_start
    assert finish.read_comments(window_start)["beta_of"] == 'what beta is a share of: the "class" (the paper), or "ipc" (the released code)'
    assert finish.read_comments(window_start)["return"] == "rank where the window starts"
    assert finish.plain_words("a*b of `a*b`, n_c") == r"a\*b of `a*b`, n\_c"


@pytest.mark.slow
def test_every_page_is_quiet_and_fits_a_phone(browser, whole_site):
    for file in sorted(whole_site.rglob("*.html")):
        check_quiet(browser, file)


@pytest.mark.slow
def test_the_search_finds_words_without_a_server(browser, whole_site):
    with Visit(browser, whole_site / "search.html") as visit:
        visit.page.goto((whole_site / "search.html").as_uri() + "?q=herding")
        visit.page.wait_for_selector("#search-results li", timeout=15000)
        assert visit.page.locator("#search-results li").count() > 2
        assert visit.outside() == []
