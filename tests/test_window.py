"""The window and what stands beside it, by hand: every number, edge and refusal, as mutation testing asks for them (scripts/mutants.py)."""
import numpy as np
import pandas as pd
import pytest
import torch

from selmatch.computer import Computer
from selmatch.data.images import ImageSet
from selmatch.select import window
from test_input import refuses

QUIET = Computer(quiet=True)


def classes(*sizes):
    """A set whose classes have these sizes, one after the other."""
    labels = torch.cat([torch.full((n,), c) for c, n in enumerate(sizes)])
    return ImageSet(torch.zeros(len(labels), 1, 2, 2), labels, tuple("abcdefgh"[:len(sizes)]), (0.0,), (1.0,))


@pytest.mark.parametrize("n_class, ipc, beta, start", [(10, 2, 0.0, 0), (10, 2, 0.3, 3), (10, 2, 0.8, 8), (10, 2, 0.84, 8), (10, 2, 0.85, 8), (10, 3, 0.75, 7), (20, 5, 0.33, 7), (1, 1, 0.0, 0), (4, 4, 0.1, 0)])
def test_where_a_window_starts(n_class, ipc, beta, start):
    assert window.window_start(n_class, ipc, beta) == start


@pytest.mark.parametrize("n_class, ipc, beta, start", [(10, 4, 0.5, 2), (10, 4, 1.0, 4), (10, 6, 1.0, 4), (10, 3, 0.5, 1), (10, 2, 0.0, 0)])
def test_where_a_window_of_the_released_code_starts(n_class, ipc, beta, start):
    assert window.window_start(n_class, ipc, beta, "ipc") == start


def test_windows_that_stick_out_are_refused():
    with refuses("beta=0.86 leaves no room", "ratio = 2/10 = 0.20", "beta <= 0.80"): window.window_start(10, 2, 0.86)
    for beta in (-0.01, 1.01, 1.5, float("nan")):
        with refuses("beta", beta): window.window_start(10, 2, beta, "ipc")
    with refuses("beta_of", "images", "class, ipc"): window.window_start(10, 2, 0.1, "images")


def test_the_size_must_fit_the_smallest_class():
    data = classes(5, 3, 4)
    for ipc in (1, 2, 3, np.int64(3)): window.check_ipc(data, ipc)
    for ipc in (0, -1, 4, 5, 2.0, True, "2", None):
        with refuses(f"ipc={ipc!r}", "from 1 to 3", "'b'"): window.check_ipc(data, ipc)


@pytest.mark.parametrize("sizes, total, counts", [
    ([2, 5, 9], 9, [2, 3, 4]), ([2, 5, 9], 8, [2, 3, 3]), ([2, 5, 9], 16, [2, 5, 9]), ([2, 5, 9], 100, [2, 5, 9]), ([2, 5, 9], 0, [1, 1, 1]), ([2, 5, 9], 3, [1, 1, 1]), ([2, 5, 9], 4, [1, 1, 2]),
    ([2, 5, 9], 5, [1, 2, 2]), ([4, 4, 4], 4, [2, 1, 1]), ([4, 4, 4], 5, [2, 2, 1]), ([1, 1], 2, [1, 1]), ([3], 2, [2]), ([2, 5, 9], 15, [2, 5, 8]), ([7, 1, 7], 12, [6, 1, 5]), ([4] * 40, 47, [2] * 7 + [1] * 33)])
def test_equal_numbers(sizes, total, counts):
    assert window.count_per_class(sizes, total) == counts


@pytest.mark.parametrize("sizes, total, counts", [
    ([10, 20, 70], 10, [1, 2, 7]), ([1, 1, 98], 10, [1, 1, 8]), ([3, 3, 4], 5, [2, 1, 2]), ([1, 1, 1, 6, 7], 7, [1, 1, 1, 2, 2]), ([10, 20, 70], 100, [10, 20, 70]), ([10, 20, 70], 500, [10, 20, 70]),
    ([10, 20, 70], 1, [1, 1, 1]), ([2, 2, 6], 9, [2, 2, 5]), ([5, 5], 3, [2, 1]), ([5, 8], 6, [2, 4]), ([1, 2, 9], 4, [1, 1, 2]), ([1, 5, 5], 6, [1, 3, 2]), ([1, 1, 1, 1, 1, 8], 6, [1] * 6), ([1, 1, 1, 6, 9], 7, [1, 1, 1, 1, 3])])
def test_equal_shares(sizes, total, counts):
    assert window.count_per_class(sizes, total, "share") == counts


def test_ties_of_many_classes_go_to_the_first():
    assert window.count_per_class([4, 5] * 20, 130) == [3, 4] * 10 + [3, 3] * 10, "of the larger ones"


def test_a_balance_is_one_of_two():
    with refuses("balance", "fair", "equal, share"): window.count_per_class([2, 3], 2, "fair")


def test_numbers_for_each_class():
    data = classes(5, 3, 4)
    assert window.counts_of(data, 2) == [2, 2, 2]
    assert window.counts_of(data, [5, 1, 4]) == window.counts_of(data, (5, 1, 4)) == [5, 1, 4]
    with refuses("ipc=4", "'b'"): window.counts_of(data, 4)
    for wrong in ([5, 3], [5, 3, 4, 1], [6, 3, 4], [5, 3, 5], [5, 0, 4], [0, 3, 4], []):
        with refuses(f"ipc={wrong}", "one whole number for each class", "[5, 3, 4]"): window.counts_of(data, wrong)


@pytest.mark.parametrize("sizes, counts, beta, beta_of, starts", [
    ([10, 4], [2, 2], 0.7, "class", [7, 2]), ([14, 6], [2, 2], 0.85, "class", [12, 4]), ([10, 4], [2, 2], 0.9, "ipc", [1, 1]), ([10, 10], [2, 2], 0.3, "class", [3, 3]), ([9, 3, 3], [1, 1, 1], 0.8, "class", [7, 2, 2]),
    ([10, 4], [3, 1], 0.5, "class", [5, 2])])
def test_windows_of_uneven_classes(sizes, counts, beta, beta_of, starts):
    assert window.place_windows(sizes, counts, beta, beta_of) == starts


def test_windows_that_do_not_fit_the_average_class_are_refused():
    for beta in (0.9, 0.86, 2.0, -1.0):
        with refuses(f"beta={beta}" if 0 < beta < 1 else "beta"): window.place_windows([10, 10], [2, 2], beta)
    with refuses("beta=0.9 leaves no room"): window.place_windows([10, 4], [2, 2], 0.9)


def test_selections_by_hand():
    data = classes(4, 3)
    difficulty = torch.tensor([0.1, 0.4, 0.3, 0.2, 0.5, 0.7, 0.6])
    assert window.window(data, 2, difficulty=difficulty).tolist() == [1, 2, 5, 6]
    assert window.window(data, 1, difficulty=difficulty, beta=0.5).tolist() == [3, 4]
    assert window.window(data, [3, 1], difficulty=difficulty, beta=0.5, beta_of="ipc").tolist() == [2, 3, 0, 5]
    assert window.window(data, [1, 2], difficulty=difficulty, beta=0.25).tolist() == [2, 6, 4]
    assert window.hardest(data, 1, difficulty=difficulty).tolist() == [1, 5]
    assert window.easiest(data, 2, difficulty=difficulty).tolist() == [3, 0, 6, 4]
    assert window.easiest(data, [4, 1], difficulty=difficulty).tolist() == [1, 2, 3, 0, 4]


def test_a_random_selection_is_drawn_from_each_class_and_is_ordered_on_demand():
    data, seed = classes(6, 5), torch.Generator().manual_seed
    rows = window.random(data, 3, generator=seed(1))
    order = torch.Generator().manual_seed(1)
    expected = [sorted(torch.randperm(n, generator=order)[:3].tolist()) for n in (6, 5)]
    assert rows.tolist() == expected[0] + [6 + i for i in expected[1]], "in the order of the data"
    difficulty = torch.arange(11.0)
    assert window.random(data, 3, generator=seed(1), difficulty=difficulty).tolist() == expected[0][::-1] + [6 + i for i in expected[1][::-1]], "the same, hardest first"
    equal = torch.zeros(11)
    assert window.random(data, 3, generator=seed(1), difficulty=equal).tolist() == rows.tolist(), "equals as they were picked"
    assert len(window.random(data, [6, 1], generator=seed(2))) == 7


def test_the_words_of_a_selection():
    def mine(data, ipc, also, *, needed, free=1): return needed, also, free
    def open_one(data, ipc, **more): return more
    assert window.read_options(mine) == ({"also": True, "needed": True, "free": False}, False)
    assert window.read_options(open_one) == ({}, True)


def test_select_refuses_words_by_name(monkeypatch):
    data = classes(4, 3)
    difficulty = torch.arange(7.0)
    monkeypatch.setitem(window.selections, "mine", lambda data, ipc, **more: more)
    assert window.select("mine", data, 1, any_word=3) == {"any_word": 3}
    assert window.select("window", data, 1, difficulty=difficulty, beta=0.25).tolist() == [2, 5]
    with refuses("selection", "windows"): window.select("windows", data, 1)
    with refuses("word of selection 'window'", "gamma"): window.select("window", data, 1, difficulty=difficulty, gamma=1)
    with refuses("'window' lacks difficulty", "difficulty, beta, beta_of"): window.select("window", data, 1)


@pytest.mark.parametrize("n, ipc, step, grid", [(10, 2, 0.25, [0.0, 0.25, 0.5, 0.75]), (10, 3, 0.1, [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]), (10, 10, 0.1, [0.0]), (10, 1, 1, [0.0]), (3, 1, 0.3, [0.0, 0.3, 0.6]), (2, 1, 0.5, [0.0, 0.5])])
def test_the_grid_of_betas(n, ipc, step, grid):
    assert window.beta_grid(n, ipc, step) == grid


def test_the_grid_by_default_and_its_limits():
    assert window.beta_grid(10, 8) == [0.0, 0.1, 0.2]
    assert len(window.beta_grid(10, 5, 0.01)) == 51
    for step in (0.009, 0, -0.1, 1.01):
        with refuses("beta step", step): window.beta_grid(10, 2, step)


def test_what_is_tried_for_every_window_of_a_scan(monkeypatch):
    data, difficulty, seen = classes(10, 5), torch.arange(15.0), []
    monkeypatch.setattr(window, "trials", lambda small, n, seed, tags, **judged: seen.append((small, n, seed, tags, judged)) or [tags] * n)
    monkeypatch.setattr(window, "evaluate", lambda work, label, computer: (work, label, computer))
    easy = torch.ones(3, dtype=torch.bool)
    work, label, computer = window.search_window(data, difficulty, {0.4: 2, 0.8: 4}, "net", "recipe", "tests", n=3, step=0.3, seed=7, easy=easy, computer=QUIET)
    assert [(t["ratio"], t["ipc"], t["beta"]) for t in work] == [(0.4, 2, 0.0)] * 3 + [(0.4, 2, 0.3)] * 3 + [(0.4, 2, 0.6)] * 3 + [(0.8, 4, 0.0)] * 3, "the grid of the smallest class"
    assert label == "slide the window" and computer is QUIET
    assert all(s[1:3] == (3, 7) and s[4] == {"network": "net", "recipe": "recipe", "tests": "tests", "easy": easy} for s in seen)
    assert [len(s[0]) for s in seen] == [4, 4, 4, 8]
    assert len(window.search_window(data, difficulty, {0.8: 4}, 0, 0, 0)[0]) == 15, "n = 5 and step = 0.1 by default: betas 0, 0.1, 0.2"
    assert seen[-1][2] == 0
    by_ipc = window.search_window(data, difficulty, {0.4: 2}, 0, 0, 0, n=1, step=0.3, beta_of="ipc")[0]
    assert [t["beta"] for t in by_ipc] == [0.0, 0.3, 0.6]
    with refuses("ipc=6", "'b'"): window.search_window(data, difficulty, {0.1: 6}, 0, 0, 0)


def test_a_scan_takes_the_rows_of_its_windows(monkeypatch):
    labels = torch.tensor([0] * 4 + [1] * 4)
    data = ImageSet(torch.arange(8.0).view(8, 1, 1, 1), labels, ("a", "b"), (0.0,), (1.0,))
    monkeypatch.setattr(window, "trials", lambda small, *given, **words: [small.images.flatten().tolist()])
    monkeypatch.setattr(window, "evaluate", lambda work, label, computer: work)
    assert window.search_window(data, torch.arange(8.0), {0.5: 2}, 0, 0, 0, step=0.5) == [[3, 2, 7, 6], [1, 0, 5, 4]]
    assert window.search_window(data, torch.arange(8.0), {0.5: 2}, 0, 0, 0, step=0.5, beta_of="ipc") == [[3, 2, 7, 6], [2, 1, 6, 5]]


def test_the_best_beta():
    rows = [(0.1, 0.0, 50, 9), (0.1, 0.0, 70, 1), (0.1, 0.5, 61, 0), (0.1, 0.5, 59, 0), (0.1, 0.2, 10, 99), (0.3, 0.0, 80, 1), (0.3, 0.1, 70, 2)]
    table = pd.DataFrame(rows, columns=["ratio", "beta", "validation_accuracy", "test_accuracy"])
    assert window.best_beta(table) == {0.1: 0.5, 0.3: 0.0}, "among equals the easier one"
    assert window.best_beta(table, "test") == {0.1: 0.2, 0.3: 0.1}
    assert all(type(beta) is float for beta in window.best_beta(table).values())
    with refuses("choose_on", "train", "validation, test"): window.best_beta(table, "train")
