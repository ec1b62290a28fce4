"""The bench in small: both ways compute the same, rows say what was measured, and a GPU that is named is the one that is asked."""
import contextlib
import json
import mmap
import pickle
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from selmatch.core import InputError
from selmatch.distill.experts import Trajectory
from selmatch.distill.sweep import first_order, keep_graph, second_order, unrolled
from selmatch.show import bench
from selmatch.train.networks import flatten, make_network
from selmatch.train.training import Recipe

TINY = dict(width=4, depth=1, size=8, batch=4, n_steps=2)
SPEC = {"name": "ConvNet", "width": 4, "depth": 1}


def noise(n=12, size=8):
    return bench.random_images(n, torch.Generator().manual_seed(0), size)


@pytest.fixture
def uncompiled(monkeypatch):
    """Compiling takes a minute; what is compiled has tests of its own."""
    monkeypatch.setattr(bench, "compiled_keep", lambda flat, precision: keep_graph)
    monkeypatch.setattr(bench, "compiled_steps", lambda flat: (first_order, second_order))


# ---------------------------------------------------------------- time and memory

def test_each_way_is_warmed_once_and_then_takes_its_turn():
    calls = []
    rows = bench.in_turns({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 2, per=4, part="p")
    assert calls == ["a", "b"] * 3, "once to warm, and two rounds"
    assert [(row["way"], row["round"], row["part"], "memory" in row) for row in rows] == [(way, i, "p", False) for i in (0, 1) for way in "ab"]
    assert len(bench.in_turns({"a": lambda: calls.append("c")}, 1, warm=False)) == 1 and calls.count("c") == 1


def test_time_that_is_up_leaves_three_rounds():
    assert {row["round"] for row in bench.in_turns({"a": lambda: None}, 9, most=0)} == {0, 1, 2}


def test_seconds_are_those_of_one_piece(monkeypatch):
    monkeypatch.setattr(bench, "time_once", lambda way: 8.0)
    rows = bench.in_turns({"ours": lambda: None, "plain": lambda: None}, 3, per=4)
    assert {row["seconds"] for row in rows} == {2.0}
    rows += [{"way": "ours", "seconds": 100.0}]                         # one slow round does not move a median
    assert bench.ratio(rows, "ours", "plain") == 1


def test_memory_as_it_comes_is_refused_where_it_is_kept():
    with bench.allocate("as it comes"): assert not bench.keepers
    with bench.allocate("kept"):
        assert bench.keepers
        with bench.allocate(None): assert bench.keepers
        with pytest.raises(InputError, match="as it comes.*process of its own"): bench.allocate("as it comes")
    with pytest.raises(InputError, match="memory"): bench.allocate("given back")
    assert not bench.keepers


def test_work_that_a_gpu_has_queued_is_waited_for(monkeypatch):
    told = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: told.append("wait"))
    assert bench.time_once(lambda: told.append("work")) >= 0
    assert told == ["wait", "work", "wait"]


def test_a_process_of_its_own_answers_and_a_failure_is_told_with_its_words(monkeypatch):
    asked = []
    def run(command, **options):
        asked.append((command[2], json.loads(command[3])))
        return bench.subprocess.CompletedProcess(command, len(asked) - 1, 'noise\nRESULT {"peak": 3.5}\n', "KeyError: 'magic'")
    monkeypatch.setattr(bench.subprocess, "run", run)
    assert bench.in_own_process("peak_task", name="sweep") == {"peak": 3.5}
    assert "bench.peak_task(" in asked[0][0] and asked[0][1] == {"name": "sweep"}
    with pytest.raises(RuntimeError, match=r"peak_task.*magic"): bench.in_own_process("peak_task", name="magic")


# ---------------------------------------------------------------- matching

@pytest.mark.parametrize("name", ["sweep", *bench.kept_shares])
def test_every_way_gives_the_textbooks_gradient(name, uncompiled):
    exact = unrolled(**bench.matching_problem(**TINY, smooth=True, dtype=torch.float64)).images
    mine = bench.matching_ways[name](bench.matching_problem(**TINY, smooth=True)).images
    assert mine.dtype == torch.float32 and torch.allclose(mine.double(), exact, rtol=1e-3, atol=1e-5 * float(exact.abs().max()))


def test_a_share_of_the_steps_is_kept(uncompiled, monkeypatch):
    """What is kept is not computed again on the way back: half of four steps costs two more, all of them none."""
    problem, calls = bench.matching_problem(**{**TINY, "n_steps": 4}), []
    def keep(*given):
        calls.append(1)
        return keep_graph(*given)
    monkeypatch.setattr(bench, "compiled_keep", lambda flat, precision: keep)
    counts = {}
    for name in bench.kept_shares:
        calls.clear()
        bench.matching_ways[name](problem)
        counts[name] = len(calls) - (name != "compiled")                # one to find out how large a step is
    assert counts == {"compiled": 8, "half kept": 6, "kept": 4}


def test_errors_of_ways_are_small_where_there_is_no_kink_and_named(uncompiled):
    rows = bench.matching_errors(["textbook", "compiled"], **TINY)
    assert [(row["activation"], row["way"]) for row in rows] == [("Softplus", "textbook"), ("Softplus", "compiled"), ("ReLU", "textbook"), ("ReLU", "compiled")]
    assert all(row["relative_error"] < 1e-4 and row["cosine"] > 0.9999 for row in rows if row["activation"] == "Softplus")
    assert bench.compare(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0]).double())["cosine"] == 0
    assert all(map(bench.is_row, rows))


def test_timings_of_matching_say_what_they_are_of(uncompiled):
    rows = bench.time_matching(["textbook", "kept"], 1, **TINY)
    assert [(row["way"], row["part"], row["n_steps"], row["batch"]) for row in rows] == [("textbook", "matching", 2, 4), ("kept", "matching", 2, 4)]
    floor = bench.time_floor(2, **TINY)
    assert [(row["part"], row["n_steps"], row["way"]) for row in floor] == [("floor", 1, "first-order step")] * 2
    assert bench.first_order_step(**TINY)().shape == (bench.matching_problem(**TINY)["flat"].n_params,)
    assert all(map(bench.is_row, rows + floor))


def test_a_peak_is_of_the_way_alone(uncompiled, monkeypatch):
    """What compiling and the libraries take is there before, and is subtracted; the whole walk comes after the peak was forgotten."""
    walks, written = [], []
    monkeypatch.setitem(bench.matching_ways, "mine", lambda problem: walks.append(len(problem["steps"])))
    monkeypatch.setattr(bench, "resident_mb", lambda: 100.0)
    monkeypatch.setattr(bench, "peak_mb", lambda: 130.5)
    monkeypatch.setattr(Path, "write_text", lambda self, text: written.append((str(self), text, list(walks))))
    assert bench.peak_task("mine", "kept", **{**TINY, "n_steps": 3}) == 30.5
    assert walks == [2, 3] and written == [("/proc/self/clear_refs", "5", [2])]


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="Linux tells how much memory a process holds")
def test_memory_of_a_process_is_read_in_megabytes():
    before, block = bench.resident_mb(), mmap.mmap(-1, 40_000_000)
    for place in range(0, len(block), 4096): block[place] = 1           # a page is there once it is written
    assert 35 < bench.resident_mb() - before < 50 and bench.peak_mb() > 0.95 * bench.resident_mb()


def test_on_a_processor_each_measurement_has_a_process_of_its_own_under_both_allocators(monkeypatch):
    asked = []
    def answer(function, **settings):
        asked.append((function, settings.get("name") or settings.get("ways") or settings["rounds"], settings["n_steps"] if "n_steps" in settings else None, settings["memory"]))
        return 7.5 if function == "peak_task" else [{"part": "matching", "way": "w", "memory": settings["memory"], "seconds": 1.0}]
    monkeypatch.setattr(bench, "in_own_process", answer)
    monkeypatch.setattr(bench, "matching_errors", lambda ways, n_steps, **shape: [{"part": "exactness", "way": way} for way in ways])
    result = bench.run_bench("matching", "cpu", quick=True, say=lambda text: None)
    names = result["done"]
    plain = [name for name in names[1:] if not name.endswith("memory kept")]
    assert names[0] == "matching: exactness" and names[1:] == [*plain, *(f"{name}, memory kept" for name in plain)]
    half = len(asked) // 2
    assert [memory for *_, memory in asked] == ["as it comes"] * half + ["kept"] * half
    assert [a[:3] for a in asked[:half]] == [a[:3] for a in asked[half:]]
    assert ("time_matching", ["compiled"], 8, "kept") in asked and ("peak_task", "compiled", 8, "kept") in asked, "the long ones: what fits alone"
    assert not [a for a in asked if a[2] == 8 and "textbook" in a[1]]
    peaks = [row for row in result["rows"] if row["part"] == "memory"]
    assert {row["peak_mb"] for row in peaks} == {7.5} and {row["memory"] for row in peaks} == {"as it comes", "kept"}
    assert all(map(bench.is_row, result["rows"]))


def test_what_opening_is_asked_of(monkeypatch):
    monkeypatch.setattr(bench, "open_experts", lambda kind, count, epochs: (kind, count, epochs))
    opened = lambda quick: [ask() for label, ask in bench.bench_experts("cpu", quick) if label.startswith("open")]
    assert opened(True) == [("pickled lists", 4, 10), ("lazy files", 4, 10)] and opened(False) == [("pickled lists", 10, 100), ("lazy files", 100, 100)]
    assert [label for label, _ in bench.bench_evaluation("cpu", True)] == ["augmentation", "augmentation, memory kept", "epoch, width 16", "epoch, width 16, memory kept"]


# ---------------------------------------------------------------- a GPU, played by a fake

@pytest.fixture
def gpus(monkeypatch):
    """Two GPUs; `state.current` is the one that questions without a name go to."""
    class State:
        current, asked = 0, []
    state = State()
    state.asked = []

    @contextlib.contextmanager
    def device(name):
        before, number = state.current, str(name).partition(":")[2]
        state.current = int(number) if number else before
        yield
        state.current = before
    def ask(what, answer):
        def call(*given):
            state.asked.append((what, state.current))
            return answer[state.current] if answer else None
        return call
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "device", device)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda name="cuda": f"card {int(name.partition(':')[2] or state.current)}")
    for what, answer in {"synchronize": None, "empty_cache": None, "reset_peak_memory_stats": None, "memory_allocated": (1e6, 10e6), "memory_reserved": (2e6, 20e6),
                         "max_memory_allocated": (4e6, 40e6), "max_memory_reserved": (8e6, 80e6)}.items():
        monkeypatch.setattr(torch.cuda, what, ask(what, answer))
    return state


@pytest.mark.parametrize("device, held", [("cuda", (3, 6)), ("cuda:0", (3, 6)), ("cuda:1", (30, 60))])
def test_the_gpu_that_is_named_is_the_one_that_is_asked(device, held, gpus, monkeypatch):
    """`--device cuda:1` was measured as if it were a processor: by the memory that the process held."""
    walks = []
    monkeypatch.setattr(bench, "matching_problem", lambda **settings: walks.append(settings["device"]))
    monkeypatch.setitem(bench.matching_ways, "sweep", lambda problem: walks.append("walk"))
    monkeypatch.setattr(bench, "in_own_process", lambda *given, **settings: pytest.fail("a GPU's memory is not the process's"))
    monkeypatch.setitem(bench.benches, "matching", lambda device, quick: [("memory", partial(bench.matching_memory, "sweep", n_steps=2, batch=4, device=device))])
    result = bench.run_bench("matching", device, say=lambda text: None)
    row, = result["rows"]
    assert (row["peak_mb"], row["reserved_mb"]) == held and "memory" not in row
    assert walks == [device, "walk", "walk"], "recorded, then replayed"
    assert {where for what, where in gpus.asked} == {int(device[-1]) if ":" in device else 0} and gpus.current == 0
    assert (result["device"], result["processor"]) == (device, f"card {1 if device == 'cuda:1' else 0}")


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_on_a_gpu_there_is_no_choice_of_allocator(device, gpus, monkeypatch):
    for name, ask in bench.benches.items():
        labels = [label for label, _ in ask(device, False)]
        assert labels and len(set(labels)) == len(labels) and not [label for label in labels if "memory kept" in label], name
    monkeypatch.setattr(bench, "in_own_process", lambda *given, **settings: pytest.fail("timed from here"))
    assert bench.measure(lambda device, **more: [device, more], "kept", device=device, rounds=3) == [device, {"rounds": 3}]
    monkeypatch.setattr(bench, "matching_memory", lambda name, **settings: [{"part": "memory", "way": name, "size": settings["size"]}])
    label, ask = list(bench.bench_tiny_cuda(20, dict(width=8, depth=3, size=32, batch=4, device=device)))[1]
    assert label == "memory, 64×64" and ask() == [{"part": "memory, 64×64", "way": "compiled", "size": 64}]


def test_a_processor_is_named_where_it_computes_though_a_gpu_is_there(gpus):
    """A file of `--device cpu` named the GPU of the machine as what had computed."""
    assert bench.bench_card("cpu", True)["processor"].endswith(f"{torch.get_num_threads()} threads")
    assert bench.processor() == "card 0" and bench.processor("cuda:1") == "card 1"


def test_a_processor_without_a_name_of_linux(monkeypatch):
    monkeypatch.setattr(bench.Path, "exists", lambda self: False)
    monkeypatch.setattr(bench.platform, "processor", lambda: "arm")
    assert bench.processor("cpu") == f"arm, {torch.get_num_threads()} threads"
    monkeypatch.undo()
    monkeypatch.setattr(bench.Path, "exists", lambda self: True)
    monkeypatch.setattr(bench.Path, "read_text", lambda self: "vendor: x\nmodel name\t: Some CPU @ 2 GHz\nmodel name\t: another\n")
    assert bench.processor("cpu").startswith("Some CPU @ 2 GHz, ")


# ---------------------------------------------------------------- augmenting and training, per image and by the batch

def test_an_epoch_image_by_image():
    data = noise(10)
    per_image = bench.PerImage(data, torch.arange(10) < 5, torch.Generator().manual_seed(0))
    assert len(per_image) == 10
    x, y = per_image[0]
    assert x.shape == (3, 8, 8) and y == data.labels[0]
    assert [len(y) for x, y in bench.plain_loader(per_image, 4)] == [4, 4], "what fills no batch is left out"
    net = make_network(SPEC, data.shape, 10, 0)
    before = flatten(net).clone()
    bench.plain_epoch(net, per_image, Recipe(steps=2, batch=4, lr=0.1))
    assert not torch.equal(before, flatten(net))
    taught = bench.plain_trial(data, data, SPEC, Recipe(steps=200, batch=5, lr=0.1), 0)
    assert taught >= 0.9 > bench.plain_trial(data, data, SPEC, Recipe(steps=0, batch=5, lr=0.1), 0), "it learns its ten images by heart"


def test_an_epochs_time_is_that_of_one_epoch(monkeypatch):
    trained = []
    monkeypatch.setattr(bench, "train", lambda net, data, recipe, generator, distilled: trained.append((recipe.compiled, recipe.steps)))
    monkeypatch.setattr(bench, "plain_epoch", lambda net, data, recipe: trained.append("plain"))
    monkeypatch.setattr(bench, "time_once", lambda way: way() or 6.0)
    rows = bench.time_epoch("cpu", 250, 1, 4, epochs=2, memory="kept")
    assert trained == ["plain", "plain", (False, 4), (True, 4)] * 2, "as many epochs in each way; once to warm"
    assert [(row["way"], row["seconds"], row["part"], row["memory"]) for row in rows] == [
        (way, 3.0, "epoch, width 4", "kept") for way in ("per image", "by the batch", "by the batch, compiled")]


def test_augmenting_is_asked_for_as_many_batches_in_both_ways(monkeypatch):
    drawn = {"plain": 0, "ours": 0}
    monkeypatch.setattr(bench, "plain_loader", lambda data, batch: [drawn.__setitem__("plain", drawn["plain"] + 1) for _ in range(len(data) // batch)])
    monkeypatch.setattr(bench, "augmented_batches", lambda data, recipe, *given: [drawn.__setitem__("ours", drawn["ours"] + 1) for _ in range(recipe.steps)])
    rows = bench.time_augmentation("cpu", 250, 1, epochs=3)
    assert drawn == {"plain": 12, "ours": 12} and [row["images"] for row in rows] == [250, 250]


def test_windows_are_judged_by_as_many_networks_in_both_ways(monkeypatch):
    one_by_one, together = [], []
    monkeypatch.setattr(bench, "plain_trial", lambda part, test, spec, recipe, seed, device: one_by_one.append((len(part), seed, device)))
    monkeypatch.setattr(bench, "evaluate", lambda work, computer: together.append((len(work), computer.workers)))
    rows = bench.time_windows("cpu", 3, 20, 5, 1)
    assert one_by_one[:6] == [(20, 0, "cpu"), (20, 1, "cpu")] * 3 and together[0] == (6, bench.os.cpu_count()) and len(rows) == 2
    (label, ask), = bench.bench_window("cpu", True)
    assert label == "window search, memory kept" and ask.args == (bench.time_windows, "kept")


# ---------------------------------------------------------------- experts

def test_plain_and_ours_write_one_epoch_each(tmp_path):
    data = noise(12)
    ways = bench.expert_ways(data, SPEC, 6, 2, tmp_path, "cpu")
    ways["DataLoader"]()
    plain = pickle.loads((tmp_path / "plain.pkl").read_bytes())
    assert len(plain) == 2 and not torch.equal(plain[0][0], plain[1][0]), "cloned, before and after"
    for _ in range(2): ways["resident"]()                               # written anew, not found
    assert Trajectory(tmp_path / "ours.safetensors").epochs == 1


def test_stacked_experts_are_those_trained_alone():
    data = noise(12)
    recipe = bench.expert_recipe(12, 1, 12, 0.1)
    stacked = bench.expert_ways(data, SPEC, 12, 2, None, "cpu")["stacked"]()
    again = bench.stacked_experts(data, SPEC, bench.expert_recipe(12, 1, 12, 0.01), 2)
    assert all(torch.equal(stacked[name], again[name]) for name in again)
    stacked = bench.stacked_experts(data, SPEC, recipe, 2)
    for i in (0, 1):
        net = make_network(SPEC, data.shape, 10, i)
        bench.train(net, data, recipe, torch.Generator().manual_seed(i))
        for name, p in net.named_parameters(): assert torch.allclose(stacked[name][i], p, atol=1e-5), name


def test_a_stack_counts_as_so_many_experts(monkeypatch):
    monkeypatch.setattr(bench, "expert_ways", lambda data, spec, batch, count, room, device: {"resident": lambda: None, "stacked": lambda: None})
    monkeypatch.setattr(bench, "time_once", lambda way: 4.0)
    rows = bench.time_experts("cpu", True)
    assert {(row["way"], row["seconds"], row["images"]) for row in rows} == {("resident", 4.0, 1000), ("stacked", 1.0, 1000)}


def test_experts_are_opened_in_both_formats(monkeypatch):
    """Twelve files, ten of them different; the lists are loaded whole, the files are not."""
    seen = {}
    def here(function, kind, folder):
        files = sorted(Path(folder).iterdir())
        seen[kind] = [file.stat().st_ino for file in files]
        return getattr(bench, function)(kind, folder)
    monkeypatch.setattr(bench, "in_own_process", here)
    for kind in ("pickled lists", "lazy files"):
        row, = bench.open_experts(kind, 12, 3, width=40)
        assert (row["way"], row["experts"], row["epochs"]) == (kind, 12, 3) and bench.is_row(row)
        assert len(seen[kind]) == 12 and len(set(seen[kind])) == 10


# ---------------------------------------------------------------- the runner and its file

@pytest.fixture
def short(monkeypatch):
    """Two benches of one measurement each; the second can be told to fail."""
    state = {"asked": [], "fails": False}
    def ask(label):
        state["asked"].append(label)
        if state["fails"] and label == "b": raise KeyboardInterrupt
        return [{"part": "matching", "way": label, "seconds": 1.0}]
    monkeypatch.setattr(bench, "benches", {name: lambda device, quick, name=name: [(name, lambda: ask(name))] for name in "ab"})
    return state


def test_what_was_measured_before_a_stop_is_not_measured_again(short, tmp_path):
    file, said = tmp_path / "bench.json", []
    short["fails"] = True
    with pytest.raises(KeyboardInterrupt): bench.run_bench(quick=True, file=file, say=said.append)
    assert json.loads(file.read_text())["done"] == ["a: a"]
    short["fails"] = False
    result = bench.run_bench(quick=True, file=file, say=said.append)
    assert short["asked"] == ["a", "b", "b"] and result["done"] == ["a: a", "b: b"] and json.loads(file.read_text()) == result
    assert said == ["[1/2] a: a", "[2/2] b: b", "[2/2] b: b"]
    assert bench.run_bench("b", quick=True, say=lambda text: None)["done"] == ["b: b"], "no file: nothing is kept"
    with pytest.raises(InputError, match="another quick"): bench.run_bench(quick=False, file=file)
    with pytest.raises(InputError, match="bench.*'speed'"): bench.run_bench("speed")
    assert short["asked"] == ["a", "b", "b", "b"]


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b'{"done": [], "rows": 3}', b"\xff", b"[" * 100_000])
def test_a_file_that_is_none_of_ours_is_refused_and_stays(text, tmp_path, short):
    (tmp_path / "b.json").write_bytes(text)
    with pytest.raises(InputError, match="b.json is no file of `selmatch bench`"): bench.run_bench(file=tmp_path / "b.json")
    assert (tmp_path / "b.json").read_bytes() == text and short["asked"] == []


@pytest.mark.parametrize("row", ["words", {}, {"part": "p"}, {"part": 3, "way": "w"}, {"part": "p", "way": "w", "n_steps": 2.5}, {"part": "p", "way": "w", "n_steps": True},
                                 {"part": "p", "way": "w", "seconds": "1"}, {"part": "p", "way": "w", "seconds": float("nan")}, {"part": "p", "way": "w", "batch": 2**70}])
def test_a_row_that_is_no_measurement(row, tmp_path):
    assert not bench.is_row(row)
    (tmp_path / "b.json").write_text(json.dumps({"done": [], "rows": [row]}))
    with pytest.raises(InputError, match="b.json is no file of `selmatch bench`"): bench.load_bench(tmp_path / "b.json", {})


def test_ratios_are_of_one_allocator_and_one_size():
    timings = {("as it comes", "textbook"): 8.0, ("as it comes", "sweep"): 4.0, ("kept", "textbook"): 5.0, ("kept", "sweep"): 4.0}
    rows = [{"part": "matching", "n_steps": 5, "batch": 4, "memory": memory, "way": way, "seconds": s} for (memory, way), s in timings.items()]
    rows += [{"part": "matching", "n_steps": 9, "batch": 4, "way": "sweep", "seconds": 1.0}, {"part": "memory", "way": "sweep", "peak_mb": 3.0}]
    table = bench.bench_table({"rows": rows})
    assert table.ratio.tolist()[:4] == [1, 0.5, 1, 0.8] and table.ratio.isna().tolist() == [False] * 4 + [True], "nothing plain of that size"
    assert table.memory.tolist()[-1] == "as it comes" and table.n.tolist() == [1] * 5


# ---------------------------------------------------------------- the command

def test_the_command_says_times_memory_and_errors(say, monkeypatch, tmp_path):
    rows = [{"part": "matching", "way": "textbook", "n_steps": 2, "batch": 4, "seconds": 2.0}, {"part": "matching", "way": "sweep", "n_steps": 2, "batch": 4, "seconds": 1.0},
            {"part": "memory", "way": "sweep", "n_steps": 2, "batch": 4, "peak_mb": 12.0},
            {"part": "exactness", "way": "sweep", "activation": "ReLU", "n_steps": 2, "batch": 4, "relative_error": 1e-7, "cosine": 1.0}]
    monkeypatch.setattr(bench, "benches", {"matching": lambda device, quick: [("all", lambda: rows)]})
    code, said, errors = say("bench", "--only", "matching", "--quick", "--device", "cpu", "--json", tmp_path / "b.json")
    assert code == 0, errors
    assert "0.5" in said and "memory: sweep, n_steps = 2, batch = 4: 12 MB" in said and "exactness: sweep, ReLU: relative error 1.0e-07, cosine 1.000000" in said
    assert f"Written: {tmp_path / 'b.json'}" in said and json.loads((tmp_path / "b.json").read_text())["rows"] == rows
    code, said, errors = say("bench", "--only", "speed", "--device", "cpu")
    assert code == 2 and "speed" in errors and "matching" in errors


def test_the_convolutions_that_are_timed_are_those_of_a_training_step():
    sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))
    from time_convolutions import convolution_calls
    calls = convolution_calls(4, 2, torch.channels_last, True)
    assert len(calls) == 9 and len(convolution_calls(4, 2, torch.contiguous_format, False)) == 8
    for layer, side in ((1, 32), (2, 16), (3, 8)):
        x, w = (thing.clone().requires_grad_() for thing in calls[f"{layer} forward"].args[:2])
        assert tuple(x.shape) == (2, 3 if layer == 1 else 4, side, side)
        y, slope = torch.conv2d(x, w, None, 1, 1), calls[f"{layer} by weights"].args[0]
        assert torch.equal(y, calls[f"{layer} forward"]())
        by_images, by_weights = torch.autograd.grad(y, (x, w), slope)
        torch.testing.assert_close(calls[f"{layer} by weights"]()[1], by_weights)
        torch.testing.assert_close(calls[f"{layer} by images"]()[0], by_images)
