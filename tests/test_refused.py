"""What may not be: folders of others are not written into, test images are not judged by, and odd values are named before work begins."""
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import selmatch as sm
from selmatch import app
from selmatch.core import InputError
from selmatch.data.folders import Reading, scale_grey
from selmatch.others import read_set

pytestmark = pytest.mark.usefixtures("registers_as_before")
X = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 3)).astype(np.uint8)
Y = np.arange(60) % 3


@pytest.fixture(scope="module")
def data():
    return sm.from_arrays(X, Y, device="cpu", workers=1, quiet=True)


def pictures(folder, n=12, seed=0):
    for number, name in enumerate(("cat", "dog")):
        (folder / name).mkdir(parents=True)
        for i in range(n):
            pixels = np.random.default_rng(100 * number + i + seed).integers(0, 256, (8, 8, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    return folder


def run(capsys, *words):
    with pytest.raises(SystemExit) as stop: app.main([str(word) for word in words])
    said = capsys.readouterr()
    return stop.value.code, said.out + said.err


# ---------------------------------------------------------------- other people's folders

def test_a_set_is_not_saved_among_other_things(data, tmp_path):
    there = pictures(tmp_path / "src")
    before = sorted(map(str, there.rglob("*")))
    small = sm.select(data, "random", per_class=1)
    with pytest.raises(InputError, match="src.*not written by selmatch"): small.save(there)
    assert sorted(map(str, there.rglob("*"))) == before
    small.save(tmp_path / "new")
    small.save(tmp_path / "new")                        # its own again
    with pytest.raises(InputError, match="not written by selmatch"): sm.load(tmp_path / "new").save(there)
    (tmp_path / "empty").mkdir()
    small.save(tmp_path / "empty")


@pytest.mark.parametrize("ending", [".csv", ".png", ".svg", ".narrow.svg", ".ipynb", ".html"])
def test_figures_are_not_drawn_over_files_of_others(ending, tmp_path):
    file = tmp_path / f"tab4_cost{ending}"
    file.write_text("mine")
    with pytest.raises(InputError, match=f"tab4_cost{ending}.*not written by selmatch"): app.check_gallery(tmp_path, ["tab4_cost"], {"name": "digits"})
    app.check_gallery(tmp_path, ["fig3_window"], {"name": "digits"})        # which has no such file
    from selmatch.show.figures import begin_gallery
    begin_gallery(tmp_path)                             # a gallery of ours that was stopped before its card was written
    app.check_gallery(tmp_path, ["tab4_cost"], {"name": "digits"})


# ---------------------------------------------------------------- results that would be wrong

def test_a_set_that_holds_test_images_is_read_and_not_judged(tmp_path):
    folder = pictures(tmp_path / "src")
    data = sm.from_folder(str(folder), device="cpu", workers=1, quiet=True)
    small = read_set(folder, data)
    with pytest.raises(InputError, match=f"holds {len(data.test)} of the {len(data.test)} test images"): sm.evaluate(small, data, epochs=1)
    with pytest.raises(InputError, match="test images"): sm.compare({"all": small}, data)
    small.save(tmp_path / "saved")                     # reading and keeping it is allowed
    for again in (read_set(tmp_path / "saved", data), sm.load(tmp_path / "saved")):
        with pytest.raises(InputError, match="test images"): sm.evaluate(again, data, epochs=1)
    other = sm.from_folder(str(pictures(tmp_path / "others", 12, 500)), device="cpu", workers=1, quiet=True)
    assert len(sm.evaluate(read_set(folder, other), other, epochs=1, networks=1)) == 1, "of these data it holds none"


def test_a_class_needs_test_images():
    with pytest.raises(InputError, match="no test image of class '1'"): sm.from_arrays(X, [0] * 58 + [1] * 2)
    named = sm.from_arrays(X, Y, classes=["a", "b", "c"], test=(X[:40] // 2, [0, 1] * 20), device="cpu", quiet=True)
    assert torch.bincount(named.test.labels, minlength=3).tolist() == [20, 20, 0], "a test set that came along is taken as it is, where classes have names"
    with pytest.raises(InputError, match="the test set: there is one class only"): sm.from_arrays(X, Y, test=(X[:20] // 2, [0] * 20))


@pytest.mark.parametrize("classes", [{"cat", "dog", "emu"}, {"cat": 0, "dog": 1, "emu": 2}, b"abc", "abc"])
def test_names_of_classes_have_an_order(classes):
    with pytest.raises(InputError, match="classes=.*give a list of names"): sm.from_arrays(X, Y, classes=classes)


@pytest.mark.parametrize("option", ["--data", "--root", "--profile", "--out"])
def test_an_empty_text_is_no_default(option, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, said = run(capsys, "select", "--method", "random", option, "")
    assert code == 2 and option.strip("-") in said and "internal" not in said and "should not happen" not in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("rows", [[-1, -2, -3], [0, 0, 0], [10**6, 1, 2], [float("nan")] * 3, None, "ab", torch.ones(48).bool(), [[0, 1, 2]], 3, 1.5])
def test_rows_of_a_rule_are_rows(data, rows):
    def rule(images, ipc): return rows
    with pytest.raises(InputError, match="rule.*rows are needed"): sm.select(data, rule, per_class=1)


KINDS = {"reversed": lambda rows: np.array(rows[::-1])[::-1], "uint32": lambda rows: np.array(rows, dtype=np.uint32), "big-endian": lambda rows: np.array(rows, dtype=">i4"),
         "uint8": lambda rows: torch.tensor(rows, dtype=torch.uint8), "list": list, "tuple": lambda rows: tuple(map(np.int64, rows))}


@pytest.mark.parametrize("kind", KINDS)
def test_rows_may_be_numbers_of_any_kind(data, kind):
    labels = data.train.labels.tolist()
    first = [labels.index(c) for c in range(data.train.n_classes)]
    assert sm.select(data, lambda images, ipc: KINDS[kind](first), per_class=1).rows.tolist() == first
    with pytest.raises(InputError, match="each once"): sm.select(data, lambda images, ipc: KINDS[kind]([*first[:-1], first[0]]), per_class=1)


def test_a_rule_may_ask_for_a_place(data):
    told = []
    def placed(images, ipc, beta):
        told.append(beta)
        return torch.cat([torch.nonzero(images.labels == c).flatten()[:ipc] for c in range(3)])
    sm.select(data, placed, per_class=2, beta=0.25)
    assert told == [0.25]
    for wrong in ("abc", [0.1], True, 2.0):
        with pytest.raises(InputError, match="beta="): sm.select(data, placed, per_class=2, beta=wrong)


@pytest.mark.parametrize("value", ["no", 0, 1, None, "false"])
def test_a_switch_is_true_or_false(value, data, tmp_path):
    folder = pictures(tmp_path / "src", 4)
    for word in ("drop_leaked", "skip_unreadable"):
        with pytest.raises(InputError, match=f"{word}={value!r}.*True or False"): sm.from_folder(str(folder), **{word: value})
    with pytest.raises(InputError, match="drop_leaked=.*True or False"): sm.from_arrays(X, Y, drop_leaked=value)
    with pytest.raises(InputError, match="full=.*True or False"): sm.evaluate(sm.select(data, "random", per_class=1), data, full=value)


def test_greys_below_zero_and_an_infinite_white_are_refused():
    deep = lambda values: Image.fromarray(np.array(values, dtype=np.int32).reshape(1, -1), mode="I")
    with pytest.raises(InputError, match="white=inf"): Reading(white=float("inf"))
    with pytest.raises(InputError, match="below zero there is no black"): scale_grey(deep([-5, -3]), 1.0)
    with pytest.raises(InputError, match="below zero there is no black"): scale_grey(deep([-5, 900]))
    assert np.asarray(scale_grey(deep([-5, 50, 100]), 100)).tolist() == [[0, 128, 255]]


# ---------------------------------------------------------------- before work begins

def test_a_race_needs_a_method_with_alpha_and_beta(capsys):
    code, said = run(capsys, "search", "--data", "digits", "--method", "random", "--device", "cpu")
    assert code == 2 and "'random' has no alpha and beta to search: choose one of" in said


def test_numbers_of_numpy_are_numbers(tmp_path, data):
    for word in (np.int64(3), np.uint8(3)):
        one = sm.from_arrays(X, Y, seed=word, device="cpu", quiet=True)
        assert torch.equal(one.train.labels, sm.from_arrays(X, Y, seed=3, device="cpu", quiet=True).train.labels)
    from selmatch.data.loaders import load_data
    assert len(load_data("digits", seed=np.int64(3)).train)
    sm.select(data, "window", per_class=1, beta=np.float32(0.1)).save(tmp_path / "window")
    assert sm.load(tmp_path / "window").card["beta"] == pytest.approx(0.1)


@pytest.mark.parametrize("x", [np.zeros((60, 0, 0, 3)), np.zeros((60, 4, 0)), torch.zeros(60, 4, 4, device="meta"), torch.zeros(60, 4, 4).to_sparse()], ids=["empty", "no width", "meta", "sparse"])
def test_images_without_numbers_are_refused(x):
    with pytest.raises(InputError, match="images (of shape|are a tensor of layout)"): sm.from_arrays(x, Y)


def test_images_of_any_order_of_bytes_and_precision_are_the_same():
    as_usual = sm.from_arrays(X.astype(np.float32) / 255, Y, device="cpu", quiet=True).train
    for kind in (">f4", "<f8", ">f8", np.longdouble):
        assert torch.equal(sm.from_arrays((X.astype(np.float32) / 255).astype(kind), Y, device="cpu", quiet=True).train.images, as_usual.images)


@pytest.mark.parametrize("option", ["--networks", "--draws"])
def test_nobody_trains_a_billion_networks(option, capsys, tmp_path):
    code, said = run(capsys, "evaluate", tmp_path, "--data", "digits", option, 10**9)
    assert code == 2 and option in said and "10000" in said


def test_a_place_of_the_window_is_for_windows(data, capsys):
    with pytest.raises(InputError, match="beta=0.1 has no use for method 'random'"): sm.select(data, "random", per_class=1, beta=0.1)
    code, said = run(capsys, "distill", "--data", "digits", "--method", "dm", "--beta", "0.1")
    assert code == 2 and "no use for method 'dm'" in said


@pytest.mark.parametrize("path, said", [(None, "set=None"), (3, "set=3"), ("", "set is an empty text")])
def test_a_set_has_a_path(data, path, said):
    with pytest.raises(InputError, match=said): read_set(path, data)


@pytest.mark.parametrize("number", [-1, "x", 1.5])
def test_an_experiment_has_a_number(data, number, tmp_path):
    with pytest.raises(InputError, match=f"number={number!r}"): read_set(tmp_path, data, number=number)


def test_odd_words_networks_and_losses_are_named(data):
    with pytest.raises(InputError, match="words has the key 3"): sm.from_arrays(X, Y, words={3: 1})
    small = sm.select(data, "random", per_class=1)
    with pytest.raises(InputError, match="a torch.nn.Module is needed"): sm.evaluate(small, data, network=lambda *shape: 3, epochs=1)


@pytest.mark.parametrize("wrong", ["vector", "number", "detached", "of other things"])
def test_a_loss_is_one_number_that_depends_on_the_images(wrong, data):
    from selmatch.api import Question

    class Wrong(Question):
        def loss(self, images, labels, generator):
            return {"vector": images.flatten(1).sum(1), "number": 1.5, "detached": images.sum().detach(), "of other things": torch.ones(1, requires_grad=True).sum()}[wrong]

    with pytest.raises(InputError, match="the loss of Wrong.*one number is needed"): sm.distill(data, Wrong, per_class=1, iterations=1)


# ---------------------------------------------------------------- memory

def test_mapped_tensors_are_compared_and_outlive_their_file(tmp_path):
    from selmatch.core import DamagedFile, load_tensors, save_tensors
    file = tmp_path / "t.safetensors"
    save_tensors(file, {"images": torch.full((50, 3), 2.0), "labels": torch.arange(50)}, {"a": 1})
    mapped, card = load_tensors(file, mapped=["images"])
    save_tensors(file, {"images": torch.zeros(50, 3), "labels": torch.arange(50)}, {"a": 2})      # replaced, not changed
    assert mapped["images"].unique().tolist() == [2.0] and card == {"a": 1}
    raw = bytearray(file.read_bytes())
    raw[-5] ^= 1
    file.write_bytes(raw)
    with pytest.raises(DamagedFile): load_tensors(file, mapped=["images", "labels"])


@pytest.mark.skipif(not Path("/proc/self/status").exists() or "RssAnon" not in Path("/proc/self/status").read_text(), reason="this system does not say what a process has of its own")
def test_kept_sets_take_no_memory_of_their_own(tmp_path):
    from selmatch.data.images import ImageSet
    from selmatch.distill.sets import SyntheticSet, load_set, save_set
    from selmatch.computer import give_back
    own = lambda: give_back() or int(next(line for line in open("/proc/self/status") if line.startswith("RssAnon")).split()[1]) / 1024
    data = ImageSet(torch.randn(6000, 3, 32, 32), torch.arange(6000) % 2, ("a", "b"), (0.5,) * 3, (0.2,) * 3)
    save_set(SyntheticSet(data, torch.ones(6000).bool()), tmp_path / "set")
    key = data.key
    load_set(tmp_path / "set", mapped=True).data.key                       # whatever is needed once
    before = own()
    kept = [load_set(tmp_path / "set", mapped=True) for _ in range(4)]     # 70 MB each
    assert {small.data.key for small in kept} == {key} and own() - before < 40


def test_who_asks_for_a_digest_does_not_keep_the_pixels(tmp_path):
    from selmatch.distill.sets import SyntheticSet
    from selmatch.study.tables import tags_of
    train = sm.from_folder(str(pictures(tmp_path / "src")), device="cpu", workers=1, quiet=True).train
    small = SyntheticSet(train.subset(torch.arange(6)), torch.zeros(6).bool())
    tags = tags_of(type("S", (), {"ipc": lambda self, ratio: 3})(), small, "random", 0.1, 0)
    assert "images" not in vars(small.data) and len(tags["images"]) == 8
    assert tags["images"] == tags_of(type("S", (), {"ipc": lambda self, ratio: 3})(), SyntheticSet(replace(small.data, images=small.data.images.clone()), small.distilled), "random", 0.1, 0)["images"]
