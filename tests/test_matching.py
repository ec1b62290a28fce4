"""The reverse sweep against two oracles: autograd through all steps, and finite differences."""
import functools
from functools import partial

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from selmatch.train.augment import Augmentation, apply
from selmatch.data.images import ImageSet
from selmatch.distill.sets import SyntheticSet
from selmatch.distill.loop import Descent, distill
from selmatch.distill.sweep import Keeper, Kept, draw_steps, first_order, keep_graph, reverse_sweep, second_order, unrolled
from selmatch.core import InputError
from selmatch.distill.trajectories import tesla_sweep
from selmatch.distill.compiled import channels_last_loss, compiled_keep, compiled_steps, gradient_and_back, make_loss, reverse_over_forward, write_out_norms
from selmatch.train.cut import cut, trace
from selmatch.train.networks import FlatNetwork, flatten, make_network
from selmatch.distill.objectives import Answer, RunningObjective


def problem(dtype=torch.float64, norm="batch", n_steps=6, augmentation="dsa", soft=True, frozen=True, channels=3, n=15, batch=6, network="ConvNet", seed=0):
    generator = torch.Generator().manual_seed(seed)
    spec = {"name": "ConvNet", "width": 8, "depth": 2, "norm": norm} if network == "ConvNet" else {"name": network}
    nets = [make_network(spec, (channels, 8, 8), 4, seed=s).to(dtype) for s in (seed, seed + 1)]
    images = torch.randn(n, channels, 8, 8, generator=generator).to(dtype)
    labels = torch.randn(n, 4, generator=generator).softmax(1).to(dtype) if soft else torch.randint(4, (n,), generator=generator)
    distilled = torch.arange(n) % 3 != 0 if frozen else torch.ones(n, dtype=torch.bool)
    return dict(flat=FlatNetwork(nets[0]), theta_start=flatten(nets[0]), theta_goal=flatten(nets[1]), images=images, labels=labels, lr=torch.tensor(0.2, dtype=dtype),
                steps=draw_steps(n_steps, distilled, batch, Augmentation(augmentation, per="image" if augmentation == "combined" else "batch"), generator),
                distilled=distilled, learn_labels=soft)


def relative(a, b):
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("dtype, bound", [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("case", [
    dict(), dict(norm="instance"), dict(norm="group"), dict(norm="none"), dict(augmentation="none"), dict(augmentation="simple"), dict(augmentation="combined"),
    dict(soft=False), dict(frozen=False), dict(n_steps=1), dict(batch=100), dict(channels=1, seed=3), dict(seed=7),
], ids=str)
def test_sweep_equals_unrolled_autograd(case, dtype, bound):
    case = dict(case)
    ours, oracle = reverse_sweep(**problem(dtype, **case)), unrolled(**problem(dtype, **case))
    assert oracle.images.norm() > 0 and oracle.lr.abs() > 0          # an oracle that is zero would prove nothing
    for part in ("loss", "images", "lr", "theta_end") + (("labels",) if case.get("soft", True) else ()):
        assert relative(getattr(ours, part), getattr(oracle, part)) <= bound, part


def test_sweep_through_a_resnet():
    case = dict(network="ResNet18", n_steps=2, n=6, batch=4, soft=False)
    assert relative(reverse_sweep(**problem(**case)).images, unrolled(**problem(**case)).images) <= 1e-10


def test_finite_differences():
    p = problem()
    ours, eps = reverse_sweep(**p), 1e-6
    rows = torch.nonzero(p["distilled"]).flatten()
    loss = lambda **change: float(reverse_sweep(**{**p, **change}).loss)
    generator = torch.Generator().manual_seed(1)
    for _ in range(6):
        m, c, y, x = (int(torch.randint(s, (), generator=generator)) for s in ours.images.shape)
        nudge = torch.zeros_like(p["images"])
        nudge[rows[m], c, y, x] = eps
        slope = (loss(images=p["images"] + nudge) - loss(images=p["images"] - nudge)) / (2 * eps)
        assert slope == pytest.approx(float(ours.images[m, c, y, x]), abs=1e-6 * float(ours.images.abs().max()))
    slope = (loss(lr=p["lr"] + eps) - loss(lr=p["lr"] - eps)) / (2 * eps)
    assert slope == pytest.approx(float(ours.lr), rel=1e-6)
    nudge = torch.zeros_like(p["labels"])
    nudge[4, 1] = eps
    slope = (loss(labels=p["labels"] + nudge) - loss(labels=p["labels"] - nudge)) / (2 * eps)
    assert slope == pytest.approx(float(ours.labels[4, 1]), rel=1e-5, abs=1e-8)


def test_no_steps_is_loss_one_and_no_gradient():
    still = reverse_sweep(**problem(n_steps=0))
    assert still.loss == 1 and still.images.abs().max() == 0 and still.lr == 0


def test_the_truncated_gradient_is_not_the_exact_one():
    """The check above could be passed by a sweep that ignores curvature only if curvature did not matter here. It does."""
    p = problem()
    exact = reverse_sweep(**p).images
    assert relative(tesla_sweep(**p).images, exact) > 0.05


def test_frozen_images_stay_bit_for_bit():
    p = problem(torch.float32, soft=False)
    data = ImageSet(p["images"], p["labels"], tuple("abcd"), (0.5,) * 3, (0.25,) * 3)
    start = SyntheticSet(data, p["distilled"])

    class Follow(RunningObjective):
        def identity(self): return {}

        def start(self, like): return self

        def __call__(self, current, generator):
            matched = reverse_sweep(p["flat"], p["theta_start"], p["theta_goal"], current.images, current.labels, current.lr, p["steps"], current.distilled)
            return Answer(matched.loss, matched.images, None, matched.lr)

    run = distill(start, Follow(), Descent(iterations=25, lr_images=1.0, start_lr=0.1, evaluate_at=(7,)), seed=0)
    for small in run.kept.values():
        assert torch.equal(small.data.images[~start.distilled], data.images[~start.distilled])
    assert sorted(run.kept) == [0, 7, 25] and not torch.equal(run.last.data.images[start.distilled], data.images[start.distilled])
    assert (run.history.lr > 0).all()


def test_a_rate_for_every_step():
    p = {**problem(), "lr": torch.linspace(0.05, 0.3, 6, dtype=torch.float64)}
    ours, oracle = reverse_sweep(**p), unrolled(**p)
    assert ours.lr.shape == (6,) and relative(ours.lr, oracle.lr) <= 1e-10 and relative(ours.images, oracle.images) <= 1e-10


@pytest.mark.parametrize("case", [dict(norm=norm) for norm in ("batch", "instance", "group", "layer", "none")] + [dict(network="ResNet18", n=6, batch=4)], ids=str)
@pytest.mark.parametrize("soft", [True, False])
def test_reverse_over_forward_is_exact_for_every_norm(case, soft):
    """Through PyTorch's fused batch norm it would not be; through the written-out one it is."""
    p = problem(soft=soft, **case)
    step, v = p["steps"][0], torch.randn(p["flat"].n_params, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    x, y = apply(p["images"][step.rows], step.draw), p["labels"][step.rows]
    ours = reverse_over_forward(partial(channels_last_loss, write_out_norms(p["flat"])), p["theta_start"], x, y, v)
    plain = second_order(p["flat"], p["theta_start"], x, y, v)
    assert torch.equal(p["flat"](p["theta_start"], x).argmax(1), write_out_norms(p["flat"])(p["theta_start"], x).argmax(1))
    assert all(relative(a, b) <= 1e-10 for a, b in zip(ours, plain) if b is not None) and (ours[3] is None) == (not soft)


@pytest.mark.slow
def test_the_papers_network_in_float32():
    """A smooth activation, for with ReLU some activation always sits on the kink and the comparison would be one of rounding."""
    def make(dtype):
        net, generator = make_network({"name": "ConvNet"}, (3, 32, 32), 10, 0), torch.Generator().manual_seed(0)
        for block in list(net.body)[:3]: block[2] = torch.nn.Softplus()
        images = torch.randn(24, 3, 32, 32, generator=generator).to(dtype)
        steps = draw_steps(2, torch.arange(24) % 2 == 0, 16, Augmentation("dsa"), generator)
        return dict(flat=FlatNetwork(net.to(dtype)), theta_start=flatten(net), theta_goal=flatten(net) * 0.9, images=images, labels=torch.arange(24) % 10, lr=torch.tensor(0.02, dtype=dtype),
                    steps=steps, distilled=torch.arange(24) % 2 == 0)
    exact, p = unrolled(**make(torch.float64)), make(torch.float32)
    first, second = compiled_steps(p["flat"])
    for ours in (reverse_sweep(**p), reverse_sweep(**p, first=first, second=second)):
        for part in ("loss", "images", "lr", "theta_end"): assert relative(getattr(ours, part).double(), getattr(exact, part)) <= 1e-5, part


@pytest.mark.parametrize("dtype, bound, soft", [(torch.float64, 1e-10, True), pytest.param(torch.float32, 1e-5, False, marks=pytest.mark.slow)])
def test_compiled_steps_are_exact_too(dtype, bound, soft):
    p = problem(dtype, soft=soft, n_steps=3, n=12 if soft else 15)
    first, second = compiled_steps(p["flat"])
    ours, oracle = reverse_sweep(**p, first=first, second=second), unrolled(**p)
    for part in ("loss", "images", "lr", "theta_end") + (("labels",) if soft else ()):
        assert relative(getattr(ours, part), getattr(oracle, part)) <= bound, part


@pytest.mark.parametrize("soft, dtype, bound", [(False, torch.float32, 1e-5), pytest.param(True, torch.float64, 1e-10, marks=pytest.mark.slow)])
def test_memory_buys_time_and_changes_no_bit_compiled(soft, dtype, bound):
    p = problem(dtype, soft=soft, n_steps=3, n=15 if soft else 12)       # twelve: batches of one size, compiled once
    keep = compiled_keep(p["flat"])
    rows = p["steps"][0].rows
    size = keep(p["flat"], p["theta_start"], p["images"][rows], p["labels"][rows]).size
    none, two, every = (sweep_keeping(p, keep, n * size) for n in (0, 2, 3))
    oracle = unrolled(**p)
    for part in ("loss", "images", "lr", "theta_end") + (("labels",) if soft else ()):
        assert torch.equal(getattr(none, part), getattr(every, part)), part
        assert torch.equal(getattr(none, part), getattr(two, part)), part
        assert relative(getattr(every, part), getattr(oracle, part)) <= bound, part


def sweep_keeping(p, keep, memory):
    keeper = Keeper(keep, memory)
    matched = reverse_sweep(**p, first=keeper.first, second=keeper.second)
    assert not keeper.backs                                  # every step was gone back over
    return matched


@pytest.mark.parametrize("soft", [True, False])
def test_memory_buys_time_and_changes_no_bit(soft):
    p = problem(torch.float32, soft=soft, n_steps=4)
    plain = reverse_sweep(**p)
    for memory in (0, 1, 10**5, float("inf")):
        ours = sweep_keeping(p, keep_graph, memory)
        for part in ("loss", "images", "lr", "theta_end") + (("labels",) if soft else ()):
            assert torch.equal(getattr(ours, part), getattr(plain, part)), (memory, part)


def test_steps_are_kept_while_they_fit():
    taken = []
    def keep(*given):
        taken.append(given)
        return Kept(torch.zeros(1), lambda v: ("kept", given), 40)
    keeper = Keeper(keep, memory=100)
    for i in range(4): keeper.first(i)
    assert [back is not None for back in keeper.backs] == [True, True, False, False] and keeper.room == 20
    for i in reversed(range(4)): assert keeper.second(i, "v") == ("kept", (i,))
    assert [given[0] for given in taken] == [0, 1, 2, 3, 3, 2]            # two were taken again
    with pytest.raises(InputError, match="memory=-1"): Keeper(keep, -1)


@pytest.mark.parametrize("spec", [
    *({"name": "ConvNet", "width": 4, "depth": 2, "norm": norm} for norm in ("batch", "group", "instance", "layer", "none")),
    {"name": "AlexNet"}, pytest.param({"name": "ResNet18"}, marks=pytest.mark.slow)], ids=str)
def test_a_step_cut_in_two_is_exact(spec):
    net, generator = make_network(spec, (3, 16, 16), 10, 0).double(), torch.Generator().manual_seed(0)
    flat, theta = FlatNetwork(net), flatten(net)
    x = torch.randn(4, 3, 16, 16, generator=generator, dtype=torch.float64)
    v = torch.randn(theta.shape, generator=generator, dtype=torch.float64)
    for y in (torch.arange(4), torch.rand(4, 10, generator=generator, dtype=torch.float64).softmax(1)):
        whole = functools.partial(gradient_and_back, make_loss(flat, "float32"))
        one, two = cut(trace(whole, theta, x, y, v), n_early=1)
        (g,), kept = one(theta, x, y)
        assert relative(g, first_order(flat, theta, x, y)) <= 1e-10
        for ours, exact in zip(two(theta, x, y, v, *kept), second_order(flat, theta, x, y, v)):
            assert relative(ours, exact) <= 1e-10


def test_the_first_part_looks_at_no_direction_and_the_second_repeats_no_convolution():
    net = make_network({"name": "ConvNet", "width": 4, "depth": 2}, (3, 16, 16), 10, 0)
    flat, theta, x = FlatNetwork(net), flatten(net), torch.randn(4, 3, 16, 16)
    whole = functools.partial(gradient_and_back, make_loss(flat, "float32"))
    one, two = cut(trace(whole, theta, x, torch.arange(4), torch.ones_like(theta)), n_early=1)
    assert len([n for n in one.graph.nodes if n.op == "placeholder"]) == 3
    def flops(call):
        with FlopCounterMode(display=False) as counter: call()
        return counter.get_total_flops()
    forward = flops(lambda: make_loss(flat, "float32")(theta, x, torch.arange(4)))
    _, kept = one(theta, x, torch.arange(4))
    units = (flops(lambda: one(theta, x, torch.arange(4))) / forward,
             flops(lambda: two(theta, x, torch.arange(4), torch.ones_like(theta), *kept)) / forward)
    # three and six, and a little: the first layer's gradient by the images is formed in both
    assert units[0] < 4.2 and units[1] < 6.2 and sum(units) < 9.7, units


def test_memory_is_in_no_key_and_is_checked():
    from selmatch.distill.trajectories import TrajectoryMatching
    plain, frugal = (TrajectoryMatching({}, ["a/b"], memory=m) for m in (None, 0.5))
    assert plain.identity() == frugal.identity()
    with pytest.raises(InputError, match="memory=-1"): TrajectoryMatching({}, ["a/b"], memory=-1)


class Unusable(RunningObjective):
    """An objective whose answers are not finite from some iteration on."""
    def __init__(self, bad, since): self.bad, self.since = bad, since
    def identity(self): return {"since": self.since}
    def start(self, like): return self

    def __call__(self, current, generator):
        wild = current.iteration >= self.since
        gradient = torch.full_like(current.images[current.distilled], float("nan") if wild and self.bad == "gradient" else 1e-3)
        loss = {"loss": float("nan"), "infinite": float("inf")}.get(self.bad, 1.0) if wild else 1.0
        return Answer(torch.tensor(loss), gradient, None, torch.tensor(1e3))


@pytest.mark.parametrize("bad", ["loss", "infinite", "gradient"])
def test_an_unusable_answer_changes_nothing_and_twenty_end_the_run(bad, tmp_path):
    data = ImageSet(torch.zeros(4, 1, 4, 4), torch.tensor([0, 0, 1, 1]), ("a", "b"), (0.5,), (0.25,))
    start = SyntheticSet(data, torch.tensor([True, False, True, False]))
    # ten of fifteen are more than half, which `skip_at_most` would end; here the last twenty are meant
    run = distill(start, Unusable(bad, 5), Descent(iterations=15, lr_images=1.0, start_lr=0.1, evaluate_at=(5,), skip_at_most=1.0), seed=0)
    assert torch.equal(run.kept[5].data.images, run.last.data.images) and run.history.skipped.sum() == 10
    assert (run.history.lr >= 0.1 / 100).all()                    # the rate was pushed far below zero and stopped at its floor
    with pytest.raises(InputError, match="diverged at iteration 25.*lr_images=1.0"):
        distill(start, Unusable(bad, 5), Descent(iterations=50, lr_images=1.0, start_lr=0.1), seed=0)


def test_soft_labels_and_kept_sets_survive_a_restart(tmp_path):
    p = problem(torch.float32)
    data = ImageSet(p["images"], p["labels"], tuple("abcd"), (0.5,) * 3, (0.25,) * 3)
    start, descent = SyntheticSet(data, p["distilled"]), Descent(iterations=12, lr_images=1.0, lr_labels=0.1, start_lr=0.1, evaluate_at=(3,))

    class Follow(RunningObjective):
        def identity(self): return {}

        def start(self, like): return self

        def __call__(self, current, generator):
            m = reverse_sweep(p["flat"], p["theta_start"], p["theta_goal"], current.images, current.labels, current.lr, p["steps"], current.distilled, True)
            return Answer(m.loss, m.images, m.labels, m.lr)

    whole = distill(start, Follow(), descent, seed=0)
    with pytest.raises(KeyboardInterrupt):
        distill(start, Follow(), descent, seed=0, checkpoint=tmp_path / "c.safetensors", every=2, stop_after=7)
    again = distill(start, Follow(), descent, seed=0, checkpoint=tmp_path / "c.safetensors", every=2)
    for i in (0, 3, 12):
        assert torch.equal(whole.kept[i].data.labels, again.kept[i].data.labels) and torch.equal(whole.kept[i].data.images, again.kept[i].data.images)
    assert not torch.equal(whole.kept[0].data.labels, whole.kept[12].data.labels)


def lay_out_anew(images):
    """The same numbers, turned in memory: what a picture of one channel read as (h, w, c) looks like."""
    return images.permute(0, 2, 3, 1).clone(memory_format=torch.contiguous_format).permute(0, 3, 1, 2)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_layout_of_images_in_memory_changes_no_bit(channels):
    for seed in range(12):
        given = problem(torch.float32, channels=channels, seed=seed, soft=False)
        turned = given | {"images": lay_out_anew(given["images"])}
        assert turned["images"].stride() != given["images"].stride()
        ours, other = reverse_sweep(**given), reverse_sweep(**turned)
        assert torch.equal(ours.loss, other.loss)
        assert torch.equal(ours.images, other.images)
        assert torch.equal(ours.lr, other.lr)


def test_an_image_set_has_one_layout():
    images = torch.randn(6, 1, 8, 8)
    plain, turned = (ImageSet(x, torch.arange(6) % 2, ("a", "b"), (0.0,), (1.0,)) for x in (images, lay_out_anew(images)))
    assert turned.key == plain.key
    assert turned.images.stride() == plain.images.stride() == turned.subset([1, 0]).images.stride()
