"""A set is written to a folder of the user's and the process is killed there: the same command goes on, and leaves what an undisturbed one leaves."""
import os

import pytest
import torch

from conftest import refuses
from selmatch import app
from selmatch.data.export import sweep_rooms
from selmatch.data.images import ImageSet
from selmatch.distill.sets import SyntheticSet, save_set

CALLS = ("replace", "rename", "fsync", "mkdir", "unlink", "rmdir")     # of the module os


def make(out, value=0.5):
    """What `select` and `distill` do with --out."""
    app.check_out(out, {"name": "digits"})
    images = torch.full((4, 1, 8, 8), value)
    data = ImageSet(images, torch.tensor([0, 0, 1, 1]), ("a", "b/c"), (0.0,), (1.0,))
    save_set(SyntheticSet(data, torch.zeros(4, dtype=torch.bool)), out, export=True)


def files(out):
    return {str(p.relative_to(out)): p.read_bytes() if p.is_file() else None for p in sorted(out.rglob("*"))}


def killed(out, value, at) -> bool:
    """Make a set in a process that is gone at its call number `at`; whether it was."""
    child = os.fork()
    if child == 0:
        left = [at]
        def counted(call):
            def instead(*given, **words):
                left[0] -= 1
                if left[0] < 0: os._exit(9)
                return call(*given, **words)
            return instead
        for name in CALLS: setattr(os, name, counted(getattr(os, name)))
        try: make(out, value)
        finally: os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


@pytest.mark.parametrize("older", [False, True])
def test_a_kill_anywhere_in_a_folder_of_the_user_is_taken_up(older, tmp_path):
    make(tmp_path / "clean", 0.25)
    expected, at = files(tmp_path / "clean"), 0
    while True:
        out = tmp_path / f"small-{at}"
        if older: make(out)
        if not killed(out, 0.25, at): break
        make(out, 0.25)
        assert {name: part for name, part in files(out).items() if ".selmatch." not in name} == expected, at
        at += 1
    assert at > 20
    assert files(out) == expected


def test_what_is_not_ours_is_still_refused(tmp_path):
    out = tmp_path / "small"
    killed(out, 0.25, 12)
    (out / ".diary.tmp").write_text("mine")
    refuses(lambda: make(out), "small exists and was not written by selmatch")
    assert (out / ".diary.tmp").read_text() == "mine"


def test_a_room_of_a_process_that_runs_is_left_alone(tmp_path):
    from selmatch.core import make_mark
    room = tmp_path / f".selmatch.{make_mark()}"
    (room / "new").mkdir(parents=True)
    sweep_rooms(tmp_path)
    assert (room / "new").exists()
