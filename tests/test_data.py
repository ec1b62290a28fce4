"""Loaders: official files, folders, the tensor file behind them, and score files in the order of either."""

import io
import os
import pickle
import struct
import subprocess
import sys
import tarfile
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import ROOT
from selmatch.data import loaders as floor
from selmatch.app import data_section, make_study
from selmatch.core import InputError
from selmatch.data.images import ImageSet, map_tensors, pictures, write_pixels
from selmatch.data.loaders import load_data, load_digits
from selmatch.data.export import save_folder
from selmatch.select.scores import load_difficulty
from selmatch.study.study import Study
from test_input import profile, refuses

DATA = Path(os.environ.get("SELMATCH_DATA", ROOT.parent / "shared" / "data"))


def unpack(name, folder, wanted=lambda member: True):
    """Unpack an archive of real images; skips the test where it is missing."""
    if not (DATA / name).exists(): pytest.skip(f"{DATA / name} is missing: name its folder by SELMATCH_DATA")
    with tarfile.open(DATA / name) as archive:
        archive.extractall(folder, [m for m in archive if wanted(m)], filter="data")
    return folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """The 20 classes of Tiny ImageNet, in their official layout."""
    return unpack("tiny-imagenet-20.tar.xz", tmp_path_factory.mktemp("tiny")) / "tiny-imagenet-20"


@pytest.fixture
def mine(tmp_path):
    """Digits as PNG files in train/ and test/, and the set they were written from."""
    digits = load_digits(per_class=12, validation=0)
    save_folder(digits.train, tmp_path / "mine" / "train"); save_folder(digits.test, tmp_path / "mine" / "test")
    return tmp_path / "mine", digits


class OldPickler(pickle._Pickler):
    """Writes bytes as Python 2 wrote its texts: as the official files hold them."""
    dispatch = {**pickle._Pickler.dispatch, bytes: lambda self, b: self.write(b"T" + struct.pack("<i", len(b)) + b)}


def write_cifar(folder, kind, n=7, change=lambda batch: batch):
    """Files in the format of CIFAR-10 or CIFAR-100 with random pixels; returns what torchvision reads from them."""
    import torchvision.datasets as official
    cifar, rng = getattr(official, kind), np.random.default_rng(0)
    place, key, k = folder / cifar.base_folder, {"CIFAR10": "labels", "CIFAR100": "fine_labels"}[kind], {"CIFAR10": 10, "CIFAR100": 100}[kind]
    place.mkdir(parents=True)
    n = max(n, k)
    def write(name, content):
        stream = io.BytesIO(); OldPickler(stream, 2).dump(content); (place / name).write_bytes(stream.getvalue())
    for name, _ in cifar.train_list + cifar.test_list:
        write(name, change({b"data": rng.integers(0, 256, (n, 3072), dtype=np.uint8), key.encode(): rng.permutation(np.arange(n) % k).tolist(), b"batch_label": name.encode()}))
    write(cifar.meta["filename"], {cifar.meta["key"].encode(): [f"class {i}".encode() for i in range(k)]})
    trusting = type(kind, (cifar,), {"_check_integrity": lambda self: True})
    def read(train):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(official.cifar, "check_integrity", lambda *_: True)
            return trusting(folder, train=train)
    return read


@pytest.mark.parametrize("kind", ["CIFAR10", "CIFAR100"])
def test_cifar_is_read_as_torchvision_reads_it(kind, tmp_path):
    read = write_cifar(tmp_path, kind)
    with pytest.warns(UserWarning, match="checksum"): splits = load_data(kind.lower(), root=str(tmp_path), validation=0)
    for part, official in ((splits.train, read(True)), (splits.test, read(False))):
        assert np.array_equal(pictures(part), official.data)
        assert part.labels.tolist() == official.targets
        assert list(part.classes) == official.classes
    with warnings.catch_warnings():
        warnings.simplefilter("error")                       # the files are read once: no second warning
        few = load_data(kind.lower(), root=str(tmp_path), classes=["class 3", 7], validation=0)
    labels = np.array(read(True).targets)
    assert few.rows.tolist() == np.flatnonzero((labels == 3) | (labels == 7)).tolist()
    assert few.numbers == (3, 7)
    assert few.total == len(labels)
    assert torch.equal(few.train.labels, torch.tensor([{3: 0, 7: 1}[c] for c in labels[few.rows]]))
    assert np.array_equal(pictures(few.train), read(True).data[few.rows])


def test_cifar_says_what_is_wrong_with_its_files(tmp_path):
    with refuses(tmp_path, "batches.meta", "--root", "selmatch fetch cifar10", "cifar-10-python.tar.gz"):
        load_data("cifar10", root=str(tmp_path))
    with refuses("download", "cifar10"):
        load_data("cifar10", root=str(tmp_path), download=True)
    for i, (change, words) in enumerate([
        (lambda b: {**b, b"labels": b[b"labels"][:-1]}, ["labels", "(9,)", "(10, 3072)"]),
        (lambda b: {**b, b"labels": [10] * 10}, ["below 10"]),
        (lambda b: {**b, b"data": b[b"data"][:, :100]}, ["(10, 100)", "(n, 3072)"]),
        (lambda b: {**b, b"data": b[b"data"].astype(np.int64)}, ["int64"]),
        (lambda b: {**b, b"data": os.getcwd}, ["data_batch_1", "getcwd"]),      # code of a stranger
        (lambda b: [b], ["data_batch_1", "list"]),
    ]):
        write_cifar(tmp_path / str(i), "CIFAR10", change=change)
        with refuses("data_batch_1", *words): load_data("cifar10", root=str(tmp_path / str(i)))
    place = tmp_path / "5" / "cifar-10-batches-py"
    (place / "data_batch_1").write_bytes((tmp_path / "4" / "cifar-10-batches-py" / "test_batch").read_bytes()[:50])
    with refuses("data_batch_1", "cannot read"): load_data("cifar10", root=str(place))
    (place / "data_batch_3").unlink()
    with refuses("data_batch_3", "test_batch"): load_data("cifar10", root=str(place))


def test_tiny_imagenet_has_the_right_labels(tiny):
    from torchvision.datasets import ImageFolder
    splits, official = load_data("tinyimagenet", root=str(tiny), validation=0), ImageFolder(str(tiny / "train"))
    assert splits.train.shape == (3, 64, 64)
    assert (len(splits.train), len(splits.test)) == (10_000, 1_000)
    assert splits.train.labels.tolist() == official.targets
    assert splits.train.classes[0] == "goldfish"
    notes = dict(line.split("\t")[:2] for line in (tiny / "val" / "val_annotations.txt").read_text().splitlines())
    train = [(path, label) for path, label in official.samples]
    val = [(str(tiny / "val" / "images" / name), official.class_to_idx[notes[name]]) for name in sorted(notes)]
    assert splits.test.labels.tolist() == [label for _, label in val]
    for part, files in ((splits.train, train), (splits.test, val)):
        grey = [i for i, (path, _) in enumerate(files) if Image.open(path).mode == "L"]
        rows = [*grey[:3], *range(0, len(files), len(files) // 7)]
        assert grey
        assert all(np.array_equal(p, np.asarray(Image.open(files[r][0]).convert("RGB"))) for r, p in zip(rows, pictures(part.subset(rows))))
    assert load_data("tinyimagenet", root=str(tiny.parent / tiny.name), validation=0).test.key == splits.test.key


def test_a_part_of_tiny_imagenet_finds_its_scores(tiny):
    few = load_data("tinyimagenet", root=str(tiny), classes=["n01641577", "goldfish", 5], size=32, per_class=30, validation=0.2)
    assert few.train.shape == (3, 32, 32)
    assert (len(few.train), len(few.validation), len(few.test)) == (72, 18, 90)
    assert few.numbers == (0, 2, 5)
    file = DATA / "tiny-imagenet-20_forgetting.npy"
    scores = np.load(file)
    assert load_difficulty(file, "forgetting", few).tolist() == scores[few.rows].tolist()
    assert few.rows.max() < 5 * 500 + 30
    assert torch.equal(few.rows // 500, torch.tensor(few.numbers)[few.train.labels])
    with refuses("n99", "goldfish"): load_data("tinyimagenet", root=str(tiny), classes=["n99", 1])
    with refuses("classes=['goldfish']", "at least 2"): load_data("tinyimagenet", root=str(tiny), classes=["goldfish"])
    with refuses("classes=21", "[2, 20]"): load_data("tinyimagenet", root=str(tiny), classes=21)


@pytest.mark.slow
def test_cifar_10_jpeg_is_mapped_not_read(tmp_path):
    unpack("cifar10_jpeg.tar.xz", tmp_path, lambda m: m.isfile() and int(Path(m.name).stem) % 10 == 0)      # every tenth image
    code = """if True:
        import psutil, sys
        from selmatch.data.loaders import load_data
        grown, before = lambda: (psutil.Process().memory_info().rss - before) / 1e6, psutil.Process().memory_info().rss
        splits = load_data("folder", root=sys.argv[1])
        splits.train.key, splits.train.shape, splits.train.subset([5, 7]).images
        print(len(splits.train), len(splits.test), grown())"""
    for _ in range(2): done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "cifar10")], cwd=ROOT, check=True, capture_output=True, text=True)
    train, test, grown = done.stdout.split()
    assert (train, test) == ("4000", "1000"), f"{grown} MB; as floats they would be 74 MB"
    assert float(grown) < 40, f"{grown} MB; as floats they would be 74 MB"


def test_official_scores_fit_the_folder():
    file = DATA / "cifar10_scores.npz"
    if not file.exists(): pytest.skip(f"{file} is missing: name its folder by SELMATCH_DATA")
    labels = torch.arange(10).repeat_interleave(5000)
    data = ImageSet(torch.zeros(50_000, 1, 1, 1), labels, tuple("abcdefghij"), (0.0,), (1.0,), "cifar")
    content = np.load(file)
    c = load_difficulty(file, "c_score", data, "c_score", "folder_order")
    assert torch.allclose(c[123], 1 - torch.tensor(content["c_score"][content["folder_order"][123]]).double())
    with refuses("row 0", "order=", "class"): load_difficulty(file, "c_score", data, "c_score")
    with refuses("None", "c_score, "): load_difficulty(file, "c_score", data)
    with refuses("order", "folder", "folder_order"): load_difficulty(file, "c_score", data, "c_score", "folder")
    with refuses("(50000,)", "49 images"): load_difficulty(file, "c_score", data.subset(range(49)), "c_score")


def test_score_files_in_a_profile(tmp_path):
    from sklearn import datasets
    raw, order = datasets.load_digits().target, np.random.default_rng(0).permutation(1797)
    values, file = np.arange(1797.0), tmp_path / "scores.npz"
    back = np.argsort(order)                                 # image j stands at place order[j] of the file
    np.savez(file, forgetting=values[back], labels=raw[back], way=order, twice=np.zeros(1797, dtype=int))
    score = {"kind": "file", "path": str(file), "file_kind": "forgetting", "key": "forgetting"}
    study = lambda **more: Study(profile(data={"name": "digits", "per_class": 40}, score={**score, **more}), folder=tmp_path)
    found = study(order="way")
    assert found.difficulty.tolist() == found.splits.rows.tolist()
    assert torch.equal(torch.from_numpy(raw)[found.splits.rows], found.splits.train.labels)
    with refuses("row 0"): study().difficulty
    with refuses("twice", "once"): study(order="twice").difficulty
    with refuses("labels"): study(key="lables").difficulty


def test_a_set_from_files_is_the_set_that_was_written(mine):
    folder, digits = mine
    first = load_data("folder", root=str(folder), mode="L", validation=0)
    for part, made in ((first.train, digits.train), (first.test, digits.test)):
        order = made.labels.argsort(stable=True)
        assert np.array_equal(pictures(part), pictures(made)[order])
        assert torch.equal(part.labels, made.labels[order])
    x = torch.from_numpy(pictures(first.train)).permute(0, 3, 1, 2).float() / 255
    assert torch.allclose(torch.tensor(first.train.mean), x.mean((0, 2, 3)))
    assert torch.allclose(torch.tensor(first.train.std), x.std((0, 2, 3)))
    assert first.train.images.dtype == torch.float32
    assert first.train.to("cpu") is first.train
    assert first.train.images is first.train.images


def test_a_key_does_not_depend_on_whether_images_were_read(mine):
    load = lambda **options: load_data("folder", root=str(mine[0]), mode="L", **options)
    unread, read = load().train, load().train
    read.images
    rows = [3, 1, 5]
    assert unread.key == read.key
    assert unread.subset(rows).key == read.subset(rows).key == unread.subset(range(6)).subset(rows).key
    assert torch.equal(unread.subset(rows).images, read.images[rows])
    assert "images" not in unread.__dict__
    assert len({unread.key, load(seed=1).train.key, load().validation.key, unread.subset(rows).key, unread.subset([1, 3, 5]).key}) == 5
    sent = pickle.loads(pickle.dumps(read))
    assert "images" not in sent.__dict__
    assert torch.equal(sent.images, read.images)
    assert sent.key == read.key


def test_tensor_files(mine, monkeypatch):
    folder, cache = mine[0], mine[0].parent / "cache"
    load = lambda: load_data("folder", root=str(folder), mode="L", validation=0, cache=str(cache))
    read = floor.decode_images
    def interrupted(*given): read(*given); raise KeyboardInterrupt
    monkeypatch.setattr(floor, "decode_images", interrupted)
    with pytest.raises(KeyboardInterrupt): load()
    monkeypatch.setattr(floor, "write_pixels", lambda path, **_: (_ for _ in ()).throw(OSError("disk full")))
    monkeypatch.setattr(floor, "decode_images", read)
    with refuses("disk full", cache, "SELMATCH_HOME"): load()
    assert not cache.exists() or not list(cache.iterdir())
    monkeypatch.undo()
    first, files = load(), list(cache.iterdir())
    monkeypatch.setattr(floor, "decode_images", lambda *_: pytest.fail("decoded again"))
    assert load().train.key == first.train.key
    assert list(cache.iterdir()) == files
    monkeypatch.undo()
    files[0].write_bytes(files[0].read_bytes()[:-9]); map_tensors.cache_clear()
    with pytest.warns(UserWarning, match="decoded anew"): again = load()
    assert again.train.key == first.train.key
    Image.new("L", (8, 8), 200).save(folder / "train" / "0" / "0000.png")
    changed = load()
    assert changed.train.key != first.train.key
    assert len(list(cache.glob("*.safetensors"))) == 2


def test_two_processes_may_decode_at_once(mine):
    cache = mine[0].parent / "cache"
    code = "import sys; from selmatch.data.loaders import load_data; print(load_data('folder', root=sys.argv[1], mode='L', cache=sys.argv[2]).train.key)"
    both = [subprocess.Popen([sys.executable, "-c", code, str(mine[0]), str(cache)], cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert len({process.communicate(timeout=300)[0] for process in both}) == 1
    assert len(list(cache.iterdir())) == 1
    assert not any(process.returncode for process in both)


def test_folders_are_listed_as_torchvision_lists_them(mine):
    from torchvision.datasets import ImageFolder
    from torchvision.datasets.folder import IMG_EXTENSIONS
    deep = mine[0] / "train" / "3" / "b" / "a"
    deep.mkdir(parents=True)
    for name in ("10.PNG", "9.png", "notes.txt"): (deep / name).write_bytes((mine[0] / "train" / "3" / "0000.png").read_bytes())
    names, files = floor.list_image_folder(mine[0] / "train")
    official = ImageFolder(str(mine[0] / "train"))
    assert floor.image_suffixes == IMG_EXTENSIONS
    assert names == official.classes
    assert files == official.samples


def test_data_on_the_command_line(tmp_path):
    assert data_section("tinyimagenet", str(tmp_path), size=32) == {"name": "tinyimagenet", "root": str(tmp_path), "size": 32}
    with refuses("one folder too many"): data_section("folder:/a", "/b")
    for name in ("cifar10", "cifar100", "tinyimagenet"):
        assert make_study(name, root=str(tmp_path), device="cpu").profile.data["root"] == str(tmp_path)
    assert make_study(profile="folder", root=str(tmp_path), device="cpu").profile.data == {"name": "folder", "root": str(tmp_path), "size": 32}


def test_sums_of_many_images_are_exact(tmp_path):
    pixels = torch.randint(0, 256, (600, 2, 5, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    write_pixels(tmp_path / "x.safetensors", pixels)
    stored = map_tensors(str(tmp_path / "x.safetensors"))
    assert torch.equal(stored["sums"], pixels.long().sum((2, 3)))
    assert torch.equal(stored["squares"], pixels.long().square().sum((2, 3)))
    assert len({bytes(d.tolist()) for d in stored["digests"]}) == 600
