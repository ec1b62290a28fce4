"""What is said on the command line reaches what does the work: each option, with a value that is not its default."""
from types import SimpleNamespace

import pandas as pd
import pytest

import selmatch.others
import selmatch.show.card
import selmatch.show.figures
from selmatch import app


def run(*words):
    with pytest.raises(SystemExit) as stop: app.main([str(word) for word in words])
    return stop.value.code


SHRINK = [("--ratio 0.3", {"ratio": 0.3, "number": None, "per_class": None}), ("--images 50", {"ratio": None, "number": 50, "per_class": None}), ("--per-class 4", {"ratio": None, "number": None, "per_class": 4}),
          ("--budget 90s", {"budget": 90}), ("--originals link", {"originals": "link"}), ("--flips yes", {"flips": True}), ("--flips no", {"flips": False}), ("--flips auto", {"flips": None}), ("--size 24", {"size": 24}),
          ("--estimate", {"only_plan": True}), ("--device cpu", {"device": "cpu"}), ("--seed 7", {"seed": 7}), ("--workers 3", {"workers": 3}), ("--threads 2", {"threads": 2}), ("--set score.epochs=3", {"words": {"score.epochs": 3}}),
          ("--fit pad", {"fit": "pad"}), ("--background black", {"background": "black"}), ("--white 4095", {"white": 4095}), ("--mode L", {"mode": "L"}), ("--skip-unreadable", {"skip_unreadable": True}),
          ("--drop-leaked", {"drop_leaked": True}), ("--max-pixels 99", {"max_pixels": 99})]


@pytest.mark.parametrize("said, meant", SHRINK, ids=[said for said, _ in SHRINK])
def test_shrink(said, meant, tmp_path, monkeypatch):
    told = {}
    monkeypatch.setattr(selmatch.show.card, "shrink", lambda folder, out, **words: told.update(words, folder=folder, out=out))
    assert run("shrink", tmp_path, "--out", tmp_path / "small", *said.split()) == 0
    assert {name: told[name] for name in meant} == meant
    assert told["folder"] == tmp_path and told["out"] == tmp_path / "small"
    usual = {"originals": "none", "only_plan": False, "budget": 1500, "flips": None}
    assert all(told[name] == value for name, value in usual.items() if name not in meant)


COMPARE = [("--draws 5", {"draws": 5}), ("--no-full", {"full": False}), ("--augmentation simple", {"augmentation": "simple"}), ("--networks 4", {"networks": 4}), ("--epochs 6", {"epochs": 6}),
           ("--network ConvNet,width=64", {"network": {"name": "ConvNet", "width": 64}})]


@pytest.mark.parametrize("said, meant", COMPARE, ids=[said for said, _ in COMPARE])
def test_compare(said, meant, tmp_path, monkeypatch):
    told = {}
    monkeypatch.setattr(app, "make_data", lambda **options: SimpleNamespace(options=options))
    monkeypatch.setattr(selmatch.others, "read_set", lambda *words: words)
    monkeypatch.setattr(selmatch.others, "compare", lambda sets, data, **words: told.update(words, sets=sets) or pd.DataFrame())
    monkeypatch.setattr(selmatch.others, "say_table", lambda table: "")
    assert run("compare", tmp_path, "--data", "digits", *said.split()) == 0
    assert {name: told[name] for name in meant} == meant
    assert told["full"] is (said != "--no-full")


@pytest.mark.parametrize("command", ["compare", "import"])
@pytest.mark.parametrize("said, meant", [("--number 3", (None, None, 3, None)), ("--label-order text", (None, None, 0, "text")), ("--normalised bytes", (None, "bytes", 0, None))])
def test_files_of_others(command, said, meant, tmp_path, monkeypatch):
    told, small = [], type("Two", (), {"classes": "ab", "card": {}, "save": lambda self, out: None, "__len__": lambda self: 2})()
    monkeypatch.setattr(app, "make_data", lambda **options: "data")
    monkeypatch.setattr(selmatch.others, "read_set", lambda path, data, *words: told.append(words) or small)
    monkeypatch.setattr(selmatch.others, "compare", lambda sets, data, **words: pd.DataFrame())
    monkeypatch.setattr(selmatch.others, "say_table", lambda table: "")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "theirs").mkdir()
    assert run(command, tmp_path / "theirs", "--data", "digits", *said.split()) == 0
    assert told == [meant]


def test_a_study_is_made_as_said(monkeypatch):
    monkeypatch.setattr(app, "join_cluster", lambda address: address and (lambda *words: address))
    study = app.make_study("digits", balance="share", workers=3, threads=2, cluster="tcp://here:1", device="cpu", seed=5)
    assert study.profile.balance == "share" and study.profile.seed == 5
    assert (study.computer.workers, study.computer.threads, study.computer.cluster()) == (3, 2, "tcp://here:1")


def test_parameters_of_a_figure(tmp_path, monkeypatch):
    told = {}
    def draw(study, names, parameters=None, out=None, profile=None, say=print):
        told.update(names=names, parameters=parameters, out=out, workers=study.computer.workers)
        return tmp_path
    monkeypatch.setattr(selmatch.show.figures, "draw_figures", draw)
    monkeypatch.setattr(app, "draw_figures", draw, raising=False)
    assert run("figures", "--profile", "smoke", "--only", "fig2_method", "-p", "ratio=0.3", "-p", "label=3", "--workers", 3, "--out", tmp_path / "drawn", "--device", "cpu") == 0
    assert list(told["names"]) == ["fig2_method"] and told["parameters"] == {"ratio": 0.3, "label": 3} and told["out"] == tmp_path / "drawn" and told["workers"] == 3
