"""Folders, tables and pictures that were read as something else without a word; and lines that said what nobody had done."""
import json
import os
import unicodedata
import warnings
from pathlib import Path

import numpy as np
import pytest
from conftest import draw, look
from PIL import Image

from selmatch.core import InputError
from selmatch.data.folders import Reading, read_image, survey
from selmatch.data.loaders import load_data, load_digits, load_folder


def load(folder, **words): return load_data("folder", root=str(folder), cache=str(folder.parent / "cache"), **words)


def with_table(place, text, name="labels.csv", n=4):
    place.mkdir(parents=True)
    for i in range(n): Image.fromarray(np.full((4, 4, 3), 20 * i, np.uint8)).save(place / f"{i}.png")
    (place / name).write_text(text, encoding="utf-8")
    return place


def refuses(call, *words, without=()):
    with pytest.raises(InputError) as error: call()
    said = str(error.value)
    assert "\n" not in said
    for word in words: assert word in said, said
    for word in (*without, "PosixPath"): assert word not in said, said


def split_table(place, words):
    return with_table(place, "file,label,split\n" + "".join(f"{i}.png,{'ab'[i % 2]},{word}\n" for i, word in enumerate(words)), n=len(words))


# ---------------------------------------------------------------- splits in tables

@pytest.mark.parametrize("words, counts", [
    (["train", "train", "TEST ", "Test"], {"train": [1, 1], "test": [1, 1]}), (["train", " Training", "eval", "evaluation"], {"train": [1, 1], "test": [1, 1]}),
    (["train", "train", "dev", "valid", "test", "testing"], {"train": [1, 1], "validation": [1, 1], "test": [1, 1]}), (["", " ", "", ""], {"all": [2, 2]}),
])
def test_words_for_splits_in_a_table(words, counts, tmp_path):
    assert look(split_table(tmp_path / "mine", words)).counts == counts


@pytest.mark.parametrize("words, said", [
    (["train", "train", "holdout", "holdout"], ["line 4", "'holdout'", "evaluation"]), (["train", "train", "test", "unlabeled"], ["line 5", "'unlabeled'"]),
    (["0", "1", "2", "0"], ["line 2", "'0'"]), (["train", "", "test", "test"], ["line 3", "''"]), (["test", "test", "val", "val"], ["test, validation", "no row is for training"]),
])
def test_other_words_for_splits_are_refused(words, said, tmp_path):
    """Rows marked holdout were trained on."""
    refuses(lambda: look(split_table(tmp_path / "mine", words)), "labels.csv", *said)


def test_numbers_for_splits_are_refused_in_json(tmp_path):
    rows = "".join(json.dumps({"file_name": f"{i}.png", "label": "ab"[i % 2], "split": i // 2}) + "\n" for i in range(4))
    refuses(lambda: look(with_table(tmp_path / "mine", rows, "metadata.jsonl")), "split='0'", "train")


def test_which_rows_are_the_test_set_is_said(tmp_path):
    lines = "\n".join(look(split_table(tmp_path / "mine", ["train", "train", "eval", "eval"])).lines())
    assert "test 2 (from validation of labels.csv)" in lines


def test_a_table_of_one_split_names_no_others(tmp_path):
    """The rows of all splits but the last were dropped."""
    split_table(tmp_path / "mine" / "train", ["train", "train", "test", "test"]); draw(tmp_path / "mine" / "test", "ab")
    refuses(lambda: look(tmp_path / "mine"), "labels.csv", "train, test", "--labels")


# ---------------------------------------------------------------- splits in folders

@pytest.mark.parametrize("train, other", [("train", "eval"), ("train", "Evaluation"), ("train ", "test"), ("train", "eval_set")])
def test_folders_of_more_names_are_splits(train, other, tmp_path):
    draw(tmp_path / "mine" / train); draw(tmp_path / "mine" / other, first=130)
    found = look(tmp_path / "mine")
    assert found.classes == ("cat", "dog") and found.folders == {"train": train, "test": other} and f"(from {other})" in found.lines()[1]


def test_eval_beside_test_is_for_validation(tmp_path):
    for i, split in enumerate(("train", "eval", "test")): draw(tmp_path / "mine" / split, first=20 * i)
    assert look(tmp_path / "mine").folders == {"train": "train", "validation": "eval", "test": "test"}


@pytest.mark.parametrize("folders", [
    ("train", "holdout"), ("seg_train/seg_train", "seg_test/seg_test"), ("train1", "test1"), ("train", "val_split"), ("fold1", "fold2"), ("a/train", "b/train", "a/test", "b/test"),
])
def test_splits_that_would_be_classes_are_refused(folders, tmp_path):
    for i, name in enumerate(folders): draw(tmp_path / "mine" / name, first=20 * i)
    refuses(lambda: look(tmp_path / "mine"), "which are the classes", folders[0].partition("/")[0], folders[1].partition("/")[0])


def test_class_first_and_split_second_is_refused(tmp_path):
    for name in "ab": draw(tmp_path / "mine" / name, ("train", "test"))
    refuses(lambda: look(tmp_path / "mine"), "folders a, b", "folders test, train")


def test_unlabelled_pictures_beside_unknown_splits_change_nothing(tmp_path):
    for split in ("seg_train", "seg_test"): draw(tmp_path / "mine" / split / split)
    draw(tmp_path / "mine" / "seg_pred", ("seg_pred",))
    refuses(lambda: look(tmp_path / "mine"), "seg_test, seg_train")


def test_nested_folders_of_classes_stay_what_they_are(tmp_path):
    """Other folders in each, one folder `images` in each, pictures beside a folder; a class called train."""
    draw(tmp_path / "other" / "cat", ("left", "right")); draw(tmp_path / "other" / "dog", ("2019", "2020", "2021"))
    assert look(tmp_path / "other").counts == {"all": [6, 9]}
    for name in ("cat", "dog"): draw(tmp_path / "single" / name, ("images",))
    assert look(tmp_path / "single").classes == ("cat", "dog")
    draw(tmp_path / "beside", ("cat", "dog"))
    for name in ("cat", "dog"): draw(tmp_path / "beside" / name, ("more", "less"))
    assert look(tmp_path / "beside").counts == {"all": [9, 9]}
    draw(tmp_path / "named", ("bus", "train", "test"))
    assert look(tmp_path / "named").classes == ("bus", "test", "train")
    draw(tmp_path / "steam", ("bus", "car")); draw(tmp_path / "steam" / "train", ("steam", "diesel"))
    assert look(tmp_path / "steam").classes == ("bus", "car", "train")


def test_what_is_said_where_nothing_is_for_training(tmp_path):
    for name in ("val", "test"): draw(tmp_path / "mine" / name)
    refuses(lambda: look(tmp_path / "mine"), "test, val", "none of them is for training", without=["in the training one"])
    draw(tmp_path / "two", ("train", "test"))
    refuses(lambda: look(tmp_path / "two"), "test, train", "no class folders in the training one", "give them other names")


def test_two_folders_of_one_class_are_refused(tmp_path):
    for name in [unicodedata.normalize(form, "été") for form in ("NFC", "NFD")] + ["cat"]: draw(tmp_path / "mine", (name,))
    refuses(lambda: look(tmp_path / "mine"), r"'e\u0301te\u0301'", r"'\xe9t\xe9'", "both called 'été'")
    draw(tmp_path / "old", ("cat", "hîbou", "b"))
    os.rename(tmp_path / "old" / "b", os.fsencode(tmp_path / "old") + b"/h\xeebou")
    refuses(lambda: look(tmp_path / "old"), r"\udcee", "both called 'hîbou'")


# ---------------------------------------------------------------- tables that are none, and JSON

ROWS = "file,label\n0.png,a\n1.png,b\n2.png,a\n3.png,b\n"


def test_the_shadow_of_a_table_is_no_table(tmp_path):
    place = with_table(tmp_path / "mine", ROWS, "mine.csv")
    (place / "._mine.csv").write_bytes(b"\0\5\x16\7\xff")
    assert look(place).folders == {"all": "mine.csv"}


def test_a_folder_is_no_table(tmp_path):
    assert look(draw(tmp_path / "mine", ("a", "b.csv"))).classes == ("a", "b.csv")
    place = with_table(tmp_path / "flat", ROWS, "mine.csv")
    (place / "x.csv").mkdir()
    assert look(place).folders == {"all": "mine.csv"}
    refuses(lambda: survey(place, labels="x.csv"), "x.csv", "directory", without=["Errno"])


def test_a_line_of_json_ends_at_its_end_only(tmp_path):
    rows = "".join(json.dumps({"file_name": f"{i}.png", "label": ("x\u2028y", "z\x85")[i % 2]}, ensure_ascii=False) + "\r\n" for i in range(4))
    assert look(with_table(tmp_path / "mine", rows, "metadata.jsonl")).classes == ("x\u2028y", "z")


@pytest.mark.parametrize("label", ["NaN", "Infinity", "null"])
def test_no_number_is_no_label(label, tmp_path):
    rows = '{"file_name": "0.png", "label": 0}\n{"file_name": "1.png", "label": %s}\n' % label
    refuses(lambda: look(with_table(tmp_path / "mine", rows, "metadata.jsonl")), "metadata.jsonl", "line 2", "a label")


# ---------------------------------------------------------------- pictures

@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_greys_that_are_not_finite(value, tmp_path):
    Image.fromarray(np.float32([[0, 0.5], [1, value]])).save(tmp_path / "x.tif")
    for white in (None, 1): refuses(lambda: read_image(tmp_path / "x.tif", white=white), "x.tif", "not finite", without=["--white"])


@pytest.mark.parametrize("mode, kind", [("RGB", np.uint16), ("L", np.uint16), ("L", np.uint8)])
def test_transparency_of_deep_greys(mode, kind, tmp_path):
    white = np.iinfo(kind).max
    Image.fromarray(np.array([[0, white], [9, 0]], kind)).save(tmp_path / "x.png", transparency=0)
    assert read_image(tmp_path / "x.png", mode=mode)[0].tolist() == [[255, 255], [0 if kind == np.uint16 else 9, 255]]
    assert read_image(tmp_path / "x.png", mode=mode, background="black")[0, 0, 0] == 0


@pytest.mark.parametrize("raw", [b"P5 3 1 4095\n" + bytes([0, 0, 8, 0, 15, 255]), b"P2 3 1 4095\n0 2048 4095\n"])
def test_white_of_a_pgm_is_in_its_own_numbers(raw, tmp_path):
    (tmp_path / "x.pgm").write_bytes(raw)
    grey = lambda white: read_image(tmp_path / "x.pgm", mode="L", white=white).ravel().tolist()
    assert grey(4095) == grey(None) == [0, 128, 255] and grey(8190) == [0, 64, 128]
    (tmp_path / "x.pgm").write_bytes(b"P5 2 1 65535\n" + bytes([16, 0, 8, 0]))
    assert grey(4096) == [255, 128, 0][:2] and grey(None) == [16, 8]


def test_files_of_several_pictures_are_counted(tmp_path):
    place = draw(tmp_path / "mine")
    pages = [Image.fromarray(np.full((4, 4, 3), 40 * i, np.uint8)) for i in range(3)]
    for name in ("x.tif", "x.webp", "x.gif", "y.png"): pages[0].save(place / "cat" / name, save_all=True, append_images=pages[1:])
    pages[1].save(place / "dog" / "still.gif")
    assert "of several frames or pages the first is read: 4 files" in look(place).lines()
    assert not any("frames" in line for line in look(draw(tmp_path / "still")).lines())


# ---------------------------------------------------------------- what is said

def test_a_file_is_no_folder_and_a_path_is_a_path(tmp_path):
    (tmp_path / "x.png").write_text("x")
    for path in (tmp_path / "x.png", str(tmp_path / "x.png")): refuses(lambda: survey(path), f"image folder {path} is a file", without=["does not exist"])
    refuses(lambda: survey(tmp_path / "none"), f"image folder {tmp_path / 'none'} does not exist")


def test_an_empty_folder_of_an_old_system_is_named_readably(tmp_path):
    os.mkdir(os.fsencode(draw(tmp_path / "mine")) + b"/\xe9t\xe9")
    refuses(lambda: look(tmp_path / "mine"), "été holds no image", without=["\udce9", "\\udce9"])


@pytest.mark.parametrize("n, words, said", [(1, {}, ["'cat' has 1 image,", "test=0.25, validation=0.2", "at least 3"]), (2, {}, ["'cat' has 2 images,", "at least 3"]),
                                            (3, {"test": 0}, ["test=0,", "however many it has", "give other shares"]), (4, {"test": 0.1}, ["4 images", "at least 6"])])
def test_classes_that_are_too_small_are_named(n, words, said, tmp_path):
    refuses(lambda: load(draw(tmp_path / "mine", n=n), **words), *said, without=["mine test"])


def break_off(folder, size):
    for path in Path(folder).rglob("*.png"): path.write_bytes(path.read_bytes()[:size])


def test_test_images_that_cannot_be_read_are_no_repetitions(tmp_path):
    for i, split in enumerate(("train", "test")): draw(tmp_path / "mine" / split, first=20 * i)
    break_off(tmp_path / "mine" / "test", 44)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        refuses(lambda: load(tmp_path / "mine", skip_unreadable=True), "all 6 test images cannot be read", without=["repeat"])
        (tmp_path / "mine/test/cat/0.png").write_bytes((tmp_path / "mine/train/cat/0.png").read_bytes())
        refuses(lambda: load(tmp_path / "mine", skip_unreadable=True, drop_leaked=True), "repeat images of the other parts, or cannot be read (5)")


def test_a_class_of_which_nothing_can_be_read(tmp_path):
    draw(tmp_path / "mine", ("cat", "dog", "owl"), n=4)
    break_off(tmp_path / "mine" / "owl", 4)
    refuses(lambda: load(tmp_path / "mine", skip_unreadable=True), "none of the images of class 'owl'", "can be read", without=["splits"])
    draw(tmp_path / "late", ("cat", "dog", "owl"), n=4)
    break_off(tmp_path / "late" / "owl", 44)             # their first bytes are whole
    with pytest.warns(UserWarning, match="4 images"): refuses(lambda: load(tmp_path / "late", skip_unreadable=True), "no image of class 'owl' is left", "can be read")
    assert load(tmp_path / "mine", skip_unreadable=True, classes=["cat", "dog"]).train.classes == ("cat", "dog")


@pytest.mark.parametrize("call, words", [
    (lambda place: Reading(size=1.5), ["size=1.5", "whole number"]), (lambda place: Reading(background=None), ["background=None", "colour"]),
    (lambda place: Reading(background=5), ["background=5", "colour"]), (lambda place: load_folder(str(place), per_class=1.5), ["per_class=1.5", "whole number"]),
    (lambda place: load_folder(str(place), labels=5), ["labels=5", "a path is needed"]), (lambda place: load_digits(per_class=1.5), ["per_class=1.5", "whole number"]),
    (lambda place: load_folder(5), ["folder=5", "a path is needed"]), (lambda place: load_data("folder", root=5), ["root=5", "a path is needed"]),
])
def test_words_of_another_kind(call, words, tmp_path):
    refuses(lambda: call(draw(tmp_path / "mine")), *words)
