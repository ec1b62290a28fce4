"""Files from strangers: a seed of every kind, changed at random, through every reader.

    python scripts/mutate_files.py --files 12000 --out counts.json      goes on where it was stopped
    python scripts/mutate_files.py --show images-png 17                 one of them again, with its trace

A reader may refuse (`InputError`), or accept what is valid by its schema. Anything else is a finding: another exception,
something accepted that cannot be, more than five seconds of the processor, more than a gigabyte, a file that appears
outside its folder, code of the file's own that runs. File `i` of a reader depends on the seed, the reader and `i` alone."""
import argparse
import contextlib
import io
import json
import os
import pickle
import random
import resource
import shutil
import signal
import sys
import tarfile
import tempfile
import traceback
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from selmatch.core import InputError, load_tensors, read_json, save_tensors, write_atomic, write_json

ROOT = Path(__file__).resolve().parent.parent
SECONDS, BYTES = 5, 10**9
EXTREMES = [0, -1, 1, 2**31, 2**32, 2**63, -2**63, 10**40, 1e308, -1e308, 1e-308, float("nan"), float("inf"), float("-inf"), True, None, "", "x" * 300, "../../out", "/etc/passwd", "\0", "\ud800",
            [], {}, [[]], [None], {"a": {}}, "<script>", "1e999", "0x10", "\n"]


# ---------------------------------------------------------------- changes

def change_bytes(data: bytes, chance: random.Random) -> bytes:
    """A few bytes flipped, zeroed, cut, added, repeated, replaced by extreme numbers, or moved; or the end cut off."""
    data = bytearray(data)
    for _ in range(chance.choice([1, 1, 1, 2, 5])):
        if not data:
            break
        place, n = chance.randrange(len(data)), chance.choice([1, 1, 2, 4, 8, 40])
        way = chance.choice(["flip", "zero", "cut", "add", "end", "repeat", "number", "swap"])
        if way == "flip": data[place] ^= 1 << chance.randrange(8)
        elif way == "zero": data[place:place + n] = bytes(len(data[place:place + n]))
        elif way == "cut": del data[place:place + n]
        elif way == "add": data[place:place] = bytes(chance.randrange(256) for _ in range(n))
        elif way == "end": del data[place:]
        elif way == "repeat": data[place:place] = data[place:place + n] * chance.choice([1, 2, 200])
        elif way == "number": data[place:place + 8] = chance.choice([b"\xff" * 8, b"\x7f" + b"\xff" * 7, b"\0" * 8, b"\xff" * 4, b"\xff\x7f", b"\0\0\0\x80"])
        else:
            other = chance.randrange(len(data))
            data[place:place + n], data[other:other + n] = data[other:other + n], data[place:place + n]
    return bytes(data)


def change_tree(value: Any, chance: random.Random) -> Any:
    """A tree of JSON with one part replaced, removed, doubled, wrapped, or put under another name."""
    if isinstance(value, dict) and value and chance.random() < 0.85:
        key, made = chance.choice(list(value)), dict(value)
        way = chance.random()
        if way < 0.15: del made[key]
        elif way < 0.25: made[chance.choice(["", "x", "\0", "a/b", "../c", str(key) + "x"])] = made.pop(key)
        else: made[key] = change_tree(value[key], chance)
        return made
    if isinstance(value, (list, tuple)) and len(value) and chance.random() < 0.85:
        made, i = list(value), chance.randrange(len(value))
        way = chance.random()
        if way < 0.15: del made[i]
        elif way < 0.3: made.insert(i, made[i])
        else: made[i] = change_tree(value[i], chance)
        return made
    way = chance.random()
    if way < 0.1: return [value]
    if way < 0.15: return {"x": value}
    if way < 0.25 and isinstance(value, str) and value: return value[:-1] + chance.choice("\0\n,;\t'\"é\u202e")
    if way < 0.3 and isinstance(value, (int, float)) and not isinstance(value, bool): return -value
    return chance.choice(EXTREMES)


def change_tensor(value: torch.Tensor, chance: random.Random) -> torch.Tensor:
    """Another dtype, shape, length, or numbers that are none."""
    way = chance.choice(["dtype", "cut", "flat", "nan", "inf", "empty", "negative", "scalar", "large"])
    if way == "dtype": return value.to(chance.choice([torch.float64, torch.float16, torch.int8, torch.int64, torch.bool, torch.uint8, torch.bfloat16]))
    if way == "cut": return value[:-1] if value.ndim else value
    if way == "flat": return value.flatten()
    if way == "empty": return value[:0] if value.ndim else value.reshape(1)[:0]
    if way == "scalar": return value.flatten()[:1].reshape(()) if value.numel() else torch.zeros(())
    if way == "negative": return -value.float() if value.dtype == torch.bool else -value
    made = value.clone()
    if made.numel() and made.is_floating_point():
        made.view(-1)[chance.randrange(made.numel())] = {"nan": float("nan"), "inf": float("inf"), "large": 3e38}[way]
    elif made.numel() and made.dtype == torch.int64:
        made.view(-1)[chance.randrange(made.numel())] = chance.choice([-1, 2**40, 10])
    return made


def change_file(path: Path, chance: random.Random):
    """Bytes, whatever the file is."""
    path.write_bytes(change_bytes(path.read_bytes(), chance))


def change_text(path: Path, chance: random.Random):
    """Bytes; or a number, a word or a line of a text."""
    text = path.read_text(encoding="utf-8", errors="replace")
    way = chance.choice(["bytes", "word", "line", "nest", "double", "long"])
    lines = text.split("\n")
    if way == "bytes":
        return change_file(path, chance)
    i = chance.randrange(len(lines))
    if way == "word":
        words = lines[i].replace(",", " , ").split(" ")
        words[chance.randrange(len(words))] = str(chance.choice(EXTREMES))
        lines[i] = " ".join(words)
    elif way == "line": lines[i] = chance.choice(["", lines[chance.randrange(len(lines))], "- x", "a: &a [*a]", "\t", "!!python/object:os.system x", "? [a]", "- &x y\n- *x"])
    elif way == "nest": lines[i] += chance.choice(["[" * 3000, "{" * 3000, "\n" + " " * 5000 + "x: y", ": " * 100, "- " * 2000])
    elif way == "double": lines = lines * chance.choice([2, 50])
    else: lines[i] += "x" * 200_000
    path.write_bytes("\n".join(lines).encode("utf-8", "surrogatepass"))


def change_json(path: Path, chance: random.Random):
    """Bytes, or a part of the tree."""
    if chance.random() < 0.35:
        return change_file(path, chance)
    tree = json.loads(path.read_text(encoding="utf-8"))
    for _ in range(chance.choice([1, 1, 2, 3])): tree = change_tree(tree, chance)
    path.write_text(json.dumps(tree), encoding="utf-8")


def change_note(path: Path, chance: random.Random):
    """A note with a digest that fits what was changed."""
    if chance.random() < 0.4:
        return change_json(path, chance)
    words = change_tree({k: v for k, v in json.loads(path.read_text()).items() if k != "digest"}, chance)
    write_json(path, words if isinstance(words, dict) else {"x": words})


def change_tensors(path: Path, chance: random.Random):
    """Bytes; or a tensor or the card, with digests that fit, or without any."""
    if chance.random() < 0.35:
        return change_file(path, chance)
    tensors, card = load_tensors(path)
    if chance.random() < 0.5 and tensors:
        name = chance.choice(sorted(tensors))
        if chance.random() < 0.15: del tensors[name]
        else: tensors[name] = change_tensor(tensors[name], chance)
    else:
        for _ in range(chance.choice([1, 1, 2])): card = change_tree(card, chance)
    if not isinstance(card, dict) or chance.random() < 0.4:
        return save_file({k: v.contiguous() for k, v in tensors.items()}, path, metadata={"card": json.dumps(card)})
    save_tensors(path, tensors, card)


def change_arrays(path: Path, chance: random.Random):
    """Bytes; or an array of another kind, shape or length, or numbers that are none."""
    if chance.random() < 0.5:
        return change_file(path, chance)
    found = np.load(path)
    arrays = dict(found) if path.suffix == ".npz" else {"values": found}
    name = chance.choice(sorted(arrays))
    old = np.array(arrays[name])
    new = chance.choice([lambda: old.astype(chance.choice(["f2", "i1", "u8", "c16", "U5", "b1", "M8[s]", "f8"])), lambda: old[:-1], lambda: old.reshape(-1, 1), lambda: np.float64(3), lambda: old[:0],
                         lambda: np.where(np.arange(len(old)) == 2, np.nan, old), lambda: old.astype(object), lambda: -old, lambda: np.full(old.shape, 2**62), lambda: np.zeros(10**6)])()
    arrays[name] = new
    if chance.random() < 0.2: arrays[chance.choice(["labels", "../x", "", "values2"])] = old
    if path.suffix == ".npz": (np.savez if chance.random() < 0.5 else np.savez_compressed)(path, **{k or "_": v for k, v in arrays.items()})
    else: np.save(path, arrays[name])


class Trap:
    """What must never run."""
    def __init__(self, place: Path): self.place = str(place)
    def __reduce__(self): return os.mkdir, (self.place,)


def change_plain(value: Any, chance: random.Random) -> Any:
    """A tree that holds tensors and arrays, too."""
    if isinstance(value, torch.Tensor): return change_tensor(value, chance)
    if isinstance(value, np.ndarray): return change_tensor(torch.from_numpy(value.copy()), chance).float().numpy()
    if isinstance(value, dict) and value:
        key = chance.choice(list(value))
        return {k: v for k, v in value.items() if k != key} if chance.random() < 0.15 else value | {key: change_plain(value[key], chance)}
    if isinstance(value, (list, tuple)) and 0 < len(value) < 20:
        i = chance.randrange(len(value))
        return [*value[:i], change_plain(value[i], chance), *value[i + 1:]]
    return change_tree(value, chance)


def change_torch(path: Path, chance: random.Random):
    """Bytes; or another content; or code."""
    way = chance.random()
    if way < 0.45:
        return change_file(path, chance)
    content = torch.load(path, weights_only=False)
    if way < 0.55: content = [content, Trap(path.parent / "it ran")]
    else: content = change_plain(content, chance)
    torch.save(content, path)


def change_pickle(path: Path, chance: random.Random):
    """Bytes; or another content; or code."""
    way = chance.random()
    if way < 0.5:
        return change_file(path, chance)
    content = pickle.loads(path.read_bytes())
    content = {"data": Trap(path.parent / "it ran")} if way < 0.6 else change_plain(content, chance)
    path.write_bytes(pickle.dumps(content, protocol=chance.choice([2, 4])))


NAMES = ["../out", "/tmp/selmatch-out", "a/../../out", "x" * 300, "a\0b", "", ".", "..", "a/" * 500 + "b", "b/one", "CON", "a\\..\\out", "é" * 130, "~", "-rf"]


def change_archive(path: Path, chance: random.Random):
    """Bytes; or a member that leads outside, is a link, a device, too long, or a folder in place of a file."""
    warnings.simplefilter("ignore", UserWarning)
    if chance.random() < 0.5:
        return change_file(path, chance)
    name = chance.choice(NAMES)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "a") as book, contextlib.suppress(ValueError):
            book.writestr(name or "x", b"content")
            if chance.random() < 0.2: book.writestr("zeros", bytes(10**6), zipfile.ZIP_DEFLATED)
        return
    with tarfile.open(path) as book: members = [(m, book.extractfile(m).read()) for m in book if m.isfile()]
    with tarfile.open(path, "w:" + ("gz" if path.suffix == ".gz" else "")) as book:
        for member, content in members: book.addfile(member, io.BytesIO(content))
        extra = tarfile.TarInfo(name)
        extra.type = chance.choice([tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE])
        extra.linkname, extra.mode = chance.choice(["../../out", "/etc", "b/one", "b", "loop", ""]), chance.choice([0o644, 0, 0o7777])
        with contextlib.suppress(ValueError): book.addfile(extra)


# ---------------------------------------------------------------- readers

@dataclass
class Reader:
    """How files of one kind are made, changed, read, and what must hold of what was accepted."""
    make: Callable[[Path], Path]               # writes seeds into a folder; returns the file that is changed
    change: Callable[[Path, random.Random], None]
    read: Callable[[Path], Any]                # None: refused in its own way
    check: Callable[[Any], bool] = lambda found: True


READERS: dict[str, Reader] = {}


@cache
def small_data():
    from selmatch.data.loaders import load_digits
    return load_digits(per_class=6)


@cache
def small_flat():
    from selmatch.train.networks import FlatNetwork, make_network
    return FlatNetwork(make_network({"name": "ConvNet", "width": 2, "depth": 1}, small_data().train.shape, 10, 0))


@cache
def small_made():
    from selmatch.distill.sets import SyntheticSet, distilled_mask
    train = small_data().train
    rows = torch.cat([torch.nonzero(train.labels == c).flatten()[:1] for c in range(10)])
    return SyntheticSet(train.subset(rows), distilled_mask(10, 1, 1.0), 0.02, {"method": "dm", "seed": 0})


@cache
def opened_data():
    from selmatch.api import from_arrays
    rng = np.random.default_rng(0)
    return from_arrays(rng.integers(0, 256, (40, 8, 8), dtype=np.uint8), np.arange(40) % 4, quiet=True)


def reader(name: str, change: Callable):
    """Register the three functions of a class: `make`, `read`, and perhaps `check`."""
    def add(of):
        READERS[name] = Reader(of.make, change, of.read, getattr(of, "check", lambda found: True))
        return of
    return add


@reader("set", change_tensors)
class SetReader:
    def make(folder):
        from selmatch.distill.sets import save_set
        save_set(small_made(), folder / "set")
        return folder / "set" / "set.safetensors"

    def read(path):
        from selmatch.distill.sets import load_set
        return load_set(path.parent)

    def check(s):
        from selmatch.data.images import pictures
        n, k = len(s.data), s.data.n_classes
        labels = s.data.labels
        hard = labels.ndim == 1 and 0 <= int(labels.min()) and int(labels.max()) < k
        rates = s.lr if isinstance(s.lr, list) else [s.lr]
        return (s.data.images.ndim == 4 and bool(s.data.images.isfinite().all()) and s.distilled.shape == (n,) and (hard or labels.shape == (n, k)) and all(0 < r < 1e31 for r in rates)
                and pictures(s.data).dtype == np.uint8)


@reader("set-card", change_json)
class CardReader:
    def make(folder):
        SetReader.make(folder)
        return folder / "set" / "card.json"

    def read(path):
        from selmatch.distill.sets import check_place
        check_place(path.parent)
        return True


@reader("set-listed", change_json)
class ListedReader:
    def make(folder):
        from selmatch.data.export import save_folder
        save_folder(small_made().data, folder / "images")
        return folder / "images" / "classes.json"

    def read(path):
        from selmatch.data.export import written_files
        return written_files(path.parent)

    def check(files):
        return all(f.exists() for f in files)


@reader("expert", change_tensors)
class ExpertReader:
    def make(folder):
        theta = torch.randn(3, small_flat().n_params, generator=torch.Generator().manual_seed(0))
        card = {"kept": [0, 2, 3], "layout": [[name, list(shape)] for name, shape in small_flat().layout]}
        save_tensors(folder / "e.safetensors", {"theta": theta}, card, by_row=["theta"])
        return folder / "e.safetensors"

    def read(path):
        from selmatch.distill.experts import open_expert
        expert = open_expert(path, small_flat())
        return [expert[t] for t in expert.kept], expert.epochs, expert.card

    def check(found):
        return all(row.shape == (small_flat().n_params,) and bool(row.isfinite().all()) for row in found[0])


@reader("result", change_tensors)
class ResultReader:
    def make(folder):
        from selmatch.study.store import Store
        Store(folder).save("ab12", {"x": torch.arange(5.0), "n": 3, "rows": [{"a": 1.5, "b": "text"}, None], 7: True})
        return Store(folder).file("ab12")

    def read(path):
        from selmatch.study.store import Store
        return Store(path.parent.parent.parent).find("ab12")


@reader("home", change_tensors)
class HomeReader:
    make = ResultReader.make

    def read(path):
        from selmatch.care import compare_all, describe_kept, list_kept
        home = path.parent.parent.parent
        describe_kept(list_kept(home))
        return not compare_all(home) or None


@reader("checkpoint", change_tensors)
class CheckpointReader:
    def make(folder):
        run = CheckpointReader.run()
        from selmatch.distill.loop import save_checkpoint
        run.keep_set()
        run.step()
        save_checkpoint(folder / "c.safetensors", run)
        return folder / "c.safetensors"

    def run():
        from selmatch.distill.condensation import DistributionMatching
        from selmatch.distill.loop import Descent, Distillation
        objective = DistributionMatching(network={"name": "ConvNet", "width": 2, "depth": 1}, train=small_data().train, batch_real=2)
        return Distillation(small_made(), objective, Descent(4, lr_images=1.0, evaluate_at=(1,), back_off=1), 0)

    def read(path):
        from selmatch.distill.loop import find_checkpoint
        run = CheckpointReader.run()
        if not find_checkpoint(path, run):
            return None
        run.step()
        return run

    def check(run):
        return bool(run.pixels.images.isfinite().all())


@reader("decoded", change_tensors)
class DecodedReader:
    def make(folder):
        from selmatch.data.images import write_pixels
        write_pixels(folder / "d.safetensors", torch.randint(0, 256, (6, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)), labels=torch.arange(6))
        return folder / "d.safetensors"

    def read(path):
        from selmatch.data.images import StoredImages, compare_pixels, map_tensors
        map_tensors.cache_clear()
        compare_pixels(str(path))
        stored = map_tensors(str(path))
        return StoredImages(str(path), torch.arange(6)).tensor(), [stored[name].clone() for name in ("sums", "digests")]

    def check(found):
        return found[0].shape == (6, 1, 4, 4)


@reader("note", change_note)
class NoteReader:
    def make(folder):
        write_json(folder / "seconds.json", {"seconds": 12.5, "history": "ab"})
        (folder / "history.csv").write_text("iteration,loss\n1,2.0\n")
        return folder / "seconds.json"

    def read(path):
        from selmatch.study.sets import has_history, read_seconds
        return read_seconds(path.parent), has_history(path.parent), read_json(path)

    def check(found):
        return isinstance(found[0], float) and found[0] == found[0]


@reader("look", change_json)
class LookReader:
    def make(folder):
        from selmatch.data.folders import survey
        for c in "ab":
            (folder / "mine" / c).mkdir(parents=True)
            for i in range(2): Image.new("RGB", (4, 4), (i, 0, 99 * (c == "b"))).save(folder / "mine" / c / f"{i}.png")
        survey(folder / "mine", cache=folder / "cache")
        return next((folder / "cache").glob("look-*.json"))

    def read(path):
        from selmatch.data.folders import survey
        folder = path.parent.parent
        (made,) = (folder / "cache").glob("look-*.json")          # its name holds the times of the files
        look = survey(folder / "mine", cache=folder / "cache")
        return look, look.lines(), look.table()

    def check(found):
        return [len(part) for part in found[0].parts.values()] == [4]


@reader("piece", change_arrays)
class PieceReader:
    def make(folder):
        from selmatch.data.folders import save_arrays
        save_arrays(folder / "p.npz", pixels=np.zeros((3, 1, 4, 4), dtype=np.uint8), readable=np.ones(3, dtype=np.uint8))
        return folder / "p.npz"

    def read(path):
        from selmatch.data.folders import is_piece, join_pieces
        if not is_piece(path, 3):
            return None
        write_atomic(path.with_name("whole.safetensors"), lambda p: join_pieces([path], (3, 1, 4, 4), p))
        return load_tensors(path.with_name("whole.safetensors"))[0]

    def check(t):
        return t["pixels"].shape == (3, 1, 4, 4) and t["readable"].shape == (3,)


def make_scores(folder, name):
    values = np.linspace(0, 1, len(small_data().train))
    arrays = {"scores": values, "labels": small_data().train.labels.numpy()}
    np.save(folder / name, values) if name.endswith("npy") else np.savez_compressed(folder / name, **arrays)
    return folder / name


def read_scores(path):
    from selmatch.select.scores import load_difficulty
    return load_difficulty(path, "forgetting", small_data().train, key=None if path.suffix == ".npy" else "scores")


def scores_fit(d):
    return d.shape == (len(small_data().train),) and bool(d.isfinite().all())


for _name in ("scores.npy", "scores.npz"):
    READERS[_name.replace(".", "-")] = Reader(partial(make_scores, name=_name), change_arrays, read_scores, scores_fit)


@reader("profile", change_text)
class ProfileReader:
    source = "smoke"

    def make(folder):
        from selmatch.study.profile import profile_folder
        shutil.copy(profile_folder / "smoke.yaml", folder / "mine.yaml")
        return folder / "mine.yaml"

    def read(path):
        from selmatch.study.profile import load_profile
        return load_profile(path)

    def check(p):
        from selmatch.core import fingerprint
        from dataclasses import asdict
        return len(fingerprint(asdict(p))) == 16 and 0 <= p.seed < 2**32 and all(0 <= a <= 1 for a in p.alpha.values())


def pictures_of(kind):
    """A small picture of one kind: -> bytes."""
    rng, out = np.random.default_rng(0), io.BytesIO()
    colour = Image.fromarray(rng.integers(0, 256, (9, 7, 3), dtype=np.uint8))
    deep = Image.fromarray(rng.integers(0, 2**16, (9, 7), dtype=np.uint16))
    words, image = {}, colour
    if kind == "png16": image, form = deep, "PNG"
    elif kind == "palette": image, form, words = colour.convert("P"), "PNG", {"transparency": 3}
    elif kind == "alpha": image, form = colour.convert("RGBA"), "PNG"
    elif kind == "interlaced": form = "PNG"
    elif kind == "jpeg": form, words = "JPEG", {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"}
    elif kind == "progressive": form, words = "JPEG", {"progressive": True}
    elif kind == "gif": form, words = "GIF", {"save_all": True, "append_images": [colour.rotate(90)], "duration": 50}
    elif kind == "tiff16": image, form = deep, "TIFF"
    elif kind == "tifff": image, form = Image.fromarray(rng.random((9, 7), dtype=np.float32)), "TIFF"
    elif kind == "tifflzw": form, words = "TIFF", {"compression": "tiff_lzw"}
    elif kind == "pgm16": image, form = deep, "PPM"
    else: form = kind.upper()
    image.save(out, form, **words)
    return out.getvalue()


SUFFIX = {"png16": "png", "palette": "png", "alpha": "png", "interlaced": "png", "progressive": "jpg", "jpeg": "jpg", "tiff16": "tif", "tifff": "tif", "tifflzw": "tif", "tiff": "tif", "pgm16": "pgm"}


def make_picture(folder, kind):
    path = folder / f"x.{SUFFIX.get(kind, kind)}"
    path.write_bytes(pictures_of(kind))
    return path


def read_picture(path):
    from selmatch.data.folders import Reading, read_header, read_pixels
    header = read_header(str(path), True, Reading.max_pixels)
    return read_pixels(path, Reading(8)), header


def picture_fits(found):
    return found[0].shape == (3, 8, 8) and found[0].dtype == np.uint8 and bool(found[1].kind)


for _kind in ("png", "png16", "palette", "alpha", "jpeg", "progressive", "gif", "bmp", "tiff", "tiff16", "tifff", "tifflzw", "webp", "ppm", "pgm16"):
    READERS[f"images-{_kind}"] = Reader(partial(make_picture, kind=_kind), change_file, read_picture, picture_fits)


@reader("image-folder", change_file)
class FolderReader:
    def make(folder):
        for c in "ab":
            (folder / "mine" / c).mkdir(parents=True)
            for i in range(8): Image.new("RGB", (8, 8), (i, 10 * i, 99 * (c == "b"))).save(folder / "mine" / c / f"{i}.png")
        return folder / "mine" / "a" / "0.png"

    def read(path):
        from selmatch.data.loaders import load_data
        return load_data("folder", root=str(path.parent.parent), size=8, cache=str(path.parent.parent.parent / "cache"), skip_unreadable=True)

    def check(splits):
        return splits.train.shape == (3, 8, 8) and 14 <= sum(len(p) for p in (splits.train, splits.validation, splits.test)) <= 16


def make_labels(folder, name):
    rows = [(f"{i}.png", "ab"[i % 2], "train" if i < 6 else "test") for i in range(8)]
    for file, *_ in rows: Image.new("RGB", (4, 4)).save(folder / file)
    text = "file_name,label,split\n" + "".join(",".join(row) + "\n" for row in rows) if name.endswith("csv") else \
        "".join(json.dumps(dict(zip(("file_name", "label", "split"), row))) + "\n" for row in rows)
    (folder / name).write_text(text)
    return folder / name


def read_table_of(path):
    from selmatch.data.folders import list_table, order_labels
    parts = list_table(path)
    return parts, order_labels({label for part in parts.values() for _, label in part})


def table_fits(found):
    return all(Path(file).is_file() and label for part in found[0].values() for file, label in part)


for _name in ("labels.csv", "labels.jsonl"):
    READERS[_name.replace(".", "-")] = Reader(partial(make_labels, name=_name), change_text, read_table_of, table_fits)


@reader("torch-mtt", change_torch)
class MttReader:
    def make(folder):
        data = opened_data()
        torch.save(data.train.images[:4].clone(), folder / "images_best.pt")
        torch.save(torch.arange(4), folder / "labels_best.pt")
        return folder / "images_best.pt"

    def read(path):
        from selmatch.others import read_set
        return read_set(path.parent / "images_best.pt", opened_data())

    def check(small):
        labels = small.labels
        fit = bool((labels >= 0).all()) and (labels.ndim == 2 or int(labels.max()) < 4)
        return len(small) > 0 and bool(small.images.isfinite().all()) and tuple(small.images.shape[1:]) == opened_data().train.shape and fit


@reader("torch-labels", change_torch)
class MttLabels:
    read, check = MttReader.read, MttReader.check

    def make(folder):
        MttReader.make(folder)
        return folder / "labels_best.pt"


@reader("torch-dc", change_torch)
class DcReader:
    check = MttReader.check

    def make(folder):
        torch.save({"data": [[opened_data().train.images[:4].clone(), torch.arange(4)]] * 2, "accs_all_exps": {"ConvNet": [0.5, 0.6]}}, folder / "dc.pt")
        return folder / "dc.pt"

    def read(path):
        from selmatch.others import read_set
        return read_set(path, opened_data(), number=1)


@reader("cifar-batch", change_pickle)
class BatchReader:
    def make(folder):
        rng = np.random.default_rng(0)
        (folder / "data_batch_1").write_bytes(pickle.dumps({"data": rng.integers(0, 256, (5, 3072), dtype=np.uint8), "labels": [0, 1, 2, 9, 3], "filenames": ["a.png"] * 5}, protocol=2))
        return folder / "data_batch_1"

    def read(path):
        from selmatch.data.loaders import read_batch
        return read_batch(path, 10, "labels")

    def check(found):
        pixels, labels = found
        return tuple(pixels.shape[1:]) == (3, 32, 32) and pixels.dtype == torch.uint8 and len(pixels) == len(labels) and bool(((labels >= 0) & (labels < 10)).all())


@reader("cifar-meta", change_pickle)
class MetaReader:
    def make(folder):
        (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": [f"class {i}" for i in range(10)], "num_vis": 3072}, protocol=2))
        return folder / "batches.meta"

    def read(path):
        from selmatch.data.loaders import read_class_names
        return read_class_names(path, "label_names")

    def check(names):
        return len(set(names)) == len(names) >= 2 and all(isinstance(n, str) and n for n in names)


def make_tiny(folder, name):
    place = folder / "tiny-imagenet-200"
    ids = [f"n0000000{i}" for i in range(3)]
    for i in ids: (place / "train" / i).mkdir(parents=True)
    (place / "val" / "images").mkdir(parents=True)
    for i, c in enumerate(ids):
        for j in range(6): Image.new("RGB", (8, 8), (40 * i, j, 0)).save(place / "train" / c / f"{c}_{j}.png")
        Image.new("RGB", (8, 8), (i, i, 200)).save(place / "val" / "images" / f"val_{i}.png")
    (place / "wnids.txt").write_text("\n".join(ids) + "\n")
    (place / "words.txt").write_text("".join(f"{c}\tword {i}, other\n" for i, c in enumerate(ids)))
    (place / "val" / "val_annotations.txt").write_text("".join(f"val_{i}.png\t{c}\t0\t0\t8\t8\n" for i, c in enumerate(ids)))
    return place / name


def read_tiny(path):
    from selmatch.data.loaders import load_data
    place = next(p for p in path.parents if p.name == "tiny-imagenet-200")
    return load_data("tinyimagenet", root=str(place), size=8, cache=str(place.parent / "cache"))


def tiny_fits(splits):
    from selmatch.data.export import class_folders
    return splits.train.n_classes == 3 and len(splits.test) >= 3 and len(set(class_folders(splits.train.classes))) == 3


for _name in ("wnids.txt", "words.txt", "val/val_annotations.txt"):
    READERS[f"tiny-{Path(_name).stem}"] = Reader(partial(make_tiny, name=_name), change_text, read_tiny, tiny_fits)


def make_archive(folder, name):
    path = folder / name
    if name.endswith("zip"):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as book:
            for member in ("b/one", "b/two"): book.writestr(member, member * 50)
        return path
    with tarfile.open(path, "w:gz" if name.endswith("gz") else "w") as book:
        for member in ("b/one", "b/two"):
            info = tarfile.TarInfo(member)
            info.size = 250
            book.addfile(info, io.BytesIO(member.encode() * 50))
    return path


def read_archive(path):
    from selmatch.data.fetch import unpack
    place = path.parent / "unpacked"
    place.mkdir()
    unpack(path, place)
    return place


def archive_fits(place):
    inside, found = os.path.realpath(place), list(place.rglob("*"))
    return all(Path(os.path.realpath(p)).is_relative_to(inside) for p in found) and not list(place.glob(".unpacking*")) and sum(p.lstat().st_size for p in found) < 10**7


for _name in ("a.tar", "a.tar.gz", "a.zip"):
    READERS[f"archive-{_name[2:]}"] = Reader(partial(make_archive, name=_name), change_archive, read_archive, archive_fits)


@reader("gallery", change_json)
class GalleryReader:
    def make(folder):
        card = {"figure": "fig3_window", "caption": "words", "profile": {"name": "digits", "title": "t", "seed": 0, "window": {"beta": {"0.1": 0.2}}}, "versions": {"selmatch": "1", "torch": "2"},
                "data": {"fingerprint": "ab", "train": 5}, "rows": 3, "files": {"fig3_window.csv": "ab", "fig3_window.png": "cd"},
                "claims": [{"sentence": "a < b", "verdict": "holds", "gap": 1.0, "half": None, "p_holm": 0.1, "sets": 2}]}
        (folder / "fig3_window.json").write_text(json.dumps(card))
        (folder / "fig3_window.csv").write_text("a\n1\n")
        (folder / "tab1_accuracy.json").write_text(json.dumps(card | {"figure": "tab1_accuracy"}))
        return folder / "fig3_window.json"

    def read(path):
        from selmatch.show.figures import compare_published, read_card, write_gallery
        compare_published(path.parent)
        text = write_gallery(path.parent).read_text()
        return text, read_card(path)

    def check(found):
        return "tab1_accuracy" in found[0] and "<script" not in found[0]


@reader("bench", change_json)
class BenchReader:
    def make(folder):
        row = {"part": "matching", "way": "sweep", "n_steps": 5, "batch": 10, "seconds": 0.5, "round": 0, "memory": "as it comes"}
        rows = [row | {"way": way, "seconds": s} for way in ("textbook", "sweep") for s in (0.5, 0.7)] + [{"part": "exactness", "way": "sweep", "activation": "ReLU", "relative_error": 1e-6, "cosine": 1.0}]
        (folder / "b.json").write_text(json.dumps({"device": "cpu", "done": ["x"], "rows": rows}))
        return folder / "b.json"

    def read(path):
        from selmatch.show.bench import bench_table, load_bench
        result = load_bench(path, {"device": "cpu"})
        return result, bench_table(result).round(4).to_string(index=False)

    def check(found):
        return isinstance(found[0]["rows"], list) and len(found[1]) > 0


# ---------------------------------------------------------------- one file

class Slow(BaseException):
    """More than five seconds of the processor."""


def stop(*_):
    raise Slow


def resident(name: str) -> int:    # bytes: VmRSS now, or VmHWM, the peak since `forget_peak`
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(name): return 1024 * int(line.split()[1])
    return 0


def forget_peak():
    with contextlib.suppress(OSError): Path("/proc/self/clear_refs").write_text("5")


@cache
def seeds_of(name: str) -> tuple[Path, Path]:
    """The folder of a reader's seeds, and the file in it that is changed."""
    folder = Path(tempfile.mkdtemp(prefix="seeds-"))
    return folder, READERS[name].make(folder).relative_to(folder)


def prepare(name: str, number: int, seed: int, room: Path) -> Path:
    """File `number` of a reader, changed, with what belongs beside it."""
    folder, inside = seeds_of(name)
    place = room / "in" / "here"
    shutil.copytree(folder, place, symlinks=True)             # times, too: names of caches hold them
    chance = random.Random(f"{seed}/{name}/{number}")
    for _ in range(20):
        before = (place / inside).read_bytes()
        try: READERS[name].change(place / inside, chance)
        except Exception: (place / inside).write_bytes(change_bytes(before, chance))   # a change that its own writer does not take
        if (place / inside).read_bytes() != before: break
    return place / inside


def judge(name: str, path: Path, room: Path, debug: bool = False) -> str:
    """Read a file: -> refused, accepted, or what is wrong."""
    forget_peak()
    before, outside = resident("VmRSS"), {p.name for p in room.iterdir()}
    signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            found = READERS[name].read(path)
        signal.setitimer(signal.ITIMER_PROF, 0)
        outcome = "refused" if found is None else "accepted" if READERS[name].check(found) else "invalid: accepted, and cannot be"
    except InputError as error:
        outcome = "refused" if "\n" not in str(error) and len(str(error)) < 3000 else "message: not one line"
    except Slow:
        outcome = "slow: more than five seconds"
    except BaseException as error:
        if debug: traceback.print_exc()
        outcome = f"exception: {type(error).__name__}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    if resident("VmHWM") - before > BYTES: outcome = "memory: more than a gigabyte"
    if list(room.rglob("it ran")): outcome = "trap: code of the file ran"
    if {p.name for p in room.iterdir()} != outside or Path("/tmp/selmatch-out").exists(): outcome = "outside: a file beside its folder"
    return outcome


def try_file(name: str, number: int, seed: int = 0, debug: bool = False) -> str:
    with tempfile.TemporaryDirectory(prefix="mutated-", ignore_cleanup_errors=True) as room:
        path = prepare(name, number, seed, Path(room))
        return judge(name, path, Path(room), debug)


def is_good(outcome: str) -> bool:
    return outcome in ("refused", "accepted")


# ---------------------------------------------------------------- many

def run_many(each: int, seed: int = 0, names=None, state: dict | None = None, save: Callable = lambda state: None) -> dict:
    """`each` files of each reader: {"counts": {reader: {outcome: n}}, "findings": [[reader, number, outcome], …]}."""
    state = state or {"seed": seed, "counts": {}, "findings": []}
    for name in names or READERS:
        counts = Counter(state["counts"].get(name, {}))
        for number in range(sum(counts.values()), each):
            outcome = try_file(name, number, seed)
            counts[outcome.partition(":")[0] if not is_good(outcome) else outcome] += 1
            if not is_good(outcome): state["findings"].append([name, number, outcome])
            state["counts"][name] = dict(counts)
            if number % 100 == 99: save(state)
        save(state)
    return state


def say_counts(state: dict) -> str:
    kinds = ["refused", "accepted", *sorted({k for c in state["counts"].values() for k in c} - {"refused", "accepted"})]
    lines = [f"{'reader':22s}" + "".join(f"{k:>11s}" for k in kinds)]
    lines += [f"{name:22s}" + "".join(f"{c.get(k, 0):11d}" for k in kinds) for name, c in state["counts"].items()]
    total = Counter()
    for c in state["counts"].values(): total.update(c)
    return "\n".join([*lines, f"{'all ' + str(sum(total.values())):22s}" + "".join(f"{total[k]:11d}" for k in kinds)])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=12_000, help="of all readers together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", choices=list(READERS))
    parser.add_argument("--out", type=Path, help="counts so far; it goes on from there")
    parser.add_argument("--show", nargs=2, metavar=("READER", "NUMBER"))
    words = parser.parse_args()
    os.environ["SELMATCH_HOME"] = tempfile.mkdtemp(prefix="home-")
    with contextlib.suppress(OSError, ValueError):
        size = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (size + 6 * BYTES,) * 2)
    if words.show:
        return print(try_file(words.show[0], int(words.show[1]), words.seed, debug=True))
    state = json.loads(words.out.read_text()) if words.out and words.out.exists() else None
    if state and state["seed"] != words.seed:
        raise SystemExit(f"{words.out} is of seed {state['seed']}")
    save = lambda state: words.out and write_atomic(words.out, lambda p: p.write_text(json.dumps(state, indent=1)))
    names = words.only or list(READERS)
    state = run_many(-(-words.files // len(names)), words.seed, names, state, save)
    print(say_counts(state))
    for finding in state["findings"]: print(*finding)
    sys.exit(bool(state["findings"]))


if __name__ == "__main__":
    main()
