"""Whose scores, and from where beta counts."""
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import spearmanr

from selmatch.study import sets, tables
from selmatch.data.images import class_rows
from selmatch.select.window import select
from selmatch.study.profile import load_profile
from selmatch.study.study import Study
from selmatch.computer import Computer


@pytest.fixture(scope="module")
def study(tmp_path_factory): return Study(load_profile("smoke"), Computer(quiet=True), tmp_path_factory.mktemp("home"))


def test_agreement_is_spearmans_within_each_class(study):
    table, rows = tables.agreement(study), class_rows(study.splits.train)[3]
    for score in ("forgetting", "el2n"):
        mine = table[(table.score == score) & (table["class"] == "3")]
        assert mine.images.item() == len(rows)
        assert mine.spearman.item() == pytest.approx(spearmanr(study.difficulty[rows], study.observations[score][rows]).statistic)
    assert set(table.score) == {"forgetting", "el2n", "el2n, ties ordered"}


def test_the_other_score_is_another_one_and_orders_all_images(study, tmp_path):
    name, difficulty = tables.other_score(study)
    assert name == "el2n"
    assert len(difficulty.unique()) > 0.9 * len(difficulty)
    np.savez(tmp_path / "s.npz", c=1 - study.observations["forgetting"].numpy() / 100)
    file = dict(kind="file", path=str(tmp_path / "s.npz"), file_kind="c_score", key="c", ties=None)
    official = Study(replace(study.profile, score=replace(study.profile.score, **file)), study.computer, study.folder)
    assert tables.other_score(official)[0] == "forgetting"
    same = tables.agreement(official).query("score == 'forgetting'").spearman
    assert np.allclose(same, 1)                 # the official score is our own: the direction is right, too


@pytest.mark.parametrize("score, beta_of", [("given", "class"), ("other", "class"), ("given", "ipc")])
def test_readings_train_on_the_windows_they_name(study, monkeypatch, score, beta_of):
    seen = []
    monkeypatch.setattr(Study, "run_trials", lambda self, work, label: pd.DataFrame([t.tags for t in work if seen.append(t) is None]))
    table, train = tables.readings(study, 0.1), study.splits.train
    rows = table[(table.score == score) & (table.beta_of == beta_of) & (table.beta == 0.7)]
    assert len(rows) == study.profile.window.n
    assert rows.set_seed.tolist() == [0, 1]
    for i, number in zip(rows.index, rows.set_seed):
        run = study.at(number)
        difficulty = run.difficulty if score == "given" else tables.other_score(run)[1]
        expected = train.images[select("window", train, study.ipc(0.1), difficulty=difficulty, beta=0.7, beta_of=beta_of)]
        assert torch.equal(seen[i].data.images, expected)
    smallest = min(len(r) for r in class_rows(train))
    assert rows.start.iloc[0] == (int(0.7 * study.ipc(0.1)) if beta_of == "ipc" else round(0.7 * smallest)) / smallest


def test_losses_before_distilling_are_keyed_by_their_code(tmp_path, monkeypatch):
    """They are computed by a function of the tables, a room that is in no key."""
    asked = []
    def task(study, name, ratio, seed): return found
    study = Study(load_profile("smoke"), Computer(quiet=True), tmp_path)
    found = sets.set_task(study, "selmatch", 0.1, 0)
    monkeypatch.setattr(tables, "set_task", task)

    def measured(function):
        monkeypatch.setattr(tables, "losses_before", function)
        asked.clear()
        return tables.starts(study, 0.1, factors=(1.0,), draws=1).loss.tolist()

    def first(item):
        t, rates = item[3:5]
        asked.append(t)
        return [{"start": t, "rate": rates[0], "draw": 0, "loss": 1.0}]

    def edited(item):
        t, rates = item[3:5]
        asked.append(t)
        return [{"start": t, "rate": rates[0], "draw": 0, "loss": 2.0}]

    n = found.objective.max_start
    assert measured(first) == [1.0] * n
    assert len(asked) == n
    assert measured(first) == [1.0] * n
    assert not asked, "nothing was edited, and it was measured again"
    assert measured(edited) == [2.0] * n, "an edit serves stale rows"
    assert len(asked) == n
