"""Devices that are not there, several GPUs played by fakes, bars that follow the steps, workers that are stopped with us."""
import contextlib
import os
import time
from types import SimpleNamespace

import pytest
import torch

from selmatch import computer as room
from selmatch.computer import Computer, advance, bar_of_steps, check_device, count_marks, count_steps, looked_at, marking, run_all, stopped_together, with_threads
from selmatch.core import InputError
from selmatch.data.images import ImageSet
from selmatch.train.networks import make_network
from selmatch.train.training import Recipe

SPEC = {"name": "ConvNet", "width": 4, "depth": 1}


def toy(n=12):
    return ImageSet(torch.randn(n, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(n) % 3, tuple("abc"), (0.5,), (0.5,))


# ---------------------------------------------------------------- devices

@pytest.fixture
def gpus(monkeypatch):
    """So many GPUs, which compute nothing; which of them was chosen or waited for."""
    state = SimpleNamespace(chosen=[], waited=[])
    def have(n):
        monkeypatch.setattr(torch.cuda, "device_count", lambda: n)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: n > 0)
        return state
    monkeypatch.setattr(torch.cuda, "device", lambda place: contextlib.nullcontext(state.chosen.append(place)))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device=None: state.waited.append(device))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: f"card {device}")
    return have


@pytest.mark.parametrize("device, n, words", [("cuda", 0, ["'cuda'", "not available", "cpu or auto"]), ("cuda:0", 0, ["'cuda:0'", "not available"]), ("cuda:2", 2, ["'cuda:2'", "has 2 of them", "counted from 0"]),
                                              ("cuda:", 2, ["'cuda:'", "cuda:N"]), ("cuda:x", 2, ["'cuda:x'", "cuda:N"]), ("cpu:0", 2, ["'cpu:0'", "cuda:N"]), ("tpu", 2, ["'tpu'", "cpu, cuda, cuda:N, mps"]),
                                              ("mps", 2, ["'mps'", "not available", "cpu or auto"]), ("mps:0", 2, ["'mps:0'", "mps"])])
def test_a_device_that_is_not_there_is_named(device, n, words, gpus):
    gpus(n)
    for ask in (lambda: check_device(device), lambda: Computer(device)):
        with pytest.raises(InputError) as error: ask()
        for word in words: assert word in str(error.value), error.value


def test_all_gpus_share_the_tasks_or_one_has_them(gpus):
    gpus(3)
    assert [check_device(device) for device in ("cpu", "cuda", "cuda:2")] == ["cpu", "cuda", "cuda:2"]
    found = {device: (c.kind, c.places, c.side_by_side) for device in ("cpu", "cuda", "cuda:2") for c in [Computer(device, workers=2)]}
    assert found == {"cpu": ("cpu", 0, 2), "cuda": ("cuda", 3, 3), "cuda:2": ("cuda", 1, 2)}


def test_alone_stays_on_one_gpu_and_a_worker_on_its_own(gpus, monkeypatch):
    """Several GPUs start as many processes, and number their tasks; one process, and a task inside a task, do not."""
    from selmatch import computer
    state = gpus(3)
    alone = Computer("cuda", workers=4, quiet=True).alone()
    assert (alone.device, alone.side_by_side, alone.kind, Computer("cuda:2").alone().device, Computer().alone().device) == ("cuda:1", 1, "cuda", "cuda:2", "cpu")
    monkeypatch.setattr(computer, "is_worker", lambda: True)
    assert run_all(abs, [-1, 2], "inside", Computer("cuda", quiet=True)) == [1, 2] and state.chosen == []


@pytest.fixture
def mac(monkeypatch):
    """A machine whose GPU is called mps, which computes nothing."""
    import torch._dynamo        # looks at this function when it is loaded, and wants the true one
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)


def test_the_gpu_of_a_mac_is_taken_when_it_is_asked_for(mac, gpus):
    from selmatch.computer import choose_device
    from selmatch.care import describe_machine
    gpus(0)
    computer = Computer("mps", workers=2)
    assert (computer.kind, computer.places, computer.side_by_side) == ("mps", 0, 2)
    assert choose_device("auto") == "cpu" and choose_device("mps") == "mps"
    assert describe_machine()[-1] == "GPUs: mps"


def test_nothing_is_compiled_for_the_gpu_of_a_mac(mac):
    from selmatch.study.profile import load_profile
    from selmatch.study.study import Study
    from selmatch.train.networks import make_network
    from selmatch.train.training import worth_compiling
    p = load_profile("digits")
    found = {device: [Study(p, Computer(device, quiet=True)).is_compiled(wish, p.network, 1e9) for wish in ("yes", "auto", "no")] for device in ("cpu", "mps")}
    assert found == {"cpu": [True, True, False], "mps": [False, False, False]}
    assert not worth_compiling(make_network(p.network, (1, 8, 8), 10, 0), (1, 8, 8), 1e30, "mps")


def test_the_clock_waits_for_the_gpu_of_a_mac(monkeypatch):
    from selmatch.study import estimate
    waited = []
    monkeypatch.setattr(torch.mps, "synchronize", lambda: waited.append("mps"))
    assert len(estimate.now("mps")) == 1 and waited == ["mps"] and len(estimate.now("cpu")) == 2 and waited == ["mps"]


def test_what_a_mac_cannot_do_is_refused(mac):
    from selmatch.distill.kernels import check_dtype
    from selmatch.show.bench import run_bench
    with pytest.raises(InputError, match="float64.*mps.*float32"): check_dtype("float64", "mps")
    check_dtype("float32", "mps"), check_dtype("float64", "cpu")
    with pytest.raises(InputError, match="'mps'.*cpu, cuda"): run_bench("window", "mps", quick=True, say=print)


def test_selections_look_at_a_mac_s_network_on_the_cpu(mac, monkeypatch, tmp_path):
    """Its GPU has no float64, and selections compute in it: the proxy comes over before it is asked."""
    from selmatch.study import study as room
    from selmatch.study.profile import load_profile
    from selmatch.study.study import Study
    moved, asked = [], []
    net = SimpleNamespace(cpu=lambda: moved.append("cpu") or "on the cpu")
    monkeypatch.setattr(Study, "train_network", lambda self, *words: net)
    monkeypatch.setattr(room, "gather", lambda net, *data: asked.append(net))
    for device in ("mps", "cpu"): Study(load_profile("digits"), Computer(device, quiet=True), tmp_path).evidence()
    assert moved == ["cpu"] and asked == ["on the cpu", net]


def test_auto_is_a_gpu_where_there_is_one(gpus):
    from selmatch.computer import choose_device
    gpus(0)
    assert choose_device("auto") == "cpu"
    gpus(1)
    assert choose_device("auto") == "cuda" and choose_device("cuda:0") == "cuda:0"
    with pytest.raises(InputError, match="cuda:1"): choose_device("cuda:1")


def test_tasks_take_the_gpus_in_turn(gpus, monkeypatch):
    state = gpus(2)
    class Here:
        def __init__(self, **words): assert words["n_jobs"] == 2
        def __call__(self, jobs): return (call(*given) for call, given in jobs)
    monkeypatch.setattr(room.joblib, "delayed", lambda f: lambda *given: (f, given))
    monkeypatch.setattr(room.joblib, "Parallel", Here)
    assert run_all(abs, [-1, -2, -3], "abs", Computer("cuda", quiet=True)) == [1, 2, 3]
    assert state.chosen == [0, 1, 0]
    with_threads(abs, -1, 1)
    assert state.chosen == [0, 1, 0], "one device, or a processor: as it was"


def test_the_gpu_that_works_is_the_one_that_is_timed(gpus):
    """An estimate for `--device cuda:1` waited for the first GPU, and timed how fast work is queued."""
    from selmatch.study import estimate
    state = gpus(2)
    assert estimate.seconds(lambda: None, "cuda:1", repeats=2) >= 0
    assert state.waited == ["cuda:1"] * 4 and estimate.now("cuda:1").shape == (1,) and estimate.now("cpu").shape == (2,)
    import inspect
    assert "device.type)" not in inspect.getsource(estimate), "a kind of device does not say which one"


def test_a_first_call_that_takes_too_long_is_the_only_one(monkeypatch):
    from selmatch.study import estimate
    ticks = iter([0.0, 9.0])
    monkeypatch.setattr(estimate, "now", lambda device: estimate.np.array([next(ticks)]))
    assert estimate.seconds(lambda: None) == 9.0


def test_a_doctor_names_every_gpu(gpus):
    from selmatch.care import describe_machine
    gpus(2)
    assert describe_machine()[-1] == "GPUs: card 0, card 1"


# ---------------------------------------------------------------- what a GPU is told, on a processor

def test_on_a_gpu_a_compiled_network_has_its_channels_last(monkeypatch):
    from selmatch.train import training
    asked, marks = [], []
    def compiled(net, graphs):
        asked.append(graphs)
        return lambda images: seen.append(images) or net(images)
    monkeypatch.setattr(training, "compiled_network", compiled)
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: marks.append(1))
    spec, last = {**SPEC, "depth": 2}, dict(memory_format=torch.channels_last)
    for kind, graphs, want in (("cuda", True, (True, [True], 1)), ("cuda", False, (True, [False], 0)), ("cpu", False, (False, [False], 0))):
        net, seen = make_network(spec, (1, 8, 8), 3, 0), []
        asked.clear(), marks.clear()
        images = torch.randn(5, 1, 8, 8)
        scores = training.make_forward(net, Recipe(compiled=True), torch.device(kind), graphs)(images)
        second = [p for p in net.parameters() if p.ndim == 4][1]
        assert (second.is_contiguous(**last), asked, len(marks)) == want, kind
        assert torch.allclose(scores, net(images), atol=1e-5) and torch.equal(seen[0], images)


def test_momentum_follows_its_weights_into_another_layout():
    from selmatch.train.training import lay_out_momentum, make_optimiser
    net = make_network({**SPEC, "depth": 2}, (1, 8, 8), 3, 0)
    optimiser = make_optimiser(net, Recipe(momentum=0.9))
    net(torch.randn(6, 1, 8, 8)).sum().backward()
    optimiser.step()
    before = [optimiser.state[p]["momentum_buffer"].clone() for p in net.parameters()]
    net.to(memory_format=torch.channels_last)
    lay_out_momentum(optimiser, net)
    for p, old in zip(net.parameters(), before):
        mine = optimiser.state[p]["momentum_buffer"]
        assert mine.stride() == p.stride() and torch.equal(mine, old)


def test_compiled_steps_ask_a_gpu_for_graphs_and_a_processor_for_none(monkeypatch):
    from selmatch.distill import compiled
    asked = []
    monkeypatch.setattr(torch, "compile", lambda call, **words: asked.append(words) or call)
    class Flat:
        def __init__(self, kind): self.module = SimpleNamespace(parameters=lambda: iter([SimpleNamespace(device=SimpleNamespace(type=kind))]))
    monkeypatch.setattr(compiled, "make_loss", lambda flat, precision: None)
    for kind in ("cuda", "cpu"):
        asked.clear()
        compiled.compiled_steps.__wrapped__(Flat(kind))
        assert [words.get("mode") for words in asked] == ["reduce-overhead" if kind == "cuda" else None] * 2
        assert all(words["dynamic"] is False for words in asked)


def test_what_a_graph_gave_is_copied_before_it_is_replayed():
    """On a GPU the next step writes over the last one's answers; what is kept for the way back must be its own."""
    from selmatch.distill.compiled import TwoParts
    buffer, saved = torch.zeros(3), torch.zeros(2)
    def one(theta, x, y):
        buffer.copy_(theta), saved.fill_(float(theta[0]))
        return (buffer,), [saved]
    def two(theta, x, y, v, kept): return kept.sum(), v, x
    x, y = torch.zeros(2, 1), torch.zeros(2).long()
    for device, own in (("cuda", True), ("cpu", False)):
        parts = TwoParts(None, device)
        parts.made[x.shape, x.dtype, y.shape, y.dtype] = [one, two]
        first = parts(None, torch.full((3,), 1.0), x, y)
        parts(None, torch.full((3,), 5.0), x, y)
        assert first.size == 8 and first.back(torch.ones(3))[3] is None
        assert (float(first.g[0]), float(first.back(torch.ones(3))[0])) == ((1.0, 2.0) if own else (5.0, 10.0))


# ---------------------------------------------------------------- bars that follow the steps

def test_marks_are_left_for_every_ten_steps_and_only_where_somebody_listens(tmp_path):
    advance(50)
    with marking(str(tmp_path)):
        for _ in range(25): advance()
        assert count_marks(str(tmp_path)) == 20 and room.marks.steps == 5
        with marking(None): advance(5)
        assert count_marks(str(tmp_path)) == 30, "None: where it was before"
    advance(50)
    assert count_marks(str(tmp_path)) == 30 and [file.name for file in tmp_path.iterdir()] == [str(os.getpid())]


@pytest.mark.parametrize("item, steps", [(3, 1), (SimpleNamespace(recipe=Recipe(steps=40)), 40), (SimpleNamespace(descent=SimpleNamespace(iterations=70)), 70), (SimpleNamespace(recipe=None, descent=None), 1),
                                         ((1, SimpleNamespace(recipe=Recipe(steps=40)), "x"), 40), ((), 1)])
def test_steps_of_a_task_are_those_of_its_recipe_or_descent(item, steps):
    assert count_steps(item) == steps


def test_a_bar_moves_with_the_steps_and_never_past_its_end(capsys):
    items = [SimpleNamespace(recipe=Recipe(steps=40)), SimpleNamespace(recipe=Recipe(steps=60))]
    with bar_of_steps(items, "train", every=60) as (folder, tell):
        with marking(folder): advance(30)
        bar = tell.__self__
        bar.show()
        assert bar.bar.n == 30 and bar.bar.total == 100
        tell(1)
        assert bar.bar.n == 40, "a task that is finished counts whole"
        with marking(folder): advance(500)
        bar.show()
        assert bar.bar.n == 100
        place = folder
    assert not os.path.exists(place) and "train" in capsys.readouterr().err
    with bar_of_steps(items, "train", quiet=True) as (folder, tell):
        assert folder is None and tell(1) is None
    assert capsys.readouterr().err == ""


def test_tasks_without_steps_are_counted_as_tasks(capsys):
    assert run_all(abs, [-1, -2], "numbers", Computer()) == [1, 2]
    said = capsys.readouterr().err
    assert "numbers: 100%" in said and "2/2" in said and "task" in said


def test_who_looks_stops_when_the_work_ends():
    calls = []
    with looked_at(lambda: calls.append(1), 0.001):
        while len(calls) < 3: time.sleep(0.001)
    n = len(calls)
    time.sleep(0.01)
    assert len(calls) == n


# ---------------------------------------------------------------- stopping

@pytest.mark.parametrize("stop, ended", [(KeyboardInterrupt, 1), (SystemExit, 1), (InputError, 0)])
def test_workers_stop_with_us_and_not_for_an_error(stop, ended, monkeypatch):
    calls = []
    monkeypatch.setattr(room, "stop_workers", lambda: calls.append(1))
    with pytest.raises(stop), stopped_together(): raise stop("now")
    assert len(calls) == ended


def test_stopping_kills_the_workers_there_are(monkeypatch):
    from joblib.externals import loky
    told = []
    def executor(reuse):
        assert reuse is True, "no new ones are begun for it"
        return SimpleNamespace(shutdown=lambda **words: told.append(words))
    monkeypatch.setattr(loky, "get_reusable_executor", executor)
    room.stop_workers()
    assert told == [{"wait": False, "kill_workers": True}]


def test_a_worker_ends_when_its_parent_is_gone(monkeypatch):
    parents, ended, begun = iter([7, 7, 1]), [], []
    monkeypatch.setattr(os, "getppid", lambda: next(parents))
    monkeypatch.setattr(os, "_exit", ended.append)
    monkeypatch.setattr(time, "sleep", lambda s: None)
    class Thread:
        def __init__(self, target, daemon): self.target, self.daemon = target, daemon
        def start(self): begun.append(self.daemon), self.target()
    monkeypatch.setattr(room.threading, "Thread", Thread)
    room.end_with.__wrapped__(7)()
    assert ended == [1] and begun == [True] and list(parents) == []


# ---------------------------------------------------------------- locks, drafts and times

def test_where_nothing_can_be_locked_the_work_is_done_all_the_same(tmp_path, monkeypatch):
    import filelock
    class NoLocks(filelock.FileLock):
        def acquire(self, *given, **words): raise NotImplementedError
    monkeypatch.setattr(filelock, "FileLock", NoLocks)
    with room.claim(tmp_path / "x") as ours: assert ours
    (tmp_path / ".x.lock").write_text("")
    assert not room.is_free(tmp_path / ".x.lock"), "one does not know, so it stays"


def test_what_cannot_be_asked_runs(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(room.os, "name", "nt")
        assert room.is_running(1)
    def refuse(number, signal): raise PermissionError
    monkeypatch.setattr(os, "kill", refuse)
    assert room.is_running(os.getpid()), "somebody else's: it is there"
    def gone(number, signal): raise ProcessLookupError
    monkeypatch.setattr(os, "kill", gone)
    assert not room.is_running(os.getpid())


def test_a_draft_of_another_machine_is_abandoned_after_a_day(tmp_path):
    draft = tmp_path / ".x.00000000-1-0123456789abcdef.tmp"
    draft.mkdir()
    assert not room.is_abandoned(draft)
    os.utime(draft, (time.time() - 90_000,) * 2)
    assert room.is_abandoned(draft)
    (tmp_path / "link").mkdir()
    link = tmp_path / ".y.00000000-1-0123456789abcdef.tmp"
    link.symlink_to(tmp_path / "link")
    assert not room.is_abandoned(link) and not room.is_abandoned(tmp_path / "mine.tmp")
    assert room.sweep_litter(tmp_path) == [draft] and not draft.exists() and link.exists()


def test_asking_is_noted_once_a_day_and_leaves_the_content(tmp_path):
    file = tmp_path / "x"
    file.write_text("content")
    made = time.time() - 10 * 86400
    os.utime(file, (made, made))
    room.note_use(file)
    noted = file.stat().st_atime
    assert time.time() - noted < 60 and file.stat().st_mtime == pytest.approx(made)
    os.utime(file, (time.time() - 3600, made))
    before = file.stat().st_atime
    room.note_use(file)
    assert file.stat().st_atime == before, "today already"
    room.note_use(tmp_path / "nothing")
    with room.unnoted(file): os.utime(file, (1, 1))
    assert file.stat().st_atime == before and file.stat().st_mtime == pytest.approx(made)
    with room.unnoted(file): file.unlink()


def test_another_machine_gets_the_task_and_its_threads():
    asked = []
    def cluster(alone, items, label, quiet, keep):
        asked.append((label, quiet, keep))
        return [alone(item) for item in items]
    threads = torch.get_num_threads()
    answer = run_all(lambda item: (item, torch.get_num_threads()), [1, 2], "there", Computer(threads=2, quiet=True, cluster=cluster), keep=print)
    assert answer == [(1, 2), (2, 2)] and asked == [("there", True, print)] and torch.get_num_threads() == threads


@pytest.mark.parametrize("places, workers, items, sharers", [(0, 2, 4, 2), (1, 2, 4, 2), (2, 2, 4, 1), (2, 3, 4, 2), (1, 2, 1, 1)])
def test_a_task_knows_with_how_many_it_shares_a_gpu(monkeypatch, places, workers, items, sharers):
    "Each took half of what was free, so two workers all of it."
    monkeypatch.setattr(Computer, "places", places)
    if places > 1:
        monkeypatch.setattr(torch.cuda, "device", lambda place: contextlib.nullcontext())
    given = []
    monkeypatch.setattr(room, "with_threads", lambda *a: given.append(a[-1]))
    monkeypatch.setattr(room.joblib, "Parallel", lambda **how: lambda jobs: [task(*a, **k) for task, a, k in jobs])
    run_all(abs, range(items), "numbers", Computer(workers=workers, quiet=True))
    assert given == [sharers] * items
