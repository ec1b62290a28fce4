"""Folders and tables as people have them: links in a circle, two ways to write é, rows that stand twice."""
import json
import unicodedata

import numpy as np
import pytest
from conftest import draw, look
from PIL import Image

from selmatch.core import InputError
from selmatch.data.loaders import load_folder


def with_table(place, text, name="labels.csv"):
    (place / "images").mkdir(parents=True)
    for i in range(4): Image.fromarray(np.full((4, 4, 3), 20 * i, np.uint8)).save(place / "images" / f"{i}.png")
    (place / name).write_text(text, encoding="utf-8")
    return place


def test_links_that_lead_round_in_a_circle_are_passed_over(tmp_path):
    folder = draw(tmp_path / "mine")
    (folder / "self").symlink_to(folder / "self")
    (folder / "cat" / "self.png").symlink_to(folder / "cat" / "self.png")
    (folder / "cat" / "up").symlink_to(folder)
    found = look(folder)
    assert found.counts == {"all": [3, 3]} and found.left_out == {"broken links": 2, "links back into the folder": 1}


def test_a_name_in_two_ways_of_writing_is_one_class(tmp_path):
    """A folder copied from a Mac beside one that was not; and the labels of a table."""
    composed, apart = (unicodedata.normalize(form, "hibou é") for form in ("NFC", "NFD"))
    draw(tmp_path / "mine" / "train", (composed, "cat")); draw(tmp_path / "mine" / "test", (apart, "cat"))
    found = look(tmp_path / "mine")
    assert found.classes == ("cat", composed) and found.counts == {"train": [3, 3], "test": [3, 3]}
    rows = "".join(f"{i}.png,{(composed, apart)[i % 2]}\n" for i in range(3))
    assert look(with_table(tmp_path / "table", f"file,label\n{rows}3.png,cat\n")).counts == {"all": [1, 3]}


def test_names_that_differ_in_capitals_or_spaces_are_doubted(tmp_path):
    lines = "\n".join(look(draw(tmp_path / "one", ("Cat", "cat", "dog", "owl "))).lines())
    assert "differ in capitals or spaces only: 'Cat', 'cat'" in lines
    draw(tmp_path / "two" / "train", ("Cat", "dog")); draw(tmp_path / "two" / "test", ("cat", "dog"))
    with pytest.raises(InputError, match="'cat' in train.*'Cat', 'cat' differ in capitals or spaces only"):
        load_folder(str(tmp_path / "two"), cache=str(tmp_path / "cache"))


ROWS = "0.png,a\n1.png,b\n2.png,a\n3.png,b\n"


@pytest.mark.parametrize("text, counts", [
    ("file,label\n" + ROWS, [2, 2]), ("\n\nfile,label\n" + ROWS, [2, 2]), ("file;label\r\n" + ROWS.replace(",", ";").replace("\n", "\r\n"), [2, 2]),
    ("\ufefffile,label\n" + ROWS, [2, 2]), ("file,label\n" + ROWS + "0.png,a\nimages/0.png,a\n", [2, 2]), ("file,label\n" + ROWS.replace("0.png", "images\\0.png"), [2, 2]),
    (" File_Name , LABEL\n" + ROWS, [2, 2]), ("file,label\n0.png,a\n1.png,b\n", [1, 1]),
])
def test_tables_that_are_read(text, counts, tmp_path):
    assert look(with_table(tmp_path / "mine", text)).counts == {"all": counts}


@pytest.mark.parametrize("text, name, words", [
    (ROWS, "labels.csv", ["labels.csv", "file_name,label"]), (ROWS, "mine.csv", ["mine.csv", "file_name,label"]),
    ("file,label\n" + ROWS + "0.png,b\n", "labels.csv", ["0.png", "two labels", "'a'", "'b'"]), ("file,label\n" + ROWS + "9.png,a\n", "labels.csv", ["9.png"]),
    ("file,label\n0.png,\n1.png,b\n", "labels.csv", ["line 2"]), ('["0.png", "a"]\n', "metadata.jsonl", ["metadata.jsonl", "an object"]),
    (json.dumps({"file_name": "0.png", "label": {"x": 1}}) + "\n", "metadata.jsonl", ["line 1", "a label"]),
    ('{"file_name": "0.png", "label": "a"}\n\n{"file_name": "1.png", "label": null}\n', "metadata.jsonl", ["line 3"]),
    ('{"file_name": "0.png", "label": "a"}\n{"file_name": "1.png"', "metadata.jsonl", ["metadata.jsonl", "line 2"]),
    ("\n\nfile,label\n0.png,a\n\n1.png,\n", "labels.csv", ["line 6"]),
    ('file,label,note\n0.png,a,"one\ntwo"\n1.png,,none\n', "labels.csv", ["line 4"]),
    ("file,label,split\n0.png,a,train\n\n1.png,b,hold\n", "labels.csv", ["line 4", "'hold'"]),
])
def test_tables_that_are_refused_in_a_line(text, name, words, tmp_path):
    with pytest.raises(InputError) as error: look(with_table(tmp_path / "mine", text, name))
    for word in words: assert word in str(error.value), error.value
    assert "\n" not in str(error.value)


def test_tables_of_competitions_name_pictures_without_their_suffix(tmp_path):
    """`labels.csv` with id,breed beside `train/` and `test/`; capitals in the suffix; two files of one name."""
    for part, files in (("train", ("0a", "1b", "2c.v2", "3d")), ("test", ("9z",))):
        (tmp_path / "dogs" / part).mkdir(parents=True)
        for i, name in enumerate(files): Image.fromarray(np.full((4, 4, 3), 20 * i, np.uint8)).save(tmp_path / "dogs" / part / f"{name}.jpg")
    (tmp_path / "dogs" / "train" / "3d.jpg").rename(tmp_path / "dogs" / "train" / "3d.JPG")
    (tmp_path / "dogs" / "labels.csv").write_text("id,breed\n0a,whippet\n1b,poodle\n2c.v2,whippet\n3d,poodle\n", encoding="utf-8")
    found = look(tmp_path / "dogs")
    assert found.classes == ("poodle", "whippet")
    assert found.counts == {"all": [2, 2]}
    assert found.left_out == {"without a label": 1}
    Image.new("RGB", (4, 4)).save(tmp_path / "dogs" / "train" / "0a.png")
    with pytest.raises(InputError, match="0a could be 0a.jpg or 0a.png"): look(tmp_path / "dogs")


def test_a_test_image_that_is_a_validation_image_is_a_leak(tmp_path):
    """val/ was a copy of test/, and nobody said so: choices were made on what is tested."""
    folder = tmp_path / "mine"
    for split, base in (("train", 0), ("val", 120), ("test", 180)):
        draw(folder / split)
        for c in ("cat", "dog"):
            for i in range(3): Image.fromarray(np.full((4, 4, 3), base + 20 * (c == "dog") + 5 * i, np.uint8)).save(folder / split / c / f"{i}.png")
    assert look(folder).leaked == [] and len(load_folder(str(folder), cache=str(tmp_path)).test) == 6
    (folder / "test/cat/copy.png").write_bytes((folder / "val/cat/0.png").read_bytes())
    (folder / "val/dog/copy.png").write_bytes((folder / "train/dog/1.png").read_bytes())
    found = look(folder)
    assert sorted(f[len(str(folder)) + 1:] for f in found.leaked) == ["test/cat/copy.png", "val/dog/copy.png"]
    assert "leak: 2 of 14 images outside train repeat a training image or a validation image" in "\n".join(found.lines())
    Image.open(folder / "val/cat/1.png").save(folder / "test/cat/other.bmp")            # other bytes, the same pixels
    with pytest.warns(UserWarning, match="3 images outside the training set repeat a training image or a validation image"): splits = load_folder(str(folder), cache=str(tmp_path))
    assert (len(splits.validation), len(splits.test)) == (7, 8)
    clean = load_folder(str(folder), cache=str(tmp_path), drop_leaked=True)
    assert (len(clean.train), len(clean.validation), len(clean.test)) == (6, 6, 6)
    for path in (folder / "test").rglob("*.*"): path.unlink()
    for c in ("cat", "dog"):
        for i in range(3): (folder / "test" / c / f"{i}.png").write_bytes((folder / "val" / c / f"{i}.png").read_bytes())
    with pytest.raises(InputError, match="all 6 test images repeat images of the other parts"): load_folder(str(folder), cache=str(tmp_path), drop_leaked=True)


def test_a_class_that_is_left_out_need_not_be_everywhere(tmp_path):
    draw(tmp_path / "mine" / "train", ("cat", "dog", "owl")); draw(tmp_path / "mine" / "test", ("cat", "dog"), first=7)
    load = lambda **words: load_folder(str(tmp_path / "mine"), cache=str(tmp_path), **words)
    assert load(classes=["cat", "dog"]).train.classes == ("cat", "dog") == load(classes=2).train.classes
    for classes in (None, ["cat", "owl"]):
        with pytest.raises(InputError, match="no image of class 'owl' in test"): load(classes=classes)


def test_a_number_that_is_the_name_of_another_class_is_refused(tmp_path):
    """Classes called 1, 2 and 3, and classes=[1, 2]: those called 2 and 3 were taken."""
    draw(tmp_path / "mine", ("1", "2", "3"))
    load = lambda classes: load_folder(str(tmp_path / "mine"), cache=str(tmp_path), classes=classes).train.classes
    with pytest.raises(InputError, match="class 1 could be the one named '1', or '2', at place 1 from 0"): load([1, 2])
    assert load(["1", "2"]) == ("1", "2") and load(2) == ("1", "2")
    draw(tmp_path / "from0", ("0", "1", "2"))
    assert load_folder(str(tmp_path / "from0"), cache=str(tmp_path), classes=[0, 2]).train.classes == ("0", "2"), "place and name are one"
