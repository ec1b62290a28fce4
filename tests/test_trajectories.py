"""TESLA's gradient against another reading of it, flat experts, and DATM's bounds, start and labels."""
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from selmatch.train.augment import Augmentation, apply
from selmatch.core import InputError
from selmatch.data.loaders import load_digits
from selmatch.distill.sets import SyntheticSet
from selmatch.distill.loop import Descent, distill
from selmatch.distill.experts import ExpertTask, Trajectory, expert_recipe, train_expert, train_experts
from selmatch.distill.sweep import reverse_sweep, second_order
from selmatch.train.networks import FlatNetwork, make_network
from selmatch.distill.objectives import SetState
from selmatch.distill.trajectories import TrajectoryMatching
from selmatch.computer import Computer
from selmatch.distill.trajectories import (
    DATM, FTD, TESLA, Flatness, correctly_classified, expert_logits, flat_gradient, right_labels, sharpness, tesla_sweep, uphill, well_classified,
)
from test_matching import problem, relative

SPEC = {"name": "ConvNet", "width": 4, "depth": 2}
DIGITS = load_digits(per_class=40).train
QUIET = Computer(quiet=True)


@pytest.fixture(scope="module")
def experts(tmp_path_factory):
    return train_experts(tmp_path_factory.mktemp("plain"), DIGITS, SPEC, expert_recipe(len(DIGITS), 6, 32, 0.05), 2, computer=QUIET)


def held_still(p, images, lr):
    """L with every θ_i of the sum held at its place: the function whose gradient TESLA's is."""
    theta, total = p["theta_start"], 0
    for step in p["steps"]:
        at = theta.detach().requires_grad_()
        g = torch.autograd.grad(F.cross_entropy(p["flat"](at, apply(images[step.rows], step.draw)), p["labels"][step.rows]), at, create_graph=True)[0]
        total, theta = total + g, theta - p["lr"] * g.detach()
    return (p["theta_start"] - lr * total - p["theta_goal"]).square().sum() / (p["theta_start"] - p["theta_goal"]).square().sum()


@pytest.mark.parametrize("case", [dict(), dict(norm="instance"), dict(soft=False, augmentation="none"), dict(n_steps=1), dict(frozen=False, n_steps=9)], ids=str)
def test_teslas_gradient_is_that_of_weights_held_still_and_not_half_of_it(case):
    p = problem(**case)
    ours, images, lr = tesla_sweep(**p), p["images"].clone().requires_grad_(), p["lr"].clone().requires_grad_()
    loss = held_still(p, images, lr)
    by_images, by_lr = torch.autograd.grad(loss, (images, lr))
    assert relative(ours.loss, loss.detach()) < 1e-12
    assert relative(ours.images, by_images[p["distilled"]]) < 1e-10 and relative(ours.lr, by_lr) < 1e-10       # half of it would be 0.5 away
    exact = reverse_sweep(**p)
    assert torch.equal(ours.loss, exact.loss) and torch.equal(ours.theta_end, exact.theta_end)
    gap = relative(ours.images, exact.images)
    assert gap == 0 if case.get("n_steps") == 1 else gap > 0.02
    assert not p["learn_labels"] or ours.labels.shape == p["labels"].shape


def test_what_tesla_drops_shrinks_with_the_step_size():
    gaps = []
    for lr in (0.001, 0.01, 0.1):
        p = problem(soft=False) | {"lr": torch.tensor(lr, dtype=torch.float64)}
        gaps.append(relative(tesla_sweep(**p).images, reverse_sweep(**p).images))
    assert gaps[0] < gaps[1] < gaps[2] and gaps[0] < 0.05


def test_tesla_uses_the_second_step_it_is_given():
    p, calls = problem(n_steps=3), []
    def counted(*rest): calls.append(1); return second_order(*rest)
    assert torch.equal(tesla_sweep(**p, second=counted).images, tesla_sweep(**p).images) and len(calls) == 3


def test_the_worst_step_has_its_size_and_is_the_worst():
    generator = torch.Generator().manual_seed(0)
    w, g = [[torch.randn(n, generator=generator, dtype=torch.float64) for n in (5, 7)] for _ in range(2)]
    flatten = lambda parts: torch.cat(parts)
    for adaptive in (False, True):
        step = flatten(uphill(w, g, Flatness(0.3, adaptive=adaptive)))
        scale = flatten(w).abs() if adaptive else torch.ones(12)
        assert torch.allclose((step / scale).norm(), torch.tensor(0.3, dtype=torch.float64))
        others = torch.randn(2000, 12, generator=generator, dtype=torch.float64)
        others = others / others.norm(dim=1, keepdim=True) * 0.3 * scale
        assert step @ flatten(g) > (others @ flatten(g)).max()
    pushed = flat_gradient(w, g, 0.7)
    across = (flatten(w) - flatten(pushed)) / 0.7
    assert abs(float(across @ flatten(w))) < 1e-10 and torch.allclose(flatten(g), across + flatten(w) * (flatten(g) @ flatten(w)) / (flatten(w) @ flatten(w)))


def test_flat_experts_are_plain_at_radius_zero_repeatable_and_known_by_their_card(experts, tmp_path):
    recipe = expert_recipe(len(DIGITS), 6, 32, 0.05)
    make = lambda name, flatness: train_experts(tmp_path / name, DIGITS, SPEC, recipe, 2, computer=QUIET, flatness=flatness)
    none, one, two = make("none", Flatness(0.0, 0.0)), make("one", Flatness(0.5)), make("two", Flatness(0.5))
    for a, b, c, d in zip(experts, none, one, two):
        assert torch.equal(Trajectory(a).rows[:], Trajectory(b).rows[:])
        assert c.read_bytes() == d.read_bytes() and not torch.equal(Trajectory(a).rows[:], Trajectory(c).rows[:])
    before = one[0].stat().st_mtime_ns
    assert make("one", Flatness(0.5))[0].stat().st_mtime_ns == before and make("one", Flatness(0.4))[0].stat().st_mtime_ns != before
    assert FTD(SPEC, two).experts == two
    with pytest.raises(InputError, match="expert_000.safetensors is not flat"): FTD(SPEC, experts)
    for bad in (dict(rho=-1), dict(alpha=-1)):
        with pytest.raises(InputError): Flatness(**bad)


def test_sharpness_of_a_first_order_step(experts):
    flat = FlatNetwork(make_network(SPEC, DIGITS.shape, 10, 0))
    theta = Trajectory(experts[0])[6]
    before = theta.clone()
    g = torch.autograd.grad(F.cross_entropy(flat(leaf := theta.clone().requires_grad_(), DIGITS.images), DIGITS.labels), leaf)[0]
    assert sharpness(flat, theta, DIGITS, Flatness(1e-3, adaptive=False)) == pytest.approx(1e-3 * float(g.norm()), rel=0.02)
    assert torch.equal(theta, before) and not theta.requires_grad
    draw = lambda: sharpness(flat, theta, DIGITS, Flatness(0.5), torch.Generator().manual_seed(0))
    assert draw() == draw() and sharpness(flat, theta, DIGITS, Flatness(0.5)) > draw()


def test_datm_with_still_bounds_is_mtt_to_the_bit(experts):
    small = SyntheticSet(DIGITS.subset(torch.arange(0, len(DIGITS), 10)), torch.arange(len(range(0, len(DIGITS), 10))) % 2 == 0)
    settings = dict(n_steps=4, batch=10, augmentation=Augmentation("dsa"))
    descent = Descent(iterations=5, lr_images=10.0, start_lr=0.05)
    mtt, same = (distill(small, o, descent, seed=0).last for o in (
        TrajectoryMatching(SPEC, experts, max_start=4, **settings), DATM(SPEC, experts, min_start=0, first_max_start=4, max_start=4, expansion_end=3, **settings)))
    assert torch.equal(mtt.data.images, same.data.images) and mtt.lr == same.lr


def test_bounds_move_and_bad_ones_are_named(experts):
    objective = DATM(SPEC, experts, min_start=1, first_max_start=2, max_start=5, expansion_end=10)
    assert [objective.bound(i) for i in (0, 3, 4, 6, 7, 9, 10, 99)] == [2, 2, 3, 3, 4, 4, 5, 5]
    for bad, word in ((dict(first_max_start=1), "first_max_start"), (dict(first_max_start=6), "first_max_start"), (dict(expansion_end=-1), "expansion_end"), (dict(max_start=1), "max_start")):
        with pytest.raises(InputError, match=word): DATM(SPEC, experts, **(dict(min_start=1, first_max_start=2, max_start=5, expansion_end=10) | bad))


def test_soft_labels_are_learned_and_survive_a_restart(experts, tmp_path):
    rows = well_classified(DIGITS, 2, right=correctly_classified(DIGITS, SPEC, experts), generator=torch.Generator().manual_seed(0))
    labels = right_labels(expert_logits(DIGITS, SPEC, experts)[:, rows], DIGITS.labels[rows])
    start = SyntheticSet(replace(DIGITS.subset(rows), labels=labels), torch.ones(20, dtype=torch.bool))
    objective = DATM(SPEC, experts, min_start=0, first_max_start=1, max_start=4, expansion_end=6, n_steps=4, batch=10)
    descent, file = Descent(iterations=8, lr_images=10.0, lr_labels=2.0, start_lr=0.05, ema=0.9), tmp_path / "c.safetensors"
    whole = distill(start, objective, descent, seed=0).last
    with pytest.raises(KeyboardInterrupt): distill(start, objective, descent, seed=0, checkpoint=file, every=3, stop_after=5)
    again = distill(start, objective, descent, seed=0, checkpoint=file, every=3).last
    assert torch.equal(whole.data.images, again.data.images) and torch.equal(whole.data.labels, again.data.labels)
    assert not torch.allclose(whole.data.labels, labels, atol=1e-4) and torch.allclose(whole.data.labels.sum(1), torch.ones(20))


def test_the_start_prefers_what_the_first_experts_get_right():
    generator = lambda: torch.Generator().manual_seed(0)
    first = torch.zeros(2, len(DIGITS), dtype=torch.bool)
    per_class = [torch.nonzero(DIGITS.labels == c).flatten() for c in range(10)]
    for rows in per_class: first[0, rows[:2]] = True; first[1, rows[1:4]] = True
    for ipc, known in ((1, 2), (2, 2), (3, 4), (4, 4), (6, 4)):
        picked = well_classified(DIGITS, ipc, right=first, generator=generator()).view(10, ipc)
        for rows, mine in zip(per_class, picked):
            among = sum(int(r) in rows[:known].tolist() for r in mine)
            assert among == min(ipc, known) and len(set(mine.tolist())) == ipc and (DIGITS.labels[mine] == DIGITS.labels[rows[0]]).all()
            assert ipc < 2 or set(rows[:2].tolist()) <= set(mine.tolist())
    difficulty = torch.rand(len(DIGITS), generator=generator(), dtype=torch.float64)
    hard = well_classified(DIGITS, 5, right=first, generator=generator(), difficulty=difficulty)
    assert set(hard.tolist()) == set(well_classified(DIGITS, 5, right=first, generator=generator()).tolist())
    assert (difficulty[hard].view(10, 5).diff(dim=1) <= 0).all()
    with pytest.raises(InputError, match="right has shape"): well_classified(DIGITS, 2, right=first[0], generator=generator())
    with pytest.raises(InputError, match="ipc"): well_classified(DIGITS, 10_000, right=first, generator=generator())


def test_labels_of_experts_that_are_right_and_no_nan_where_none_is():
    logits = torch.randn(4, 50, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.randint(3, (50,), generator=torch.Generator().manual_seed(1))
    ours = right_labels(logits, labels, 0.3)
    seen = set()
    for i, y in enumerate(labels.tolist()):
        right = [z[i] for z in logits if z[i].argmax() == y]
        seen.add(len(right))
        expected = torch.stack(right).mean(0).softmax(0) if right else torch.eye(3)[y] * 0.7 + 0.1
        assert torch.allclose(ours[i], expected, atol=1e-6)
    assert 0 in seen and 1 in seen and torch.equal(ours.argmax(1), labels)


def test_batches_of_experts_are_spread_through_the_set(experts):
    flat = FlatNetwork(make_network(SPEC, DIGITS.shape, 10, 0))
    by_class = DIGITS.subset(torch.argsort(DIGITS.labels, stable=True))
    scores = expert_logits(by_class, SPEC, experts[:1], epoch=3, batch=100)[0]
    stride = -(-len(by_class) // 100)
    with torch.no_grad(): assert torch.equal(scores[1::stride], flat(Trajectory(experts[0])[3], by_class.images[1::stride]))
    assert expert_logits(by_class, SPEC, experts).argmax(2).eq(by_class.labels).float().mean() > 0.25


def test_one_rate_per_step_is_refused_by_trajectories(experts):
    small = DIGITS.subset(torch.arange(10))
    current = SetState(small.images, small.labels, torch.ones(10, dtype=torch.bool), torch.full((4,), 0.1), 0)
    with pytest.raises(InputError, match="n_rates=4"): TESLA(SPEC, experts, max_start=4).start(small)(current, torch.Generator())


def test_identities_differ_and_do_not_name_folders(experts):
    plain, cut = TrajectoryMatching(SPEC, experts, max_start=4), TESLA(SPEC, experts, max_start=4)
    from selmatch.core import fingerprint
    assert fingerprint(plain.identity()) != fingerprint(cut.identity()) and "0x" not in str(cut.identity()) and cut.identity()["objective"] == "TESLA" and str(experts[0].parent.parent) not in str(cut.identity())


def test_a_flat_expert_survives_a_pulled_plug(tmp_path):
    task = ExpertTask(tmp_path / "a.safetensors", DIGITS, SPEC, expert_recipe(len(DIGITS), 6, 40, 0.05, momentum=0.5), 0, draft_every=2, flatness=Flatness(0.1))
    train_expert(task)
    broken = replace(task, path=tmp_path / "b.safetensors")
    with pytest.raises(KeyboardInterrupt): train_expert(broken, stop_after=5)
    train_expert(broken)
    assert task.path.read_bytes() == broken.path.read_bytes() and Trajectory(task.path).card["flatness"]["rho"] == 0.1


def test_without_a_word_ftds_average_reaches_back_a_fifth_of_its_run(tmp_path):
    """0.999 is FTD's for runs of thousands: in a run of 100 it handed out the start, moved by a twentieth of the way."""
    from selmatch.computer import Computer
    from selmatch.methods import find_method
    from selmatch.study.profile import load_profile
    from selmatch.study.sets import describe_objective, plan_descent
    from selmatch.study.study import Study
    def plan(**words):
        study = Study(load_profile("smoke", **words), Computer(quiet=True), tmp_path)
        return plan_descent(study, find_method("ftd"), *describe_objective(study, find_method("ftd"), 0.3))
    mine = plan(objectives={"ftd": {"iterations": 100}})
    assert (mine.iterations, mine.ema) == (100, 0.95)
    assert plan(objectives={"ftd": {"iterations": 100, "ema": 0.5}}).ema == 0.5
    short = plan(objectives={"ftd": {"iterations": 100}}, tuned={"ftd": {"iterations": 50}})
    assert (short.iterations, short.ema) == (50, 0.95), "who stops half-way has the average of the whole run"
    assert plan(objectives={"ftd": {"iterations": 10_000}}).ema == 0.999
    start, way, mean = 0.0, 0.0, 0.0
    for _ in range(mine.iterations):
        way += 1
        mean += (1 - mine.ema) * (way - mean)
    assert mean > 0.75 * way
