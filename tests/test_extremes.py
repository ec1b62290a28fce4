"""Ordinary mistakes: extreme numbers in every option, every word of a profile and every call, and names that no file system takes: one clear line each, before any work."""
import os
import sys
from dataclasses import asdict, is_dataclass
from pathlib import Path

import click
import numpy as np
import pytest
import torch

from conftest import ROOT
from selmatch import api, app
from selmatch.core import InputError, check_path, check_seed, check_whole
from selmatch.data.export import save_folder
from selmatch.data.loaders import load_data, load_digits
from selmatch.distill.sets import load_set, save_set
from selmatch.study import store, study
from selmatch.study.profile import load_profile
from selmatch.train.networks import make_network
from test_input import refuses
from test_trust import small_set

pytestmark = pytest.mark.slow                          # not yet among the default tests: the tables take some hundred commands
EXTREMES = ["0", "-1", "1e308", "nan", "inf", str(2**63)]
# what of these an option may be
ALLOWED = {"seed": {"0"}, "white": {str(2**63)}, "max_pixels": {str(2**63)}, "iterations": {"0"}, "draws": {"0"}, "number": {"0"}, "alpha": {"0"}, "beta": {"0"}, "older": {"0"}, "unasked": {"0"}}
TIMES = {"minutes", "budget"}


class Began(BaseException):
    """Work was started."""


@pytest.fixture
def no_work(monkeypatch, tmp_path):
    """Whoever loads data, runs a plan, draws or measures has begun."""
    def begin(*given, **words): raise Began
    monkeypatch.setattr(store.Store, "run", begin)
    monkeypatch.setattr(study, "load_data", begin)
    monkeypatch.setattr("selmatch.show.bench.run_bench", begin)
    monkeypatch.setattr("selmatch.show.card.survey", begin)
    monkeypatch.setattr("selmatch.app.draw_figures", begin)
    monkeypatch.setattr("selmatch.care.find_removable", begin)
    monkeypatch.setattr("selmatch.others.read_set", begin)
    monkeypatch.setenv("SELMATCH_HOME", str(tmp_path / "home"))
    return tmp_path


def numeric_options():
    """(command, option) for every option that is a number or a time, as click knows them."""
    kinds = (click.types.IntParamType, click.types.FloatParamType)
    return [(name, p) for name, command in app.cli.commands.items() for p in command.params
            if isinstance(p, click.Option) and (isinstance(p.type, kinds) or p.name in TIMES)]


def outcome(words, capsys):
    """begun, done, or the message."""
    try:
        app.main(words)
    except Began:
        return "begun"
    except SystemExit as stop:
        said = capsys.readouterr().err.strip()
        assert "Traceback" not in said and said.count("\n") == 0, said
        if stop.code == 0: return "done"
        assert stop.code == 2 and said.startswith("selmatch: "), (stop.code, said)
        return said


def needed(command, room):
    """The arguments of a command, and options that let it come as far as its numbers."""
    save_folder(load_digits(per_class=3).train, room / "mine")
    (room / "x.pt").write_bytes(b"x")
    first = {"shrink": [room / "mine"], "import": [room / "x.pt"], "compare": [room / "x.pt"], "evaluate": [room / "x.pt"], "coverage": [room / "x.pt"], "cache": ["--clean"],
             "figures": ["--profile", "smoke"], "tune": ["--profile", "smoke"]}
    out = {"shrink", "import", "select", "distill"}
    return [*map(str, first.get(command, ["--profile", "smoke"])), *(["--out", str(room / "out")] if command in out else [])]


def test_every_number_on_the_command_line(no_work, capsys, monkeypatch):
    monkeypatch.chdir(no_work)
    options, wrong = numeric_options(), []
    assert len(options) > 60, "the table is blind"
    for command, option in options:
        for value in EXTREMES:
            said = outcome([command, *needed(command, no_work), max(option.opts, key=len), value], capsys)
            allowed = value in ALLOWED.get(option.name, set())
            if (said in ("begun", "done")) is not allowed and not (allowed and ("folder" in said or "tensor file" in said)):
                wrong.append(f"{command} {option.opts[-1]} {value}: {said}")
            elif not allowed and option.name.replace("_", "-") not in said.replace("_", "-") and option.name not in TIMES:
                wrong.append(f"{command} {option.opts[-1]} {value} is not named: {said}")
    assert wrong == []
    assert sorted(p.name for p in no_work.iterdir()) in (["mine", "x.pt"], ["home", "mine", "x.pt"]), "something was written"


def leaves(values, place=()):
    """The place of every number in the words of a profile."""
    if isinstance(values, dict):
        return [leaf for key, below in values.items() for leaf in leaves(below, (*place, key))]
    return [place] if isinstance(values, (int, float)) and not isinstance(values, bool) else []


def test_every_number_of_a_profile():
    p = load_profile("smoke")
    places = [place for place in leaves(asdict(p)) if all(isinstance(part, str) and "." not in part for part in place)]
    assert len(places) > 60
    for place in places:
        for text in EXTREMES:
            value = float(text) if not text.lstrip("-").isdigit() else int(text)
            try:
                made = api.change_words(p, {".".join(place): value})
                assert place[-1] == "skip_above" or np.isfinite(float(value)) and abs(value) < 2**62, f"{'.'.join(place)}={value} was taken"
                assert is_dataclass(made)
            except InputError as error:
                assert "\n" not in str(error)


@pytest.mark.parametrize("seed", [-1, 2**32, 2**62, 2**63, 2**64, 10**30, 0.5, float("nan"), "0", True])
def test_seeds(seed):
    x, y = np.zeros((20, 8, 8), dtype=np.uint8), np.arange(20) % 2
    with refuses("seed"): check_seed(seed)
    with refuses("seed"): api.from_arrays(x, y, seed=seed)
    with refuses("seed"): load_data("digits", seed=seed)
    with refuses("seed"): make_network({"name": "ConvNet", "width": 2, "depth": 1}, (1, 8, 8), 2, seed)
    with refuses("seed"): load_profile("smoke", seed=seed)
    with refuses("seed"): api.open_study("smoke", seed=seed)


def test_the_largest_seed_works():
    data = load_data("digits", per_class=10, seed=2**32 - 1)
    assert len(data.train) and not torch.equal(data.train.images, load_data("digits", per_class=10, seed=0).train.images), "another seed, another split"
    assert study.Study(load_profile("smoke", seed=2**32 - 1)).seed("experts") >= 0


@pytest.fixture(scope="module")
def opened():
    rng = np.random.default_rng(0)
    return api.from_arrays(rng.integers(0, 256, (60, 8, 8), dtype=np.uint8), np.arange(60) % 3, quiet=True)


@pytest.mark.parametrize("value", [0, -1, 1e308, float("nan"), float("inf"), -float("inf"), 2**63, 0.5, True, "3"])
def test_every_number_of_the_calls(value, opened, no_work):
    small = api.Small(small_set())
    def raises(call, *words):
        try:
            with refuses(*words): call()
        except Began:
            raise AssertionError(f"{words} {value!r} began work") from None
    if value != 0.5: raises(lambda: opened.sizes(ratio=value), "ratio")
    for name in ("images", "per_class"): raises(lambda: opened.sizes(**{name: value}), name)
    for name in ("networks", "epochs"): raises(lambda: api.judge_sets(opened.study, {"small": small.made}, **{"n" if name == "networks" else name: value}), name)
    if value != 0: raises(lambda: api.judge_sets(opened.study, {"small": small.made}, draws=value), "draws")
    if value != 0: raises(lambda: api.distill(opened, "dm", iterations=value, ratio=0.1), "iterations")
    if value not in (0, 0.5): raises(lambda: api.distill(opened, "selmatch", alpha=value, beta=0.1, ratio=0.1), "alpha")
    if value not in (0, 0.5): raises(lambda: api.select(opened, "window", beta=value, ratio=0.1), "beta")


# ---------------------------------------------------------------- names and paths

LONG = ["x" * 256, "é" * 128, "a/" * 2000 + "b", "ok/" + "y" * 300 + "/z"]


def test_paths():
    for path in [*LONG, "a\0b", "\udfff\ud800"]:
        with refuses("--out", "no path"): check_path("--out", path)
    for path in ("x" * 255, "é" * 127, Path("a/b"), "~", ""): check_path("--out", path)
    assert check_whole("n", 3) == 3


@pytest.mark.parametrize("line", ["select --profile smoke --out {}", "distill --profile smoke --out {}", "score --profile smoke --out {}.csv", "shrink mine --out {}", "shrink {}", "import {}", "compare {}", "evaluate {}",
                                  "coverage {}", "figures --profile smoke --out {}", "tune --profile smoke --out {}", "bench --json {}", "fetch cifar10 --root {}", "score --data folder:{}", "score --data cifar10 --root {}",
                                  "figures --profile {}.yaml", "score --data folder:mine --labels {}"])
def test_names_that_no_file_system_takes(line, no_work, capsys, monkeypatch):
    monkeypatch.chdir(no_work)
    (no_work / "mine").mkdir()
    for name in LONG:
        said = outcome(line.format(name).split(), capsys)
        assert said not in ("begun", "done") and len(said) < 2500, said
    assert outcome(line.format("~nobody-of-this-name/x").split(), capsys) not in ("begun",) or "--out" in line or "--json" in line or "--root" in line or "labels" in line


def test_names_in_the_calls(tmp_path):
    for name in [*LONG, "a\0b"]:
        with refuses("no path"): save_set(small_set(), tmp_path / name)
        with refuses("no path"): save_folder(small_set().data, tmp_path / name)
        with refuses("no path"): api.from_folder(tmp_path / name)
        with refuses("no path"): load_data("folder", root=str(tmp_path / name))
        with refuses(): load_set(tmp_path / name)
        with refuses(): load_profile(f"{tmp_path / name}.yaml")
    assert list(tmp_path.iterdir()) == []


def test_class_names_of_any_length(tmp_path):
    from dataclasses import replace
    from selmatch.data.loaders import load_folder
    data = load_digits(per_class=4).train
    names = tuple(f"{'é' * 300}{i}" for i in range(10))
    files = save_folder(replace(data, classes=names), tmp_path / "long")
    assert all(len(part.encode()) <= 255 for file in files for part in file.parts)
    assert len({file.parent for file in files}) == 10
    assert len(load_folder(str(tmp_path / "long"), validation=0, test=0.5, size=8, cache=str(tmp_path / "cache")).train.classes) == 10


@pytest.mark.parametrize("line", ["select --profile smoke --out ro/out", "distill --profile smoke --out ro/out", "score --profile smoke --out ro/x.csv", "shrink mine --out ro/out", "figures --profile smoke --out ro/out",
                                  "tune --profile smoke --out ro/x.yaml", "bench --json ro/x.json", "import x.pt --out ro/out", "compare x.pt --out ro/x.csv", "window --profile smoke --out ro/x.csv", "evaluate x.pt --out ro/x.csv"])
def test_a_folder_that_is_only_read(line, no_work, capsys, monkeypatch):
    monkeypatch.chdir(no_work)
    needed("shrink", no_work)
    (no_work / "ro").mkdir(mode=0o500)
    theirs = os.access                                       # root may write everywhere
    monkeypatch.setattr(os, "access", lambda path, mode: False if Path(path).name == "ro" and mode & os.W_OK else theirs(path, mode))
    said = outcome(line.split(), capsys)
    assert said.startswith("selmatch: ") and "ro" in said and "writ" in said, said
