"""Bad input: the message names the thing, its value and what is allowed; the command line says it in one line, before any work."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from conftest import ROOT
from selmatch.study import sets
from selmatch.app import data_section, main, make_study
from selmatch.core import InputError, save_tensors
from selmatch.data.loaders import load_data, load_digits
from selmatch.data.export import save_folder
from selmatch.distill.sets import distilled_mask
from selmatch.methods import find_method
from selmatch.distill.experts import expert_recipe, open_expert, train_experts
from selmatch.train import augment
from selmatch.train.networks import FlatNetwork, make_network
from selmatch.select.scores import check_difficulty, load_difficulty
from selmatch.select.window import count_per_class, select
from selmatch.study.profile import load_profile, profile_folder, read_section, Profile
from selmatch.study.study import Study
from selmatch.computer import Computer

DIGITS = load_digits(per_class=40)
SPEC = {"name": "ConvNet", "width": 4, "depth": 2}


def refuses(*words):
    """The block must raise an InputError whose message holds all the words."""
    class Check:
        def __enter__(self): return self
        def __exit__(self, kind, error, trace):
            assert kind is not None, f"expected an InputError, got {kind}"
            assert issubclass(kind, InputError), f"expected an InputError, got {kind}"
            for word in words: assert str(word) in str(error), f"{word!r} is not in {error}"
            return True
    return Check()


def profile(**changes):
    return read_section(yaml.safe_load((profile_folder / "smoke.yaml").read_text()) | {"name": "mine"} | changes, Profile)


def test_unknown_names():
    with refuses("profile", "digit", "digits, "): load_profile("digit")
    with refuses("dataset", "mnist", "digits"): load_data("mnist")
    with refuses("method", "selmatsch", "selmatch"): find_method("selmatsch")
    with refuses("selection", "windows", "window"): select("windows", DIGITS.train, 1)
    with refuses("network", "ConvNext", "ConvNet"): make_network({"name": "ConvNext"}, (1, 8, 8), 10, 0)
    with refuses("score.kindd", "score.kind"): profile(score={"kindd": "el2n"})
    with refuses("rations", "ratios"): profile(rations=[0.1])


@pytest.mark.parametrize("changes, words", [
    ({"alpha": {0.1: -0.1, 0.3: 0.5}}, ["alpha", "-0.1", "[0, 1]"]),
    ({"alpha": {0.1: 0.1}}, ["alpha", "0.3"]),
    ({"window": {"beta": {0.3: 0.8}}}, ["beta=0.8", "beta + ratio must be <= 1", "0.3"]),
    ({"seeds": "two"}, ["seeds", "two", "int"]),
    ({"seeds": True}, ["seeds", "True"]),
    ({"ratios": [0.1, 2.0]}, ["ratio", "2.0"]),
    ({"experts": {"n": 0}}, ["experts.n", "0"]),
    ({"matching": {"max_start": 50}}, ["max_start", "50", "experts.epochs"]),
    ({"augmentation": {"strong": ["blur"]}}, ["blur", "cutout"]),
    ({"window": {"choose_on": "train"}}, ["choose_on", "train", "validation"]),
    ({"evaluation": 3}, ["evaluation", "3", "section"]),
    ({"evaluation": {"lr": -1}}, ["lr", "-1"]),
    ({"score": {"lr": -1}}, ["lr", "-1"]),
    ({"experts": {"augmentation": "dsaa"}}, ["augmentation", "dsaa"]),
    ({"matching": {"batch": 0}}, ["batch", "0"]),
    ({"matching": {"compile": "maybe"}}, ["compile", "maybe", "auto"]),
    ({"network": {"name": "Foo"}}, ["network", "Foo", "ConvNet"]),
    ({"window": {"beta": {0.5: 0.1}}}, ["window.beta", "0.5"]),
], ids=str)
def test_profiles(changes, words):
    with refuses(*words): profile(**changes)


def test_profile_without_a_needed_key():
    with refuses("network"): read_section({"name": "x", "title": "t", "data": {}, "alpha": {}}, Profile)


def test_alpha_and_window():
    for alpha in (-0.1, 1.1, float("nan")):
        with refuses("alpha", alpha, "[0, 1]"): distilled_mask(2, 5, alpha)
    difficulty = torch.arange(len(DIGITS.train)).double()
    with refuses("beta=0.95", "beta + ratio must be <= 1"): select("window", DIGITS.train, 5, difficulty=difficulty, beta=0.95)


def test_ipc_larger_than_the_smallest_class_names_it():
    keep = torch.cat([torch.nonzero(DIGITS.train.labels == c).flatten()[: 5 if c == 7 else None] for c in range(10)])
    with refuses("ipc=6", "5", "'7'"): select("random", DIGITS.train.subset(keep), 6, generator=torch.Generator())
    with refuses("validation", "choose_on"): Study(profile(data={"name": "digits", "per_class": 40, "validation": 0})).splits
    study = Study(profile(data={"name": "digits"}, ratios=[1.0], alpha={1.0: 0.1}, search={}))
    sizes = torch.bincount(study.splits.train.labels).tolist()
    with refuses("'glister'", "ratio=1.0", study.ipc(1.0), "smallest class", min(sizes)): sets.start_set(study, "glister", 1.0, 0)
    assert sum(study.take(1.0)) <= sum(sizes) and len(sets.start_set(study, "random", 1.0, 0).data) == sum(study.take(1.0))


def test_difficulty(tmp_path):
    n = len(DIGITS.train)
    with refuses("difficulty", "(3,)", str(n)): check_difficulty(torch.zeros(3), DIGITS.train)
    values = torch.zeros(n); values[4] = float("nan")
    with refuses("difficulty[4]", "nan", "finite"): check_difficulty(values, DIGITS.train)
    file = tmp_path / "scores.npy"
    with refuses(file): load_difficulty(file, "c_score", DIGITS.train)
    file.write_text("no numbers")
    with refuses(file): load_difficulty(file, "c_score", DIGITS.train)
    np.save(file, np.zeros(n))
    with refuses("c-score", "c_score"): load_difficulty(file, "c-score", DIGITS.train)


def test_expert_files(tmp_path):
    files = train_experts(tmp_path, DIGITS.train, SPEC, expert_recipe(len(DIGITS.train), 2, 32, 0.05), 1, computer=Computer(quiet=True))
    flat = FlatNetwork(make_network(SPEC, DIGITS.train.shape, 10, 0))
    assert open_expert(files[0], flat).epochs == 2
    wide = FlatNetwork(make_network({**SPEC, "width": 6}, DIGITS.train.shape, 10, 0))
    with refuses(files[0], (3, flat.n_params), wide.n_params): open_expert(files[0], wide)
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(files[0].read_bytes()[:-10])
    with refuses(cut, "complete"): open_expert(cut, flat)
    with refuses(tmp_path / "none"): open_expert(tmp_path / "none", flat)
    save_tensors(tmp_path / "other.safetensors", {"weights": torch.zeros(2)})
    with refuses("other.safetensors", "theta", "weights"): open_expert(tmp_path / "other.safetensors", flat)


def test_image_folders(tmp_path):
    with refuses(tmp_path / "none"): load_data("folder", root=str(tmp_path / "none"))
    with refuses("0 class sub-folders"): load_data("folder", root=str(tmp_path))
    files = save_folder(DIGITS.train, tmp_path / "mine")
    (tmp_path / "mine" / "zero").mkdir()
    with refuses("mine/zero", "no image"): load_data("folder", root=str(tmp_path / "mine"))
    (tmp_path / "mine" / "zero").rmdir()
    whole = files[3].read_bytes()
    files[3].write_bytes(whole[:40])
    with refuses(files[3]): load_data("folder", root=str(tmp_path / "mine"))
    files[3].write_bytes(whole)
    from PIL import Image
    Image.new("RGB", (9, 9)).save(files[3])
    with refuses(files[3], "(9, 9)", "size="): load_data("folder", root=str(tmp_path / "mine"))
    assert load_data("folder", root=str(tmp_path / "mine"), size=8).train.shape == (3, 8, 8)
    with refuses("sed", "seed"): load_data("folder", root=str(tmp_path / "mine"), sed=1)


@pytest.mark.parametrize("line, words", [
    ("figures --profile digit", ["profile", "digit", "digits"]),
    ("figures --only fig99 --profile smoke", ["figure", "fig99", "fig3_window"]),
    ("figures --profile smoke --only fig3_window -p rato=0.3", ["rato", "fig3_window"]),
    ("figures --profile smoke --only fig3_window -p ratio", ["ratio", "NAME=VALUE"]),
    ("distill --method magic", ["method", "magic", "selmatch"]),
    ("distill --alpha 1.5", ["alpha", "1.5", "[0, 1]"]),
    ("distill --ratio 0.3 --beta 0.9", ["beta=0.9", "0.3"]),
    ("distill --ratio 0", ["ratio", "0"]),
    ("window --data mnist", ["data", "mnist", "digits"]),
    ("score --data folder:does/not/exist", ["does/not/exist"]),
    ("score --data cifar10 --profile folder --root does/not/exist", ["does/not/exist", "--root", "selmatch fetch cifar10"]),
    ("score --data cifar10", ["score.path", "cifar10-cscores-orig-order.npz", "SELMATCH_DATA", "selmatch fetch cifar10", "forgetting"]),
    ("score --data digits --download", ["official files", "digits", "cifar10"]),
    ("fetch cifar11", ["cifar11", "cifar100"]),
    ("score --data tinyimagenet --profile folder --root does/not/exist", ["does/not/exist", "tiny-imagenet-200.zip", "--root"]),
    ("score --data digits --size 16", ["digits", "size"]),
    ("score --device tpu", ["device", "tpu", "cuda"]),
    ("evaluate", ["--set"]),
    ("evaluate --set nowhere", ["nowhere"]),
    ("window --colour red", ["--colour"]),
    ("windw", ["windw"]),
    ("score --seed x", ["--seed", "x"]),
    ("score --workers 0", ["workers", "0"]),
])
def test_command_line_says_it_in_one_line(line, words, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("SELMATCH_HOME", str(tmp_path))
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as stop: main(line.split())
    said = capsys.readouterr().err
    assert stop.value.code == 2, said
    assert said.count("\n") == 1, said
    assert said.startswith("selmatch: "), said
    for word in words: assert word in said, said
    assert not list(tmp_path.iterdir()), "work was started"


def test_a_figure_parameter_of_the_wrong_value_is_refused_before_work(say):
    code, _, errors = say("figures", "--profile", "smoke", "--only", "fig2_method", "-p", "ratio=0.77")
    assert code == 2
    assert "0.77" in errors
    assert errors.count("\n") == 1


def test_methods_that_do_not_exist_cannot_be_declared():
    from selmatch.methods import Method
    with refuses("objective", "distribution", "trajectory"): Method("x", "X", "random", 1.0, "distribution")
    with refuses("labels", "fuzzy", "hard", "soft", "teacher"): Method("x", "X", "random", 1.0, "trajectory", labels="fuzzy")
    with refuses("alpha", "objective"): Method("x", "X", "random", 0.5, None)


def test_images_that_are_not_square_are_named(tmp_path):
    from PIL import Image
    for c in "ab":
        for i in range(8):
            (tmp_path / c).mkdir(exist_ok=True)
            Image.new("RGB", (8, 12), (i, 0, 100 * (c == "b"))).save(tmp_path / c / f"{i}.png")
    splits = load_data("folder", root=str(tmp_path))
    with refuses("(3, 12, 8)", "square"): make_network(SPEC, splits.train.shape, 2, 0)


def test_a_selection_is_told_only_what_it_takes(monkeypatch):
    from selmatch.select.window import selections, read_options
    difficulty = torch.arange(len(DIGITS.train)).double()
    with refuses("'window'", "bata", "beta", "beta_of", "difficulty"): select("window", DIGITS.train, 2, difficulty=difficulty, bata=0.3)
    with refuses("'hardest'", "generator", "difficulty"): select("hardest", DIGITS.train, 2, difficulty=difficulty, generator=torch.Generator())
    with refuses("'window'", "lacks difficulty"): select("window", DIGITS.train, 2, beta=0.1)
    for name, selection in selections.items():
        named, open_to_all = read_options(selection)
        assert named, f"{name} swallows words"
        assert not open_to_all, f"{name} swallows words"
        with refuses(repr(name), "bata", *named): select(name, DIGITS.train, 2, bata=0.3)
    told = {}
    def own(data, ipc, *, difficulty, **options):
        told.update(options, difficulty=difficulty)
        return selections["hardest"](data, ipc, difficulty=difficulty)
    monkeypatch.setitem(selections, "own", own)
    select("own", DIGITS.train, 2, difficulty=difficulty, bata=0.3)
    assert told["bata"] == 0.3


def test_the_study_tells_a_selection_only_what_it_takes(monkeypatch, tmp_path):
    from selmatch.select.coresets import made_starts
    from selmatch.select.window import selections, read_options
    study = Study(profile(data={"name": "digits", "per_class": 40}), Computer(quiet=True), tmp_path)
    needy = {"herding", "k_center", "craig", "gradmatch", "glister", "grand", "kmeans_real", "c_score", "well_classified", "dual", "window_by_coverage"}
    for name in (set(selections) | set(made_starts)) - needy:              # the others train networks to find out
        named, _ = read_options(made_starts.get(name) or selections[name])
        given = set(sets.selection_needs(study, name, 0.1)) if name != "window" else {"difficulty", "beta", "beta_of"}
        assert given <= set(named), name
        assert {word for word, needed in named.items() if needed} <= given, name
    asked = {}
    def nothing(data, ipc): return selections["random"](data, ipc, generator=torch.Generator().manual_seed(0))
    def anything(data, ipc, **options):
        asked.update(options)
        return nothing(data, ipc)
    for selection in (nothing, anything):
        monkeypatch.setitem(selections, selection.__name__, selection)
        assert len(sets.choose_start(study, selection.__name__, 0.1)) == 10 * study.ipc(0.1)
    assert set(asked) == {"generator", "difficulty"}


# ---------------------------------------------------------------- small and uneven classes

@pytest.mark.parametrize("sizes, total, equal, share", [
    ((120, 40, 6), 50, [22, 22, 6], [36, 12, 2]), ((100, 100), 20, [10, 10], [10, 10]), ((100, 100, 100), 20, [7, 7, 6], [7, 7, 6]),
    ((1000, 1, 1), 3, [1, 1, 1], [1, 1, 1]), ((1000, 1, 1), 10, [8, 1, 1], [8, 1, 1]), ((5, 5), 100, [5, 5], [5, 5]), ((3, 900), 0, [1, 1], [1, 1]), ((7, 3), 10, [7, 3], [7, 3]),
])
def test_how_many_of_each_class(sizes, total, equal, share):
    assert count_per_class(sizes, total) == equal
    assert count_per_class(sizes, total, "share") == share
    with refuses("balance", "fair", "equal, share"): count_per_class(sizes, total, "fair")


def test_counts_add_up_and_stay_in_their_class():
    rng = np.random.default_rng(0)
    for _ in range(200):
        sizes = rng.integers(1, 60, rng.integers(2, 9)); total = int(rng.integers(0, sizes.sum() + 9))
        for balance in ("equal", "share"):
            counts = count_per_class(sizes, total, balance)
            assert sum(counts) == min(max(total, len(sizes)), sizes.sum()) and all(1 <= m <= n for m, n in zip(counts, sizes)), (sizes, total, balance)
        level = max(count_per_class(sizes, total))      # equal numbers: whoever gives less gives all, up to the odd one
        assert all(m in (level, level - 1) or m == n for m, n in zip(count_per_class(sizes, total), sizes))


def uneven_study(tmp_path, sizes=(40, 12, 4), **changes):
    keep = torch.cat([torch.nonzero(DIGITS.train.labels == c).flatten()[:n] for c, n in enumerate(sizes)])
    from dataclasses import replace
    data = replace(DIGITS.train.subset(keep), classes=tuple("abc"))
    study = Study(profile(score={"kind": "el2n", "runs": 1, "epochs": 1, "batch": 32}, search={}, **changes), Computer(quiet=True), tmp_path)
    splits = replace(DIGITS, train=data, validation=data, test=data, total=len(data), numbers=(0, 1, 2))
    study.__dict__.update(loaded=splits, difficulty=torch.arange(len(data)).double())
    return study


def test_selections_of_uneven_classes(tmp_path):
    study = uneven_study(tmp_path, sizes := tuple(torch.bincount(DIGITS.train.labels)[:3].clamp(max=torch.tensor([24, 12, 4])).tolist()), ratios=[0.5], alpha={0.5: 0.5}, window={"beta": {0.5: 0.5}})
    counts = study.take(0.5)
    assert counts == count_per_class(sizes, 3 * study.ipc(0.5)) and counts[2] == sizes[2] < study.ipc(0.5)
    for name in ("random", "hardest", "easiest", "window"):
        small = sets.start_set(study, name, 0.5, 0)
        assert torch.bincount(small.data.labels).tolist() == counts and not small.distilled.any()
        assert (small.card["ipc"], small.card["balance"], small.card["taken_whole"]) == (counts, "equal", ["c"])
    rows = select("window", study.splits.train, counts, difficulty=study.difficulty, beta=0.5)
    first = rows[:counts[0]]
    assert study.difficulty[first].tolist() == [float(sizes[0] - 1 - round(0.5 * sizes[0]) - i) for i in range(counts[0])]
    assert study.window_starts(0.5, 0.1)[-1] == 0.4, "the smallest class set the grid"
    with refuses("'glister'", "'c'"): sets.start_set(study, "glister", 0.5, 0)
    with refuses("[1, 2]", "each class"): select("random", study.splits.train, [1, 2], generator=torch.Generator())
    other = uneven_study(tmp_path, sizes, ratios=[0.5], alpha={0.5: 0.5}, balance="share")
    assert torch.bincount(sets.start_set(other, "random", 0.5, 0).data.labels).tolist() == count_per_class(sizes, 3 * study.ipc(0.5), "share")
    with refuses("balance", "fair"): profile(balance="fair")


@pytest.mark.parametrize("balance", ["equal", "share"])
def test_distilling_uneven_classes(balance, tmp_path):
    """By either rule: at least one image of each class, the easier share of each is distilled, and nothing else moves."""
    study = uneven_study(tmp_path, (24, 8, 3), ratios=[0.7], alpha={0.7: 0.5}, balance=balance, window={"beta": {0.7: 0.0}})
    sizes = torch.bincount(study.splits.train.labels).tolist()
    expected = count_per_class(sizes, 3 * study.ipc(0.7), balance)
    task = sets.small_sets(study, ["selmatch-dm"], [0.7], 1)["selmatch-dm", 0.7, 0]
    start, small = task.start, task.last()
    assert torch.bincount(small.data.labels).tolist() == expected and min(expected) >= 1 and len(set(expected)) > 1
    halves = [round(n / 2) for n in expected]
    assert torch.bincount(small.data.labels[small.distilled]).tolist() == halves
    moved = (small.data.images != start.data.images).flatten(1).any(1)
    assert not moved[~small.distilled].any() and moved[small.distilled & (small.data.labels == 0)].all()    # a class taken whole asks for nothing
    for c, (n, m) in enumerate(zip(expected, halves)):      # hardest first: the easier ones move
        assert small.distilled[small.data.labels == c].tolist() == [False] * (n - m) + [True] * m
    words = ("balance", "ipc", "distilled_per_class", "taken_whole")
    whole = [name for name, n, size in zip("abc", expected, sizes) if n == size]
    assert [small.card[word] for word in words] == [balance, expected, halves, whole]


def test_what_cannot_be_distilled_of_uneven_classes_is_said_before_work(tmp_path):
    study = uneven_study(tmp_path, (24, 8, 3), ratios=[0.7], alpha={0.7: 0.5}, window={"beta": {0.7: 0.0}})
    for name in ("ccfs", "datm", "glister"):
        with refuses(f"'{name}'", "ratio=0.7", "'c'", "at most ratio=", "classes"): sets.set_task(study, name, 0.7, 0)
    assert not list(tmp_path.iterdir()), "work was started"


def test_shares_that_round_to_nothing_in_some_classes_are_said(tmp_path):
    study = uneven_study(tmp_path, (24, 8, 3), ratios=[0.7], alpha={0.7: 0.1}, balance="share", window={"beta": {0.7: 0.0}})
    with pytest.warns(UserWarning, match="0.1 of the few images of c rounds to none"): task = sets.set_task(study, "selmatch-dm", 0.7, 0)
    assert task.start.card["distilled_per_class"][-1] == 0 and task.start.distilled.any()


def test_an_estimate_asks_about_uneven_classes(tmp_path):
    from selmatch.study.estimate import Prices, iteration_seconds
    study = uneven_study(tmp_path, (24, 8, 3), ratios=[0.7], alpha={0.7: 0.5}, balance="share", window={"beta": {0.7: 0.0}})
    assert iteration_seconds(Prices(study), find_method("selmatch-dm"), 0.7) > 0


def test_equal_masks_are_those_of_chapter_38():
    for n, alpha in ((5, 0.3), (10, 0.25), (1, 0.5), (7, 1.0), (3, 0.0)):
        assert torch.equal(sets.mask_of_counts([n] * 4, alpha), distilled_mask(4, n, alpha))
    assert sets.mask_of_counts((2, 4), 0.5).tolist() == [False, True, False, False, True, True]


def test_small_sets_are_counted_by_the_same_rules(tmp_path):
    """`count_small` asks `count_per_class`: by share of what was given, or in equal numbers as far as classes reach."""
    from selmatch.study.shrink import count_classes, count_given, count_small
    splits = uneven_study(tmp_path, (40, 12, 4)).splits
    given, there = count_given(splits), count_classes(splits.train)
    for ratio in (0.01, 0.1, 0.3, 0.77, 1):
        found, each = count_small(splits, ratio=ratio), [max(1, round(ratio * n)) for n in given]
        assert found.small == tuple(map(min, count_per_class(given, sum(each), "share"), there)) and found.balance == "share"
        assert all(abs(m - min(w, n)) <= 1 for m, w, n in zip(found.small, each, there))
    for images in (3, 10, 17, 500):
        found = count_small(splits, images=images)
        assert list(found.small) == count_per_class(there, images) and sum(found.small) == min(images, sum(there))
        assert found.capped == tuple(c for c, m, n in zip("abc", found.small, there) if m == n < max(images // 3, *found.small))
    found = count_small(splits, per_class=6)
    assert found.small == tuple(min(6, n) for n in there) and found.capped == ("c",)


def test_equal_classes_are_told_one_number():
    study = Study(profile(data={"name": "digits", "per_class": 40}), Computer(quiet=True))
    assert study.take(0.1) == study.ipc(0.1)
    assert "balance" not in sets.start_card(study, find_method("random"), 0.1, 0.0)


# ---------------------------------------------------------------- images that have a direction

@pytest.mark.parametrize("flip, mirrored", [(None, True), (True, True), (False, False), ("no", False), ("yes", True)])
def test_nothing_is_mirrored_where_the_data_says_no(flip, mirrored):
    data = {"name": "digits"} if flip is None else {"name": "digits", "flip": flip}
    study = Study(profile(data=data, augmentation={"strong": ["flip", "crop"], "simple": "simple"}), Computer(quiet=True))
    policies = [study.policy(kind) for kind in ("dsa", "simple", "combined")]
    for policy in policies:
        assert ("flip" in policy.strong) is mirrored and policy.simple == ("simple" if mirrored else "shift")
    x = torch.arange(4.0).expand(64, 1, 4, 4)
    for policy in policies[:2]:
        made = augment.apply(x, augment.draw(policy, 64, torch.Generator().manual_seed(0)))
        seen = [bool((row[row > 0].diff() < 0).any()) for row in made[:, 0, 1]]
        assert any(seen) <= mirrored
    assert study.splits.train.key == Study(profile(data={"name": "digits"}), Computer(quiet=True)).splits.train.key
    with refuses("data.flip", "sideways"): profile(data={"name": "digits", "flip": "sideways"})


def test_options_of_reading_on_the_command_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("selmatch.api.fit_study", lambda study, *given: study)       # which would read the images
    (tmp_path / "mine").mkdir(); (tmp_path / "here.csv").write_text("file,label\n")
    study = make_study(f"folder:{tmp_path}/mine", fit="pad", background="black", labels="here.csv", skip_unreadable=True, drop_leaked=False, no_flip=True, max_pixels=9, white=4095.0, mode="auto", device="cpu")
    data = study.profile.data
    assert {key: value for key, value in data.items() if key != "size"} == {"name": "folder", "root": str(tmp_path / "mine"), "fit": "pad", "background": "black", "labels": str(tmp_path / "here.csv"),
                                                                           "skip_unreadable": True, "max_pixels": 9, "white": 4095.0, "mode": "auto", "flip": False}
    assert "flip" not in study.policy("dsa").strong and study.policy("dsa").simple == "shift"
    with refuses("digits", "'fit'"): make_study("digits", fit="pad", device="cpu").splits
    assert data_section("folder:~/mine")["root"] == str(Path("~/mine").expanduser())


# ---------------------------------------------------------------- failures of the system and of libraries

@pytest.mark.parametrize("error, words, code", [
    (OSError(28, "No space left on device", "small/set.safetensors"), ["small/set.safetensors", "No space left", "SELMATCH_HOME"], 1),
    (PermissionError(13, "Permission denied", "/root/x"), ["/root/x", "SELMATCH_HOME"], 1),
    (MemoryError(), ["memory", "--workers"], 1),
    (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB\nmore"), ["memory", "--workers"], 1),
    (ModuleNotFoundError("No module named 'papermill'", name="papermill"), ["papermill", "pip install 'selmatch[figures]'"], 1),
    (ModuleNotFoundError("No module named 'dask'", name="dask.distributed"), ["pip install 'selmatch[cluster]'"], 1),
    (type("NoSuchKernel", (KeyError,), {})("python3"), ["kernel", "ipykernel install"], 1),
    (type("TerminatedWorkerError", (RuntimeError,), {})("a worker\nwas killed"), ["worker process", "--workers"], 1),
    (UnicodeEncodeError("utf-8", "\udcee", 0, 1, "surrogates not allowed"), ["UTF-8"], 1),
    (ZeroDivisionError("division\nby zero"), ["ZeroDivisionError: division by zero", "--debug"], 1),
    (InputError("ratio=3 is not allowed"), ["ratio=3"], 2),
    (KeyboardInterrupt(), ["interrupted"], 130),
])
def test_every_failure_is_one_line_and_debug_shows_the_rest(error, words, code, capsys, monkeypatch):
    def fail(): raise error
    monkeypatch.setattr("selmatch.app.list_profiles", fail)
    for debug in ([], ["--debug"]):
        with pytest.raises(SystemExit) as stop: main(["profiles", *debug])
        said = capsys.readouterr().err
        assert stop.value.code == code, said
        line = said.splitlines()[-1]
        assert line.startswith("selmatch: ") and all(word in line for word in words), said
        assert (len(said.split("\n")) == 2 or code == 130) is (not debug or code == 130), said
        assert ("Traceback" in said) is (bool(debug) and code != 130)


def test_what_is_noted_and_warned_of_is_told_once_in_lines(capsys, monkeypatch):
    import logging
    import warnings
    from selmatch.data import loaders
    def note():
        for _ in range(2):
            logging.getLogger("selmatch").info("mine: 3 images")
            warnings.warn_explicit("2 images leak", UserWarning, loaders.__file__, 1)
        return {}
    monkeypatch.setattr("selmatch.app.list_profiles", note)
    before = warnings.showwarning
    with pytest.raises(SystemExit) as stop: main(["profiles"])
    assert stop.value.code == 0 and capsys.readouterr().err.splitlines() == ["mine: 3 images", "selmatch: warning: 2 images leak"]
    assert warnings.showwarning is before and logging.getLogger("selmatch").level == logging.NOTSET


def test_an_old_locale_prints_what_it_can():
    import os
    import subprocess
    import sys
    for locale in ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, {"PYTHONIOENCODING": "ascii"}):
        done = subprocess.run([sys.executable, "-m", "selmatch", "profiles"], cwd=ROOT, env=os.environ | locale, capture_output=True)
        assert (done.returncode, done.stderr) == (0, b"") and b"digits" in done.stdout, done.stderr[-500:]
    code = "from selmatch.app import cli, main, click; cli.command('say')(lambda: click.echo('86.1 \u00b1 0.3')); main(['say'])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=os.environ | {"PYTHONIOENCODING": "ascii"}, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"") and b"86.1" in done.stdout


def test_figures_of_data_with_five_classes(monkeypatch):
    from types import SimpleNamespace
    from selmatch.show import figures
    with_classes = lambda k: SimpleNamespace(profile=profile(), splits=SimpleNamespace(train=SimpleNamespace(n_classes=k)))
    names = ["fig2_method", "fig3_window"]
    assert figures.choose_parameters(names, {}, with_classes(5)) == {"fig2_method": {"label": 4}, "fig3_window": {}}
    assert figures.choose_parameters(names, {}, with_classes(10)) == {"fig2_method": {}, "fig3_window": {}}
    assert figures.choose_parameters(names, {"label": 3}, with_classes(5)) == {"fig2_method": {"label": 3}, "fig3_window": {}}
    with refuses("label=7", "[0, 4]"): figures.choose_parameters(names, {"label": 7}, with_classes(5))
    several = lambda given, n: figures.choose_parameters(["fig5_images"], given, with_classes(n))["fig5_images"]
    assert several({}, 10) == {} and several({}, 5) == {"labels": "3 4"}
    for given in ("0 2", "[0, 2]", [0, 2], "0,2"): assert several({"labels": given}, 5) == {"labels": "0 2"}
    with refuses("labels=7", "[0, 4]"): several({"labels": "1 7"}, 5)
    with refuses("labels='owl'", "numbers of classes"): several({"labels": "owl"}, 5)
    with refuses("lable", "label"): figures.choose_parameters(names, {"lable": 3}, with_classes(5))
    import importlib
    figures.check_extras()
    find, missing = importlib.import_module, []
    monkeypatch.setattr(importlib, "import_module", lambda name, *more: (_ for _ in ()).throw(ImportError(name)) if name in missing else find(name, *more))
    for missing in (["papermill"], ["nbconvert"], ["ipykernel"]):
        with refuses(missing[0], "pip install 'selmatch[figures]'"): figures.check_extras()
