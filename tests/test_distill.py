"""The outer loop with everything that may move: labels, averages, rates, two optimisers; and what a pulled plug leaves."""
from dataclasses import replace

import pytest
import torch

from selmatch.computer import Computer
from selmatch.core import InputError
from selmatch.data.images import ImageSet
from selmatch.distill.sets import SyntheticSet, load_set, relabel, save_set
from selmatch.distill.loop import Descent, OptimisedImages, distill, through_softmax
from selmatch.methods import Method
from selmatch.distill.objectives import Answer, RunningObjective
from selmatch.study.profile import load_profile
from selmatch.study.sets import plan_descent
from selmatch.study.study import Study


class Pull(RunningObjective):
    """Images, labels and rates are pulled to fixed goals; a random push each time, so that the generator matters."""
    def identity(self): return {"goal": 1}
    def start(self, like): return self

    def __call__(self, current, generator):
        images = current.images[current.distilled]
        noise = torch.randn(images.shape, generator=generator) * 0.1
        labels = current.labels - torch.eye(3)[torch.arange(len(current.labels)) % 3] if current.labels.ndim == 2 else None
        return Answer(images.square().mean(), 2 * images + noise, labels, current.lr - 0.05 + noise.mean())


def start_set(soft=True):
    generator = torch.Generator().manual_seed(0)
    labels = torch.rand(8, 3, generator=generator).softmax(1) if soft else torch.arange(8) % 3
    data = ImageSet(torch.randn(8, 1, 4, 4, generator=generator), labels, tuple("abc"), (0.5,), (0.25,))
    return SyntheticSet(data, torch.arange(8) % 4 != 0)


CASES = [dict(), dict(lr_labels=0.0), dict(ema=0.9), dict(n_rates=5), dict(optimiser="adam", betas=(0.5, 0.999)), dict(momentum=0.0),
         dict(optimiser="adam", ema=0.5, n_rates=3), dict(ema=0.9, n_rates=4, momentum_labels=0.0),
         dict(softplus_rate=True), dict(softplus_rate=True, optimiser="adam", n_rates=5)]


@pytest.mark.parametrize("settings", CASES, ids=str)
@pytest.mark.parametrize("soft", [True, False])
def test_interrupted_it_ends_with_the_same_bits(settings, soft, tmp_path):
    start, file = start_set(soft), tmp_path / "c.safetensors"
    descent = Descent(iterations=13, **{"lr_images": 0.1, "lr_labels": 0.5, "lr_lr": 0.01, "start_lr": 0.1, "evaluate_at": (4,), **settings})
    whole = distill(start, Pull(), descent, seed=0)
    with pytest.raises(KeyboardInterrupt): distill(start, Pull(), descent, seed=0, checkpoint=file, every=3, stop_after=8)
    again = distill(start, Pull(), descent, seed=0, checkpoint=file, every=3)
    assert whole.history.equals(again.history)
    assert list(whole.kept) == list(again.kept) == [0, 4, 13]
    for i in whole.kept:
        a, b = whole.kept[i], again.kept[i]
        assert torch.equal(a.data.images, b.data.images)
        assert torch.equal(a.data.labels, b.data.labels)
        assert a.lr == b.lr
        assert a.card == b.card
        assert torch.equal(a.data.images[~a.distilled], start.data.images[~a.distilled])
    moved = whole.last.data
    assert not torch.equal(moved.images, start.data.images)
    assert len({str(s.lr) for s in whole.kept.values()}) == 3
    assert torch.equal(moved.labels[~start.distilled], start.data.labels[~start.distilled])
    if soft:
        assert torch.equal(moved.labels, start.data.labels) == (settings.get("lr_labels") == 0)
        assert torch.allclose(moved.labels.sum(1), torch.ones(8))
    other = replace(descent, ema=0.123)
    with pytest.raises(InputError, match="another run.*descent"): distill(start, Pull(), other, seed=0, checkpoint=file)


def test_learned_labels_go_where_they_are_pulled():
    start = start_set()
    run = distill(start, Pull(), Descent(iterations=200, lr_images=0.1, lr_labels=1.0, lr_lr=0.0, start_lr=0.1), seed=0)
    goal = torch.eye(3)[torch.arange(8) % 3]
    assert (run.last.data.labels - goal)[start.distilled].abs().max() < 0.05 < (start.data.labels - goal)[start.distilled].abs().max()


def test_a_hard_label_given_as_probabilities_stays_finite():
    start = start_set(False)
    start = replace(start, data=replace(start.data, labels=torch.eye(3)[start.data.labels]))
    run = distill(start, Pull(), Descent(iterations=5, lr_images=0.1, lr_labels=1.0, start_lr=0.1), seed=0)
    assert run.last.data.labels.isfinite().all()
    assert (run.kept[0].data.labels - start.data.labels).abs().max() < 1e-6


def test_the_gradient_through_the_softmax_is_autograds():
    logits = torch.randn(5, 7, dtype=torch.float64, requires_grad=True)
    slope = torch.randn(5, 7, dtype=torch.float64)
    assert torch.allclose(through_softmax(logits, slope), torch.autograd.grad((logits.softmax(1) * slope).sum(), logits)[0], atol=1e-14)


def test_the_average_of_the_images_is_what_the_words_say():
    start, descent = start_set(False), Descent(iterations=6, lr_images=0.1, start_lr=0.1, evaluate_at=(1, 2, 3, 4, 5))
    plain, mean = distill(start, Pull(), descent, seed=0), distill(start, Pull(), replace(descent, ema=0.75), seed=0)
    expected = start.data.images
    for i in range(1, 7):
        expected = 0.75 * expected + 0.25 * plain.kept[i].data.images
        assert torch.allclose(mean.kept[i].data.images, expected, atol=1e-6)
        assert mean.kept[i].lr == plain.kept[i].lr
    assert plain.history.equals(mean.history)              # averaging looks on, it does not steer


def test_one_rate_per_step_is_saved_and_loaded(tmp_path):
    run = distill(start_set(), Pull(), Descent(iterations=3, lr_images=0.1, lr_lr=0.1, start_lr=0.1, n_rates=4), seed=0)
    save_set(run.last, tmp_path)
    assert isinstance(run.last.lr, list)
    assert len(run.last.lr) == 4
    assert load_set(tmp_path).lr == run.last.lr
    save_set(distill(start_set(), Pull(), Descent(iterations=1, start_lr=0.1), seed=0).last, tmp_path)
    assert isinstance(load_set(tmp_path).lr, float)


def test_adam_takes_the_steps_of_adam():
    pixels, goal = OptimisedImages(start_set(False), Descent(lr_images=0.5, start_lr=0.1, optimiser="adam", betas=(0.5, 0.9))), torch.ones(6, 1, 4, 4, requires_grad=True)
    goal.data.copy_(pixels.images)
    adam = torch.optim.Adam([goal], lr=0.5, betas=(0.5, 0.9))
    for i in range(4):
        gradient = torch.randn(goal.shape, generator=torch.Generator().manual_seed(i))
        goal.grad = gradient
        adam.step()
        pixels.move(Answer(torch.tensor(1.0), gradient))
    assert torch.equal(pixels.images, goal.detach())


def test_rates_move_through_the_softplus_as_released_dd_moves_them():
    """DD keeps raw numbers, reads rates off their softplus and lets Adam follow what autograd says of the raw ones."""
    goals = torch.tensor([0.5, 0.001, 0.021])
    pixels = OptimisedImages(start_set(False), Descent(optimiser="adam", betas=(0.5, 0.999), lr_images=0.0, lr_lr=0.01, start_lr=0.02, n_rates=3, softplus_rate=True))
    raw = torch.full((3,), 0.02).double().expm1().log().requires_grad_()
    adam = torch.optim.Adam([raw], lr=0.01, betas=(0.5, 0.999))
    for step in range(60):
        pixels.move(Answer(torch.tensor(0.0), torch.zeros_like(pixels.images), None, pixels.lr - goals))
        adam.zero_grad()
        ((torch.nn.functional.softplus(raw) - goals.double()).square().sum() / 2).backward()
        adam.step()
        assert torch.allclose(pixels.lr.double(), torch.nn.functional.softplus(raw.detach()), rtol=1e-4), step
    assert 0.02 * 1.01**59 < pixels.lr[0] < 0.02 * 1.015**60, "about one per cent a step, not a half"
    assert pixels.lr[1] > 0.02 * 0.989**61


def test_a_rate_that_stands_on_its_floor_can_leave_it():
    pixels = OptimisedImages(start_set(False), Descent(lr_images=0.0, lr_lr=1.0, momentum=0.0, start_lr=0.1, softplus_rate=True))
    push = lambda slope: pixels.move(Answer(torch.tensor(0.0), torch.zeros_like(pixels.images), None, torch.tensor(slope)))
    push(1e4)
    assert torch.isclose(pixels.lr, torch.tensor(0.001), rtol=1e-3)
    push(-1e3)
    assert pixels.lr > 0.0015, "what was wound up below the floor would have to be unwound first"


def test_what_a_method_says_of_labels_decides_whether_they_move():
    from selmatch.study.profile import load_profile
    from selmatch.study.sets import plan_descent
    from selmatch.study.study import Study
    study = Study(load_profile("smoke"))
    for labels, lr in (("hard", 0), ("soft", 2.0), ("teacher", 0)):
        method = Method("x", "X", "random", 1.0, "trajectory", labels=labels)
        assert plan_descent(study, method, None, {"lr_labels": 2.0}).lr_labels == lr


@pytest.mark.parametrize("bad", [dict(ema=1.0), dict(ema=-0.1), dict(n_rates=0), dict(optimiser="lion"), dict(betas=(0.9, 1.0)), dict(momentum_labels=2.0), dict(lr_labels=-1)], ids=str)
def test_impossible_settings_are_named(bad):
    with pytest.raises(InputError, match=next(iter(bad))): Descent(**bad)


class Fixed(torch.nn.Module):
    def __init__(self, scores): super().__init__(); self.scores = scores
    def forward(self, x): return self.scores[: len(x)]


def test_a_teachers_labels_by_hand():
    data = start_set(False).data
    one, two = torch.zeros(8, 3), torch.zeros(8, 3)
    one[:, 0], two[:, 1] = 4.0, 2.0
    assert torch.allclose(relabel(data, [Fixed(one), Fixed(two)], 2.0).labels, torch.tensor([1.0, 0.5, 0.0]).softmax(0).expand(8, 3))
    assert torch.allclose(relabel(data, [Fixed(one)], 1e9).labels, torch.full((8, 3), 1 / 3))
    assert torch.equal(relabel(data, [Fixed(one), Fixed(two)], 1e-3).labels, torch.eye(3)[0].expand(8, 3))
    rows = torch.arange(8) < 3
    some = relabel(data, [Fixed(one)], 1.0, rows)
    assert torch.equal(some.labels[~rows], torch.eye(3)[data.labels[~rows]])
    assert torch.equal(some.images, data.images)
    assert torch.equal(relabel(some, [Fixed(two)], 1.0, ~rows).labels[rows], some.labels[rows])
    for bad in (dict(temperature=0.0), dict(temperature=float("nan"))):
        with pytest.raises(InputError, match="temperature"): relabel(data, [Fixed(one)], **bad)
    with pytest.raises(InputError, match="teachers"): relabel(data, [])
