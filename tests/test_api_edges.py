"""Data that people have in memory: names in an order of their own, splits of every kind, and what is refused with its reason."""
from dataclasses import replace

import numpy as np
import pytest
import torch

import selmatch as sm
from selmatch import api
from selmatch.api import change_words, find_columns, name_network, read_columns, read_labels, read_pixels, stack_dataset, stack_images
from selmatch.core import InputError
from selmatch.study.profile import load_profile
from selmatch.train.networks import networks

RNG = np.random.default_rng(0)
X, Y = RNG.random((24, 8, 8)), np.arange(24) % 2


def refuses(call, *words):
    with pytest.raises(InputError) as error: call()
    for word in words: assert word in str(error.value), error.value
    assert "\n" not in str(error.value)


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
    held = opened(X, Y, test=(X[:6], np.zeros(6, int)), classes=["even", "odd"])
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
    data = sm.from_torch(Pairs([(x, int(y)) for x, y in zip(X, Y)]), Pairs([(x, int(y)) for x, y in zip(X[:4], Y[:4])]), words={"network.width": 4, "network.depth": 1}, quiet=True)
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
