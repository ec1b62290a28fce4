"""Fast paths against slow ones: batched augmentation, compiled training, stored experts."""
import ctypes
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch._dynamo.exc import TorchDynamoException
from conftest import ROOT

from selmatch.train.augment import Augmentation, Draw, Move, apply, cut, draw, families, lay_out, names, reach
from selmatch.core import InputError
from selmatch.data.images import ImageSet
from selmatch.distill.experts import ExpertTask, Trajectory, expert_recipe, train_expert, train_experts
from selmatch.train.networks import flatten, make_network
from selmatch.computer import Computer, is_our_process, kept_memory, run_all, with_threads
from selmatch.train.training import Recipe, count_flops, train, with_fallback, worth_compiling
from selmatch.train.judge import evaluate, trials

SPEC = {"name": "ConvNet", "width": 6, "depth": 2}


def toy(n=60, size=8):
    generator = torch.Generator().manual_seed(0)
    return ImageSet(torch.randn(n, 1, size, size, generator=generator), torch.arange(n) % 3, ("a", "b", "c"), (0.5,), (0.25,))


@pytest.mark.parametrize("order", ["sorted", "shuffled", "one family"])
def test_a_batch_of_many_families_equals_one_image_at_a_time(order):
    generator = torch.Generator().manual_seed(3)
    x, family = torch.randn(45, 3, 8, 8, generator=generator), torch.randint(len(names), (45,), generator=generator)
    family = {"sorted": family.sort().values, "shuffled": family, "one family": family[:1].expand(45)}[order]
    drawn = Draw(family, torch.rand(45, 4, generator=generator))
    slow = torch.cat([families[names[f]](x[i:i + 1], drawn.u[i:i + 1]) for i, f in enumerate(family)])
    assert torch.allclose(apply(x, drawn), slow, atol=1e-6)
    rows = torch.randperm(45, generator=generator)[:20]
    assert torch.allclose(apply(x, drawn.rows(rows), rows), slow[rows], atol=1e-6)


def moved_by_hand(x, down, right, mirrored):
    """Pixel by pixel, as one would explain it."""
    out, (c, h, w) = torch.zeros_like(x), x.shape
    for i in range(h):
        for j in range(w):
            if 0 <= i + down < h and 0 <= j + right < w: out[:, i, w - 1 - j if mirrored else j] = x[:, i + down, j + right]
    return out


@pytest.mark.parametrize("size", [(5, 7), (8, 8), (3, 3), (1, 9)])
def test_every_move_cut_from_a_strip_is_the_move_made_by_hand(size):
    generator, (p, q) = torch.Generator().manual_seed(4), (2, 1)
    x = torch.randn(3, 2, *size, generator=generator)
    every = [(row, down, right, m) for row in range(3) for down in range(-p, p + 1) for right in range(-q, q + 1) for m in (False, True)]
    rows, down, right, mirrored = (torch.tensor(t) for t in zip(*every))
    expected = torch.stack([moved_by_hand(x[row], *how) for row, *how in every])
    assert torch.equal(cut(lay_out(x, (p, q)), rows, down, right, mirrored), expected)
    assert torch.equal(Move.apply(x[rows], down, right, mirrored, (p, q)), expected)


def test_the_gradient_of_a_move_is_the_move_back():
    generator = torch.Generator().manual_seed(5)
    x, down, right = torch.randn(6, 2, 4, 5, generator=generator, dtype=torch.float64, requires_grad=True), torch.randint(-1, 2, (6,), generator=generator), torch.randint(-2, 3, (6,), generator=generator)
    move = lambda x: Move.apply(x, down, right, down >= 0, (1, 2))
    assert torch.autograd.gradcheck(move, x)
    assert torch.autograd.gradgradcheck(move, x)
    g = torch.randn(6, 2, 4, 5, generator=generator, dtype=torch.float64)
    assert torch.allclose(torch.func.grad(lambda x: (move(x) * g).sum())(x.detach()), torch.autograd.grad(move(x), x, g)[0])


@pytest.mark.parametrize("kind", ["simple", "dsa", "combined"])
@pytest.mark.parametrize("size", [3, 8])
def test_a_strip_gives_the_bits_of_the_images(kind, size):
    generator = torch.Generator().manual_seed(6)
    x, rows = torch.randn(40, 3, size, size, generator=generator), torch.randint(40, (90,), generator=generator)
    drawn = draw(Augmentation(kind), 90, generator, torch.arange(90) % 2 == 0, batch=9)
    assert torch.equal(apply(lay_out(x, reach((size, size))), drawn, rows), apply(x, drawn, rows))
    before = x.clone()
    apply(x, drawn.rows(slice(0, 40)))
    assert torch.equal(x, before)                                        # the images themselves stay as they are


def test_long_runs_lay_their_images_out_and_give_the_same_batches(monkeypatch):
    import selmatch.train.training as training
    data, policy = toy(), Recipe(steps=15, batch=20, augmentation=Augmentation("combined"))
    def all_batches(): return list(training.augmented_batches(data, policy, torch.Generator().manual_seed(0), torch.arange(60) % 2 == 0))
    assert isinstance(training.choose_source(data, policy, 15), training.Strip)
    assert training.choose_source(data, policy, 14) is data.images
    for kind in ("none", "dsa"): assert training.choose_source(data, replace(policy, augmentation=Augmentation(kind, ("color", "cutout"))), 15) is data.images
    laid = all_batches()
    monkeypatch.setattr(training, "strip_numbers", 1)                    # too large a set: as it is
    assert training.choose_source(data, policy, 15) is data.images
    assert all(torch.equal(a[3], b[3]) for a, b in zip(laid, all_batches(), strict=True))


def test_batches_drawn_together_each_have_one_family():
    family = draw(Augmentation("dsa"), 50, torch.Generator().manual_seed(0), batch=7).family
    assert all(len(part.unique()) == 1 for part in family.split(7))
    assert len(family) == 50
    assert len(family.unique()) > 1


def test_batches_prepared_together_come_in_the_order_of_single_ones(monkeypatch):
    import selmatch.train.training as training
    data, policy = toy(), Recipe(steps=7, batch=20, augmentation=Augmentation("combined"))
    def all_batches(): return list(training.augmented_batches(data, policy, torch.Generator().manual_seed(0), torch.arange(60) % 2 == 0))
    whole = all_batches()
    monkeypatch.setattr(training, "block_numbers", {"cpu": 1})                    # one batch at a time
    single = all_batches()
    assert [s[:2] for s in whole] == [s[:2] for s in single] == [(i, i // 3) for i in range(7)]
    assert all(torch.equal(a[2], b[2]) for a, b in zip(whole[:3], single[:3]))     # the same order of images
    rows = torch.cat([s[2] for s in whole[3:6]])
    assert sorted(rows.tolist()) == list(range(60))
    assert whole[0][3].shape == (20, 1, 8, 8)


@pytest.mark.parametrize("family", [f for f in names if f != "none"])
def test_gradients_flow_through_every_family(family):
    generator = torch.Generator().manual_seed(1)
    x, drawn = torch.randn(3, 2, 6, 6, generator=generator, dtype=torch.float64, requires_grad=True), Draw(torch.full((3,), names.index(family)), torch.rand(3, 4, generator=generator))
    assert torch.autograd.gradcheck(lambda x: apply(x, drawn), x)


def test_gradients_flow_through_a_batch_of_many_families():
    generator = torch.Generator().manual_seed(7)
    x, rows = torch.randn(8, 2, 6, 6, generator=generator, dtype=torch.float64, requires_grad=True), torch.tensor([7, 0, 3, 3, 5, 1, 6, 2, 4, 7])
    drawn = Draw(torch.arange(10) % len(names), torch.rand(10, 4, generator=generator))
    assert set(drawn.family.tolist()) == set(range(len(names)))
    assert torch.autograd.gradcheck(lambda x: apply(x, drawn, rows), x)
    assert torch.autograd.gradcheck(lambda x: apply(x, drawn.rows(slice(2, 10))), x)


def test_compiled_training_is_the_same_training():
    nets = [make_network(SPEC, (1, 8, 8), 3, 0) for _ in range(2)]
    for net, compiled in zip(nets, (False, True)): train(net, toy(), Recipe(steps=6, batch=20, compiled=compiled), torch.Generator().manual_seed(0))
    assert torch.allclose(*(flatten(net) for net in nets), atol=1e-4)
    for a, b in zip(*(net.buffers() for net in nets)): assert torch.allclose(a.float(), b.float(), atol=1e-4)      # running statistics too


def test_without_a_compiler_it_warns_once_and_goes_on():
    def broken(*rest): raise TorchDynamoException("no compiler")
    either = with_fallback(broken, lambda *given: sum(given))
    with pytest.warns(RuntimeWarning, match="uncompiled") as seen:
        assert either(1, 2) == 3
        assert either(3, 4) == 7
    assert len(seen) == 1


def test_whether_to_compile_is_counted():
    net = make_network(SPEC, (1, 8, 8), 3, 0)
    assert count_flops(net, (1, 8, 8)) == 2 * (64 * 9 * 6 + 16 * 54 * 6 + 24 * 3)
    assert net.training
    assert not worth_compiling(net, (1, 8, 8), 1e6)
    assert worth_compiling(net, (1, 8, 8), 1e10)


def test_an_expert_with_few_epochs_in_half_precision_survives_a_pulled_plug(tmp_path):
    task = ExpertTask(tmp_path / "a.safetensors", toy(), SPEC, expert_recipe(60, 6, 20, 0.05), 0, draft_every=2, keep=(1, 3, 6), precision="float16")
    train_expert(task)
    broken = replace(task, path=tmp_path / "b.safetensors")
    with pytest.raises(KeyboardInterrupt): train_expert(broken, stop_after=5)
    train_expert(broken)
    assert task.path.read_bytes() == broken.path.read_bytes()
    whole = Trajectory(train_expert(replace(task, path=tmp_path / "c.safetensors", keep=None, precision="float32")))
    kept = Trajectory(task.path)
    assert kept.kept == [1, 3, 6]
    assert kept.epochs == whole.epochs == 6
    assert kept[3].dtype == torch.float32
    assert (kept[3] - whole[3]).abs().max() <= 2**-11 * whole[3].abs().max()
    with pytest.raises(InputError, match="does not hold epoch 2"): kept[2]
    with pytest.raises(InputError, match="keep=9 .*0 to 6|keep=9"): replace(task, keep=(0, 9))


def test_other_storage_is_another_expert(tmp_path):
    recipe = expert_recipe(60, 2, 20, 0.05)
    first = train_experts(tmp_path, toy(), SPEC, recipe, 1, computer=Computer(quiet=True))[0].read_bytes()
    second = train_experts(tmp_path, toy(), SPEC, recipe, 1, computer=Computer(quiet=True), precision="bfloat16")[0].read_bytes()
    assert len(second) < len(first)


MEMORY = """
import sys, torch
from selmatch.show.bench import resident_mb
from selmatch.computer import Computer, kept_memory, run_all
def task(i):
    blocks = [torch.ones(2**20 * (3 + (5 * i + j) % 11)) for j in range(6)]
    return float(sum(b.sum() for b in blocks))
def tasks(n): return run_all(task, range(n), "tasks", Computer(quiet=True, keep_memory=True))
if sys.argv[1] == "command":                       # the command's own process: kept from the beginning to the end
    with kept_memory(): tasks(15); early = resident_mb(); tasks(60); late = resident_mb()
else: tasks(15); early = resident_mb(); tasks(60); late = resident_mb()
print(early, late)
assert late < early + 100, (early, late)           # one task takes up to 300 MB
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["task", "command"])
def test_memory_does_not_grow_over_many_tasks(how):
    done = subprocess.run([sys.executable, "-c", MEMORY, how], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.fixture
def told(monkeypatch):
    """What the C library is told, as (function, what it was given), instead of telling it."""
    import selmatch.computer as computer
    calls = []
    monkeypatch.setattr(computer, "c_function", lambda name: lambda *given: calls.append((name, *given)))
    return calls


def test_a_process_that_is_not_ours_is_left_as_it_is(told):
    assert run_all(abs, [-1, -2], "abs", Computer(quiet=True)) == [1, 2]
    train(make_network(SPEC, (1, 8, 8), 3, 0), toy(), Recipe(steps=1, batch=20), torch.Generator())
    assert with_threads(abs, -1, torch.get_num_threads()) == 1
    assert not told
    assert run_all(abs, [-1], "abs", Computer(quiet=True, keep_memory=True)) == [1]
    assert [call[0] for call in told] == ["mallopt"] * 5 + ["malloc_trim"]


def test_a_command_keeps_memory_in_its_own_process_only(told, monkeypatch):
    from selmatch.app import main
    with pytest.raises(SystemExit): main(["profiles"])                     # called from somebody's Python
    assert not told
    monkeypatch.setattr(sys, "argv", ["selmatch", "profiles"])            # a list needs no memory, and no PyTorch
    with pytest.raises(SystemExit): main()
    assert not told
    monkeypatch.setattr(sys, "argv", ["selmatch", "score", "--data", "nothing"])
    with pytest.raises(SystemExit): main()
    assert [call[0] for call in told] == ["mallopt"] * 5 + ["malloc_trim"]


def in_a_worker(_): return is_our_process()


def test_workers_keep_their_memory(told):
    assert run_all(in_a_worker, range(4), "who", Computer(workers=2, quiet=True)) == [True] * 4
    assert run_all(in_a_worker, range(4), "who", Computer(quiet=True)) == [False] * 4
    assert not told, "the caller's process was told something"


def test_the_last_to_leave_puts_the_settings_back(told):
    with pytest.raises(KeyError):
        with kept_memory():
            with kept_memory(): pass
            assert told == [("mallopt", -4, 0), ("mallopt", -1, -1), ("malloc_trim", 0)]
            assert is_our_process()
            raise KeyError
    assert told[3:] == [("mallopt", -4, 2**16), ("mallopt", -3, 2**25), ("mallopt", -1, 2**26), ("malloc_trim", 0)]
    assert not is_our_process()


def test_another_c_library_changes_nothing(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    with kept_memory():
        assert with_threads(abs, -1, torch.get_num_threads()) == 1
    assert with_threads(abs, -1, torch.get_num_threads(), keep_memory=True) == 1


@pytest.mark.parametrize("compiled", [False, True])
def test_kept_memory_changes_no_bit(compiled):
    nets = [make_network(SPEC, (1, 8, 8), 3, 0) for _ in range(2)]
    learn = lambda net: train(net, toy(), Recipe(steps=6, batch=20, compiled=compiled), torch.Generator().manual_seed(0))
    learn(nets[0])
    with kept_memory(): learn(nets[1])
    assert torch.equal(*(flatten(net) for net in nets))


def test_keeping_memory_or_not_and_where_gives_the_same_rows():
    work = trials(toy(), 3, 0, network=SPEC, recipe=Recipe(steps=4, batch=20), tests={"test": toy(30)})
    computers = [Computer(quiet=True), Computer(quiet=True, keep_memory=True), Computer(workers=2, quiet=True)]
    one, two, three = (evaluate(work, computer=c).drop(columns="seconds") for c in computers)
    assert one.equals(two)
    assert one.equals(three)


def test_the_compiler_is_hushed_in_one_thread_and_no_longer_than_asked():
    import logging
    import threading
    from selmatch.train.training import hide_compiler_log
    log, told = logging.getLogger("torch._inductor.scheduler"), []
    listener = logging.Handler()
    listener.emit = lambda record: told.append(record.getMessage())
    log.addHandler(listener)
    try:
        with hide_compiler_log():
            with hide_compiler_log():
                log.critical("inner")
            log.critical("outer")
            other = threading.Thread(target=log.critical, args=("elsewhere",))
            other.start()
            other.join()
        log.critical("after")
    finally:
        log.removeHandler(listener)
    assert told == ["elsewhere", "after"]


def test_a_recipe_may_ask_for_passes_over_the_set():
    """A number of steps that is enough for a small set is hardly a pass over all the images."""
    from selmatch.train.judge import trials
    from selmatch.train.training import settle_steps
    data, few = toy(), toy().subset(torch.arange(8))
    asked = Recipe(steps=4, batch=8, epochs=3)
    n = len(data)
    assert settle_steps(asked, n).steps == max(4, 3 * (n // 8)) > 4 and settle_steps(asked, len(few)).steps == 4
    net = lambda: make_network(SPEC, data.shape, data.n_classes, 0)
    seed = lambda: torch.Generator().manual_seed(1)
    by_epochs = train(net(), data, asked, seed())
    by_steps = train(net(), data, Recipe(steps=settle_steps(asked, n).steps, batch=8), seed())
    assert torch.equal(flatten(by_epochs), flatten(by_steps)), "rates fall over all steps"
    whole, small = (trials(d, 1, 0, network=SPEC, recipe=asked)[0].recipe for d in (data, few))
    assert whole.steps > small.steps == 4 and whole.epochs == 0, "the bar counts the steps that are taken"


def test_the_estimate_knows_of_passes(tmp_path):
    from selmatch.study import estimate
    from selmatch.study.profile import load_profile
    from selmatch.study.study import Study
    study = lambda epochs: Study(load_profile("smoke", evaluation={"n": 2, "steps": 40, "batch": 32, "lr": 0.05, "epochs": epochs}), Computer(quiet=True), tmp_path)
    plain, more, whole = study(0), study(20), len(study(0).splits.train)
    assert estimate.mean_steps(plain, plain.recipe("dsa")) == estimate.mean_steps(plain, plain.recipe("dsa"), whole) == 40
    assert estimate.mean_steps(more, more.recipe("dsa"), whole) == 20 * (whole // 32) > estimate.mean_steps(more, more.recipe("dsa")) > 40
    nothing = replace(plain.profile, ratios=(), alpha={}, compared_at=())
    assert estimate.mean_steps(Study(nothing, Computer(quiet=True), tmp_path), plain.recipe("dsa")) == 40, "a study of no sizes, as that of a folder"
    assert more.proxy_words()[1].epochs == 0 and more.recipe("dsa").epochs == 20


def test_what_the_compiler_says_to_itself_is_not_for_readers(caplog):
    """A machine with `nvcc` and without a GPU would tell so in the midst of every bar."""
    import logging
    log = logging.getLogger("torch.utils.cpp_extension")
    log.warning("No CUDA runtime is found, using CUDA_HOME='%s'", "/usr/local")
    log.warning("something else")
    assert [record.getMessage() for record in caplog.records] == ["something else"]
