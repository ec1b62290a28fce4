"""Nothing is lost: files outlive kills and power cuts, damage is named and mended, and two processes share the work."""
import json
import os
import subprocess
import sys
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from conftest import ROOT
from selmatch import core
from selmatch.computer import Computer, claim, find_litter, name_lock, sweep_litter
from selmatch.core import DamagedFile, InputError, load_tensors, open_tensors, read_json, save_tensors, write_atomic, write_json
from selmatch.data.loaders import load_digits
from selmatch.distill.condensation import DistributionMatching
from selmatch.distill.experts import Trajectory, expert_recipe, is_trained, list_expert_tasks, train_expert
from selmatch.distill.loop import Descent
from selmatch.distill.sets import SyntheticSet, distilled_mask
from selmatch.methods import find_method
from selmatch.study.sets import SetTask, make_set
from selmatch.study.store import Plan, Store, sweep_once

TRAIN = load_digits(per_class=6).train
SPEC = {"name": "ConvNet", "width": 2, "depth": 1}
QUIET = Computer(quiet=True)


@pytest.fixture(autouse=True)
def no_words():
    """Files that are set aside are warned of; here they are meant."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def tiny_set(home, **changes):
    """A set of distribution matching: eight iterations of milliseconds."""
    rows = torch.cat([torch.nonzero(TRAIN.labels == c).flatten()[:1] for c in range(10)])
    start = SyntheticSet(TRAIN.subset(rows), distilled_mask(10, 1, 1.0), card={"seed": 0, "method": "dm"})
    objective = DistributionMatching(network=SPEC, train=TRAIN, batch_real=4)
    descent = replace(Descent(8, lr_images=1.0, evaluate_at=(3,)), **changes)
    return SetTask(find_method("dm"), start, objective, descent, 5, Path(home) / "sets" / "dm-00000000000000d0")


def tiny_experts(home):
    return list_expert_tasks(Path(home) / "experts" / "00000000000000e0", TRAIN, SPEC, expert_recipe(len(TRAIN), 3, 16, 0.05), 1, draft_every=1)


def tiny_run(home):
    """Everything that we write, small: results, an expert with drafts, a set with checkpoints, a note."""
    home = Path(home)
    store = Store(home)
    results = store.run(Plan("double", lambda x: {"twice": torch.full((3,), 2.0 * x)}, [1, 2], ["aa10000000000001", "bb20000000000002"]), QUIET)
    experts = tiny_experts(home)
    store.run(Plan("experts", train_expert, experts, [str(t.path) for t in experts], is_trained), QUIET)
    task = tiny_set(home)
    for until in (3, None):                    # a pause leaves a checkpoint
        store.run(Plan("sets", partial(make_set, until=until), [task], [str(task.folder)], lambda t: t.reached(until)), QUIET)
    return results, task


def bits(home):
    """Every file of a home but the note of the seconds it took, which are no result."""
    home = Path(home)
    return {str(p.relative_to(home)): p.read_bytes() for p in sorted(home.rglob("*")) if p.is_file() and p.name != "seconds.json" and not p.name.endswith(".bad")}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What an undisturbed run leaves."""
    home = tmp_path_factory.mktemp("whole")
    tiny_run(home)
    return bits(home)


def test_the_tiny_run_is_the_same_twice(whole, tmp_path):
    tiny_run(tmp_path)
    assert bits(tmp_path) == whole
    assert {"sets/dm-00000000000000d0/at_000003/set.safetensors", "sets/dm-00000000000000d0/history.csv", "experts/00000000000000e0/expert_000.safetensors"} <= set(whole)
    assert not [name for name in whole if "checkpoint" in name or "draft" in name or ".tmp" in name or name.endswith(".lock")]


# ---------------------------------------------------------------- killed at every write

class Killed(BaseException):
    """What a killed process does not catch."""


class Blows:
    """Counts the calls that change the disk, and kills at the nth: nothing is cleaned up after it."""
    def __init__(self, monkeypatch, at):
        self.n, self.at, self.dead = 0, at, False
        for module, name in ((os, "replace"), (os, "fsync"), (os, "mkdir")):
            monkeypatch.setattr(module, name, self.counted(getattr(module, name)))
        for module, name in ((os, "unlink"), (core.shutil, "rmtree")):
            monkeypatch.setattr(module, name, self.alive_only(getattr(module, name)))
        theirs = core.name_draft          # a number that no process has
        monkeypatch.setattr(core, "name_draft", lambda path: theirs(path).with_name(theirs(path).name.replace(f"-{os.getpid()}-", "-4194305-")))

    def counted(self, call):
        def go(*given, **words):
            if self.n == self.at or self.dead:
                self.dead = True
                raise Killed
            self.n += 1
            return call(*given, **words)
        return go

    def alive_only(self, call):
        return lambda *given, **words: None if self.dead else call(*given, **words)


@pytest.fixture
def kill_at(monkeypatch):
    """Run something and kill it at its nth change of the disk; says whether it came that far."""
    def run(n, call):
        with monkeypatch.context() as patch:
            blows = Blows(patch, n)
            try:
                call()
            except Killed:
                pass
        return blows.dead
    return run


def count_writes(home, monkeypatch):
    with monkeypatch.context() as patch:
        blows = Blows(patch, None)
        tiny_run(home)
    return blows.n


def check_kills(points, whole, kill_at, tmp_path):
    for n in points:
        home = tmp_path / f"killed-{n}"
        assert kill_at(n, lambda: tiny_run(home)), f"there is no change {n}"
        sweep_once.cache_clear()
        tiny_run(home)
        assert bits(home) == whole, f"killed at {n}"
        assert not list(home.rglob("*.tmp")), f"litter after a kill at {n}"


def test_killed_at_some_writes_it_ends_with_the_same_bits(whole, kill_at, tmp_path, monkeypatch):
    total = count_writes(tmp_path / "counted", monkeypatch)
    assert total > 60
    check_kills([1, 5, total // 3, total // 2, 2 * total // 3, total - 2], whole, kill_at, tmp_path)


@pytest.mark.slow
def test_killed_at_every_write_it_ends_with_the_same_bits(whole, kill_at, tmp_path, monkeypatch):
    check_kills(range(count_writes(tmp_path / "counted", monkeypatch)), whole, kill_at, tmp_path)


# ---------------------------------------------------------------- the plug is pulled

class Disk:
    """What of a folder is on the disk: the content that files had when they were last waited for, and the names that folders had.
    `strict()` is a cut that loses everything else; `journal()` keeps all names, and loses the content of files that nobody waited for."""
    def __init__(self, home, monkeypatch):
        self.home, self.files, self.folders, self.held, self.cuts = Path(home), {}, {}, [], []
        fsync, replace_ = os.fsync, os.replace

        def settled(handle):
            self.cut()
            fsync(handle)
            self.note(handle)
            self.cut()

        def replaced(*given):
            self.cut()
            replace_(*given)
            self.cut()
        monkeypatch.setattr(os, "fsync", settled)
        monkeypatch.setattr(os, "replace", replaced)

    def note(self, handle):
        state, path = os.fstat(handle), os.readlink(f"/proc/self/fd/{handle}")
        self.held.append(os.dup(handle))                   # so that no other file gets its number
        if Path(path).is_dir():
            self.folders[state.st_ino] = {e.name: (e.inode(), e.is_dir(follow_symlinks=False)) for e in os.scandir(path)}
        else:
            self.files[state.st_ino] = Path(path).read_bytes()

    def strict(self, inode=None, inside=Path()):
        found = {}
        for name, (number, is_folder) in self.folders.get(inode or self.home.stat().st_ino, {}).items():
            found |= self.strict(number, inside / name) if is_folder else {str(inside / name): self.files.get(number, b"")}
        return found

    def journal(self):
        return {str(p.relative_to(self.home)): self.files.get(p.stat().st_ino, b"") for p in self.home.rglob("*") if p.is_file()}

    def cut(self):
        for way in (self.strict, self.journal):
            state = way()
            if state not in self.cuts:
                self.cuts.append(state)

    def close(self):
        for handle in self.held: os.close(handle)


def list_cuts(home, monkeypatch):
    """Every state in which a power cut during a tiny run can leave the disk."""
    home.mkdir()
    with monkeypatch.context() as patch:
        disk = Disk(home, patch)
        tiny_run(home)
    disk.close()
    return disk.cuts


def restart(state, home):
    for name, content in state.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_bytes(content)
    sweep_once.cache_clear()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        tiny_run(home)
    return [str(w.message) for w in said]


def foreign(name):
    """Drafts and locks are not read; those of before a restart are left a day."""
    return ".tmp/" in name or name.endswith(".lock")


def check_cuts(cuts, whole, tmp_path):
    for i, state in enumerate(cuts):
        home = tmp_path / f"cut-{i}"
        said = restart(state, home)
        assert said == [], f"cut {i} left a damaged file: {said}"
        assert {name: content for name, content in bits(home).items() if not foreign(name)} == whole, f"cut {i}"


def test_after_a_power_cut_it_ends_with_the_same_bits(whole, tmp_path, monkeypatch):
    cuts = list_cuts(tmp_path / "home", monkeypatch)
    assert len(cuts) > 40
    check_cuts(cuts[::len(cuts) // 6], whole, tmp_path)


@pytest.mark.slow
def test_after_a_power_cut_at_any_moment_it_ends_with_the_same_bits(whole, tmp_path, monkeypatch):
    cuts = list_cuts(tmp_path / "home", monkeypatch)
    check_cuts(cuts, whole, tmp_path)


def test_the_model_sees_a_writer_that_does_not_wait(tmp_path, monkeypatch):
    monkeypatch.setattr(core, "settle", lambda path: core.os.fsync(os.open(path, os.O_RDONLY)) if path.is_dir() else None)
    cuts = list_cuts(tmp_path / "home", monkeypatch)
    said = [restart(state, tmp_path / f"cut-{i}") for i, state in enumerate(cuts[-3:])]
    assert any("cannot read" in line for lines in said for line in lines), "finished files of zero length"
