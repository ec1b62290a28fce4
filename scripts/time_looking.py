"""How fast networks look at photographs, by how many at a time: the evidence behind `split_images` (chapter 3).

    python scripts/time_looking.py --out figures/bench/looking.csv

One thread, a ConvNet of three blocks in evaluation mode, images of 32 pixels of noise; all sizes of a batch in turns."""
import argparse
import time
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import torch

from selmatch.core import write_atomic
from selmatch.show.bench import cpu_model
from selmatch.train.networks import make_network

SHAPE = (3, 32, 32)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2048)
    parser.add_argument("--batches", type=int, nargs="*", default=[21, 42, 85, 341])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("looking.csv"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    x, rows = torch.randn(args.images, *SHAPE, generator=torch.Generator().manual_seed(0)), []
    for width in (32, 128):
        net = make_network({"name": "ConvNet", "width": width, "depth": 3, "norm": "batch"}, SHAPE, 10, 0).eval()
        with torch.no_grad():
            net(x[:8])
            for turn in range(args.turns):
                for batch in args.batches:
                    begin = time.perf_counter()
                    for part in x.split(batch):
                        net(part)
                    seconds = time.perf_counter() - begin
                    rows.append({"width": width, "batch": batch, "turn": turn, "images_a_second": round(len(x) / seconds)})
    table = pd.DataFrame(rows).assign(processor=cpu_model(), torch=version("torch"))
    write_atomic(args.out, lambda draft: table.to_csv(draft, index=False))
    print(table.groupby(["width", "batch"]).images_a_second.median().to_string())


if __name__ == "__main__":
    main()
