"""Every registered method, on the smallest profile: it runs, it keeps its word, and its special cases are other methods."""
from dataclasses import replace

import pytest
import torch

from selmatch.study import sets, tables
from selmatch.core import InputError
from selmatch.methods import Method, methods
from selmatch.distill.objectives import objectives
from selmatch.select.window import selections
from selmatch.study.profile import load_profile, read_words
from selmatch.study.study import Study
from selmatch.computer import Computer


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    profile = load_profile("smoke")
    return Study(replace(profile, ratios=(0.3,), seeds=1, evaluation=replace(profile.evaluation, n=1, steps=10)), Computer(quiet=True), tmp_path_factory.mktemp("home"))


@pytest.mark.parametrize("name", list(methods))
def test_every_method_makes_its_set(study, name):
    method, ipc, k = methods[name], study.ipc(0.3), study.splits.train.n_classes
    task = sets.small_sets(study, [name])[name, 0.3, 0]
    best, kept = sets.last_sets(study, {(name, 0.3, 0): task})[name, 0.3, 0], sets.kept_sets(study, task)
    for small in kept:
        assert len(small) == k * ipc
        asked = task.start if method.labels == "teacher" else small            # a teacher may see another class in an image
        assert torch.bincount(asked.data.hard_labels, minlength=k).eq(ipc).all()
        assert small.data.images.isfinite().all()
        if not method.completed:             # the real images of a completed set were not there at the start
            assert torch.equal(small.data.images[~small.distilled], task.start.data.images[~small.distilled])
        soft = method.labels in ("soft", "teacher")
        assert small.data.labels.ndim == 1 + soft
        assert (not soft or torch.allclose(small.data.labels.sum(1), torch.ones(len(small)), atol=1e-5))
    assert len(kept) == (1 if method.objective is None else 3)
    if method.objective:
        assert not torch.equal(kept[-1].data.images[kept[-1].distilled], task.start.data.images[task.start.distilled])
    assert int(best.distilled.sum()) == k * round(sets.distilled_share(study, method, 0.3) * ipc)
    assert best.card["method"] == name
    assert method.kind in ("selection", "made", "distillation", "both", "with a teacher", "with a teacher online")
    assert method.cost
    assert method.source


def test_a_table_has_a_row_for_each(study):
    table = tables.accuracies(study, ["random", "herding", "dm", "selmatch-dm"])
    assert list(table.method.unique()) == ["Random", "Herding", "DM", "SelMatch on DM"]
    assert table.test_accuracy.between(0, 1).all()


def test_selmatch_without_its_parts_is_mtt_and_window(study):
    plain = Method("plain", "Plain", "random", 1.0, "trajectory")
    assert sets.set_task(study, plain, 0.3, 0).folder == sets.set_task(study, "mtt", 0.3, 0).folder       # the same key: the same bits
    nothing = Study(replace(study.profile, alpha={0.3: 0.0}), study.computer, study.folder)
    task = sets.set_task(nothing, "selmatch", 0.3, 0)
    assert task.objective is None
    assert torch.equal(task.start.data.images, sets.start_set(study, "window", 0.3, 0).data.images)
    assert not task.start.distilled.any()


def test_selections_do_not_depend_on_being_asked_twice(study):
    fresh = Study(study.profile, study.computer, study.folder / "elsewhere")
    for name in ("herding", "kmeans_real", "optimised_real", "glister"): assert torch.equal(sets.choose_start(study, name, 0.3), sets.choose_start(fresh, name, 0.3))


def test_another_run_has_another_difficulty_another_proxy_and_other_experts(study):
    one, other = study.at(0), study.at(1)
    assert one is study and other.at(0) is study and study.at(1) is other
    assert not torch.equal(sets.choose_start(one, "herding", 0.3), sets.choose_start(other, "herding", 0.3))
    assert not torch.equal(one.difficulty, other.difficulty)
    assert {t.seed for t in one.expert_tasks()}.isdisjoint(t.seed for t in other.expert_tasks())
    assert other.splits is study.splits
    assert other.betas is study.betas and other.easy is not None


def test_the_registers_hold_every_name_of_the_field():
    from selmatch.methods import load_registers
    assert load_registers()["objective"] is objectives
    assert {"trajectory", "tesla", "ftd", "datm", "dc", "dsa", "dm", "kip", "frepo", "dd"} <= set(objectives)
    assert {"random", "window", "herding", "k_center", "craig", "gradmatch", "glister", "forgetting", "c_score", "el2n"} <= set(selections)


@pytest.mark.parametrize("settings, words", [({"dm": {"batch_rael": 3}}, "batch_rael"), ({"dm": {"batch_real": 0.5}}, "objectives.dm.batch_real=0.5"), ({"dmm": {}}, "dmm"), ({"dd": {"train": 3}}, "train")])
def test_a_wrong_word_for_an_objective_is_named(settings, words):
    with pytest.raises(InputError, match=words): load_profile("smoke", objectives=settings)
    assert read_words("dd", {"n_steps": 3, "lr_images": 1})[1] == {"lr_images": 1.0}


@pytest.mark.slow
def test_select_and_distill_on_the_command_line(selmatch_command, tmp_path):
    done = selmatch_command("select", "--method", "herding", "--profile", "smoke", "--ratio", "0.3", "--out", tmp_path / "herding")
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "herding" / "images").rglob("*.png"))) > 0, done.stderr
    refused = selmatch_command("select", "--method", "mtt", "--profile", "smoke", "--ratio", "0.3")
    assert refused.returncode == 2
    assert "mtt" in refused.stderr
    assert "herding" in refused.stderr
    listed = selmatch_command("methods").stdout
    assert all(name in listed for name in methods)
    assert "a teacher" in listed


def test_a_method_whose_distilling_harms_is_judged_as_that(study):
    """What is judged is the set after the last iteration, however good its start was."""
    wild = {"dm": study.profile.objectives.get("dm", {}) | {"lr_images": 1e4, "iterations": 3}}
    harmed = Study(replace(study.profile, objectives=wild), study.computer, study.folder)
    rows = tables.accuracies(harmed, ["random", "dm"]).set_index("method")
    task = sets.set_task(harmed, "dm", 0.3, 0)
    assert rows.iteration["DM"] == 3
    assert rows.images["DM"] != rows.images["Random"]
    assert (task.kept()[-1].data.images - task.start.data.images).abs().mean() > 10
    assert rows.test_accuracy["DM"] < rows.test_accuracy["Random"]


def test_checkpoints_are_chosen_once_a_set_and_never_at_the_start(study, monkeypatch):
    names = ["mtt", "selmatch", "selmatch-dsa", "random"]
    tasks = sets.small_sets(study, names)
    assert sets.chosen_sets(study, tasks) == {}, "250 images are too few to choose by"
    monkeypatch.setattr(sets, "fewest_to_choose", 1)
    chosen = sets.chosen_sets(study, tasks)
    assert set(chosen) == {w for w in tasks if w[0] != "random"}
    assert all(small.card["iteration"] > 0 for small in chosen.values())
    assert chosen["selmatch", 0.3, 0].card["iteration"] == chosen["selmatch-dsa", 0.3, 0].card["iteration"]
    work = sets.checkpoint_trials(study, tasks.values())
    later = sum(s.card["iteration"] > 0 for s in tasks["mtt", 0.3, 0].kept())
    assert len(work) == 2 * later * study.profile.matching.judges        # two folders, though three rows


def test_a_cell_of_the_ablation_takes_no_step_of_a_method_that_real_images_complete():
    """CCFS shares its start and its open alpha with "random start, part distilled"; its step is tuned for a base of another size, and is its own."""
    from selmatch.methods import Method, find_method
    from selmatch.study.sets import set_leader
    for start, leader in (("random", "mtt"), ("window", "selmatch")):
        for alpha in (None, 0.3, 1.0):
            assert set_leader(Method("cell", "cell", start, alpha, "trajectory")) == leader
    assert set_leader(find_method("ccfs")) == "ccfs" and set_leader(Method("more", "more", "random", None, "trajectory", labels="online", completed="curriculum")) == "ccfs"


def test_a_share_that_is_asked_for_is_the_share_that_is_distilled():
    """`distill(data, "mtt", alpha=0)` repainted everything, and `--alpha` reached those only whose share is the profile's."""
    from selmatch.methods import find_method
    from selmatch.study.shrink import with_share
    mtt = find_method("mtt")
    assert with_share(mtt, 0.5).alpha == 0.5 and with_share(mtt, 0.5).objective == "trajectory"
    assert with_share(mtt, 0).objective is None and with_share(find_method("selmatch"), 0).alpha == 0
    assert with_share(find_method("random"), 0.5) == find_method("random")
    with pytest.raises(InputError, match="alpha=0.5 is not allowed for 'ccfs'"): with_share(find_method("ccfs"), 0.5)


def test_a_profile_s_pace_of_matching_holds_for_all_that_match_trajectories(tmp_path):
    """A profile that gave MTT ten times the step left TESLA, FTD and DATM at the old one; a run that stops early keeps DATM's bounds."""
    from selmatch.study.profile import load_profile
    from selmatch.study.study import Study
    from selmatch.study.sets import descent_words, describe_objective
    from selmatch.methods import find_method
    p = load_profile("smoke", objectives={"trajectory": {"lr_images": 7.0}, "datm": {"iterations": 40, "first_max_start": 1}}, tuned={"datm": {"iterations": 4}})
    study, ratio = Study(p, Computer(quiet=True), tmp_path), p.ratios[0]
    for name in ("mtt", "tesla", "ftd", "datm", "selmatch"):
        assert descent_words(study, find_method(name), ratio)[1]["lr_images"] == 7.0, name
    assert descent_words(study, find_method("dm"), ratio)[1]["lr_images"] != 7.0
    objective, moves = describe_objective(study, find_method("datm"), ratio)
    assert moves["iterations"] == 4 and objective.expansion_end == 20
