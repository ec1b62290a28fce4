"""Kernel objectives: exact where an answer is known, exact against other people's code, the same bits after a plugged pull."""
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.kernel_ridge import KernelRidge

from selmatch.core import InputError, fingerprint
from selmatch.data.loaders import load_digits
from selmatch.distill.sets import SyntheticSet
from selmatch.distill.loop import Descent, distill
from selmatch.distill.kernels import KernelInducingPoints, NetworkPool, NeuralFeatureRegression, adam_step, balanced_rows, centred, kernel_accuracy, label_margin, relu_ntk, ridge_predict, tangent_kernel
from selmatch.train.networks import FlatNetwork, make_network
from selmatch.distill.objectives import SetState, objectives

TRAIN, TEST = (lambda s: (s.train, s.test))(load_digits(per_class=40))
PLAIN = {"name": "ConvNet", "width": 6, "depth": 2, "norm": "none"}
BATCH = {"name": "ConvNet", "width": 6, "depth": 2}
QUESTIONS = {
    "kip": lambda **o: KernelInducingPoints(TRAIN, **({"batch_real": 60} | o)),
    "kip-network": lambda **o: KernelInducingPoints(TRAIN, **({"network": PLAIN, "batch_real": 30, "chunk": 7} | o)),
    "frepo": lambda **o: NeuralFeatureRegression(TRAIN, **({"network": BATCH, "batch_real": 60, "pool": 3, "max_age": 4} | o)),
}
every_question = pytest.mark.parametrize("kind", list(QUESTIONS))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def small_set(per_class=2, soft=False, double=False, frozen=True):
    small = TRAIN.subset(balanced_rows(TRAIN.labels, per_class, seeded()))
    n, kind = len(small), torch.float64 if double else torch.float32
    labels = 0.9 * F.one_hot(small.labels, 10).to(kind) + 0.01 if soft else small.labels
    return small, SetState(small.images.to(kind), labels, torch.arange(n) % 2 == 0 if frozen else torch.ones(n, dtype=torch.bool), torch.tensor(0.1), 0)


@pytest.mark.parametrize("reg", [1e-6, 1e-2, 3.0])
def test_ridge_is_scikit_learns(reg):
    x, z, y = normal(30, 40), normal(9, 40, seed=1), normal(30, 3, seed=2)
    K = lambda a, b: (-torch.cdist(a, b).square() / 40).exp() if reg == 3.0 else a @ b.T
    theirs = KernelRidge(alpha=reg * float(K(x, x).trace()) / 30, kernel="precomputed").fit(K(x, x).numpy(), y.numpy()).predict(K(z, x).numpy())
    assert np.allclose(ridge_predict(K(x, x), K(z, x), y, reg), theirs, atol=1e-8)


def test_ridge_answers_nan_when_the_matrix_is_no_kernel_and_double_precision_saves_it():
    low = normal(60, 4).float()
    y = normal(60, 2).float()
    assert ridge_predict(-low @ low.T, low @ low.T, y).isnan().all()
    wide = low.double() @ low.double().T
    assert ridge_predict(wide.float(), wide.float(), y, 1e-9, torch.float64).dtype == torch.float64
    assert ridge_predict(wide, wide, y.double(), 1e-9).isfinite().all()
    with pytest.raises(InputError, match="reg=-1"):
        ridge_predict(wide, wide, y, -1)


def test_a_linear_kernel_that_can_be_right_is_right_and_asks_for_nothing():
    x, z, w = normal(8, 5), normal(20, 5, seed=1), normal(5, 2, seed=2)
    x.requires_grad_()
    loss = (ridge_predict(x @ x.T, z @ x.T, x.detach() @ w, 1e-12) - z @ w).square().mean() / 2
    assert loss < 1e-15
    assert torch.autograd.grad(loss, x)[0].abs().max() < 1e-6


def test_the_infinite_network_has_a_kernel():
    x = normal(12, 6)
    for depth in range(4):
        K = relu_ntk(x, x, depth)
        assert torch.allclose(K, K.T)
        assert torch.linalg.eigvalsh(K).min() > -1e-10
        expected = 2 * x.square().mean(1) * (depth + 1) + 0.01 * (depth + 1) * (depth + 2) / 2      # Sigma grows by the bias, Theta sums the Sigmas
        assert torch.allclose(K.diagonal(), expected)
    assert torch.allclose(relu_ntk(x, x, 0), 2 * x @ x.T / 6 + 0.01)
    assert torch.autograd.gradcheck(lambda a: relu_ntk(a, a, 2).sin(), x.requires_grad_())


def test_the_infinite_network_is_the_limit_of_finite_ones():
    x = normal(5, 8).float()
    net = FlatNetwork(torch.nn.Sequential(torch.nn.Linear(8, 3000), torch.nn.ReLU(), torch.nn.Linear(3000, 1)))
    mean = sum(tangent_kernel(net, torch.randn(net.n_params, generator=seeded(s)), x, x)[0] for s in range(6)) / 6
    assert torch.allclose(mean.float(), relu_ntk(x, x), atol=0.06 * float(relu_ntk(x, x).max()))


@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_chunks_change_nothing(chunk):
    net = FlatNetwork(make_network(PLAIN, (1, 8, 8), 1, 0))
    x, z, omega = normal(3, 1, 8, 8).requires_grad_(), normal(9, 1, 8, 8, seed=1), normal(net.n_params, seed=2)
    whole, parts = (tangent_kernel(net, omega, x, z, chunk=c) for c in (9, chunk))
    assert torch.allclose(whole[1], parts[1])
    slopes = [torch.autograd.grad(K[1].sin().sum() + K[0].cos().sum(), x)[0] for K in (whole, parts)]
    assert torch.allclose(*slopes)


@every_question
@pytest.mark.parametrize("soft", [False, True])
def test_gradients_are_those_of_the_loss(kind, soft):
    small, now = small_set(soft=soft, double=True)
    running = QUESTIONS[kind]().start(small)
    running(now, seeded(1))
    held = running.state()

    def ask(current):
        running.restore(held)
        return running(current, seeded(2))

    dx, dy, step = normal(int(now.distilled.sum()), 1, 8, 8), normal(20, 10, seed=1), 1e-5
    rows = now.distilled.nonzero().flatten()
    move = lambda h: replace(now, images=now.images.index_add(0, rows, h * dx), labels=now.labels + h * dy if soft else now.labels)
    slope = float((ask(move(step)).loss - ask(move(-step)).loss) / (2 * step))
    asked = ask(now)
    given = float((asked.images * dx).sum()) + (float((asked.labels * dy).sum()) if soft else 0)
    assert given == pytest.approx(slope, rel=1e-3)
    assert (asked.labels is not None) == soft
    assert asked.lr is None
    if soft:
        assert asked.labels.sum(1).abs().max() < 1e-12, "a step along the gradient keeps every row's sum"


@every_question
def test_frozen_images_count_but_are_not_asked(kind):
    small, now = small_set()
    asked = QUESTIONS[kind]().start(small)(now, seeded())
    assert asked.images.shape == (10, 1, 8, 8)
    assert asked.images.dtype == torch.float32
    other = replace(now, images=torch.where(now.distilled.view(-1, 1, 1, 1), now.images, now.images.flip(0)))
    assert QUESTIONS[kind]().start(small)(other, seeded()).loss != asked.loss
    free = QUESTIONS[kind]().start(small)(replace(now, distilled=torch.ones(20, dtype=torch.bool)), seeded())
    assert torch.allclose(free.images[::2], asked.images, rtol=1e-3, atol=1e-5)
    assert torch.isclose(free.loss, asked.loss)


@every_question
def test_a_set_with_nothing_to_distil_is_asked_nothing(kind):
    small, now = small_set()
    asked = QUESTIONS[kind]().start(small)(replace(now, distilled=torch.zeros(20, dtype=torch.bool)), seeded())
    assert asked.images.shape == (0, 1, 8, 8)
    assert asked.loss.isfinite()


@every_question
def test_a_resumed_run_ends_with_the_same_bits(kind, tmp_path):
    small, now = small_set()
    start, descent, question = SyntheticSet(small, now.distilled), Descent(iterations=14, lr_images=1.0), QUESTIONS[kind]()
    whole = distill(start, question, descent, seed=3)
    with pytest.raises(KeyboardInterrupt):
        distill(start, question, descent, seed=3, checkpoint=tmp_path / "c.safetensors", every=5, stop_after=12)
    resumed = distill(start, QUESTIONS[kind](), descent, seed=3, checkpoint=tmp_path / "c.safetensors", every=5)
    assert torch.equal(whole.last.data.images, resumed.last.data.images)
    assert whole.history.equals(resumed.history)
    assert torch.equal(whole.last.data.images[~now.distilled], small.images[~now.distilled])
    assert not whole.history.skipped.any()
    assert not torch.equal(whole.last.data.images, small.images)


@pytest.mark.parametrize("kind, lr, iterations", [("kip", 300.0, 40), pytest.param("kip-network", 3000.0, 40, marks=pytest.mark.slow), ("frepo", 30.0, 60)])
def test_the_loss_falls(kind, lr, iterations):
    small, now = small_set(1, frozen=False)
    question = QUESTIONS[kind](batch_real=200)
    run = distill(SyntheticSet(small, now.distilled), question, Descent(iterations=iterations, lr_images=lr), seed=0)
    loss = run.history.loss
    assert loss[-10:].mean() < 0.9 * loss[:10].mean()
    if kind == "kip":
        assert kernel_accuracy(relu_ntk, run.last.data, TEST) > kernel_accuracy(relu_ntk, small, TEST) + 0.03


def test_a_network_of_the_pool_lives_and_dies_on_time():
    pool, g, ages = NetworkPool(lambda g: torch.randn(4, generator=g), 5, 10, 0.1), seeded(), []
    for _ in range(200):
        i = pool.pick(g)
        pool.step(i, lambda w: w, g)
        ages.append(pool.tensors["ages"].tolist())
    assert max(map(max, ages)) == 10
    assert ages[-1] != ages[0]
    assert (pool.tensors["steps"] <= pool.tensors["ages"]).all()
    state = pool.state()
    pool.step(0, lambda w: w + 1, g)
    assert not torch.equal(state["weights"], pool.tensors["weights"]), "a state is a copy"


def test_adam_is_torchs():
    mine, theirs = torch.linspace(-1, 1, 7), torch.linspace(-1, 1, 7).requires_grad_()
    memory, adam = (torch.zeros(7), torch.zeros(7)), torch.optim.Adam([theirs], lr=0.05)
    for step in range(1, 30):
        adam_step(mine, (3 * mine).sin(), *memory, step, 0.05)
        theirs.grad = (3 * theirs.detach()).sin()
        adam.step()
    assert torch.allclose(mine, theirs, atol=1e-6)


def test_small_pieces():
    labels = torch.tensor([0] * 5 + [1] * 2 + [3] * 4)
    rows = balanced_rows(labels, 3, seeded())
    assert labels[rows].tolist() == [0, 0, 0, 1, 1, 3, 3, 3]
    assert len(rows.unique()) == 8
    assert torch.equal(rows, balanced_rows(labels, 3, seeded()))
    assert not torch.equal(rows, balanced_rows(labels, 3, seeded(1)))
    assert torch.equal(centred(F.one_hot(labels, 4).float(), 4), centred(labels, 4))
    assert label_margin(torch.tensor([[0.5, 0.4, 0.1]])) == pytest.approx(-0.1)
    assert label_margin(torch.eye(3)) == pytest.approx(-1 / 3)


@every_question
def test_an_identity_follows_what_the_answers_depend_on(kind):
    one = fingerprint(QUESTIONS[kind]().identity())
    assert one == fingerprint(QUESTIONS[kind]().identity()) != fingerprint(QUESTIONS[kind](reg=0.1).identity())
    other = replace(QUESTIONS[kind](), train=TRAIN.subset(torch.arange(100)))
    assert fingerprint(other.identity()) != one
    assert type(other) is objectives[kind.split("-")[0]]


@pytest.mark.parametrize("make, what", [
    (lambda: KernelInducingPoints(TRAIN, BATCH).start(TRAIN), "BatchNorm2d"), (lambda: KernelInducingPoints(TRAIN, batch_real=9), "batch_real=9"),
    (lambda: KernelInducingPoints(TRAIN, depth=-1), "depth=-1"), (lambda: KernelInducingPoints(TRAIN, reg=float("nan")), "reg=nan"),
    (lambda: KernelInducingPoints(TRAIN, dtype="half"), "half"), (lambda: NeuralFeatureRegression(TRAIN, BATCH, pool=0), "pool=0"),
    (lambda: NeuralFeatureRegression(TRAIN, {"name": "Net"}).start(TRAIN), "'Net'"), (lambda: NeuralFeatureRegression(TRAIN, BATCH, max_age=0), "max_age=0"),
])
def test_bad_input_is_named(make, what):
    with pytest.raises(InputError, match=what):
        make()


def test_the_first_slope_of_a_process_says_nothing():
    """PyTorch loads a part of itself at the first `jvp`, which warns about another; a reader would see red."""
    said = "import torch; from selmatch.train.cut import differentiate_along as along; print(along(torch.sin, torch.zeros(()), torch.ones(())).item())"
    done = subprocess.run([sys.executable, "-W", "error::FutureWarning", "-c", said], capture_output=True, text=True)
    assert done.stdout.strip() == "1.0", done.stderr[-500:]
    assert done.stderr == ""
