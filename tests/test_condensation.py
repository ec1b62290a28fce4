"""DC, DSA and DM: exact gradients, known answers, frozen images, rounds, resume, bad input."""
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from selmatch.train.augment import Augmentation, apply
from selmatch.train.networks import fresh_weights
from selmatch.distill.condensation import DC, DSA, DistributionMatching, GradientMatching, class_means, distances, draw_real, match_gradients, match_means, row_distance, siamese
from selmatch.core import InputError, fingerprint
from selmatch.data.images import ImageSet, class_rows
from selmatch.data.loaders import load_digits
from selmatch.distill.sets import SyntheticSet
from selmatch.distill.loop import Descent, distill
from selmatch.distill.sweep import student_loss
from selmatch.train.networks import FlatNetwork, flatten, make_network
from selmatch.distill.objectives import SetState

SPEC = {"name": "ConvNet", "width": 6, "depth": 2, "norm": "instance"}
TRAIN = load_digits(per_class=30).train
PLAIN = Augmentation("none")
SMALL = TRAIN.subset(torch.cat([rows[:4] for rows in class_rows(TRAIN)]))
MASK = torch.arange(len(SMALL)) % 4 != 1        # one frozen image in each class


def relative(a, b):
    return float((a - b).norm() / b.norm())


def now(data=SMALL, mask=MASK, labels=None):
    return SetState(data.images, data.labels if labels is None else labels, mask, torch.tensor(0.02), 0)


def double(data):
    return replace(data, images=data.images.double())


def numbers(seed=0):
    return torch.Generator().manual_seed(seed)


def plain_gap(flat, theta, x, y, real_x, real_y, distance):
    """The formula, in one graph; classes by the most probable label."""
    total, kinds, theta = 0, y.argmax(1) if y.ndim == 2 else y, theta.clone().requires_grad_()
    for c in kinds.unique():
        g, h = (torch.autograd.grad(student_loss(flat, theta, a[k == c], b[k == c]), theta, create_graph=True)[0] for a, b, k in ((x, y, kinds), (real_x, real_y, real_y)))
        total = total + distances[distance](flat.unflatten(g), flat.unflatten(h.detach()))
    return total


@pytest.mark.parametrize("norm", ["instance", "batch", "none"])
@pytest.mark.parametrize("distance", list(distances))
@pytest.mark.parametrize("soft", [False, True])
def test_gradient_matching_is_exact(norm, distance, soft):
    net, g = make_network(SPEC | {"norm": norm}, (1, 8, 8), 4, seed=0).double(), numbers()
    flat, theta = FlatNetwork(net), flatten(net)
    x, y = torch.randn(9, 1, 8, 8, generator=g).double().requires_grad_(), torch.tensor([0, 2, 0, 1, 1, 2, 2, 2, 0])     # no image of class 3
    real_x, real_y = torch.randn(40, 1, 8, 8, generator=g).double(), torch.arange(40) % 4
    if soft: y = (3 * F.one_hot(y, 4) + torch.randn(9, 4, generator=g).double()).softmax(1).requires_grad_()
    wanted = torch.autograd.grad(plain_gap(flat, theta, x, y, real_x, real_y, distance), [x, y] if soft else [x])
    loss, by_x, by_y = match_gradients(flat, theta, x.detach(), y.detach(), real_x, real_y, distance)
    assert relative(by_x, wanted[0]) <= 1e-10
    assert (by_y is None or relative(by_y, wanted[1]) <= 1e-10)
    assert (by_y is not None) == soft
    for at in [(0, 0, 2, 3), (5, 0, 7, 0)]:
        nudge = torch.zeros_like(by_x)
        nudge[at] = 1e-6
        up, down = (match_gradients(flat, theta, x.detach() + s * nudge, y.detach(), real_x, real_y, distance)[0] for s in (1, -1))
        assert float((up - down) / 2e-6) == pytest.approx(float(by_x[at]), abs=1e-6 * float(by_x.abs().max()))


def test_distances_by_hand():
    a, b = torch.tensor([[3., 0.], [1., 1.], [0., 2.]]), torch.tensor([[1., 0.], [-1., 1.], [0., -5.]])
    assert float(row_distance(a, b)) == pytest.approx(3, abs=1e-4)
    only_bias = [{"bias": torch.tensor([v])} for v in (1., -1.)]
    assert distances["rows"](*only_bias) == 0
    assert distances["mse"](*only_bias) == 4
    assert float(distances["cos"](*only_bias)) == pytest.approx(2, abs=1e-4)


def test_the_same_images_have_nothing_to_match():
    net = make_network(SPEC, (1, 8, 8), 10, seed=0).double()
    for distance in distances:
        assert match_gradients(FlatNetwork(net), flatten(net), *[SMALL.images.double(), SMALL.labels] * 2, distance)[0] < 0.05    # of up to 220: the 1e-6 in the denominator


def test_siamese_gives_a_class_one_draw():
    drawn = siamese(Augmentation("dsa"), 10, numbers())
    left, right = drawn.rows(SMALL.labels), drawn.rows(TRAIN.labels)
    for c in range(10):
        u = torch.cat([left.u[SMALL.labels == c], right.u[TRAIN.labels == c]])
        assert len(u.unique(dim=0)) == 1
        assert len(left.family[SMALL.labels == c].unique()) == 1
    assert len(left.family.unique()) > 1
    assert len(left.u.unique(dim=0)) == 10
    picture = SMALL.images[:1].expand(3, -1, -1, -1)
    assert torch.equal(*[apply(picture, drawn.rows(torch.full((3,), 4)))[i] for i in (0, 2)])


def test_real_batches_hold_every_class():
    rows = class_rows(TRAIN)
    picked = draw_real(rows, 7, numbers())
    assert len(picked.unique()) == len(picked) == 70
    assert TRAIN.labels[picked].bincount().tolist() == [7] * 10
    assert torch.equal(picked, draw_real(rows, 7, numbers()))
    assert not torch.equal(picked, draw_real(rows, 7, numbers(1)))
    assert sorted(draw_real(rows, 10**6, numbers()).tolist()) == list(range(len(TRAIN)))
    weights = [fresh_weights(SPEC, SMALL, numbers(seed)) for seed in (0, 0, 1)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_identity_network_reaches_the_class_means_in_one_step():
    x = SMALL.images.clone().requires_grad_()
    loss = lambda images: match_means(lambda t: t.flatten(1), images, SMALL.labels, TRAIN.images, TRAIN.labels, 10)
    after = x.detach() - 4 / 2 * torch.autograd.grad(loss(x), x)[0]
    means = torch.stack([TRAIN.images[TRAIN.labels == c].mean(0).flatten() for c in range(10)])
    assert loss(x) > 10
    assert loss(after) < 1e-6
    assert torch.allclose(class_means(after.flatten(1), SMALL.labels, 10), means, atol=1e-5)


def test_classes_without_small_images_do_not_count():
    some = SMALL.subset(SMALL.labels < 3)
    loss = match_means(lambda t: t.flatten(1), some.images, some.labels, TRAIN.images, TRAIN.labels, 10)
    means = [torch.stack([d.images[d.labels == c].mean(0) for c in range(3)]) for d in (some, TRAIN)]
    assert float(loss) == pytest.approx(float((means[0] - means[1]).square().sum()), rel=1e-5)


QUESTIONS = {
    "dc": DC(SPEC, TRAIN, outer=3, inner=2, batch_real=12, batch_inner=16),
    "dsa": DSA(SPEC, TRAIN, outer=3, inner=2, batch_real=12, batch_inner=16),
    "dm": DistributionMatching(SPEC, TRAIN, batch_real=12),
    "dm, batch norm": DistributionMatching(SPEC | {"norm": "batch"}, TRAIN, batch_real=12),
}


@pytest.mark.parametrize("name", list(QUESTIONS))
def test_answers_are_the_slope_of_the_loss_and_leave_frozen_images_out(name):
    question = replace(QUESTIONS[name], train=double(TRAIN))
    start = double(SMALL)
    asked = question.start(start)(now(start), numbers(5))
    assert asked.images.shape == start.images[MASK].shape
    assert asked.lr is None
    assert asked.labels is None
    rows = torch.nonzero(MASK).flatten()
    for m, y, x in [(3, 2, 4), (20, 5, 3)]:
        losses = []
        for sign in (1, -1):
            moved = replace(start, images=start.images.clone())
            moved.images[rows[m], 0, y, x] += sign * 1e-5
            losses.append(question.start(start)(now(moved), numbers(5)).loss)
        assert float((losses[0] - losses[1]) / 2e-5) == pytest.approx(float(asked.images[m, 0, y, x]), abs=2e-5 * float(asked.images.abs().max()))
    moved = replace(start, images=torch.where(MASK.view(-1, 1, 1, 1), start.images, start.images + 1))
    assert question.start(start)(now(moved), numbers(5)).loss != asked.loss           # frozen images count


@pytest.mark.parametrize("name", list(QUESTIONS))
def test_soft_labels_name_their_class(name):
    hard, soft = (QUESTIONS[name].start(SMALL)(now(labels=labels), numbers(1)) for labels in (None, F.one_hot(SMALL.labels, 10).float()))
    assert torch.allclose(hard.images, soft.images, atol=1e-5 * float(hard.images.abs().max()))
    assert (soft.labels is not None) == (not name.startswith("dm"))


def test_a_network_lives_for_a_round_and_trains_on_the_set_as_it_is():
    running, g = QUESTIONS["dc"].start(SMALL), numbers()
    weights = []
    for _ in range(4):
        running(now(), g)
        weights.append(running.theta.clone())
    assert running.position == 1
    assert all(not torch.equal(a, b) for a, b in zip(weights, weights[1:]))
    steps = [float((a - b).norm()) for a, b in zip(weights, weights[1:])]
    assert max(steps[:2]) < 0.1 * steps[2]                                             # trained on, trained on, replaced
    again, g = QUESTIONS["dc"].start(SMALL), numbers()
    again(now(), g)
    again(now(replace(SMALL, images=SMALL.images + 0.5)), g)
    assert not torch.equal(again.theta, weights[1])
    single = replace(QUESTIONS["dc"], inner=0).start(SMALL)
    g = numbers()
    single(now(), g)
    first = single.theta.clone()
    single(now(), g)
    assert torch.equal(first, single.theta)


@pytest.mark.parametrize("name", list(QUESTIONS))
def test_killed_runs_go_on_bit_for_bit(name, tmp_path):
    start, descent = SyntheticSet(SMALL, MASK), Descent(iterations=9, lr_images=0.1, evaluate_at=(4,))
    whole = distill(start, QUESTIONS[name], descent, seed=0)
    with pytest.raises(KeyboardInterrupt):
        distill(start, QUESTIONS[name], descent, seed=0, checkpoint=tmp_path / "c.safetensors", every=2, stop_after=5)      # in the middle of a round
    again = distill(start, QUESTIONS[name], descent, seed=0, checkpoint=tmp_path / "c.safetensors", every=2)
    assert torch.equal(whole.last.data.images, again.last.data.images)
    assert whole.history.equals(again.history)
    assert torch.equal(whole.last.data.images[~MASK], SMALL.images[~MASK])
    assert not torch.equal(whole.last.data.images[MASK], SMALL.images[MASK])


def test_identities_tell_questions_apart():
    everything = [*QUESTIONS.values(), replace(QUESTIONS["dc"], inner=3), replace(QUESTIONS["dm"], train=SMALL)]
    assert len({fingerprint(q.identity()) for q in everything}) == len(everything)
    assert fingerprint(QUESTIONS["dm"].identity()) == fingerprint(replace(QUESTIONS["dm"]).identity())


@pytest.mark.parametrize("wrong, words", [
    (lambda: GradientMatching(SPEC, TRAIN, outer=0), "outer=0"), (lambda: GradientMatching(SPEC, TRAIN, inner=-1), "inner=-1"),
    (lambda: GradientMatching(SPEC, TRAIN, lr_net=float("nan")), "lr_net"), (lambda: GradientMatching(SPEC, TRAIN, distance="l2"), "rows, mse, cos"),
    (lambda: GradientMatching(SPEC, TRAIN, augmentation=Augmentation("combined")), "none, simple, dsa"),
    (lambda: DistributionMatching(SPEC, TRAIN, batch_real=0), "batch_real=0"), (lambda: DistributionMatching(SPEC, TRAIN, augmentation=Augmentation("combined")), "combined"),
    (lambda: DistributionMatching(SPEC, replace(TRAIN, images=TRAIN.images[:, :, :4, :4])).start(SMALL), "must agree"),
    (lambda: DistributionMatching({"name": "Perceptron"}, TRAIN).start(SMALL), "network"),
])
def test_bad_input(wrong, words):
    with pytest.raises(InputError, match=words): wrong()
