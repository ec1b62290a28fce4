"""Sets that are finished after distilling (CCFS, teachers), and networks with a teacher online."""
from dataclasses import replace

import pandas as pd
import pytest
import torch

from selmatch.computer import Computer
from selmatch.core import InputError
from selmatch.methods import find_method
from selmatch.study import beside, estimate, sets, tables, tune
from selmatch.study.profile import load_profile
from selmatch.study.study import Study


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    profile = load_profile("smoke", seeds=1, ratios=(0.3,), alpha={0.3: 0.2})
    return Study(profile, Computer(quiet=True, workers=1), tmp_path_factory.mktemp("completed"))


@pytest.fixture(scope="module")
def ccfs(study):
    return sets.small_sets(study, ["ccfs"], [0.3])["ccfs", 0.3, 0]


def test_the_base_is_distilled_and_real_images_join(study, ccfs):
    whole = sets.last_sets(study, {"one": ccfs})["one"]
    train, ipc = study.splits.train, study.ipc(0.3)
    assert torch.bincount(whole.data.labels).eq(ipc).all()
    real = whole.data.images[~whole.distilled]
    known = train.images.flatten(1)
    assert all((known == image.flatten()).all(1).any() for image in real)
    assert len(torch.unique(real.flatten(1), dim=0)) == len(real), "an image joined twice"
    assert torch.equal(whole.data.images[whole.distilled], ccfs.last().data.images)
    share = study.profile.curriculum.base_share(0.3)
    assert int(whole.distilled.sum()) == 10 * max(1, round(share * ipc))


def test_only_the_last_stop_is_completed(study, ccfs):
    assert len(ccfs.kept()) == 3
    plans = [sets.completion_plan(study, [(ccfs, small)]) for small in ccfs.kept()]
    sets.last_sets(study, {"one": ccfs})
    assert [study.left(plan) for plan in plans] == [1, 1, 0]
    assert ccfs.last().card == ccfs.kept()[-1].card


def test_its_networks_ask_their_teacher(study, ccfs):
    small = sets.last_sets(study, {"one": ccfs})["one"]
    work = tables.set_trials(study, {("ccfs", 0.3, 0): small})
    assert all(trial.loss == study.at(0).taught for trial in work)
    hard = tables.set_trials(study, {("random", 0.3, 0): small})
    assert all(trial.loss is None for trial in hard)
    asked = study.trials_plan(work, "x").keys
    other = replace(study.at(0).taught, temperature=3.0)
    again = study.trials_plan([replace(trial, loss=other) for trial in work], "x").keys
    assert not set(asked) & set(again), "another teacher, another result"
    plain = study.trials_plan([replace(trial, loss=None) for trial in work], "x").keys
    assert not set(asked) & set(plain)


def test_a_row_with_a_teacher_is_never_in_a_group_with_hard_labels():
    kinds = {name: find_method(name).kind for name in ("random", "random-teacher", "random-online")}
    assert len(set(kinds.values())) == 3


def test_a_base_needs_an_objective_and_an_open_share():
    with pytest.raises(InputError, match="completed='curriculum'"):
        replace(find_method("ccfs"), alpha=1.0)
    with pytest.raises(InputError, match="completed 'currriculum'|completed='currriculum'"):
        replace(find_method("ccfs"), completed="currriculum")


def test_every_method_is_tuned_by_the_same_looks(study):
    record = tune.tune(study, ["mtt", "ccfs"])
    looks = record.groupby("method").size()
    assert looks.nunique() == 1
    assert record[record.factor > 0].groupby(["method", "factor"]).size().eq(2).all()
    assert not record[record.factor == 0].picked.any()
    picks = tune.list_picks(study, record)
    read = load_profile("smoke", seeds=1, ratios=(0.3,), alpha={0.3: 0.2}, tuned=picks)
    assert read.tuned == picks


def test_the_helpers_stand_in_the_estimate(study):
    costs = estimate.costs(study, ["herding", "dual", "optimised-random", "ccfs"], windows=False)
    tasks = costs.set_index("stage").tasks
    assert tasks["train proxies"] == tasks["record dynamics"] == 1
    assert tasks["choose a start: optimised_real"] == tasks["complete sets"] == 1
    tables.accuracies(study, ["herding", "dual", "optimised-random", "ccfs"])
    left = estimate.costs(study, ["herding", "dual", "optimised-random", "ccfs"], windows=False)
    assert left[left.left > 0].stage.tolist() in ([], ["train on all data"])


def test_the_proxy_says_on_the_card_what_it_knows(study):
    card = sets.start_set(study, "gradmatch", 0.3, 0).card
    evidence = study.evidence()
    right = evidence.probabilities.argmax(1) == evidence.labels
    assert card["proxy_accuracy"] == pytest.approx(float(right.double().mean()))
    assert "proxy_accuracy" not in sets.start_set(study, "random", 0.3, 0).card


def test_gains_are_over_random_images_judged_alike(study):
    ways = beside.judge_ways(study, ["random-teacher", "random-online", "mtt"], 0.3)
    means = ways.groupby(["method", "way"]).test_accuracy.mean().unstack("way")
    for name in ("Random", "Random, teacher", "Random, online teacher"):
        assert means.own[name] == means.random[name]
    assert len(set(means.random)) == 3, "each label regime has a rival of its own"
    scores = beside.score_ways(ways, full=0.9)
    assert scores.gain["Random"] == 0
    assert scores.gain_plain["Random"] == 0


def test_a_score_that_is_no_share_is_refused():
    for bad in (1.2, -1.01):
        with pytest.raises(InputError, match="difference"):
            beside.squeeze(bad)


def test_the_regret_is_measured_where_nothing_was_chosen(study):
    from selmatch.study import search
    two = Study(replace(study.profile, seeds=3), study.computer, study.folder)
    choices = [(0.0, 0.0), (0.5, 0.0)]
    looks = search.judge_choices(two, 0.3, choices, "selmatch")
    assert sorted(looks.set_seed.unique()) == [1, 2]
    assert isinstance(looks, pd.DataFrame)
    assert set(zip(looks.alpha, looks.beta)) == set(choices)


def test_a_distilled_set_says_whether_distilling_helped(study, tmp_path, capsys):
    import json
    from selmatch.app import write_set
    write_set("dm", study, 0.3, tmp_path / "dm")
    said = capsys.readouterr().out
    card = json.loads((tmp_path / "dm" / "card.json").read_text(encoding="utf-8"))
    gain = card["gain_over_start"]
    assert gain["images"] == len(study.splits.validation)
    assert gain["gain"] == pytest.approx(gain["after"] - gain["before"])
    assert ("did not help" in said) == (gain["gain"] <= 0)
    write_set("random", study, 0.3, tmp_path / "random")
    assert "gain_over_start" not in json.loads((tmp_path / "random" / "card.json").read_text(encoding="utf-8"))
