"""Data that people have in memory: names in an order of their own, splits of every kind, and what is refused with its reason."""
from dataclasses import replace

import numpy as np
import pytest
import torch

from conftest import refuses
import selmatch as sm
from selmatch import api
from selmatch.api import change_words, find_columns, name_network, read_columns, read_labels, read_pixels, stack_dataset, stack_images
from selmatch.core import InputError
from selmatch.study.profile import load_profile
from selmatch.train.networks import networks

RNG = np.random.default_rng(0)
X, Y = RNG.random((24, 8, 8)), np.arange(24) % 2
OTHER = RNG.random((6, 8, 8))     # test images that none of X repeats


def opened(*given, **words):
    return sm.from_arrays(*given, words={"network.width": 4, "network.depth": 1}, quiet=True, **words)


# ---------------------------------------------------------------- labels

def test_names_of_classes_stay_with_their_images():
    """Names and `classes` in another order than the alphabet's: each image was called by another class's name."""
    y = ["cat", "dog", "cat", "ant"]
    labels, names = read_labels(y, 4, ["dog", "cat", "ant"])
    assert [names[i] for i in labels] == y and names == ("dog", "cat", "ant")
    labels, names = read_labels(y, 4)
    assert [names[i] for i in labels] == y and names == ("ant", "cat", "dog")
    labels, names = read_labels(np.array([5, 9, 5]), 3)
    assert names == ("5", "9") and labels.tolist() == [0, 1, 0]
    labels, names = read_labels(torch.tensor([1, 0, 1]), 3, ["no", "yes"])
    assert names == ("no", "yes") and labels.tolist() == [1, 0, 1]
    labels, names = read_labels(["a", "b"], 2, ["a", "b", "rare"])
    assert names == ("a", "b", "rare"), "a class may have no image here"
    data = opened(X, np.where(Y == 0, "zebra", "ape"), classes=["zebra", "ape"])
    whites = {name: int((data.train.labels == data.classes.index(name)).sum()) for name in data.classes}
    assert data.classes == ("zebra", "ape") and sum(whites.values()) == len(data.train)


@pytest.mark.parametrize("y, n, classes, words", [
    (["cat", "dog"], 2, ["cat", "horse"], ["label 'dog'", "cat, horse"]), ([0, 2], 2, ["a", "b"], ["[0, 2]", "2 class names"]), ([-1, 0], 2, ["a", "b"], ["[-1, 0]"]),
    ([0.5, 1.5], 2, None, ["float64", "numbers or names"]), ([True, False], 2, None, ["bool"]), ([[0], [1]], 2, None, ["(2, 1)", "2 images"]), (["x", "x"], 2, None, ["one class only", "'x'"])])
def test_labels_that_cannot_be(y, n, classes, words):
    refuses(lambda: read_labels(y, n, classes), *words)


def test_a_test_set_of_other_classes_is_refused():
    refuses(lambda: opened(X, Y, test=(X, Y + 1)), "('1', '2')", "('0', '1')")
    held = opened(X, Y, test=(OTHER, np.zeros(6, int)), classes=["even", "odd"])
    assert len(held.test) == 6 and held.test.classes == ("even", "odd"), "with names a class may be missing in the test set"
    assert "2 classes of (1, 8, 8) images" in str(held) and "6 test" in str(held)


# ---------------------------------------------------------------- pixels

def test_pixels_of_half_precision_are_read():
    """PyTorch hands no bfloat16 over to NumPy: the error was PyTorch's."""
    x = torch.rand(3, 1, 4, 4)
    for kind in (torch.float16, torch.bfloat16, torch.float64): assert torch.allclose(read_pixels(x.to(kind)), x, atol=0.01)
    assert read_pixels(torch.full((2, 4, 4), 255, dtype=torch.uint8)).max() == 1
    assert read_pixels(x.requires_grad_()).dtype == torch.float32


@pytest.mark.parametrize("x, words", [
    (np.zeros((4, 8)), ["(4, 8)", "1 or 3 channels"]), (np.zeros((4, 2, 8, 8)), ["(4, 2, 8, 8)"]), (np.zeros((0, 8, 8)), ["(0, 1, 8, 8)"]), (np.full((2, 4, 4), np.nan), ["NaN"]),
    (np.zeros((2, 4, 4), bool), ["bool"]), (np.full((2, 4, 4), -0.5), ["[-0.5, -0.5]", "undo a normalisation"]), ([[0.5]], ["list"])])
def test_pixels_that_cannot_be(x, words):
    refuses(lambda: read_pixels(x), *words)


# ---------------------------------------------------------------- datasets of PyTorch and of Hugging Face

class Pairs:
    def __init__(self, items): self.items = items
    def __len__(self): return len(self.items)
    def __getitem__(self, i): return self.items[i]


@pytest.mark.parametrize("dataset, words", [(Pairs([]), ["empty"]), ("cifar10", ["str", "len()"]), ({"train": 1}, ["dict"]), (Pairs([(1, 2, 3)]), ["dataset[0]", "tuple"]),
                                            (Pairs([(X[0], 0), (X[0][:4], 1)]), ["image 1", "(4, 8)", "(8, 8)", "resize"]), (Pairs([(np.zeros(8), 0)]), ["image 0", "(8,)"])])
def test_datasets_that_cannot_be_stacked(dataset, words):
    refuses(lambda: stack_dataset(dataset), *words)


def test_labels_and_images_of_tensors_are_plain():
    x, y = stack_dataset(Pairs([(torch.ones(3, 4, 4), torch.tensor(1)), (torch.zeros(3, 4, 4), np.int64(0))]))
    assert y == [1, 0] and type(y[0]) is int and x.shape == (2, 3, 4, 4)
    data = sm.from_torch(Pairs([(x, int(y)) for x, y in zip(X, Y)]), Pairs([(x, int(y)) for x, y in zip(OTHER[:4], Y[:4])]), words={"network.width": 4, "network.depth": 1}, quiet=True)
    assert len(data.test) == 4 and len(data) == 24 and data.study.profile.data["root"] == "Pairs"


Image = type("Image", (), {})
ClassLabel = type("ClassLabel", (), {"names": ["even", "odd"]})


class Split:
    def __init__(self, rows, features=None): self.rows, self.features = rows, {"img": Image(), "label": ClassLabel()} if features is None else features
    def __getitem__(self, name): return [X[i] for i in self.rows] if name == "img" else [int(Y[i]) for i in self.rows]
    def __len__(self): return len(self.rows)


def from_splits(splits):
    return sm.from_huggingface(splits, words={"network.width": 4, "network.depth": 1}, quiet=True)


def test_a_split_is_never_its_own_test_set():
    """With no split called train, the first was trained on, and tested on, too."""
    rows = lambda n, first=0: Split(range(first, first + n))
    for name in ("test", "validation", "all"):
        data = from_splits({name: rows(24)})
        assert len(data.train) + len(data.validation) + len(data.test) == 24 and not {x.tobytes() for x in data.train.images.numpy()} & {x.tobytes() for x in data.test.images.numpy()}
    sizes = {names: len(from_splits(dict(zip(names, (rows(12), rows(6, 12), rows(4, 20))))).test) for names in (("train", "test"), ("train", "validation"), ("train", "validation", "test"), ("validation", "test"))}
    assert sizes == {("train", "test"): 6, ("train", "validation"): 6, ("train", "validation", "test"): 4, ("validation", "test"): 6}
    refuses(lambda: from_splits({}), "no split")


def test_columns_are_found_by_their_kind_or_named():
    assert find_columns(Split([]), None, None) == ("img", "label", ["even", "odd"])
    plain = Split([], {"img": Image(), "label": object(), "fine": object()})
    assert find_columns(plain, None, None) == ("img", "label", None) and find_columns(plain, None, "fine") == ("img", "fine", None)
    refuses(lambda: find_columns(Split([], {"text": object(), "label": object()}), None, None), "no column of images", "text, label", "image=")
    refuses(lambda: find_columns(Split([], {"img": Image(), "text": object()}), None, None), "no column of labels", "label=")
    refuses(lambda: find_columns(plain, "picture", None), "no column of images")
    refuses(lambda: find_columns([1, 2], None, None), "list", "load_dataset")


def test_pictures_of_several_kinds_become_colour():
    from PIL import Image as Pictures
    grey, colour = Pictures.new("L", (4, 4), 7), Pictures.new("RGB", (4, 4), (7, 8, 9))
    part = type("Part", (), {"__getitem__": lambda self, name: [grey, colour] if name == "img" else (0, 1)})()
    x, y = read_columns(part, "img", "label")
    assert x.shape == (2, 4, 4, 3) and x[0, 0, 0].tolist() == [7, 7, 7] and x[1, 0, 0].tolist() == [7, 8, 9] and y == [0, 1]
    assert stack_images([grey, grey]).shape == (2, 4, 4)


# ---------------------------------------------------------------- words, networks and sets

def test_words_that_bring_others_with_them():
    p = load_profile("digits")
    changed = change_words(p, {"ratios": [0.07]})
    near = min(p.alpha, key=lambda r: abs(r - 0.07))
    assert changed.alpha[0.07] == p.alpha[near] and set(p.alpha) <= set(changed.alpha)
    assert change_words(p, {"ratios": [0.07], "alpha": {0.07: 0.9}}).alpha[0.07] == 0.9
    fewer = change_words(p, {"matching.iterations": 1}).matching
    assert fewer.iterations == 1 and max(fewer.evaluate_at, default=0) <= 1
    refuses(lambda: change_words(p, {"name.first": 3}), "name.first=3", "holds no words")


def test_a_network_of_somebody_does_not_take_the_name_of_ours(monkeypatch):
    monkeypatch.setattr(api, "networks", dict(networks))
    class ConvNet: pass
    refuses(lambda: name_network(ConvNet), "'ConvNet'", "another name")
    class Mine: pass
    first = Mine
    assert name_network(first) == {"name": "Mine"} == name_network(first)
    class Mine: pass
    assert name_network(Mine) == {"name": "Mine"} and api.networks["Mine"] is Mine, "defined again, as in a notebook"
    assert name_network(networks["ConvNet"]) == {"name": "ConvNet"}
    refuses(lambda: name_network({"width": 3}), "network None")


def test_a_set_of_other_images_is_no_set_of_these():
    data, other = opened(X, Y), opened(X, np.arange(24) % 3)
    small = sm.select(other, "random", per_class=1)
    refuses(lambda: sm.evaluate(small, data), "3 classes", "2", "must agree")
    refuses(lambda: sm.select(data, "random", per_class=2, beta=1.5), "beta=1.5")
    assert len(sm.select(data, "random", per_class=2)) == len(sm.select(data, "random", per_class=2).to_torch()) == 4
    assert replace(small, study=None).card == small.card


def test_a_set_of_another_split_is_not_judged(tmp_path):
    """A set from seed 0 on the data of seed 1 holds test images; a number was returned."""
    words = {"results": tmp_path, "workers": 1}
    here, there = opened(X, Y, **words), opened(X, Y, seed=1, **words)
    small = sm.select(here, "random", per_class=2)
    saved = sm.load(small.save(tmp_path / "set"))
    for one in (small, small.made, saved):
        for judge in (sm.evaluate, lambda one, data: sm.compare({"mine": one}, data)): refuses(lambda: judge(one, there), "other training images", here.train.key, "data.seed")
    assert api.check_small(saved, here.study) is saved.made
    foreign = replace(small.made, card={}, data=replace(small.data, mean=(0.3,)))
    refuses(lambda: sm.evaluate(foreign, here), "normalised by (0.3,)")


def test_classes_that_are_missing_somewhere():
    y = np.array(list("abc"))[np.arange(24) % 3]
    data = opened(X, y, test=(OTHER[:4], list("bcbc")), classes=["a", "b", "c"])
    assert [data.classes[c] for c in data.test.labels] == list("bcbc")
    refuses(lambda: opened(X, np.where(Y == 0, "a", "b"), classes=["a", "b", "rare"]), "no training image", "'rare'")


def test_every_split_is_used_for_what_it_is():
    """A validation split beside train and test was left out, and test was trained on where it stood first."""
    rows = lambda n, first=0: Split(range(first, first + n))
    sizes = lambda data: (len(data.train), len(data.validation), len(data.test))
    names = ("train", "valid", "test")
    for order in ((0, 1, 2), (2, 1, 0)):
        parts = {names[i]: (rows(12), rows(8, 12), rows(4, 20))[i] for i in order}
        assert sizes(from_splits(parts)) == (12, 8, 4)
    for parts in ({"test": rows(6, 12), "validation": rows(12)}, {"validation": rows(12), "test": rows(6, 12)}):
        data = from_splits(parts)
        assert sizes(data)[2] == 6 and sizes(data)[0] + sizes(data)[1] == 12
    with pytest.warns(UserWarning, match="not used: 'extra'"): assert sizes(from_splits({"train": rows(12), "extra": rows(4), "test": rows(6, 12)}))[2] == 6
    refuses(lambda: from_splits({"train": rows(12), "val": rows(4), "validation": rows(4)}), "'val' and 'validation'")
    own = sm.from_huggingface({"train": rows(12), "validation": rows(8, 12), "test": rows(4, 20)}, validation=0.5, quiet=True)
    assert sizes(own) == (6, 6, 4), "as asked"


# ---------------------------------------------------------------- folders, and the profile that reads them

@pytest.fixture
def mine(tmp_path):
    from PIL import Image as Pictures
    for c, name in enumerate(("cat", "dog")):
        (tmp_path / "mine" / name).mkdir(parents=True)
        for i in range(20): Pictures.fromarray(np.random.default_rng(40 * c + i).integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(tmp_path / "mine" / name / f"{i}.png")
    return tmp_path / "mine"


def test_a_profile_says_how_a_folder_is_read(mine, tmp_path):
    """`from_folder` and shrink dropped its data section: evaluate read other images of another size, and shrink could mirror them."""
    from selmatch.app import make_data
    from selmatch.study.profile import profile_folder
    own = (profile_folder / "folder.yaml").read_text().replace("data: {name: folder, root: ., size: 32}", "data: {name: folder, root: ., size: 16, mode: L, validation: 0.4, flip: no}")
    (tmp_path / "my.yaml").write_text(own)
    words = {"profile": str(tmp_path / "my.yaml"), "quiet": True, "results": tmp_path}
    data, other = sm.from_folder(mine, **words), make_data(data=f"folder:{mine}", profile=words["profile"], quiet=True, device="cpu", workers=1)
    assert data.shape == (1, 16, 16) and len(data.train) == 18 and data.train.key == other.train.key
    assert not {"flip", "simple"} & {*data.study.profile.allowed.strong, data.study.profile.allowed.simple}
    assert sm.from_folder(mine, 8, validation=0.2, **words).shape == (1, 8, 8) and sm.from_folder(mine, None, mode="RGB", **words).shape == (3, 32, 32)
    assert sm.from_folder(mine, quiet=True).shape == (3, 32, 32) and sm.from_folder(mine, profile="digits", quiet=True).shape == (3, 32, 32)
    arrays = sm.from_arrays(X, Y, **words)
    assert len(arrays.validation) > len(sm.from_arrays(X, Y, quiet=True).validation) and arrays.study.profile.allowed == data.study.profile.allowed


def test_shrink_reads_as_the_profile_says(mine, tmp_path, monkeypatch, say):
    from selmatch.show import card
    seen = []
    monkeypatch.setattr(card, "shrink", lambda folder, out, **words: seen.append(words))
    for given, size in (((), None), (("--size", "24"), 24)):
        code, said, errors = say("shrink", mine, "--out", tmp_path / "small", "--device", "cpu", *given)
        assert code == 0 and seen.pop().get("size") == size, errors


@pytest.mark.parametrize("size, depth", [(4, 1), (6, 1), (64, 4)])
def test_the_network_is_as_deep_as_the_images_ask_for(size, depth, mine):
    """Small images were refused before the depth was found out, and stages distilled with another depth than evaluate judged with."""
    from selmatch.app import make_data, make_study
    data = sm.from_folder(mine, size, quiet=True)
    words = {"data": f"folder:{mine}", "size": size, "quiet": True, "device": "cpu"}
    made = [data.study.network, make_data(**words).study.network, make_study(ratio=0.1, **words).network]
    assert [one["depth"] for one in made] == [depth] * 3
    assert make_study(words=("network.depth=1",), **words).network["depth"] == 1


def test_images_in_memory_are_searched_for_leaks_as_folders_are():
    x = torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    y = torch.arange(40) % 2
    with pytest.warns(UserWarning, match=r"2 images outside the training set repeat a training image"):
        sm.from_arrays(x[:30], y[:30], test=(x[28:], y[28:]))
    data = sm.from_arrays(x[:30], y[:30], test=(x[28:], y[28:]), drop_leaked=True)
    assert len(data.test) == 10
    with pytest.raises(InputError, match="all 10 test images"):
        sm.from_arrays(x[:30], y[:30], test=(x[:10], y[:10]), drop_leaked=True)
    twice = torch.cat([x, x[:4]]), torch.cat([y, y[:4]])
    with pytest.warns(UserWarning, match="4 images are copies of others"):
        sm.from_arrays(*twice)
    data = sm.from_arrays(*twice, drop_leaked=True)
    splits = data.study.splits
    assert sum(map(len, (splits.train, splits.validation, splits.test))) == 40 and splits.total == 44


def test_rows_count_what_was_given_where_copies_are_left_out():
    x = torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    first = torch.cat([x[:1], x]), torch.cat([torch.tensor([0]), torch.arange(40) % 2])     # row 1 repeats row 0
    splits = sm.from_arrays(*first, drop_leaked=True).study.splits
    assert 1 not in splits.rows
    shown = splits.train.images * torch.tensor(splits.train.std).view(-1, 1, 1) + torch.tensor(splits.train.mean).view(-1, 1, 1)
    torch.testing.assert_close(shown, first[0][splits.rows])
