"""When is a difference one: two means, a baseline, a main effect."""
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from conftest import ROOT
from selmatch.core import InputError
from selmatch.show.published import (
    compare_means, describe_gap, estimate_main_effect, standard_errors, subtract_baseline)


@pytest.fixture
def stats():
    draw = np.random.default_rng(0)
    table = pd.DataFrame([
        {"start": s, "update": u, "ratio": r, "set_seed": k, "test_accuracy": draw.random()}
        for s in ("random", "window") for u in ("none", "part", "all") for r in (.05, .1)
        for k in (0, 0, 1, 1, 2, 2)])
    return standard_errors(table, ["start", "update", "ratio"])


def test_a_gap_changes_its_sign_and_keeps_its_noise(stats):
    a, b = ("window", "all", .1), ("random", "none", .05)
    (gap, noise), (back, same) = compare_means(stats, a, b), compare_means(stats, b, a)
    assert gap == -back and noise == same
    assert noise == pytest.approx(2 * (stats.error[a] ** 2 + stats.error[b] ** 2) ** 0.5)
    assert compare_means(stats, a, a)[0] == 0


@pytest.mark.parametrize("gap, word", [(1.01, "wins"), (1, "tie"), (-1, "tie"), (-1.01, "loses"),
                                       (float("nan"), "tie")])
def test_only_beyond_the_noise_there_is_a_winner(gap, word):
    assert describe_gap(gap, 1).split()[-1] == word


def test_a_baseline_is_subtracted_as_two_means_are_compared(stats):
    table = stats.xs(.1, level="ratio")
    gain, noise = subtract_baseline(table, "random")
    for update in ("none", "part", "all"):
        expected = compare_means(table, ("window", update), ("random", update))
        assert (gain.loc["window", update], noise.loc["window", update]) == pytest.approx(expected)


def test_a_main_effect_is_the_mean_of_its_pairs(stats):
    effect = estimate_main_effect(stats, "start", "window", "random")
    for ratio, row in effect.iterrows():
        pairs = [compare_means(stats, ("window", u, ratio), ("random", u, ratio))
                 for u in ("none", "part", "all")]
        assert row.pairs == 3 and row["gap"] == pytest.approx(np.mean([gap for gap, _ in pairs]))
        assert row.error == pytest.approx(sum((noise / 2) ** 2 for _, noise in pairs) ** 0.5 / 3)


def test_unknown_names_are_refused_with_what_there_is(stats):
    with pytest.raises(InputError, match="weather.*start, update, ratio"):
        estimate_main_effect(stats, "weather", "rain", "sun")
    with pytest.raises(InputError, match="easy.*random, window"):
        estimate_main_effect(stats, "start", "easy", "random")
    with pytest.raises(InputError, match="Luck"):
        subtract_baseline(stats.xs(.1, level="ratio"), "Luck")
    with pytest.raises(InputError, match="row"):
        compare_means(stats, ("window", "all", .1), ("window", "all", .3))


def test_published_numbers_need_no_torch():
    code = "import sys, selmatch.show.published; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
