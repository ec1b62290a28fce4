"""DD: the real loss after T steps. Exact against the plain unrolled loop and against finite differences; steps, starts, resume, bad input."""
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from selmatch.train.augment import Augmentation, apply
from selmatch.core import InputError, fingerprint
from selmatch.data.images import class_rows
from selmatch.data.loaders import load_digits
from selmatch.distill.sets import SyntheticSet
from selmatch.distill.loop import Descent, distill
from selmatch.distill.sweep import walk_forward
from selmatch.train.networks import FlatNetwork, flatten, make_network
from selmatch.distill.objectives import SetState, objectives
from selmatch.distill.rollout import Rollout, fixed_steps, rollout

SPEC = {"name": "ConvNet", "width": 6, "depth": 2, "norm": "instance"}
TRAIN = load_digits(per_class=30).train
SMALL = TRAIN.subset(torch.cat([rows[:4] for rows in class_rows(TRAIN)]))
MASK = torch.arange(len(SMALL)) % 4 != 1
PLAIN = Augmentation("none")


def relative(a, b):
    return float((a - b).norm() / b.norm())


def numbers(seed=0):
    return torch.Generator().manual_seed(seed)


def problem(norm="batch", augmentation="dsa", soft=True, scalar=False, frozen=True, n_steps=2, epochs=2, seed=0):
    g, net = numbers(seed), make_network(SPEC | {"norm": norm}, (1, 8, 8), 10, seed).double()
    mask = MASK if frozen else torch.ones_like(MASK)
    labels = torch.randn(len(SMALL), 10, generator=g).double().softmax(1) if soft else SMALL.labels
    lr = torch.tensor(0.2).double() if scalar else 0.1 + 0.2 * torch.rand(n_steps * epochs, generator=g).double()
    return dict(flat=FlatNetwork(net), theta=flatten(net), images=torch.randn(SMALL.images.shape, generator=g).double(), labels=labels, lr=lr,
                steps=fixed_steps(SMALL, mask, n_steps, epochs, Augmentation(augmentation), g), distilled=mask,
                real_x=torch.randn(50, 1, 8, 8, generator=g).double(), real_y=torch.randint(10, (50,), generator=g), learn_labels=soft)


def plainly(flat, theta, images, labels, lr, steps, distilled, real_x, real_y, learn_labels):
    """Autograd through the loop as one would write it down."""
    leaves = [images.clone().requires_grad_(), lr.clone().requires_grad_()] + ([labels.clone().requires_grad_()] if learn_labels else [])
    x, rates, y = leaves[0], leaves[1].expand(len(steps)), leaves[2] if learn_labels else labels
    theta = theta.clone().requires_grad_()
    for rate, step in zip(rates, steps):
        theta = theta - rate * torch.autograd.grad(F.cross_entropy(flat(theta, apply(x[step.rows], step.draw)), y[step.rows]), theta, create_graph=True)[0]
    loss = F.cross_entropy(flat(theta, real_x), real_y)
    grads = torch.autograd.grad(loss, leaves)
    return {"loss": loss.detach(), "theta_end": theta.detach(), "images": grads[0][distilled], "lr": grads[1]} | ({"labels": grads[2]} if learn_labels else {})


@pytest.mark.parametrize("case", [
    dict(), dict(norm="instance"), dict(norm="none"), dict(augmentation="none"), dict(soft=False), dict(scalar=True), dict(frozen=False),
    dict(n_steps=1, epochs=1), dict(n_steps=4, epochs=3), dict(n_steps=3, epochs=1), dict(seed=3),
], ids=str)
def test_rollout_equals_unrolled_autograd(case):
    p = problem(**case)
    ours, oracle = rollout(**p), plainly(**p)
    assert oracle["images"].norm() > 0
    for part, wanted in oracle.items():
        assert getattr(ours, part).shape == wanted.shape, part
        assert relative(getattr(ours, part), wanted) <= 1e-10, part


def test_finite_differences():
    p, eps = problem(), 1e-6
    ours, rows, g = rollout(**p), torch.nonzero(MASK).flatten(), numbers(1)
    picks = [tuple(int(torch.randint(s, (), generator=g)) for s in ours.images.shape) for _ in range(5)]
    places = [("images", (int(rows[m]), *rest), ours.images[(m, *rest)], ours.images) for m, *rest in picks]
    places += [("lr", (i,), ours.lr[i], ours.lr) for i in range(4)] + [("labels", (7, 2), ours.labels[7, 2], ours.labels)]
    for name, at, value, scale in places:
        up, down = p[name].clone(), p[name].clone()
        up[at] += eps
        down[at] -= eps
        slope = (rollout(**{**p, name: up}).loss - rollout(**{**p, name: down}).loss) / (2 * eps)
        assert float(slope) == pytest.approx(float(value), abs=1e-6 * float(scale.abs().max())), (name, at)


def test_one_shared_size_answers_the_sum():
    p = problem()
    vector, scalar = (rollout(**p | {"lr": lr}) for lr in (torch.full((4,), 0.2).double(), torch.tensor(0.2).double()))
    assert scalar.lr.ndim == 0
    assert float(vector.lr.sum()) == pytest.approx(float(scalar.lr), rel=1e-10)
    assert torch.equal(vector.images, scalar.images)


def test_steps_of_size_zero_leave_the_start_and_still_have_a_slope():
    p = problem()
    still = rollout(**p | {"lr": torch.zeros(4).double()})
    assert torch.equal(still.theta_end, p["theta"])
    assert still.images.abs().max() == 0
    assert still.lr.abs().min() > 0
    assert torch.isclose(still.loss, F.cross_entropy(p["flat"](p["theta"], p["real_x"]), p["real_y"]))


def test_steps_are_dealt_and_kept():
    steps = fixed_steps(SMALL, MASK, 3, 2, PLAIN, numbers())
    assert len(steps) == 6
    assert [len(s.rows) for s in steps[:3]] == [20, 10, 10]
    assert sorted(torch.cat([s.rows for s in steps[:3]]).tolist()) == list(range(40))
    for a, b in zip(steps, steps[3:]): assert torch.equal(a.rows, b.rows)
    for s in steps:
        assert set(SMALL.labels[s.rows].tolist()) == set(range(10))
        assert MASK[s.rows[: s.n_distilled]].all()
        assert not MASK[s.rows[s.n_distilled:]].any()
    assert all(torch.equal(a.rows, b.rows) for a, b in zip(steps, fixed_steps(SMALL, MASK, 3, 2, PLAIN, numbers(9))))     # the draw has no say


def ask(question, lr, seed=0, mask=MASK, images=SMALL.images):
    return question.start(SMALL)(SetState(images, SMALL.labels, mask, lr, 0), numbers(seed))


def test_the_question_is_what_it_says():
    question = Rollout(SPEC, TRAIN, n_steps=2, epochs=2, batch_real=10**6, init="fixed", seed=3)
    asked = ask(question, torch.full((4,), 0.1))
    net = make_network(SPEC, (1, 8, 8), 10, 3)
    flat, theta = FlatNetwork(net), flatten(net)
    end = walk_forward(flat, theta, SMALL.images, SMALL.labels, torch.full((4,), 0.1), fixed_steps(SMALL, MASK, 2, 2, PLAIN, numbers()))[-1]
    assert float(asked.loss) == pytest.approx(float(F.cross_entropy(flat(end, TRAIN.images), TRAIN.labels)), rel=1e-5)
    assert asked.images.shape == SMALL.images[MASK].shape
    assert asked.lr.shape == (4,) == (question.n_rates,)
    assert asked.labels is None
    assert float(ask(question, torch.full((4,), 0.1), seed=7).loss) == pytest.approx(float(asked.loss), rel=1e-5)           # fixed start, all real images: no chance left
    random = replace(question, init="random")
    assert ask(random, torch.tensor(0.1), 0).loss != ask(random, torch.tensor(0.1), 7).loss
    assert ask(random, torch.tensor(0.1)).lr.ndim == 0
    assert torch.equal(ask(random, torch.tensor(0.1)).images, ask(random, torch.tensor(0.1)).images)


def test_following_the_answers_lowers_the_real_loss():
    question, images, lr = Rollout(SPEC, TRAIN, n_steps=1, epochs=5, init="fixed"), SMALL.images.clone(), torch.full((5,), 0.05)
    losses = []
    for i in range(25):
        asked = ask(question, lr, i, torch.ones_like(MASK), images)
        images, lr = images - 20 * asked.images, lr - 0.5 * asked.lr
        losses.append(float(asked.loss))
    assert losses[-1] < 0.8 * losses[0]
    assert (lr > 0.05).all()


@pytest.mark.parametrize("init, n_rates", [("fixed", 4), ("random", 4), ("random", None)])
def test_killed_runs_go_on_bit_for_bit(init, n_rates, tmp_path):
    question = Rollout(SPEC, TRAIN, n_steps=2, epochs=2, batch_real=50, init=init)
    assert n_rates in (None, question.n_rates)
    start, descent = SyntheticSet(SMALL, MASK), Descent(iterations=6, lr_images=1.0, lr_lr=1e-2, n_rates=n_rates)
    whole = distill(start, question, descent, seed=0)
    with pytest.raises(KeyboardInterrupt): distill(start, question, descent, seed=0, checkpoint=tmp_path / "c.safetensors", every=2, stop_after=3)
    again = distill(start, question, descent, seed=0, checkpoint=tmp_path / "c.safetensors", every=2)
    assert torch.equal(whole.last.data.images, again.last.data.images)
    assert whole.last.lr == again.last.lr
    assert whole.last.lr != whole.kept[0].lr, "no rate moved"
    assert torch.equal(whole.last.data.images[~MASK], SMALL.images[~MASK])


def test_identities_tell_questions_apart():
    a = Rollout(SPEC, TRAIN)
    everything = [a, replace(a, init="fixed"), replace(a, n_steps=3), replace(a, train=SMALL), replace(a, seed=1)]
    assert len({fingerprint(q.identity()) for q in everything}) == len(everything)
    assert objectives["dd"] is Rollout


@pytest.mark.parametrize("wrong, words", [
    (lambda: Rollout(SPEC, TRAIN, epochs=0), "epochs=0"), (lambda: Rollout(SPEC, TRAIN, n_steps=0), "n_steps=0"), (lambda: Rollout(SPEC, TRAIN, init="xavier"), "fixed, random"),
    (lambda: Rollout(SPEC, TRAIN, batch_real=0), "batch_real=0"), (lambda: Rollout(SPEC, TRAIN, seed=-1), "seed=-1"),
    (lambda: Rollout(SPEC, TRAIN, n_steps=5).start(SMALL), "n_steps=5.*has 4"), (lambda: Rollout(SPEC, replace(TRAIN, classes=TRAIN.classes[:5])).start(SMALL), "must agree"),
    (lambda: ask(Rollout(SPEC, TRAIN, n_steps=2, epochs=2), torch.full((3,), 0.1)), r"\(3,\).*T = 4"),
])
def test_bad_input(wrong, words):
    with pytest.raises(InputError, match=words): wrong()
