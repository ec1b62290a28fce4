"""The parts of the reverse sweep by hand (scripts/mutants.py asks for every number); that the whole is exact is shown in test_matching.py."""
import os

import pytest
import torch
from torch import nn

from selmatch.computer import sharing_gpu
from selmatch.distill import sweep
from selmatch.distill.sweep import Step, block_steps, draw_steps, match_loss, reverse_sweep, shuffled_chunks, unrolled
from selmatch.train.augment import Augmentation, Draw
from selmatch.train.networks import FlatNetwork, flatten, make_network
from test_input import refuses
from test_matching import problem, relative


def test_the_loss_is_a_share_of_the_experts_way():
    start, goal = torch.tensor([1.0, 0.0]), torch.tensor([1.0, 2.0])
    assert match_loss(start, start, goal) == 1 and match_loss(goal, start, goal) == 0
    assert match_loss(torch.tensor([2.0, 5.0]), start, goal) == pytest.approx(10 / 4)
    with refuses("did not move", "distance 0"): match_loss(goal, start, start)


def test_chunks_of_permutations_for_ever():
    chunks = shuffled_chunks(5, 2, torch.Generator().manual_seed(0))
    rows = [next(chunks) for _ in range(6)]
    assert [len(r) for r in rows] == [2, 2, 1] * 2
    for turn in (rows[:3], rows[3:]): assert sorted(torch.cat(turn).tolist()) == [0, 1, 2, 3, 4]
    assert torch.cat(rows[:3]).tolist() != torch.cat(rows[3:]).tolist(), "reshuffled"
    assert torch.cat(rows[:3]).equal(torch.randperm(5, generator=torch.Generator().manual_seed(0)))


def test_steps_have_their_distilled_images_first():
    distilled = torch.tensor([False, True, False, True, True])
    steps = draw_steps(4, distilled, 3, Augmentation("none"), torch.Generator().manual_seed(1))
    assert [len(s.rows) for s in steps] == [3, 2, 3, 2]
    for step in steps:
        mine = distilled[step.rows]
        assert step.n_distilled == int(mine.sum()) and mine[:step.n_distilled].all() and not mine[step.n_distilled:].any()
        assert len(step.draw.family) == len(step.rows)
    order = torch.randperm(5, generator=torch.Generator().manual_seed(1))[:3]
    assert steps[0].rows.tolist() == [r for r in order.tolist() if distilled[r]] + [r for r in order.tolist() if not distilled[r]], "and else in the order of the draw"
    assert draw_steps(0, distilled, 3, Augmentation("none"), torch.Generator()) == []
    assert len(draw_steps(1, distilled, 1, Augmentation("none"), torch.Generator())[0].rows) == 1
    for words in ({"n_steps": -1, "batch": 3}, {"n_steps": 2, "batch": 0}):
        with refuses("inner"): draw_steps(distilled=distilled, policy=Augmentation("none"), generator=torch.Generator(), **words)


def test_the_choice_of_a_policy_sees_what_is_distilled():
    distilled = torch.tensor([True, False] * 10)
    step, = draw_steps(1, distilled, 20, Augmentation("combined", per="image"), torch.Generator().manual_seed(0))
    assert step.n_distilled == 10
    strong, simple = step.draw.family[:10], step.draw.family[10:]
    assert not set(strong.tolist()) & set(simple.tolist()), "strong for the distilled, simple for the others"


def steps_of(*sizes):
    return [Step(torch.arange(n), Draw(torch.zeros(n, dtype=torch.int64), torch.zeros(n, 4)), n) for n in sizes]


@pytest.mark.parametrize("limit, blocks", [(10**6, [[3, 3, 2, 5]]), (40, [[3], [3, 2], [5]]), (48, [[3, 3], [2], [5]]), (1, [[3], [3], [2], [5]]), (64, [[3, 3, 2], [5]]), (63, [[3, 3], [2, 5]])])
def test_blocks_are_as_large_as_is_allowed_and_never_empty(limit, blocks, monkeypatch):
    """Images of 2 x 2 x 2: eight numbers each."""
    monkeypatch.setitem(sweep.block_numbers, "cpu", limit)
    found = block_steps(steps_of(3, 3, 2, 5), (2, 2, 2), torch.device("cpu"))
    assert [[len(s.rows) for s in block] for block in found] == blocks
    assert block_steps([], (2, 2, 2), torch.device("cpu")) == []


def test_an_image_that_is_larger_than_a_block_has_one_of_its_own():
    assert len(block_steps(steps_of(1, 1), (3, 2048, 2048), torch.device("cpu"))) == 2


def test_a_device_without_a_number_has_one_of_its_own(monkeypatch):
    monkeypatch.delitem(sweep.block_numbers, "cpu")
    assert len(block_steps(steps_of(2**20, 2**20, 2**20, 2**20, 1), (1, 1, 1), torch.device("cpu"))) == 2


@pytest.mark.parametrize("limit", [1, 3 * 64 * 13])
def test_the_blocks_change_no_bit(limit, monkeypatch):
    whole = reverse_sweep(**problem(torch.float64))
    rates = {**problem(torch.float64), "lr": torch.linspace(0.05, 0.3, 6, dtype=torch.float64)}
    every = reverse_sweep(**rates)
    monkeypatch.setitem(sweep.block_numbers, "cpu", limit)
    for before, now in ((whole, reverse_sweep(**problem(torch.float64))), (every, reverse_sweep(**rates))):
        for part in ("loss", "images", "labels", "lr", "theta_end"): assert torch.equal(getattr(now, part), getattr(before, part)), part
    assert relative(reverse_sweep(**rates).lr, unrolled(**rates).lr) <= 1e-10


def test_a_sweep_leaves_its_inputs_and_takes_a_plain_rate():
    p = problem(torch.float64)
    kept = {name: p[name].clone() for name in ("images", "labels", "theta_start", "theta_goal")}
    ours = reverse_sweep(**p | {"lr": 0.2})
    assert all(torch.equal(p[name], value) and not p[name].requires_grad for name, value in kept.items())
    assert not any(getattr(ours, part).requires_grad for part in ("loss", "images", "labels", "lr", "theta_end"))
    assert relative(ours.images, unrolled(**p).images) <= 1e-10 and ours.lr.ndim == 0
    oracle = unrolled(**p | {"lr": 0.2})
    assert oracle.lr.ndim == 0 and not oracle.loss.requires_grad and not oracle.theta_end.requires_grad
    hard = problem(torch.float64, soft=False)
    for way in (reverse_sweep, unrolled): assert way(**hard).labels is None
    for way in (reverse_sweep, unrolled): assert way(**p | {"learn_labels": False}).labels is None
    bare = {name: value for name, value in p.items() if name != "learn_labels"}
    for way in (reverse_sweep, unrolled): assert way(**bare).labels is None
    path = sweep.walk_forward(*(p[name] for name in ("flat", "theta_start", "images", "labels", "lr", "steps")))
    assert sweep.sweep_back(p["flat"], path, path[-1], p["images"], p["labels"], p["lr"], p["steps"], p["distilled"])[1] is None
    with refuses("did not move"): reverse_sweep(**p | {"theta_goal": p["theta_start"]})


def test_the_oracle_of_no_step_and_of_a_rate_that_is_a_number():
    p = problem(torch.float64)
    none = unrolled(**p | {"steps": []})
    assert not none.images.any() and none.images.shape == p["images"][p["distilled"]].shape and none.lr == 0
    one = unrolled(**p | {"lr": 0.01})
    assert one.lr.dtype == one.images.dtype == torch.float64
    assert one.loss == unrolled(**p | {"lr": torch.tensor(0.01, dtype=torch.float64)}).loss, "0.01, and not the float32 next to it"


def test_a_step_by_hand():
    flat = FlatNetwork(make_network({"name": "ConvNet", "width": 2, "depth": 1}, (1, 8, 8), 3, 0))
    theta, x = flatten(flat.module), torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    for y in (torch.tensor([0, 1, 2, 0]), torch.eye(3)[[0, 1, 2, 0]]):
        v = torch.randn(len(theta), generator=torch.Generator().manual_seed(1))
        s, by_theta, by_x, by_y = sweep.second_order(flat, theta, x, y, v)
        kept = sweep.keep_graph(flat, theta, x, y)
        assert torch.equal(kept.g, sweep.first_order(flat, theta, x, y)) and not kept.g.requires_grad and not s.requires_grad
        assert s == pytest.approx(float(kept.g @ v), rel=1e-5)
        again = kept.back(v)
        assert torch.equal(again[0], s) and torch.equal(again[1], by_theta) and torch.equal(again[2], by_x) and not again[0].requires_grad
        assert (by_y is None) == (y.ndim == 1) == (again[3] is None) and (by_y is None or torch.equal(by_y, again[3]))
    assert kept.size == sweep.weigh_graph(flat, x.shape, len(theta), x.dtype, x.device) > 4 * len(theta)


def test_the_weight_of_a_graph_grows_with_the_batch():
    flat = FlatNetwork(make_network({"name": "ConvNet", "width": 2, "depth": 1}, (1, 8, 8), 3, 0))
    n, weigh = len(flatten(flat.module)), lambda batch, dtype=torch.float32: sweep.weigh_graph(flat, (batch, 1, 8, 8), flat.n_params, dtype, torch.device("cpu"))
    one, two, three = weigh(10), weigh(20), weigh(30)
    assert three - two == two - one > 10 * 64 * 2 * 4, "what does not depend on the batch is counted once"
    assert weigh(10, torch.float64) > 1.5 * one and n


def test_the_weight_of_a_graph_is_that_of_what_a_kept_step_holds():
    """Weighed here from outside, while a step is taken that is to be differentiated; a step taken for its gradient alone holds less."""
    flat, held = FlatNetwork(make_network({"name": "ConvNet", "width": 2, "depth": 1}, (1, 8, 8), 3, 0)), {}
    theta, x, y = flatten(flat.module).requires_grad_(), torch.randn(10, 1, 8, 8).requires_grad_(), torch.arange(10) % 3
    def hold(t):
        held[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t
    with torch.autograd.graph.saved_tensors_hooks(hold, lambda t: t):
        loss = sweep.student_loss(flat, theta, x, y)
        forward = sum(held.values())
        kept = torch.autograd.grad(loss, theta, create_graph=True)[0]
    weight = sweep.weigh_graph(flat, x.shape, len(theta), x.dtype, x.device)
    assert weight == pytest.approx(sum(held.values()), rel=0.05) and weight > 1.2 * forward and kept.requires_grad


class Diced(nn.Module):
    """Answers by dice."""
    def __init__(self, shape):
        super().__init__()
        self.last, self.dice = nn.Linear(shape[0] * shape[1] * shape[2], 3), nn.Dropout(0.5)

    def forward(self, x): return self.last(self.dice(x.flatten(1)))


class Never(torch.autograd.Function):
    """Has no derivative."""
    @staticmethod
    def forward(ctx, x): return x.clone()

    @staticmethod
    def backward(ctx, g): raise Never.error


class Once(torch.autograd.Function):
    """Has a first derivative, and no second."""
    @staticmethod
    def forward(ctx, x): return x.clone()

    @staticmethod
    def backward(ctx, g): return Never.apply(g)


class Flat(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.last = nn.Linear(shape[0] * shape[1] * shape[2], 3)

    def forward(self, x): return Once.apply(self.last(x.flatten(1)).square())


class Blind(nn.Module):
    """Looks at no image."""
    def __init__(self):
        super().__init__()
        self.said = nn.Parameter(torch.tensor([0.1, 0.5, -0.3]))

    def forward(self, x): return self.said.expand(len(x), 3)


def test_what_nothing_depends_on_has_no_gradient_and_is_no_error():
    flat, x, y, v = FlatNetwork(Blind()), torch.ones(2, 1, 8, 8), torch.tensor([0, 2]), torch.ones(3)
    theta = flatten(flat.module)
    s, by_theta, by_x, _ = sweep.second_order(flat, theta, x, y, v)
    assert by_x.shape == x.shape and not by_x.any() and by_theta.shape == (3,)
    assert not sweep.keep_graph(flat, theta, x, y).back(v)[2].any()


def test_networks_that_cannot_be_swept_are_refused(monkeypatch):
    sweep.probe_network({"name": "ConvNet", "width": 2, "depth": 1}, (1, 8, 8), 3)
    sweep.probe_network({"name": "ConvNet", "width": 2, "depth": 1}, (1, 8, 8), 1)
    monkeypatch.setattr(sweep, "make_network", lambda spec, shape, n_classes, seed: {"Diced": Diced, "Flat": Flat}[spec["name"]](shape))
    with refuses("'Diced'", "answers the same images differently", "dropout"): sweep.probe_network({"name": "Diced"}, (1, 8, 8), 3)
    for Never.error in (RuntimeError("none\nof it"), NotImplementedError("none\nof it")):
        with refuses("'Flat'", "no second derivative", "needs: none;", "dm or window"): sweep.probe_network({"name": "Flat"}, (1, 8, 8), 3)


def test_free_memory_is_shared_by_threads(monkeypatch):
    class Memory:
        available = 800
    monkeypatch.setattr(sweep.psutil, "virtual_memory", Memory)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    for threads, share in ((2, 100), (8, 400), (16, 400)):
        monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
        assert sweep.free_share() == sweep.free_share(torch.device("cpu")) == share
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert sweep.free_share() == 400, "of a machine that does not say how many it has, all"
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (600, 1000))
    assert sweep.free_share("cuda") == 300
    with sharing_gpu(2):
        assert sweep.free_share("cuda") == 150, "two tasks on one GPU keep no more than one"
        with sharing_gpu(1):
            assert sweep.free_share("cuda") == 150, "a task inside a task does not make its GPU larger"
    assert sweep.free_share("cuda") == 300


def test_a_keeper_with_no_room_keeps_nothing():
    keeper = sweep.Keeper(lambda *given: sweep.Kept(torch.zeros(1), lambda v: v, 10), 0)
    keeper.first(1)
    assert keeper.backs == [None] and keeper.room == 0
    whole = sweep.Keeper(lambda *given: sweep.Kept(torch.zeros(1), abs, 10), 10)
    whole.first(1)
    assert whole.backs == [abs] and whole.room == 0, "a step that just fits is kept"
    with refuses("memory=-0.5"): sweep.Keeper(None, -0.5)
