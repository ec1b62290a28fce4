"""Where formulas meet their edges: images that an epoch leaves out, rivals with the same help, networks that hide their norm, names that are taken."""
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import selmatch as sm
from conftest import refuses
from selmatch.data.images import ImageSet
from selmatch.methods import find_method
from selmatch.study.study import Study
from selmatch.computer import Computer
from selmatch.study.profile import load_profile


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return Study(load_profile("smoke"), Computer(quiet=True), tmp_path_factory.mktemp("home"))


# ---------------------------------------------------------------- who is left out of an epoch

def test_who_was_never_right_is_above_all_counts_however_often_it_was_asked():
    from selmatch.select.scores import ForgettingCounter
    counter = ForgettingCounter(3)
    for step, right in enumerate([True, False] * 4):
        rows = torch.tensor([0, 1, 2] if step < 3 else [0])                 # the others are in a rest that is left out
        counter.see(rows, torch.tensor([right, False, False][:len(rows)]))
    assert counter.counts().tolist() == [4, 8, 8]


def test_an_image_that_no_early_epoch_had_is_not_the_easiest():
    from selmatch.select.scores import Run, mean_of_visits, observe_run
    from selmatch.train.training import Recipe
    assert mean_of_visits(torch.tensor([1.0, 0.0, 3.0]), torch.tensor([1.0, 0.0, 2.0])).tolist() == [1.0, 1.25, 1.5]
    assert mean_of_visits(torch.zeros(2), torch.zeros(2)).tolist() == [0, 0]
    data = ImageSet(torch.randn(30, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(30) % 3, ("a", "b", "c"), (0.5,), (0.5,))
    seen = observe_run(Run(data, {"name": "ConvNet", "width": 4, "depth": 1}, Recipe(1, 20, 0.01), 0))     # one step of twenty images
    assert (seen["el2n"] > 0.3).all() and seen["forgetting"].max() <= 1


def test_a_probability_that_nobody_measured_is_no_zero():
    from selmatch.select.dynamics import fill_gaps, record_dynamics
    from selmatch.select.scores import Run
    from selmatch.train.training import Recipe
    nan = float("nan")
    filled = fill_gaps(torch.tensor([[nan, 0.2, nan], [0.4, nan, nan], [nan, 0.6, nan]]), 0.5)
    assert torch.equal(filled, torch.tensor([[0.4, 0.2, 0.5], [0.4, 0.2, 0.5], [0.4, 0.6, 0.5]]))
    data = ImageSet(torch.randn(30, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(30) % 3, ("a", "b", "c"), (0.5,), (0.5,))
    recorded = record_dynamics(Run(data, {"name": "ConvNet", "width": 4, "depth": 1}, Recipe(4, 20, 0.01), 0))["probabilities"]
    assert recorded.shape == (4, 30) and (recorded > 0).all()


def test_duals_draw_is_put_in_the_order_that_is_asked_for(study):
    from selmatch.select.dynamics import dual
    from selmatch.study.sets import start_set
    data, chance = study.splits.train, torch.Generator().manual_seed(0)
    seen = torch.rand(12, len(data), generator=chance)
    hard = torch.rand(len(data), generator=chance)
    one, other = (dual(data, 5, probabilities=seen, generator=torch.Generator().manual_seed(1), difficulty=d) for d in (None, hard))
    assert sorted(one.tolist()) == sorted(other.tolist()) and one.tolist() != other.tolist()
    assert all((hard[rows].diff() <= 0).all() for rows in other.split(5))
    start = start_set(study, "selmatch-dual", 0.3, 0)
    rows = {bytes(image.numpy()): i for i, image in enumerate(data.images)}
    place = torch.tensor([rows[bytes(image.numpy())] for image in start.data.images])
    difficulty = study.difficulty[place]
    for c in range(data.n_classes):                 # frozen are the hardest of each class
        mine = start.data.labels == c
        assert difficulty[mine & ~start.distilled].min() >= difficulty[mine & start.distilled].max()


# ---------------------------------------------------------------- rivals

def test_random_images_beside_combined_augmentation_get_it_too(study):
    from selmatch.study.beside import count_kinds, list_ways
    from selmatch.study.sets import start_set
    small, rival = start_set(study, "selmatch", 0.3, 0), start_set(study, "random", 0.3, 0)
    assert small.distilled.any() and not rival.distilled.any()
    ways = {way: (given, how) for way, given, how, _ in list_ways(study, small, rival, find_method("selmatch"), 0)}
    assert ways["random"][1] == "combined" and torch.equal(ways["random"][0].distilled, small.distilled)
    plain = {way: given for way, given, *_ in list_ways(study, small, rival, find_method("mtt"), 0)}
    assert not plain["random"].distilled.any()
    assert [count_kinds(find_method(name)) for name in ("random", "selmatch", "selmatch-soft", "datm")] == [0, 1, 2, 1]


# ---------------------------------------------------------------- networks

def test_dm_keeps_classes_together_wherever_a_batch_norm_hides(monkeypatch):
    from selmatch.distill import condensation
    from selmatch.train.networks import make_network
    like = ImageSet(torch.zeros(10, 3, 32, 32), torch.arange(10), tuple("abcdefghij"), (0.5,) * 3, (0.5,) * 3)
    monkeypatch.setattr(condensation, "block_numbers", 2**15)
    blocks = lambda spec: len(list(condensation.together(make_network(spec, like.shape, 10, 0), like, torch.arange(10))))
    assert blocks({"name": "ConvNet", "norm": "instance"}) == 10
    for spec in ({"name": "ConvNet"}, {"name": "ResNet18"}, {"name": "VGG11"}):        # batch norm is their default
        assert blocks(spec) == 1


@pytest.mark.parametrize("norm", ["batch", "instance", "group", "layer", "none"])
def test_vgg_takes_the_norm_that_a_question_asks_for(norm):
    from selmatch.train.networks import make_network
    net = make_network({"name": "VGG11", "norm": norm}, (3, 32, 32), 10, 0)
    kinds = {type(m) for m in net.modules() if isinstance(m, (nn.BatchNorm2d, nn.GroupNorm))}
    assert kinds == ({nn.BatchNorm2d} if norm == "batch" else set() if norm == "none" else {nn.GroupNorm})
    assert net(torch.randn(2, 3, 32, 32)).shape == (2, 10)


# ---------------------------------------------------------------- names and words

def test_a_name_of_selmatchs_is_no_name_for_a_rule_of_ones_own(registers_as_before):
    from selmatch import api
    from selmatch.distill.objectives import objectives
    from selmatch.select.window import selections
    def random(data, ipc, *, generator): return torch.arange(ipc * data.n_classes)
    class kmeans:
        def __call__(self, data, ipc): return torch.arange(ipc * data.n_classes)
    kept = dict(selections)
    refuses(lambda: api.read_rule(random), "selection 'random' is one of selmatch's")
    refuses(lambda: api.read_rule(kmeans), "selection 'kmeans' is one of selmatch's")
    class trajectory(sm.Question): pass
    refuses(lambda: api.register("objective", trajectory, objectives), "objective 'trajectory' is one of selmatch's")
    assert selections == kept
    def mine(data, ipc): return torch.arange(ipc * data.n_classes)
    assert api.read_rule(mine).start == "mine" and api.read_rule(mine).source == "yours"


def test_what_is_tuned_is_tuned_for_the_family_that_shares_its_sets():
    for name, leader in {"selmatch-dsa": "selmatch", "selmatch-teacher": "selmatch"}.items():
        refuses(lambda name=name: load_profile("smoke", tuned={name: {"lr_images": 1.0}}), f"tuned.{name}", f"tuned.{leader}")
    assert load_profile("smoke", tuned={"selmatch": {"lr_images": 1.0}}).tuned


@pytest.mark.parametrize("words", [{"matching.iterations": "many"}, {"matching.iterations": None}, {"ratios": 0.1}, {"ratios": "abc"}, {"matching": 3}])
def test_words_of_a_wrong_type_are_named(words):
    from selmatch.api import change_words
    refuses(lambda: change_words(load_profile("smoke"), words), next(iter(words)))


def test_one_run_has_one_key_however_its_length_was_said(study):
    from selmatch.api import change_words, limit_iterations
    from selmatch.study.sets import describe_task, start_set
    start, folders = start_set(study, "mtt", 0.3, 0), set()
    for profile in (change_words(study.profile, {"matching.iterations": 3}), limit_iterations(study.profile, 3),
                    change_words(study.profile, {"matching.iterations": 3, "matching.evaluate_at": [3]})):
        folders.add(describe_task(study.with_profile(profile, "loaded", "splits"), find_method("mtt"), 0.3, 0, start).folder)
    assert len(folders) == 1


def test_the_window_command_says_the_best_of_the_scan_and_not_the_profiles_own(monkeypatch, capsys):
    import pandas as pd
    from click.testing import CliRunner
    from selmatch import app
    from selmatch.study import tables
    profile = load_profile("smoke", ratios=(0.1,), alpha={0.1: 0.5}, window={**vars(load_profile("smoke").window), "beta": {0.1: 0.7}})
    found = pd.DataFrame({"ratio": 0.1, "ipc": 5, "beta": [0.0, 0.35], "validation_accuracy": [0.4, 0.6], "test_accuracy": [0.4, 0.6]})
    monkeypatch.setattr(app, "begin", lambda what, options: type("S", (), {"profile": profile})())
    monkeypatch.setattr(tables, "windows", lambda study: found)
    said = CliRunner().invoke(app.cli, ["window", "--data", "digits"]).output
    assert "beta = 0.35" in said and "the profile names 0.7" in said


def test_words_that_name_the_images_are_looked_at_before_a_place_is_allowed(tmp_path):
    from PIL import Image
    from selmatch import app
    for part in ("train", "test"):
        for c in "ab":
            (tmp_path / "images" / part / c).mkdir(parents=True)
            for i in range(3): Image.fromarray(np.full((8, 8, 3), 10 * i, np.uint8)).save(tmp_path / "images" / part / c / f"{i}.png")
    options = {"data": None, "root": None, "profile": "folder", "size": None, "seed": 0, "words": (f"data.root={tmp_path / 'images'}",)}
    refuses(lambda: app.check_out(tmp_path / "images" / "small", app.find_data_section(options)), "lies in", tmp_path / "images")


# ---------------------------------------------------------------- copies

def test_copies_among_training_images_do_not_reach_the_validation_part():
    chance = np.random.default_rng(0)
    x, y = chance.integers(0, 256, (40, 8, 8)).astype(np.uint8), np.arange(40) % 4
    twice, again = np.concatenate([x[:24]] * 2), np.concatenate([y[:24]] * 2)
    digests = lambda part: {image.numpy().tobytes() for image in part.images}
    with pytest.warns(UserWarning, match="24 images are copies of others"):
        data = sm.from_arrays(twice, again, test=(x[24:], y[24:]), validation=0.25, quiet=True)
    assert digests(data.train) & digests(data.validation)
    data = sm.from_arrays(twice, again, test=(x[24:], y[24:]), validation=0.25, drop_leaked=True, quiet=True)
    assert len(data.train) + len(data.validation) == 24 and not digests(data.train) & digests(data.validation)
