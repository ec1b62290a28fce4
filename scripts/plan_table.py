"""The plan on paper for the paper's whole table: jobs, GPU hours and bytes, from steps that were measured on one GPU.

    python scripts/plan_table.py --out figures/bench/plan.csv

No data are needed: images of noise, as many and as large as the official ones, stand in for them, and the estimate of
chapter 56 counts the jobs. Prices are those of `figures/bench/h200_steps.json` (a step of a judge and of an expert) and
`h200.json` (one outer iteration at N = 55, TF32), carried over to other networks, images and batches by counting
floating-point operations; DM, which was not measured, is counted in passes of its network (a look is one, a gradient
three). Bytes are what is kept on disk: experts' epochs that matching can ask for, and every kept set."""
import argparse
import json
import statistics
import tempfile
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import pandas as pd
import torch

from selmatch.computer import Computer
from selmatch.core import write_atomic
from selmatch.data.images import ImageSet, Splits
from selmatch.study.estimate import Prices, costs
from selmatch.study.profile import load_profile
from selmatch.study.sets import count_each
from selmatch.study.study import Study
from selmatch.train.networks import make_network
from selmatch.train.training import count_flops

BENCH = Path(__file__).resolve().parent.parent / "figures" / "bench"
OFFICIAL = {"cifar10": (10, 5000, 1000, 32), "cifar100": (100, 500, 100, 32),       # classes, training and
            "tinyimagenet": (200, 500, 50, 64)}                                     # test images of each, pixels
MEASURED = {"ConvNet": ({"name": "ConvNet", "width": 128, "depth": 3, "norm": "batch"}, 256),    # network, batch
            "ResNet18": ({"name": "ResNet18"}, 128)}


def stand_in(name: str, held_out: float) -> Splits:
    """One grey image, repeated as often as the official data have images, in three parts."""
    k, train, test, side = OFFICIAL[name]
    held = round(held_out * train)

    def part(each: int, kind: str) -> ImageSet:
        images = torch.zeros(1, 3, side, side).expand(k * each, 3, side, side)
        return ImageSet(images, torch.arange(k).repeat_interleave(each), tuple(f"class {c}" for c in range(k)),
                        (0.5,) * 3, (0.25,) * 3, f"{name} {kind}")
    parts = part(train - held, "train"), part(held, "validation"), part(test, "test")
    return Splits(*parts, torch.arange(k * (train - held)), k * train, (train,) * k)


@dataclass(frozen=True)
class MeasuredPrices(Prices):
    """Prices of one GPU, from files."""

    @cached_property
    def per_flop(self) -> dict[str, float]:
        """Seconds for an operation of a forward pass, within a training step, of each measured network."""
        steps = {row["what"]: row["seconds"] for row in json.loads((BENCH / "h200_steps.json").read_text())["rows"]
                 if row["graphs"]}
        taken = {"ConvNet": steps["expert"], "ResNet18": steps["judge"]}
        return {name: taken[name] / (batch * self.flops(network, (3, 32, 32), 10))
                for name, (network, batch) in MEASURED.items()}

    def flops(self, network: dict, shape: tuple, n_classes: int) -> int:
        key = f"flops {network} {shape} {n_classes}"
        if key not in self.known:
            self.known[key] = count_flops(make_network(network, shape, n_classes, 0), shape)
        return self.known[key]

    def step(self, network: dict, images: int) -> float:
        """A training step with so many images of this study."""
        train = self.study.splits.train
        return images * self.flops(network, train.shape, train.n_classes) * self.per_flop[network["name"]]

    def once(self, name: str, what, *given) -> float:
        if name in ("train", "replay"):
            network, recipe = given
            return self.step(network, recipe.batch)
        if name == "look":
            return self.step(given[0], len(self.few)) / 3
        if name == "sweep":
            rows = json.loads((BENCH / "h200.json").read_text())["rows"]
            mine = [row for row in rows if row["part"] == "matching" and row["way"] == "compiled, tf32"]
            network, _ = MEASURED["ConvNet"]
            measured = statistics.median(row["seconds"] for row in mine) / mine[0]["n_steps"] / mine[0]["batch"]
            train = self.study.splits.train
            larger = (self.flops(self.study.network, train.shape, train.n_classes)
                      / self.flops(network, (3, 32, 32), 10))
            return measured * larger * given[0]
        objective, ratio, _ = given
        assert (name, objective) == ("answer", "dm"), f"{name} {given} has no price here"
        words, n_classes = self.study.profile.objectives["dm"], self.study.splits.train.n_classes
        small = sum(count_each(self.study.take(ratio), n_classes))
        return self.step(words["network"], small) + self.step(words["network"], n_classes * words["batch_real"]) / 3


def plan(name: str) -> pd.DataFrame:
    """A row a stage: jobs, seconds of one, GPU hours, gigabytes."""
    p = load_profile(name)
    p = replace(p, **{part: replace(getattr(p, part), compile="no")  # the prices are those of compiled steps
                      for part in ("score", "evaluation", "experts", "matching")})
    p = replace(p, score=replace(p.score, kind="forgetting", path=None))    # no official file is asked for here
    with tempfile.TemporaryDirectory() as place:
        study = Study(p, Computer(workers=1, quiet=True), Path(place), given=stand_in(name, p.data["validation"]))
        table = costs(study, prices=MeasuredPrices(study), chosen=True)
    return pd.DataFrame({"profile": name, "seeds": p.seeds, "stage": table.stage, "jobs": table.tasks,
                         "seconds": table.each.round(2), "gpu_hours": (table.tasks * table.each / 3600).round(2),
                         "gigabytes": (table.disk / 1e9).round(2)})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profiles", nargs="*", choices=list(OFFICIAL), default=list(OFFICIAL))
    parser.add_argument("--out", type=Path, default=Path("plan.csv"))
    args = parser.parse_args()
    table = pd.concat([plan(name) for name in args.profiles])
    write_atomic(args.out, lambda draft: table.to_csv(draft, index=False))
    print(table.to_string(index=False))
    print(table.groupby("profile", sort=False)[["jobs", "gpu_hours", "gigabytes"]].sum())


if __name__ == "__main__":
    main()
