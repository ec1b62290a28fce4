"""What pages and help texts promise to whoever runs a command, held where it had been broken."""
import json
import os
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import selmatch as sm
from selmatch import app
from selmatch.care import find_removable
from selmatch.computer import Computer
from selmatch.core import DamagedFile, InputError
from selmatch.distill import loop
from selmatch.study import search, tune
from selmatch.study.profile import load_profile, write_profile
from selmatch.study.study import Study


def run(*words) -> tuple[int, Exception | None]:
    """The exit code of a command and what it raised."""
    from click.testing import CliRunner
    result = CliRunner().invoke(app.cli, [str(word) for word in words])
    return result.exit_code, result.exception


def photographs(root: Path) -> Path:
    """Thirty small pictures of two classes."""
    for part, n in (("train", 12), ("test", 3)):
        for c in "ab":
            folder = root / part / c
            folder.mkdir(parents=True)
            for i in range(n):
                Image.fromarray(np.random.default_rng([i, ord(c), n]).integers(0, 255, (16, 16, 3), "uint8")).save(folder / f"{i}.png")
    return root


def own_profile(folder: Path, text: str = "", **changes) -> Path:
    """The smallest profile as a file, with words of its own in front."""
    file = folder / "mine.yaml"
    write_profile(load_profile("smoke", **changes), file)
    file.write_text(text + file.read_text(encoding="utf-8"), encoding="utf-8")
    return file


@pytest.mark.parametrize("error", [InputError("cannot write x: No space left on device"), DamagedFile("expert x is damaged")], ids=["full disk", "damaged file"])
def test_tuning_takes_only_a_run_that_gave_up_for_a_trial_without_a_score(error, tmp_path, monkeypatch):
    """Every error was recorded as "gave up", and the pick was made among what was left."""
    def fails(*given): raise error
    monkeypatch.setattr(tune, "make_set", fails)
    study = Study(load_profile("smoke"), Computer(quiet=True), tmp_path)
    with pytest.raises(InputError, match=str(error)): tune.tune(study, ["dm"])


def test_a_run_that_diverges_is_a_trial_without_a_score(tmp_path, monkeypatch):
    def fails(task, *given): raise loop.GaveUp("distillation diverged")
    monkeypatch.setattr(tune, "make_set", fails)
    record = tune.tune(Study(load_profile("smoke"), Computer(quiet=True), tmp_path), ["dm"])
    tried = record[record.factor > 0]
    assert len(tried) and tried.score.isna().all() and not record.picked.any()


def test_all_guards_of_a_run_say_that_it_gave_up():
    descent = loop.Descent(iterations=30, evaluate_at=(20,), lr_lr=1.0, start_lr=0.1)
    rows = [{"loss": 1.0, "lr": 0.001, "skipped": True}] * 20
    with pytest.raises(loop.GaveUp): loop.refuse_divergence(rows, descent)
    with pytest.raises(loop.GaveUp): loop.refuse_rate(rows, torch.tensor(0.001), descent)
    pixels = SimpleNamespace(images=torch.tensor([float("nan")]), lr=torch.tensor(.1), logits=None)
    with pytest.raises(loop.GaveUp): loop.refuse_pixels(pixels, 20, descent)


def test_figures_without_a_place_leave_a_strangers_page_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SELMATCH_HOME", str(tmp_path / "home"))
    page = tmp_path / "figures" / "smoke" / "index.html"
    page.parent.mkdir(parents=True)
    page.write_text("my own page")
    code, error = run("figures", "--profile", "smoke", "--only", "fig3_window")
    assert code and isinstance(error, InputError) and "was not written by selmatch" in str(error)
    assert page.read_text() == "my own page" and not (tmp_path / "home").exists()


@pytest.mark.parametrize("name", ["../../mysite", "/tmp/x", "..", "", "a\\b"])
def test_a_profile_cannot_lead_elsewhere_by_its_name(name, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(f"name: {json.dumps(name)}\n{(Path(load_profile.__globals__['profile_folder']) / 'smoke.yaml').read_text(encoding='utf-8')}", encoding="utf-8")
    with pytest.raises(InputError, match="is no name of a profile"): load_profile(file)


@pytest.mark.parametrize("command", [["figures", "--only", "fig3_window"], ["tune", "--only", "dm"]], ids=lambda words: words[0])
def test_no_command_keeps_results_among_the_images(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = photographs(tmp_path / "photos")
    file = own_profile(tmp_path, data={"name": "folder", "root": str(source), "validation": 0.2, "seed": 0})
    monkeypatch.setenv("SELMATCH_HOME", str(source / "store"))
    before = sorted(source.rglob("*"))
    code, error = run(*command, "--profile", file)
    assert code and "lie among the images" in str(error)
    assert sorted(source.rglob("*")) == before


def test_adopted_rows_are_not_cleared_away_by_their_age(tmp_path):
    for room, name in (("adopted", "0123456789abcdef/fig3_window.csv"), ("sets", "one/card.json")):
        file = tmp_path / room / name
        file.parent.mkdir(parents=True)
        file.write_text("{}")
        for place in (file, file.parent): os.utime(place, (0, 0))
    for words in ({"older": 1}, {"unasked": 1}):
        assert not [path for path in find_removable(tmp_path, **words) if "adopted" in path.parts], words


def test_candidates_of_an_online_method_are_judged_under_their_teacher(tmp_path, monkeypatch):
    """They were judged with plain labels: the place that was found was another method's."""
    study = Study(load_profile("smoke"), Computer(quiet=True), tmp_path)
    ratio = study.profile.ratios[0]
    scores = {}
    for name in ("selmatch-dsa", "selmatch-online"):
        tasks = dict(list(search.candidate_tasks(study, ratio, name).items())[:1])
        scores[name] = search.judge_candidates(study, tasks, search.list_rungs(study, search.check_racing(name), ratio)[-1], 1, 0)
    assert not scores["selmatch-dsa"].test_accuracy.equals(scores["selmatch-online"].test_accuracy)
    assert study.at(0).taught is not None and not any(study.left(plan) for plan in study.at(0).teacher_plans()), "teachers were trained"


def test_a_network_of_ones_own_is_probed_before_anything_is_trained(tmp_path, monkeypatch):
    class Forgetful(torch.nn.Module):
        def __init__(self, channels, n_classes, image_size):
            super().__init__()
            self.body = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Dropout(), torch.nn.Linear(channels * image_size**2, n_classes))
        def forward(self, x): return self.body(x)
    data = sm.from_folder(photographs(tmp_path / "photos"), network=Forgetful, results=tmp_path / "results", profile="smoke")
    monkeypatch.setattr("selmatch.study.study.Study.run", lambda *given: pytest.fail("something was computed"))
    with pytest.raises(InputError, match="Forgetful"): sm.distill(data, ratio=0.5)


def test_a_set_is_not_written_beside_the_card_of_another(tmp_path):
    place = tmp_path / "small"
    place.mkdir()
    for name in ("README.md", "set.safetensors", "card.json"): (place / name).write_text("")
    (place / "set.safetensors").unlink()
    (place / "card.json").unlink()
    with pytest.raises(InputError, match="README.md|was not written by selmatch"): app.check_out(place, {"name": "digits"})


def test_rows_that_do_not_name_their_images_are_not_the_same(tmp_path):
    """A gap in the column was one shared NaN, and two rows with gaps were "the same images"."""
    import pandas as pd
    from selmatch.study.verdicts import compare
    rows = [{"method": m, "ratio": 0.1, "set_seed": s, "augmentation": "dsa", "test_accuracy": a + 0.01 * s**2,
             "images": digest} for m, a, digest in (("A", .5, np.nan), ("B", .7, np.nan), ("C", .6, "x")) for s in range(3)]
    table = pd.read_csv(pd.io.common.StringIO(pd.DataFrame(rows).to_csv(index=False)))
    assert compare(table, [("A", "B")]).verdict.tolist() == ["undecided"]


@pytest.mark.parametrize("pairs", [[], [("A", "nobody")]], ids=["none", "no such pair"])
def test_no_question_is_no_crash(pairs):
    import pandas as pd
    from selmatch.study.verdicts import compare
    table = pd.DataFrame({"method": ["A", "A"], "ratio": 0.1, "set_seed": [0, 1], "images": ["x", "y"], "augmentation": "dsa", "test_accuracy": [.5, .6]})
    assert len(compare(table, pairs)) == 0


def test_a_gap_without_scatter_has_no_interval():
    from selmatch.study.verdicts import pair_test
    found = pair_test(np.array([3.0, 3.0, 3.0]))
    assert found["gap"] == 3 and found["p"] == 1 and np.isnan(found["half"])


def test_a_factor_without_a_common_cell_is_refused():
    import pandas as pd
    from selmatch.study.verdicts import main_effect
    table = pd.DataFrame({"start": ["random", "window"], "augmentation": ["dsa", "none"], "ratio": 0.1, "set_seed": 0, "test_accuracy": [.5, .6]})
    with pytest.raises(InputError, match="no cell has both start='window' and start='random'"): main_effect(table, "start", "window", "random", ["augmentation"])


def test_a_test_image_is_found_beside_a_nearer_twin():
    """Only the nearest image, by distance, was looked at: another that is alike in every pixel was missed."""
    from selmatch.api import count_alike
    mine = torch.full((1, 40), 100.0)
    alike, near = mine + 2, mine.clone()
    near[0, 0] += 10
    assert count_alike(mine, alike) == count_alike(mine, torch.cat([alike, near])) == 1
    assert count_alike(mine, near) == 0


def test_a_card_with_one_network_a_set_claims_nothing():
    """A lacking interval counted as one of no width, so that every gap was "more than chance explains"."""
    import pandas as pd
    from selmatch.show.card import say_verdict
    rows = [{"set": name, "number": 0, "recipe": recipe, "seed": 0, "images": 10, "test_accuracy": a, "validation_accuracy": a}
            for name, a in (("window", .61), ("random", .60)) for recipe in ("own", "plain")]
    said = say_verdict(SimpleNamespace(method="window", proof=pd.DataFrame(rows), flips=True))
    assert "+1.0 points" in said and "too few networks" in said and "more than chance explains" not in said and "nan" not in said


def grey(file: Path, shade: int):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((16, 16, 3), shade, "uint8")).save(file)


@pytest.mark.parametrize("beside", [True, False], ids=["another folder of that name inside", "nothing else"])
def test_a_table_beside_the_folder_means_the_folders_files(beside, tmp_path):
    """Names counted from the table, so that pictures of another folder were read, or none."""
    from selmatch.data.folders import list_parts
    for i in range(6):
        grey(tmp_path / "thumbs" / f"{i}.png", 10 * i)
        if beside: grey(tmp_path / "images" / f"{i}.png", 200)
    table = tmp_path / "labels.csv"
    table.write_text("file,label\n" + "".join(f"{i}.png,{'ab'[i % 2]}\n" for i in range(6)))
    parts = list_parts(tmp_path / "thumbs", str(table))[0]
    assert {Path(file).parent.name for part in parts.values() for file, _ in part} == {"thumbs"}


@pytest.mark.parametrize("head", ["file,label", "file,label,subset"])
def test_a_table_above_an_official_split_keeps_it(head, tmp_path):
    from selmatch.data.folders import list_parts
    rows = []
    for split, n in (("train", 4), ("test", 2)):
        for c in "ab":
            for i in range(n):
                grey(tmp_path / split / c / f"{i}.png", i)
                rows.append(f"{split}/{c}/{i}.png,{c}" + f",{split}" * head.endswith("subset"))
    (tmp_path / "labels.csv").write_text("\n".join([head, *rows]))
    parts = list_parts(tmp_path)[0]
    assert {name: len(part) for name, part in parts.items()} == {"train": 8, "test": 4}


def test_classes_called_train_and_test_are_classes(tmp_path):
    from selmatch.data.folders import list_parts
    for c in ("train", "test", "tram"):
        for i in range(3): grey(tmp_path / c / f"{i}.png", i)
    (tmp_path / "labels.csv").write_text("file,label\n" + "".join(f"{c}/{i}.png,{c}\n" for c in ("train", "test", "tram") for i in range(3)))
    assert {name: len(part) for name, part in list_parts(tmp_path)[0].items()} == {"all": 9}


@pytest.mark.parametrize("text", ["ClassId,Name\n0,Speed limit\n1,Stop\n", "id,label\n0,Speed limit\n1,Stop\n"], ids=["names", "ids"])
def test_a_table_that_translates_class_names_does_not_hide_the_classes(text, tmp_path):
    from selmatch.data.folders import list_parts
    for c in "01":
        for i in range(3): grey(tmp_path / c / f"{i}.png", i)
    (tmp_path / "labels.csv").write_text(text)
    parts = list_parts(tmp_path)[0]
    assert sorted({label for part in parts.values() for _, label in part}) == ["0", "1"]


def test_classes_of_one_number_have_an_order_of_their_own():
    from selmatch.data.folders import order_labels
    assert all(order_labels(dict.fromkeys(names)) == ["01", "1", "2", "10"] for names in (("1", "01", "10", "2"), ("10", "2", "01", "1")))
    assert order_labels({"9" * 5000, "1"}) == ["1", "9" * 5000]


def test_files_that_change_places_are_decoded_again(tmp_path):
    """Equal sizes and equal times, as archives leave them: the pixels of before were taken for the files of now."""
    from selmatch.data.folders import name_files
    files = [tmp_path / f"{name}.bmp" for name in "ab"]
    for file, shade in zip(files, (1, 2)):
        Image.fromarray(np.full((8, 8), shade, "uint8")).save(file)
        os.utime(file, (1_600_000_000,) * 2)
    before = name_files(list(map(str, files)), "x", tmp_path)
    files[0].rename(tmp_path / "c.bmp")
    files[1].rename(files[0])
    (tmp_path / "c.bmp").rename(files[1])
    assert name_files(list(map(str, files)), "x", tmp_path) != before


def test_a_class_that_is_taken_whole_does_not_end_the_window_for_all():
    from selmatch.study.shrink import count_windows, last_window
    sizes = SimpleNamespace(small=(2, 2, 2), train=(16, 16, 2))
    assert last_window(sizes) == 1 - 2 / 16 and count_windows(sizes, 0.1) == 9
    assert last_window(SimpleNamespace(small=(2, 2), train=(2, 2))) == 0


def test_a_named_label_file_is_used_or_refused(tmp_path):
    from selmatch.others import read_set
    data = sm.from_folder(photographs(tmp_path / "photos"), profile="smoke", results=tmp_path / "results", size=16)
    images, labels = torch.rand(4, 3, 16, 16), torch.tensor([0, 0, 1, 1])
    torch.save({"images": images, "labels": labels}, tmp_path / "both.pt")
    torch.save(1 - labels, tmp_path / "other.pt")
    assert read_set(tmp_path / "both.pt", data, None, "pixels").labels.tolist() == [0, 0, 1, 1]
    with pytest.raises(InputError, match="holds labels itself"): read_set(tmp_path / "both.pt", data, tmp_path / "other.pt", "pixels")
    with pytest.raises(InputError, match="is a folder"): read_set(tmp_path / "photos" / "train", data, tmp_path / "other.pt")
    for name in "ab": torch.save(images, tmp_path / f"{name}.pt")
    code, error = run("compare", tmp_path / "a.pt", tmp_path / "b.pt", "--data", f"folder:{tmp_path / 'photos'}", "--label-file", tmp_path / "other.pt")
    assert code and "is for one set, and 2 are named" in str(error)


def test_a_set_that_replaces_another_leaves_nothing_that_tells_of_it(tmp_path):
    data = sm.from_folder(photographs(tmp_path / "photos"), profile="smoke", results=tmp_path / "results", size=16)
    place, small = tmp_path / "small", sm.select(data, "random", per_class=2)
    small.save(place)
    (place / "files.csv").write_text("file,original,class,part\nimages/a/0000.png,train/a/3.png,a,kept\n")
    small.save(place)
    assert not (place / "files.csv").exists()
    (place / "files.csv").write_text("my,own\n")
    small.save(place)
    assert (place / "files.csv").read_text() == "my,own\n", "somebody else's"
    (place / "files.csv").unlink()
    (place / "README.md").write_text("# about another")
    with pytest.raises(InputError, match="README.md"): small.save(place)


def test_a_class_name_with_a_bar_stays_in_its_column():
    from selmatch.show.card import tabulate_sizes
    numbers = {name: (1, 1) for name in ("given", "test", "validation", "train", "small")}
    lines = tabulate_sizes(SimpleNamespace(classes=("a|b", "c\nd"), **numbers)).splitlines()
    assert lines[2].startswith("| a\\|b | ") and lines[3].startswith("| c d | ")


@pytest.mark.parametrize("word, value, said", [
    ("root", 5, "data.root=5 is not allowed"), ("root", [1], "data.root=[1]"), ("cache", [1], "cache=[1] is not allowed"), ("name", [1], "unknown dataset [1]"),
    ("classes", [[1]], "classes=[[1]] is not allowed"), ("background", "#ffffff80", "background='#ffffff80' is not allowed"), ("background", "#abc0", "#abc0")])
def test_a_word_of_the_data_that_cannot_be_is_named(word, value, said, tmp_path):
    data = {"name": "folder", "root": str(photographs(tmp_path / "mine"))} | {word: value}
    with pytest.raises(InputError) as error:
        study = Study(load_profile("smoke", data=data), Computer(quiet=True), folder=tmp_path / "home")
        study.splits
    assert said in str(error.value)


def test_coverage_is_measured_once(monkeypatch):
    from selmatch.study import tables
    study = Study(load_profile("smoke"), Computer(quiet=True))
    first, calls = tables.coverages(study, ["random"]), []
    by_hand = [tables.find_covered(small.data, study.at(0)).float().mean().item()
               for task in tables.small_sets(study, ["random"]).values() for small in task.kept()]
    assert first.coverage.tolist() == pytest.approx(by_hand, abs=0)
    monkeypatch.setattr(tables, "is_covered", lambda *args: calls.append(args))
    again = Study(study.profile, study.computer, folder=study.folder)
    assert tables.coverages(again, ["random"]).equals(first) and not calls


# ---------------------------------------------------------------- what a study promises before it works

def own_study(tmp_path, device="cpu", threads=1, home=None, **words):
    computer = Computer(device=device, threads=threads, quiet=True)
    return Study(load_profile("smoke", **({"seeds": 1, "ratios": (0.3,), "alpha": {0.3: 0.5}} | words)), computer, home or tmp_path / "home")


def test_a_judge_of_starts_works_where_the_study_does(tmp_path, monkeypatch):
    from selmatch import computer
    from selmatch.study import sets
    from selmatch.train import judge
    seen = []
    monkeypatch.setattr(computer, "count_devices", lambda kind: 1)
    monkeypatch.setattr(judge, "run_all", lambda task, items, label, there: [seen.append((t.device, there.threads, there.workers)) or {"validation_accuracy": 0.5} for t in items])
    study = own_study(tmp_path, "cuda", 4)
    sets.selection_needs(study, "optimised_real", 0.3, ordered=False)["judge"](study.splits.train.subset(torch.arange(20)))
    assert seen == [("cuda", 4, 1)]


@pytest.mark.parametrize("words, said", [
    ({"objectives": {"trajectory": {"max_start": 30}}}, "objectives.trajectory.max_start=30 is too late"),
    ({"tuned": {"mtt": {"expert_epochs": 40}}}, "tuned.mtt.max_start"),
    ({"objectives": {"tesla": {"max_start": {0.3: 30}}}}, "objectives.tesla.max_start=30")])
def test_experts_must_last_for_every_objective(words, said):
    with pytest.raises(InputError) as error: load_profile("smoke", ratios=(0.3,), alpha={0.3: 0.5}, **words)
    assert said in str(error.value) and "experts.epochs" in str(error.value)


def test_experts_keep_what_any_objective_asks_for():
    from selmatch.study.profile import asked_epochs
    p = load_profile("smoke", ratios=(0.1, 0.3), alpha={0.1: 0.5, 0.3: 0.5}, matching={"max_start": 2, "expert_epochs": 1}, experts={"n": 1, "epochs": 9},
                     objectives={"trajectory": {"max_start": {0.1: 2, 0.3: 4}}}, tuned={"mtt": {"expert_epochs": 3}})
    by_hand = {0, 1, 2} | {0, 1, 2, 3, 4} | {0, 3, 1, 4, 2, 5, 6}
    assert asked_epochs(p) == tuple(sorted(by_hand))


def test_the_bill_has_the_networks_that_tell_who_is_easy(tmp_path, monkeypatch):
    """A search of a profile whose difficulty lies in a file watches networks for the judges' sake alone."""
    from selmatch.study import estimate
    monkeypatch.setenv("SELMATCH_DATA", str(tmp_path))
    n = len(own_study(tmp_path).splits.train)
    np.save(tmp_path / "d.npy", np.random.default_rng(0).random(n))
    study = own_study(tmp_path, score={"kind": "file", "path": "d.npy", "file_kind": "difficulty", "runs": 2, "epochs": 2}, search={"alphas": (0.5,), "betas_step": 0.7, "rungs": (2, 4), "judges": 1, "ratios": (0.3,)})
    tasks = {part.stage: part.tasks for part in estimate.command_parts(study, "search", "selmatch")}
    assert tasks["watch networks learn"] == len(study.observations_plan()) > 0


def test_ccfs_is_a_set_of_its_own_in_the_bill(tmp_path):
    from selmatch.methods import find_method
    from selmatch.study import estimate, tables
    study = own_study(tmp_path, compared=("random", "random-online", "ccfs"))
    both = [find_method("ccfs"), tables.ablation_rows()["random", "part", "dsa"]]
    parts = estimate.set_parts(estimate.Prices(study), estimate.wish(study, both))
    assert sum(part.tasks for part in parts) == 2, "a base of some images, and a part of all"
    still = own_study(tmp_path, compared=("random", "random-online", "ccfs"), alpha={0.3: 0.0})
    assert [part.tasks for part in estimate.set_parts(estimate.Prices(still), estimate.wish(still, ["ccfs"]))] == [1]


@pytest.mark.parametrize("share", [0.0, 0.001])
def test_a_size_that_distils_nothing_is_not_tuned(share, tmp_path):
    study = own_study(tmp_path, alpha={0.3: share}, methods=("random", "selmatch"), compared=("random", "selmatch"))
    for call in (tune.tuning_stages, tune.tune):
        with pytest.raises(InputError, match=f"alpha={share} distils no image of 'selmatch' at 30%.*tuning.ratios"): call(study, ["selmatch"])
    assert not list((tmp_path / "home").glob("experts/*"))


def test_a_candidate_of_no_image_is_no_candidate_to_distil(tmp_path):
    from selmatch.study import estimate
    study = own_study(tmp_path, search={"alphas": (0.01,), "betas_step": 0.7, "rungs": (2, 4), "judges": 1, "ratios": (0.3,)})
    parts = estimate.race_parts(estimate.Prices(study), "selmatch", [0.3], grid=False)
    assert [(part.tasks, part.left) for part in parts if part.stage.startswith("distill")] == [(0, 0)]


def test_a_step_that_gave_up_at_one_size_is_crossed_out():
    import pandas as pd
    from matplotlib import pyplot as plt
    from selmatch.show.plots import tuning_map
    rows = []
    for ratio, start in ((0.05, 0.60), (0.3, 0.95)):
        rows.append((ratio, 0.0, 0.0, start))
        rows += [(ratio, 1.0, 1.0, start + 0.01), (ratio, 10.0, 1.0, float("nan") if ratio == 0.05 else 0.80)]
    record = pd.DataFrame(rows, columns=["ratio", "factor", "share", "score"]).assign(method="dm", error=0.01)
    figure = tuning_map(tune.mark_picks(record))
    assert [text.get_text() for text in figure.axes[0].texts] == ["+1.0"]
    plt.close(figure)


def test_a_tuning_that_took_its_window_from_a_table_says_so(tmp_path):
    import matplotlib.pyplot as plt
    from selmatch.show.figures import publish
    from selmatch.study import tables
    from selmatch.study.store import adopt
    words = dict(methods=("random", "selmatch"), compared=("random", "selmatch"), tuning={"factors": (1.0,), "judges": 1}, window={"n": 1, "step": 0.35})
    first = own_study(tmp_path, **words)
    publish("fig3_window", plt.figure(), tables.windows(first), first, "c", tmp_path / "out")
    adopt(tmp_path / "other", tmp_path / "out")
    study = own_study(tmp_path, home=tmp_path / "other", **words)
    tune.tune(study, ["selmatch"])
    assert study.lent == {"fig3_window"} and study.left(study.windows_plan()) == len(study.windows_plan())


def test_a_set_that_is_made_again_keeps_its_checkpoint(tmp_path, monkeypatch):
    """Its history is of before: who begins meanwhile must not take the set for finished."""
    from selmatch.study import sets, store
    study = own_study(tmp_path)
    task = sets.small_sets(study, ["mtt"], [0.3], 1)["mtt", 0.3, 0]
    first, last = task.last().data.images, task.at(task.stops[-1]) / "set.safetensors"
    last.write_bytes(last.read_bytes()[:-9])
    seen, keep = [], sets.keep_set
    def look(*given):
        store.sweep_once.cache_clear()
        (task.folder / "checkpoint.safetensors").touch()
        store.sweep_once(study.folder)
        seen.append((task.folder / "checkpoint.safetensors").exists())
        (task.folder / "checkpoint.safetensors").unlink()
        return keep(*given)
    monkeypatch.setattr(sets, "keep_set", look)
    with pytest.warns(UserWarning, match="is set aside"):
        sets.make_set(task)
    assert seen and all(seen) and torch.equal(task.last().data.images, first)


def test_what_a_profile_writes_it_reads_back(tmp_path):
    from selmatch.study.profile import parse_yaml, write_yaml
    for text in ("1e5", "12e4", "0o17", "1:30", "yes", "true", "0x1f", "null", "~", "1.5", "1_000", "2024-01-01", "", "a: b", ".5", "-.inf"):
        assert parse_yaml(write_yaml({"k": [text], text: 1})) == {"k": [text], text: 1}
    for number in (1, 1.5, 1e-5, 1e30, float("inf"), True, None, -3, 100000.0):
        back = parse_yaml(write_yaml({"k": number}))["k"]
        assert back == number and type(back) is type(number)
    p = load_profile("smoke", title="1e5")
    write_profile(p, tmp_path / "x.yaml")
    assert load_profile(str(tmp_path / "x.yaml")).title == "1e5"


def test_a_lock_is_removed_while_it_is_held(tmp_path, monkeypatch):
    """Between the look at a free lock and its removal somebody may take it: it is taken first."""
    from selmatch import computer
    lock = tmp_path / ".x.lock"
    lock.touch()
    found = computer.find_litter(tmp_path)
    assert found == [lock]
    monkeypatch.setattr(computer, "find_litter", lambda *given: found)
    with computer.claim(tmp_path / "x"):
        computer.sweep_litter(tmp_path)
        assert lock.exists(), "it is somebody's by now"
    computer.sweep_litter(tmp_path)
    assert not lock.exists()


def test_shrinking_counts_what_find_small_does(tmp_path):
    """The distilled set is judged once more, from its pictures, by both recipes; a C-score asks networks that leave images out."""
    from selmatch.study import shrink
    study = own_study(tmp_path)
    parts = study.splits
    count = lambda part: tuple(torch.bincount(part.hard_labels, minlength=part.n_classes).tolist())
    sizes = shrink.Sizes(parts.train.classes, count(parts.train), count(parts.train), count(parts.validation), count(parts.test), (3,) * parts.train.n_classes)
    distils, idle = (shrink.plan_stages(study, sizes, effort, True).set_index("stage").tasks for effort in (shrink.efforts[0], shrink.efforts[-1]))
    networks = shrink.efforts[0].networks
    assert distils["judge its pictures"] == 2 * networks and "judge its pictures" not in idle and "C-score" not in idle
    held = own_study(tmp_path, score={"kind": "c_score", "runs": 1, "epochs": 2, "ties": None})
    assert "C-score" in set(shrink.plan_stages(held, sizes, shrink.efforts[-1], True).stage)


def test_what_trials_start_from_is_made_side_by_side(tmp_path, monkeypatch):
    """Experts, proxies and searches of all families are asked of the computer at once, and not one family after the other."""
    words = dict(methods=("random", "selmatch"), compared=("random", "selmatch"), tuning={"factors": (1.0,), "judges": 1}, window={"n": 1, "step": 0.35})
    asked, run = [], Study.run
    def note(study, plan, computer=None):
        asked.append((plan.label, computer is None, study.left(plan)))
        return run(study, plan, computer)
    monkeypatch.setattr(Study, "run", note)
    tune.tune(own_study(tmp_path, **words), ["selmatch-gradmatch", "selmatch-dual"])
    alone = [label for label, is_shared, left in asked if left and not is_shared]
    together = [label for label, is_shared, left in asked if left and is_shared]
    assert not alone and {"train experts", "proxy", "record dynamics", "tune", "judge trials"} <= set(together), (alone, together)


@pytest.mark.parametrize("score", [{"kind": "c_score", "runs": 1, "epochs": 2, "ties": None}])
def test_a_score_by_held_out_networks_says_how_many_images_it_needs(score, tmp_path):
    study = own_study(tmp_path, data={"name": "digits", "per_class": 4}, score=score)
    least = min(study.splits.train.hard_labels.bincount().tolist())
    assert least < 4
    with pytest.raises(InputError, match=f"C-score leaves out 4 parts.* {least} training image"): study.c_score_plan()


def test_dual_says_how_many_epochs_it_needs(tmp_path):
    from selmatch.study import sets
    study = own_study(tmp_path, score={"kind": "forgetting", "runs": 1, "epochs": 1})
    with pytest.raises(InputError, match="score.epochs .*=1 is not allowed.*2"): sets.selection_needs(study, "dual", 0.3)


# ---------------------------------------------------------------- float32 on a GPU

@pytest.fixture
def said(monkeypatch):
    """How products were asked to be taken, and where: on a GPU nothing else would tell that a network rounded to TF32."""
    import contextlib
    from selmatch.distill import loop as distilling, trajectories
    from selmatch.select import coresets, coverage
    from selmatch.study import estimate, tables
    inside, seen = [], []
    @contextlib.contextmanager
    def note(precision, device="cuda"):
        inside.append(precision)
        try:
            yield
        finally:
            inside.pop()
    for room in (distilling, trajectories, coresets, coverage, estimate, tables):
        monkeypatch.setattr(room, "arithmetic", note)
    plain = torch.nn.functional.conv2d
    def look(*given, **words):
        seen.append(inside[-1] if inside else None)
        return plain(*given, **words)
    monkeypatch.setattr(torch.nn.functional, "conv2d", look)
    convolve = torch.nn.Conv2d._conv_forward
    def layer(self, *given):
        seen.append(inside[-1] if inside else None)
        return convolve(self, *given)
    monkeypatch.setattr(torch.nn.Conv2d, "_conv_forward", layer)
    return seen


SMALL_NET = {"name": "ConvNet", "width": 4, "depth": 1}


def few_images(n=12):
    from selmatch.data.images import ImageSet
    return ImageSet(torch.randn(n, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(n) % 3, tuple("abc"), (0.5,), (0.5,))


@pytest.mark.parametrize("name", ["dm", "dc", "dsa", "dd", "frepo"])
def test_an_objective_asks_its_networks_in_float32(name, said):
    from selmatch.distill.sets import SyntheticSet
    from selmatch.methods import load_registers
    data = few_images(60)
    kind = load_registers()["objective"][name]
    given = {"network": SMALL_NET | ({"norm": kind.norm} if kind.norm else {}), "train": data}
    start = SyntheticSet(data, torch.ones(len(data), dtype=torch.bool))
    loop.distill(start, kind(**{need: given[need] for need in ("network", "train") if need in kind.__dataclass_fields__}), loop.Descent(1, 0.1), 0, quiet=True)
    assert said and set(said) == {"float32"}, name


def test_selections_ask_their_networks_in_float32(said):
    from selmatch.select.coresets import gather
    from selmatch.select.coverage import features
    from selmatch.train.networks import make_network
    data = few_images()
    net = make_network(SMALL_NET, data.shape, 3, 0)
    gather(net, data), features(net, data.images)
    assert said and set(said) == {"float32"}


def test_prices_of_walks_are_those_of_float32_and_their_rows_on_the_device(said, monkeypatch):
    from selmatch.study import estimate
    from selmatch.train.augment import Augmentation
    placed, place = [], estimate.place_steps
    monkeypatch.setattr(estimate, "place_steps", lambda steps, device: placed.append(device) or place(steps, device))
    estimate.walk_seconds(few_images(), SMALL_NET, 4, Augmentation("none"))
    estimate.sweep_seconds(few_images(), SMALL_NET, 4, Augmentation("none"))
    assert said and set(said) == {"float32"} and placed


def test_another_switch_of_tf32_is_named():
    """PyTorch refuses to read the old switch once the new one was set: in a process of its own."""
    import subprocess
    import sys
    code = ("import torch; from selmatch.train.training import arithmetic\n"
            "torch.backends.cuda.matmul.fp32_precision = 'tf32'\n"
            "with arithmetic('float32', 'cuda'): pass")
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    if not hasattr(torch.backends.cuda.matmul, "fp32_precision"):
        pytest.skip("this PyTorch has one switch")
    assert "InputError: this program has set fp32_precision" in out.stderr


@pytest.mark.parametrize("takes, moves", [([30, 2], True), ([4, 2], False)])
def test_a_size_is_tuned_where_some_class_moves(takes, moves, tmp_path, monkeypatch):
    """Classes of uneven sizes: a share that is no image of the typical class may be one of a large class."""
    from selmatch.study import sets
    study = own_study(tmp_path, alpha={0.3: 0.05})
    monkeypatch.setattr(Study, "take", lambda self, ratio: takes)
    assert sets.distils_some(study, 0.3, 0.05) is moves
    assert bool(sum(sets.count_distilled(takes, 0.05))) is moves
