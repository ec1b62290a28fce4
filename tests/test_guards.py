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
