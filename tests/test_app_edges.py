"""What the commands say where something is missing, does not fit into the time, or goes wrong; and what their words mean."""
import contextlib
import errno
import os
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import click
import pandas as pd
import pytest
import torch

from conftest import refuses
from selmatch import api, app
from selmatch.api import limit_iterations
from selmatch.care import Stopped
from selmatch.computer import Computer
from selmatch.core import InputError
from selmatch.methods import find_method
from selmatch.study.profile import load_profile


# ---------------------------------------------------------------- so many iterations

@pytest.fixture(scope="module")
def iterations_of(tmp_path_factory):
    """How long a method distils by a profile; the images are loaded once."""
    from selmatch.study import sets
    from selmatch.study.study import Study
    loaded = Study(load_profile("smoke"), Computer(quiet=True), tmp_path_factory.mktemp("home"))
    loaded.splits
    def count(p, name):
        study, method = loaded.with_profile(p, "loaded", "splits"), find_method(name)
        return sets.plan_descent(study, method, *sets.describe_objective(study, method, p.ratios[0])).iterations
    return count


@pytest.mark.parametrize("name", ["mtt", "dm", "dsa", "tesla", "frepo", "dd", "kip"])
def test_iterations_that_are_asked_for_are_those_of_every_method(name, iterations_of, monkeypatch):
    """What a class brings (FRePo: half a million) or `tune` has found stood above what the command was told."""
    p = load_profile("smoke", objectives={})
    p = replace(p, tuned={name: {"iterations": {ratio: 9 for ratio in p.ratios}}})
    assert iterations_of(limit_iterations(p, 4), name) == 4
    assert iterations_of(limit_iterations(replace(p, tuned={}), 4), name) == 4
    assert iterations_of(p, name) == 9
    monkeypatch.setattr(api, "objectives", {})                # as before any family has entered its own
    assert iterations_of(limit_iterations(replace(p, tuned={}), 4), name) == 4
    digits = load_profile("digits")
    assert iterations_of(digits, "tesla") == 15 and iterations_of(limit_iterations(digits, 2), "tesla") == 2


def test_a_question_of_ones_own_has_as_many_iterations_as_are_asked_for(tmp_path):
    import numpy as np
    import selmatch as sm
    from selmatch.distill.objectives import objectives
    asked = []
    class Patient(sm.Question):
        descent = {"lr_images": 1.0, "iterations": 50}
        def loss(self, images, labels, generator):
            asked.append(1)
            return images.square().mean()
    data = sm.from_arrays(np.random.default_rng(0).random((24, 8, 8)), np.arange(24) % 2, words={"network.width": 4, "network.depth": 1}, results=tmp_path, quiet=True, workers=1)
    try: made = sm.distill(data, Patient, per_class=1, iterations=3)
    finally: objectives.pop("Patient")
    assert len(asked) == 3 and made.card["iteration"] == 3


# ---------------------------------------------------------------- what fits into the time

@pytest.fixture
def priced(monkeypatch):
    """A study whose stages have prices; what was made of it."""
    from selmatch.study import estimate
    made = []
    p = load_profile("smoke")
    def make_study(**options):
        made.append(options)
        return SimpleNamespace(profile=p, computer=Computer(quiet=True), folder=Path("."), narrowed=options.get("iterations"))
    monkeypatch.setattr(app, "make_study", make_study)
    def price(**stages):
        parts = [estimate.Part(stage.replace("_", " "), 1, 1, lambda s=s: float(s)) for stage, s in stages.items()]
        monkeypatch.setattr(app, "list_stages", lambda study, what, method: parts)
        return made
    return price


def begin(what="distill", method="selmatch", estimate=False, minutes=None):
    return app.begin(what, {"estimate": estimate, "minutes": minutes}, method)


def test_without_a_limit_nothing_is_measured(priced, monkeypatch):
    from selmatch.study import estimate
    priced()
    monkeypatch.setattr(estimate, "tabulate_parts", lambda *given: pytest.fail("measured"))
    assert begin() is not None


def test_an_estimate_is_said_and_nothing_is_begun(priced, capsys, monkeypatch):
    priced(train_experts=60, distill_SelMatch=600)
    monkeypatch.setattr(app, "say_unmoved", lambda *given: None)
    assert begin(estimate=True) is None
    said = capsys.readouterr().out
    assert "train experts" in said and "10.0 minutes" in said and "in all about 11.0 minutes with 1 worker on cpu" in said


@pytest.mark.parametrize("iterations, method, n", [(6, "selmatch", 3), (20_000, "dm", 10_000)])
def test_as_many_iterations_as_fit_are_those_of_the_method(iterations, method, n, priced, capsys, monkeypatch):
    """A method with iterations of its own was given a share of somebody else's: more than it had, or too few."""
    made = priced(train_experts=100, distill_it=1000)
    monkeypatch.setattr(app, "longest_run", lambda study, what, name: {"selmatch": 6, "dm": 20_000}[name])
    study = begin(method=method, minutes="10m")
    assert study.narrowed == n and made[-1]["iterations"] == n
    assert f"{n} iterations fit into 10.0 minutes" in capsys.readouterr().out


def test_iterations_are_counted_for_the_method(tmp_path):
    from selmatch.study.study import Study
    p = load_profile("smoke", objectives={"dm": {"iterations": 17}, "dd": {"iterations": 23}})
    study = Study(p, Computer(quiet=True), tmp_path)
    assert app.longest_run(study, "distill", "dm") == app.longest_run(study, "search", "selmatch-dm") == 17, "a race goes on for as long as its method"
    assert app.longest_run(study, "distill", "mtt") == p.matching.iterations == app.longest_run(study, "search", "selmatch")
    assert app.longest_run(study, "distill", "dd") == 23


@pytest.mark.parametrize("stages, minutes, words", [({"train_experts": 700, "distill_it": 100}, "10m", ["distill takes about 13.3 minutes", "10.0 minutes are allowed", "--minutes"]),
                                                    ({"distill_it": 1e6}, "1s", ["1.0 seconds"]), ({"watch_networks": 700}, "10m", ["--set"])])
def test_what_does_not_fit_is_refused(stages, minutes, words, priced, monkeypatch):
    priced(**stages)
    monkeypatch.setattr(app, "longest_run", lambda *given: 6)
    refuses(lambda: begin(minutes=minutes), *words)


def test_what_fits_is_begun_as_it_is(priced):
    made = priced(distill_it=100)
    assert begin(minutes="10m").narrowed is None and len(made) == 1


# ---------------------------------------------------------------- what any failure means

class NoSuchKernel(Exception): pass
class TerminatedWorkerError(Exception): pass


@pytest.mark.parametrize("error, words", [
    (InputError("beta=2\nis not allowed"), ["beta=2 is not allowed"]), (click.UsageError("No such option: --colour"), ["--colour"]),
    (ModuleNotFoundError("no", name="papermill"), ["papermill is not installed", "'selmatch[figures]'"]), (ModuleNotFoundError("no", name="distributed.comm"), ["'selmatch[cluster]'"]),
    (ImportError("cannot import name x", name="torch"), ["torch is not installed", "--upgrade selmatch"]), (ImportError("bad"), ["bad is not installed"]),
    (NoSuchKernel("python3"), ["Jupyter kernel", "ipykernel install"]), (MemoryError(), ["not enough memory", "--workers"]), (RuntimeError("CUDA out of memory. Tried"), ["not enough memory", "--size"]),
    (TerminatedWorkerError("x"), ["ended from outside", "--workers"]), (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), ["not UTF-8", "invalid start byte"]),
    (OSError(errno.ENOSPC, "No space left on device", "/x/y"), ["/x/y: No space left", "SELMATCH_HOME"]), (OSError(errno.EROFS, "Read-only file system"), ["Read-only", "SELMATCH_HOME"]),
    (FileNotFoundError(errno.ENOENT, "No such file", "/x"), ["/x: No such file"]), (OSError("odd"), ["odd"]), (ZeroDivisionError("division\nby zero"), ["ZeroDivisionError: division by zero", "should not happen"]), (KeyError(), ["KeyError: KeyError"])])
def test_every_failure_is_one_line_that_says_what_to_do(error, words):
    said = app.explain(error)
    assert "\n" not in said
    for word in words: assert word in said, said
    assert ("SELMATCH_HOME" in said) == ("SELMATCH_HOME" in words), said
    if not isinstance(error, (InputError, click.ClickException, MemoryError, RuntimeError, NoSuchKernel)): assert "--debug" in said


@pytest.mark.parametrize("error, code, words", [(InputError("x=1"), 2, "selmatch: x=1\n"), (KeyboardInterrupt(), 130, "interrupted; the same command goes on"), (click.Abort(), 130, "interrupted"),
                                                (Stopped(143), 143, "interrupted"), (ZeroDivisionError("oh"), 1, "should not happen"), (click.UsageError("odd"), 2, "selmatch: odd\n")])
def test_a_command_ends_with_its_code_and_a_line(error, code, words, monkeypatch, capsys):
    def fail(*given, **more): raise error
    monkeypatch.setattr(app.cli, "main", fail)
    with pytest.raises(SystemExit) as stop: app.main(["profiles"])
    said = capsys.readouterr().err
    assert stop.value.code == code and words in said and "Traceback" not in said
    if isinstance(error, Exception) and not isinstance(error, click.Abort):
        with pytest.raises(SystemExit): app.main(["--debug", "profiles"])
        assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("stop, code", [(KeyboardInterrupt(), 130), (Stopped(143), 143)])
def test_a_signal_while_a_class_is_made_is_a_signal(stop, code, monkeypatch, capsys):
    """Python 3.11 wraps whatever comes from `__set_name__`, also Ctrl-C in the middle of an import, into a RuntimeError."""
    class Late:
        def __set_name__(self, owner, name): raise stop
    monkeypatch.setattr(app.cli, "main", lambda *given, **more: type("Record", (), {"field": Late()}))
    with pytest.raises(SystemExit) as end: app.main(["profiles"])
    said = capsys.readouterr().err
    assert end.value.code == code and said == "selmatch: interrupted; the same command goes on from here\n"


def test_a_reader_that_has_gone_ends_the_command_quietly(monkeypatch, capfd):
    kept = os.dup(1)
    def fail(*given, **more): raise BrokenPipeError
    monkeypatch.setattr(app.cli, "main", fail)
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(fileno=lambda: 1))
    try:
        with pytest.raises(SystemExit) as stop: app.main(["methods"])
        print("to nobody", file=os.fdopen(os.dup(1), "w"))
    finally: os.dup2(kept, 1), os.close(kept)
    assert stop.value.code == 141 and capfd.readouterr() == ("", "")


def test_alone_it_shows_its_help(say):
    code, said, errors = say()
    assert code == 0 and "selmatch shrink my/images" in said and errors == ""


def test_notes_and_warnings_are_said_once_each(capsys):
    import logging
    import warnings
    log = logging.getLogger("selmatch")
    level, before = log.level, list(log.handlers)
    with app.tell_user():
        for _ in range(2):
            log.info("read as 16 pixels")
            warnings.warn("somebody's", UserWarning)
            warnings.warn_explicit("ours", UserWarning, str(Path(app.__file__)), 1)
            warnings.warn("noise", FutureWarning)
    said = capsys.readouterr().err.splitlines()
    assert said == ["read as 16 pixels", "UserWarning: somebody's", "selmatch: warning: ours"]
    assert log.handlers == before and log.level == level


# ---------------------------------------------------------------- words of the command line

def test_paths_that_cannot_be_followed(tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with contextlib.suppress(AssertionError):        # some systems only say that it is not there
        refuses(lambda: app.read_path("--out", tmp_path / "a" / "x"), "--out", "cannot be followed")
    refuses(lambda: app.find_path("set", tmp_path / "gone"), "set", "gone does not exist")
    refuses(lambda: app.read_path("--out", "a\0b"), "--out", "NUL")


def test_threads_are_those_of_each_task():
    assert app.make_study("digits", threads=2, quiet=True).computer.threads == 2 and app.make_study("digits").computer.threads == 1
    found = [app.make_data("digits", threads=threads, quiet=True).study for threads in (1, 2)]
    assert [study.computer.threads for study in found] == [1, 2] and found[0].key(("train.judge",)) != found[1].key(("train.judge",))
    refuses(lambda: app.make_study("digits", threads=0), "threads=0")


def test_what_data_and_root_mean(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.csv").write_text("file,label\n")
    assert app.data_section("folder:mine") == {"name": "folder", "root": str(tmp_path / "mine")}
    assert app.data_section("cifar10", "there", size=None, no_flip=True) == {"name": "cifar10", "root": str(tmp_path / "there"), "flip": False}
    assert app.data_section("folder:mine", labels="t.csv")["labels"] == str(tmp_path / "t.csv") and app.data_section("folder:mine", labels="in.csv")["labels"] == "in.csv"
    assert app.data_section() == {}
    refuses(lambda: app.data_section("folder:"), "data", "folder:PATH")
    refuses(lambda: app.data_section("mnist"), "'mnist'", "digits")
    refuses(lambda: app.data_section("folder:a", "b"), "root='b'", "one folder too many")


def test_parameters_are_read_as_yaml_and_named_where_they_are_none():
    assert app.read_parameters(("a=3", "b=[1, 2]", "c=x=y", "d=")) == {"a": 3, "b": [1, 2], "c": "x=y", "d": None}
    refuses(lambda: app.read_parameters(("ratio",)), "'ratio' has no value", "NAME=VALUE")
    refuses(lambda: app.read_parameters(("ratio=[1",)), "ratio='[1'", "cannot be read")
    assert app.read_network(None) is None and app.read_network("ConvNet,width=64") == {"name": "ConvNet", "width": 64}


def test_a_profile_without_a_share_has_none_to_take():
    """An empty alpha ended in Python's own words about an empty sequence."""
    bare = replace(load_profile("smoke"), ratios=(), alpha={})
    refuses(lambda: app.narrow_profile(bare, 0.2, None, None), "alpha={}")
    assert app.narrow_profile(bare, 0.2, 0.5, None).alpha == {0.2: 0.5}
    near = app.narrow_profile(load_profile("smoke"), 0.11, None, 0.3)
    assert near.alpha == {0.11: load_profile("smoke").alpha[0.1]} and near.window.beta == {0.11: 0.3} and near.ratios == (0.11,)
    refuses(lambda: load_profile("smoke", curriculum={"alpha": {}}), "curriculum.alpha={}")


def test_figures_of_no_size_are_refused(say):
    code, said, errors = say("figures", "--profile", "smoke", "--only", "fig2_method", "--device", "cpu", "--set", "ratios=[]", "--estimate")
    assert code == 2 and "ratios=() is empty" in errors and "should not happen" not in errors


def test_one_set_is_named_by_either_way(tmp_path):
    (tmp_path / "a=b").mkdir()
    (tmp_path / "mine").mkdir()
    options = {"words": ("score.epochs=3", str(tmp_path / "a=b"))}
    assert app.find_set(None, options) == tmp_path / "a=b" and options["words"] == ("score.epochs=3",)
    assert app.find_set(str(tmp_path / "mine"), {"words": ()}) == tmp_path / "mine"
    refuses(lambda: app.find_set(str(tmp_path / "mine"), {"words": (str(tmp_path / "a=b"),)}), "2 sets are named")
    refuses(lambda: app.find_set(None, {"words": ("score.epochs=3",)}), "0 sets are named")
    refuses(lambda: app.find_set(None, {"words": ("gone",)}), "gone does not exist")


def test_a_table_is_a_new_file_or_one_of_ours(tmp_path):
    (tmp_path / "ours.csv").write_text("row,class,difficulty\n1,a,2\n")
    (tmp_path / "theirs.csv").write_text("name\n")
    app.check_table(None, "row,class"), app.check_table(tmp_path / "ours.csv", "row,class"), app.check_table(tmp_path / "new.csv", "row,class")
    refuses(lambda: app.check_table(tmp_path / "theirs.csv", "row,class"), "theirs.csv", "must begin with row,class")
    refuses(lambda: app.check_table(tmp_path / "ours.txt", "row"), "ours.txt is no table", ".csv")
    refuses(lambda: app.check_table(tmp_path / "none" / "x.csv", "row"), "none does not exist")


def test_a_gallery_of_others_stays_as_it_is(tmp_path):
    digits = {"name": "digits"}
    (tmp_path / "index.html").write_text("<title>my page</title>")
    refuses(lambda: app.check_gallery(tmp_path, ["fig3_window"], digits), "index.html was not written by selmatch")
    (tmp_path / "index.html").unlink()
    (tmp_path / "fig3_window.json").write_text('{"mine": 1}')
    refuses(lambda: app.check_gallery(tmp_path, ["fig3_window"], digits), "fig3_window.json was not written by selmatch")
    app.check_gallery(tmp_path, ["fig4_alpha"], digits), app.check_gallery(tmp_path / "new", ["fig3_window"], digits)
    (tmp_path / "file").write_text("x")
    refuses(lambda: app.check_gallery(tmp_path / "file" / "x", [], digits), "file is no folder")
    assert (tmp_path / "fig3_window.json").read_text() == '{"mine": 1}'


def test_steps_of_what_makes_no_images_are_not_tuned(say, tmp_path):
    code, _, errors = say("tune", "--profile", "smoke", "--only", "window")
    assert code == 2 and "'window' distils nothing" in errors
    (tmp_path / "there.yaml").write_text("name: x\n")
    code, _, errors = say("tune", "--profile", "smoke", "--only", "dm", "--out", tmp_path / "there.yaml")
    assert code == 2 and "there.yaml exists" in errors and (tmp_path / "there.yaml").read_text() == "name: x\n"


def test_official_files_are_listed_and_of_others_there_are_none(say, tmp_path, monkeypatch):
    code, said, _ = say("fetch", "cifar10", "--list", "--root", tmp_path)
    assert code == 0 and "cifar-10-python.tar.gz" in said and str(tmp_path) in said and list(tmp_path.iterdir()) in ([], [tmp_path / "home"])
    code, _, errors = say("fetch", "mnist")
    assert code == 2 and "'mnist'" in errors and "tinyimagenet" in errors
    from selmatch.data import fetch
    monkeypatch.setattr(fetch, "advise", lambda name, folder: "")
    code, said, _ = say("fetch", "cifar10", "--list", "--root", tmp_path)
    assert code == 0 and f"all files of cifar10 are in {tmp_path}" in said
    monkeypatch.setattr(fetch, "fetch", lambda name, folder, tell: [folder / name])
    code, said, _ = say("fetch", "cifar10", "--root", tmp_path)
    assert said == f"there: {tmp_path / 'cifar10'}\n"
    refuses(lambda: app.fetch_official("digits"), "official files of 'digits'")


# ---------------------------------------------------------------- sets

def small_of(**card):
    classes = ("cat", "dog")
    return SimpleNamespace(card=card, data=SimpleNamespace(classes=classes, shape=(1, 8, 8), n_classes=2), made=SimpleNamespace())


def test_uneven_classes_are_said_and_even_ones_are_not():
    assert app.say_balance(small_of()) == []
    assert app.say_balance(small_of(balance="share", ipc=[6, 2], taken_whole=[])) == ["of each class (share): cat 6, dog 2"]
    said = app.say_balance(small_of(balance="equal", ipc=[6, 2], taken_whole=["dog"], distilled_per_class=[3, 1]))
    assert said == ["of each class (equal): cat 6 (3 distilled), dog 2 (1 distilled)", "all images there are: dog"]


def test_a_set_of_other_images_is_not_judged(monkeypatch):
    from selmatch.data.images import ImageSet
    from selmatch.distill import sets
    train = SimpleNamespace(shape=(1, 8, 8), classes=("cat", "dog"), n_classes=2, key="abc", mean=(0.5,), std=(0.5,))
    study = SimpleNamespace(splits=SimpleNamespace(train=train))
    def kept(classes=("cat", "dog"), **card):
        data = ImageSet(torch.zeros(2, 1, 8, 8), torch.arange(2), classes, (0.5,), (0.5,))
        small = sets.SyntheticSet(data, torch.zeros(2).bool(), card=card)
        monkeypatch.setattr(sets, "load_set", lambda path: small)
        return small
    kept(train_fingerprint="xyz")
    refuses(lambda: app.read_given_set(Path("mine"), study), "mine", "other training images (xyz)", "(abc)")
    kept(("cat", "cow"), train_fingerprint="abc")
    refuses(lambda: app.read_given_set(Path("mine"), study), "mine", "must agree")
    fits = kept(train_fingerprint="abc")
    assert app.read_given_set(Path("mine"), study) is fits
    theirs = kept()                                   # a set of others says nothing of where it comes from
    assert app.read_given_set(Path("mine"), study) is theirs


@pytest.mark.parametrize("n, words", [(1, "test accuracy 80.00 % (n = 1, 2 images, augmentation dsa)"), (2, "test accuracy 80.00 ± 0.00 % (n = 2,")])
def test_one_network_has_no_spread(n, words, say, monkeypatch, tmp_path):
    """`± nan` was said of it."""
    from selmatch import api
    table = pd.DataFrame([{"set": "small", "recipe": "own", "number": 0, "images": 2, "seed": i, "test_accuracy": 0.8} for i in range(n)])
    class Two(SimpleNamespace):
        def __len__(self): return 2
    monkeypatch.setattr(app, "make_data", lambda **options: None)
    monkeypatch.setattr(app, "read_any_set", lambda path, data: Two(card={}))
    monkeypatch.setattr(api, "evaluate", lambda small, data, **words: table)
    (tmp_path / "mine").mkdir()
    code, said, errors = say("evaluate", tmp_path / "mine", "--device", "cpu", "--out", tmp_path / "x.csv")
    assert code == 0 and words in said and "nan" not in said, errors
    assert (tmp_path / "x.csv").read_text().splitlines()[0].startswith("set,seed,") and str(tmp_path / "mine") in (tmp_path / "x.csv").read_text()


def test_a_set_is_checked_when_it_is_read(monkeypatch):
    from selmatch import api, others
    small, checked = SimpleNamespace(card={}), []
    monkeypatch.setattr(others, "read_set", lambda path, data: small)
    monkeypatch.setattr(api, "check_small", lambda small, study, name: checked.append((small, study, name)))
    monkeypatch.setattr(api, "check_leaks", lambda made, data, name: checked.append((made, data.study, name)))
    assert app.read_any_set(Path("theirs"), SimpleNamespace(study="study")) is small
    assert checked == [(small, "study", "set theirs"), (None, "study", "set theirs")]


def test_out_is_taken_only_where_a_set_may_stand(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "diary").write_text("x")
    (tmp_path / "file").write_text("x")
    digits = {"name": "digits"}
    refuses(lambda: app.check_out(tmp_path / "full", digits), "full exists and was not written by selmatch")
    refuses(lambda: app.check_out(tmp_path / "file" / "x", digits), "file is no folder")
    app.check_out(tmp_path / "new" / "deep", digits)
    assert not (tmp_path / "new").exists()


# ---------------------------------------------------------------- what is asked is not lost on the way

def test_judging_costs_what_is_asked(data_of_two, say, monkeypatch, tmp_path):
    """`evaluate --estimate --networks 50 --epochs 200 --draws 9 --full` said what it says without."""
    import selmatch as sm
    from selmatch.study import estimate
    data, place = data_of_two
    small, steps = sm.select(data, "random", per_class=2), []
    small.save(tmp_path / "set")
    monkeypatch.setattr(app, "make_data", lambda **options: data)
    monkeypatch.setattr(estimate.Prices, "training", lambda self, network, recipe, size=0: steps.append((network["width"], recipe.steps)) or float(recipe.steps))
    monkeypatch.setattr(estimate.Prices, "looking", lambda self, *given: 0.0)
    plain = estimate.judging_costs(data.study, len(small))
    assert plain.stage.tolist() == ["evaluate"] and plain.left.tolist() == [data.study.profile.evaluation.n] and steps == [(4, data.study.profile.evaluation.steps)]
    code, said, errors = say("evaluate", tmp_path / "set", "--estimate", "--networks", 50, "--epochs", 200, "--draws", 9, "--full", "--network", "ConvNet,width=8,depth=1")
    assert code == 0, errors
    rows = [line.split() for line in said.splitlines()[1:4]]
    assert [("evaluate", "50"), ("draws", "450"), ("images", "50")] == [next((a, b) for a, b in zip(row, row[1:]) if b.isdigit()) for row in rows]
    assert [width for width, _ in steps[1:]] == [8] * 3 and [n for _, n in steps[1:]] == [200, 200, 200]
    taught = estimate.judging_costs(data.study, len(small), taught_by=0)
    n, e = data.study.profile.teacher.n, data.study.profile.evaluation
    assert taught.stage.tolist() == ["train teachers", "evaluate"] and taught.left.tolist() == [n, e.n], "a set whose teachers answer in every step"
    assert taught.each.tolist() == [e.steps, e.steps * (1 + n / 3)]
    code, said, errors = say("evaluate", tmp_path / "set", "--minutes", "1s", "--epochs", 200)
    assert code == 2 and "1.0 seconds are allowed" in errors and "--networks" in errors
    monkeypatch.setattr("selmatch.api.evaluate", lambda small, data, **asked: pytest.fail("begun") if asked["epochs"] != 3 else pd.DataFrame([{"set": "small", "seed": 0, "test_accuracy": 0.5}]))
    assert say("evaluate", tmp_path / "set", "--minutes", "1h", "--epochs", 3)[0] == 0


@pytest.fixture
def data_of_two(tmp_path):
    import numpy as np
    import selmatch as sm
    data = sm.from_arrays(np.random.default_rng(0).random((40, 8, 8)), np.arange(40) % 2, words={"network.width": 4, "network.depth": 1}, results=tmp_path / "home", quiet=True, workers=1)
    return data, tmp_path


def test_what_a_search_found_is_used_with_the_same_words():
    """--set, --root and --iterations were left out: another set was distilled than the one that won."""
    options = dict.fromkeys(["profile", "size", *app.reading_options, "balance"]) | {
        "data": "cifar10", "root": "my files", "seed": 3, "ratio": 0.1, "iterations": 20, "words": ("score.epochs=3", "network.width=8"), "no_flip": True, "minutes": None}
    line = shlex.split(app.say_again("selmatch", options, 0.2, 0.4))
    assert line == ["selmatch", "distill", "--method", "selmatch", "--data", "cifar10", "--root", "my files", "--no-flip", "--seed", "3", "--iterations", "20", "--ratio", "0.1",
                    "--set", "score.epochs=3", "--set", "network.width=8", "--alpha", "0.2", "--beta", "0.4"]
    context = app.cli.commands["distill"].make_context("distill", line[2:])
    assert context.params["words"] == options["words"] and context.params["iterations"] == 20


def test_the_split_is_fixed_by_a_word_of_its_own():
    """`--seed` was said to be behind every random number, and to be what a set of another split lacks."""
    from selmatch.api import same_data
    named = next(p for p in app.cli.commands["score"].params if p.name == "seed").help
    assert "data.seed" in named and "data.seed" in same_data
    keys = {seed: app.make_data("digits", seed=seed, quiet=True, device="cpu", words=words).train.key for seed, words in ((0, ()), (1, ()))}
    assert keys[0] == keys[1] != app.make_data("digits", quiet=True, device="cpu", words=("data.seed=1",)).train.key
