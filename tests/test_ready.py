"""What several sets need is made side by side, before any of them: nothing is left for one worker alone."""
from dataclasses import replace

import pytest
import torch

from selmatch.computer import Computer
from selmatch.methods import Method, find_method, methods
from selmatch.select.window import selections
from selmatch.study import sets, tables
from selmatch.study.profile import load_profile
from selmatch.study.store import Plan, Store, join_plans
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
    assert not sets.can_be_sent(("start", "my-pick", 0.3, 0)) and sets.can_be_sent(("start", "herding", 0.3, 0))
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


@pytest.mark.parametrize("name", methods)
def test_the_start_that_is_made_ready_is_the_one_that_is_looked_up(tmp_path, name):
    """Also that of a base, and of classes of uneven size: another key would be work for nobody."""
    study = open_at(tmp_path)
    method = find_method(name)
    if not sets.is_searched(method.start): return
    n, ordered = sets.count_start(study, method, 0.3), sets.is_ordered(study, method)
    wanted = []
    plan = sets.start_plan
    sets.start_plan = lambda *words: wanted.append(words) or Plan("x", len, [()], ["0" * 16])
    try:
        steps = [make for step, make in sets.start_steps(study, method, 0.3, 0) if step[0] == "start"]
        for make in steps: make()
        study.at(0).__dict__["run_one"] = lambda plan: {"rows": None}
        sets.look_up_start(study.at(0), method.start, 0.3, n, ordered)
    finally:
        sets.start_plan = plan
        del study.at(0).__dict__["run_one"]
    assert len(wanted) == 2 and wanted[0][1:] == wanted[1][1:]
