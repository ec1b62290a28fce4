"""What is said is obeyed by every part of the work, or refused: by the tables, the estimate, the message and the picture."""
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import ROOT, draw

import selmatch as sm
from selmatch import app
from selmatch.api import change_words, limit_iterations, open_study
from selmatch.computer import Computer
from selmatch.core import InputError
from selmatch.methods import find_method
from selmatch.study import beside, estimate, search, shrink, tables
from selmatch.study.profile import load_profile
from selmatch.study.sets import small_sets
from selmatch.study.study import Study, data_folder

QUIET = Computer(quiet=True)
SMALL = {"seeds": 1, "ratios": (0.1,), "alpha": {0.1: 0.5}, "transfer": {}, "evaluation": {"n": 1, "steps": 5}, "score": {"epochs": 1}}


def refuses(call, *words):
    with pytest.raises(InputError) as caught:
        call()
    assert all(word in str(caught.value) for word in words), str(caught.value)


def command(*words):
    """What a command prints, or the error that it ends with."""
    done = CliRunner().invoke(app.cli, [str(word) for word in words])
    return done.output + str(done.exception or ""), done.exit_code


# ---------------------------------------------------------------- iterations of a race

@pytest.mark.parametrize("words", [{}, {"search.rungs": [3, 6]}, {"tuned": {"selmatch": {"iterations": 12}}}])
def test_no_candidate_of_a_race_goes_on_for_longer_than_the_set_that_is_made_of_it(words, tmp_path):
    method = find_method("selmatch")
    p = change_words(load_profile("smoke", **SMALL), words)
    for iterations in (1, 2, 5, 9):
        study = Study(limit_iterations(p, iterations), QUIET, tmp_path)
        rungs = search.list_rungs(study, method, 0.1)
        assert rungs[-1] == iterations and list(rungs) == sorted(set(rungs))
        assert app.longest_run(study, "search", method) == iterations


def test_a_word_for_the_run_bounds_the_race_too(tmp_path):
    study = Study(change_words(load_profile("smoke", **SMALL), {"matching.iterations": 3, "matching.evaluate_at": []}), QUIET, tmp_path)
    assert search.list_rungs(study, find_method("selmatch"), 0.1)[-1] == 3
    refuses(lambda: search.list_rungs(Study(limit_iterations(study.profile, 0), QUIET, tmp_path), find_method("selmatch"), 0.1), "iterations of a race", "0")


# ---------------------------------------------------------------- who judges

def test_what_is_left_to_judge_is_counted_for_the_networks_that_judge(tmp_path):
    """Once the networks that distil were looked for where others judge: nothing was left that nobody had trained."""
    small = load_profile("smoke", **SMALL)
    other = change_words(small, {"evaluation.network": {"name": "ConvNet", "width": 6, "depth": 2}})
    def left(p):
        study = Study(p, QUIET, tmp_path)
        parts = estimate.list_parts(estimate.Prices(study), estimate.wish_rows(study, ["random"], [0.1]), full=True)
        return {part.stage: part.left for part in parts if part.stage in ("evaluate", "train on all data")}
    def judge(p):
        study = Study(p, QUIET, tmp_path)
        tables.accuracies(study, ["random"], [0.1])
        tables.full_accuracy(study)
    judge(small)
    assert left(small) == {"evaluate": 0, "train on all data": 0} and left(other) == {"evaluate": 1, "train on all data": 1}
    judge(other)
    assert left(other) == {"evaluate": 0, "train on all data": 0}


def test_the_network_that_distils_is_one_judge_with_the_usual_one_or_another(tmp_path):
    p = load_profile("smoke", **SMALL)
    both = lambda p: (study := Study(p, QUIET, tmp_path)) and estimate.list_judges(study, [
        *estimate.wish(study, ["random"]), *estimate.wish(study, ["random"], judges=study.judges), *estimate.wish(study, ["random"], judges=[None])])
    assert {title: len(mine) for title, mine in both(p).items()} == {estimate.usual: 2}
    other = change_words(p, {"evaluation.network": {"name": "ConvNet", "width": 6, "depth": 2}})
    assert {title: len(mine) for title, mine in both(other).items()} == {estimate.usual: 1, "its own": 1}


def test_the_networks_that_say_what_distilling_gained_are_in_the_bill(tmp_path):
    study = Study(load_profile("smoke", **SMALL), QUIET, tmp_path)
    part = lambda name: beside.gain_part(estimate.Prices(study), name, 0.1)
    assert part("selmatch").tasks == part("selmatch").left == 2 and part("window").tasks == 0
    task = small_sets(study, ["selmatch"], [0.1], 1)["selmatch", 0.1, 0]
    assert part("selmatch").left == 2
    beside.gain_over_start(study, task)
    assert part("selmatch").left == 0


# ---------------------------------------------------------------- shrink

def test_mirrored_images_are_not_promised_where_the_profile_mirrors_none():
    data = open_study("smoke")
    assert not shrink.check_flips(data.study.profile, None) and not shrink.check_flips(data.study.profile, False)
    sizes = data.sizes(ratio=0.2)
    refuses(lambda: shrink.settle_flips(data.study, sizes, True), "flips=True", "data.flip")
    refuses(lambda: shrink.choose_effort(data.study, sizes, 10, True), "flips=True")
    assert shrink.settle_flips(data.study, sizes, False) == (False, "as asked")


@pytest.mark.parametrize("words", [{"objectives.trajectory": {"iterations": 900}}, {"tuned": {"selmatch": {"iterations": 900}}}, {"matching.iterations": 900}])
def test_the_plan_of_shrink_counts_the_iterations_that_are_made(words, monkeypatch):
    data = open_study("smoke", words=words)
    effort = next(one for one in shrink.efforts if one.distils)
    monkeypatch.setattr(shrink, "iteration_seconds", lambda prices, method, ratio: 2.0)
    stages = shrink.plan_stages(data.study, data.sizes(ratio=0.2), effort, False).set_index("stage")
    assert stages.each["distill"] == 2.0 * 900 and stages.tasks["distill"] == 1


def test_words_that_a_set_made_by_itself_does_not_follow_are_refused():
    refuses(lambda: open_study("smoke", words={"balance": "equal"}), "balance", "per_class")
    refuses(lambda: open_study("smoke", words={"window.choose_on": "test"}), "window.choose_on", "validation")


def test_photographs_are_not_promised_of_arrays(tmp_path):
    x = np.random.default_rng(0).integers(0, 255, (80, 8, 8, 1), dtype=np.uint8)
    data = sm.from_arrays(x, np.arange(80) % 2)
    refuses(lambda: sm.shrink(data, tmp_path / "out", originals="copy"), "originals='copy'", "arrays")
    assert not (tmp_path / "out").exists()


def test_arrays_are_split_by_the_profiles_seed_unless_another_is_given():
    x, y = np.random.default_rng(0).integers(0, 255, (80, 8, 8, 1), dtype=np.uint8), np.arange(80) % 2
    profile = lambda seed: (p := load_profile("folder")) and replace(p, data=p.data | {"seed": seed})
    key = lambda **words: sm.from_arrays(x, y, **words).train.key
    assert key(profile=profile(7)) != key(profile=profile(8))
    assert key(profile=profile(7), seed=3) == key(profile=profile(8), seed=3) == key(seed=3)
    assert key() == key(profile=profile(0))


# ---------------------------------------------------------------- options

def test_options_that_mean_nothing_together_are_refused():
    for words in (["figures", "--check", "--only", "fig3_window"], ["figures", "--check", "-p", "ratio=0.3"], ["figures", "--check", "--estimate"],
                  ["figures", "--all", "--only", "fig3_window"], ["cache", "--clean", "--check"]):
        said, code = command(*words)
        assert code and "not allowed beside" in said, said


@pytest.mark.parametrize("name, option, word", [("score", "--seed", "seed=3"), ("select", "--size", "data.size=8")])
def test_a_word_that_an_option_and_set_both_say_is_refused(name, option, word, tmp_path):
    draw(tmp_path / "images", n=4)
    said, code = command(name, "--data", f"folder:{tmp_path / 'images'}", option, 5, "--set", word)
    assert code and option in said and "same word" in said, said


def test_shrink_hears_of_iterations_once(tmp_path):
    draw(tmp_path / "images", n=4)
    said, code = command("shrink", tmp_path / "images", "--iterations", 2, "--set", "matching.iterations=4", "--out", tmp_path / "out")
    assert code and "--iterations 2" in said and "matching.iterations" in said, said


def test_official_files_are_fetched_to_where_the_profile_looks_for_them(monkeypatch, tmp_path):
    monkeypatch.setenv("SELMATCH_DATA", str(tmp_path))
    places = []
    monkeypatch.setattr(app, "fetch_official", lambda name, root=None: places.append((name, Path(root))))
    app.fetch_named({"name": "cifar10", "root": "sub"})
    app.fetch_named({"name": "cifar10"})
    assert places == [("cifar10", data_folder() / "sub"), ("cifar10", data_folder())]
    refuses(lambda: app.fetch_named({"name": "digits"}), "'digits'")


def test_how_tensors_are_normalised_is_checked_for_a_folder_too(tmp_path):
    draw(tmp_path / "images", n=4)
    data = sm.from_folder(tmp_path / "images", size=8, drop_leaked=False)
    draw(tmp_path / "theirs", n=1, first=9)
    refuses(lambda: sm.read_set(tmp_path / "theirs", data, normalised="nonsense"), "normalised", "nonsense")


def test_the_second_figure_shows_the_class_it_names_where_classes_have_numbers_of_their_own(tmp_path, monkeypatch):
    """Once it cut the set into equal pieces, and showed images of the class before."""
    from selmatch.show import figures, plots
    from selmatch.study import study as room
    shown = {}
    monkeypatch.setattr(plots, "method_picture", lambda table, before, after, *more, **words: shown.update(before=before, table=table))
    monkeypatch.setattr(figures, "publish", lambda *given, **words: None)
    uneven = replace(load_profile("smoke"), balance="share", data=load_profile("digits").data)
    study = Study(uneven, QUIET, tmp_path)
    monkeypatch.setattr(room, "open_study", lambda *given: study)
    cells = json.loads((ROOT / "nbs" / "figures" / "fig2_method.ipynb").read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"][:3]
    names = {}
    for text in (code[0], "ratio = 0.3", *code[1:]):
        exec(text, names)
    taken = shown["table"][shown["table"].place >= 0].sort_values("place")
    train = study.loaded.train
    assert len(set(study.take(0.3))) > 1 and len(shown["before"]) == len(taken)
    assert torch.equal(shown["before"], study.as_pictures(study.splits.train.subset(torch.tensor(taken.row.tolist()))).images)
    assert set(train.hard_labels[taken.row.tolist()].tolist()) == {8}
