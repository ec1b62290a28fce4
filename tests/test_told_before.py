"""What is said before work begins has to be what the work is: plans and bills of sets in which nothing moves, places that may not be written, words that are refused in the user's own."""
import pandas as pd
import pytest
import torch
from types import SimpleNamespace

import selmatch as sm
from conftest import draw, refuses
from selmatch import app
from selmatch.computer import Computer, check_device, choose_device
from selmatch.core import InputError, check_choice
from selmatch.data.loaders import say_short
from selmatch.methods import find_method
from selmatch.others import find_labels, read_torch_file
from selmatch.study import estimate, sets, shrink
from selmatch.study.profile import load_profile
from selmatch.study.study import Study, check_apart, find_data, list_sources

QUICK = {"network.width": 4, "network.depth": 1, "score.epochs": 1, "score.runs": 1, "evaluation.n": 1, "evaluation.steps": 3, "window.n": 1, "window.step": 0.4, "experts.n": 1}


def small_study(tmp_path, **words):
    p = load_profile("smoke", ratios=[0.1], alpha={0.1: 0.04}, seeds=1, **words)
    return Study(p, Computer(quiet=True), tmp_path)


# ---------------------------------------------------------------- nothing moves

def test_a_share_that_is_no_image_is_in_no_bill(tmp_path):
    study = small_study(tmp_path)
    method = find_method("selmatch")
    assert not sets.moves_some(study, method, 0.1)
    table = estimate.tabulate_parts(estimate.command_parts(study, "distill", "selmatch"))
    assert not table.stage.str.contains("distill|experts").any(), table.stage.tolist()
    moved = small_study(tmp_path).with_profile(load_profile("smoke", ratios=[0.1], alpha={0.1: 0.5}, seeds=1))
    assert sets.moves_some(moved, method, 0.1)
    stages = estimate.tabulate_parts(estimate.command_parts(moved, "distill", "selmatch")).stage
    assert stages.str.contains("distill").any() and stages.str.contains("experts").any()


def test_an_estimate_says_that_nothing_would_move(tmp_path, capsys):
    study = small_study(tmp_path)
    for what, method, said in (("distill", "selmatch", True), ("distill", "mtt", False), ("distill", "window", False), ("select", "window", False)):
        app.say_unmoved(study, what, method)
        assert ("note: 0.04 of 4 images a class rounds to none" in capsys.readouterr().out) is said, (what, method)


def test_what_the_command_refuses_its_estimate_refuses(tmp_path):
    """One epoch tells nobody how an image is learnt: a bill was given, and the command then failed."""
    study = small_study(tmp_path, score={**vars(load_profile("smoke").score), "epochs": 1})
    refuses(lambda: estimate.tabulate_parts(estimate.command_parts(study, "select", "dual")), "score.epochs (to see images being learnt)=1", "2")


def test_what_moves_is_asked_in_one_way(tmp_path):
    """Of methods that distil nothing, of a base that is completed, and of a share of nothing."""
    study = small_study(tmp_path)
    assert not sets.moves_some(study, find_method("window"), 0.1)
    assert sets.moves_some(study, find_method("ccfs"), 0.1)
    assert sets.moves_some(study, find_method("mtt"), 0.1)


def test_a_share_of_nothing_says_how_many_images_would_do():
    said = sets.say_rounding(0.2, [2, 2, 2])
    assert said == "0.2 of 2 images a class rounds to none: nothing is distilled (3 a class would be enough)"
    assert sets.count_distilled([3], 0.2) == [1] and sets.count_distilled([2], 0.2) == [0]
    assert sets.say_rounding(0.5, [1]).endswith("(2 a class would be enough)") and sets.count_distilled([2, 1], 0.5) == [1, 0]
    assert sets.say_rounding(0.01, [9]).endswith("(51 a class would be enough)") and sets.count_distilled([50, 51], 0.01) == [0, 1]
    assert "1 to 2 images" in sets.say_rounding(0.2, [1, 2])
    assert "would be enough" not in sets.say_rounding(0.0, [2])


def test_shrink_judges_no_distilled_set_in_which_nothing_moves(tmp_path):
    """The window's own images stood as `SelMatch (part distilled)`, and their scatter as a gain."""
    folder = draw(tmp_path / "mine", n=11)
    said = []
    found = shrink_folder(folder, tmp_path / "small", said)
    assert found.method in ("window", "random")
    assert not found.effort.distils and "selmatch" not in set(found.proof["set"])
    text = "\n".join(said)
    assert "rounds to none: nothing is distilled" in text and "larger budget" not in text
    assert "train experts" not in text and "distilling gains" not in text


def shrink_folder(folder, out, said, **words):
    from selmatch.show.card import shrink as shrink_images
    return shrink_images(folder, out, size=8, words=QUICK, flips=False, workers=1, tell=said.append, **{"ratio": 0.1, **words})


# ---------------------------------------------------------------- time

def bill(*rows):
    return pd.DataFrame([{"stage": stage, "tasks": left, "left": left, "each": each, "seconds": left * each} for stage, left, each in rows],
                        columns=["stage", "tasks", "left", "each", "seconds"])


@pytest.mark.parametrize("rows, workers, wall", [
    ([("evaluate", 1, 100.0)], 2, 100.0),
    ([("evaluate", 4, 10.0)], 2, 20.0),
    ([("train experts", 1, 60.0), ("distill A, 5%", 1, 40.0)], 2, 100.0),
    ([("distill A, 5%", 1, 40.0), ("distill B, 5%", 1, 40.0)], 2, 40.0),
    ([("tune A, 5%", 3, 40.0), ("tune B, 5%", 3, 40.0)], 4, 60.0),
    ([("evaluate", 0, 0.0)], 2, 0.0),
    ([], 2, 0.0)])
def test_one_task_is_not_halved(rows, workers, wall):
    assert estimate.wall_seconds(bill(*rows), SimpleNamespace(computer=Computer(workers=workers))) == wall


@pytest.mark.parametrize("workers", [1, 2])
def test_iterations_that_fit_do_not_depend_on_idle_workers(workers, monkeypatch):
    """Two workers were promised ten times the iterations of one, on the same single set."""
    study = SimpleNamespace(computer=Computer(workers=workers))
    asked = []
    monkeypatch.setattr(app, "make_study", lambda **options: asked.append(options) or study)
    monkeypatch.setattr(app, "list_stages", lambda *given: [])
    monkeypatch.setattr(estimate, "check_disk", lambda *given: None)
    monkeypatch.setattr(estimate, "tabulate_parts", lambda parts: bill(("train experts", 1, 20.0), ("distill A, 5%", 1, 100.0)))
    monkeypatch.setattr(app, "longest_run", lambda *given: 1000)
    app.begin("distill", {"estimate": False, "minutes": "70s"}, "dm")
    assert asked[-1]["iterations"] == 500


# ---------------------------------------------------------------- places

def test_a_set_is_not_written_into_what_is_imported(tmp_path, say):
    """It became a class of the folder that was read."""
    theirs, data = draw(tmp_path / "theirs", n=2), draw(tmp_path / "mine", n=12)
    before = sorted(theirs.rglob("*"))
    code, _, errors = say("import", theirs, "--data", f"folder:{data}", "--size", 8, "--out", theirs / "new")
    assert code == 2 and "lies in" in errors and str(theirs) in errors
    assert sorted(theirs.rglob("*")) == before


def test_a_set_is_not_written_among_what_a_table_names(tmp_path):
    pictures, table = draw(tmp_path / "outside" / "images", n=4), tmp_path / "outside" / "labels.csv"
    files = sorted(pictures.rglob("*.png"))
    table.write_text("file,label\n" + "".join(f"{f.relative_to(table.parent)},{f.parent.name}\n" for f in files))
    (tmp_path / "root").mkdir()
    data = {"name": "folder", "root": str(tmp_path / "root"), "labels": str(table)}
    assert {f.resolve().parent for f in files} <= set(list_sources(data))
    refuses(lambda: check_apart(files[0].parent / "small", data), "lies in", "where the images come from")
    check_apart(tmp_path / "small", data)


# ---------------------------------------------------------------- words

def test_a_folder_that_is_not_there_is_named_once(tmp_path):
    gone = str(tmp_path / "nope")
    refuses(lambda: find_data("data.root", gone), f"data.root='{gone}' does not exist", without=["SELMATCH_DATA", "is not there"])
    refuses(lambda: find_data("data.root", "nope"), "SELMATCH_DATA")


def test_sizes_that_contradict_each_other_are_refused_unread(tmp_path):
    refuses(lambda: shrink_folder(tmp_path / "nowhere", tmp_path / "small", [], number=5), "ratio and images contradict each other")


def test_images_for_each_class(tmp_path):
    study = small_study(tmp_path)
    refuses(lambda: shrink.count_small(study.splits, images=3), "images=3 are too few: each of 10 classes needs one")


def test_shares_are_blamed_where_they_are_at_fault():
    said = say_short("ant", 16, {"test": 0, "validation": 0.2})
    assert said.startswith("test=0, validation=0.2 leave no class an image") and "ant" not in said


def test_devices_are_listed_as_they_may_be_given():
    refuses(lambda: choose_device("gpu"), "'gpu'", "auto", "cuda:N")
    refuses(lambda: check_device("gpu:1"), "gpu:1")
    refuses(lambda: check_choice("thing", 1, []), "unknown thing 1: there is none to choose", without=["choose one of"])


def test_a_profile_says_all_that_it_lacks():
    from selmatch.study.profile import Profile, read_section
    refuses(lambda: read_section({}, Profile), "profile is incomplete: it needs", "network", "data")


def test_labels_of_a_file_beside_are_blamed_by_its_name(tmp_path):
    torch.save(torch.zeros(4), tmp_path / "mine.pt")
    labels, source = find_labels(tmp_path / "images_best.pt", tmp_path / "mine.pt")
    assert source == tmp_path / "mine.pt" and labels.tolist() == [0, 0, 0, 0]


def test_a_picture_is_no_file_of_tensors(tmp_path):
    picture = next(draw(tmp_path / "mine", n=1).rglob("*.png"))
    refuses(lambda: read_torch_file(picture), "cannot read", "no file of torch.save", without=["weights_only", "PyTorch 2.6"])


def test_a_set_of_other_data_says_what_to_give(tmp_path):
    from selmatch.api import check_small
    other = SimpleNamespace(splits=small_study(tmp_path).splits)
    data = sm.from_arrays(torch.rand(40, 3, 8, 8), torch.arange(40) % 2, results=tmp_path, quiet=True, workers=1)
    small = sm.select(data, "random", per_class=1)
    refuses(lambda: check_small(small, other), "they must agree", "--data", "--size")


def test_coverage_names_what_it_takes(tmp_path, say):
    code, _, errors = say("coverage", draw(tmp_path / "mine", n=1))
    assert code == 2 and "no folder that select, distill, shrink or import wrote" in errors and "safetensors" not in errors
