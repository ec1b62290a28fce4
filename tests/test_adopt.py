"""Rows of published tables that a home has taken over: what they stand for, and when they do not."""
import hashlib
import json
from dataclasses import replace

import pandas as pd
import pytest
import torch
from click.testing import CliRunner

from selmatch.app import cli
from selmatch.computer import Computer
from selmatch.core import InputError
from selmatch.methods import find_method
from selmatch.show.figures import describe_adopted, expect, figures, open_rooms, publish, say_taken
from selmatch.study import tables
from selmatch.study.estimate import usual, wish_rows
from selmatch.study.profile import load_profile
from selmatch.study.store import adopt, fill_words, row_words
from selmatch.study.study import Study, is_about

QUICK = replace(load_profile("smoke"), ratios=(0.3,), methods=("random", "window"))
QUICK = replace(QUICK, score=replace(QUICK.score, sort="needed"))


def open_at(folder, profile=QUICK):
    return Study(profile, Computer(workers=1, quiet=True), folder)


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """A folder of published tables, and the study that measured them."""
    study, folder = open_at(tmp_path_factory.mktemp("home")), tmp_path_factory.mktemp("shown")
    for name, table in (("fig3_window", tables.windows(study)), ("tab1_accuracy", tables.accuracies(study))):
        publish_here(name, table, study, folder)
    return study, folder


def publish_here(name, table, study, folder):
    import matplotlib.pyplot as plt
    publish(name, plt.figure(), table, study, "A caption.", folder)
    plt.close()


def count(study):
    return len(list(study.folder.rglob("results/*/*.safetensors")))


def edit(folder, place, change):
    """Copies of the published tables in another folder, one of them changed and its provenance with it."""
    place.mkdir()
    for file in folder.iterdir():
        (place / file.name).write_bytes(file.read_bytes())
    rows, note = change(pd.read_csv(place / "tab1_accuracy.csv", dtype={"images": str})), place / "tab1_accuracy.json"
    rows.to_csv(place / "tab1_accuracy.csv", index=False)
    card = json.loads(note.read_text())
    card["files"]["tab1_accuracy.csv"] = hashlib.sha256((place / "tab1_accuracy.csv").read_bytes()).hexdigest()
    note.write_text(json.dumps(card))
    return place


def test_what_is_adopted_is_not_measured_and_is_the_same(shown, tmp_path):
    first, folder = shown
    study = open_at(tmp_path)
    assert list(adopt(tmp_path, folder)) == ["fig3_window", "tab1_accuracy"]
    assert study.betas == first.betas and study.lent == {"fig3_window"}
    table = tables.accuracies(study)
    assert count(study) == 0                                   # nothing was trained
    assert set(table.taken_from) == {"tab1_accuracy"}
    pd.testing.assert_frame_equal(table.drop(columns="taken_from"), tables.accuracies(first), atol=1e-5)


def test_only_what_is_missing_is_measured_and_pairs_with_the_rest(shown, tmp_path):
    first, folder = shown
    study = open_at(tmp_path)
    adopt(tmp_path, folder)
    names = ["hardest", "random"]
    table, whole = tables.accuracies(study, names), tables.accuracies(first, names)
    assert dict(table.groupby("method").taken_from.first()) == {"Hardest": "", "Random": "tab1_accuracy"}
    pd.testing.assert_frame_equal(table.drop(columns="taken_from"), whole, atol=1e-5)
    assert say_taken(study, table) == " Rows taken over: tab1_accuracy (Random)."
    assert say_taken(study, whole) == " Rests on published rows: tab1_accuracy."       # a figure of other rows
    about = describe_adopted(study)["adopted"]
    assert set(about) == {"tab1_accuracy"}                     # no window was asked for
    assert about["tab1_accuracy"]["device"] == "cpu" and about["tab1_accuracy"]["threads"] == 1
    assert say_taken(first, whole) == "" and describe_adopted(first) == {}


def test_a_row_that_was_adopted_keeps_the_name_of_its_first_table(shown, tmp_path):
    _, folder = shown
    second, third = tmp_path / "second", tmp_path / "third"
    adopt(second, folder)
    study = open_at(second)
    table = tables.accuracies(study, ["random", "hardest"]).assign(kind="selection")
    publish_here("tab1_everything", table, study, tmp_path / "more")
    card = json.loads((tmp_path / "more" / "tab1_everything.json").read_text())
    assert card["caption"] == "A caption. Rows taken over: tab1_accuracy (Random)."
    assert card["adopted"]["tab1_accuracy"]["code"] == json.loads((folder / "tab1_accuracy.json").read_text())["code"]
    adopt(third, tmp_path / "more")
    study = open_at(third)
    again = tables.accuracies(study, ["random", "hardest"])
    assert describe_adopted(study)["adopted"]["tab1_accuracy"] == card["adopted"]["tab1_accuracy"]
    assert dict(again.groupby("method").taken_from.first()) == {"Hardest": "tab1_everything", "Random": "tab1_accuracy"}
    assert "kind" not in again


@pytest.mark.parametrize("change", [
    lambda p: replace(p, evaluation=replace(p.evaluation, steps=p.evaluation.steps + 1)),
    lambda p: replace(p, evaluation=replace(p.evaluation, n=p.evaluation.n + 1)),
    lambda p: replace(p, seed=p.seed + 1),
    lambda p: replace(p, data=p.data | {"size": 100} if "size" in p.data else p.data | {"seed": 7}),
    lambda p: replace(p, network=p.network | {"width": 4})])
def test_rows_of_another_protocol_are_not_taken(shown, tmp_path, change):
    adopt(tmp_path, shown[1])
    study = open_at(tmp_path, change(QUICK))
    assert study.adopted == {} and study.adopted_windows is None


@pytest.mark.parametrize("change", [
    lambda p: replace(p, title="Another", name="other", compared=("random",), differs="much"),
    lambda p: replace(p, tuned={"mtt": {"lr_images": 3.0}})])
def test_words_on_which_no_row_depends_do_not_hinder(shown, tmp_path, change):
    adopt(tmp_path, shown[1])
    study = open_at(tmp_path, change(QUICK))
    assert set(study.adopted) == {"fig3_window", "tab1_accuracy"}
    assert set(tables.find_adopted(study, [("random", 0.3, 0)])) == {("random", 0.3, 0)}


def as_mtt(table):
    """Random's rows under another name, as if MTT had been measured: what is taken is asked, not what it is worth."""
    return table.assign(method=table.method.replace("Random", "MTT"))


MTT = ("mtt", 0.3, 0)


@pytest.mark.parametrize("taken, change", [
    (True, {"tuned": {"dm": {"lr_images": 3.0}}}), (False, {"tuned": {"mtt": {"lr_images": 3.0}}}),
    (True, {"objectives": QUICK.objectives | {"dm": {"lr_images": 77.0}}}),
    (False, {"objectives": QUICK.objectives | {"trajectory": {"lr_images": 7.0}}}),
    (False, {"matching": replace(QUICK.matching, iterations=QUICK.matching.iterations + 1)}),
    (True, {"matching": replace(QUICK.matching, memory=1.0)}),
    (False, {"experts": replace(QUICK.experts, epochs=QUICK.experts.epochs + 1)}),
    (True, {"teacher": replace(QUICK.teacher, n=QUICK.teacher.n + 1)}),
    (True, {"alpha": {**QUICK.alpha, 0.1: 0.5}}), (False, {"alpha": {0.3: 0.77}}),
    (True, {"curriculum": replace(QUICK.curriculum, alpha={0.3: 0.3})})])
def test_words_of_one_method_concern_its_rows_only(shown, tmp_path, taken, change):
    adopt(tmp_path, edit(shown[1], tmp_path / "edited", as_mtt))
    assert set(tables.find_adopted(open_at(tmp_path), [MTT])) == {MTT}
    study = open_at(tmp_path, replace(QUICK, **change))
    assert set(tables.find_adopted(study, [MTT])) == ({MTT} if taken else set())


def test_a_method_of_a_reader_gets_no_row_of_the_catalogue(shown, tmp_path):
    adopt(tmp_path, shown[1])
    study, mine = open_at(tmp_path), replace(find_method("easiest"), title="Random")
    assert tables.find_adopted(study, [(mine, 0.3, 0)]) == {}
    both = tables.accuracies(study, ["random", mine])
    assert len(both) == 2 * QUICK.seeds * QUICK.evaluation.n   # each method its own rows, though of one title
    assert dict(both.groupby("images", sort=False).taken_from.first()) == dict(zip(both.images.unique(), ["tab1_accuracy"] * QUICK.seeds + [""] * (both.images.nunique() - QUICK.seeds)))


@pytest.mark.parametrize("column, value", [("seed", 5), ("ipc", 999), ("labels", "soft"), ("augmentation", "none")])
def test_rows_of_other_networks_are_not_taken(shown, tmp_path, column, value):
    adopt(tmp_path, edit(shown[1], tmp_path / "edited", lambda t: t.assign(**{column: value})))
    assert tables.find_adopted(open_at(tmp_path), [("random", 0.3, 0)]) == {}


def test_other_test_images_and_other_scores_are_other_data(shown, tmp_path):
    adopt(tmp_path, shown[1])
    study = open_at(tmp_path)
    about = study.describe_data()
    assert is_about(about, about) and is_about({"train": 1}, about)           # an old provenance does not say
    assert not is_about(about | {"tests": "other"}, about) and not is_about(about | {"score": "other"}, about)
    fewer = replace(study.splits, test=study.splits.test.subset(torch.arange(20)))
    assert replace(study, given=fewer).adopted == {}


def test_a_scan_of_more_sizes_serves_those_that_there_are(shown, tmp_path):
    both = replace(QUICK, ratios=(0.3, 1 / 3), alpha={0.3: 0.5, 1 / 3: 0.5})
    few = replace(both, ratios=(0.3,))
    study = open_at(tmp_path / "both", both)
    publish_here("fig3_window", tables.windows(study), study, tmp_path / "wide")
    adopt(tmp_path / "few", tmp_path / "wide")
    few, all_of_them = open_at(tmp_path / "few", few), open_at(tmp_path / "few", both)
    assert few.betas == {0.3: study.betas[0.3]}
    assert all_of_them.betas == study.betas                    # to the last digit, also at a third
    assert count(few) == 0


def test_words_with_defaults_of_their_own_are_whole():
    plain, one, two = map(fill_words, ({}, *({"curriculum": {"rounds": 3, "alpha": alpha}} for alpha in ({"0.3": 0.3}, {}))))
    ccfs = find_method("ccfs")
    assert tables.words_behind(one, ccfs, 0.1) != tables.words_behind(plain, ccfs, 0.1)
    assert tables.words_behind(one, ccfs, 0.1) != tables.words_behind(two, ccfs, 0.1)
    assert row_words({"seed": 0}) == row_words({"seed": 0, "balance": "equal", "whiten": False})


def test_ties_are_not_broken_by_training_only_to_look(shown, tmp_path):
    tied = replace(QUICK, score=replace(QUICK.score, kind="file", path="x.npy", ties="el2n", sort="always"))
    study = Study(tied, Computer(quiet=True), tmp_path)
    assert not tables.is_found_at_once(study, find_method("random"), 0.3)
    assert not tables.is_found_at_once(open_at(tmp_path), find_method("kmeans-real"), 0.3)


def test_fewer_networks_than_are_asked_for_are_not_enough(shown, tmp_path):
    adopt(tmp_path, edit(shown[1], tmp_path / "edited", lambda t: t[t.index % 2 == 0]))
    assert tables.find_adopted(open_at(tmp_path), [("random", 0.3, 0)]) == {}


def test_other_images_are_not_paired(shown, tmp_path):
    adopt(tmp_path, edit(shown[1], tmp_path / "edited", lambda t: t.assign(images="0badbad0")))
    with pytest.raises(InputError, match="adopted rows of Random at 30%, run 0, are of the images 0badbad0"):
        tables.accuracies(open_at(tmp_path))


def test_a_table_that_somebody_edited_is_refused(shown, tmp_path):
    folder = edit(shown[1], tmp_path / "edited", lambda t: t)
    with (folder / "tab1_accuracy.csv").open("a") as file:
        file.write("\n")
    with pytest.raises(InputError, match="is not the table that tab1_accuracy.json is about"):
        adopt(tmp_path, folder)
    assert not (tmp_path / "adopted").exists()                 # none of them was taken


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"files": {}}', '{"profile": 3, "files": {}, "data": {}}'])
def test_a_provenance_that_is_none_is_refused(shown, tmp_path, text):
    folder = edit(shown[1], tmp_path / "edited", lambda t: t)
    (folder / "tab1_accuracy.json").write_text(text)
    with pytest.raises(InputError, match="no provenance of a table"):
        adopt(tmp_path, folder)


def test_the_estimate_leaves_out_what_is_adopted(shown, tmp_path):
    study = open_at(tmp_path)
    assert len(wish_rows(study, QUICK.methods)) == 2 * QUICK.seeds
    adopt(tmp_path, shown[1])
    study = open_at(tmp_path)
    assert wish_rows(study, QUICK.methods) == []
    assert len(wish_rows(study, ["mtt", "random"])) == QUICK.seeds
    lines = expect(study, ["tab1_everything"])[1].splitlines()
    assert not any("slide the window" in line for line in lines)


def test_the_estimate_counts_sets_that_are_looked_at_though_their_rows_are_adopted(shown, tmp_path):
    adopt(tmp_path, edit(shown[1], tmp_path / "edited", as_mtt))
    study = open_at(tmp_path)
    wishes = figures["fig1_coverage"].wants(open_rooms(), study)
    assert {w.judge for w in wishes if w.method.name == "mtt"} == {None}
    assert {w.judge for w in wishes if w.method.name == "selmatch"} == {usual, None}


def test_a_word_that_is_newer_than_the_table_has_its_default():
    words = row_words({"seed": 0, "evaluation": {"n": 2}})
    assert words["evaluation"]["precision"] == "float32"
    assert words == row_words({"seed": 0, "evaluation": {"n": 2, "precision": "float32"}})


def test_the_command_says_what_it_took_and_what_no_longer_fits(shown, tmp_path, monkeypatch):
    monkeypatch.setenv("SELMATCH_HOME", str(tmp_path / "home"))
    run = lambda folder: CliRunner().invoke(cli, ["adopt", str(folder)], catch_exceptions=False)
    said = run(shown[1]).output
    assert f"tab1_accuracy: {len(pd.read_csv(shown[1] / 'tab1_accuracy.csv'))} rows" in said
    assert "not for the profile smoke of this package, which differs: score=" in said
    assert "instead of others" not in run(shown[1]).output
    assert len(list((tmp_path / "home" / "adopted").glob("*/*.csv"))) == 2
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="has no table to adopt"):
        CliRunner().invoke(cli, ["adopt", str(tmp_path / "empty")], catch_exceptions=False, standalone_mode=False)


def test_the_place_of_a_window_that_is_adopted_is_not_searched_for(shown, tmp_path):
    names = ["fig8_starts", "tab5_tuning"]
    scans = lambda study, name: "slide the window" in expect(study, [name])[1]
    assert all(scans(open_at(tmp_path), name) for name in names)
    adopt(tmp_path, shown[1])
    assert not any(scans(open_at(tmp_path), name) for name in names)
    assert scans(open_at(tmp_path), "fig3_window")             # which is about the scan
