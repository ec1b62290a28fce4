"""What a GPU run rests on, as far as a CPU can tell; and the script of the first row, in small."""
import io
import json
import os
import subprocess
import sys
import tarfile

import numpy as np
import pytest
import torch
from torch._dynamo.exc import TorchDynamoException

from conftest import ROOT
from selmatch.train.augment import Augmentation, place_on
from selmatch.core import InputError
from selmatch.data.images import ImageSet
from selmatch.train.networks import flatten, make_network
from selmatch.distill.trajectories import student_network
from selmatch.train.training import Recipe, arithmetic, make_forward, train, with_fallback

SPEC = {"name": "ConvNet", "width": 6, "depth": 2}


def switches():
    return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize("precision, inside", [("float32", ("highest", False)), ("tf32", ("high", True)), ("bfloat16", ("high", True))])
def test_arithmetic_sets_both_switches_and_puts_them_back(precision, inside):
    before = switches()
    with pytest.raises(KeyError), arithmetic(precision, "cuda"):
        assert switches() == inside
        with arithmetic("float32", "cuda"): assert switches() == ("highest", False)
        assert switches() == inside
        raise KeyError
    assert switches() == before
    with arithmetic(precision, "cpu"): assert switches() == before
    with pytest.raises(InputError, match="half"), arithmetic("half", "cuda"): pass


def toy(n=40):
    generator = torch.Generator().manual_seed(0)
    return ImageSet(torch.randn(n, 1, 8, 8, generator=generator), torch.arange(n) % 3, tuple("abc"), (0.5,), (0.5,))


def trained(**words):
    net = make_network(SPEC, (1, 8, 8), 3, 0)
    return flatten(train(net, toy(), Recipe(steps=12, batch=20, augmentation=Augmentation("dsa"), **words), torch.Generator().manual_seed(1)))


def by_hand():
    """Twelve steps as the loop took them before it knew of precisions."""
    from selmatch.train.training import augmented_batches, learning_rate, make_optimiser
    net, data, recipe = make_network(SPEC, (1, 8, 8), 3, 0), toy(), Recipe(steps=12, batch=20, augmentation=Augmentation("dsa"))
    optimiser = make_optimiser(net, recipe)
    for step, _, rows, images in augmented_batches(data, recipe, torch.Generator().manual_seed(1)):
        logits = net(images)
        for group in optimiser.param_groups: group["lr"] = learning_rate(recipe, step)
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(logits, data.labels[rows]).backward()
        optimiser.step()
    return flatten(net)


def test_the_default_leaves_every_bit_on_the_cpu():
    assert torch.equal(trained(), by_hand()) and torch.equal(trained(precision="tf32"), by_hand())


def test_bfloat16_is_close_and_not_the_same():
    half, whole = trained(precision="bfloat16"), trained()
    assert half.dtype == torch.float32 and 0 < (half - whole).norm() / whole.norm() < 0.1
    net = make_network(SPEC, (1, 8, 8), 3, 0)
    assert make_forward(net, Recipe(precision="bfloat16"), torch.device("cpu"))(toy().images).dtype == torch.float32
    with pytest.raises(InputError, match="precision"): Recipe(precision="float16")


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError(), RuntimeError("CUDA out of memory. Tried to allocate"), IndexError("row 9"),
                                   RuntimeError("mat1 and mat2 shapes cannot be multiplied"), TorchDynamoException("backend failed: CUDA out of memory")])
def test_only_the_compilers_errors_are_answered_with_the_plain_way(error):
    def fails(x): raise error
    either = with_fallback(fails, lambda x: x + 1)
    with pytest.raises(type(error)): either(1)
    assert not either.broken


def test_where_the_plain_way_fails_too_its_error_is_raised_and_the_compiler_keeps_its_chance():
    answers = [TorchDynamoException("cannot be traced"), 7]
    def fast(x):
        answer = answers.pop(0)
        if isinstance(answer, Exception): raise answer
        return answer
    def plain(x): raise InputError("x=1 is not allowed")
    either = with_fallback(fast, plain)
    with pytest.raises(InputError): either(1)
    assert either(1) == 7


def test_a_judge_and_an_expert_in_a_module_that_was_used_before_have_the_same_bits(monkeypatch, tmp_path):
    """As on a GPU, where graphs are replayed: there a process keeps one module for each kind of network."""
    from selmatch.distill.experts import ExpertTask, expert_recipe, train_expert
    from selmatch.train import training
    from selmatch.train.judge import run_trial, trials
    spec, data = {**SPEC, "width": 5}, toy()
    judged = trials(data, 3, 0, network=spec, recipe=Recipe(steps=6, batch=20), tests={"test": data})
    tasks = lambda name: [ExpertTask(tmp_path / f"{name}{seed}.safetensors", data, spec, expert_recipe(40, 2, 20, 0.05), seed) for seed in (0, 1)]
    known = lambda rows: [{k: v for k, v in row.items() if k != "seconds"} for row in rows]
    fresh, files = known(map(run_trial, judged)), [train_expert(t).read_bytes() for t in tasks("fresh")]
    monkeypatch.setattr(training, "replays", lambda recipe, device: True)
    before = len(training.standing)
    assert known(map(run_trial, judged)) == fresh and [train_expert(t).read_bytes() for t in tasks("kept")] == files
    assert len(training.standing) == before + 1


def test_kernels_are_added_up_on_a_gpu_alone():
    from selmatch.study.estimate import kernel_seconds
    assert kernel_seconds(lambda: 1 / 0, torch.device("cpu")) == 0       # not called in vain


def test_runs_share_the_flat_network_of_a_student():
    words, device = json.dumps(SPEC, sort_keys=True), torch.device("cpu")
    assert student_network(words, (1, 8, 8), 3, device) is student_network(words, (1, 8, 8), 3, device) is not student_network(words, (1, 8, 8), 4, device)


def test_placed_on_the_same_device_is_the_same_tensor():
    t = torch.arange(3)
    assert place_on(t, "cpu") is t


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """Ten classes of forty and ten JPEGs, laid out as CIFAR-10 (JPEG) is, with scores in another order."""
    from PIL import Image
    room, rng = tmp_path_factory.mktemp("archive"), np.random.default_rng(0)
    with tarfile.open(room / "pictures.tar.xz", "w:xz") as archive:
        for part, n in {"train": 40, "test": 10}.items():
            for c in range(10):
                for i in range(n):
                    picture, file = rng.integers(0, 255, (32, 32, 3)), io.BytesIO()
                    picture[..., c % 3] = 25 * c
                    Image.fromarray(picture.astype("uint8")).save(file, "JPEG")
                    member = tarfile.TarInfo(f"cifar10/{part}/class{c}/{i:04d}.jpg")
                    member.size = file.tell()
                    file.seek(0)
                    archive.addfile(member, file)
    order, labels = rng.permutation(400), np.empty(400, int)
    labels[order] = np.repeat(np.arange(10), 40)
    np.savez(room / "scores.npz", c_score=rng.random(400), labels=labels, folder_order=order)
    return room


def run_script(archive, out, *more):
    command = [sys.executable, str(ROOT / "scripts" / "gpu_first_row.py"), "--data", str(archive / "pictures.tar.xz"), "--scores", str(archive / "scores.npz"),
               "--out", str(out), "--quick", "--device", "cpu", "--compile", "no", "--seconds", "100", *more]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads((out / "summary.json").read_text()), [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_the_first_row_in_small_and_continued(archive, tmp_path):
    summary, events = run_script(archive, tmp_path / "one")
    assert not summary["errors"] and not [e for e in events if e["kind"] == "error"]
    assert [(t["method"], t["networks"], t["published"]) for t in summary["table"]] == [("random", 1, 73.4), ("window", 1, 79.3), ("mtt", 1, 80.7), ("selmatch", 1, 82.8)]
    assert {e["method"]: e["iterations"] for e in events if e["kind"] == "distilled"} == {"mtt": 3, "selmatch": 3}
    assert all(e["moved"] > 0 for e in events if e["kind"] == "distilled")
    again, events = run_script(archive, tmp_path / "two", "--resume", str(tmp_path / "one"))
    assert not again["errors"] and not [e for e in events if e["kind"] in ("distilled", "experts")]
    assert all(t["networks"] > 1 for t in again["table"])
    first = {(r["method"], r["set_seed"], r["network_seed"]): r["test_accuracy"] for r in summary["rows"]}
    second = {(r["method"], r["set_seed"], r["network_seed"]): r["test_accuracy"] for r in again["rows"]}
    assert first.items() <= second.items() and len(second) == len(again["rows"])


def test_the_scripts_splits_are_those_of_the_folder(archive, tmp_path):
    sys.path.insert(0, str(ROOT / "scripts"))
    try: import gpu_first_row as script
    finally: sys.path.pop(0)
    from selmatch.data.loaders import load_folder
    with tarfile.open(archive / "pictures.tar.xz") as packed: packed.extractall(tmp_path, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    ours, theirs = script.load(script.read_archive(archive / "pictures.tar.xz", 2), tmp_path), load_folder(str(tmp_path / "cifar10"), validation=0.1, seed=0)
    for part in ("train", "validation", "test"):
        a, b = getattr(ours, part), getattr(theirs, part)
        assert torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels) and a.mean == b.mean
    assert torch.equal(ours.rows, theirs.rows)


def test_every_caller_of_graphs_marks_its_steps(monkeypatch):
    """Once one caller has marked a step, PyTorch counts marked steps alone: an unmarked call would be recorded anew at every turn."""
    from selmatch.train.training import begin_graphs
    marks = []
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: marks.append(1))
    begin_graphs("cpu")
    assert not marks
    begin_graphs("cuda")
    assert len(marks) == 1
    import inspect
    from selmatch.distill import compiled
    from selmatch.train import training
    for function in (training.make_forward, compiled.compiled_steps, compiled.compiled_keep):
        assert "begin_graphs(device)" in inspect.getsource(function), function
