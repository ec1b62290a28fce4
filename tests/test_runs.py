"""Whole runs: every figure on `smoke`, the same bits twice and with any number of workers, and what a pulled plug leaves behind."""
import ast
import json
import os
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest

from conftest import FIGURES, ROOT
from selmatch.study import tables
from selmatch.app import main
from selmatch.study.profile import load_profile
from selmatch.study.store import Plan, Store
from selmatch.study.study import Study
from selmatch.computer import Computer


@pytest.mark.slow
@pytest.mark.notebook
def test_all_figures_twice_cold_give_the_same_files(selmatch_command, tmp_path):
    for home, workers in (("one", 1), ("two", 2)):
        done = selmatch_command("figures", "--all", "--profile", "smoke", "--workers", workers, "--out", tmp_path / f"figures-{home}", home=tmp_path / home, timeout=900)
        assert done.returncode == 0, done.stderr[-3000:]
    one, two = tmp_path / "figures-one", tmp_path / "figures-two"
    for path in FIGURES:
        for kind in ("png", "svg", "csv", "json", "ipynb", "html"):
            assert (one / f"{path.stem}.{kind}").stat().st_size > 100
        for kind in ("csv", "json", "svg"):
            assert (one / f"{path.stem}.{kind}").read_bytes() == (two / f"{path.stem}.{kind}").read_bytes(), f"{path.stem}.{kind}"
        assert len(pd.read_csv(one / f"{path.stem}.csv")) == json.loads((one / f"{path.stem}.json").read_text())["rows"] > 0
        assert f"{path.stem}.png" in (one / "index.html").read_text()


def test_results_depend_on_the_seed_and_not_on_the_workers(tmp_path):
    found = []
    for i, (seed, workers) in enumerate([(0, 1), (0, 2), (1, 1)]):
        study = Study(load_profile("smoke", seed=seed), Computer(workers=workers, quiet=True), tmp_path / str(i))
        found.append(tables.accuracies(study, ["random"]))
    assert found[0].equals(found[1])
    assert not found[0].test_accuracy.equals(found[2].test_accuracy)


WORK = """
import sys
from pathlib import Path
from dataclasses import replace
from selmatch.study.profile import load_profile
from selmatch.study.sets import make_set, set_task
from selmatch.study.study import Study
from selmatch.computer import Computer
p = load_profile("smoke")
p = replace(p, matching=replace(p.matching, iterations=40, evaluate_at=(20,)))
study = Study(p, Computer(quiet=True), Path(sys.argv[1]))
task = set_task(study, "selmatch", 0.1, 0)
print(make_set(task))
"""


def test_killed_while_distilling_it_ends_with_the_same_bits(tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    def start(home): return subprocess.Popen([sys.executable, "-c", WORK, str(home)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    whole, whole_error = start(tmp_path / "whole").communicate(timeout=200)
    broken = start(tmp_path / "broken")
    deadline = time.time() + 150
    while not (found := list((tmp_path / "broken").glob("sets/*/checkpoint.safetensors"))) and time.time() < deadline and broken.poll() is None: time.sleep(0.02)
    broken.send_signal(signal.SIGKILL)
    broken.wait()
    assert found, "it was to be killed in the middle"
    assert not list((tmp_path / "broken").glob("sets/*/history.csv")), "it was to be killed in the middle"
    again, error = start(tmp_path / "broken").communicate(timeout=200)
    assert again.strip(), error[-2000:]
    for name in ("history.csv", "at_000020/set.safetensors", "at_000040/set.safetensors"):
        assert open(f"{whole.strip()}/{name}", "rb").read() == open(f"{again.strip()}/{name}", "rb").read(), name


def test_each_stage_has_a_command(say, tmp_path):
    common = ["--profile", "smoke", "--device", "cpu", "--workers", "1"]

    def expect(sentence, *words):
        code, out, errors = say(*words)
        assert code == 0, errors
        assert sentence in out

    expect("beta = ", "window", *common, "--ratio", "0.3", "--out", tmp_path / "w.csv")
    assert len(pd.read_csv(tmp_path / "w.csv")) > 0
    expect("", "score", *common, "--out", tmp_path / "s.csv")
    assert set(pd.read_csv(tmp_path / "s.csv").columns) >= {"class", "difficulty", "rank"}
    expect("2 experts in", "experts", *common)
    expect("", "distill", *common, "--ratio", "0.1", "--beta", "0.2", "--out", tmp_path / "small")
    card = json.loads((tmp_path / "small" / "card.json").read_text(encoding="utf-8"))
    assert card["method"] == "selmatch"
    assert len(list((tmp_path / "small" / "images").rglob("*.png"))) == 10 * card["ipc"]
    expect("± ", "evaluate", *common, "--set", tmp_path / "small")
    expect("hard_coverage", "coverage", *common, "--set", tmp_path / "small")
    expect("mtt", "methods")
    expect("digits", "profiles")
    code, _, errors = say("evaluate", "--data", "digits", "--set", tmp_path / "small")
    assert code == 2
    assert "other training images" in errors
    assert errors.count("\n") == 1


@pytest.mark.parametrize("command", ["figures", "score", "window", "search", "experts", "distill", "evaluate", "coverage", "bench"])
def test_each_command_has_help_that_names_its_options(command, capsys):
    with pytest.raises(SystemExit) as stop: main([command, "--help"])
    said = capsys.readouterr().out
    assert stop.value.code == 0
    assert "--device" in said
    assert "Usage:" in said
    assert len(said) > 300
    if command != "bench":
        assert "--workers" in said
    if command not in ("bench", "figures"):
        assert "--seed" in said


def test_only_numbers_are_loaded():
    """Our own files hold no pickle; CIFAR's do, and are read by an unpickler that makes arrays and plain values only."""
    modules = sorted((ROOT / "selmatch").rglob("*.py"))
    assert len(modules) > 20
    importing = set()
    for path in modules:
        text = path.read_text()
        loads = [call for call in ast.walk(ast.parse(text)) if isinstance(call, ast.Call) and ast.unparse(call.func) == "torch.load"]
        assert all(any(word.arg == "weights_only" and ast.unparse(word.value) == "True" for word in call.keywords) for call in loads), path
        assert "joblib.load" not in text, path
        for node in ast.walk(ast.parse(text)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module] if isinstance(node, ast.ImportFrom) else []
            importing |= {path.stem for name in names if name in ("pickle", "cPickle", "dill", "cloudpickle", "shelve")}
    assert importing == {"bench", "cluster", "loaders"}     # the bench measures the plain way; tasks travel to a cluster
    there = (ROOT / "selmatch" / "cluster.py").read_text()
    assert "pickle.load" not in there
    assert there.count("Unpacker(") == 2, "what came with a task is unpickled, and no file"
    loaders = (ROOT / "selmatch" / "data" / "loaders.py").read_text()
    assert "pickle.load" not in loaders
    assert loaders.count("Unpickler") == 1



def test_results_on_disk_hold_no_pickle_and_a_planted_one_never_runs(tmp_path):
    """A results folder may come from a stranger: what is not ours is set aside and computed again."""
    import pickle
    import warnings

    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "it ran"),)

    store, quiet = Store(tmp_path / "home"), Computer(quiet=True)
    plan = Plan("double", lambda x: {"twice": 2 * x}, [1, 2], ["one" * 6, "two" * 6])
    assert store.run(plan, quiet) == [{"twice": 2}, {"twice": 4}]
    files = sorted((tmp_path / "home").rglob("*.safetensors"))
    assert len(files) == 2
    for file in files:
        assert not file.read_bytes().startswith(b"\x80")
    files[0].write_bytes(pickle.dumps(Trap()))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert store.run(plan, quiet) == [{"twice": 2}, {"twice": 4}]
    assert any(files[0].name in str(w.message) for w in said)
    assert not (tmp_path / "it ran").exists()
    assert len(list((tmp_path / "home").rglob("*.bad"))) == 1
