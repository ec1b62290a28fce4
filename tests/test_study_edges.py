"""Small sums and words of the study: scores of DD-Ranking by hand, picks where everything gave up, times in words, and sizes that cannot be made."""
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from conftest import refuses
from selmatch.computer import Computer
from selmatch.distill.loop import GaveUp
from selmatch.core import InputError
from selmatch.data.images import ImageSet
from selmatch.methods import find_method
from selmatch.study import beside, estimate, profile, shrink, tune
from selmatch.study.profile import load_profile
from selmatch.study.shrink import Sizes
from selmatch.study.study import Study


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    study = Study(load_profile("smoke", data={"name": "digits", "per_class": 20}), Computer(quiet=True), tmp_path_factory.mktemp("home"))
    study.splits
    return study


# ---------------------------------------------------------------- beside random images

def test_scores_of_dd_ranking_by_hand():
    assert beside.squeeze(-1) == 0 and beside.squeeze(1) == 1 and beside.squeeze(0) == pytest.approx((1 - 1 / math.e) / (math.e - 1 / math.e))
    assert beside.label_robust_score(0.2, 0.2) == beside.squeeze(0) and beside.label_robust_score(0.5, 0.3, 1.0) == beside.squeeze(0.3) and beside.label_robust_score(0.5, 0.3, 0.0) == beside.squeeze(-0.5)
    assert beside.augmentation_robust_score(0.4, 0.0) == beside.squeeze(0.2)
    refuses(lambda: beside.squeeze(1.5), "difference=1.5", "[-1, 1]")
    for score in (beside.label_robust_score, beside.augmentation_robust_score): refuses(lambda: score(0.1, 0.1, 1.5), "weight=1.5")


def test_gains_are_of_means_over_sets_and_in_the_order_of_the_rows():
    rows = [{"method": m, "set_seed": s, "ratio": 0.1, "way": way, "test_accuracy": value + 0.02 * s} for m, values in (("Z", (0.6, 0.5, 0.4, 0.4, 0.55)), ("A", (0.5, 0.5, 0.3, 0.4, 0.5)))
            for way, value in zip(("own", "random", "plain", "random, plain", "hard"), values) for s in (0, 1)]
    found = beside.score_ways(pd.DataFrame(rows), 0.9)
    assert list(found.index) == ["Z", "A"] and found.gain.tolist() == pytest.approx([10, 0]) and found.gain_plain.tolist() == pytest.approx([0, -10])
    assert found.hlr.tolist() == pytest.approx([0.34, 0.39]) and found.lrs["Z"] == pytest.approx(beside.squeeze(0.05 - 0.17))


@pytest.mark.parametrize("gain, words", [(1.26, "(+1.3 points)"), (-0.4, "did not help"), (0.0, "did not help")])
def test_what_distilling_gained_is_said_as_it_is(gain, words):
    said = beside.say_gain({"before": 50.0, "after": 50 + gain, "gain": gain, "networks": 3, "images": 40})
    assert words in said and "on 40 held-out images, 3 networks each: 50.0 % before" in said
    assert "images, 1 network each:" in beside.say_gain({"before": 50.0, "after": 50 + gain, "gain": gain, "networks": 1, "images": 40})


def test_what_was_not_distilled_or_cannot_be_judged_has_no_gain(study):
    assert beside.gain_over_start(study, SimpleNamespace(objective=None)) is None
    empty = study.splits.validation.subset(torch.arange(0))
    without = replace(study, given=replace(study.splits, validation=empty), profile=replace(study.profile, window=replace(study.profile.window, choose_on="test")))
    assert beside.gain_over_start(without, SimpleNamespace(objective=1)) is None


@pytest.mark.parametrize("name, changes, n", [("random", {}, 0), ("mtt", {}, 3), ("hardest", {}, 2), ("hardest", {"score": {"kind": "c_score", "runs": 2}}, 8), ("window", {"window": {"beta": {0.1: 0.0, 0.3: 0.1}}}, 2)])
def test_networks_behind_a_set_are_counted(name, changes, n, study):
    p = load_profile("smoke", **changes) if changes else study.profile
    assert p.score.runs == 2
    there = study.with_profile(p, "loaded", "splits")
    counted = beside.count_networks(there, find_method(name), 0.1)
    assert counted == (p.experts.n if name == "mtt" else n)


# ---------------------------------------------------------------- tuning

def looks(**scores):
    rows = [{"method": "dm", "ratio": 0.1, "factor": factor, "share": 1.0, "score": score, "error": 0.02} for factor, score in scores.items()]
    return pd.DataFrame([row | {"factor": float(str(row["factor"])[1:].replace("_", "."))} for row in rows])


def test_a_pick_is_near_the_default_where_that_costs_nothing_anybody_could_see():
    assert tune.mark_picks(looks(f0=0.9, f0_5=0.71, f1=0.70, f2=0.5)).picked.tolist() == [False, False, True, False], "the start is no trial"
    assert tune.mark_picks(looks(f0_5=0.75, f1=0.70)).picked.tolist() == [True, False]
    assert not tune.mark_picks(looks(f0_5=float("nan"), f1=float("nan"))).picked.any(), "all gave up: nothing is picked"
    assert tune.mark_picks(looks(f0_5=0.2, f1=float("nan"))).picked.tolist() == [True, False]
    assert tune.standard_error(pd.Series([0.5, 1.0]), 25).tolist() == [0.1, 0.0]


def test_picks_become_words_by_size_or_one_number(study):
    record = pd.DataFrame([{"method": "dm", "factor": 2.0, "share": 1.0, "picked": True}, {"method": "mtt", "factor": 1.0, "share": 0.5, "picked": True}, {"method": "dsa", "factor": 1.0, "share": 1.0, "picked": False}])
    picks = tune.list_picks(study, record)
    step, total = tune.default_pace(study, find_method("dm"), 0.1)
    assert picks["dm"] == {"lr_images": 2 * step} and picks["mtt"]["iterations"] == study.profile.matching.iterations // 2 and "dsa" not in picks
    assert load_profile("smoke", tuned=picks).tuned == picks


def test_a_tuned_profile_replaces_nothing(tmp_path):
    tune.write_tuned(profile.profile_folder / "smoke.yaml", {"dm": {"lr_images": 3.0}}, tmp_path / "mine.yaml")
    assert load_profile(tmp_path / "mine.yaml").tuned == {"dm": {"lr_images": 3.0}} and load_profile(tmp_path / "mine.yaml").title == load_profile("smoke").title
    before = (tmp_path / "mine.yaml").read_bytes()
    refuses(lambda: tune.write_tuned(profile.profile_folder / "smoke.yaml", {}, tmp_path / "mine.yaml"), "mine.yaml exists")
    assert (tmp_path / "mine.yaml").read_bytes() == before


def test_a_trial_that_gives_up_is_left_as_it_stands(monkeypatch, tmp_path):
    def give_up(task, device, quiet): raise GaveUp("diverged")
    monkeypatch.setattr(tune, "make_set", give_up)
    assert tune.try_set(SimpleNamespace(folder=tmp_path), "cpu", True) == tmp_path
    empty = SimpleNamespace(profile=SimpleNamespace(data={"validation": 0}), splits=SimpleNamespace(validation=[]))
    refuses(lambda: tune.tune(empty), "data.validation=0", "no validation image to tune on")
    refuses(lambda: tune.list_leaders(["mtt", "window"]), "'window' distils nothing")


# ---------------------------------------------------------------- estimates in words

@pytest.mark.parametrize("seconds, said", [(0, "0.0 seconds"), (119, "119.0 seconds"), (120, "2.0 minutes"), (7199, "120.0 minutes"), (7200, "2.0 hours"), (2 * 86400, "2.0 days")])
def test_durations_in_the_unit_that_suits_them(seconds, said):
    assert estimate.duration(seconds) == said


@pytest.mark.parametrize("titles, said", [(["A"], "A"), (["A", "A", "B"], "A / B"), (["A", "B", "C"], "A / B / C"), (list("ABCDE"), "A / B / C and 2 more")])
def test_three_titles_at_most(titles, said):
    assert estimate.join_titles(titles) == said


def test_only_what_is_left_is_measured():
    measured = []
    parts = [estimate.Part("done", 3, 0, lambda: measured.append("done") or 5.0), estimate.Part("none", 0, 0, lambda: 5.0), estimate.Part("left", 4, 2, lambda: measured.append("left") or 5.0)]
    table = estimate.tabulate_parts(parts)
    assert table.stage.tolist() == ["done", "left"] and table.seconds.tolist() == [0, 10] and measured == ["left"]
    assert estimate.tabulate_parts([]).empty
    assert estimate.wall_seconds(table, SimpleNamespace(computer=Computer(workers=2))) == 5
    assert estimate.wall_seconds(table, SimpleNamespace(computer=Computer(cluster=SimpleNamespace(workers=4)))) == 5, "two tasks are not done by four workers in half the time of one"


def test_watching_a_loop_ends_when_enough_was_seen(monkeypatch):
    ticks = iter(np.arange(0.0, 100.0, 2.0))
    monkeypatch.setattr(estimate, "now", lambda device: np.array([next(ticks)]))
    data = ImageSet(torch.randn(8, 1, 8, 8), torch.arange(8) % 2, ("a", "b"), (0.5,), (0.5,))
    assert estimate.step_seconds(data, {"name": "ConvNet", "width": 4, "depth": 1}, estimate.Recipe(steps=1, batch=4), steps=20) == 2.0
    assert next(ticks) < 20, "after five seconds"


@pytest.mark.parametrize("what, stages", [("score", ["watch networks learn"]), ("experts", ["train experts"]), ("window", ["watch networks learn", "slide the window"])])
def test_a_command_costs_its_own_stages(what, stages, study, monkeypatch):
    monkeypatch.setattr(estimate.Prices, "training", lambda self, *given: 2.0)
    monkeypatch.setattr(estimate.Prices, "looking", lambda self, *given: 1.0)
    table = estimate.tabulate_parts(estimate.command_parts(study, what))
    assert table.stage.tolist() == stages and (table.left == table.tasks).all() and (table.seconds > 0).all()


def test_a_score_that_leaves_images_out_is_in_the_estimate(study, monkeypatch):
    monkeypatch.setattr(estimate.Prices, "training", lambda self, *given: 2.0)
    own = Study(replace(study.profile, score=replace(study.profile.score, kind="c_score")), study.computer, study.folder)
    for what in ("score", "window"):
        parts = {part.stage: part for part in estimate.command_parts(own, what)}
        assert parts["C-score"].left == 1 and parts["C-score"].each() == 4 * own.profile.score.runs * 2.0


def test_no_key_says_which_gpu_does_the_work(study):
    """`--device cuda` and `cuda:1` name one kind of device; what one has made, the other must find."""
    from selmatch.train.judge import Trial
    keys = {}
    for device in ("cuda", "cuda:1"):
        other = replace(study, computer=SimpleNamespace(kind="cuda", device=device, workers=1, threads=1, quiet=True))
        made = [other.observations_plan(), other.dynamics_plan()]
        made += [other.trials_plan([Trial(study.splits.train, {"name": "ConvNet"}, other.recipe("dsa"), 0)], "judge")]
        keys[device] = [key for plan in made for key in plan.keys]
    assert keys["cuda"] == keys["cuda:1"] and len(keys["cuda"]) > 2


# ---------------------------------------------------------------- sizes of one's own

def test_what_needs_equal_classes_or_held_out_images_says_so(study):
    uneven = Sizes(tuple("0123456789"), (20,) * 10, (10,) * 10, (4,) * 10, (6,) * 10, (3, *(2,) * 9))
    assert not uneven.is_even and uneven.ratio == 0.21
    completed = find_method("ccfs")
    refuses(lambda: shrink.start_of_counts(study, completed, uneven), "'ccfs' completes equal classes only", "selmatch distill")
    without = SimpleNamespace(profile=replace(study.profile, window=replace(study.profile.window, beta=None)), splits=SimpleNamespace(validation=[]))
    refuses(lambda: shrink.best_window(without, uneven), "no validation image", "give beta")
    assert shrink.settle_flips(without, uneven, None) == (False, "as the profile says")
    photos = SimpleNamespace(profile=load_profile("folder"), splits=without.splits)
    assert shrink.settle_flips(photos, uneven, None) == (True, "nothing was held out to ask") and shrink.settle_flips(photos, uneven, False) == (False, "as asked")
    given = SimpleNamespace(profile=SimpleNamespace(window=SimpleNamespace(beta={0.21: 0.4})))
    beta, places = shrink.best_window(given, uneven)
    assert beta == 0.4 and places.empty
    assert shrink.count_windows(uneven, 0.1) == 8
    refuses(lambda: shrink.count_small(study.splits, ratio=0.1, per_class=2), "ratio and per_class contradict each other")


def test_a_start_that_makes_images_makes_equal_numbers(study, monkeypatch):
    uneven = Sizes(tuple("0123456789"), (20,) * 10, (10,) * 10, (4,) * 10, (6,) * 10, (3, *(2,) * 9))
    few = study.splits.train.subset(torch.arange(4))
    monkeypatch.setattr(shrink, "selection_needs", lambda *given: {})
    monkeypatch.setattr(shrink, "start_function", lambda name: lambda data, n: few)
    refuses(lambda: shrink.choose_rows(study, "noise", uneven), "'noise'", "equal numbers", "per_class")
    assert shrink.choose_rows(study, "noise", replace(uneven, small=(2,) * 10)) is few


def test_a_plan_counts_rounds_of_workers():
    stages = pd.DataFrame({"stage": ["one", "many"], "tasks": [1, 5], "each": [10.0, 2.0]})
    assert shrink.wall_of(stages, 4) == 10 + 2 * 2 and shrink.wall_of(stages, 1) == 20
    assert "about 14.0 seconds in all, 4 at a time" in shrink.say_plan(stages, 14.0, 4)


# ---------------------------------------------------------------- profiles

@pytest.mark.parametrize("changes, words", [({"score": {"kind": "file"}}, ["score.path is missing"]), ({"search": {"alphas": []}}, ["search.alphas=() is empty"]), ({"tuning": {"factors": []}}, ["tuning.factors=() is empty"]),
                                            ({"tuning": {"number": 1}}, ["tuning.number=1", "2 runs"]), ({"tuning": {"ratios": [0.7]}}, ["tuning.ratios", "0.7"]), ({"tuned": {"window": {"lr_images": 1.0}}}, ["tuned.window", "distils nothing"]),
                                            ({"tuned": {"dm": {"lr_imagez": 1.0}}}, ["tuned.dm", "lr_imagez"]), ({"objectives": {"dm": {"lr_images": {0.1: 1.0}}}}, ["objectives.dm.lr_images", "0.3"]), ({"teacher": {"temperature": 0}}, ["teacher.temperature=0"]),
                                            ({"compared_at": [2.0]}, ["compared_at", "2.0"]), ({"compared": ["nobody"]}, ["nobody"]), ({"published": "mnist"}, ["published", "mnist"]), ({"balance": "fair"}, ["balance", "fair"]), ({"seed": -1}, ["seed=-1"]), ({"seeds": 0}, ["seeds=0"]),
                                            ({"transfer": {"X": {"network": {"name": "Foo"}}}}, ["Foo"]), ({"curriculum": {"alpha": {0.1: 2.0}}}, ["curriculum.alpha=2.0"]), ({"methods": ["dmm"]}, ["dmm"])], ids=str)
def test_what_no_profile_may_say(changes, words):
    refuses(lambda: load_profile("smoke", **changes), *words)


def test_words_of_a_profile_that_say_other_things(tmp_path):
    p = load_profile("smoke")
    assert p.matching.passes == 11 * p.matching.batch * p.matching.n_steps * p.matching.iterations
    assert p.matching.asked_epochs == tuple(sorted({*range(p.matching.max_start), *(t + p.matching.expert_epochs for t in range(p.matching.max_start))}))
    assert p.published_as == "digits" and replace(p, published="cifar10").published_as == "cifar10"
    plain = replace(p, data=p.data | {"flip": False}).allowed
    assert "flip" not in plain.strong and plain.simple != "simple"
    assert p.curriculum.base_share(0.06) == p.curriculum.alpha[0.05]
    assert load_profile("smoke", window={"beta": {0.1: 0.9}}).window.beta == {0.1: 0.9}, "the last place that fits"
    assert yaml.safe_load((profile.profile_folder / "smoke.yaml").read_text())["title"] == profile.list_profiles()["smoke"]
