"""Write a folder of CIFAR-10's images as official files, with the official scores beside them.

    python scripts/write_official.py cifar10 cifar10_scores.npz DATA
    SELMATCH_DATA=DATA selmatch figures --profile cifar10-lite --only fig3_window

`cifar10` has `train/CLASS/0000.jpg …` and `test/CLASS/0000.jpg …`; the scores have `labels` and `c_score` in the official order, and
`folder_order`, which leads from the folder's order to it. So the profiles that ask for official files can be tried where only the folder is
at hand. The pixels are those of the folder (JPEG), so what comes out is no result on CIFAR-10, and the loader says that the files are not
the official ones. Nothing is overwritten.
"""
import argparse
import io
import pickle
import struct
from pathlib import Path

import numpy as np
from PIL import Image
from torchvision.datasets import CIFAR10

from selmatch.core import write_atomic


class OldPickler(pickle._Pickler):
    """Writes bytes as Python 2 wrote its texts: as the official files hold them."""
    dispatch = {**pickle._Pickler.dispatch, bytes: lambda self, b: self.write(b"T" + struct.pack("<i", len(b)) + b)}


def read_images(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (n, 3072), channel after channel, and labels (n,) in the folder's order."""
    rows, labels = [], []
    for label, place in enumerate(sorted(p for p in folder.iterdir() if p.is_dir())):
        for file in sorted(place.iterdir()):
            rows.append(np.asarray(Image.open(file).convert("RGB")).transpose(2, 0, 1).reshape(-1))
            labels.append(label)
    return np.stack(rows), np.array(labels)


def write_batch(file: Path, content: dict):
    stream = io.BytesIO()
    OldPickler(stream, 2).dump(content)
    write_atomic(file, lambda draft: draft.write_bytes(stream.getvalue()))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("scores", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    place, table = args.out / CIFAR10.base_folder, args.out / "cifar10-cscores-orig-order.npz"
    for there in filter(Path.exists, (place, table)):
        parser.error(f"{there} is there already: name another folder")
    with np.load(args.scores) as found:
        order, known, scores = found["folder_order"], found["labels"].astype(int), found["c_score"].astype(float)
    pixels, labels = read_images(args.folder / "train")
    train, kinds = np.empty_like(pixels), np.empty_like(labels)
    train[order], kinds[order] = pixels, labels
    assert (kinds == known).all(), "folder and scores are about other images"
    parts = np.array_split(np.arange(len(train)), len(CIFAR10.train_list))
    for (name, _), rows in zip(CIFAR10.train_list, parts):
        write_batch(place / name, {b"data": train[rows], b"labels": kinds[rows].tolist(), b"batch_label": name.encode()})
    pixels, labels = read_images(args.folder / "test")
    write_batch(place / CIFAR10.test_list[0][0], {b"data": pixels, b"labels": labels.tolist(), b"batch_label": b"testing"})
    classes = sorted(p.name for p in (args.folder / "train").iterdir() if p.is_dir())
    write_batch(place / CIFAR10.meta["filename"], {CIFAR10.meta["key"].encode(): [name.encode() for name in classes]})
    write_atomic(table, lambda draft: np.savez(draft, scores=scores, labels=known))
    print(f"{len(train):,} and {len(pixels):,} images in {args.out}")


if __name__ == "__main__":
    main()
