"""After how many steps compiling has paid for itself: the evidence behind `worth_compiling` (chapter 12).

    python scripts/time_compiling.py --out figures/bench/compiling.csv

Every row is a process of its own. `cold` compiles for the first time on this machine, `warm` finds what the compiler
left on disk. `compiling_s` is the first compiled step less a later one, `steps` what is won back by then, and
`operations` these steps forward and backward, counted as `worth_compiling` counts."""
import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

from selmatch.show.bench import cpu_model

BATCH, SHAPE = 64, (3, 32, 32)


def seconds_of(spec: dict, compiled: bool, steps: int) -> float:
    """Wall seconds of so many steps of a fresh network, on noise."""
    import torch

    from selmatch.data.images import ImageSet
    from selmatch.train.augment import Augmentation
    from selmatch.train.training import Recipe, passing_network, train
    chance = torch.Generator().manual_seed(0)
    images, labels = torch.randn(4000, *SHAPE, generator=chance), torch.randint(0, 10, (4000,), generator=chance)
    data = ImageSet(images, labels, tuple("abcdefghij"), (0.5,) * 3, (0.2,) * 3)
    recipe = Recipe(steps=steps, batch=BATCH, lr=0.02, compiled=compiled, augmentation=Augmentation("dsa"))
    net, graphs = passing_network(spec, data, 1, recipe)
    begin = time.perf_counter()
    train(net, data, recipe, torch.Generator().manual_seed(1), graphs=graphs)
    return time.perf_counter() - begin


def time_one(width: int, threads: int) -> dict:
    """One row."""
    import torch

    from selmatch.train.networks import make_network
    from selmatch.train.training import count_flops
    torch.set_num_threads(threads)
    spec = {"name": "ConvNet", "width": width, "depth": 3, "norm": "batch"}
    seconds_of(spec, False, 3)
    eager, first = seconds_of(spec, False, 20) / 20, seconds_of(spec, True, 1)
    compiled = seconds_of(spec, True, 60) / 60
    steps = (first - compiled) / (eager - compiled)
    each = 3 * BATCH * count_flops(make_network(spec, SHAPE, 10, 0), SHAPE)
    return {"width": width, "threads": threads, "eager_ms": round(1000 * eager, 1),
            "compiled_ms": round(1000 * compiled, 1), "compiling_s": round(first - compiled, 1),
            "steps": round(steps), "operations": float(f"{steps * each:.2g}")}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", type=int, nargs="*", default=[32, 128])
    parser.add_argument("--turns", type=int, default=3, help="rows of each kind")
    parser.add_argument("--out", type=Path, default=Path("compiling.csv"))
    parser.add_argument("--one", type=int, nargs=2, help=argparse.SUPPRESS)      # width and threads, in this process
    args = parser.parse_args()
    if args.one:
        print(json.dumps(time_one(*args.one)))
        return
    import pandas as pd

    from selmatch.core import write_atomic
    rows = []
    for width in args.widths:
        for threads in (1, 2):
            for _ in range(args.turns):
                with tempfile.TemporaryDirectory() as cache:
                    for kind in ("cold", "warm"):
                        there = os.environ | {"TORCHINDUCTOR_CACHE_DIR": cache}
                        done = subprocess.run([sys.executable, __file__, "--one", str(width), str(threads)], env=there,
                                              capture_output=True, text=True, check=True)
                        rows.append({"cache": kind, **json.loads(done.stdout.strip().splitlines()[-1])})
                        print(rows[-1], flush=True)
    table = pd.DataFrame(rows).assign(processor=cpu_model(), torch=version("torch"))
    write_atomic(args.out, lambda draft: table.to_csv(draft, index=False))


if __name__ == "__main__":
    main()
