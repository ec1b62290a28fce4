"""What several sets need is made side by side, before any of them: nothing is left for one worker alone."""
from dataclasses import replace

import pytest
import torch

from selmatch.computer import Computer
from selmatch.core import InputError
from selmatch.methods import Method, find_method, methods
from selmatch.select.window import selections
from selmatch.study import sets, tables
from selmatch.study.profile import load_profile
from selmatch.study.store import Store, join_plans
from selmatch.study.study import Study

QUICK = replace(load_profile("smoke"), ratios=(0.3,), seeds=2)
NEEDY = ("herding", "ccs", "dual", "selmatch-soft", "selmatch-teacher", "random-teacher", "forgetting", "mtt", "ftd", "ccfs")


def open_at(folder, workers=1):
    return Study(QUICK, Computer(workers=workers, quiet=True), folder)


def watch_runs(monkeypatch):
    """The labels and the number of tasks of every plan that a store computes from now on."""
    seen, run = [], Store.run
    def note(self, plan, computer=Computer()):
        if n := len(self.missing(plan)):
            seen.append((plan.label, n))
        return run(self, plan, computer)
    monkeypatch.setattr(Store, "run", note)
    return seen


def test_what_both_runs_need_is_one_plan(tmp_path, monkeypatch):
    study, seen = open_at(tmp_path), watch_runs(monkeypatch)
    sets.make_ready(study, sets.list_sets(study, NEEDY, [0.3]))
    made = dict(seen)
    assert made["proxy"] == made["record dynamics"] == 2
    assert made["teacher"] == 2 * QUICK.teacher.n
    assert made["ccs"] == 2 and made["herding"] == 2
    assert made["train experts"] >= 2 * QUICK.experts.n
    assert len([label for label, _ in seen if label == "proxy"]) == 1


def test_nothing_is_left_but_the_sets(tmp_path, monkeypatch):
    study = open_at(tmp_path)
    wanted = sets.list_sets(study, NEEDY, [0.3])
    sets.make_ready(study, wanted)
    seen = watch_runs(monkeypatch)
    tasks = sets.finish_tasks(study, wanted)
    assert {label for label, _ in seen} == {"distill"}
    sets.last_sets(study, tasks)
    assert {label for label, _ in seen} == {"distill", "complete"}      # CCFS joins real images to its base


def test_the_same_numbers_as_one_after_the_other(tmp_path, monkeypatch):
    names = ["herding", "dual", "selmatch-teacher"]
    table = tables.accuracies(open_at(tmp_path / "a", 2), names, [0.3])
    monkeypatch.setattr(sets, "make_ready", lambda study, wanted: None)
    again = tables.accuracies(open_at(tmp_path / "b"), names, [0.3])
    assert table.equals(again)


def test_a_selection_of_a_notebook_stays_in_its_process(tmp_path, monkeypatch):
    """It is registered here, and no worker knows of it."""
    def my_pick(data, ipc, evidence):
        return selections["random"](data, ipc, generator=torch.Generator().manual_seed(len(evidence.labels)))
    monkeypatch.setitem(selections, "my-pick", my_pick)
    method = Method("my-pick", "My pick", "my-pick", 0.0, None)
    assert not sets.can_be_sent(open_at(tmp_path), ("start", "my-pick", 0.3, 0))
    assert sets.can_be_sent(open_at(tmp_path), ("start", "herding", 0.3, 0))
    table = tables.accuracies(open_at(tmp_path, 2), [method], [0.3])
    assert set(table.method) == {"My pick"}


def test_no_expert_is_trained_where_nothing_is_distilled(tmp_path, monkeypatch):
    frozen, seen = replace(QUICK, alpha={0.3: 0.0}), watch_runs(monkeypatch)
    sets.make_ready(Study(frozen, Computer(quiet=True), tmp_path), [("selmatch", 0.3, 0)])
    assert "slide the window" in dict(seen) and "train experts" not in dict(seen)


def test_plans_with_files_of_their_own_are_joined_as_they_are(tmp_path):
    study = open_at(tmp_path)
    plans = [study.at(n).experts_plan() for n in (0, 1)]
    joined, = join_plans(plans)
    assert joined.task is plans[0].task and list(joined.items) == [*plans[0].items, *plans[1].items]
    assert list(joined.keys) == [*plans[0].keys, *plans[1].keys] and joined.is_done is plans[0].is_done


def uneven_study(folder):
    """Digits of which one class has few images: a selection is told a number for each class."""
    whole = open_at(folder).splits
    keep = (whole.train.labels != 3) | (torch.cumsum(whole.train.labels == 3, 0) <= 4)
    few = replace(whole, train=whole.train.subset(torch.arange(len(whole.train))[keep]))
    study = Study(QUICK, Computer(quiet=True), folder, given=few)
    assert not isinstance(study.take(0.3), int)
    return study


SEARCHED = [m.name for m in methods.values() if sets.is_searched(m.start)]


@pytest.mark.parametrize("is_uneven", [False, True])
@pytest.mark.parametrize("name", SEARCHED)
def test_the_start_that_is_made_ready_is_the_one_that_is_looked_up(tmp_path, monkeypatch, name, is_uneven):
    """Another key would be work for nobody."""
    study, method, keys = uneven_study(tmp_path) if is_uneven else open_at(tmp_path), find_method(name), []
    try:
        sets.check_balance(study, method, 0.3)
    except InputError:
        pytest.skip("is refused before anything is made")
    plan = sets.start_plan
    def note(*words):
        made = plan(*words)
        keys.append(made.keys[0])
        return made
    monkeypatch.setattr(sets, "start_plan", note)
    sets.make_ready(study, [(method, 0.3, 0)])
    ready = set(keys)
    keys.clear()
    sets.start_set(study, method, 0.3, 0)
    assert len(ready) == 1 and set(keys) == ready


def test_c_scores_of_several_runs_are_not_mixed(tmp_path):
    """Their networks are trained by workers already; in threads of a worker they would share random numbers."""
    study = open_at(tmp_path / "a", 2)
    sets.make_ready(study, [("c-score", 0.3, n) for n in (0, 1)])
    assert [study.left(study.at(n).c_score_plan()) for n in (0, 1)] == [0, 0]
    table = tables.accuracies(study, ["c-score"], [0.3])
    assert table.equals(tables.accuracies(open_at(tmp_path / "b"), ["c-score"], [0.3]))


def test_work_within_a_worker_stays_in_it(monkeypatch):
    import selmatch.computer as room
    monkeypatch.setattr(room, "is_worker", lambda: True)
    seen = []
    monkeypatch.setattr(room.joblib, "Parallel", lambda n_jobs, **words: seen.append(n_jobs) or (lambda jobs: iter(())))
    room.run_all(len, ["a", "b"], "x", Computer(workers=2, quiet=True))
    assert seen == [1]


def test_what_is_refused_is_refused_before_any_work(tmp_path, monkeypatch):
    study, seen = uneven_study(tmp_path), watch_runs(monkeypatch)
    for name in ("glister", "ccfs"):
        with pytest.raises(InputError, match="takes the same number of each class"):
            sets.small_sets(study, [name], [0.3])
    assert seen == []


def test_nothing_is_trained_again_for_a_start_that_is_kept(tmp_path, monkeypatch):
    study = open_at(tmp_path)
    sets.make_ready(study, [("herding", 0.3, 0)])
    proxy, = study.network_plan(*study.proxy_words()).keys
    study.store.file(proxy).unlink()
    seen = watch_runs(monkeypatch)
    sets.make_ready(study, [("herding", 0.3, 0)])
    assert seen == []


def test_a_cluster_is_not_sent_a_whole_study(tmp_path):
    study = open_at(tmp_path)
    there = replace(study, computer=replace(study.computer, cluster=lambda *words: []))
    assert not sets.can_be_sent(there, ("start", "herding", 0.3, 0)) and sets.can_be_sent(there, ("experts", False, 0))
