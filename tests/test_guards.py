"""Numbers that cannot be are caught where they happen: named, with the values and what to do; what was kept is good; never exit 0."""
from dataclasses import replace

import pytest
import torch
import yaml

from selmatch.app import main
from selmatch.computer import Computer
from selmatch.core import InputError
from selmatch.distill.experts import ExpertTask, check_epoch, expert_recipe, train_expert
from selmatch.distill.loop import Descent, distill
from selmatch.distill.objectives import Answer
from selmatch.select.window import select
from selmatch.study.profile import profile_folder
from selmatch.study.sets import make_set
from test_durable import SPEC, TRAIN, tiny_set
from test_input import refuses


class Told:
    """An objective that answers what it is told: a number for the loss, the pixels and the rate."""
    needs = ()
    def __init__(self, *answers): self.answers = answers
    def identity(self): return ["told"]
    def start(self, data): return self
    def state(self): return {}
    def restore(self, state): pass
    def __call__(self, current, generator):
        loss, pixels, rate = self.answers[min(current.iteration, len(self.answers) - 1)]
        return Answer(torch.tensor(loss), torch.full_like(current.images[current.distilled], pixels), None, torch.full_like(current.lr, rate))


GOOD = (1.0, 0.1, 0.0)


def run(answers, folder, start=None, **words):
    descent = replace(Descent(12, lr_images=1.0, start_lr=0.01, lr_lr=1.0, momentum=0.0, evaluate_at=(4,)), **words)
    kept = []
    start = start or tiny_set(folder).start
    try:
        return distill(start, Told(*answers), descent, 0, folder / "checkpoint.safetensors", every=2, keep=lambda i, small: kept.append((i, small)))
    finally:
        assert all(small.data.images.isfinite().all() for _, small in kept)
        assert [i for i, _ in kept][:1] in ([0], [])


def test_a_start_with_pixels_that_are_no_numbers(tmp_path):
    start = tiny_set(tmp_path).start
    images = start.data.images.clone()
    images[3] = float("nan")
    with refuses("iteration 0", "64 of 640", "pixels"): run([GOOD], tmp_path, replace(start, data=replace(start.data, images=images)))


def test_pixels_that_leave_the_numbers(tmp_path):
    with refuses("iteration 6", "pixels", "lr_images", "kept is good"): run([GOOD] * 5 + [(1.0, 3e38, 0.0)], tmp_path, lr_images=10.0)
    from selmatch.core import load_tensors
    tensors, card = load_tensors(tmp_path / "checkpoint.safetensors", sealed=True)
    assert len(card["rows"]) == 4, "the last good state is there"
    assert tensors["images"].isfinite().all()


def test_answers_that_are_no_numbers_are_skipped_and_too_many_refused(tmp_path):
    bad = (float("nan"), 0.1, 0.0)
    few = run([GOOD, bad, GOOD, bad, GOOD, GOOD, bad, GOOD, GOOD, GOOD, GOOD, GOOD], tmp_path / "few")
    assert few.history.skipped.sum() == 3
    with refuses("iteration 4", "3 of 4", "skip_at_most=0.5", "lr_images"): run([GOOD, bad, bad, bad, GOOD], tmp_path / "many")
    with refuses("12 of 12"): run([bad], tmp_path / "all", evaluate_at=())
    with refuses("20 answers in a row"): run([bad], tmp_path / "row", iterations=40, evaluate_at=())
    assert len(run([GOOD, bad, bad, bad, GOOD], tmp_path / "told", skip_at_most=0.8).history) == 12


def test_a_rate_that_explodes_or_collapses(tmp_path):
    with refuses("iteration 3", "exploded", "lr_lr=1.0"): run([GOOD, GOOD, (1.0, 0.1, -2.0)], tmp_path / "up")
    with refuses("collapsed", "floor 0.0001"): run([(1.0, 0.1, 1.0)], tmp_path / "down", iterations=40)
    with refuses("iteration 1", "learning rate"): run([(1.0, 0.1, -3e38)], tmp_path / "inf", lr_lr=10.0)
    assert len(run([(1.0, 0.1, -2.0)], tmp_path / "fixed", lr_lr=0.0).history) == 12, "a rate that is not learned is nobody's fault"


def test_a_set_that_diverged_is_never_finished(tmp_path):
    task = replace(tiny_set(tmp_path), objective=Told((float("nan"), 0.0, 0.0)))
    for _ in range(2):
        with refuses("not usable"): make_set(task)
    assert not task.done
    assert not (task.folder / "history.csv").exists()


def expert(tmp_path, **words):
    return ExpertTask(tmp_path / "e.safetensors", TRAIN, SPEC, expert_recipe(len(TRAIN), 4, 16, **words), seed=0, draft_every=1)


def test_an_expert_that_is_no_number_or_does_not_move(tmp_path):
    with refuses("e.safetensors", "epoch 1 of 4", "times as long", "lower experts.lr"): train_expert(expert(tmp_path / "far", lr=1e30))
    with refuses("e.safetensors", "epoch 1 of 4", "1 of 2 weights are not finite"): check_epoch(expert(tmp_path / "none", lr=0.1), [torch.ones(2), torch.tensor([1.0, float("nan")])])
    with refuses("epoch 1 of 4", "no weight has moved", "raise experts.lr"): train_expert(expert(tmp_path / "still", lr=0.0))
    for place in ("far", "none", "still"): assert not (tmp_path / place / "e.safetensors").exists()


def test_a_score_that_is_no_number_orders_nothing():
    difficulty = torch.arange(len(TRAIN)).double()
    difficulty[3] = float("nan")
    for name, words in {"window": {"beta": 0.1}, "hardest": {}, "easiest": {}}.items():
        with refuses("difficulty[3]", "finite"): select(name, TRAIN, 2, difficulty=difficulty, **words)


@pytest.mark.slow
def test_the_command_ends_with_an_error(tmp_path, selmatch_command):
    values = yaml.safe_load((profile_folder / "smoke.yaml").read_text())
    values["matching"] = values.get("matching", {}) | {"start_lr": 1e30, "iterations": 12, "evaluate_at": []}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(values))
    done = selmatch_command("distill", "--profile", tmp_path / "mine.yaml", "--ratio", 0.1, "--beta", 0.2, "--out", tmp_path / "out")
    assert done.returncode == 2
    assert "not usable" in done.stderr or "not finite" in done.stderr
    assert "Written" not in done.stdout
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------- going back by itself

class Steep(Told):
    """Its step is bearable only when the pixels move by less than a bound: three halvings from the start."""
    def __init__(self, bound, start): self.bound, self.first = bound, start.data.images
    def identity(self): return ["steep", self.bound]
    def state(self): return {"asked": torch.tensor(float(getattr(self, "asked", 0)))}
    def restore(self, state): self.asked = int(state["asked"])
    def __call__(self, current, generator):
        self.asked = getattr(self, "asked", 0) + 1
        moved = float((current.images - self.first).abs().max()) / max(current.iteration, 1)
        noise = torch.rand((), generator=generator)
        slope = torch.full_like(current.images[current.distilled], 1.0 if moved <= self.bound else 3e38)
        return Answer(1 + noise, slope, None, torch.zeros_like(current.lr))


def back_run(folder, back_off=4, lr=8.0, bound=1.1, stop_after=None, keep=None, every=2, **words):
    start = tiny_set(folder).start
    descent = Descent(24, lr_images=lr, start_lr=0.01, lr_lr=0.0, momentum=0.0, evaluate_at=(4, 12), back_off=back_off, **words)
    return distill(start, Steep(bound, start), descent, 0, folder / "checkpoint.safetensors", every=every, stop_after=stop_after, keep=keep)


def same_sets(a, b):
    assert set(a.kept) == set(b.kept)
    assert all(torch.equal(a.kept[i].data.images, b.kept[i].data.images) and a.kept[i].lr == b.kept[i].lr for i in a.kept)


@pytest.fixture
def quiet():
    import warnings
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def test_a_run_goes_back_with_half_the_steps_and_its_card_says_so(tmp_path):
    with pytest.warns(UserWarning, match="back to iteration 0 with step sizes halved"): made = back_run(tmp_path / "back")
    smaller = back_run(tmp_path / "small", back_off=0, lr=1.0)
    same_sets(made, smaller)                                 # from the start on, with the same chance
    assert made.history.equals(smaller.history) and not made.history.skipped.any()
    halved = made.last.card["halved"]
    assert [h["back_to"] for h in halved] == [0, 0, 0] and all("not finite" in h["why"] for h in halved)
    assert "halved" not in made.kept[0].card and "halved" not in smaller.last.card


def test_it_goes_back_so_many_times_at_most_and_not_at_all_unasked(tmp_path, quiet):
    with refuses("not finite", "halved 2 times", "back_off=2"): back_run(tmp_path / "two", back_off=2)
    with pytest.raises(InputError) as said: back_run(tmp_path / "none", back_off=0)
    assert "halved" not in str(said.value)
    with refuses("back_off", "-1"): Descent(back_off=-1)
    with refuses("back_off", "1.5"): Descent(back_off=1.5)


@pytest.mark.parametrize("stops", [[1], [3, 5, 11], range(1, 24, 2)])
def test_interrupted_it_ends_with_the_same_bits(stops, tmp_path, quiet):
    whole = back_run(tmp_path / "whole")
    for n in stops:
        with pytest.raises(KeyboardInterrupt): back_run(tmp_path / "cut", stop_after=n, every=1)
    cut = back_run(tmp_path / "cut", every=1)
    same_sets(whole, cut)
    assert [whole.kept[i].card for i in whole.kept] == [cut.kept[i].card for i in cut.kept] and whole.history.equals(cut.history)


def test_what_is_handed_over_says_so_too(tmp_path, quiet):
    seen = {}
    back_run(tmp_path, keep=lambda i, small: seen.setdefault(i, []).append(small))
    assert set(seen) == {0, 4, 12, 24} and all("halved" in seen[i][-1].card for i in (4, 12, 24))


def test_off_it_changes_no_file(tmp_path):
    from selmatch.core import load_tensors
    for n in (0, 2): back_run(tmp_path / str(n), back_off=n, lr=1.0)
    (plain, card), (ready, words) = (load_tensors(tmp_path / str(n) / "checkpoint.safetensors") for n in (0, 2))
    assert not [name for name in plain if name.startswith("good.")] and "halved" not in card
    assert [name for name in ready if name.startswith("good.")] and words["halved"] == []
    assert all(torch.equal(plain[name], ready[name]) for name in plain)


def test_a_profile_asks_for_it_and_the_key_knows():
    from selmatch.core import fingerprint
    from selmatch.methods import find_method
    from selmatch.study.profile import load_profile
    from selmatch.study.sets import describe_objective, plan_descent
    from selmatch.study.study import Study
    keys = []
    for words in ({}, {"back_off": 3}):
        study = Study(load_profile("smoke", objectives={"dm": {"batch_real": 16, "iterations": 6} | words}), Computer(quiet=True))
        descent = plan_descent(study, find_method("dm"), *describe_objective(study, find_method("dm"), 0.1))
        assert descent.back_off == words.get("back_off", 0)
        keys.append(fingerprint(descent))
    assert len(set(keys)) == 2


def test_a_damaged_checkpoint_leaves_nothing_in_the_run(tmp_path, quiet):
    """One whose digests fit and whose words do not: half of it is in the run before that is seen."""
    from selmatch.core import load_tensors, save_tensors
    whole = back_run(tmp_path / "whole", back_off=0, lr=1.0)
    with pytest.raises(KeyboardInterrupt): back_run(tmp_path / "cut", back_off=0, lr=1.0, stop_after=5, every=1)
    file = tmp_path / "cut" / "checkpoint.safetensors"
    tensors, card = load_tensors(file)
    for lost in ("rows", "kept"):
        save_tensors(file, tensors, {k: v for k, v in card.items() if k != lost})
        same_sets(whole, back_run(tmp_path / "cut", back_off=0, lr=1.0))
        assert file.with_name("checkpoint.safetensors.bad").exists()
