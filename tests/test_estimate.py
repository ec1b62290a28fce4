"""The estimate counts what is done: before a figure is computed, task by task, and after it nothing is left."""
import shutil
from collections import Counter

import numpy as np
import pytest

from selmatch.computer import Computer
from selmatch.core import InputError
from selmatch.methods import find_method
from selmatch.show.figures import figures, open_rooms
from selmatch.study.estimate import costs, find_task
from selmatch.study.profile import load_profile
from selmatch.study.sets import set_task, sets_plan, small_sets
from selmatch.study.study import Study

QUIET = Computer(quiet=True)
SMALL = {"seeds": 2, "ratios": (0.1,), "alpha": {0.1: 0.5}, "methods": ("random", "window", "selmatch-dsa"), "transfer": {}, "evaluation": {"n": 1, "steps": 5}, "score": {"epochs": 1}, "window": {"n": 1}}


def count(study, name):
    "The table of the estimate of one figure."
    rooms, figure = open_rooms(), figures[name]
    prices = rooms.estimate.Prices(study)
    parts = figure.parts(rooms, prices)
    return rooms.estimate.costs(study, figure.wants(rooms, study), figure.windows(study), parts, figure.full, prices=prices)


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


@pytest.mark.parametrize("name", ["fig3_window", "fig7_scores"])
def test_scores_of_a_file_ask_for_no_networks_of_every_run(name, tmp_path, monkeypatch):
    "With an official score only the first run's networks are watched, for who is easy to test; figure 7 asks all of its runs for another score."
    from dataclasses import asdict
    profile, seen = load_profile("smoke", **SMALL), tmp_path / "s.npz"
    n = len(Study(profile, QUIET, tmp_path / "first").splits.train)
    np.savez(seen, c=np.random.default_rng(0).random(n))
    score = asdict(profile.score) | dict(kind="file", path=str(seen), file_kind="c_score", key="c", ties=None)
    words = SMALL | {"score": score, "window": {"n": 2}}
    before, done, after = compare(name, tmp_path / "home", monkeypatch, **words)
    watched = before[before.stage.str.startswith("watch networks learn")].tasks.sum()
    assert watched == profile.score.runs * (2 if name == "fig7_scores" else 1)
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


@pytest.mark.parametrize("command", [
    ("figures", "--only", "tab1_accuracy", "--set", "evaluation.steps=10000000"), ("experts",), ("distill", "--method", "mtt", "--ratio", "0.3", "--out", "small"),
    ("tune", "--only", "mtt"), ("search", "--method", "selmatch")])
def test_a_disk_that_is_too_small_is_refused_before_anything_starts(command, say, tmp_path, monkeypatch):
    """Ten gigabytes of experts were trained, and the disk was full at the last of them."""
    monkeypatch.chdir(tmp_path)
    free = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: free._replace(free=20_000))
    ran = []
    monkeypatch.setattr(Study, "run", lambda self, plan, *more: ran.append(plan.label))
    code, _, errors = say(*command, "--profile", "smoke")
    assert code == 2 and "what is still to be made: 0." in errors and "0.0 MB are free: free some" in errors and str(tmp_path / "home") in errors, errors
    assert not ran and not (tmp_path / "small").exists()


def test_each_stage_asks_for_room_as_well(tmp_path, monkeypatch):
    """In Python nobody asks for an estimate first: the experts of a set are refused before the first of them is trained, the sets as well."""
    study = Study(load_profile("smoke"), QUIET, tmp_path / "home")
    free = shutil.disk_usage(tmp_path)
    task = find_task(study, find_method("mtt"), 0.3, 0) or set_task(study, "mtt", 0.3, 0)
    assert study.store.bytes_left(sets_plan(study, [task])) == len(task.descent.stops) * task.start.data.images.nbytes
    monkeypatch.setattr(shutil, "disk_usage", lambda place: free._replace(free=4_000))
    with pytest.raises(InputError, match="^distill: .* are needed in .*home, where 0.0 MB are free"): small_sets(study, ["mtt"], [0.3], 1)
    other = Study(load_profile("smoke", seed=3), QUIET, tmp_path / "home")
    with pytest.raises(InputError, match="^train experts: "): other.experts()
    assert not list((tmp_path / "home" / "sets").glob("*"))


def test_what_is_counted_is_what_lies_on_the_disk(tmp_path):
    study = Study(load_profile("smoke", **SMALL), QUIET, tmp_path / "home")
    before = costs(study).set_index("stage").disk
    small_sets(study, ["mtt", "selmatch"])
    lies = {part: sum(f.stat().st_size for f in (tmp_path / "home" / part).rglob("*.safetensors")) for part in ("experts", "sets")}
    counted = {"experts": before["train experts"], "sets": before[before.index.str.startswith("distill")].sum()}
    # with their cards, a few kilobytes each
    assert all(counted[part] <= lies[part] <= counted[part] + 8000 * n for part, n in {"experts": 4, "sets": 12}.items()), (counted, lies)
    assert costs(study).disk.sum() == 0


def test_each_figure_says_what_it_wants():
    study = Study(load_profile("smoke"), QUIET)
    rooms = open_rooms()
    wishes = {name: figure.wants(rooms, study) for name, figure in figures.items()}
    assert not wishes["tab4_cost"]
    assert {w.judge for w in wishes["tab3_transfer"]} == set(study.judges)
    assert {w.seed for w in wishes["tab5_tuning"]} == {study.profile.tuning.number}
    assert len(wishes["fig2_method"]) == 1
    assert all(not w.made for w in wishes["fig6_search"])
