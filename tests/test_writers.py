"""Every file that is kept is written by one writer, which waits for the disk; who writes otherwise is on a short list, with the reason."""
import ast
import os
from pathlib import Path

import pytest
import torch
import yaml

from conftest import ROOT
from selmatch.core import InputError, settle_below
from selmatch.data import export, fetch
from selmatch.data.loaders import load_digits
from selmatch.study.profile import load_profile, profile_folder
from selmatch.study.tune import write_tuned
from test_durable import Disk
from test_input import refuses

PACKAGE = ROOT / "selmatch"

WRITERS = {"write_text", "write_bytes", "savefig", "imsave", "save", "savez", "savez_compressed", "save_file", "dump", "tofile", "touch", "symlink_to", "hardlink_to", "extract",
           "extractall", "copy", "copyfile", "copy2", "copytree", "move", "to_csv", "to_json", "to_parquet", "to_pickle", "to_feather", "replace", "rename", "link", "symlink",
           "write", "execute_notebook", "NamedTemporaryFile", "mkstemp", "open", "fdopen", "ZipFile"}
OWN = {"store.save", "small.save", "made.save", "self.save"}                            # ours, which end in the one writer
MODULES = {"os", "shutil", "np", "torch", "json", "pickle", "tempfile", "yaml", "nbformat", "papermill", "tarfile", "zipfile"}

# functions that write without it -> why
EXCEPTIONS = {
    "core.write_atomic": "it is the writer",
    "core.set_aside": "renames what is damaged",
    "computer.advance": "marks of progress, gone with the run",
    "cluster.all_see": "asks whether a folder is shared, and is gone",
    "data.fetch.receive": "a part that a second try goes on with; it gets its name when whole and on the disk",
    "study.profile.write_yaml": "gives a text; who writes it does so by the one writer",
    "data.fetch.fetch_file": "gives a part its name, once it is on the disk",
    "data.fetch.unpack_zip": "into a folder beside, which `unpack` settles",
    "data.fetch.unpack_tar": "into a folder beside, which `unpack` settles",
    "data.fetch.move_missing": "moves what is on the disk",
    "data.export.write_listed": "into a new folder, which `swap_folders` settles",
    "data.export.draw_folder": "into a new folder, which `swap_folders` settles",
    "data.export.swap_folders": "renames what is on the disk",
    "show.card.fill_folder": "into a new folder, which `swap_folders` settles",
    "show.card.keep_originals": "into a new folder, which `swap_folders` settles",
    "show.figures.execute_notebook": "papermill writes after every cell, so that one sees where a notebook stopped; the whole one replaces it",
    "show.sliders.render": "a picture in memory",
    "show.bench": "measures, in a folder that is gone afterwards",
}

# which damage and fill; mutants in a copy of the tree, which is gone afterwards; a log that grows; what a process says; pictures to look at once
SCRIPTS = {("soak", "damage"), ("soak", "fill"), ("mutants", "Server"), ("mutants", "copy_tree"), ("time_cluster", "copy_home"), ("gpu_first_row", "Log"), ("gpu_first_row", "Row"), ("simulate_sight", "write_sheet")}


def called(node):
    """What a call may write with: `open`, `os.replace`, `to_csv`; None where it only reads."""
    f = node.func
    name = f.id if isinstance(f, ast.Name) else f.attr if isinstance(f, ast.Attribute) else ""
    if name not in WRITERS:
        return None
    text, of = ast.unparse(f), ast.unparse(f.value) if isinstance(f, ast.Attribute) else ""
    if text in OWN:
        return None
    if name in ("open", "fdopen", "ZipFile"):
        if text == "os.open":
            said = ast.unparse(node)
            return text if ("O_WRONLY" in said or "O_CREAT" in said) and "devnull" not in said else None
        if text not in ("open", "os.fdopen", "zipfile.ZipFile", "tarfile.open") and not (isinstance(f, ast.Attribute) and of not in MODULES and node.args and isinstance(node.args[0], ast.Constant)):
            return None
        at = 0 if isinstance(f, ast.Attribute) and of not in MODULES else 1
        mode = node.args[at] if len(node.args) > at else next((k.value for k in node.keywords if k.arg == "mode"), ast.Constant("r"))
        return text if not isinstance(mode, ast.Constant) or set(str(mode.value)) & set("wax+") else None
    if name in ("replace", "rename", "link", "symlink", "copy", "copyfile", "copy2", "copytree", "move"):
        return text if of in ("os", "shutil") else None                # strings and tables have them, too
    if name in ("write", "execute_notebook"):
        return text if of in MODULES else None                         # of a file: its `open` counts
    if name in ("to_csv", "to_json", "dump"):
        return text if node.args and (name != "dump" or of in MODULES) else None       # without a place: a text
    if name == "save" and of in ("self",):
        return None
    return text


def parents_of(tree):
    return {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}


def above(node, up):
    while node in up:
        node = up[node]
        yield node


def is_in_writer(node, up):
    """Is this inside the arguments of `write_atomic`?"""
    path = [node, *above(node, up)]
    return any(isinstance(n, ast.Call) and isinstance(n.func, ast.Name) and n.func.id == "write_atomic" and below is not n.func for below, n in zip(path, path[1:]))


def function_of(node, up):
    names = [n.name for n in above(node, up) if isinstance(n, (ast.FunctionDef, ast.ClassDef))]
    return names[-1] if names else "(module)"


def raw_writes(trees):
    """(module, function, call) of every write that no `write_atomic` is around; a function that is only ever handed to it is inside."""
    found, ups = [], {name: parents_of(tree) for name, tree in trees.items()}
    for name, tree in trees.items():
        found += [(name, function_of(node, ups[name]), text) for node in ast.walk(tree)
                  if isinstance(node, ast.Call) and (text := called(node)) and not is_in_writer(node, ups[name])]
    named = {}
    for name, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Name):
                named.setdefault(node.id, []).append((name, node))
    def handed(function):
        uses = named.get(function, [])
        return uses and all(is_in_writer(node, ups[name]) for name, node in uses)
    return [(name, function, text) for name, function, text in found if not handed(function)]


def package_trees():
    return {".".join(p.relative_to(PACKAGE).with_suffix("").parts): ast.parse(p.read_text(encoding="utf-8")) for p in PACKAGE.rglob("*.py") if p.stem != "_modidx"}


def excused(name, function):
    return f"{name}.{function}" if f"{name}.{function}" in EXCEPTIONS else name if name in EXCEPTIONS else None


def test_every_file_is_written_by_the_one_writer():
    found = raw_writes(package_trees())
    assert not [f"{name}.{function}: {text}" for name, function, text in found if not excused(name, function)]
    used = {excused(name, function) for name, function, _ in found}
    assert set(EXCEPTIONS) == used, "an exception that nobody needs"


@pytest.mark.parametrize("line", ["path.write_text('x')", "open(path, 'w')", "open(path, mode='ab')", "path.open('w')", "table.to_csv(path)", "os.replace(a, b)", "shutil.copy(a, b)", "image.save(path)",
                                  "np.savez(path, x=x)", "torch.save(x, path)", "json.dump(x, file)", "figure.savefig(path)", "os.open(path, os.O_WRONLY)", "zipfile.ZipFile(path, 'w')", "nbformat.write(book, path)"])
def test_a_write_is_seen(line):
    seen = lambda text: [text for *_, text in raw_writes({"x": ast.parse(text)})]
    assert len(seen(f"def f(path):\n    {line}")) == 1
    assert seen(f"def f(path):\n    write_atomic(path, lambda p: {line})") == []
    assert seen(f"def g(path):\n    {line}\ndef f(path):\n    write_atomic(path, partial(g, 1))") == []
    assert len(seen(f"def g(path):\n    {line}\ndef f(path):\n    write_atomic(path, g)\n    g(path)")) == 1


@pytest.mark.parametrize("line", ["open(path)", "open(path, 'rb')", "table.to_csv(index=False)", "text.replace('a', 'b')", "table.rename(columns=str)", "tarfile.open(path)", "zipfile.ZipFile(path)", "Image.open(file)",
                                  "os.open(path, os.O_RDONLY)", "store.save(key, value)", "file.write('x')"])
def test_what_only_reads_is_left_alone(line):
    assert raw_writes({"x": ast.parse(f"def f(path):\n    {line}")}) == []


def test_scripts_write_by_it_too():
    trees = {p.stem: ast.parse(p.read_text(encoding="utf-8")) for p in (ROOT / "scripts").glob("*.py")}
    damage = trees.pop("mutate_files")          # writes broken files on purpose
    assert list(raw_writes({"mutate_files": damage}))
    found = {(name, function) for name, function, _ in raw_writes(trees)}
    assert found <= SCRIPTS, found


# ---------------------------------------------------------------- what is on the disk when they return

@pytest.fixture
def disk(tmp_path, monkeypatch):
    """A folder of which one knows what is on the disk, whatever is in memory."""
    home = tmp_path / "disk"
    home.mkdir()
    kept = Disk(home, monkeypatch)
    yield home, kept
    kept.close()


def test_a_set_of_pictures_is_on_the_disk(disk):
    home, kept = disk
    train = load_digits(per_class=4).train
    export.save_folder(train, home / "out" / "images")
    kept.cut()
    on_disk = kept.strict()
    files = {str(p.relative_to(home)): p.read_bytes() for p in home.rglob("*") if p.is_file()}
    assert len(files) == len(train) + 1 and on_disk == files
    for state in kept.cuts:                          # at no moment a name without its content
        assert all(content for name, content in state.items() if name.startswith("out/images/")), "an empty picture under its name"


def test_a_set_that_replaces_another_is_whole_at_every_moment(disk):
    home, kept = disk
    train = load_digits(per_class=4).train
    export.save_folder(train.subset(range(4)), home / "images")
    old = kept.strict()
    export.save_folder(train, home / "images")
    for state in kept.cuts[len(kept.cuts) // 2:]:
        seen = {name for name in state if name.startswith("images/")}
        assert all(state[name] for name in seen), "an empty picture"
        assert len(seen) in (0, len(old), len(train) + 1), "half a set"


def test_what_was_fetched_is_on_the_disk(disk, monkeypatch):
    import tarfile
    home, kept = disk
    source = home.parent / "source"
    (source / "batches").mkdir(parents=True)
    for i in range(3): (source / "batches" / f"b{i}").write_bytes(bytes([i + 1]) * 50)
    with tarfile.open(home.parent / "a.tar.gz", "w:gz") as book: book.add(source / "batches", "batches")
    monkeypatch.setattr(fetch, "keep_receiving", lambda url, part, label: part.write_bytes((home.parent / "a.tar.gz").read_bytes()))
    fetch.bring(fetch.OfficialFile("http://x/a.tar.gz", marker="batches/b1"), home / "data")
    assert {name: len(content) for name, content in kept.strict().items() if "batches/" in name} == {f"data/batches/b{i}": 50 for i in range(3)}
    for state in kept.cuts:
        assert all(content for name, content in state.items() if name.startswith("data/batches/") or name == "data/a.tar.gz")


def test_many_files_are_waited_for_at_once(tmp_path, monkeypatch):
    from selmatch import core
    asked = []
    monkeypatch.setattr(core, "many_files", 3)
    monkeypatch.setattr(os, "sync", lambda: asked.append("all"))
    monkeypatch.setattr(core, "settle", lambda path: asked.append(path))
    for i in range(3): (tmp_path / str(i)).write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "0")
    settle_below(tmp_path)
    assert asked == ["all"]
    (tmp_path / "2").unlink()
    asked.clear()
    settle_below(tmp_path)
    assert sorted(p.name for p in asked if p != tmp_path) == ["0", "1"], "a link is left alone"


def test_a_tuned_profile_is_whole_and_replaces_nothing(disk):
    home, kept = disk
    write_tuned(profile_folder / "smoke.yaml", {"dm": {"lr_images": 2.0}}, home / "mine.yaml")
    assert yaml.safe_load(kept.strict()["mine.yaml"])["tuned"] == {"dm": {"lr_images": 2.0}}
    assert load_profile(home / "mine.yaml").tuned == {"dm": {"lr_images": 2.0}}
    with refuses("mine.yaml", "exists"): write_tuned(profile_folder / "smoke.yaml", {}, home / "mine.yaml")


def test_a_table_on_a_full_disk_leaves_the_old_one(tmp_path, monkeypatch):
    import pandas as pd
    from selmatch.app import write_table
    table = pd.DataFrame({"a": [1, 2]})
    write_table(table, tmp_path / "t.csv")
    before = (tmp_path / "t.csv").read_text()
    def refuse(*given): raise OSError(28, "No space left on device")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        with refuses("t.csv", "No space left"): write_table(table.assign(b=3), tmp_path / "t.csv")
        with refuses("images", "No space left"): export.save_folder(load_digits(per_class=4).train, tmp_path / "images")
    assert (tmp_path / "t.csv").read_text() == before and sorted(p.name for p in tmp_path.iterdir()) == ["t.csv"]
