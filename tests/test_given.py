"""What people hand over from Python and by the command line: pictures of every kind, labels, places; siblings of the handed cases."""
import json
import os

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import selmatch as sm
from conftest import refuses
from selmatch.app import main
from selmatch.others import check_labels, find_pair

QUICK = {"network.width": 4, "network.depth": 1, "evaluation.steps": 5, "evaluation.n": 2, "score.epochs": 1, "score.runs": 1, "window.step": 0.5, "window.n": 1}
WORDS = [word for k, v in QUICK.items() for word in ("--set", f"{k}={v}")]
X = np.random.default_rng(0).integers(0, 255, (24, 16, 16, 3), dtype=np.uint8)
Y = np.arange(24) % 3


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("SELMATCH_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder, classes=("cat", "owl"), n=24):
    for c, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for i in range(n):
            Image.fromarray(np.random.default_rng(100 * c + i).integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(folder / name / f"{i}.png")
    return folder


def run(*words) -> int:
    with pytest.raises(SystemExit) as stop: main(list(map(str, words)))
    return stop.value.code


class Split:
    "As much of a split of `datasets` as is asked for."
    def __init__(self, pictures):
        self.columns = {"image": pictures, "label": [i % 2 for i in range(len(pictures))]}
        self.features = {"image": type("Image", (), {})(), "label": type("ClassLabel", (), {"names": ["a", "b"]})()}

    def __getitem__(self, name): return self.columns[name]


def fill(mode, value, **more):
    "A picture of one kind, all of one value."
    array = {"I;16": np.uint16, "I": np.int32, "F": np.float32}.get(mode)
    image = Image.fromarray(np.full((8, 8), value, dtype=array)) if array else Image.new(mode, (8, 8), value)
    image.info |= more
    return image


def of_palette(colour):
    image = Image.new("P", (8, 8), 0)
    image.putpalette([*colour, *[0] * 765])
    return image


@pytest.mark.parametrize("way", ["torch", "huggingface"])
@pytest.mark.parametrize("picture, mean", [
    (fill("I;16", 32768), 0.5), (fill("F", 0.25), 0.25), (fill("L", 51), 0.2), (fill("1", 1), 1), (of_palette((255, 255, 255)), 1), (of_palette((0, 0, 0)), 0),
    (fill("RGBA", (0, 0, 0, 0)), 1), (fill("LA", (0, 0)), 1), (fill("HSV", (0, 0, 255)), 1), (fill("CMYK", (0, 0, 0, 0)), 1)])
def test_pictures_in_memory_are_seen_as_files_are(picture, mean, way):
    """Deep greys keep their scale, palettes their colours, and what is transparent lies on white."""
    read = {"torch": lambda: sm.api.stack_dataset([(picture, 0)])[0], "huggingface": lambda: sm.api.read_columns(Split([picture]), "image", "label")[0]}
    array = read[way]()
    assert array.dtype == np.uint8 and array.mean() / 255 == pytest.approx(mean, abs=0.01)
    grey, coloured = fill("L", 51), fill("RGB", (0, 0, 0))
    assert sm.api.stack_images([grey, grey]).ndim == 3 and sm.api.stack_images([grey, coloured]).shape[-1] == 3


def test_greys_that_nobody_can_tell_are_refused():
    refuses(lambda: sm.api.stack_images([fill("L", 3), fill("F", 7.5)]), "image 1", "greys", "white")


def test_a_turned_picture_stands_upright():
    wide = Image.fromarray(np.arange(128, dtype=np.uint8).reshape(8, 16))
    exif = Image.Exif()
    exif[0x0112] = 6
    wide.info["exif"] = exif.tobytes()
    turned = Image.fromarray(np.asarray(wide))
    assert sm.api.stack_images([turned]).shape == (1, 8, 16)
    import io
    file = io.BytesIO()
    wide.save(file, "PNG", exif=exif)
    assert sm.api.stack_images([Image.open(file)]).shape == (1, 16, 8)


@pytest.mark.parametrize("words, said", [
    ({"test": X}, ["test is ndarray", "pair"]), ({"test": 0.25}, ["test is float"]), ({"test": (X,)}, ["test is 1 things"]), ({"test": (X, Y, Y)}, ["3 things"]), ({"test": "x"}, ["test is str"]),
    ({"validation": X}, ["validation is ndarray"]), ({"validation": (X, Y, 1)}, ["validation is 3 things"]),
    ({"test": (X[:, :8], Y)}, ["test images have shape (3, 8, 16)", "(3, 16, 16)"]), ({"test": (X[..., :1], Y)}, ["(1, 16, 16)"]), ({"validation": (X[:, :8], Y)}, ["validation images"]),
    ({"test_share": 0}, ["test_share=0", "no test image"]), ({"test_share": 2}, ["test_share=2"]), ({"validation": 0.0}, ["no validation image", "smallest class"]),
    ({"classes": ["a", "a", "b"]}, ["two classes are called 'a'"]), ({"classes": 3}, ["classes=3"]), ({"classes": "abc"}, ["classes='abc'"]),
    ({"network": 5}, ["network is a int"]), ({"words": "x"}, ["words is a str"]), ({"device": 5}, ["device is a int"]), ({"device": None}, ["device is a NoneType"]), ({"profile": 5}, ["profile is a int"]),
    ({"words": {"data.validation": 0.3}}, ["data.validation says how files are read"]), ({"results": ""}, ["results is an empty text"]), ({"results": 5}, ["results=5", "a path is needed"])])
def test_arrays_with_words_that_cannot_be(words, said):
    refuses(lambda: sm.from_arrays(X, Y, **words), *said)


@pytest.mark.parametrize("labels, said", [
    ([None, *Y[1:].tolist()], ["labels[0]=None", "each image needs a class"]), (np.array(["a"] * 23 + [float("nan")], dtype=object), ["labels[23]=nan"]), (np.r_[Y[1:], np.nan], ["labels[23]=nan"]),
    ([1, *["1"] * 12, *[2] * 11], ["two classes are called"]), ([{"a": 1}] * 24, ["labels[0]={'a': 1}"]), ([[0, 1]] * 12 + [[0]] * 12, ["labels are no list"]), (np.eye(3)[Y], ["shape (24, 3)"]), (torch.eye(3)[Y], ["shape (24, 3)"])])
def test_labels_that_name_no_class(labels, said):
    labels = np.array(labels, dtype=object) if isinstance(labels, list) and 1 in labels and "1" in labels else labels
    refuses(lambda: sm.from_arrays(X, labels), *said)


def test_data_sets_that_cannot_be():
    refuses(lambda: sm.from_torch([(torch.zeros(3, 8, 8), torch.eye(3)[i % 3]) for i in range(12)]), "labels")
    refuses(lambda: sm.from_torch([(torch.zeros(3, 8, 8, dtype=torch.bfloat16), i % 2) for i in range(12)]), "image 0 is no array of numbers")
    refuses(lambda: sm.from_huggingface(Split([])), "dataset is empty")
    data = sm.from_arrays(X, Y, quiet=True)
    refuses(lambda: sm.compare([1], data), "sets is a list")
    refuses(lambda: sm.load(None), "folder=None")
    refuses(lambda: sm.load(""), "empty text")
    refuses(lambda: sm.load(__file__), "test_given.py is a file", "folder that a set was saved to")
    refuses(lambda: sm.shrink(data, "x", budget="10m"), "budget='10m'")
    refuses(lambda: sm.shrink(data, "x", flips="no"), "unknown flips 'no'")
    refuses(lambda: sm.from_folder("~nobody-of-this-name/x"), "~nobody-of-this-name")


def test_a_tilde_is_ones_own_folder_everywhere(place, monkeypatch):
    monkeypatch.setenv("HOME", str(place / "me"))
    (place / "me").mkdir()
    small = sm.select(sm.from_arrays(X, Y, results="~/results", words=QUICK, quiet=True), "random", per_class=1)
    assert small.save("~/small") == place / "me" / "small"
    assert len(sm.load("~/small")) == 3
    monkeypatch.setenv("SELMATCH_HOME", "~/home")
    assert sm.core.home() == place / "me" / "home"
    assert not (place / "~").exists()


def test_nothing_is_written_among_the_images(place, monkeypatch, capsys):
    source = write(place / "mine")
    before = sorted(source.rglob("*"))
    small = sm.select(sm.from_folder(source, words=QUICK, quiet=True), "random", per_class=1)
    for where in (source, source / "new", place):
        refuses(lambda: small.save(where), str(where), "where the images come from")
    refuses(lambda: sm.from_folder(source, results=source / "results"), "lie among the images")
    sm.from_folder(source, results=source / ".selmatch", quiet=True)
    assert run("score", "--data", f"folder:{source}", "--out", source / "cat" / "s.csv", *WORDS) == 2
    assert "where the images come from" in capsys.readouterr().err
    monkeypatch.setenv("SELMATCH_HOME", str(source / "home"))
    for command in ("score", "select"):
        assert run(command, "--data", f"folder:{source}", *WORDS) == 2
        said = capsys.readouterr().err
        assert "lie among the images" in said.splitlines()[-1] and "Traceback" not in said
    assert sorted(source.rglob("*")) == before


def test_names_that_are_not_utf8_are_shrunk_and_spelled(place):
    source = write(place / "mine", n=30)
    os.rename(source / "owl", os.fsencode(source) + b"/h\xeebou")
    picture = next((source / "cat").iterdir())
    os.rename(picture, os.fsencode(picture.parent) + b"/caf\xe9.png")
    sm.shrink(source, "small", ratio=0.2, budget=1, size=16, words=QUICK, quiet=True, flips=False, originals="copy", tell=lambda line: None)
    files = pd.read_csv(place / "small" / "files.csv")
    assert set(files["class"].dropna()) == {"cat", "hîbou"}
    assert "cat/café.png" in set(files.original) and files.original.str.startswith("hîbou/").sum() == 30


@pytest.mark.parametrize("command, method", [("select", "window"), ("distill", "selmatch")])
def test_a_set_says_which_photographs_it_came_from(command, method, place, capsys):
    source = write(place / "mine", n=30)
    few = ["--set", "experts.n=1", "--set", "experts.epochs=16", "--set", "matching.iterations=2"]
    for _ in range(2): assert run(command, "--data", f"folder:{source}", "--method", method, "--ratio", 0.2, "--beta", 0.3, "--size", 16, "--out", "made", *WORDS, *few) == 0, capsys.readouterr().err
    assert "files.csv" in capsys.readouterr().out
    table = pd.read_csv(place / "made" / "files.csv")
    assert len(table) == len(list((place / "made" / "images").rglob("*.png"))) and table.original.is_unique
    for row in table.itertuples():
        same = np.array_equal(np.asarray(Image.open(place / "made" / row.file)), np.asarray(Image.open(source / row.original)))
        assert row.original.startswith(row[3]) and same == (row.part == "kept"), row
    (place / "made" / "files.csv").write_text("mine")
    run(command, "--data", f"folder:{source}", "--method", method, "--ratio", 0.2, "--beta", 0.3, "--size", 16, "--out", "made", *WORDS, *few)
    assert (place / "made" / "files.csv").read_text() == "mine"


def test_a_leak_stands_on_the_card(place):
    source = write(place / "mine" / "train", n=20)
    (place / "mine" / "test").mkdir()
    for name in ("cat", "owl"): (place / "mine" / "test" / name).mkdir()
    for name in ("cat", "owl"):
        for i in range(5): os.link(source / name / f"{i}.png", place / "mine" / "test" / name / f"{i}.png")
    with pytest.warns(UserWarning): sm.shrink(place / "mine", "small", ratio=0.3, budget=1, size=16, words=QUICK, quiet=True, flips=False, tell=lambda line: None)
    said = (place / "small" / "README.md").read_text()
    assert "of the 10 test images are training images, too" in said and "--drop-leaked" in said


@pytest.mark.parametrize("content, said", [
    (torch.zeros(2, 3, 8, 8).to_sparse(), "sparse"), (torch.quantize_per_tensor(torch.zeros(2, 3, 8, 8), 0.1, 0, torch.quint8), "quint8"), (torch.zeros(2, 3, 8, 8, device="meta"), "meta"),
    (torch.zeros(2, 3, 8, 8, dtype=torch.complex64), "complex64"), ({"weights": torch.zeros(3)}, "a dict of 'weights'"), ([1, 2, 3], "a list")])
def test_tensors_of_another_kind_are_no_images(content, said, place):
    refuses(lambda: find_pair(content, place / "x.pt"), "x.pt", said)


@pytest.mark.parametrize("labels, said", [(torch.tensor([0.5, 1.5]), "no whole numbers"), (torch.tensor([0, 1]).to_sparse(), "sparse"), (torch.tensor([0j, 1j]), "complex")])
def test_labels_of_another_kind_are_none(labels, said, place):
    refuses(lambda: check_labels(labels, torch.zeros(2, 3, 8, 8), 2, place / "x.pt"), "x.pt", said)


def test_sixty_is_no_base_of_a_profile(place):
    from selmatch.study.profile import read_yaml
    (place / "p.yaml").write_text("a: 1:30\nb: 12\nc: -3\nd: 0x1f\ne: 1_000\nf: 007\n")
    assert read_yaml(place / "p.yaml") == {"a": "1:30", "b": 12, "c": -3, "d": 31, "e": 1000, "f": 7}


def test_a_file_is_not_said_to_be_missing(place, capsys):
    (place / "file").write_text("x")
    for name, why in (("file", "is a file"), ("none", "does not exist")):
        assert run("shrink", name, "--estimate") == 2
        said = capsys.readouterr().err
        assert f"folder {name} {why}" in said and "PosixPath" not in said


def test_what_is_named_must_be_there_before_work(place, capsys):
    from selmatch.cluster import connect
    refuses(lambda: connect("local:0"), "cluster=local:N, N=0")
    source = write(place / "mine")
    sm.select(sm.from_folder(source, words=QUICK, quiet=True), "random", per_class=2).save("small")
    assert run("compare", "small", "--data", f"folder:{source}", "--label-file", "nope.pt", *WORDS) == 2
    assert "--label-file nope.pt does not exist" in capsys.readouterr().err
