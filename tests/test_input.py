"""Bad input: the message names the thing, its value and what is allowed; the command line says it in one line, before any work."""

import numpy as np
import pytest
import torch
import yaml

from conftest import ROOT
from selmatch.study import sets
from selmatch.app import main
from selmatch.core import InputError, save_tensors
from selmatch.data.loaders import load_data, load_digits
from selmatch.data.export import save_folder
from selmatch.distill.sets import distilled_mask
from selmatch.methods import find_method
from selmatch.distill.experts import expert_recipe, open_expert, train_experts
from selmatch.train.networks import FlatNetwork, make_network
from selmatch.select.scores import check_difficulty, load_difficulty
from selmatch.select.window import select
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
    with refuses("ipc=", "smallest class"): Study(profile(data={"name": "digits"}, ratios=[1.0], alpha={1.0: 0.1}, search={})).splits


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


def test_a_figure_parameter_of_the_wrong_value_is_refused_before_work(selmatch_command):
    done = selmatch_command("figures", "--profile", "smoke", "--only", "fig2_method", "-p", "ratio=0.77")
    assert done.returncode == 2
    assert "0.77" in done.stderr
    assert done.stderr.count("\n") == 1


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
