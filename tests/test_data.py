"""Loaders: official files, folders, the tensor file behind them, and score files in the order of either."""

import os
import pickle
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
from selmatch.data import folders
from selmatch.app import data_section, make_study
from selmatch.core import InputError
from selmatch.data.folders import Reading, find_splits, read_image, survey
from selmatch.data.images import ImageSet, map_tensors, pictures, write_pixels
from selmatch.data.loaders import load_data, load_digits
from selmatch.data.export import save_folder
from selmatch.select.scores import load_difficulty
from selmatch.study.study import Study
from test_input import profile, refuses

sys.path.insert(0, str(ROOT / "scripts"))
from write_official import write_batch  # noqa: E402

TAR_WORDS = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}      # since Python 3.11.4
DATA = Path(os.environ.get("SELMATCH_DATA", ROOT.parent / "shared" / "data"))


def unpack(name, folder, wanted=lambda member: True):
    """Unpack an archive of real images; skips the test where it is missing."""
    if not (DATA / name).exists(): pytest.skip(f"{DATA / name} is missing: name its folder by SELMATCH_DATA")
    with tarfile.open(DATA / name) as archive:
        archive.extractall(folder, [m for m in archive if wanted(m)], **TAR_WORDS)
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


def write_cifar(folder, kind, n=7, change=lambda batch: batch):
    """Files in the format of CIFAR-10 or CIFAR-100 with random pixels; returns what torchvision reads from them."""
    import torchvision.datasets as official
    cifar, rng = getattr(official, kind), np.random.default_rng(0)
    place, key, k = folder / cifar.base_folder, {"CIFAR10": "labels", "CIFAR100": "fine_labels"}[kind], {"CIFAR10": 10, "CIFAR100": 100}[kind]
    place.mkdir(parents=True)
    n = max(n, k)
    for name, _ in cifar.train_list + cifar.test_list:
        write_batch(place / name, change({b"data": rng.integers(0, 256, (n, 3072), dtype=np.uint8), key.encode(): rng.permutation(np.arange(n) % k).tolist(), b"batch_label": name.encode()}))
    write_batch(place / cifar.meta["filename"], {cifar.meta["key"].encode(): [f"class {i}".encode() for i in range(k)]})
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
    tensors = lambda: sorted(cache.glob("*.safetensors"))
    monkeypatch.setattr(folders, "join_pieces", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with refuses("disk full", cache, "SELMATCH_HOME"): load()
    assert [path.name[:5] for path in cache.iterdir()] == ["look-"], "something half stays"
    monkeypatch.undo()
    first, files = load(), tensors()
    assert sorted(path.name[:5] for path in cache.iterdir()) == ["look-", "mine-"]
    assert files[0].stat().st_mode & 0o777 == 0o666 & ~umask(), "the tensor file has not the mode that others have"
    monkeypatch.setattr(folders, "decode_piece", lambda *_, **__: pytest.fail("decoded again"))
    assert load().train.key == first.train.key
    assert tensors() == files
    monkeypatch.undo()
    files[0].write_bytes(files[0].read_bytes()[:-9]); map_tensors.cache_clear()
    with pytest.warns(UserWarning, match="decoded anew"): again = load()
    assert again.train.key == first.train.key
    Image.new("L", (8, 8), 200).save(folder / "train" / "0" / "0000.png")
    changed = load()
    assert changed.train.key != first.train.key
    assert len(list(cache.glob("*.safetensors"))) == 2


def test_a_tensor_file_of_another_form_is_not_read(mine):
    """Earlier tensor files of the same pictures lack what is asked of them today: they lie under another name."""
    cache = mine[0].parent / "cache"
    load = lambda: load_data("folder", root=str(mine[0]), mode="L", validation=0, cache=str(cache))
    first, path = load(), next(cache.glob("mine-*.safetensors"))
    files = [str(f) for part in survey(mine[0], cache=cache).parts.values() for f, _ in part]
    earlier = folders.name_files(files, "mine", str(cache), folders.Reading(mode="L").key).with_suffix(".safetensors")
    assert earlier.name != path.name
    earlier.write_bytes(b"a file of an earlier form"); map_tensors.cache_clear()
    assert load().train.key == first.train.key


def umask():
    before = os.umask(0); os.umask(before)
    return before


def test_what_was_decoded_is_kept_across_an_interruption(tmp_path, monkeypatch):
    """Killed in the middle: the next call decodes only the rest, and the tensor file is the one that an undisturbed call writes."""
    images, rng = [], np.random.default_rng(0)
    for i in range(700):
        images.append(str(tmp_path / f"{i:03d}.png")); Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)).save(images[-1])
    how, made, decode = Reading(), [], folders.decode_piece
    def count(files, **words): made.append(len(files)); return decode(files, **words)
    def interrupted(files, **words):
        if made: raise KeyboardInterrupt
        return count(files, **words)
    monkeypatch.setattr(folders, "decode_piece", interrupted)
    with pytest.raises(KeyboardInterrupt): folders.decode_files(images, how, tmp_path / "a.safetensors")
    assert (made, (tmp_path / "a.safetensors").exists()) == ([256], False)
    piece, = (tmp_path / "a.parts").iterdir()
    (tmp_path / "a.parts" / "00000256.npz").write_bytes(piece.read_bytes()[:100])       # half a piece, as a full disk leaves it
    monkeypatch.setattr(folders, "decode_piece", count); made.clear()
    folders.decode_files(images, how, tmp_path / "a.safetensors")
    assert made == [256, 188]
    assert not (tmp_path / "a.parts").exists()
    folders.decode_files(images, how, tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    ours = map_tensors(str(tmp_path / "a.safetensors"))
    write_pixels(tmp_path / "c.safetensors", ours["pixels"].clone())
    assert all(torch.equal(tensor, ours[name]) for name, tensor in map_tensors(str(tmp_path / "c.safetensors")).items())


def test_two_processes_may_decode_at_once(mine):
    cache = mine[0].parent / "cache"
    code = "import sys; from selmatch.data.loaders import load_data; print(load_data('folder', root=sys.argv[1], mode='L', cache=sys.argv[2]).train.key)"
    both = [subprocess.Popen([sys.executable, "-c", code, str(mine[0]), str(cache)], cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert len({process.communicate(timeout=300)[0] for process in both}) == 1
    assert len(list(cache.glob("*.safetensors"))) == 1
    assert sorted(path.suffix for path in cache.iterdir()) == [".json", ".safetensors"]
    assert not any(process.returncode for process in both)


def test_folders_are_listed_as_torchvision_lists_them(mine):
    from torchvision.datasets import ImageFolder
    from torchvision.datasets.folder import IMG_EXTENSIONS
    deep = mine[0] / "train" / "3" / "b" / "a"
    deep.mkdir(parents=True)
    for name in ("10.PNG", "9.png", "notes.txt"): (deep / name).write_bytes((mine[0] / "train" / "3" / "0000.png").read_bytes())
    names, files = folders.list_image_folder(mine[0] / "train")
    official = ImageFolder(str(mine[0] / "train"))
    assert set(folders.image_suffixes) - set(IMG_EXTENSIONS) == {".jfif", ".gif"} and set(IMG_EXTENSIONS) < set(folders.image_suffixes)
    assert names == official.classes
    assert files == official.samples


def test_data_on_the_command_line(tmp_path):
    assert data_section("tinyimagenet", str(tmp_path), size=32) == {"name": "tinyimagenet", "root": str(tmp_path), "size": 32}
    with refuses("one folder too many"): data_section("folder:/a", "/b")
    for name in ("cifar10", "cifar100", "tinyimagenet"):
        assert make_study(name, root=str(tmp_path), device="cpu").profile.data["root"] == str(tmp_path)
    for c in "ab":
        (tmp_path / c).mkdir()
        for i in range(8): Image.fromarray(np.full((4, 4, 3), 20 * i + (c == "b"), np.uint8)).save(tmp_path / c / f"{i}.png")
    assert make_study(profile="folder", root=str(tmp_path), device="cpu").profile.data == {"name": "folder", "root": str(tmp_path), "size": 32}


def test_sums_of_many_images_are_exact(tmp_path):
    pixels = torch.randint(0, 256, (600, 2, 5, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    write_pixels(tmp_path / "x.safetensors", pixels)
    stored = map_tensors(str(tmp_path / "x.safetensors"))
    assert torch.equal(stored["sums"], pixels.long().sum((2, 3)))
    assert torch.equal(stored["squares"], pixels.long().square().sum((2, 3)))
    assert len({bytes(d.tolist()) for d in stored["digests"]}) == 600


# ---------------------------------------------------------------- files of all kinds

RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)


@pytest.mark.parametrize("name, make", [
    ("png16", lambda p: Image.fromarray(RAMP.astype(np.uint16) * 257).save(p)),
    ("tiff16", lambda p: Image.fromarray(RAMP.astype(np.uint16) * 257).save(p, format="TIFF")),
    ("tiff16 from white to black", lambda p: Image.fromarray(65535 - RAMP.astype(np.uint16) * 257).save(p, format="TIFF", tiffinfo={262: 0})),
    ("float from 0 to 1", lambda p: Image.fromarray(RAMP.astype(np.float32) / 255).save(p, format="TIFF")),
    ("pgm16", lambda p: Path(p).write_bytes(b"P5 16 16 65535 " + (RAMP.astype(">u2") * 257).tobytes())),
    ("pgm of 10 bits", lambda p: Path(p).write_bytes(b"P5 16 16 1023 " + np.rint(RAMP * (1023 / 255)).astype(">u2").tobytes())),
    ("grey and alpha", lambda p: Image.fromarray(np.dstack([RAMP, np.full_like(RAMP, 255)]), "LA").save(p)),
    ("palette", lambda p: Image.fromarray(RAMP).convert("P").save(p)),
    ("gif", lambda p: Image.fromarray(RAMP).save(p, format="GIF")),
    ("colour of 16 bits", lambda p: Path(p).write_bytes(b"P6 16 16 65535 " + (np.repeat(RAMP.reshape(-1, 1), 3, 1).astype(">u2") * 257).tobytes())),
    ("colour and alpha", lambda p: Image.fromarray(np.dstack([RAMP] * 3 + [np.full_like(RAMP, 255)])).save(p)),
    ("turned", lambda p: Image.fromarray(np.rot90(RAMP)).save(p, exif=turned(6))),
    ("cmyk", lambda p: Image.fromarray(np.dstack([255 - RAMP] * 3 + [np.zeros_like(RAMP)]), "CMYK").save(p, format="TIFF")),
])
def test_every_kind_of_picture_shows_the_same_ramp(name, make, tmp_path):
    path = tmp_path / "x.png"                     # what a file is decides itself, not its name
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        make(path)
    assert np.abs(read_image(path, mode="L")[0].astype(int) - RAMP).max() <= (name == "cmyk"), name
    assert np.abs(read_image(path).astype(int) - RAMP).max() <= (name == "cmyk"), name


def turned(orientation):
    exif = Image.Exif(); exif[274] = orientation
    return exif


def test_greys_whose_white_nobody_knows_are_refused_and_scaled_on_demand(tmp_path):
    for i, values in enumerate((RAMP.astype(np.float32) * 16, RAMP.astype(np.int32) * 16)):
        Image.fromarray(values).save(tmp_path / f"{i}.tif")
        with refuses(f"{i}.tif", "0 to 4080", "--white 4080"): read_image(tmp_path / f"{i}.tif")
        assert np.array_equal(read_image(tmp_path / f"{i}.tif", mode="L", white=4080)[0], RAMP)
    Image.fromarray(RAMP.astype(np.uint16) * 16).save(tmp_path / "twelve.png")
    assert read_image(tmp_path / "twelve.png").max() == 16
    assert np.array_equal(read_image(tmp_path / "twelve.png", mode="L", white=4080)[0], RAMP)
    Image.fromarray(np.full((4, 4), np.nan, dtype=np.float32)).save(tmp_path / "nan.tif")
    with refuses("nan.tif", "nan"): read_image(tmp_path / "nan.tif")


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L", "RGB"])
def test_what_is_transparent_shows_the_background(mode, tmp_path):
    alpha = np.zeros((4, 4), np.uint8); alpha[0] = 255
    hidden = Image.fromarray(np.dstack([np.full((4, 4), v, np.uint8) for v in (7, 7, 7)] + [alpha]))
    if mode in ("RGBA", "LA"):
        hidden.convert(mode).save(tmp_path / "x.png")
    else:       # one colour counts as transparent
        own = np.where(alpha[..., None] > 0, 7, 9).repeat(3, 2).astype(np.uint8)
        image = Image.fromarray(own).quantize(2) if mode == "P" else Image.fromarray(own).convert(mode)
        image.save(tmp_path / "x.png", transparency=image.getpixel((0, 3)))
    for background, level in (("white", 255), ("black", 0), ("#102030", (16, 32, 48))):
        picture = read_image(tmp_path / "x.png", background=background)
        assert (picture[:, 0] == 7).all() and (picture[:, 1:].transpose(1, 2, 0) == level).all()
    with refuses("background", "whit"): read_image(tmp_path / "x.png", background="whit")


def test_no_program_is_run_and_no_bomb_goes_off(tmp_path):
    (tmp_path / "eps.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) print\n")
    with refuses("eps.png", "none of JPEG, PNG"): read_image(tmp_path / "eps.png")
    Image.new("1", (3000, 3000)).save(tmp_path / "large.png")
    with refuses("large.png", "9,000,000", "max_pixels=1,000", "--max-pixels 9000000"): read_image(tmp_path / "large.png", max_pixels=1000)
    limit = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = 10             # somebody else's limit stays theirs
    try:
        assert read_image(tmp_path / "large.png", 2).shape == (3, 2, 2)
        assert Image.MAX_IMAGE_PIXELS == 10
    finally:
        Image.MAX_IMAGE_PIXELS = limit
    (tmp_path / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0" + bytes(30))
    (tmp_path / "folder.png").mkdir()
    for name in ("cut.jpg", "folder.png", "nowhere.png"):
        with refuses(name, "cannot read image"): read_image(tmp_path / name)
    with refuses("size", "1000000"): Reading(1_000_000)
    with refuses("fit", "squash", "crop, pad, stretch"): Reading(fit="squash")


def test_a_square_by_each_rule(tmp_path):
    wide = np.zeros((10, 30, 3), np.uint8); wide[:, :10, 0] = wide[:, 20:, 2] = 200
    Image.fromarray(wide).save(tmp_path / "wide.png")
    crop, pad, stretch = (read_image(tmp_path / "wide.png", 30, fit=fit, background="#00ff00") for fit in ("crop", "pad", "stretch"))
    assert crop.shape == pad.shape == stretch.shape == (3, 30, 30)
    assert crop[:, 15, 15].tolist() == [0, 0, 0] and crop[2, 15, 29] <= 60
    assert pad[:, 0, 0].tolist() == [0, 255, 0] and np.array_equal(pad[:, 10:20], wide.transpose(2, 0, 1))
    assert stretch[0, 5, 3] == 200 and stretch[2, 25, 27] == 200


# ---------------------------------------------------------------- folders of all kinds

def write_folder(place, classes=("cat", "dog"), n=4, first=0):
    """Small grey pictures, all different; returns how many were written."""
    for c, name in enumerate(classes):
        (place / name).mkdir(parents=True)
        for i in range(n):
            Image.new("L", (8, 8), first + n * c + i).save(place / name / f"{i}.png")
    return n * len(classes)


def test_what_lies_in_a_folder_by_accident_is_left_out_and_counted(tmp_path):
    write_folder(tmp_path / "mine")
    cat, dog, there = tmp_path / "mine" / "cat", tmp_path / "mine" / "dog", (tmp_path / "mine" / "cat" / "0.png").read_bytes()
    for name in (".ipynb_checkpoints", "@eaDir"):
        (cat / name).mkdir(); (cat / name / "0.png").write_bytes(there)
    (tmp_path / "mine" / "__MACOSX" / "cat").mkdir(parents=True); (tmp_path / "mine" / "__MACOSX" / "cat" / "._0.png").write_bytes(b"x")
    (dog / "._0.png").write_bytes(b"\0\5\x16\7"); (dog / "Thumbs.db").write_bytes(b"x"); (dog / "a.heic").write_bytes(b"x"); (dog / "notes.txt").write_text("x")
    (cat / "up").symlink_to(tmp_path); (cat / "root").symlink_to(tmp_path / "mine"); (cat / "me").symlink_to(cat); (cat / "dogs").symlink_to(dog)
    (dog / "gone.png").symlink_to(tmp_path / "nowhere.png"); os.mkfifo(dog / "pipe.png")
    (tmp_path / "mine" / "loose.png").write_bytes(there)
    write_folder(tmp_path / "more", ("brown",), 3, first=100)
    (dog / "more").symlink_to(tmp_path / "more" / "brown"); (dog / "again").symlink_to(tmp_path / "more" / "brown")
    look = survey(tmp_path / "mine")
    assert look.counts == {"all": [4, 7]}
    assert look.left_out == {"in hidden folders (.ipynb_checkpoints)": 1, "in hidden folders (@eaDir)": 1, "in hidden folders (__MACOSX)": 1, "hidden (._…)": 1,
                             "hidden (Th…)": 1, ".heic": 1, ".txt": 1, "links back into the folder": 5, "broken links": 1, ".png": 1, "beside the class folders": 1}
    assert "left out: 15 files" in "\n".join(look.lines())
    assert look.copies == [] and look.unreadable == {}
    assert look.table()["images"].tolist() == [4, 7]


@pytest.mark.parametrize("train, other, split", [("train", "test", "test"), ("train", "val", "test"), ("Train", "VAL", "test"), ("training", "validation", "test"), ("train", "valid", "test"),
                                                 ("training_set", "test_set", "test"), ("TRAIN", "dev", "test"), ("train", "testing", "test")])
def test_splits_by_whatever_name(train, other, split, tmp_path):
    n, m = write_folder(tmp_path / train), write_folder(tmp_path / other, n=2, first=100)
    look = survey(tmp_path)
    assert {s: len(part) for s, part in look.parts.items()} == {"train": n, split: m}
    assert look.folders == {"train": train, split: other} and f"{split} {m} (from {other})" in look.lines()[1]
    splits = load_data("folder", root=str(tmp_path), validation=0)
    assert (len(splits.train), len(splits.test), splits.train.classes) == (n, m, ("cat", "dog"))


def test_a_validation_set_beside_a_test_set_is_used_as_such(tmp_path):
    for part, n, first in (("train", 10, 0), ("val", 3, 100), ("test", 2, 200)): write_folder(tmp_path / part, n=n, first=first)
    (tmp_path / "docs").mkdir(); Image.new("L", (8, 8)).save(tmp_path / "docs" / "figure.png")
    splits = load_data("folder", root=str(tmp_path), mode="L", validation=0.5)
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [20, 6, 4]
    assert pictures(splits.validation)[:, 0, 0, 0].tolist() == [100, 101, 102, 103, 104, 105]
    assert splits.validation.mean == splits.train.mean and splits.validation.labels.tolist() == [0] * 3 + [1] * 3
    assert survey(tmp_path).left_out == {"beside the splits (docs)": 1}


def test_a_class_may_be_called_train(tmp_path):
    write_folder(tmp_path, ("bus", "test", "train"))
    assert load_data("folder", root=str(tmp_path)).train.classes == ("bus", "test", "train")
    write_folder(tmp_path / "two", ("test", "train"))
    with refuses("test, train", "no class folders", "metadata.csv"): survey(tmp_path / "two")
    write_folder(tmp_path / "nested", ("bus", "car")); write_folder(tmp_path / "nested" / "train", ("steam", "diesel"))
    assert survey(tmp_path / "nested").classes == ("bus", "car", "train")
    write_folder(tmp_path / "alone" / "train")
    assert list(survey(tmp_path / "alone").parts) == ["all"] and survey(tmp_path / "alone").classes == ("cat", "dog")
    write_folder(tmp_path / "twice" / "val"); write_folder(tmp_path / "twice" / "train"); write_folder(tmp_path / "twice" / "valid")
    with refuses("val, valid", "one split"): find_splits(tmp_path / "twice")


def test_test_images_without_labels_are_counted(tmp_path):
    write_folder(tmp_path / "train"); (tmp_path / "test").mkdir()
    for i in range(3): Image.new("L", (8, 8), 90 + i).save(tmp_path / "test" / f"{i}.png")
    look = survey(tmp_path)
    assert list(look.parts) == ["all"] and look.left_out == {"without class folders (test)": 3}


@pytest.mark.parametrize("name, text", [
    ("labels.csv", "filename,label\n{0},cat\n{1},dog\n{2},cat\n{3},dog\n"),
    ("anything.csv", "\ufeffImage;Class\r\n{0};cat\r\n{1};dog\r\n{2};cat\r\n{3};dog\r\n"),
    ("metadata.csv", "file_name,text,label\n{0},\"a, b\",cat\n{1},x,dog\n{2},x,cat\n{3},x,dog\n"),
    ("metadata.jsonl", "\n".join('{{"file_name": "{%d}", "label": "%s"}}' % (i, ("cat", "dog")[i % 2]) for i in range(4))),
])
@pytest.mark.parametrize("below", ["", "images/"])
def test_labels_in_a_table(name, text, below, tmp_path):
    (tmp_path / below).mkdir(exist_ok=True)
    for i in range(5): Image.new("L", (8, 8), i).save(tmp_path / below / f"{i}.png")
    named = [f"{i}.png" if name == "labels.csv" else f"{below}{i}.png" for i in range(4)]
    (tmp_path / name).write_text(text.format(*named), encoding="utf-8")
    look = survey(tmp_path)
    assert look.classes == ("cat", "dog") and [c for _, c in look.parts["all"]] == [0, 1, 0, 1]
    assert look.folders == {"all": name} and look.left_out == {"without a label": 1}
    splits = load_data("folder", root=str(tmp_path), mode="auto", validation=0, test=0.5)
    assert splits.train.shape == (1, 8, 8) and len(splits.train) + len(splits.test) == 4
    (tmp_path / below / "3.png").unlink()
    with refuses(name, "3.png", "not in"): survey(tmp_path)


def test_tables_with_splits_numbers_and_mistakes(tmp_path):
    for i in range(6): Image.new("L", (8, 8), i).save(tmp_path / f"{i}.png")
    table = tmp_path / "labels.csv"
    table.write_text("file,label,split\n" + "".join(f"{i}.png,{(10, 9)[i % 2]},{'train' if i < 4 else 'valid'}\n" for i in range(6)))
    look = survey(tmp_path)
    assert look.classes == ("9", "10") and {s: len(p) for s, p in look.parts.items()} == {"train": 4, "test": 2}
    for text, words in (("file,label\n0.png,\n", ["line 2", "label"]), ("picture,kind\n0.png,a\n", ["file_name", "label"])):
        table.write_text(text)
        with refuses("labels.csv", *words): survey(tmp_path, labels="labels.csv")
    table.write_bytes("file,label\n0.png,chouette \xe9\n".encode("latin-1"))
    with refuses("labels.csv", "UTF-8"): survey(tmp_path)
    with refuses("other.csv"): survey(tmp_path, labels="other.csv")
    (tmp_path / "train").mkdir(); (tmp_path / "train" / "metadata.csv").write_text("file_name,label\n" + "".join(f"{i}.png,{'ab'[i % 2]}\n" for i in range(4)))
    table.unlink()
    for i in range(4): (tmp_path / f"{i}.png").rename(tmp_path / "train" / f"{i}.png")
    look = survey(tmp_path)
    assert look.classes == ("a", "b") and len(look.parts["all"]) == 4


def test_one_file_that_is_no_picture(tmp_path):
    write_folder(tmp_path, n=8)
    (tmp_path / "cat" / "8.png").write_text("no picture")
    with refuses("8.png", "none of JPEG", "--skip-unreadable"): load_data("folder", root=str(tmp_path))
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)).save(tmp_path / "cat" / "9.png")
    (tmp_path / "cat" / "9.png").write_bytes((tmp_path / "cat" / "9.png").read_bytes()[:70])        # breaks off after its head
    with refuses("8.png"): load_data("folder", root=str(tmp_path))
    assert [Path(f).name for f in survey(tmp_path).unreadable] == ["8.png"]
    with pytest.warns(UserWarning, match=r"1 images .*cat/9.png"): splits = load_data("folder", root=str(tmp_path), skip_unreadable=True)
    assert len(splits.train) + len(splits.validation) + len(splits.test) == 16
    assert "unreadable files: 1, such as" in "\n".join(survey(tmp_path).lines())
    for name in ("8.png", "9.png"): (tmp_path / "cat" / name).unlink()
    assert load_data("folder", root=str(tmp_path)).train.key == splits.train.key


def test_a_test_set_that_repeats_the_training_set(tmp_path):
    write_folder(tmp_path / "train", n=6); write_folder(tmp_path / "test", n=3, first=50)
    for i in range(2): Image.open(tmp_path / "train" / "cat" / f"{i}.png").save(tmp_path / "test" / "cat" / f"copy{i}.bmp")      # the same pixels in another format
    load = lambda **options: load_data("folder", root=str(tmp_path), mode="L", validation=0, **options)
    with pytest.warns(UserWarning, match="2 images outside the training set"): splits = load()
    assert len(splits.test) == 8
    clean = load(drop_leaked=True)
    assert (len(clean.train), len(clean.test)) == (12, 6)
    assert not {p.tobytes() for p in pictures(clean.train)} & {p.tobytes() for p in pictures(clean.test)}
    for name in ("copy0.png", "copy1.png"): (tmp_path / "test" / "cat" / name).write_bytes((tmp_path / "train" / "dog" / "0.png").read_bytes())
    assert len(survey(tmp_path).leaked) == 2 and len(survey(tmp_path).conflicts) == 3
    for c in ("cat", "dog"):
        for path in (tmp_path / "test" / c).iterdir(): path.unlink()
        for i in range(6): (tmp_path / "test" / c / f"{i}.png").write_bytes((tmp_path / "train" / c / f"{i}.png").read_bytes())
    assert "leak: 12 of 12" in "\n".join(survey(tmp_path).lines())
    with refuses("all 12 test images repeat"): load(drop_leaked=True)


def test_copies_do_not_cross_a_split_that_is_held_out(tmp_path):
    write_folder(tmp_path, n=6)
    for i in range(6): (tmp_path / "cat" / f"copy{i}.png").write_bytes((tmp_path / "cat" / f"{i}.png").read_bytes())
    with pytest.warns(UserWarning, match="6 images are copies of others"): load_data("folder", root=str(tmp_path))
    assert len(survey(tmp_path).copies) == 6
    splits = load_data("folder", root=str(tmp_path), drop_leaked=True, validation=0, test=0.5)
    assert (len(splits.train), len(splits.test), len(splits.rows)) == (6, 6, 6)
    assert len({p.tobytes() for part in (splits.train, splits.test) for p in pictures(part)}) == 12


def test_names_of_an_old_file_system(tmp_path):
    write_folder(tmp_path / "mine")
    os.rename(tmp_path / "mine" / "dog", os.fsencode(tmp_path / "mine") + b"/h\xeebou")
    splits = load_data("folder", root=str(tmp_path / "mine"), size=8)
    assert splits.train.classes == ("cat", "hîbou")
    " ".join(survey(tmp_path / "mine").lines()).encode("utf-8")


def test_a_home_in_a_path_is_meant(tmp_path, monkeypatch):
    write_folder(tmp_path / "mine")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_data("folder", root="~/mine").train.classes == ("cat", "dog")


def test_a_look_is_kept_until_a_file_changes(tmp_path, monkeypatch):
    write_folder(tmp_path / "mine")
    first = survey(tmp_path / "mine", cache=tmp_path / "cache")
    with monkeypatch.context() as patch:
        patch.setattr(folders, "read_headers", lambda *_: pytest.fail("looked again"))
        assert survey(tmp_path / "mine", cache=tmp_path / "cache") == first
    Image.new("RGB", (9, 9)).save(tmp_path / "mine" / "cat" / "0.png")
    assert "8 × 8 7, 9 × 9 1" in survey(tmp_path / "mine", cache=tmp_path / "cache").lines()[2]
    (tmp_path / "file").write_text("x")
    assert survey(tmp_path / "mine", cache=tmp_path / "file" / "below").counts == first.counts      # nothing can be kept there


def test_the_look_and_the_decoder_load_no_torch():
    code = "import sys, selmatch.data.folders; print([m for m in ('torch', 'pandas') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True).stdout == "[]\n"
