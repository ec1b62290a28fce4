"""Peak memory, and bytes written, of three places that once took more: DM, checkpoints, coverage of 50,000 images.

    python scripts/peaks.py --out figures/bench/peaks.csv
    python scripts/peaks.py --before TREE --out peaks.csv       the same of another checkout, in rows of their own

Every part runs in a process of its own, on images of noise. `peak_gb` is the largest resident memory of that process,
`own_gb` what of it came after its images were made, `seconds` what the part took."""
import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def noise(n_classes: int, each: int, side: int):
    import torch
    from selmatch.data.images import ImageSet
    images = torch.randn(n_classes * each, 3, side, side, generator=torch.Generator().manual_seed(0))
    names = tuple(f"class {c}" for c in range(n_classes))
    return ImageSet(images, torch.arange(n_classes).repeat_interleave(each), names, (0.5,) * 3, (0.25,) * 3, "noise")


def start_set(data, each: int):
    import torch
    from selmatch.data.images import class_rows
    from selmatch.distill.sets import SyntheticSet
    rows = torch.cat([rows[:each] for rows in class_rows(data)])
    return SyntheticSet(data.subset(rows), torch.ones(len(rows), dtype=torch.bool), card={})


def ask_dm(data, each: int, batch_real: int, iterations: int = 1, **words):
    "Iterations of DM on a set of so many images a class."
    import torch
    from selmatch.distill.condensation import DistributionMatching
    from selmatch.distill.objectives import SetState
    from selmatch.train.augment import Augmentation
    small = start_set(data, each)
    network = {"name": "ConvNet", "norm": "instance", **words}
    ask = DistributionMatching(network, data, batch_real=batch_real, augmentation=Augmentation("dsa")).start(small.data)
    state = SetState(small.data.images, small.data.labels, small.distilled, torch.tensor(0.01), 0)
    for i in range(iterations):
        ask(state, torch.Generator().manual_seed(i))


def run_dm(folder: Path) -> Iterator[None]:
    "One iteration of DM: 20 classes of 64 pixels, 100 small and 256 real images of each."
    data = noise(20, 256, 64)
    yield
    ask_dm(data, 100, 256, width=16, depth=4)


def run_large_set(folder: Path) -> Iterator[None]:
    "Three iterations of DM on 30 % of CIFAR-10: 10 classes of 32 pixels, 1,350 small and 64 real images of each."
    data = noise(10, 1350, 32)
    yield
    ask_dm(data, 1350, 64, iterations=3, width=32, depth=3)


def run_checkpoint(folder: Path) -> Iterator[None]:
    "100 iterations of DM on 2,000 images of 64 pixels; the set is kept after 25, 50, 75 and 100, a checkpoint every 25."
    import inspect
    from selmatch.distill.condensation import DistributionMatching
    from selmatch.distill.loop import Descent, distill
    from selmatch.distill.sets import save_set
    from selmatch.train.augment import Augmentation
    data = noise(20, 100, 64)
    yield
    words = {"name": "ConvNet", "width": 4, "depth": 1, "norm": "instance"}
    objective = DistributionMatching(words, data, batch_real=1, augmentation=Augmentation("none"))
    descent = Descent(iterations=100, lr_images=1.0, evaluate_at=(25, 50, 75))
    keep = lambda i, small: save_set(small, folder / f"at_{i}")
    known = inspect.signature(distill).parameters
    done = distill(start_set(data, 100), objective, descent, seed=0, checkpoint=folder / "checkpoint",
                   **({"keep": keep} if "keep" in known else {}))
    if "keep" not in known:                  # all at the end, as it was
        for i, small in done.kept.items():
            keep(i, small)


def run_coverage(folder: Path) -> Iterator[None]:
    "50,000 images of 32 pixels through a ConvNet of width 128, and the distance of each to its nearest neighbour."
    from selmatch.select.coverage import features, radius
    from selmatch.train.networks import make_network
    data = noise(10, 5000, 32)
    yield
    net = make_network({"name": "ConvNet", "width": 128, "depth": 3, "norm": "batch"}, data.shape, 10, 0).eval()
    radius(features(net, data.images))


PARTS = {"dm": run_dm, "large_set": run_large_set, "checkpoint": run_checkpoint, "coverage": run_coverage}


def measure(part: str):
    "Run one part in this process and print what it took."
    import torch
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        work = PARTS[part](Path(folder))
        next(work)
        begin = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        written = lambda: int(Path("/proc/self/io").read_text().split("wchar:")[1].split()[0])
        before, clock = written(), time.perf_counter()
        next(work, None)
        seconds = time.perf_counter() - clock
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(json.dumps({"peak_gb": round(peak / 1e6, 2), "own_gb": round((peak - begin) / 1e6, 2),
                          "written_mb": round((written() - before) / 1e6), "seconds": round(seconds, 2)}))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, metavar="TREE", help="a checkout of an older state, measured as well")
    parser.add_argument("--only", nargs="*", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--out", type=Path, default=Path("peaks.csv"))
    parser.add_argument("--part", choices=list(PARTS), help=argparse.SUPPRESS)       # in this process
    args = parser.parse_args()
    if args.part:
        return measure(args.part)
    rows = []
    for tree in filter(None, [args.before, ROOT]):
        asked = ["git", "-C", str(tree), "log", "-1", "--format=%h %cs"]
        state = subprocess.run(asked, capture_output=True, text=True).stdout.strip()
        for part in args.only:
            done = subprocess.run([sys.executable, __file__, "--part", part], capture_output=True, text=True,
                                  env=os.environ | {"PYTHONPATH": str(tree)}, cwd=tree)
            if done.returncode:
                print(part, done.stderr.strip().splitlines()[-1], flush=True)
                continue
            rows.append({"state": state, "part": part, **json.loads(done.stdout)})
            print(rows[-1], flush=True)
    import pandas as pd
    from selmatch.core import write_atomic
    write_atomic(args.out, lambda draft: pd.DataFrame(rows).to_csv(draft, index=False))
    print(f"Written: {args.out}")


if __name__ == "__main__":
    main()
