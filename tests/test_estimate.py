"""The estimate counts what is done: before a figure is computed, task by task, and after it nothing is left."""
from collections import Counter

import pytest

from selmatch.computer import Computer
from selmatch.show.figures import figures, open_rooms
from selmatch.study.profile import load_profile
from selmatch.study.study import Study

QUIET = Computer(quiet=True)
SMALL = {"seeds": 2, "ratios": (0.1,), "alpha": {0.1: 0.5}, "methods": ("random", "window", "selmatch-dsa"), "transfer": {}, "evaluation": {"n": 1, "steps": 5}, "score": {"epochs": 1}, "window": {"n": 1}}


def count(study, name):
    "The table of the estimate of one figure."
    rooms, figure = open_rooms(), figures[name]
    prices = rooms.estimate.Prices(study)
    parts = figure.parts(rooms, prices)
    return rooms.estimate.costs(study, figure.wants(rooms, study), figure.windows, parts, figure.full, prices)


def compare(name, folder, monkeypatch, **words):
    "Counted before, done, and left after; a study for each, as a new process has."
    begin = lambda: Study(load_profile("smoke", **words), QUIET, folder)
    before, done, run, study = count(begin(), name), Counter(), Study.run, begin()
    def watch(self, plan, *more, **others):
        done[plan.label] += self.left(plan)
        return run(self, plan, *more, **others)
    monkeypatch.setattr(Study, "run", watch)
    figures[name].compute(study)
    monkeypatch.setattr(Study, "run", run)
    return before, +done, count(begin(), name)


@pytest.mark.parametrize("name", ["fig7_scores", "fig2_method"])
def test_what_is_counted_is_what_is_done(name, tmp_path, monkeypatch):
    before, done, after = compare(name, tmp_path / "home", monkeypatch, **SMALL)
    assert before.left.sum() == sum(done.values()), (before.to_string(), done)
    assert after.left.sum() == 0, after[after.left > 0].to_string()


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in figures if n not in ("fig6_search", "tab4_cost")])
def test_every_figure_is_counted_as_it_is_done(name, tmp_path, monkeypatch):
    before, done, after = compare(name, tmp_path / "home", monkeypatch)
    assert before.left.sum() == sum(done.values()), (before.to_string(), done)
    assert after.left.sum() == 0, after[after.left > 0].to_string()


@pytest.mark.slow
def test_a_race_is_counted_to_its_last_survivor(tmp_path, monkeypatch):
    before, done, after = compare("fig6_search", tmp_path / "home", monkeypatch)
    judged = before[before.stage.str.startswith("judge candidates")].left.sum()
    winners = before[before.stage.str.startswith("judge winners")].left.sum()
    ran = sum(n for label, n in done.items() if label.startswith("judge candidates"))
    assert judged <= ran <= judged + winners
    assert after.left.sum() == 0


def test_each_figure_says_what_it_wants():
    study = Study(load_profile("smoke"), QUIET)
    rooms = open_rooms()
    wishes = {name: figure.wants(rooms, study) for name, figure in figures.items()}
    assert not wishes["tab4_cost"]
    assert {w.judge for w in wishes["tab3_transfer"]} == set(study.judges)
    assert {w.seed for w in wishes["tab5_tuning"]} == {study.profile.tuning.number}
    assert len(wishes["fig2_method"]) == 1
    assert all(not w.made for w in wishes["fig6_search"])
