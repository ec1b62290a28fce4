"""What strangers' data, archives and words did silently, or with a message that named nothing of theirs."""
import csv
import hashlib
import os
import tarfile
import tracemalloc
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import selmatch as sm
from conftest import draw, refuses
from selmatch import app
from selmatch.core import InputError
from selmatch.data import fetch
from selmatch.data.folders import measure, read_image, survey
from selmatch.data.images import pictures
from selmatch.data.loaders import load_folder

TINY = {"network.width": 4, "network.depth": 1, "score.epochs": 2, "score.runs": 1, "evaluation.n": 1, "evaluation.steps": 3, "window.n": 1}
QUICK = [part for place, value in TINY.items() for part in ("--set", f"{place}={value}")]
BRIEF = [part for word in ("experts.n=1", "experts.epochs=4", "matching.max_start=1", "teacher.n=1") for part in ("--set", word)]


def noise(seed, side=8):
    return np.random.default_rng(seed).integers(0, 255, (side, side, 3), np.uint8)


def photographs(root: Path, n=12, classes="ab") -> Path:
    """Pictures of noise in train/ and test/, no two alike."""
    for split, count in (("train", n), ("test", 4)):
        for c in classes:
            (root / split / c).mkdir(parents=True)
            for i in range(count): Image.fromarray(noise([i, ord(c), count])).save(root / split / c / f"{i:02d}.png")
    return root


class Named:
    """A dataset of PyTorch whose pictures of a class have its shade."""
    shades = {"cat": 10, "dog": 100, "owl": 200, "zebra": 250}

    def __init__(self, names, n):
        self.classes, self.labels = list(names), [c for c in range(len(names)) for _ in range(n)]

    def __len__(self): return len(self.labels)

    def __getitem__(self, i):
        picture = noise([i, len(self)])
        picture[0] = self.shades[self.classes[self.labels[i]]]
        return Image.fromarray(picture), self.labels[i]


def shown_classes(data) -> set:
    """(class by its name, class by the shade of its first row) of all images of the test set."""
    by_shade = {shade: name for name, shade in Named.shades.items()}
    return {(data.classes[label], by_shade[int(shown[0, 0, 0])]) for label, shown in zip(data.test.labels.tolist(), pictures(data.test))}


@pytest.mark.parametrize("parted", [False, True], ids=["whole", "subset"])
def test_the_test_set_of_pytorch_is_read_by_its_own_names(parted, tmp_path):
    test = Named(["owl", "cat", "dog"], 4)
    test = torch.utils.data.Subset(test, range(len(test))) if parted else test
    data = sm.from_torch(Named(["cat", "dog", "owl"], 12), test, words=TINY, results=tmp_path, quiet=True, workers=1)
    assert shown_classes(data) == {(name, name) for name in ("cat", "dog", "owl")}


def test_a_test_set_of_other_classes_is_refused(tmp_path):
    train = Named(["cat", "dog", "owl"], 12)
    for names in (["cat", "owl", "zebra"], ["cat", "owl"]):
        refuses(lambda: sm.from_torch(train, Named(names, 4), words=TINY, results=tmp_path, quiet=True, workers=1), "the test set has classes", "zebra" if len(names) > 2 else "owl", "dog")


def test_names_that_somebody_gives_stand_for_the_datasets_own(tmp_path):
    data = sm.from_torch(Named(["cat", "dog"], 12), Named(["dog", "cat"], 4), classes=["Katze", "Hund"], words=TINY, results=tmp_path, quiet=True, workers=1)
    assert shown_classes(data) == {("Katze", "cat"), ("Hund", "dog")}


def of_hub(names, n):
    """A split as `datasets` has it."""
    dataset = Named(names, n)
    columns = {"image": [dataset[i][0] for i in range(len(dataset))], "label": dataset.labels}
    features = {"image": type("Image", (), {})(), "label": type("ClassLabel", (), {"names": names})()}
    return type("Split", (), {"features": features, "__getitem__": lambda self, name: columns[name]})()


@pytest.mark.parametrize("splits", [("train", "test"), ("train", "validation", "test")])
def test_a_split_of_hugging_face_is_read_by_its_own_names(splits, tmp_path):
    orders = {"train": ["cat", "dog", "owl"], "test": ["owl", "cat", "dog"], "validation": ["dog", "owl", "cat"]}
    parts = {name: of_hub(orders[name], 12 + i) for i, name in enumerate(splits)}
    data = sm.from_huggingface(parts, words=TINY, results=tmp_path, quiet=True, workers=1)
    assert shown_classes(data) == {(name, name) for name in ("cat", "dog", "owl")}
    if "validation" in splits: assert shown_classes(SimpleNamespace(classes=data.classes, test=data.validation)) == shown_classes(data)
    parts["test"] = of_hub(["cat", "owl", "zebra"], 5)
    refuses(lambda: sm.from_huggingface(parts, words=TINY, results=tmp_path, quiet=True, workers=1), "the test set has classes", "zebra", "dog")


@pytest.mark.parametrize("suffix, labels", [(".png", "alike"), ("", "alike"), (".png", "apart")])
def test_a_row_of_a_table_means_the_file_of_its_split(suffix, labels, tmp_path):
    rows = ["file,label,split"]
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        for i in range(6):
            c = "ab"[(i + (labels == "apart" and split == "test")) % 2]
            Image.fromarray(noise([i, len(split)])).save(tmp_path / split / f"{i}.png")
            rows.append(f"{i}{suffix},{c},{split}")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    look = survey(tmp_path, cache=tmp_path / "cache")
    assert {split: {Path(f).relative_to(tmp_path).parts[0] for f, _ in part} for split, part in look.parts.items()} == {"train": {"train"}, "test": {"test"}}
    assert {split: len(part) for split, part in look.parts.items()} == {"train": 6, "test": 6} and not look.leaked


def test_a_completed_set_says_from_which_photographs_it_is(say, tmp_path):
    source, out = photographs(tmp_path / "photos", 24), tmp_path / "made"
    code, said, errors = say("distill", "--method", "ccfs", "--data", f"folder:{source}", "--size", 8, "--ratio", 0.3, "--workers", 1, "--iterations", 1, "--out", out, *QUICK, *BRIEF)
    assert code == 0 and "files.csv" in said, errors
    with open(out / "files.csv", encoding="utf-8") as file: rows = list(csv.DictReader(file))
    assert len(rows) == len(list((out / "images").rglob("*.png"))) and {row["part"] for row in rows} == {"kept", "distilled"}
    for row in rows:
        original = read_image(source / row["original"], 8)
        assert Path(row["original"]).parts[:2] == ("train", row["class"])
        if row["part"] == "kept": assert np.array_equal(read_image(out / row["file"]), original)
    for part in ("kept", "distilled"):
        originals = [row["original"] for row in rows if row["part"] == part]
        assert len({*originals}) == len(originals)


@pytest.mark.parametrize("command", ["select", "score", "shrink"])
def test_a_word_that_names_the_whole_data_does_not_lead_the_set_among_them(command, say, tmp_path, monkeypatch):
    source, other = photographs(tmp_path / "photos"), photographs(tmp_path / "other")
    word = f"data={{name: folder, root: {source}, size: 8}}"
    given = {"select": ["select", "--data", f"folder:{other}", "--out", source / "made"], "score": ["score", "--data", f"folder:{other}", "--out", source / "x.csv"],
             "shrink": ["shrink", other, "--out", source / "made", "--estimate"]}[command]
    before = sorted(source.rglob("*"))
    code, _, errors = say(*given, "--workers", 1, *QUICK, "--set", word)
    assert code == 2 and "where the images come from" in errors and sorted(source.rglob("*")) == before


def test_images_in_memory_are_not_exchanged_for_a_folder(tmp_path):
    x, y = np.random.default_rng(0).random((24, 8, 8)), np.arange(24) % 2
    refuses(lambda: sm.from_arrays(x, y, words=TINY | {"data": {"name": "folder", "root": str(tmp_path)}}, results=tmp_path / "home", quiet=True), "data says how files are read")


@pytest.mark.parametrize("beta", [0.0, 0.3, 0.68])
def test_a_window_counts_by_what_the_profile_says(beta, tmp_path):
    """`window.beta_of` was obeyed by the commands of single steps only."""
    given = sm.from_folder(photographs(tmp_path / "photos", 20), size=8, words=TINY | {"window.beta_of": "ipc"}, results=tmp_path / "home", quiet=True, workers=1)
    taken, kept = sm.select(given, "window", per_class=5, beta=beta), 5
    difficulty, expected = given.study.difficulty, []
    for c in range(2):
        rows = [i for i, label in enumerate(given.train.labels.tolist()) if label == c]
        ranked = sorted(rows, key=lambda i: -float(difficulty[i]))
        start = min(int(kept * beta), len(rows) - kept)
        expected.append(sorted(float(difficulty[i]) for i in ranked[start:start + kept]))
    found = [sorted(float(difficulty[i]) for i in taken.rows.tolist() if given.train.labels[i] == c) for c in range(2)]
    assert found == expected


def test_what_the_window_skips_is_said_as_it_is_counted():
    from selmatch.study.profile import load_profile
    from selmatch.study.shrink import say_skipped
    p = load_profile("folder")
    assert say_skipped(0.3, p) == "30% of each class"
    assert say_skipped(0.3, sm.api.change_words(p, {"window.beta_of": "ipc"})) == "30% of as many as a class keeps"


def test_a_seed_among_the_words_or_in_a_file_is_the_seed(tmp_path, monkeypatch):
    from selmatch.study.profile import load_profile, write_profile
    monkeypatch.setenv("SELMATCH_HOME", str(tmp_path / "home"))
    file, small = tmp_path / "mine.yaml", {"data": f"folder:{photographs(tmp_path / 'photos')}", "size": 8, "quiet": True}
    write_profile(load_profile("folder", seed=7), file)
    for make, more in ((app.make_data, {}), (app.make_study, {"ratio": 0.2})):
        seed = lambda **words: getattr(make(**small, **more, **words), "study", None) or make(**small, **more, **words)
        assert seed(words=("seed=5",)).profile.seed == 5
        assert seed(profile=str(file)).profile.seed == 7
        assert seed(profile=str(file), seed=3).profile.seed == 3
        assert seed().profile.seed == 0
    context = app.cli.commands["evaluate"].make_context("evaluate", ["x"])
    assert context.params["seed"] is None, "an option that nobody gave hid the profile's"


@pytest.mark.parametrize("command", ["select", "distill", "evaluate", "compare", "import", "window", "coverage"])
@pytest.mark.parametrize("word", ["seeds=3", "ratios=[0.2]"])
def test_words_on_many_sets_are_refused_where_one_is_made(command, word, say, tmp_path):
    source = photographs(tmp_path / "photos", 4)
    (tmp_path / "theirs").mkdir()
    path = [tmp_path / "theirs"] if command in ("evaluate", "compare", "import", "coverage") else []
    out = [] if command in ("evaluate", "compare", "coverage", "window") else ["--out", tmp_path / "out"]
    code, _, errors = say(command, *path, "--data", f"folder:{source}", *out, "--set", word)
    assert code == 2 and f"{word.replace('[', '[')} is not allowed: one set is made" in errors


def test_what_was_found_is_used_with_an_iteration_count_and_a_seed_of_zero():
    options = dict.fromkeys(["profile", "size", "root", *app.reading_options, "balance"]) | {"data": "digits", "seed": 0, "ratio": 0.1, "iterations": 0, "words": ()}
    assert app.say_again("selmatch", options, 0.2, 0.4).split()[4:] == "--data digits --seed 0 --iterations 0 --ratio 0.1 --alpha 0.2 --beta 0.4".split()


def test_a_file_that_cannot_be_read_is_no_black_picture(tmp_path):
    """Its place in the tensor file is zero, as that of a black picture: the black one was a leak, and dropped."""
    source = photographs(tmp_path / "photos")
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(source / "test" / "a" / "black.png")
    for broken in (source / "train" / "b" / "03.png", source / "train" / "b" / "04.png"): broken.write_bytes(broken.read_bytes()[:-60])
    for drop in (False, True):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            splits = load_folder(str(source), skip_unreadable=True, drop_leaked=drop, cache=str(tmp_path / "cache"))
        assert (len(splits.test), len(splits.train) + len(splits.validation)) == (9, 22)
        assert [str(one.message)[:8] for one in said] == ["left out"], [str(one.message) for one in said]


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """An archive that a server has, how often it was asked for, and the file as it is published."""
    (tmp_path / "inner").mkdir()
    for name in ("batches.meta", "one", "two"): (tmp_path / "inner" / name).write_text(name)
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as book: book.add(tmp_path / "inner", "inner")
    content, asked = (tmp_path / "a.tar.gz").read_bytes(), []

    def receive(url, part, label):
        asked.append(url)
        part.write_bytes(content)
    monkeypatch.setattr(fetch, "keep_receiving", receive)
    file = fetch.OfficialFile("http://x/a.tar.gz", hashlib.md5(content).hexdigest(), "inner/batches.meta", ("one", "two"))
    return SimpleNamespace(asked=asked, files={"x": [file]}, folder=tmp_path / "data")


def contents(folder: Path) -> dict:
    return {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}


def test_what_somebody_began_to_unpack_is_completed(archive):
    begun = archive.folder / "inner"
    begun.mkdir(parents=True)
    (begun / "one").write_text("mine")
    for _ in range(2): assert fetch.fetch("x", archive.folder, lambda line: None, archive.files) == [begun / "batches.meta"]
    assert contents(archive.folder) == {"inner/batches.meta": "batches.meta", "inner/one": "mine", "inner/two": "two"} and len(archive.asked) == 1


def test_a_part_of_an_archive_that_is_lost_is_missed(archive):
    fetch.fetch("x", archive.folder, lambda line: None, archive.files)
    (archive.folder / "inner" / "two").unlink()
    assert "a.tar.gz" in fetch.advise("x", archive.folder, archive.files)
    fetch.fetch("x", archive.folder, lambda line: None, archive.files)
    assert contents(archive.folder)["inner/two"] == "two" and fetch.advise("x", archive.folder, archive.files) == ""


def test_a_stop_while_unpacking_costs_no_second_download(archive, monkeypatch):
    def stop(*given): raise KeyboardInterrupt
    with monkeypatch.context() as stopped:
        stopped.setattr(fetch, "unpack_all", stop)
        with pytest.raises(KeyboardInterrupt): fetch.fetch("x", archive.folder, lambda line: None, archive.files)
    assert os.listdir(archive.folder) == ["a.tar.gz"]
    fetch.fetch("x", archive.folder, lambda line: None, archive.files)
    assert len(archive.asked) == 1 and os.listdir(archive.folder) == ["inner"]
    (archive.folder / "inner" / "one").unlink()
    (archive.folder / "a.tar.gz").write_text("another of this name")
    fetch.fetch("x", archive.folder, lambda line: None, archive.files)
    assert len(archive.asked) == 2 and os.listdir(archive.folder) == ["inner"]


def test_what_a_killed_unpacking_left_is_swept(archive):
    from selmatch.core import identify_place
    left = archive.folder / f".unpacking.{identify_place()}-999999999-{'0' * 16}.tmp"
    (left / "inner").mkdir(parents=True)
    fetch.fetch("x", archive.folder, lambda line: None, archive.files)
    assert os.listdir(archive.folder) == ["inner"]


def test_a_file_in_the_place_of_a_folder_is_named(archive):
    archive.folder.mkdir()
    (archive.folder / "inner").write_text("a file")
    refuses(lambda: fetch.fetch("x", archive.folder, lambda line: None, archive.files), archive.folder / "inner", "is a file, where the archive has a folder")
    (archive.folder / "inner").unlink()
    fetch.fetch("x", archive.folder, lambda line: None, archive.files)
    assert len(archive.asked) == 1, "the archive had come"


def test_a_whitened_set_goes_on_beside_its_data_and_else_is_refused(say, tmp_path):
    source = photographs(tmp_path / "photos", 20)
    data = sm.from_folder(source, size=8, words=TINY | {"whiten": True}, results=tmp_path / "home", quiet=True, workers=1)
    sm.select(data, "random", per_class=2).save(tmp_path / "one")
    refuses(lambda: sm.load(tmp_path / "one").save(tmp_path / "two"), "whitened", "read_set")
    assert not (tmp_path / "two").exists()
    sm.read_set(tmp_path / "one", data).save(tmp_path / "two")
    code, said, errors = say("import", tmp_path / "one", "--data", f"folder:{source}", "--size", 8, "--out", tmp_path / "three", *QUICK, "--set", "whiten=true")
    assert code == 0, errors
    first = {file.relative_to(tmp_path / "one"): file.read_bytes() for file in (tmp_path / "one").rglob("*.png")}
    for name in ("two", "three"):
        assert {file.relative_to(tmp_path / name): file.read_bytes() for file in (tmp_path / name).rglob("*.png")} == first
        assert torch.equal(sm.load(tmp_path / name).images, sm.load(tmp_path / "one").images)
    assert len(first) == 4


def deep_tiff(path: Path, values: np.ndarray, black: int, turn: int) -> Path:
    """A TIFF of 16 bits: `black` 0 says that 0 is white, `turn` how a viewer turns it."""
    import struct
    Image.fromarray(values).save(path, tiffinfo={274: turn})
    raw = bytearray(path.read_bytes())
    begin = struct.unpack("<I", raw[4:8])[0]
    for i in range(struct.unpack("<H", raw[begin:begin + 2])[0]):
        entry = begin + 2 + 12 * i
        if struct.unpack("<H", raw[entry:entry + 2])[0] == 262: raw[entry + 8:entry + 10] = struct.pack("<H", black)
    path.write_bytes(raw)
    return path


@pytest.mark.parametrize("turn", [1, 3, 6])
@pytest.mark.parametrize("black", [1, 0], ids=["0 is black", "0 is white"])
def test_a_picture_in_memory_has_the_greys_of_its_file(black, turn, tmp_path):
    values = np.arange(0, 65536, 1024, dtype=np.uint16).reshape(8, 8)
    shades = np.rint(values / 65535 * 255) if black else np.rint((65535 - values.astype(float)) / 65535 * 255)
    upright = {1: shades, 3: shades[::-1, ::-1], 6: np.rot90(shades, -1)}[turn]
    with Image.open(deep_tiff(tmp_path / "x.tif", values, black, turn)) as picture:
        shown, = sm.api.show_pictures([picture])
        again, = sm.api.show_pictures([picture])
    assert np.array_equal(np.asarray(shown), upright) and np.array_equal(np.asarray(again), upright)


def test_a_deep_pgm_in_memory_is_read_and_advice_names_no_option(tmp_path):
    values = np.linspace(0, 4095, 64).astype(np.uint16).reshape(8, 8)
    (tmp_path / "x.pgm").write_bytes(b"P5\n8 8\n4095\n" + values.astype(">u2").tobytes())
    shown = np.asarray(sm.api.show_pictures([Image.open(tmp_path / "x.pgm")])[0])
    assert np.abs(shown - values / 4095 * 255).max() <= 0.51
    refuses(lambda: sm.api.show_pictures([Image.fromarray(np.full((4, 4), 70_000, np.int32))]), "image 0", "bring it to 8 bits first")
    with pytest.raises(InputError) as error: sm.api.show_pictures([Image.fromarray(np.full((4, 4), -5, np.int32))])
    assert "--white" not in str(error.value)


def test_a_replaced_set_leaves_no_table_of_photographs(say, tmp_path):
    source, out = photographs(tmp_path / "photos"), tmp_path / "small"
    command = ["select", "--method", "random", "--data", f"folder:{source}", "--size", 8, "--out", out, *QUICK]
    assert say(*command)[0] == 0
    fresh = (out / "files.csv").read_text()
    (out / "files.csv").write_text("file,original,class,split,part,rank,difficulty\nimages/a/0000.png,gone.png,a,small,kept,1,0\n")
    code, said, _ = say(*command)
    assert code == 0 and (out / "files.csv").read_text() == fresh and "files.csv" in said
    (out / "files.csv").write_text("my,own\n")
    assert say(*command)[0] == 0 and (out / "files.csv").read_text() == "my,own\n"


@pytest.mark.parametrize("option", [("--alpha", 0.5), ("--alpha", 0.0), ("--iterations", 10)], ids=str)
def test_an_option_of_distilling_is_refused_where_nothing_is_distilled(option, say, tmp_path):
    code, _, errors = say("distill", "--method", "random", "--data", f"folder:{photographs(tmp_path / 'photos', 4)}", "--out", tmp_path / "made", *option)
    assert code == 2 and f"{option[0]} {option[1]} has no use for method 'random'" in errors and not (tmp_path / "made").exists()


@pytest.mark.parametrize("word", ["validation", "test"])
def test_a_share_that_cannot_be_is_called_by_its_name(word, tmp_path):
    folder = draw(tmp_path / "photos", n=6)
    for value in (2, "a", None): refuses(lambda: sm.from_folder(folder, quiet=True, **{word: value}), f"{word}={value!r} is not allowed: it must lie in [0, 0.95]")
    x, y = np.random.default_rng(0).random((24, 8, 8)), np.arange(24) % 2
    refuses(lambda: sm.from_arrays(x, y, quiet=True, validation=2), "validation=2 is not allowed")


def test_a_folder_may_have_the_longest_name(tmp_path):
    name = "写真" * 39                                      # 234 bytes
    splits = load_folder(str(draw(tmp_path / name, n=8)), cache=str(tmp_path / "cache"))
    assert len(splits.train) + len(splits.validation) + len(splits.test) == 16 and splits.train.name.startswith(name)
    assert all(len(os.fsencode(file.name)) < 200 for file in (tmp_path / "cache").iterdir())


def test_a_piece_is_measured_image_by_image():
    pixels = np.random.default_rng(0).integers(0, 256, (64, 3, 64, 64), np.uint8)
    tracemalloc.start()
    found = measure(pixels)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < pixels.nbytes, "the whole piece was copied in numbers of 8 bytes"
    assert found["sums"].dtype == found["squares"].dtype == np.int64
    assert found["sums"].tolist() == [[sum(c.ravel().tolist()) for c in image] for image in pixels]
    assert found["squares"].tolist() == [[sum(v * v for v in c.ravel().tolist()) for c in image] for image in pixels]
    assert [row.tobytes() for row in found["digests"]] == [hashlib.sha256(image.tobytes()).digest()[:16] for image in pixels]


def test_the_help_says_what_is_left_out_and_which_profile_is_taken():
    options = {p.name: p for p in app.cli.commands["shrink"].params}
    assert options["profile"].default == "folder" and "named like the data" not in options["profile"].help
    assert "validation images" in options["drop_leaked"].help and "copies" in options["drop_leaked"].help


class Ends(torch.nn.Module):
    """A network with something behind its last linear layer."""
    def __init__(self, end, place="a module"):
        super().__init__()
        self.body = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 8), torch.nn.ReLU())
        self.fc, self.end = torch.nn.Linear(8, 3), end if place == "a module" else None
        self.function = end if place == "a function" else None

    def forward(self, x):
        scores = self.fc(self.body(x))
        if self.function: return self.function(self, scores)
        return self.end(scores) if self.end else scores


@pytest.mark.parametrize("end, place, features", [
    (torch.nn.Hardtanh(-2, 2), "a module", 3), (torch.nn.Hardtanh(-2, 2, inplace=True), "a module", 3), (torch.nn.Dropout(0.5), "a module", 3), (torch.nn.ReLU6(), "a module", 3),
    (lambda net, x: x.clamp(-2, 2), "a function", 3), (lambda net, x: x.clamp_(-2, 2), "a function", 3), (lambda net, x: torch.nn.functional.dropout(x, 0.5, net.training), "a function", 3),
    (lambda net, x: x if net.training else x.softmax(1), "a function", 3), (lambda net, x: x, "a function", 8), (torch.nn.Identity(), "a module", 8)])
def test_a_network_of_somebody_stays_what_it_is(end, place, features):
    """What is silent on two images, or while nothing is learnt, was put before the layer that it followed."""
    import copy
    from selmatch.train.networks import Adapted
    torch.manual_seed(0)
    whole = Ends(end, place)
    parted, x = Adapted(copy.deepcopy(whole), 3, (3, 2, 2)), 20 * torch.randn(64, 3, 2, 2)
    for learning in (False, True):
        torch.manual_seed(1)
        expected = whole.train(learning)(x)
        torch.manual_seed(1)
        assert torch.equal(parted.train(learning)(x), expected)
    assert parted.embed(x).shape == (64, features), "features, or the scores in their place"


def test_looking_at_a_network_draws_no_chance():
    from selmatch.train.networks import Adapted
    torch.manual_seed(3)
    whole, state = Ends(torch.nn.Dropout(0.5)), torch.get_rng_state()
    Adapted(whole, 3, (3, 2, 2))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("spec, said", [
    ({"name": "ConvNet", "width": 4.0}, "width=4.0"), ({"name": "ConvNet", "depth": 2.0}, "depth=2.0"), ({"name": "ConvNet", "width": "64"}, "width='64'"),
    ({"name": "ConvNet", "width": True}, "width=True"), ({"name": "ConvNet", "depth": 2000, "pooling": "none"}, "depth=2000"), ({"name": "ResNet18", "stride": 1.5}, "stride=1.5"),
    ({"name": "ResNet18", "stride": "a"}, "stride='a'"), ({"name": "ResNet18", "stride": -1}, "stride=-1"), ({"name": "ResNet18", "stride": 0}, "stride=0"),
    ({"name": "ViT", "heads": 0}, "heads=0"), ({"name": "ViT", "heads": 2.0}, "heads=2.0"), ({"name": "ViT", "patch": -2}, "patch=-2"), ({"name": "ViT", "patch": 2.0}, "patch=2.0"),
    ({"name": "ViT", "patch": 0}, "patch=0"), ({"name": "ViT", "patch": 16}, "patch=16"), ({"name": "ViT", "width": 0}, "width=0"), ({"name": "ViT", "depth": 1.5}, "depth=1.5")], ids=str)
def test_a_word_of_a_network_that_cannot_be_is_named(spec, said):
    from selmatch.train.networks import make_network
    refuses(lambda: make_network(spec, (3, 8, 8), 3, 0), f"{said} is not allowed: ", "[1, ")


@pytest.mark.parametrize("spec", [{"name": "ConvNet", "width": np.int64(4), "depth": 1}, {"name": "ResNet18", "stride": 2}, {"name": "ViT", "patch": 2, "heads": 1, "width": 6, "depth": 1}], ids=str)
def test_a_word_of_a_network_that_can_be_is_taken(spec):
    from selmatch.train.networks import make_network
    assert make_network(spec, (3, 8, 8), 3, 0)(torch.zeros(2, 3, 8, 8)).shape == (2, 3)
