"""Files from strangers, changed at random, through every reader: refused by an `InputError`, or valid by their schema; never another exception, a hang, a gigabyte, or code that runs."""
import mmap
import sys

import pytest

from conftest import ROOT
from selmatch.core import InputError, longest_message

sys.path.insert(0, str(ROOT / "scripts"))
import mutate_files  # noqa: E402


def wrong(each, seed, names=None):
    """What is neither refused nor valid."""
    return mutate_files.run_many(each, seed, names)["findings"]


HEAVY = {"profile", "image-folder", "tiny-wnids", "tiny-words", "tiny-val_annotations", "gallery", "checkpoint"}     # some tens of milliseconds each


def test_some_hundred_changed_files():
    assert wrong(8, 100, [name for name in mutate_files.READERS if name not in HEAVY]) == []
    assert wrong(2, 100, sorted(HEAVY)) == []


@pytest.mark.parametrize("name, number, seed", [("checkpoint", 205, 0)])     # a count of infinity
def test_what_was_found_once_is_not_found_again(name, number, seed):
    assert mutate_files.is_good(mutate_files.try_file(name, number, seed))


@pytest.mark.slow
@pytest.mark.parametrize("name", list(mutate_files.READERS))
def test_ten_thousand_changed_files(name):
    assert wrong(-(-10_000 // len(mutate_files.READERS)), 101, [name]) == []


def test_an_unchanged_file_is_read_by_every_reader():
    """Else a harness that refuses everything would find nothing."""
    import tempfile
    from pathlib import Path
    for name, reader in mutate_files.READERS.items():
        with tempfile.TemporaryDirectory() as room:
            folder, inside = mutate_files.seeds_of(name)
            place = Path(room) / "in" / "here"
            mutate_files.shutil.copytree(folder, place)
            assert mutate_files.judge(name, place / inside, Path(room)) == "accepted", name


def test_the_harness_sees_what_is_wrong(tmp_path, monkeypatch):
    place = tmp_path / "in" / "here"
    place.mkdir(parents=True)
    (place / "x").write_text("x")
    def judge(read, check=lambda found: True):
        monkeypatch.setitem(mutate_files.READERS, "mine", mutate_files.Reader(None, None, read, check))
        return mutate_files.judge("mine", place / "x", tmp_path)
    def refuse(path): raise InputError("no")
    def burn(path):
        while True: pass
    monkeypatch.setattr(mutate_files, "SECONDS", 0.2)
    assert judge(refuse) == "refused" and judge(lambda path: None) == "refused" and judge(lambda path: 1) == "accepted"
    assert judge(lambda path: 1 / 0) == "exception: ZeroDivisionError"
    assert judge(lambda path: 1, lambda found: False).startswith("invalid")
    assert judge(burn).startswith("slow")
    monkeypatch.setattr(mutate_files, "BYTES", 10**7)
    fresh = lambda path: mmap.mmap(-1, 5 * 10**7).write(b"x" * 5 * 10**7)       # nothing that was freed before serves for it
    assert judge(fresh).startswith("memory") or not mutate_files.resident("VmHWM")
    assert judge(lambda path: (path.parent / "it ran").mkdir() or 1).startswith("trap")
    (place / "it ran").rmdir()
    assert judge(lambda path: (tmp_path / "out").mkdir() or 1).startswith("outside")


def test_a_file_depends_on_seed_reader_and_number_alone(tmp_path):
    for seed in (0, 1):
        texts = set()
        for place in ("a", "b"):
            (tmp_path / f"{place}{seed}").mkdir()
            texts.add(mutate_files.prepare("gallery", 3, seed, tmp_path / f"{place}{seed}").read_bytes())
        assert len(texts) == 1


def test_it_goes_on_where_it_stopped():
    whole = mutate_files.run_many(6, 0, ["note", "bench"])
    part = mutate_files.run_many(2, 0, ["note", "bench"])
    assert mutate_files.run_many(6, 0, ["note", "bench"], part) == whole
    assert "all 12" in mutate_files.say_counts(whole)


def test_a_message_is_one_line_of_bounded_length():
    said = str(InputError("a\nb" + "x" * 10**6 + "the end"))
    assert "\n" not in said and len(said) <= longest_message and said.startswith("a b") and said.endswith("the end")
    assert str(InputError("a  b")) == "a  b"
