"""What is kept and published is looked after: galleries are compared with their digests, what is damaged is set aside and made again, and what nobody asks for can be found and removed."""
import json
import os
import shutil
import time
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from conftest import ROOT
from selmatch import app
from selmatch.care import find_bad, find_unasked, list_kept
from selmatch.computer import Computer
from selmatch.core import InputError, load_tensors, save_tensors
from selmatch.distill.experts import is_trained, train_expert
from selmatch.show.figures import compare_published, digest_published
from selmatch.study.sets import make_set
from selmatch.study.store import Plan, Store, sweep_once
from test_durable import bits, tiny_experts, tiny_run, tiny_set

QUIET = Computer(quiet=True)


def run(words, capsys):
    """(exit code, what it said) of a command in this process."""
    with pytest.raises(SystemExit) as stop: app.main([str(word) for word in words])
    said = capsys.readouterr()
    return stop.value.code, said.out + said.err


# ---------------------------------------------------------------- figures --check

@pytest.fixture
def gallery(tmp_path):
    """Two figures of a profile, with tables, pictures and provenance."""
    folder = tmp_path / "gallery"
    folder.mkdir()
    for name in ("fig3_window", "tab4_cost"):
        for end in (".csv", ".png", ".svg", ".narrow.svg"): (folder / f"{name}{end}").write_text(f"{name} {end}")
        card = {"figure": name, "caption": "words", "profile": {"name": "smoke", "title": "t", "seed": 0}, "versions": {"selmatch": "1", "torch": "2"},
                "data": {"fingerprint": "ab"}, "files": digest_published(folder, name)}
        (folder / f"{name}.json").write_text(json.dumps(card))
        for end in (".ipynb", ".html"): (folder / f"{name}{end}").write_text("a page, of which no digest is kept")
    return folder


def check(folder, capsys):
    return run(["figures", "--profile", "smoke", "--check", "--out", folder], capsys)


def test_an_untouched_gallery_is_as_published(gallery, capsys):
    code, said = check(gallery, capsys)
    assert code == 0 and "8 files" in said and "none was changed" in said


@pytest.mark.parametrize("harm, what, named", [
    (lambda f: (f / "fig3_window.csv").write_text("beta\n0.2\n"), "changed", "fig3_window.csv"),
    (lambda f: (f / "tab4_cost.png").write_bytes(b"another picture"), "changed", "tab4_cost.png"),
    (lambda f: (f / "fig3_window.narrow.svg").write_text(""), "changed", "fig3_window.narrow.svg"),
    (lambda f: (f / "fig3_window.svg").unlink(), "missing", "fig3_window.svg"),
    (lambda f: (f / "fig3_window.csv").rename(f / "fig3_window.old"), "missing", "fig3_window.csv"),
    (lambda f: (f / "tab4_cost.json").unlink(), "missing", "tab4_cost.json"),
    (lambda f: (f / "tab4_cost.json").write_text("{"), "damaged", "tab4_cost.json"),
    (lambda f: (f / "tab4_cost.json").write_bytes(b"\xff\xfe"), "damaged", "tab4_cost.json"),
    (lambda f: shutil.copy(f / "fig3_window.json", f / "tab4_cost.json"), "damaged", "tab4_cost.json"),
])
def test_what_is_not_as_published_is_named(harm, what, named, gallery, capsys):
    harm(gallery)
    code, said = check(gallery, capsys)
    assert code == 2 and "Traceback" not in said
    assert f"{what}: {named}\n" in said, "that one, and no other"
    assert "selmatch: 1 of " in said and "draw these figures again" in said


def test_several_harms_are_all_named(gallery, capsys):
    (gallery / "fig3_window.csv").write_text("x")
    (gallery / "fig3_window.png").write_text("x")
    (gallery / "tab4_cost.svg").unlink()
    code, said = check(gallery, capsys)
    assert code == 2 and "changed: fig3_window.csv, fig3_window.png" in said and "missing: tab4_cost.svg" in said and "3 of 8" in said


def test_files_without_a_digest_are_said_and_no_fault(gallery, capsys):
    card = json.loads((gallery / "tab4_cost.json").read_text())
    del card["files"]
    (gallery / "tab4_cost.json").write_text(json.dumps(card))
    (gallery / "fig3_window-2.png").write_text("somebody's")
    code, said = check(gallery, capsys)
    assert code == 0 and "without a digest: fig3_window-2.png, tab4_cost.csv, tab4_cost.narrow.svg" in said


def test_a_folder_without_figures_is_refused(tmp_path, capsys):
    code, said = check(tmp_path / "nothing", capsys)
    assert code == 2 and "holds no figure" in said


def test_what_the_project_vouches_for_is_as_published():
    for folder in sorted(p for p in (ROOT / "figures").iterdir() if list(p.glob("fig3_window.json"))):
        said = compare_published(folder)
        assert said and set(said.values()) <= {"as published", "without a digest"}, (folder, said)


def test_a_damaged_provenance_is_set_aside_before_its_figure_is_drawn(gallery):
    (gallery / "index.html").write_text("<title>selmatch figures: smoke</title>")
    (gallery / "tab4_cost.json").write_text("{")
    with pytest.warns(UserWarning, match="tab4_cost.json.bad"): app.check_gallery(gallery, ["fig3_window", "tab4_cost"], {"name": "digits"})
    assert (gallery / "tab4_cost.json.bad").exists() and not (gallery / "tab4_cost.json").exists()
    assert (gallery / "fig3_window.json").exists()


# ---------------------------------------------------------------- every kind of file of ours is set aside and made again

@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    home = tmp_path_factory.mktemp("whole")
    tiny_run(home)
    return home


def flip(path):
    data = path.read_bytes()
    path.write_bytes(data[:len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1:])


def unseal(path):
    """The same content, by a writer that keeps no digests."""
    from safetensors.torch import save_file
    tensors, card = load_tensors(path)
    save_file(tensors, path, metadata={"card": json.dumps(card)})


HARMS = {"empty": lambda p: p.write_bytes(b""), "cut": lambda p: p.write_bytes(p.read_bytes()[:-3]), "flipped": flip, "text": lambda p: p.write_text("words"), "unsealed": unseal}
FILES = {"result": "results/aa/aa10000000000001.safetensors", "set": "sets/dm-00000000000000d0/at_000003/set.safetensors", "last set": "sets/dm-00000000000000d0/at_000008/set.safetensors",
         "history": "sets/dm-00000000000000d0/history.csv", "seconds": "sets/dm-00000000000000d0/seconds.json", "expert": "experts/00000000000000e0/expert_000.safetensors"}
QUIETLY = ("history", "seconds")        # texts: read again or made again without being set aside
LAZILY = {("expert", "flipped")}        # rows are compared when they are read


CASES = [("result", harm) for harm in HARMS] + [(kind, harm) for kind in ("set", "last set", "expert") for harm in ("cut", "flipped", "unsealed")] + [(kind, harm) for kind in QUIETLY for harm in ("empty", "flipped")]


@pytest.mark.parametrize("kind, harm", CASES)
def test_a_damaged_file_of_a_home_is_set_aside_and_made_again(kind, harm, whole, tmp_path):
    home = tmp_path / "home"
    shutil.copytree(whole, home)
    HARMS[harm](home / FILES[kind])
    sweep_once.cache_clear()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        tiny_run(home)
    if (kind, harm) in LAZILY:
        return
    sweep_once.cache_clear()
    sweep_once(home)
    assert bits(home) == bits(whole), "made again, to the same bits"
    if kind not in QUIETLY:
        assert find_bad(home) == [home / f"{FILES[kind]}.bad"]
        assert len([w for w in said if f"{Path(FILES[kind]).name}.bad" in str(w.message)]) == 1, "said once"


@pytest.mark.parametrize("harm", HARMS)
def test_a_damaged_draft_of_an_expert_is_set_aside_and_the_expert_is_the_same(harm, whole, tmp_path, monkeypatch):
    from selmatch.distill import experts
    task, = tiny_experts(tmp_path)
    theirs, n = experts.save_draft, []
    def killed(*given):
        theirs(*given)
        n.append(1)
        if len(n) == 2: raise KeyboardInterrupt
    monkeypatch.setattr(experts, "save_draft", killed)
    with pytest.raises(KeyboardInterrupt): train_expert(task)
    monkeypatch.undo()
    HARMS[harm](task.draft)
    with pytest.warns(UserWarning, match=f"{task.draft.name}.bad"): train_expert(task)
    assert task.path.read_bytes() == (whole / "experts/00000000000000e0/expert_000.safetensors").read_bytes()
    assert not task.draft.exists() and is_trained(task)


@pytest.mark.parametrize("harm", HARMS)
def test_a_damaged_checkpoint_of_a_set_is_set_aside_and_the_set_is_the_same(harm, whole, tmp_path):
    task = tiny_set(tmp_path)
    make_set(task, until=3)
    file = task.folder / "checkpoint.safetensors"
    HARMS[harm](file)
    with pytest.warns(UserWarning, match="checkpoint.safetensors.bad"): make_set(task)
    name = "sets/dm-00000000000000d0/at_000008/set.safetensors"
    assert (tmp_path / name).read_bytes() == (whole / name).read_bytes() and file.with_name("checkpoint.safetensors.bad").exists()


def test_a_checkpoint_of_another_run_is_no_damage(tmp_path):
    task = tiny_set(tmp_path)
    make_set(task, until=3)
    with pytest.raises(InputError, match="belongs to another run"): make_set(replace(task, descent=replace(task.descent, lr_images=2.0)))
    assert (task.folder / "checkpoint.safetensors").exists() and find_bad(tmp_path) == []


def test_an_expert_that_turns_out_damaged_in_use_is_set_aside(whole, tmp_path):
    """Its card is whole, and a row is not: who follows it hears of it, and the same command makes it again."""
    from selmatch.distill.experts import Trajectory
    from selmatch.study.sets import own_files
    shutil.copytree(whole, tmp_path / "home")
    file = tmp_path / "home" / FILES["expert"]
    data = file.read_bytes()
    file.write_bytes(data[:-8] + bytes([data[-8] ^ 1]) + data[-7:])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(InputError, match="set aside.*again"), own_files(tmp_path / "home"): Trajectory(file)[3]
        assert file.with_name(f"{file.name}.bad").exists() and not file.exists()
        sweep_once.cache_clear()
        tiny_run(tmp_path / "home")
    assert file.read_bytes() == data
    with pytest.raises(InputError), own_files(tmp_path / "elsewhere"):          # somebody's file is left where it is
        file.write_bytes(data[:-8] + bytes([data[-8] ^ 1]) + data[-7:])
        Trajectory(file)[3]
    assert file.exists()


def test_a_result_whose_card_holds_none_is_set_aside(tmp_path):
    store, plan = Store(tmp_path), Plan("double", lambda x: {"twice": 2 * x}, [1], ["aa10000000000001"])
    for card in ({}, {"result": {"tensor": "7"}}, {"result": {"dict": 3}}, {"result": {"dict": [[1]]}}):
        save_tensors(store.file("aa10000000000001"), {}, card)
        with pytest.warns(UserWarning, match="holds no result.*aa10000000000001.safetensors.bad"): assert store.run(plan, QUIET) == [{"twice": 2}]


# ---------------------------------------------------------------- selmatch cache

@pytest.fixture
def old_home(whole, tmp_path, monkeypatch):
    """A home with a result and an expert that were asked for today, and a result and a set that nobody asked for in forty days."""
    home = tmp_path / "home"
    shutil.copytree(whole, home)
    long_ago = time.time() - 40 * 86400
    for name in ("results/bb/bb20000000000002.safetensors", "sets/dm-00000000000000d0"):
        for file in [home / name] if (home / name).is_file() else [p for p in (home / name).rglob("*") if p.is_file()]: os.utime(file, (long_ago, long_ago))
    monkeypatch.setenv("SELMATCH_HOME", str(home))
    return home


def test_what_nobody_asked_for_is_listed_and_only_then_removed(old_home, capsys):
    there = lambda: sorted(str(p.relative_to(old_home)) for p in old_home.rglob("*") if p.is_file())    # not read: that would be asking
    before = there()
    code, said = run(["cache"], capsys)
    assert code == 0 and "nothing has asked for 2 of these 4 in 30 days" in said and "--clean --unasked 30" in said
    code, said = run(["cache", "--clean", "--unasked", 30], capsys)
    assert code == 0 and "results/bb/bb20000000000002.safetensors" in said and "sets/dm-00000000000000d0\n" in said and "aa10000000000001" not in said and "expert" not in said
    assert "to be removed by --yes" in said and there() == before, "only said"
    code, said = run(["cache", "--clean", "--unasked", 50, "--yes"], capsys)
    assert code == 0 and "0 files and folders" in said and there() == before
    code, said = run(["cache", "--clean", "--unasked", 30, "--yes"], capsys)
    assert code == 0 and "2 files and folders" in said and "removed" in said
    assert there() == [name for name in before if not name.startswith(("sets/", "results/bb"))]
    code, said = run(["cache"], capsys)
    assert "nothing has asked for 0 of these 2 in 30 days" in said and "--unasked" not in said


def test_who_asks_keeps_it(old_home, capsys):
    tiny_run(old_home)                                  # the same command again: all is there, and is asked for
    assert find_unasked(list_kept(old_home), 30) == []
    code, said = run(["cache", "--clean", "--unasked", 30, "--yes"], capsys)
    assert code == 0 and "0 files and folders" in said


def test_looking_is_not_asking(old_home, capsys):
    for words in (["cache"], ["cache", "--check"], ["cache", "--clean", "--unasked", 30]): run(words, capsys)
    assert sorted(k.path.name for k in find_unasked(list_kept(old_home), 30)) == ["bb20000000000002.safetensors", "dm-00000000000000d0"]


def test_age_is_since_it_was_made(old_home, capsys):
    store = Store(old_home)
    store.run(Plan("double", None, [2], ["bb20000000000002"]), QUIET)              # asked for, and still old
    code, said = run(["cache", "--clean", "--older", 30], capsys)
    assert "bb20000000000002.safetensors" in said and "sets/dm-00000000000000d0" in said and "aa10000000000001" not in said
    code, said = run(["cache", "--clean", "--unasked", 30], capsys)
    assert "bb20000000000002.safetensors" not in said


@pytest.mark.parametrize("words", [["--unasked", 3], ["--older", 3], ["--yes"]])
def test_what_removes_is_said_twice(words, old_home, capsys):
    code, said = run(["cache", *words], capsys)
    assert code == 2 and "give --clean, too" in said


@pytest.mark.parametrize("days", ["-1", "nan", "1e9", "many"])
def test_days_that_are_none(days, old_home, capsys):
    code, said = run(["cache", "--clean", "--unasked", days, "--yes"], capsys)
    assert code == 2 and "--unasked" in said and len(list_kept(old_home)) == 4


def test_check_names_what_is_damaged_and_clean_removes_what_was_set_aside(old_home, capsys):
    assert run(["cache", "--check"], capsys)[0] == 0
    flip(old_home / FILES["result"])
    flip(old_home / FILES["expert"])
    code, said = run(["cache", "--check"], capsys)
    assert code == 2 and "aa10000000000001.safetensors" in said and "expert_000.safetensors" in said and "2 files" in said
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tiny_run(old_home)
    code, said = run(["cache"], capsys)
    assert "set aside as damaged: 1" in said
    code, said = run(["cache", "--clean", "--yes"], capsys)
    assert "aa10000000000001.safetensors.bad" in said and find_bad(old_home) == []


def test_a_link_is_removed_and_what_it_leads_to_is_left(old_home, tmp_path, capsys):
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "precious").write_text("x")
    (old_home / "sets" / "linked-0").symlink_to(theirs)
    os.utime(theirs / "precious", (1, 1))
    code, said = run(["cache", "--clean", "--unasked", 30, "--yes"], capsys)
    assert code == 0 and (theirs / "precious").exists()


def test_clean_takes_litter_drafts_and_checkpoints_of_what_is_finished(old_home, capsys):
    checkpoint = old_home / "sets" / "dm-00000000000000d0" / "checkpoint.safetensors"
    draft = old_home / "experts" / "00000000000000e0" / "expert_000.draft.safetensors"
    other = old_home / "experts" / "00000000000000e0" / "expert_001.draft.safetensors"
    for file in (checkpoint, draft, other): file.write_text("x")
    code, said = run(["cache", "--clean", "--yes"], capsys)
    assert code == 0 and not checkpoint.exists() and not draft.exists() and other.exists(), "who is not finished goes on from it"


# ---------------------------------------------------------------- what is said of a home

def test_who_made_what_and_where_is_said(tmp_path, capsys, monkeypatch):
    from selmatch import care
    store = Store(tmp_path)
    store.save("aa10000000000001", 1, "judge", "x86_64 AVX2")
    store.save("bb20000000000002", 2, "judge", "x86_64 AVX512")
    store.file("cc30000000000003").parent.mkdir()
    store.file("cc30000000000003").write_text("no tensors")
    (tmp_path / "results" / "aa" / ".hidden.safetensors").write_text("x")
    kept = list_kept(tmp_path)
    assert [(k.path.name, k.by, k.where) for k in kept] == [("aa10000000000001.safetensors", "judge", "x86_64 AVX2"), ("bb20000000000002.safetensors", "judge", "x86_64 AVX512"), ("cc30000000000003.safetensors", "damaged", "")]
    lines = care.describe_kept(kept)
    assert len(lines) == 3 and "judge" in lines[0] and "     2 " in lines[0] and "damaged" in lines[1]
    assert "2 kinds of processors (x86_64 AVX2, x86_64 AVX512)" in lines[2]
    assert len(care.describe_kept(kept[:1])) == 1 and care.describe_kept([]) == []


def test_what_vanishes_while_it_is_weighed_is_not_counted(tmp_path, monkeypatch):
    from selmatch import care
    (tmp_path / "a").write_text("four")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    theirs = Path.is_file
    monkeypatch.setattr(Path, "is_file", lambda self: self.name == "gone" or theirs(self))
    assert care.weigh(tmp_path)[:2] == (1, 4) and care.weigh(tmp_path / "nothing") == (0, 0, 0, 0)


def test_signals_are_heeded_inside_and_given_back():
    import signal
    import threading
    from selmatch.care import Stopped, heed_signals
    before, told = signal.getsignal(signal.SIGTERM), []
    with pytest.raises(Stopped) as stop, heed_signals(): signal.raise_signal(signal.SIGTERM)
    assert stop.value.code == 128 + signal.SIGTERM and signal.getsignal(signal.SIGTERM) is before
    def elsewhere():
        with heed_signals(): told.append(signal.getsignal(signal.SIGTERM) is before)
    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert told == [True], "in another thread nothing changes"


# ---------------------------------------------------------------- selmatch doctor

@pytest.fixture
def doctor(tmp_path, monkeypatch, capsys):
    """The command with probes that take no time: they find what is known, but for what one changes."""
    from selmatch import care
    monkeypatch.setenv("SELMATCH_HOME", str(tmp_path / "home"))
    def run_with(same_bits=True, factor=1.0, alike=True):
        monkeypatch.setattr(care, "probe_values", dict)
        monkeypatch.setattr(care, "summarise", lambda found: {name: (bits_ if same_bits else "other", factor * norm) for name, (bits_, norm) in care.known.items()})
        monkeypatch.setattr(care, "probe_workers", lambda: alike)
        return run(["doctor"], capsys)
    return run_with


def test_a_doctor_says_what_is_there(doctor, tmp_path):
    code, said = doctor()
    assert code == 0 and said.count("same bits") >= 4 and "two workers find what one finds" in said and "locks work" in said
    for word in ("selmatch", "torch", "processor", "cores", "compiler", "GPUs", "ms to the disk", str(tmp_path / "home")): assert word in said, word
    assert list((tmp_path / "home").iterdir()) == [], "nothing is left"


def test_other_bits_will_do_and_other_numbers_will_not(doctor):
    code, said = doctor(same_bits=False)
    assert code == 0 and said.count("same numbers, other bits") == 4
    code, said = doctor(same_bits=False, factor=1.01)
    assert code == 2 and said.count("differs: ") == 4 and "do not trust its results" in said
    code, said = doctor(alike=False)
    assert code == 2 and "ELSE" in said and "do not trust" in said


def test_a_doctor_names_a_disk_without_locks_or_room(doctor, tmp_path, monkeypatch):
    import contextlib
    from selmatch import computer
    with monkeypatch.context() as patch:
        patch.setattr(computer, "claim", lambda path, wait=True: contextlib.nullcontext(True))
        code, said = doctor()
    assert code == 0 and "NO LOCKS" in said
    def refuse(*given): raise OSError(28, "No space left on device")
    monkeypatch.setattr(os, "fsync", refuse)
    code, said = doctor()
    assert code == 2 and "No space left" in said and "SELMATCH_HOME" in said


def test_a_doctor_without_libraries_compiler_or_gpu(monkeypatch):
    from selmatch import care
    assert care.find_version("no-such-library-of-ours") == "not installed"
    monkeypatch.setattr(care.shutil, "which", lambda name: None)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    lines = care.describe_machine()
    assert "compiler none: networks run uncompiled, slower" in lines and "GPUs: none" in lines


@pytest.mark.slow
def test_a_doctors_values_are_those_that_are_known():
    from selmatch import care
    answers = care.compare_values(care.summarise(care.probe_values()))
    assert [name for name, *_ in answers] == ["images", "scores", "weights", "gradient"] and all(good for *_, good in answers), answers
    assert care.probe_worker(1) == care.probe_worker(1) != care.probe_worker(2)


def test_what_is_not_ours_is_never_removed(old_home, capsys):
    "A home may lie in a folder of somebody's own: photographs, a thesis, his drafts and locks, and files called .bad stay, whatever is cleaned."
    foreign = ["data/photos/cat/1.png", "sets/thesis/chapter.tex", "experts/notes/a.txt", "results/mine/x.safetensors", "deep/er/apple.bad", "data/apple.bad",
               "sets/thesis/checkpoint.safetensors", "sets/thesis/history.csv", ".build.lock", "work/.uv.lock", "compared/a.json", "data/.uv.lock", "data/venv/.lock", "data/0123456789abcdef.png"]
    for name in foreign:
        (old_home / name).parent.mkdir(parents=True, exist_ok=True)
        (old_home / name).write_text("mine")
        os.utime(old_home / name, (1, 1))
    ours = [k.path for k in list_kept(old_home)]
    assert ours and not any(name.split("/")[1] in map(str, (p.name for p in ours)) for name in foreign if "/" in name)
    code, said = run(["cache"], capsys)
    assert code == 0 and "not selmatch's, never removed: 8" in said
    code, said = run(["cache", "--clean", "--older", 0, "--yes"], capsys)
    assert code == 0 and list_kept(old_home) == []
    assert all((old_home / name).read_text() == "mine" for name in foreign)
    sweep_once.__wrapped__(old_home)
    assert all((old_home / name).read_text() == "mine" for name in foreign)


def test_what_somebody_works_on_is_not_listed(old_home):
    from selmatch.care import find_removable
    from selmatch.computer import claim
    from selmatch.core import name_draft
    from selmatch.study.store import find_litter_in
    kept, places = [k.path for k in list_kept(old_home)], [old_home / "sets/window-0123456789abcdef", old_home / "data/digits-0123456789abcdef.safetensors"]
    for place in places: place.parent.mkdir(exist_ok=True)
    draft = name_draft(places[1])
    draft.mkdir()
    with claim(places[0]), claim(places[1]):
        assert [k.path for k in list_kept(old_home)] == kept
        assert set(find_removable(old_home, older=-1)) == set(kept)
    left = places[1].with_name(f".{places[1].name}.lock")
    left.touch()
    assert find_litter_in(old_home) == [left], "nobody holds it, and it stands for a file of ours"
