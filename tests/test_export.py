"""What is written, and where: nothing of the user's is deleted, and no name leads out of the folder."""
import json
import os
import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from conftest import ROOT
from selmatch.data import export as floor
from selmatch.app import cli
from selmatch.core import InputError
from selmatch.data.images import ImageSet, pictures
from selmatch.data.loaders import load_digits, load_folder
from selmatch.data.export import class_folders, class_name, file_name, save_folder, fold_name
from selmatch.distill.sets import SyntheticSet, load_set, save_set
from test_input import refuses

HOSTILE = ["cat", "../victim", "a/b", "..", ".", "", ".hidden", "nul\0l", "/etc/x", "x" * 300, "y" * 299 + "/",
           "é" * 200, "50%", "%2e%2e", "CON", "train", "trailing.", "tab\there", "back\\slash", "\udcff"]


def snapshot(folder):
    """Every entry below a folder: the bytes of files, the targets of links."""
    found = {}
    for path in sorted(Path(folder).rglob("*")):
        if path.is_symlink():
            found[path] = os.readlink(path)
        else:
            found[path] = path.read_bytes() if path.is_file() else None
    return found


def colours(classes, per_class=2):
    """Images of one brightness each, class by class."""
    n = len(classes) * per_class
    images = torch.linspace(0, 1, n).view(n, 1, 1, 1).expand(n, 1, 4, 4).clone()
    labels = torch.arange(len(classes)).repeat_interleave(per_class)
    return ImageSet(images, labels, tuple(classes), (0.0,), (1.0,))


def small_set(classes, per_class=2):
    data = colours(classes, per_class)
    return SyntheticSet(data, torch.zeros(len(data), dtype=torch.bool))


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """Somebody's photographs, in a room with other things of theirs."""
    digits = load_digits(per_class=12)
    save_folder(digits.train, tmp_path / "room" / "mine")
    (tmp_path / "room" / "mine" / "classes.json").unlink()
    (tmp_path / "room" / "mine" / "notes.txt").write_text("mine")
    (tmp_path / "room" / "diary").mkdir()
    (tmp_path / "room" / "diary" / "today.txt").write_text("dear diary")
    monkeypatch.setenv("SELMATCH_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "room")
    return tmp_path / "room" / "mine"


def command(*arguments):
    """Run a command; returns what it raised."""
    return CliRunner().invoke(cli, [str(a) for a in arguments]).exception


SOURCE = ["--data", "folder:mine", "--profile", "smoke", "--device", "cpu"]


def refused(mine, *arguments, words=()):
    """The command ends with an InputError that has the words, has changed nothing, and has computed nothing."""
    before = snapshot(mine.parent)
    error = command(*arguments)
    assert isinstance(error, InputError), error
    for word in words:
        assert str(word) in str(error), f"{word!r} is not in {error}"
    assert snapshot(mine.parent) == before
    assert not Path(os.environ["SELMATCH_HOME"]).exists(), "work was started"


@pytest.mark.parametrize("make", ["select", "distill"])
@pytest.mark.parametrize("out", ["mine", "mine/small", "mine/0", "mine/0/deep/er", ".", "..", "diary/../mine", "./mine/.", "link",
                                 "link/small", "absolute"])
def test_out_is_never_the_source_nor_in_it_nor_around_it(make, out, mine):
    (mine.parent / "link").symlink_to(mine)
    out = str(mine) if out == "absolute" else out
    refused(mine, make, *SOURCE, "--out", out, words=["--out", Path(out), mine])


def test_the_source_may_be_named_by_a_link(mine):
    (mine.parent / "link").symlink_to(mine)
    refused(mine, "select", *SOURCE[2:], "--data", "folder:link", "--out", "mine", words=["--out mine", mine])


def test_out_is_not_what_a_link_in_the_source_leads_to(mine):
    elsewhere = mine.parent / "elsewhere"
    (mine / "0").rename(elsewhere)
    (mine / "0").symlink_to(elsewhere)
    refused(mine, "select", *SOURCE, "--out", "elsewhere", words=["--out elsewhere", elsewhere])
    refused(mine, "select", *SOURCE, "--out", "elsewhere/new", words=["--out elsewhere/new", elsewhere])


def test_a_file_system_that_takes_two_names_for_one_is_asked(mine, monkeypatch):
    """As where capitals do not count: `MINE` is there, and is `mine`."""
    (mine.parent / "MINE").mkdir()
    alike = lambda a, b: os.path.realpath(a).casefold() == os.path.realpath(b).casefold()
    monkeypatch.setattr(Path, "samefile", alike)
    refused(mine, "select", *SOURCE, "--out", "MINE", words=["--out MINE is", mine])


def test_out_is_not_in_official_files(mine):
    place = mine.parent / "tiny-imagenet-200"
    (place / "train").mkdir(parents=True)
    (place / "wnids.txt").write_text("n1\nn2\n")
    for out in ("tiny-imagenet-200/train/small", "tiny-imagenet-200", "."):
        refused(mine, "select", "--data", "tinyimagenet", "--root", ".", "--profile", "smoke", "--out", out, words=["--out", place])


@pytest.mark.parametrize("out, words", [("diary", ["diary", "not written by selmatch"]),
                                        ("diary/today.txt", ["today.txt", "no folder"]),
                                        ("diary/today.txt/small", ["today.txt", "no folder"])])
def test_out_that_is_there_and_not_ours(out, words, mine):
    refused(mine, "select", *SOURCE, "--out", out, words=words)


@pytest.mark.parametrize("name, text", [("card.json", '{"my": "card"}'), ("card.json", "[1]"), ("card.json", "no json"), ("set.safetensors", "x")])
def test_files_of_the_names_we_use(name, text, mine):
    (mine.parent / "diary" / name).write_text(text)
    refused(mine, "select", *SOURCE, "--out", "diary", words=["diary", "not written by selmatch"])
    before = snapshot(mine.parent)
    for export in (False, True):
        with refuses("diary", name, "not written by selmatch"):
            save_set(small_set("ab"), mine.parent / "diary", export=export)
    assert snapshot(mine.parent) == before


@pytest.mark.parametrize("line, words", [
    ("score --out nowhere/x.csv", ["nowhere/x.csv", "nowhere", "does not exist"]),
    ("window --out nowhere/x.csv", ["nowhere/x.csv", "does not exist"]),
    ("search --out nowhere/x.csv", ["nowhere/x.csv", "does not exist"]),
    ("evaluate --set small --out nowhere/x.csv", ["nowhere/x.csv", "does not exist"]),
    ("score --out diary", ["diary", ".csv"]),
    ("score --out mine/0/9999.png", ["9999.png", ".csv"]),
    ("score --out diary.csv", ["diary.csv", "folder"]),
    ("score --out table.csv", ["table.csv", "not written by this command"]),
])
def test_tables_that_cannot_be_written(line, words, mine):
    (mine.parent / "diary.csv").mkdir()
    (mine.parent / "table.csv").write_text("name,wage\n")
    name, *rest = line.split()
    refused(mine, name, *SOURCE, *rest, words=words)


def test_figures_are_not_drawn_into_the_source(mine, tmp_path):
    profile = tmp_path / "own.yaml"
    profile.write_text((ROOT / "selmatch" / "profiles" / "smoke.yaml").read_text().replace("{name: digits", f"{{name: folder, root: {mine}"))
    assert str(mine) in profile.read_text()
    for out in ("mine/new", "mine", "."):
        refused(mine, "figures", "--profile", profile, "--only", "fig3_window", "--device", "cpu", "--out", out, words=["--out", mine])
    (mine.parent / "diary" / "index.html").write_text("my page")
    refused(mine, "figures", "--profile", "smoke", "--only", "fig3_window", "--device", "cpu", "--out", "diary", words=["index.html"])


def test_a_set_is_written_twice_and_everything_else_stays(mine):
    before = snapshot(mine.parent)
    for _ in range(2):
        assert command("select", *SOURCE, "--method", "random", "--ratio", "0.3", "--out", "small") in (None,)
    after = snapshot(mine.parent)
    assert {path: after[path] for path in before} == before
    assert {path.relative_to(mine.parent).parts[0] for path in set(after) - set(before)} == {"small"}
    (mine.parent / "small" / "images" / "0" / "my own.png").write_bytes(b"mine")
    error = command("select", *SOURCE, "--method", "random", "--ratio", "0.2", "--out", "small")
    assert isinstance(error, InputError) and "my own.png" in str(error)
    assert (mine.parent / "small" / "images" / "0" / "my own.png").read_bytes() == b"mine"


def test_hostile_class_names_stay_in_the_folder(tmp_path):
    for name in ("victim", "b", "out/victim"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "0000.png").write_bytes(b"mine")
    before, small = snapshot(tmp_path), small_set(HOSTILE)
    for _ in range(2):
        save_set(small, tmp_path / "out" / "set", export=True)
    after = snapshot(tmp_path)
    assert {path: after[path] for path in before} == before
    assert all(path.is_relative_to(tmp_path / "out" / "set") for path in set(after) - set(before))
    images = tmp_path / "out" / "set" / "images"
    assert all(len(path.relative_to(images).parts) == 2 for path in images.rglob("*.png"))
    listed = json.loads((images / "classes.json").read_text())["selmatch"]
    assert [how["class"] for how in listed.values()] == HOSTILE and set(listed) == {p.name for p in images.iterdir() if p.is_dir()}
    assert load_set(tmp_path / "out" / "set").data.classes == tuple(HOSTILE)
    assert json.loads((tmp_path / "out" / "set" / "card.json").read_text())["classes"] == HOSTILE
    again = load_folder(images, mode="L", validation=0, test=0.5, cache=tmp_path / "cache")
    assert len(again.train) == len(again.test) == len(HOSTILE) and set(again.train.classes) == {*HOSTILE[:-1], "ÿ"}


def test_hostile_words_through_the_command_line(tmp_path, monkeypatch):
    """Tiny ImageNet's words.txt names classes as it likes."""
    monkeypatch.setenv("SELMATCH_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    place, rng, words = tmp_path / "data" / "tiny-imagenet-200", np.random.default_rng(0), ["../../../victim", ".git", "a/b/c"]
    ids, notes = [f"n{i}" for i in range(len(words))], []
    (place / "val" / "images").mkdir(parents=True)
    for i in ids:
        (place / "train" / i / "images").mkdir(parents=True)
        for k in range(10):
            Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(place / "train" / i / "images" / f"{k}.png")
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(place / "val" / "images" / f"{i}.png")
        notes.append(f"{i}.png\t{i}\n")
    (place / "wnids.txt").write_text("\n".join(ids))
    (place / "words.txt").write_text("".join(f"{i}\t{word}\n" for i, word in zip(ids, words)))
    (place / "val" / "val_annotations.txt").write_text("".join(notes))
    for victim in ("victim", ".git", "a"):
        (tmp_path / victim).mkdir()
        (tmp_path / victim / "0000.png").write_bytes(b"mine")
    before = {path: content for path, content in snapshot(tmp_path).items() if (tmp_path / "home") not in path.parents}
    error = command("select", "--data", "tinyimagenet", "--root", "data", "--profile", "smoke", "--device", "cpu", "--method", "random", "--ratio", "0.3", "--out", "x/y")
    assert error is None, error
    after = snapshot(tmp_path)
    assert {path: after[path] for path in before} == before
    assert sorted(p.name for p in (tmp_path / "x" / "y" / "images").iterdir() if p.is_dir()) == sorted(class_folders(words))
    assert load_set(tmp_path / "x" / "y").data.classes == tuple(words)


def test_file_names_are_short_safe_and_reversible():
    generator = np.random.default_rng(0)
    letters = [*"aAéÉß.%/ \\-_~0", "\0", "\n", "\udc80", "ﬁ", "日"]
    names = sorted({"".join(generator.choice(letters, n)) for n in generator.integers(1, 12, 400)} | set(HOSTILE))
    for strict in (False, True):
        made = [file_name(name, strict) for name in names]
        assert len(set(made)) == len(names)
        for name, folder in zip(names, made):
            assert 0 < len(os.fsencode(folder)) <= 255 and not folder.startswith((".", " ")) and not folder.endswith((".", " "))
            assert not set(folder) & set('/\\:*?"<>|\0\n')
            if "%~" not in folder: assert class_name(folder) == name
        assert sum("%~" in folder for folder in made) >= 3
    with refuses("%~", "classes.json"): class_name(file_name("x" * 300))


def test_names_stay_distinct_where_capitals_and_accents_do_not_count():
    alike = ["Cat", "cat", "CAT", "é", unicodedata.normalize("NFD", "é"), "É", "straße", "STRASSE", "x" * 300, "X" * 300, "%43at", "dog"]
    made = class_folders(alike)
    assert len(set(map(fold_name, made))) == len(alike)
    assert [class_name(f) for f in made if "%~" not in f] == [name for name in alike if len(name) < 300]
    assert class_folders(["Cat", "Dog"]) == ["Cat", "Dog"]
    with refuses("'cat'", "2 classes"): class_folders(["cat", "dog", "cat"])


def test_nothing_is_written_through_a_link(tmp_path):
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "photo.png").write_bytes(b"mine")
    save_set(small_set("ab"), tmp_path / "set", export=True)
    images = tmp_path / "set" / "images"
    (images / "a" / "0000.png").unlink()
    (images / "a" / "0000.png").symlink_to(tmp_path / "theirs" / "photo.png")
    with refuses("0000.png", "not written by selmatch"): save_set(small_set("ab"), tmp_path / "set", export=True)
    (images / "a" / "0000.png").unlink()
    (images / "a" / "0001.png").unlink()
    (images / "a").rmdir()
    (images / "a").symlink_to(tmp_path / "theirs")
    with refuses("images/a", "not written by selmatch"): save_set(small_set("ab"), tmp_path / "set", export=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "images").symlink_to(tmp_path / "theirs")
    with refuses("images", "link"): save_set(small_set("ab"), tmp_path / "other", export=True)
    (tmp_path / "third").mkdir()
    (tmp_path / "third" / "card.json").symlink_to(tmp_path / "theirs" / "photo.png")
    with refuses("card.json", "not written by selmatch"): save_set(small_set("ab"), tmp_path / "third")
    assert snapshot(tmp_path / "theirs") == {tmp_path / "theirs" / "photo.png": b"mine"}


def test_an_older_set_is_replaced_as_a_whole(tmp_path):
    save_set(small_set("abc", 3), tmp_path / "set", export=True)
    save_set(small_set("bd", 1), tmp_path / "set", export=True)
    found = {str(p.relative_to(tmp_path / "set")) for p in (tmp_path / "set").rglob("*") if p.is_file()}
    assert found == {"card.json", "set.safetensors", "images/classes.json", "images/b/0000.png", "images/d/0000.png"}
    assert not list(tmp_path.rglob(".selmatch*"))


@pytest.mark.parametrize("at", ["drawing", "renaming"])
def test_a_failure_leaves_the_older_set(at, tmp_path, monkeypatch):
    save_set(small_set("ab"), tmp_path / "set", export=True)
    before, rename = snapshot(tmp_path), os.rename
    def full(*given): raise OSError("disk full")
    def stuck(old, new): return full() if Path(old).name == "new" else rename(old, new)
    if at == "drawing":
        monkeypatch.setattr(floor, "pictures", full)
    else:
        monkeypatch.setattr(os, "rename", stuck)
    with pytest.raises(InputError, match="disk full"): save_set(small_set("xyz"), tmp_path / "set", export=True)
    assert snapshot(tmp_path) == before


def test_a_folder_that_is_ours_is_written_anew_and_others_are_not(tmp_path):
    data = colours("ab")
    files = save_folder(data, tmp_path / "mine")
    assert [f.relative_to(tmp_path / "mine").as_posix() for f in files] == ["a/0000.png", "a/0001.png", "b/0000.png", "b/0001.png"]
    assert np.array_equal(np.stack([np.asarray(Image.open(f)) for f in files]), pictures(data)[..., 0])
    save_folder(replace(data, classes=("b", "c")), tmp_path / "mine")
    assert sorted(p.name for p in (tmp_path / "mine").iterdir()) == ["b", "c", "classes.json"]
    (tmp_path / "empty").mkdir()
    save_folder(data, tmp_path / "empty")
    (tmp_path / "mine" / "classes.json").unlink()
    with refuses(tmp_path / "mine", "not written by selmatch"): save_folder(data, tmp_path / "mine")
    (tmp_path / "mine" / "classes.json").write_text('{"selmatch": 3}')
    with refuses(tmp_path / "mine", "not written by selmatch"): save_folder(data, tmp_path / "mine")


def test_classes_that_are_called_like_splits_or_junk_are_read_back(tmp_path):
    names = ["train", "val", "Test", "dev set", "validation", "__MACOSX", "lost+found", "Thumbs.db", "con"]
    save_folder(colours(names, per_class=4), tmp_path / "set")
    again = load_folder(tmp_path / "set", validation=0, cache=tmp_path / "cache")
    assert sorted(map(class_name, again.train.classes)) == sorted(names) and len(again.train) + len(again.test) == 4 * len(names)


def test_what_is_written_has_the_modes_that_the_user_wants(tmp_path):
    for mask in (0o022, 0o077):
        before = os.umask(mask)
        try: files = save_folder(colours("ab"), tmp_path / f"{mask:o}")
        finally: os.umask(before)
        assert {path.stat().st_mode & 0o777 for path in files} == {0o666 & ~mask}
        assert {path.stat().st_mode & 0o777 for path in (tmp_path / f"{mask:o}", files[0].parent)} == {0o777 & ~mask}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_in_which_nothing_can_be_written(mine):
    mine.parent.chmod(0o555)
    try: refused(mine, "select", *SOURCE, "--out", "small", words=["--out", "nothing can be written"])
    finally: mine.parent.chmod(0o755)


@pytest.mark.parametrize("line, words", [("bench --json nowhere/x.json", ["--json nowhere/x.json", "does not exist"]), ("tune --profile smoke --out nowhere/x.yaml", ["nowhere/x.yaml", "does not exist"]),
                                         ("bench --json diary", ["diary", "is a folder"]), ("figures --profile smoke --out diary/today.txt/x", ["today.txt", "no folder"])])
def test_other_files_that_cannot_be_written(line, words, mine):
    refused(mine, *line.split(), *(["--device", "cpu"] if line.startswith("figures") else []), words=words)


def test_a_table_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    import pandas as pd
    from selmatch.app import write_table
    (tmp_path / "x.csv").write_text("row,class,difficulty\n")
    def full(self, place, **_):
        Path(place).write_text("row,cl"); raise OSError(28, "No space left on device", str(place))
    monkeypatch.setattr(pd.DataFrame, "to_csv", full)
    with pytest.raises((OSError, InputError)): write_table(pd.DataFrame({"row": [1]}), tmp_path / "x.csv")
    assert (tmp_path / "x.csv").read_text() == "row,class,difficulty\n" and len(list(tmp_path.iterdir())) == 1
