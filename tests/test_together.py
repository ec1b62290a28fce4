"""Runs that live together: two processes make each thing once, who is told to stop stops at once with all it started, and a disk that refuses is said in one line."""
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from functools import partial
from pathlib import Path

import pytest
import torch

from conftest import ROOT
from selmatch.computer import Computer, claim, find_litter, is_abandoned, is_running, name_lock, sweep_litter
from selmatch.core import InputError, identify_place, load_tensors, name_draft, save_tensors, write_atomic
from selmatch.study.store import Plan, Store
from test_input import refuses

QUIET = Computer(quiet=True)

RACE = """
import sys, time
from pathlib import Path
from selmatch.computer import Computer
from selmatch.study.store import Plan, Store
home, who = Path(sys.argv[1]), sys.argv[2]

def work(item):
    with open(home / f"made-{who}", "a") as file: file.write(f"{item}\\n")
    time.sleep(0.1)
    return {"twice": 2 * item}

def set_of_its_own(item):
    work(item)
    (home / f"own-{item}").write_text("there")

print("ready", flush=True)
sys.stdin.readline()
store = Store(home)
plan = Plan("race", work, list(range(20)), [f"{i:02d}key" for i in range(20)])
assert [r["twice"] for r in store.run(plan, Computer(quiet=True))] == [2 * i for i in range(20)]
own = Plan("own", set_of_its_own, [100, 101], [str(home / f"own-{i}") for i in (100, 101)], lambda i: (home / f"own-{i}").exists())
store.run(own, Computer(quiet=True))
"""


@pytest.mark.parametrize("n", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_racing_processes_make_each_thing_once(n, tmp_path):
    racers = [subprocess.Popen([sys.executable, "-c", RACE, str(tmp_path), str(i)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for i in range(n)]
    for racer in racers: assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        racer.stdin.write("go\n")
        racer.stdin.flush()
    for racer in racers: assert racer.wait(timeout=120) == 0
    made = {i: [int(x) for x in (tmp_path / f"made-{i}").read_text().split()] for i in range(n) if (tmp_path / f"made-{i}").exists()}
    everything = sorted(x for items in made.values() for x in items)
    assert everything == [*range(20), 100, 101], "each thing once"
    assert len(made) > 1 and min(map(len, made.values())) >= 3, "and all of them worked"
    assert find_litter(tmp_path) == []
    assert not list(tmp_path.rglob("*.lock"))


def test_a_lock_of_the_dead_holds_nobody(tmp_path):
    code = f"from pathlib import Path; from selmatch.computer import claim\nwith claim(Path({str(tmp_path / 'x')!r})):\n    print('in', flush=True)\n    import time; time.sleep(60)"
    holder = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "in\n"
    with claim(tmp_path / "x", wait=False) as ours: assert not ours
    assert find_litter(tmp_path) == []
    holder.kill()
    holder.wait()
    assert find_litter(tmp_path) == [name_lock(tmp_path / "x")]
    with claim(tmp_path / "x", wait=False) as ours: assert ours
    assert list(tmp_path.iterdir()) == []


def test_drafts_of_the_living_and_of_elsewhere_are_left(tmp_path):
    here, mark = identify_place(), "0" * 16
    mine, dead = tmp_path / f".a.{here}-{os.getpid()}-{mark}.tmp", tmp_path / f".a.{here}-4194305-{mark}.tmp"
    far, old = tmp_path / f".a.00000000-4194305-{mark}.tmp", tmp_path / f".b.00000000-4194305-{mark}.tmp"
    other = tmp_path / "somebody.tmp"
    for folder in (mine, dead, far, old, other): folder.mkdir()
    os.utime(old, (1, 1))
    assert sorted(sweep_litter(tmp_path)) == sorted([dead, old])
    assert mine.exists() and far.exists() and other.exists()


def test_a_planted_link_is_not_followed_and_modes_are_the_users(tmp_path, monkeypatch):
    theirs = tmp_path / "theirs"
    theirs.write_text("precious")
    from selmatch import core
    planted = tmp_path / ".x.tmp"
    planted.symlink_to(tmp_path / "elsewhere")
    monkeypatch.setattr(core, "name_draft", lambda path: planted)
    with refuses("cannot write"): write_atomic(tmp_path / "x", lambda p: p.write_text("mine"))
    assert not (tmp_path / "elsewhere").exists()
    monkeypatch.undo()
    (tmp_path / "link").symlink_to(theirs)
    before = os.umask(0o027)
    try:
        write_atomic(tmp_path / "link", lambda p: p.write_text("mine"))
        save_tensors(tmp_path / "t.safetensors", {"a": torch.zeros(2)})
    finally:
        os.umask(before)
    assert theirs.read_text() == "precious", "a link is replaced, and what it leads to is left"
    assert {oct((tmp_path / name).stat().st_mode & 0o777) for name in ("link", "t.safetensors")} == {"0o640"}


def test_threads_that_write_one_file_do_not_meet(tmp_path):
    from concurrent.futures import ThreadPoolExecutor
    def write(i): write_atomic(tmp_path / "x", lambda p: p.write_text(str(i) * 1000))
    with ThreadPoolExecutor(8) as pool: list(pool.map(write, range(100)))
    assert len(set((tmp_path / "x").read_text())) <= 2
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root writes everywhere")
def test_a_home_that_may_not_be_written(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with refuses("cannot write", "SELMATCH_HOME"): Store(tmp_path / "home").save("ab", 1)
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize("call, number, word", [("replace", 28, "No space left"), ("fsync", 5, "Input/output"), ("mkdir", 30, "Read-only")])
def test_a_disk_that_refuses_is_said_in_one_line_and_nothing_is_lost(call, number, word, tmp_path, monkeypatch):
    store, plan = Store(tmp_path), Plan("double", lambda x: {"twice": 2 * x}, [1, 2], ["aa1", "bb2"])
    store.save("aa1", {"twice": 2})
    def refuse(*given, **words): raise OSError(number, os.strerror(number))
    with monkeypatch.context() as patch:
        patch.setattr(os, call, refuse)
        with pytest.raises(InputError) as said: store.run(plan, QUIET)
    assert word in str(said.value) and "SELMATCH_HOME" in str(said.value) and "\n" not in str(said.value)
    assert store.run(plan, QUIET) == [{"twice": 2}, {"twice": 4}]
    assert not list(tmp_path.rglob("*.tmp")) and not list(tmp_path.rglob("*.bad"))


# ---------------------------------------------------------------- told to stop

def list_children(number):
    """The processes below a process, by /proc."""
    found, todo = [], [number]
    while todo:
        try: below = [int(x) for task in Path(f"/proc/{todo.pop()}/task").iterdir() for x in (task / "children").read_text().split()]
        except OSError: continue
        found += below
        todo += below
    return found


def wait_for(condition, seconds):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end: time.sleep(0.1)
    return condition()


SLEEPER = """
import sys, time
from selmatch import app, computer
import click

def nap(seconds):
    time.sleep(seconds)

@app.cli.command("nap")
def nap_command():
    import os
    computer.run_all(time.sleep, [120] * 2, "naps", computer.Computer(workers=2, quiet=True))

sys.argv = ["selmatch", "nap"]
app.main()
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux' /proc")
@pytest.mark.parametrize("name, code", [("SIGTERM", 143), pytest.param("SIGHUP", 129, marks=pytest.mark.slow), pytest.param("SIGINT", 130, marks=pytest.mark.slow), ("SIGKILL", -9)])
def test_who_is_told_to_stop_stops_with_all_it_started(name, code):
    """One line, its exit code, and after five seconds nobody is left (thirty here, where others work, too)."""
    running = subprocess.Popen([sys.executable, "-c", SLEEPER], cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True)
    workers = lambda: [p for p in list_children(running.pid) if b"popen_loky" in Path(f"/proc/{p}/cmdline").read_bytes()]
    assert wait_for(lambda: len(workers()) == 2, 60)
    time.sleep(2)
    started = list_children(running.pid)
    running.send_signal(getattr(signal, name))
    assert running.wait(timeout=30) == code
    assert wait_for(lambda: not any(is_running(p) for p in started), 30), "somebody is left behind"
    said = running.stderr.read()
    if name != "SIGKILL": assert said.lstrip("\n") == "selmatch: interrupted; the same command goes on from here\n", said


@pytest.mark.slow
@pytest.mark.notebook
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux' /proc")
def test_figures_stop_while_a_notebook_draws(tmp_path):
    command = [sys.executable, "-c", "from selmatch.app import main; main()", "figures", "--profile", "smoke", "--only", "fig3_window", "--out", str(tmp_path / "out")]
    running = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"SELMATCH_HOME": str(tmp_path / "home")}, stderr=subprocess.PIPE, text=True, start_new_session=True)
    kernels = lambda: [p for p in list_children(running.pid) if b"ipykernel" in Path(f"/proc/{p}/cmdline").read_bytes()]
    assert wait_for(kernels, 300)
    time.sleep(3)
    started, begin = list_children(running.pid), time.monotonic()
    running.send_signal(signal.SIGINT)
    assert running.wait(timeout=30) == 130
    assert time.monotonic() - begin < 10
    assert wait_for(lambda: not any(is_running(p) for p in started), 5)
