"""Files of other people that almost fit: what is read, and what is refused with its reason."""
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from conftest import refuses
import selmatch as sm
from selmatch import api, others
from selmatch.core import InputError
from selmatch.others import check_labels, check_shape, find_labels, find_normalisation, find_pair, match_data, read_folder, read_set, say_table, undo_normalisation

IMAGES, LABELS, HERE = torch.rand(6, 3, 4, 4), torch.arange(6) % 2, Path("theirs.pt")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    rng = np.random.default_rng(0)
    return sm.from_arrays(rng.random((24, 8, 8, 3)), np.arange(24) % 2, classes=["cat", "dog"], words={"network.width": 4, "network.depth": 1}, results=tmp_path_factory.mktemp("home"), quiet=True)


@pytest.mark.parametrize("content, labelled", [(IMAGES, False), ([IMAGES, LABELS], True), ((IMAGES, LABELS), True), ({"images": IMAGES, "labels": LABELS}, True), ({"image_syn": IMAGES, "label_syn": LABELS}, True),
                                               ({"images": IMAGES}, False), ({"data": [[IMAGES * 0, LABELS], {"images": IMAGES, "labels": LABELS}]}, True)])
def test_pairs_in_every_wrapping(content, labelled):
    images, labels = find_pair(content, HERE, 1 if isinstance(content, dict) and "data" in content else 0)
    assert torch.equal(images, IMAGES) and images.dtype == torch.float32
    assert torch.equal(labels, LABELS) if labelled else labels is None


@pytest.mark.parametrize("content, words", [({"data": 3}, ["experiment 0", "it has none"]), ({"data": [[IMAGES, LABELS]]}, []), ({"data": []}, ["it has 0"]), (IMAGES[0], ["(3, 4, 4)", "(n, c, h, w)"]), ("words", ["str"]), ({}, ["a dict of nothing"]),
                                            ([IMAGES], ["list"]), ((IMAGES, LABELS, 3), ["tuple"])])
def test_what_holds_no_images_says_what_it_holds(content, words):
    if words: refuses(lambda: find_pair(content, HERE), "theirs.pt", *words)
    else: refuses(lambda: find_pair(content, HERE, 1), "experiment 1", "it has 1")


@pytest.mark.parametrize("labels, words", [(["cat"] * 6, ["list", "tensor is needed"]), ({"a": 1}, ["dict"]), (None, ["NoneType"]), (torch.full((6,), float("nan")), ["NaN"]), (torch.full((6, 2), float("inf")), ["NaN or infinite"]),
                                           (LABELS[:5], ["(5,)", "(6,)", "(6, 2)"]), (torch.zeros(6, 3), ["(6, 3)"]), (LABELS + 1, ["[1, 2]", "2 classes"]), (LABELS - 1, ["[-1, 0]"])])
def test_labels_that_cannot_be(labels, words):
    """Words in place of numbers ended in PyTorch's own words; numbers that are none taught nothing but NaN."""
    refuses(lambda: check_labels(labels, IMAGES, 2, HERE), "theirs.pt", *words)


def test_labels_that_can_be():
    assert check_labels(LABELS.tolist(), IMAGES, 2, HERE).dtype == torch.int64
    assert check_labels(LABELS.float(), IMAGES, 2, HERE).tolist() == LABELS.tolist()
    soft = torch.tensor([[0.25, 0.75]] * 6)
    assert torch.equal(check_labels(soft, IMAGES, 2, HERE), soft)
    assert torch.allclose(check_labels(4 * soft, IMAGES, 2, HERE), (4 * soft).softmax(1)), "logits"


def test_labels_beside_the_images(tmp_path):
    refuses(lambda: find_labels(tmp_path / "mine.pt", None), "without labels", "--label-file")
    refuses(lambda: find_labels(tmp_path / "images_best.pt", None), "labels_best.pt is not there")
    refuses(lambda: find_labels(tmp_path / "images_best.pt", tmp_path / "other.pt"), "other.pt is not there")
    torch.save(LABELS, tmp_path / "labels_best.pt")
    assert torch.equal(find_labels(tmp_path / "images_best.pt", None)[0], LABELS)


def test_images_of_another_form_or_none(data):
    refuses(lambda: check_shape(torch.zeros(2, 1, 8, 8), data.train, HERE), "(1, 8, 8)", "(3, 8, 8)", "--size")
    refuses(lambda: check_shape(torch.zeros(0, 3, 8, 8), data.train, HERE), "theirs.pt holds no image")
    refuses(lambda: check_shape(torch.full((1, 3, 8, 8), float("inf")), data.train, HERE), "NaN or infinite")


def test_normalisations_are_told_apart_by_their_numbers(data):
    pixels = torch.rand(20, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (data.train.mean, data.train.std))
    stored = {"pixels": pixels, "bytes": (255 * pixels).round(), "half": 2 * pixels - 1, "data": (pixels - mean) / std}
    for kind, images in stored.items():
        assert find_normalisation(images, data.train) == kind
        assert torch.allclose(undo_normalisation(images, kind, data.train), pixels, atol=3e-3), kind
    im_mean, im_std = (torch.tensor(v).view(1, -1, 1, 1) for v in others.imagenet)
    assert torch.allclose(undo_normalisation((pixels - im_mean) / im_std, "imagenet", data.train), pixels, atol=1e-5)
    refuses(lambda: find_normalisation(100.5 * pixels, data.train), "cannot be told", "--normalised")
    refuses(lambda: undo_normalisation(torch.zeros(1, 1, 8, 8), "imagenet", data.train), "1 channels", "imagenet")


def test_a_folder_of_ours_that_has_lost_its_tensors_is_read_by_its_pictures(data, tmp_path):
    from PIL import Image
    for place in ("flat", "inside/images"):
        for c, name in enumerate(("dog", "cat")):
            (tmp_path / place / name).mkdir(parents=True)
            Image.new("RGB", (8, 8), (50 * c, 0, 255)).save(tmp_path / place / name / "0.png")
    for place in ("flat", "inside"):
        pixels, labels = read_folder(tmp_path / place, data.train)
        assert pixels.shape == (2, 3, 8, 8) and {int(c): round(255 * float(x[0, 0, 0])) for x, c in zip(pixels, labels)} == {1: 0, 0: 50}
        small = read_set(tmp_path / place, data)
        assert small.card["normalised"] == "pixels" and small.data.classes == ("cat", "dog")
    (tmp_path / "flat" / "cow").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "flat" / "cow" / "0.png")
    refuses(lambda: read_set(tmp_path / "flat", data), "'cow'", "cat, dog")
    refuses(lambda: read_set(tmp_path / "none", data), "none does not exist")


def test_a_set_of_ours_that_is_normalised_otherwise_is_to_be_read_by_its_pictures(data):
    made = sm.select(data, "random", per_class=1).made
    assert match_data(made, data, HERE) is made
    other = replace(made, data=replace(made.data, mean=(0.1,) * 3))
    refuses(lambda: match_data(other, data, HERE), "normalised by (0.1, 0.1, 0.1)", "theirs.pt", "images")
    foreign = replace(made, card=made.card | {"train_fingerprint": "abc"})
    refuses(lambda: match_data(foreign, data, HERE), "other training images (abc)", data.train.key)
    assert match_data(replace(made, card={}), data, HERE).card == {}, "a card that does not say is believed"


def test_labels_may_be_in_the_order_of_text(tmp_path):
    """`ImageFolder` sorts 0, 1, 10, 11, 2, …: ten of twelve classes changed places, and nothing was said."""
    rng = np.random.default_rng(0)
    y = np.arange(48) % 12
    data = sm.from_arrays(rng.random((48, 4, 4)), y, words={"network.width": 4, "network.depth": 1}, results=tmp_path / "home", quiet=True)
    assert data.classes == tuple(map(str, range(12)))
    as_text = {name: i for i, name in enumerate(sorted(data.classes))}
    own = data.train.labels[:12]
    torch.save(data.train.images[:12], tmp_path / "images_best.pt")
    torch.save(torch.tensor([as_text[data.classes[c]] for c in own]), tmp_path / "labels_best.pt")
    read = lambda **words: read_set(tmp_path / "images_best.pt", data, **words)
    assert torch.equal(read(label_order="text").labels, own)
    with pytest.warns(UserWarning, match="0, 1, 10, 11.*--label-order text"): assert not torch.equal(read().labels, own)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(read(label_order="number").labels, read_labels_of(tmp_path))
    refuses(lambda: read(label_order="letters"), "letters", "number, text")
    soft = torch.nn.functional.one_hot(read_labels_of(tmp_path), 12).float()
    assert torch.equal(others.order_classes(soft, data.classes, "text").argmax(1), own)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for names in (("cat", "dog"), tuple("0123456789")): assert torch.equal(others.order_classes(LABELS, names, None), LABELS)


def read_labels_of(place):
    return torch.load(place / "labels_best.pt")


def test_names_that_no_folder_has_come_back(tmp_path):
    """What we write ourselves was refused: `what?` is the folder `what%3f`."""
    names = ["what?", "b ", "test", "50%25", "e\u0301"]
    y = np.array(names)[np.arange(60) % 5]
    data = sm.from_arrays(np.random.default_rng(0).random((60, 4, 4)), y, classes=names, words={"network.width": 4, "network.depth": 1}, results=tmp_path / "home", quiet=True)
    small = sm.select(data, "random", per_class=2)
    small.save(tmp_path / "set")
    counts = [2] * 5
    for listed in (True, False):
        if not listed: (tmp_path / "set/images/classes.json").unlink()
        assert read_folder(tmp_path / "set", data.train)[1].bincount().tolist() == counts
    from selmatch.data.export import save_folder
    save_folder(data.train, tmp_path / "again")
    again = sm.from_folder(tmp_path / "again", 4, quiet=True, results=tmp_path / "home")
    assert set(again.classes) == {"what?", "b ", "test", "50%25", "\u00e9"}
    (tmp_path / "set/images/test%~1").mkdir()
    pytest.importorskip("PIL.Image").new("L", (4, 4)).save(tmp_path / "set/images/test%~1/0.png")
    refuses(lambda: read_folder(tmp_path / "set", data.train), "was cut", "classes.json")


def test_a_folder_is_read_by_the_rules_of_the_data(tmp_path):
    """Sets were cropped where the data is stretched, padded or laid on another ground."""
    from PIL import Image
    for c, name in enumerate(("cat", "dog")):
        (tmp_path / "mine" / name).mkdir(parents=True)
        for i in range(6):
            wide = Image.new("RGB", (16, 8), (255, 0, 0))
            wide.paste((0, 40 * i, 250 - 90 * c), (4, 0, 12, 8))
            wide.save(tmp_path / "mine" / name / f"{i}.png")
    for rule in ({"fit": "stretch"}, {"fit": "pad", "background": "black"}, {}):
        data = sm.from_folder(tmp_path / "mine", 8, quiet=True, results=tmp_path / "home", **rule)
        small = read_set(tmp_path / "mine", data)
        known = {(255 * x).round().byte().numpy().tobytes() for x in small_pixels(small)}
        parts = [data.train, data.validation, data.test]
        assert known == {(255 * x).round().byte().numpy().tobytes() for part in parts for x in small_pixels(part)}, rule


def small_pixels(data):
    data = getattr(data, "data", data)
    mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (data.mean, data.std))
    return (data.images * std + mean).clamp(0, 1)


def test_whitened_data_takes_sets_of_others(tmp_path):
    """Mean and deviation of whitened images are no numbers: a set was not read, and leaks were not counted."""
    rng = np.random.default_rng(0)
    x, y = rng.random((40, 4, 4, 3)), np.arange(40) % 2
    quick = {"network.width": 4, "network.depth": 1, "evaluation.steps": 2, "evaluation.n": 1, "whiten": True}
    data = sm.from_arrays(x, y, words=quick, results=tmp_path / "home", quiet=True, workers=1)
    own = sm.select(data, "random", per_class=2)
    own.save(tmp_path / "mine")
    theirs = read_set(tmp_path / "mine" / "images", data)
    assert theirs.images.shape == own.images.shape and theirs.data.mean == data.train.mean
    assert torch.allclose(theirs.images.sort(0).values, own.images.sort(0).values, atol=0.2), "to 256 shades"
    table = others.compare({"theirs": theirs}, data, draws=0, full=False)
    assert len(table) == 1
    leak = replace(own.made, data=data.test)
    assert api.count_leaks(leak, data) == len(data.test) and api.count_leaks(own.made, data) == 0
    theirs.save(tmp_path / "again")
    assert torch.allclose(sm.load(tmp_path / "again").images, theirs.images)


def test_nothing_is_compared_with_nothing(data):
    refuses(lambda: others.compare({}, data), "sets is empty")
    refuses(lambda: others.compare({"a": sm.select(data, "random", per_class=1)}, data, augmentation="blur"), "'blur'")
    row = SimpleNamespace(itertuples=lambda: [SimpleNamespace(set="mine", images=4, mean=50.0, half=float("nan"), sets=1, networks=1, over="networks")])
    assert "50.0 %" in say_table(row) and "±" not in say_table(row) and "1 set, " in say_table(row)
