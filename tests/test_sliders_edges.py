"""Sliders in a kernel that is played: one picture that is replaced, and where a drawing ends before its first or after its last value."""
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from selmatch.core import InputError
from selmatch.data.images import ImageSet
from selmatch.distill.sets import SyntheticSet
from selmatch.show import sliders
from selmatch.show.sliders import draw_loss, explore, figure_rows, path_view, say_value, say_values, share_view, tile, window_view

DATA = ImageSet(torch.randn(20, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.zeros(20).long(), ("a", "b"), (0.5,), (0.5,))


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def line(slope=1, height=0):
    fig, ax = plt.subplots(figsize=(2, 1.2))
    ax.plot([0, 1], [height, height + slope])
    return fig


class Slider:
    """What a front end moves."""
    def __init__(self, value): self.value, self.told = value, []
    def observe(self, call, what): self.told.append((call, what))
    def move(self, value):
        self.value = value
        for call, what in self.told:
            assert what == "value"
            call({"new": value})


@pytest.mark.parametrize("there", [True, False])
def test_moving_a_slider_replaces_the_one_picture(there, monkeypatch):
    import IPython.display
    shown, updated = [], []
    def display(thing, **words):
        shown.append(thing)
        return SimpleNamespace(update=lambda data, raw: updated.append(data["text/plain"])) if words else None
    own = {"slope": Slider(1), "height": Slider(0)} if there else {}
    monkeypatch.setattr(sliders, "in_notebook", lambda: True)
    monkeypatch.setattr(sliders, "load_display", lambda: None)
    monkeypatch.setattr(sliders, "make_sliders", lambda start, choices: own)
    monkeypatch.setattr(IPython.display, "display", display)
    assert explore(line, slope=[0, 1, 2], height=[0, 1]) is None
    assert shown[:-1] == list(own.values()) and shown[-1]["text/plain"] == "slope = 1, height = 0" and set(shown[-1]) == {"image/png", "text/plain"}
    if there:
        own["slope"].move(2), own["height"].move(1)
        assert updated == ["slope = 2, height = 0", "slope = 2, height = 1"]
    assert plt.get_fignums() == []


def test_values_for_people():
    assert say_values({"alpha": 0.1 + 0.2, "beta": np.float32(0.5), "kind": "dsa", "on": True}) == "α = 0.3, β = 0.5, kind = dsa, on = True"
    assert [say_value(value) for value in (0.30000000000000004, 10, np.int64(3), None)] == ["0.3", "10", "3", "None"]


def test_rows_that_are_not_here_are_named():
    with pytest.raises(InputError, match="'fig99'.*'digits'.*figures/digits/fig99.csv"): figure_rows("fig99")


def test_tiles_have_their_frames_and_fill_their_rows():
    pictures = np.full((3, 24, 24, 1), 255, np.uint8)
    canvas = tile(pictures, ["#ff0000", "#00ff00", "#0000ff"], [False, True, False], 2)
    assert canvas.shape == (2 * 32, 2 * 32, 3) and canvas[1, 1].tolist() == [1, 0, 0] and canvas[33, 1].tolist() == [0, 0, 1] and (canvas[32:, 32:] == 1).all()
    dark = tile(np.zeros((2, 24, 24, 1), np.uint8), ["#ffffff"] * 2, [False, True], 2)
    assert dark[16, 16].tolist() == [0, 0, 0] and dark[16, 48].tolist() == pytest.approx([0.8] * 3)
    assert tile(np.zeros((1, 8, 8, 1), np.uint8), ["#ffffff"], [False], 1).shape == (32, 32, 3), "small ones are enlarged"


TABLE = pd.DataFrame([{"ratio": ratio, "beta": beta, "alpha": beta, "set_seed": s, "test_accuracy": 0.5 + beta / 10 + s / 100, "hard_coverage": 0.2} for ratio in (0.1, 0.5) for beta in (0.0, 0.5, 0.9)[:3 if ratio == 0.1 else 2] for s in (0, 1)])


def test_a_window_that_would_stick_out_stands_at_its_last_place():
    figure = window_view(DATA.images, DATA, TABLE, 0.9, 0.5)
    assert figure.axes[0].get_title() == "β = 0.5 (no more fits): 10 of 20 images, hardest first" and figure.axes[1].texts[0].get_text() == "55.5 %"
    assert window_view(DATA.images, DATA, TABLE, 0.0, 0.1).axes[0].get_title() == "β = 0: 2 of 20 images, hardest first"
    for view in (lambda: window_view(DATA.images, DATA, TABLE, 0.0, 0.2), lambda: share_view(DATA.images, DATA, TABLE, 0.0, 0.2, 0.0)):
        with pytest.raises(InputError, match="ratio 0.2: choose one of 0.1, 0.5"): view()


@pytest.fixture
def run():
    distilled = torch.arange(20) % 2 == 0
    moved = lambda step: SyntheticSet(ImageSet(DATA.images + step * distilled.view(-1, 1, 1, 1), DATA.labels, DATA.classes, DATA.mean, DATA.std), distilled)
    history = pd.DataFrame({"iteration": range(1, 13), "loss": np.linspace(2, 1, 12)})
    return SimpleNamespace(kept={0: moved(0.0), 12: moved(0.5)}, last=moved(0.5), history=history)


def test_a_run_is_shown_from_before_its_first_step_to_its_last(run):
    before, after = path_view(run, 0, shown=4), path_view(run, 12, shown=4)
    assert before.axes[1].get_title() == "before the first iteration" and [t.get_text() for t in after.axes[0].get_yticklabels()] == ["start", "after 12", "change"]
    assert after.axes[1].get_title() == f"mean loss of the last ten iterations: {run.history.loss[-10:].mean():.3f}"
    still, moved = (np.asarray(figure.axes[0].images[0].get_array()) for figure in (before, after))
    third = len(still) // 3
    assert (still[:third] == still[third:2 * third]).all() and not (moved[:third] == moved[third:2 * third]).all()
    with pytest.raises(InputError, match="iteration 5: choose one of 0, 12"): path_view(run, 5)


def test_the_loss_is_marked_where_the_run_stands(run):
    _, ax = plt.subplots()
    draw_loss(ax, run.history, 1)
    assert ax.get_title() == "mean loss of the last ten iterations: 2.000" and ax.get_xlim() == (-1, 13)
