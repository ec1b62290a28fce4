"""Formulas against cases counted by hand, with numbers that are not symmetrical: a sign, a bound or a seed that is wrong shows."""
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import scipy
import torch

from selmatch.data.images import ImageSet, class_rows
from selmatch.data.loaders import load_digits
from selmatch.distill import condensation, kernels
from selmatch.distill.condensation import DistributionMatching, GradientMatching, distances
from selmatch.distill.kernels import FeatureRegression, NeuralFeatureRegression, label_margin
from selmatch.distill.objectives import SetState
from selmatch.distill.sweep import draw_steps
from selmatch.select import curriculum, dynamics, scores
from selmatch.study import search, shrink, verdicts
from selmatch.train import judge
from selmatch.train.augment import Augmentation
from selmatch.train.networks import FlatNetwork, flatten, fresh_weights, load_flat, make_network
from selmatch.train.training import Recipe, learning_rate

SPEC = {"name": "ConvNet", "width": 4, "depth": 1, "norm": "instance"}
TRAIN = load_digits(per_class=12).train
SMALL = TRAIN.subset(torch.cat([rows[:3] for rows in class_rows(TRAIN)]))


def seeded(number=0):
    return torch.Generator().manual_seed(number)


def state(data=SMALL, labels=None):
    return SetState(data.images, data.labels if labels is None else labels, torch.ones(len(data)).bool(), torch.tensor(0.02), 0)


def few(n, k=2, size=4):
    "n random images of k classes in turn."
    return ImageSet(torch.randn(n, 1, size, size, generator=seeded()), torch.arange(n) % k, tuple("abcdefghij"[:k]), (0.5,), (0.5,))


# ---------------------------------------------------------------- selection

def test_the_score_of_dual():
    p = torch.tensor([[0.2, 0.9], [0.4, 0.8], [0.9, 0.1]])
    by_hand = [[math.sqrt(0.02) * 0.7, math.sqrt(0.125) * 0.35], [math.sqrt(0.005) * 0.15, math.sqrt(0.245) * 0.55]]
    assert dynamics.dual_score(p, 2).tolist() == pytest.approx([sum(v) / 2 for v in by_hand], rel=1e-5)


@pytest.mark.parametrize("pruned", [0.0, 0.5, 0.95])
def test_the_weights_of_dual(pruned):
    mean, score = torch.tensor([0.9, 0.3, 0.6], dtype=torch.float64), torch.tensor([0.3, 0.1, 0.2], dtype=torch.float64)
    b = 15 * (1 - 0.6) * (1 - pruned**4)                # the anchor is the mean of all three
    by_hand = scipy.stats.beta.pdf(mean.numpy(), 16 - b, b) * score.numpy()
    assert dynamics.beta_weights(mean, score, pruned).tolist() == pytest.approx(by_hand.tolist(), rel=1e-5)


def test_a_cut_leaves_enough_of_every_class():
    data = few(10, k=1)
    kept = dynamics.cut_and_spread(data, 3, torch.arange(10.0), seeded(), cut=0.9)
    assert sorted(kept.tolist()) == [0, 1, 2], "ninety per cent would leave one image: the easiest three stay"


def test_there_are_no_more_strata_than_images_to_keep():
    for number in range(20):
        low, high = sorted(dynamics.cut_and_spread(few(10, k=1), 2, torch.arange(10.0), seeded(number), cut=0.0).tolist())
        assert low < 5 <= high, "one image of each half"


def test_coverage_reaches_as_far_as_the_mean_distance():
    points = torch.tensor([[0.0], [1.0], [2.0], [10.0]])          # the nearest neighbours are 1, 1, 1 and 8 away: 2.75
    assert dynamics.order_by_coverage(points, points).tolist() == [0, 3, 1, 2]


def test_every_network_that_holds_images_out_has_a_seed_of_its_own(monkeypatch):
    seen = []
    monkeypatch.setattr(scores, "run_all", lambda task, work, label, computer: seen.extend(work) or [])
    scores.c_score_difficulty(few(12), SPEC, Recipe(steps=1), folds=2, repeats=3, seed=5)
    assert [task[5] for task in seen] == [5, 6, 7, 8, 9, 10]
    monkeypatch.setattr(scores, "run_all", lambda task, work, label, computer: seen.extend(work) or [{"el2n": torch.zeros(12)}])
    seen.clear()
    scores.observe(few(12), SPEC, Recipe(steps=1), runs=3, seed=7)
    assert [run.seed for run in seen] == [7, 8, 9]


def test_el2n_is_a_length_and_looks_at_the_first_epochs(monkeypatch):
    assert scores.error_length(torch.zeros(1, 2), torch.tensor([0])).item() == pytest.approx(math.sqrt(0.5))
    assert scores.error_length(torch.log(torch.tensor([[0.7, 0.2, 0.1]])), torch.tensor([0])).item() == pytest.approx(math.sqrt(0.14))
    data, looks = few(8), []
    monkeypatch.setattr(scores, "error_length", lambda logits, labels: looks.append(len(labels)) or torch.ones(len(labels)))
    run = scores.Run(data, SPEC, Recipe(steps=5, batch=8, lr=0.01), 0, el2n_epochs=2, watch=data.subset(torch.arange(3)))
    seen = scores.observe_run(run)
    assert looks == [8, 3, 8, 3], "of five epochs the first two"
    assert seen["el2n"].tolist() == [1] * 8 and seen["watched_el2n"].tolist() == [1] * 3


def test_the_easy_half_is_the_smaller_one():
    assert scores.easy_half(torch.tensor([3.0, 1.0, 2.0, 5.0, 4.0])).tolist() == [False, True, True, False, False]


def test_a_window_is_chosen_among_its_neighbours(monkeypatch):
    found = pd.DataFrame({"beta": [0.0, 0.1, 0.2, 0.3, 0.4, 0.5], "validation_accuracy": [0.2, 0.92, 0.2, 0.88, 0.9, 0.89]})
    study = SimpleNamespace(profile=SimpleNamespace(window=SimpleNamespace(beta=None)), splits=SimpleNamespace(validation=[1]), run_trials=lambda work, label: found)
    monkeypatch.setattr(shrink, "window_trials", lambda study, sizes: [])
    beta, means = shrink.best_window(study, SimpleNamespace(ratio=0.1))
    assert means.idxmax() == 0.1 and beta == 0.5, "a lonely peak is luck; the best mean of three, at the edge of two"


def test_filters_see_their_images_in_an_order_of_their_own(monkeypatch):
    seeds = []
    monkeypatch.setattr(curriculum, "train", lambda net, data, recipe, order, loss: seeds.append(order.initial_seed()))
    filters = curriculum.Filters(lambda data: None, SPEC, Recipe(steps=1), seed=11)
    for i in range(3): filters.ask(few(4), few(6), i)
    assert seeds == [11, 12, 13]


# ---------------------------------------------------------------- what distilled images are asked for

def test_dm_meets_a_fresh_network_at_every_call():
    question = DistributionMatching(SPEC, TRAIN, batch_real=len(TRAIN), augmentation=Augmentation("none"))       # all real images, so that only the network is drawn
    running, net = question.start(SMALL), make_network(SPEC, SMALL.shape, SMALL.n_classes, 0)
    for number in (1, 2):
        load_flat(net, fresh_weights(SPEC, SMALL, seeded(number)))
        means = [condensation.class_means(net.embed(part.images), part.labels, part.n_classes) for part in (SMALL, TRAIN)]
        assert float(running(state(), seeded(number)).loss) == pytest.approx(float((means[0] - means[1]).square().sum()), rel=1e-4)


@pytest.mark.parametrize("n, size, steps", [(5, 2, 3), (4, 2, 2), (3, 8, 1)])
def test_the_inner_loop_of_dc_sees_every_image_augmented(monkeypatch, n, size, steps):
    told, policy = [], Augmentation("dsa")
    monkeypatch.setattr(condensation, "draw_steps", lambda *words: told.append(words) or draw_steps(*words))
    data = few(n)
    flat = FlatNetwork(make_network(SPEC, data.shape, 2, 0))
    spec = GradientMatching(SPEC, data, inner=2, batch_inner=size, augmentation=policy)
    condensation.grow(flat, flatten(make_network(SPEC, data.shape, 2, 0)), state(data), spec, seeded())
    assert [(words[0], words[2], words[3]) for words in told] == [(steps, size, policy)] * 2


def test_distances_of_gradients():
    a, b = ({"w": torch.tensor([[3.0, 4.0], [1.0, 0.0]]), "b": torch.tensor([2.0, 0.0])}, {"w": torch.tensor([[4.0, 3.0], [0.0, 5.0]]), "b": torch.tensor([0.0, 1.0])})
    assert float(distances["mse"](a, b)) == pytest.approx(1 + 1 + 1 + 25 + 4 + 1)
    dot, lengths = 12 + 12 + 0 + 0 + 0, math.sqrt(9 + 16 + 1 + 4) * math.sqrt(16 + 9 + 25 + 1)
    assert float(distances["cos"](a, b)) == pytest.approx(1 - dot / lengths, rel=1e-4)
    rows = float(distances["rows"]({"w": a["w"]}, {"w": b["w"]}))
    assert rows == pytest.approx((1 - 24 / 25) + 1, rel=1e-4), "row by row: one at a small angle, one at a right one"


def test_frepo_scales_its_targets_and_rewards_a_lead():
    data = few(8, k=2)
    spec = NeuralFeatureRegression(data, SPEC, batch_real=8, margin=True)
    running, soft = FeatureRegression(spec, data), torch.tensor([[0.9, 0.1], [0.3, 0.7]]).repeat(4, 1).float()
    assert running.targets(data.labels)[0].tolist() == pytest.approx([0.5 * math.sqrt(5), -0.5 * math.sqrt(5)])
    theta, rows = flatten(make_network(SPEC, data.shape, 2, 0)), torch.arange(8)
    plain = FeatureRegression(replace(spec, margin=False), data)
    lead = running.loss(theta, data.images, soft, rows) - plain.loss(theta, data.images, soft, rows)
    assert float(lead) == pytest.approx(float(label_margin(running.targets(soft))), rel=1e-4) and lead < 0


# ---------------------------------------------------------------- races, judges, rates

def test_a_race_judges_what_its_budget_has_made(monkeypatch):
    kept = [SimpleNamespace(data=few(4), distilled=None, card={"iteration": i}) for i in (0, 5, 10, 20)]
    monkeypatch.setattr(search, "make_sets", lambda study, tasks, until: None)
    monkeypatch.setattr(search, "kept_sets", lambda study, task: kept)
    seen = []
    monkeypatch.setattr(search, "trials", lambda data, n, seed, **words: seen.append(data) or [])
    study = SimpleNamespace(judge_network=SPEC, recipe=lambda how: Recipe(steps=1), tests={}, easy=None, run_trials=lambda work, label: None)
    task = SimpleNamespace(method=SimpleNamespace(augmentation="dsa", labels="hard"))
    for budget, place in ((5, 1), (12, 2), (20, 3)):
        search.judge_candidates(study, {(0.5, 0.1): task}, budget, 1, 0)
        assert seen[-1] is kept[place].data


def test_an_even_chance_is_no_verdict():
    assert verdicts.call_verdict(1.0, 0.05) == "undecided" and verdicts.call_verdict(1.0, 0.0499) == "wins" and verdicts.call_verdict(-1.0, 0.0499) == "loses"
    assert verdicts.correct_by_holm([0.01, 0.04, 0.03]).tolist() == pytest.approx([0.03, 0.06, 0.06]), "no smaller than the one before it"


def test_a_main_effect_rests_on_cells_with_every_seed():
    rows = [{"ratio": 0.1, "start": start, "other": other, "set_seed": seed, "test_accuracy": 0.5 + gain * (start == "window") + (seed if other == "b" else 0) * 0.1}
            for start in ("window", "random") for other, gain in (("a", 0.02), ("b", 0.3)) for seed in (0, 1) if (other, seed) != ("b", 1)]
    effect = verdicts.main_effect(pd.DataFrame(rows), "start", "window", "random", ["other"])
    assert effect.loc[0.1, "gap"] == pytest.approx(2) and effect.loc[0.1, "pairs"] == 1, "cell b has one seed only, and is no part of it"


def test_the_first_of_equal_means_is_best():
    assert judge.find_best(pd.Series([0.5, 0.7, 0.7], index=["a", "b", "c"])) == "b"


def test_accuracies_of_halves_are_those_of_their_halves(monkeypatch):
    data = few(4)
    answers = torch.nn.functional.one_hot(torch.tensor([0, 1, 0, 0]), 2).float()           # the last is wrong
    monkeypatch.setattr(judge, "predict", lambda net, test: answers)
    trial = SimpleNamespace(tests={"test": data}, easy=torch.tensor([True, True, False, False]), device="cpu")
    assert judge.score_tests(None, trial) == {"test_accuracy": 0.75, "easy_accuracy": 1.0, "hard_accuracy": 0.5}


@pytest.mark.parametrize("step", [0, 1, 49, 50, 95, 97, 99])
def test_rates_to_the_last_step(step):
    rate = lambda schedule: learning_rate(Recipe(steps=100, lr=2.0, schedule=schedule), step)
    assert rate("cosine") == pytest.approx(1 + math.cos(math.pi * step / 100)) and rate("cosine") > 0
    assert rate("step") == pytest.approx(2.0 if step < 50 else 0.2) and rate("constant") == 2.0


# ---------------------------------------------------------------- augmentation

def test_brightness_then_saturation_then_contrast():
    from selmatch.train.augment import color
    x, u = torch.rand(2, 3, 2, 2, generator=seeded()), torch.tensor([[0.9, 0.3, 0.8, 0.1], [0.2, 0.7, 0.1, 0.6]])
    for image, (b, s, c, _), made in zip(x, u.tolist(), color(x, u)):
        bright = image + (b - 0.5)
        grey = bright.mean(0, keepdim=True)
        saturated = (bright - grey) * 2 * s + grey
        by_hand = (saturated - saturated.mean()) * (c + 0.5) + saturated.mean()
        assert torch.allclose(made, by_hand, atol=1e-6)


def test_a_square_lies_where_its_numbers_say():
    from selmatch.train.augment import cutout
    mask = cutout(torch.ones(1, 1, 8, 8), torch.tensor([[0.5, 0.25, 0.9, 0.9]]))[0, 0] == 0
    assert torch.nonzero(mask.any(1)).flatten().tolist() == [2, 3, 4, 5], "down by the first number"
    assert torch.nonzero(mask.any(0)).flatten().tolist() == [0, 1, 2, 3] and mask.sum() == 16, "to the right by the second"
    corner = cutout(torch.ones(1, 1, 8, 8), torch.tensor([[0.0, 0.999, 0.5, 0.5]]))[0, 0] == 0
    assert torch.nonzero(corner.any(1)).flatten().tolist() == [0, 1] and torch.nonzero(corner.any(0)).flatten().tolist() == [6, 7], "cut off at the border"


def test_real_and_small_images_of_a_class_are_moved_alike():
    moved, still = 0, 0
    for number in range(6):
        running = DistributionMatching(SPEC, TRAIN, batch_real=5, augmentation=Augmentation("dsa", ("flip",))).start(SMALL)
        drawn, rows = running.draw(seeded(number))
        x, small_x, kinds, real_x, real_kinds = condensation.pair_up(running.train, SMALL.images, SMALL.labels, drawn, rows)
        for c in range(SMALL.n_classes):
            mine, real = kinds == c, real_kinds == c
            flipped = torch.equal(small_x[mine].detach(), SMALL.images[mine].flip(3))
            assert flipped or torch.equal(small_x[mine].detach(), SMALL.images[mine])
            given = running.train.images[rows][real]
            assert torch.equal(real_x[real], given.flip(3) if flipped else given)
            moved, still = moved + flipped, still + (not flipped)
    assert moved and still
