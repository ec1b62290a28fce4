"""The profiles that come with the package: whole, honest about their data, and refused in one line where it is missing; whitening; the estimate."""
import json
import shutil
from dataclasses import fields, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml

from selmatch.study import sets, tables
from selmatch.app import read_given_set, main, write_set
from selmatch.show.figures import expect
from selmatch.core import InputError
from selmatch.data.images import ImageSet, pictures
from selmatch.data.loaders import load_digits, load_folder
from selmatch.data.export import save_folder
from selmatch.distill.sets import load_set
from selmatch.methods import find_method, methods
from selmatch.study.estimate import costs, estimate_flops, memory, wall_seconds
from selmatch.train.networks import make_network
from selmatch.show.published import beside_published, published_accuracies, published_data
from selmatch.study.profile import Profile, list_profiles, load_profile, profile_folder, read_section
from selmatch.study.study import Study
from selmatch.computer import Computer
from selmatch.data.whitening import fit_whitening, whitening_mark
from test_input import profile, refuses

QUIET = Computer(quiet=True)


@pytest.mark.parametrize("name", list_profiles())
def test_every_profile_is_whole(name):
    p = load_profile(name)
    assert set(p.alpha) == set(p.ratios)
    assert p.window.choose_on == "validation"
    assert p.data.get("validation", 0.2) > 0
    shape, classes = {"digits": ((1, 8, 8), 10), "tinyimagenet": ((3, 64, 64), 200), "cifar100": ((3, 32, 32), 100)}.get(p.data["name"], ((3, 32, 32), 10))
    for network in (p.network, p.evaluation.network or p.network, *(words["network"] for words in p.objectives.values() if "network" in words)):
        with torch.device("meta"): assert make_network(network, shape, classes, 0)(torch.empty(2, *shape)).shape == (2, classes)
    if p.published_as in published_data:
        assert p.differs
        assert {"Random", "Best window", "MTT", "SelMatch"} <= set(published_accuracies(p.published_as).query("ratio in @p.ratios").method)
        assert {"random", "window", "mtt", "dm", "selmatch"} <= set(p.methods)


@pytest.mark.parametrize("name, classes", [("cifar10", 10), ("cifar100", 100), ("tinyimagenet", 200)])
def test_the_papers_settings(name, classes):
    p, per_class = load_profile(name), {"cifar10": 5000}.get(name, 500)
    epochs = {250: 1000, 500: 500, 1000: 250, 1500: 167} if name == "cifar10" else {25: 1000, 50: 500, 100: 250, 150: 167} if name == "cifar100" else {50: 500, 100: 250}
    for ipc, n in epochs.items(): assert abs(n * ipc * classes / p.evaluation.batch / p.evaluation.steps - 1) < 0.01      # the paper's epochs, in steps
    assert [round(r * per_class) for r in p.ratios] == list(epochs)
    assert set(p.window.beta) == set(p.ratios)
    assert (p.experts.n, p.experts.epochs, p.matching.iterations, p.matching.n_steps) == (100, 100, 10_000, 20 if name == "tinyimagenet" else 55)
    assert len({0, *p.matching.evaluate_at, p.matching.iterations}) == 7
    assert p.evaluation.network["name"] == "ResNet18"
    assert p.network["depth"] == (4 if name == "tinyimagenet" else 3)


def test_jpeg_is_compared_with_what_was_published_on_cifar10():
    p = load_profile("cifar10-jpeg-lite")
    import pandas as pd
    table = pd.DataFrame([{"method": m, "ratio": 0.05, "ipc": 225, "set_seed": s, "test_accuracy": a} for m, a in (("Random", 0.5), ("SelMatch", 0.6)) for s in (0, 1)])
    first, block = next(iter(beside_published(table, p.published_as).items()))
    assert "CIFAR-10" in first
    assert "gap" in first
    assert block["5%"].loc["SelMatch", "gap"] == pytest.approx(60 - 82.8)


@pytest.mark.parametrize("name, words", [("cifar10", ["SELMATCH_DATA", "cifar10-cscores-orig-order.npz"]), ("cifar100", ["cifar100-cscores-orig-order.npz"]), ("tinyimagenet", ["forgetting_Tiny.npy", "selmatch fetch tinyimagenet"]),
                                         ("cifar10-jpeg", ["SELMATCH_DATA", "score.path"]), ("cifar10-jpeg-lite", ["score.path"])])
def test_missing_data_is_named_before_work(name, words, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SELMATCH_DATA", str(tmp_path)); monkeypatch.setenv("SELMATCH_HOME", str(tmp_path / "home"))
    for command in (f"figures --profile {name}", f"figures --profile {name} --estimate", f"experts --profile {name}"):
        with pytest.raises(SystemExit) as stop: main(command.split())
        said = capsys.readouterr().err
        assert stop.value.code == 2, said
        assert said.count("\n") == 1, said
        assert all(word in said for word in words), said
        assert str(tmp_path) in said, said
    assert not (tmp_path / "home").exists()


@pytest.fixture
def photographs(tmp_path, monkeypatch):
    """A folder of digits named by a relative path, with a score file in another order; and the profile's words."""
    digits = load_digits(per_class=40, validation=0)
    for part in ("train", "test"): save_folder(getattr(digits, part), tmp_path / "mine" / part)
    monkeypatch.setenv("SELMATCH_DATA", str(tmp_path)); monkeypatch.setenv("SELMATCH_HOME", str(tmp_path / "home"))
    n = len(digits.train)
    order = np.random.default_rng(0).permutation(n)
    np.savez(tmp_path / "scores.npz", easy=np.linspace(0, 1, n)[np.argsort(order)], order=order)
    return digits, {"data": {"name": "folder", "root": "mine", "mode": "L"}, "score": {"kind": "file", "path": "scores.npz", "file_kind": "c_score", "key": "easy", "order": "order", "runs": 1, "epochs": 1}}


def test_relative_paths_count_from_the_data_folder(photographs, tmp_path, monkeypatch):
    digits, words = photographs
    study = Study(profile(**words), QUIET, tmp_path / "home")
    assert study.splits.train.shape == (1, 8, 8)
    assert torch.allclose(study.difficulty, 1 - torch.linspace(0, 1, len(digits.train)).double()[study.splits.rows], atol=1e-6)
    monkeypatch.chdir(tmp_path)
    assert Study(profile(**words), QUIET, tmp_path / "home").splits.train.key == study.splits.train.key      # whatever the current folder is
    (tmp_path / "scores.npz").rename(tmp_path / "other.npz"); shutil.rmtree(tmp_path / "home")
    with refuses("score.path='scores.npz'", tmp_path / "scores.npz", "SELMATCH_DATA"): Study(profile(**words), QUIET, tmp_path / "home").splits
    assert not (tmp_path / "home").exists(), "images were decoded"
    np.savez(tmp_path / "scores.npz", easy=np.zeros(7))
    with refuses("scores.npz", "(7,)"): Study(profile(**words | {"score": words["score"] | {"order": "as_loaded"}}), QUIET, tmp_path / "home").splits
    with refuses("data.root='yours'", tmp_path / "yours"): Study(profile(data={"name": "folder", "root": "yours"}), QUIET, tmp_path / "home").splits


@pytest.mark.parametrize("name", [pytest.param("cifar10-jpeg", marks=pytest.mark.slow), "cifar10-jpeg-lite"])
def test_jpeg_profiles_run_at_a_tiny_scale(name, tmp_path, monkeypatch):
    """Their own networks, methods and file of scores, on forty made-up photographs a class, a few steps of everything."""
    values, generator, k = yaml.safe_load((profile_folder / f"{name}.yaml").read_text()), torch.Generator().manual_seed(0), 10
    photo = lambda n: ImageSet(torch.randn(k * n, 3, 32, 32, generator=generator), torch.arange(k).repeat_interleave(n), tuple(f"class {c}" for c in range(k)), (0.5,) * 3, (0.25,) * 3, "photographs")
    for part, n in (("train", 40), ("test", 4)): save_folder(photo(n), tmp_path / "cifar10" / part)
    order = np.random.default_rng(0).permutation(40 * k)
    labels = np.empty(40 * k, int); labels[order] = np.arange(40 * k) // 40
    np.savez(tmp_path / "cifar10_scores.npz", c_score=np.random.default_rng(1).random(40 * k), labels=labels, folder_order=order)
    monkeypatch.setenv("SELMATCH_DATA", str(tmp_path))
    few = {"score": {"runs": 1, "epochs": 1, "compile": "no"}, "evaluation": {"n": 1, "steps": 1, "epochs": 0, "batch": 8, "compile": "no"}, "window": {"n": 1, "step": 0.5, "beta": None}, "experts": {"n": 1, "epochs": 2, "compile": "no"},
           "matching": {"iterations": 2, "n_steps": 2, "expert_epochs": 1, "max_start": 1, "batch": 4, "evaluate_at": [1], "compile": "no"}}
    small = values | {"name": name, "ratios": [0.1], "alpha": {0.1: 0.5}, "seeds": 1, "objectives": {"dm": values["objectives"]["dm"] | {"batch_real": 8, "iterations": 2}}} | {key: values[key] | words for key, words in few.items()}
    study = Study(read_section(small, Profile), QUIET, tmp_path / "home")
    assert study.judge_network["name"] == ("ResNet18" if name == "cifar10-jpeg" else "ConvNet")
    assert study.splits.train.shape == (3, 32, 32)
    table = tables.accuracies(study)
    assert set(table.method) == {find_method(m).title for m in values["methods"]}
    assert table.test_accuracy.between(0, 1).all()
    assert len(tables.coverages(study, ["random", "mtt"])) == 4


def test_a_whitened_study_writes_pictures_and_keeps_numbers(tmp_path, capsys):
    plain, study = (Study(profile(whiten=w, ratios=[0.1], alpha={0.1: 0.5}, search={}, seeds=1), QUIET, tmp_path / "home") for w in (False, True))
    assert study.splits.train.mean == whitening_mark
    assert study.splits.train.key != plain.splits.train.key
    for part in ("train", "validation", "test"):
        assert torch.allclose(study.as_pictures(getattr(study.splits, part)).images, getattr(plain.splits, part).images, atol=1e-3)
    write_set("selmatch", study, 0.1, tmp_path / "small")
    small = load_set(tmp_path / "small")
    assert read_given_set(tmp_path / "small", study)
    assert small.data.mean == whitening_mark
    assert json.loads((tmp_path / "small" / "card.json").read_text())["whitened"]
    with refuses("made from other training images"): read_given_set(tmp_path / "small", plain)
    read = load_folder(str(tmp_path / "small" / "images"), mode="L", validation=0.0, test=0.0)
    want = np.sort(pictures(study.as_pictures(small.data)).astype(int).reshape(len(small), -1).sum(1))
    assert (np.sort(pictures(read.train).astype(int).reshape(len(small), -1).sum(1)) == want).all()
    with pytest.raises(ValueError): pictures(small.data)
    assert torch.allclose(fit_whitening(plain.splits.train).apply(plain.splits.train).images, study.splits.train.images, atol=1e-4)


@pytest.mark.slow
def test_the_estimate_counts_what_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr(sets, "fewest_to_choose", 1)        # so that checkpoints are chosen, too
    study = Study(profile(methods=["random", "window", "dm", "selmatch"], seeds=1, objectives={"dm": {"batch_real": 16, "iterations": 6}}), QUIET, tmp_path / "home")
    before = costs(study, chosen=True).set_index("stage")
    dm = find_method("dm")
    descent = sets.plan_descent(study, dm, *sets.describe_objective(study, dm, 0.1))
    later = {"dm": len(descent.stops) - 1, "selmatch": 2}       # above iteration 0
    assert (before.left == before.tasks).all()
    assert (before.seconds > 0).all()
    assert before.tasks["evaluate"] == 4 * 2 * 2
    assert before.tasks["choose checkpoints"] == 2 * sum(later.values())
    assert before.tasks["evaluate checkpoints"] == 2 * len(later) * 2
    assert "choose checkpoints" not in costs(study).stage.tolist(), "only where a table asks for them"
    assert before.tasks["distill DM, 10%"] == 1
    assert not (tmp_path / "home" / "experts").exists(), "an estimate must not train experts"
    tables.windows(study)
    middle = costs(study, chosen=True).set_index("stage")
    assert middle.left["slide the window"] == middle.left["watch networks learn"] == 0
    assert middle.left["train experts"] == 2
    assert middle.left["evaluate"] == 4 * 2 * 2
    tables.accuracies(study, ["random"])
    assert costs(study, chosen=True).set_index("stage").left["evaluate"] == 3 * 2 * 2
    study.experts()
    tables.accuracies(study)
    tables.accuracies(study, chosen=True)
    tables.full_accuracy(study)
    after = costs(study, chosen=True)
    assert (after.left == 0).all()
    assert wall_seconds(after, study) == 0
    assert wall_seconds(before, study) > 0
    more = Study(replace(study.profile, methods=("random", "mtt")), QUIET, tmp_path / "home")
    assert costs(more, chosen=True).set_index("stage").left.to_dict() | {"distill MTT, 10%": 1, "distill MTT, 30%": 1, "evaluate": 4, "choose checkpoints": 4, "evaluate checkpoints": 4} == costs(more, chosen=True).set_index("stage").left.to_dict()


def test_every_method_can_be_estimated(tmp_path):
    study = Study(profile(ratios=[0.1], alpha={0.1: 0.5}, seeds=1, objectives={name: {"iterations": 2} | ({"n_steps": 2} if name == "dd" else {}) for name in ("dm", "dc", "dsa", "kip", "frepo", "dd")}), QUIET, tmp_path / "home")
    table = costs(study, list(methods)).set_index("stage")
    assert (table.left == table.tasks).all()
    assert (table.seconds > 0).all()
    assert {"distill FTD, 10%", "distill DATM, 10%", "train flat experts"} <= set(table.index)


def test_sizes_by_hand():
    study = Study(profile(experts={"n": 3, "epochs": 4, "keep": "needed", "precision": "float16"}), QUIET)
    n, disk = sum(p.numel() for p in make_network(study.network, (1, 8, 8), 10, 0).parameters()), costs(study).set_index("stage").disk
    assert disk["train experts"] == study.profile.seeds * 3 * len({0, 1, 2, 3, 4}) * n * 2
    assert memory(study)["one step"] > 32 * 8 * 64
    assert estimate_flops(study, ["random"]) < estimate_flops(study, ["random", "mtt"])


def test_judges_may_learn_in_bfloat16(tmp_path):
    """Nine tenths of a paper's bill are its judges: how exactly they learn is a word of the profile, and of the key."""
    words = {"ratios": [0.1], "alpha": {0.1: 0.5}, "seeds": 1}
    plain, half = (Study(profile(**words, evaluation={"n": 1, "steps": 20, "precision": how}), QUIET, tmp_path / "home") for how in ("float32", "bfloat16"))
    assert plain.recipe("dsa") == Study(profile(**words, evaluation={"n": 1, "steps": 20}), QUIET, tmp_path / "home").recipe("dsa")
    assert replace(half.recipe("dsa"), precision="float32") == plain.recipe("dsa") != half.recipe("dsa")
    there, other = (tables.accuracies(study, ["random"]) for study in (plain, half))
    assert len(other) == 1 and 0 < other.test_accuracy[0] <= 1 and len(list((tmp_path / "home" / "results").rglob("*.safetensors"))) >= 2
    assert abs(other.test_accuracy[0] - there.test_accuracy[0]) < 0.3
    with pytest.raises(InputError, match="evaluation.precision 'float16'.*bfloat16"): profile(evaluation={"precision": "float16"})


def test_figures_estimate_prints_and_stops(say, tmp_path):
    code, out, errors = say("figures", "--profile", "smoke", "--estimate")
    assert code == 0, errors
    assert "evaluate" in out, errors
    assert "train experts" in out and "to be written" in out and "memory of one worker" in out, errors
    assert not (tmp_path / "home" / "sets").exists()
    assert not list((tmp_path / "home").rglob("*.pkl"))      # nothing was computed
    assert expect(Study(profile(), QUIET, tmp_path / "home"), ["tab1_accuracy"], quick=True) == (0.0, "")


def test_the_lite_profiles_differ_in_their_files_only():
    ours, theirs = load_profile("cifar10-lite"), load_profile("cifar10-jpeg-lite")
    apart = {f.name for f in fields(ours) if getattr(ours, f.name) != getattr(theirs, f.name)}
    assert apart <= {"name", "title", "data", "score", "published", "differs"}
    assert ours.published_as == theirs.published_as == "cifar10"
    assert replace(ours.score, path=theirs.score.path, key=theirs.score.key, order=theirs.score.order) == theirs.score


def test_the_papers_profiles_name_official_files():
    from selmatch.data.fetch import official_files
    for name in ("cifar10", "cifar100", "tinyimagenet", "cifar10-lite", "cifar10-gpu"):
        p = load_profile(name)
        assert p.score.path in [file.name for file in official_files[p.data["name"]]], name
    by_size = load_profile("cifar10").objectives["trajectory"]["lr_images"]
    assert by_size == {0.05: 1000, 0.1: 1000, 0.2: 10_000, 0.3: 10_000}


SMOKE = (profile_folder / "smoke.yaml").read_text(encoding="utf-8")


def changed(tmp_path, old, new, encoding="utf-8"):
    """smoke.yaml with something else in it, as a file."""
    assert old in SMOKE
    (tmp_path / "mine.yaml").write_bytes(SMOKE.replace(old, new).encode(encoding))
    return tmp_path / "mine.yaml"


@pytest.mark.parametrize("written, value", [("5e-2", 0.05), ("5E-2", 0.05), ("1e1", 10.0), (".05", 0.05), ("5.e-2", 0.05), ("1", 1.0), ("+5e-2", 0.05), ("0.05", 0.05)])
def test_numbers_as_people_write_them(written, value, tmp_path):
    assert load_profile(changed(tmp_path, "steps: 40, batch: 32, lr: 0.05", f"steps: 40, batch: 32, lr: {written}")).evaluation.lr == value


def test_no_is_a_word_where_it_is_one_and_an_answer_where_one_is_asked(tmp_path):
    line = "score: {kind: forgetting,"
    assert load_profile(changed(tmp_path, line, line + " compile: no,")).score.compile == "no"
    for word, answer in (("no", False), ("off", False), ("yes", True), ("true", True), ("False", False)):
        assert load_profile(changed(tmp_path, "seeds: 2", f"seeds: 2\nwhiten: {word}")).whiten is answer
    with refuses("whiten", "perhaps", "bool"): load_profile(changed(tmp_path, "seeds: 2", "seeds: 2\nwhiten: perhaps"))
    with refuses("score.compile", "True"): load_profile(changed(tmp_path, line, line + " compile: true,"))
    assert load_profile(changed(tmp_path, "title: a few digits", "title: 2024-01-01 a few digits")).title.startswith("2024-01-01")


@pytest.mark.parametrize("old, new, words", [
    ("seeds: 2", "seeds: 2\nseeds: 3", ["'seeds' stands twice", "line 2"]),
    ("runs: 2, epochs: 4", "runs: 2, epochs: 4, runs: 3", ["'runs' stands twice"]),
    ("seeds: 2", "seeds: [2", ["cannot read profile"]),
    ("seeds: 2", "seeds: 2\nx: &x [*x]", ["anchors"]),
    ("seeds: 2", "seeds: 2\n" + "[" * 5000, ["cannot read profile"]),
    ("seeds: 2", "seeds: 2\na: !!python/object/apply:os.getcwd []", ["cannot read profile", "python"]),
])
def test_what_no_profile_may_hold_is_one_line(old, new, words, tmp_path):
    with pytest.raises(InputError) as error: load_profile(changed(tmp_path, old, new))
    assert "\n" not in str(error.value)
    for word in ["mine.yaml", *words]: assert word in str(error.value)


def test_files_that_are_no_text_are_one_line(tmp_path):
    with refuses("mine.yaml", "not UTF-8 (line 1)"): load_profile(changed(tmp_path, "a few digits", "quelques chiffres \xe9crits", "latin-1"))
    with refuses("mine.yaml", "UTF-8"): load_profile(changed(tmp_path, "a few digits", "a few digits", "utf-16"))
    assert load_profile(changed(tmp_path, "a few digits", "a few digits", "utf-8-sig")).seeds == 2
    (tmp_path / "folder.yaml").mkdir()
    for name in ("folder.yaml", "nowhere.yaml"):
        with refuses(name, "cannot read profile"): load_profile(tmp_path / name)


def test_a_bomb_of_anchors_is_refused_at_once(tmp_path):
    import time
    bomb = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(f"{new}: &{new} [{', '.join(['*' + old] * 10)}]\n" for old, new in zip("abcdefghijk", "bcdefghijkl"))
    begin = time.process_time()
    with refuses("mine.yaml", "anchors"): load_profile(changed(tmp_path, "seeds: 2", "seeds: 2\n" + bomb))
    assert time.process_time() - begin < 1
    assert load_profile(changed(tmp_path, "ratios: [0.1, 0.3]", "ratios: &r [0.1, 0.3]")).ratios == (0.1, 0.3)


def test_all_methods_are_made_at_the_sizes_that_there_are():
    p = load_profile("digits")
    assert p.compared_ratios == (0.1, 0.3)
    assert load_profile("digits", ratios=(0.3,), alpha={0.3: 0.2}).compared_ratios == (0.3,)
    assert load_profile("digits", ratios=(0.2,), alpha={0.2: 0.2}).compared_ratios == (0.2,)
    assert load_profile("smoke").compared_ratios == load_profile("smoke").ratios


def test_a_profile_may_compare_some_methods_only():
    """On photographs forty methods take a week: a profile names those that stand in the table of everything, and are tuned."""
    from selmatch.methods import methods, variants
    from selmatch.show.figures import everything
    from selmatch.study.profile import compared_methods
    from selmatch.study.tune import list_leaders, tuned_methods
    every, few = load_profile("digits"), load_profile("digits", compared=["random", "dm", "herding"], methods=["random", "mtt"])
    assert compared_methods(every) == tuple(methods) and compared_methods(few) == ("random", "dm", "herding")
    assert everything(SimpleNamespace(profile=few)) == (("random", "dm", "herding"), (0.1, 0.3))
    assert {m.name for m in list_leaders(None, tuned_methods(few))} == {"dm", "mtt"} | {m.name for m in list_leaders(variants)}
    assert [m.name for m in list_leaders(None, tuned_methods(every))] == [m.name for m in list_leaders()]
    with pytest.raises(InputError, match="nobody"): load_profile("digits", compared=["nobody"])
    for names, lacking in ((["dm"], "'random'.*'dm'"), (["random", "window-teacher"], "'random-teacher'.*'window-teacher'"), (["random", "window-online"], "'random-online'")):
        with pytest.raises(InputError, match=f"compared lacks {lacking}"): load_profile("digits", compared=names)


def test_a_profile_that_is_written_is_read_back(tmp_path):
    from selmatch.study.profile import list_profiles, write_profile
    for name in list_profiles():
        p = load_profile(name)
        write_profile(p, tmp_path / f"{name}.yaml")
        assert load_profile(tmp_path / f"{name}.yaml") == p, name


def test_words_of_a_command_become_a_profile_with_a_name_of_its_own(tmp_path, monkeypatch):
    """So that figures with other words are not drawn over those of the profile."""
    from selmatch.app import settle_profile
    monkeypatch.setenv("SELMATCH_HOME", str(tmp_path))
    assert settle_profile("smoke", ()) == "smoke"
    one, two = (settle_profile("smoke", words) for words in (("seeds=1",), ("seeds=1", "data={name: folder, root: /x, size: 8}")))
    assert one != two and load_profile(one).seeds == load_profile(two).seeds == 1
    assert load_profile(one).name.startswith("smoke-") and load_profile(two).data == {"name": "folder", "root": "/x", "size": 8}
    with pytest.raises(InputError, match="seedz"): settle_profile("smoke", ("seedz=1",))
