"""Figures as they are looked at: on a page and on a phone, by eyes that see fewer colours, with outliers and duplicates.

Every figure is drawn from the rows that the digits' folder has, or from made-up ones where it has none; nothing is computed."""
import json
import re
import sys
from dataclasses import replace
from functools import cache
from types import SimpleNamespace

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch

from conftest import FIGURES, ROOT

matplotlib.use("agg")
from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.text import Text  # noqa: E402

from selmatch.data.loaders import load_digits  # noqa: E402
from selmatch.methods import methods, variants  # noqa: E402
from selmatch.show import plots  # noqa: E402
from selmatch.show.figures import figures, publish, write_gallery  # noqa: E402
from selmatch.study.profile import load_profile  # noqa: E402

sys.path.insert(0, str(ROOT / "scripts"))
import simulate_sight  # noqa: E402

DIGITS = ROOT / "figures" / "digits"
NOTE = "handwritten digits (scikit-learn; 1,797 real images of 8×8), a laptop in minutes; 5 sets × 2 networks; all data: 99.2 %"
SIZES = {.05: .91, .1: .95, .2: .975, .3: .982}


@pytest.fixture(autouse=True)
def closed_figures():
    """No figure outlives its test."""
    yield
    plt.close("all")


def rows(name):
    return pd.read_csv(DIGITS / f"{name}.csv")


def made_up_accuracies(titles, kinds=None):
    rng = np.random.default_rng(0)
    gains = {title: rng.normal(0, .01) - .3 * (i % 9 == 5) for i, title in enumerate(titles)}
    return pd.DataFrame([
        {"method": title, "kind": (kinds or {}).get(title), "ratio": ratio, "set_seed": s, "images": f"{i - (i == 3)}{ratio}{s}",
         "test_accuracy": min(1, level + gains[title] * (i > 0) + rng.normal(0, .006))}
        for i, title in enumerate(titles) for ratio, level in SIZES.items() for s in range(5)])


def everything():
    found = list(methods.values())[::2]
    return made_up_accuracies([m.title for m in found], {m.title: m.kind for m in found})


def beside():
    rng = np.random.default_rng(1)
    table = pd.DataFrame({"kind": {m.title: m.kind for m in list(methods.values())[::2]}})
    table["gain"] = rng.normal(0, 2, len(table)) - 25 * (np.arange(len(table)) % 11 == 4)
    return table.assign(gain_plain=table.gain - 1.5, networks=rng.integers(0, 40, len(table)),
                        seconds=np.where(table.kind == "selection", 0, 10 ** rng.uniform(0, 3, len(table))))


def transfer():
    networks = ["its own", "ConvNet, depth 1", "ConvNet, instance norm", "ResNet-18", "VGG-11", "AlexNet", "ViT"]
    table = pd.DataFrame([{"network": n, "method": m, "test_accuracy": .8 + .02 * i + .01 * j}
                          for i, m in enumerate(("Random", "Best window", "MTT", "SelMatch, DSA", "Full data")) for j, n in enumerate(networks)])
    gain = pd.DataFrame({n: {"Best window": .3 * j, "MTT": -22.0 if j == 3 else .5, "SelMatch, DSA": -.2 * j} for j, n in enumerate(networks)})
    return table, gain, gain.abs() > 1


def painted():
    """Sets of the size that figure 5 speaks of, and what its rows say."""
    table, digits = rows("fig5_images").groupby(["method", "class"]).head(3), load_digits().train
    table = table.assign(**{"class": table["class"].astype(int)})
    ipc = 1 + int(table.place.max())
    of = digits.subset(torch.cat([torch.nonzero(digits.labels == c).flatten()[:ipc] for c in range(10)]))
    noise = torch.randn(of.images.shape, generator=torch.Generator().manual_seed(0))
    moved = replace(of, images=of.images + .3 * noise)
    return table, {method: (of, moved) for method in table.method.unique()}


def cost():
    found = json.loads((ROOT / "figures" / "bench" / "cpu.json").read_text(encoding="utf-8"))["rows"]
    return pd.DataFrame([row for row in found if row["part"] in ("matching", "memory")]).astype({"n_steps": int, "batch": int})


def read_scores():
    table = rows("fig7_scores").rename(columns={"of": "score"})
    return table[table.what == "agreement"].dropna(axis=1), table[table.what == "window"]


def one_class():
    table, digits = rows("fig2_method"), load_digits().train
    return table, digits.images[digits.labels == 8][:int((table.role != "outside").sum())], digits


def best_windows():
    table = rows("fig3_window")
    chosen = table.groupby(["ratio", "beta"]).validation_accuracy.mean().groupby("ratio").idxmax().map(lambda at: at[1])
    return table, chosen.to_dict(), {ratio: level for ratio, level in SIZES.items() if ratio in set(table.ratio)}


DRAWN = {
    "fig1_coverage": lambda **k: plots.coverage_panels(rows("fig1_coverage"), rows("tab1_accuracy"), .1, NOTE, **k),
    "fig2_method": lambda **k: plots.method_picture(one_class()[0], *[one_class()[1]] * 2, one_class()[2], NOTE, **k),
    "fig3_window": lambda **k: plots.window_curves(*best_windows(), NOTE, **k),
    "fig4_alpha": lambda **k: plots.alpha_panels(rows("fig4_alpha"), dict.fromkeys(SIZES, .5), NOTE, **k),
    "fig5_images": lambda **k: plots.gallery(*painted(), NOTE, **k),
    "fig6_search": lambda **k: plots.search_panels(rows("fig6_search"), NOTE, **k),
    "fig7_scores": lambda **k: plots.reading_panels(*read_scores(), {"given": "forgetting", "other": "our EL2N"}, .912, NOTE, **k),
    "fig8_starts": lambda **k: plots.start_curves(rows("fig8_starts"), .02, NOTE, **k),
    "fig9_beside": lambda **k: plots.beside_dots(beside(), NOTE, **k),
    "tab1_accuracy": lambda **k: plots.accuracy_dots(rows("tab1_accuracy"), note=NOTE, **k),
    "tab1_everything": lambda **k: plots.accuracy_league(everything(), note=NOTE, **k),
    "tab2_ablation": lambda **k: plots.ablation_dots(rows("tab2_ablation"), NOTE, **k),
    "tab3_transfer": lambda **k: plots.transfer_map(*transfer(), NOTE, **k),
    "tab4_cost": lambda **k: plots.cost_panels(cost(), .4, note=NOTE, **k),
    "tab5_tuning": lambda **k: plots.tuning_map(rows("tab5_tuning"), NOTE, **k),
    "tab6_variants": lambda **k: plots.accuracy_dots(made_up_accuracies(["Random", "Best window", "MTT", "SelMatch, DSA"]
                                                                        + [m.title for m in variants.values()]), note=NOTE, **k),
}


@cache
def draw(name, narrow=False):
    return DRAWN[name](narrow=narrow)


def words_of(figure):
    return [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip()]


def small_print_of(figure):
    """The lowest text of a figure, in one line."""
    lowest = min(figure.texts, key=lambda text: text.get_position()[1])
    return " ".join(lowest.get_text().replace("\xa0", " ").split())


def test_every_figure_is_drawn_here():
    assert set(DRAWN) == set(figures)


@pytest.mark.parametrize("narrow", [False, True], ids=["page", "phone"])
@pytest.mark.parametrize("name", DRAWN)
def test_whatever_shares_an_axes_is_told_apart_by_every_eye(name, narrow):
    """Two looks that differ in colour alone differ in it by 12 (CIE76) for protanopes, deuteranopes, tritanopes, and in grey."""
    assert simulate_sight.find_twins(draw(name, narrow)) == []


def test_twins_would_be_found():
    _, ax = plt.subplots()
    ax.plot([0, 1], [0, 1], "o-", color="#dd8452")
    ax.plot([0, 1], [1, 0], "o-", color="#55a868")         # the sweep and the compiled one, as they were
    twins = simulate_sight.find_twins(ax.figure)
    assert {sight for *_, sight, _ in twins} >= {"grey"}
    ax.lines[1].set_marker("s")
    assert simulate_sight.find_twins(ax.figure) == []
    ax.bar([0], [1], color="#457b9d"), ax.bar([1], [1], color="#d62839")
    assert {sight for *_, sight, _ in simulate_sight.find_twins(ax.figure)} == {"grey"}
    ax.patches[1].set_hatch("//")
    assert simulate_sight.find_twins(ax.figure) == []


def test_a_simulation_keeps_greys_and_takes_colours_away():
    greys = np.linspace(0, 1, 5)[:, None].repeat(3, 1)
    for sight in simulate_sight.SIGHTS:
        assert np.allclose(simulate_sight.see(greys, sight), greys, atol=1e-5), sight
        assert np.allclose(np.sum(simulate_sight.SIGHTS[sight], axis=1), 1, atol=2e-6), sight
    red, green = np.array([.8, .2, .2]), np.array([.45, .5, .15])
    for sight in ("protanopia", "deuteranopia"):
        assert simulate_sight.distance(red, green, sight) < .6 * simulate_sight.distance(red, green, "tritanopia"), sight
    assert np.ptp(simulate_sight.see(red, "grey")) < 1e-9


@pytest.mark.parametrize("name", DRAWN)
def test_a_picture_for_a_phone_is_narrow_and_can_be_read(name):
    """On 390 pixels, of which a page leaves it 358, no text is smaller than 10, and nothing sticks out that would make all of it smaller."""
    figure = draw(name, narrow=True)
    figure.canvas.draw()
    wide = figure.get_tightbbox(figure.canvas.get_renderer()).width + .2          # inches, with the rim of a saved picture
    least = min(text.get_fontsize() for text in words_of(figure))
    assert wide <= 390 / 96, f"{wide:.2f} inches"
    assert least * 358 / (72 * wide) >= 10, f"{least} points on {wide:.2f} inches"


@pytest.mark.parametrize("name", DRAWN)
def test_a_picture_for_a_page_is_no_wider_than_one_nor_is_its_small_print(name):
    figure = draw(name)
    assert figure.get_figwidth() <= plots.page + .1
    longest = max(len(line) for line in figure.texts[-1].get_text().splitlines())
    assert longest * .52 * plots.small <= 72 * figure.get_figwidth()


@pytest.mark.parametrize("name", sorted(set(DRAWN) - {"fig2_method", "fig5_images", "fig6_search", "fig9_beside", "tab3_transfer", "tab4_cost", "tab5_tuning"}))
def test_a_whisker_or_band_says_whose_uncertainty_it_shows(name):
    for narrow in (False, True):
        assert re.search(r"95 % intervals? over sets|over (sets|runs).*95 % interval|one standard deviation over draws", small_print_of(draw(name, narrow))), name


def test_no_legend_is_long():
    for name in DRAWN:
        for narrow in (False, True):
            figure = draw(name, narrow)
            legends = [*figure.legends, *[ax.get_legend() for ax in figure.axes if ax.get_legend()]]
            assert all(len(legend.get_texts()) <= 6 for legend in legends), name


# ---------------------------------------------------------------------------------- room and outliers

def test_an_outlier_is_named_and_does_not_squeeze_the_others():
    table = rows("tab1_accuracy")
    panel = draw("tab1_accuracy").axes[0]
    hardest = 100 * table[(table.method == "Hardest") & (table.ratio == .05)].groupby("set_seed").test_accuracy.mean()
    others = 100 * table[(table.method != "Hardest") & (table.ratio == .05)].groupby(["method", "set_seed"]).test_accuracy.mean()
    assert hardest.max() < panel.get_xlim()[0] < others.min() and others.max() < panel.get_xlim()[1]
    assert any(text.get_text().startswith(f"{hardest.mean():.1f} ±") for text in panel.texts)


@pytest.mark.parametrize("name", ["tab1_accuracy", "tab1_everything", "tab6_variants"])
def test_no_row_is_left_out(name):
    """Every method of every size has a mark within its panel or a number at the edge."""
    n = sum(label.get_fontweight() == "normal" for label in draw(name).axes[0].get_yticklabels())
    for ax in draw(name).axes[:4]:
        low, high = ax.get_xlim()
        marked = sum(low <= bar.lines[0].get_xdata()[0] <= high for bar in ax.containers)
        named = sum(bool(re.match(r"[+-]?\d", text.get_text())) for text in ax.texts)
        assert marked + named == n


def test_the_window_of_figure_2_has_room():
    """It lay in 6 % of the height."""
    table, top = rows("fig2_method"), draw("fig2_method").axes[0]
    top.figure.canvas.draw()
    height = table[table.role != "outside"].difficulty.mean()
    low, high = (top.transData.transform((1, y))[1] for y in top.get_ylim())
    assert .2 < (top.transData.transform((1, height))[1] - low) / (high - low) < .9


def test_a_mean_that_lies_inside_is_drawn_and_not_named_at_the_edge():
    """One method scatters widely, so the axis reaches far below the others; what lies there is seen."""
    near = {f"method {i}": pd.Series([98.9, 99.0, 99.1]) for i in range(6)}
    values = near | {"wide": pd.Series([97.6, 99.4, 99.9]), "low": pd.Series([98.2, 98.3, 98.4])}
    found = pd.Series({name: sets.mean() for name, sets in values.items()})
    assert found["low"] < plots.find_floor(found, pd.Series({name: 0.1 for name in values}))
    fig, ax = plt.subplots()
    plots.draw_methods(ax, values, plots.method_colors(list(values)), {})
    assert ax.get_xlim()[0] < found["low"]
    assert not [text for text in ax.texts if "±" in text.get_text()]
    plt.close(fig)


def test_a_slope_stays_a_slope():
    means, halves = pd.Series([93.0, 92, 91, 89, 86, 82]), pd.Series([.2] * 6)
    assert plots.find_floor(means, halves, jump=True) <= 82
    assert 60 < plots.find_floor(pd.Series([93.0, 92, 91, 90, 60]), halves, jump=True) < 90


# ------------------------------------------------------------------------------------------ duplicates

def test_rows_of_the_same_images_say_so():
    same = plots.same_images(rows("tab1_accuracy"))
    digests = rows("tab1_accuracy").drop_duplicates(["method", "ratio", "set_seed"]).groupby(["ratio", "method"]).images.agg(tuple)
    for ratio, names in same.items():
        for name, other in names.items():
            assert digests[ratio, name] == digests[ratio, other]
    assert all(names["SelMatch, DSA"] == "SelMatch" for names in same.values()) and set(same) == set(SIZES)
    for narrow in (False, True):
        figure = draw("tab1_accuracy", narrow)
        for ax, ratio in zip(figure.axes, SIZES):
            said = {text.get_text() for text in ax.texts if text.get_text().startswith("same")}
            assert said == {f"same images as {other}" for other in same[ratio].values()}
        assert "SelMatch, DSA as SelMatch (all sizes)" in small_print_of(figure)
    for name in ("tab1_everything", "tab6_variants"):
        assert "the same images as another row" in small_print_of(draw(name)) and "the same images" in small_print_of(draw(name, True))


def test_a_difference_in_one_set_is_a_difference():
    table = pd.DataFrame([{"method": m, "ratio": .1, "set_seed": s, "images": f"x{s}"} for m in "AB" for s in range(3)])
    assert plots.same_images(table) == {.1: {"B": "A"}}
    assert plots.same_images(table[:-1]) == {}                                       # one set fewer
    table.loc[5, "images"] = "other"
    assert plots.same_images(table) == {}
    table.loc[table.method == "B", "images"] = np.nan
    assert plots.same_images(table) == {}
    assert plots.same_images(table.drop(columns="images")) == {}


# ------------------------------------------------------------------------------------------- published

def a_study():
    """What `publish` asks of a study."""
    return SimpleNamespace(profile=load_profile("smoke"), computer=SimpleNamespace(device="cpu", threads=1), adopted={}, lent=set(),
                           describe_data=lambda: {"train": 3, "validation": 3, "test": 3, "fingerprint": "ab", "tests": "cd"})


def test_publish_writes_both_pictures_and_a_phone_is_shown_its_own(tmp_path):
    table, opened = pd.DataFrame({"x": [1, 2]}), len(plt.get_fignums())
    def make(narrow=False):
        figure, axes = plots.lay_out(1, 2, 1, narrow)
        axes[0, 0].plot([1, 2])
        return plots.small_print(figure, NOTE)
    publish("fig8_starts", make(), table, a_study(), "A <caption>.", tmp_path, narrow=make(True))
    assert {p.name for p in tmp_path.iterdir()} == {f"fig8_starts.{kind}" for kind in ("png", "svg", "csv", "json", "narrow.svg")}
    assert len(plt.get_fignums()) == opened + 1                                      # the narrow one is closed
    wide, narrow = (float(re.search(r'<svg[^>]* width="([\d.]+)pt"', (tmp_path / f"fig8_starts.{kind}").read_text())[1]) for kind in ("svg", "narrow.svg"))
    assert narrow < 300 < wide
    page = write_gallery(tmp_path).read_text(encoding="utf-8")
    assert '<source media="(max-width: 600px)" srcset="fig8_starts.narrow.svg">' in page
    once = (tmp_path / "fig8_starts.narrow.svg").read_bytes()
    publish("fig8_starts", make(), table, a_study(), "A caption.", tmp_path, narrow=make(True))
    assert (tmp_path / "fig8_starts.narrow.svg").read_bytes() == once
    publish("fig8_starts", make(), table, a_study(), "A caption.", tmp_path)
    assert not (tmp_path / "fig8_starts.narrow.svg").exists()                        # it would show other rows
    assert "<source" not in write_gallery(tmp_path).read_text(encoding="utf-8")
    plt.close("all")


@pytest.mark.parametrize("path", FIGURES, ids=lambda p: p.stem)
def test_a_figure_is_drawn_twice_and_told_in_plain_words(path):
    book = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = "\n".join("".join(cell["source"]) for cell in book if cell["cell_type"] == "code")
    assert re.search(rf'publish\("{path.stem}", draw\(\), .*draw\(narrow=True\)\)', code), "no picture for a phone"
    title, lead, _, words, *_ = "".join(book[0]["source"]).splitlines()
    assert words.startswith("**In plain words.** ")
    said = words.removeprefix("**In plain words.** ")
    assert 20 <= len(said.split()) <= 65
    assert not re.search(r"[αβ$`\\]|ablation|trajector|objective|Holm|interval|\d %", said), "a newcomer does not know this word"
