"""What a training step and a step of matching take beside their own convolutions, and where the rest goes.

    python scripts/time_convolutions.py --out figures/bench/convolutions.csv

No step can be faster than the convolutions in it. They are timed alone (`convolutions`): one call for each layer and direction,
in both memory layouts, of which the faster counts. Beside them, in turns: the compiled network forward and backward on one
batch (`network`), the whole step of `train`, which augments and updates as well (`step`), and a step of matching with all kept,
which convolves nine times where a training step convolves three times (there `network` is three compiled first-order steps).
Beside matching stands the textbook's way, in the same turns and under the same allocator (`textbook`).

Then PyTorch's profiler looks into the compiled code: milliseconds of a step in convolutions (`inside`), in the kernels that
the compiler fused out of norms, ReLUs and pooling (`fused`), and in all else. Convolutions do the arithmetic; what is fused only
moves memory, and `memory` is what it would take at the rate of a plain copy: a block passes over its activations seven and a
quarter times (forward once for the norm's sums and once to apply norm, ReLU and pooling, which writes a quarter; backward twice
for the norm's sums, and three times to read activations and slopes and write slopes). Of matching, `memory` is what no kernel
can save while convolutions are calls of a library: 16 passes, each made as often as a batch norm needs it. Forward, for its sums
and to write a quarter (2.25); backward, where slopes come as a quarter, for its sums and to write (3.5); then the same for the
derivatives of both: 4.25 and 6.

Every row is from processes of its own, medians over turns, freed memory kept."""
import argparse
import functools
import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from selmatch.show.bench import cpu_model

SIDE = 32
# passes over the activations of a block
PASSES = {"judge": 2 + 1 / 4 + 2 + 3, "matching": 2.25 + 3.5 + 4.25 + 6}
KINDS = [("judge", 32, 64), ("judge", 64, 128), ("judge", 128, 125), ("matching", 128, 125)]      # what, width, batch


def convolution_calls(width: int, batch: int, layout, first_images: bool) -> dict:
    """A call for every layer and direction of a ConvNet of depth 3; `first_images`: the images' gradient, too."""
    import torch
    calls, back = {}, torch.ops.aten.convolution_backward
    for layer, (channels, side) in enumerate([(3, SIDE), (width, SIDE // 2), (width, SIDE // 4)], 1):
        x = torch.randn(batch, channels, side, side).contiguous(memory_format=layout)
        w = torch.randn(width, channels, 3, 3).contiguous(memory_format=layout)
        slope = torch.randn(batch, width, side, side).contiguous(memory_format=layout)
        words = ([1, 1], [1, 1], [1, 1], False, [0, 0], 1)
        calls[f"{layer} forward"] = functools.partial(torch.conv2d, x, w, None, 1, 1)
        calls[f"{layer} by weights"] = functools.partial(back, slope, x, w, None, *words, [False, True, False])
        if layer > 1 or first_images:
            calls[f"{layer} by images"] = functools.partial(back, slope, x, w, None, *words, [True, False, False])
    return calls


def add_up(rows: list[dict], times: Callable[[str], int] = lambda way: 1) -> float:
    """The sum over ways of their median seconds, each so many times."""
    ways = {row["way"] for row in rows}
    return sum(times(way) * statistics.median(r["seconds"] for r in rows if r["way"] == way) for way in ways)


def times_in_matching(way: str) -> int:
    """How often a step of matching convolves so: three times, there, back, and for the derivatives of both; in the first layer
    twice, for images have no derivative by the weights before them."""
    return 2 if way.startswith("1 ") else 3


def time_layouts(width: int, batch: int, turns: int, first_images: bool, times=lambda way: 1) -> dict[str, float]:
    """Seconds of all convolutions of one step, by layout."""
    import torch

    from selmatch.show.bench import in_turns
    layouts = {"in order": torch.contiguous_format, "channels last": torch.channels_last}
    return {name: add_up(in_turns(convolution_calls(width, batch, layout, first_images), turns, memory="kept"), times)
            for name, layout in layouts.items()}


def time_passes(what: str, width: int, batch: int, turns: int) -> float:
    """Seconds of the passes over memory that lie between the convolutions of a step."""
    import torch

    from selmatch.show.bench import in_turns
    blocks = {str(side): torch.randn(batch, width, side, side) for side in (SIDE, SIDE // 2, SIDE // 4)}
    copies = in_turns({side: functools.partial(torch.clone, block) for side, block in blocks.items()}, 3 * turns, memory="kept")
    return PASSES[what] / 2 * add_up(copies)      # a copy reads and writes


def training_ways(width: int, batch: int, steps: int = 20) -> dict:
    """The compiled network, forward and backward, and the whole step; `steps` of each in one call."""
    import torch
    import torch.nn.functional as F

    from selmatch.show.bench import random_images
    from selmatch.train.augment import Augmentation
    from selmatch.train.networks import make_network
    from selmatch.train.training import Recipe, compiled_network, train
    data = random_images(4000, torch.Generator().manual_seed(0), SIDE)
    images, labels = data.images, data.labels
    spec = {"name": "ConvNet", "width": width, "depth": 3, "norm": "batch"}
    net = make_network(spec, data.shape, 10, 0)
    forward = compiled_network(net)
    other = make_network(spec, data.shape, 10, 0)
    recipe = Recipe(steps=steps, batch=batch, lr=0.02, compiled=True, augmentation=Augmentation("dsa"))

    def network():
        for _ in range(steps):
            F.cross_entropy(forward(images[:batch]), labels[:batch]).backward()
    return {"network": network, "step": lambda: train(other, data, recipe, torch.Generator().manual_seed(1))}


def look_inside(way, steps: int, most: int = 10) -> dict[str, float]:
    """Seconds of a step in convolutions, fused kernels and all else, as the profiler adds them up."""
    from torch.profiler import ProfilerActivity, profile

    from selmatch.computer import kept_memory
    with kept_memory():
        way()
        with profile(activities=[ProfilerActivity.CPU]) as seen:
            for _ in range(most):
                way()
    found = {"inside": 0.0, "fused": 0.0, "other": 0.0}
    for event in seen.key_averages():
        kind = "inside" if "convolution" in event.key and event.key.startswith("aten::") else "fused" if "cpp_fused" in event.key else "other"
        found[kind] += event.self_cpu_time_total / 1e6 / most / steps
    return found


def profile_one(what: str, width: int, batch: int) -> dict[str, float]:
    """Where the seconds of a step go: a judge's network, or matching with all kept."""
    import torch._inductor.config
    torch._inductor.config.cpp.enable_kernel_profile = True          # gives each fused kernel a name in the profile
    if what == "judge":
        return look_inside(training_ways(width, batch)["network"], 20)
    from selmatch.show import bench
    problem = bench.matching_problem(width=width, batch=batch, n_steps=5)
    return look_inside(functools.partial(bench.matching_ways["kept"], problem), 5, 2)


def time_judge(width: int, batch: int, turns: int) -> dict:
    """A judge's step: its convolutions, its network, the whole."""
    from selmatch.show.bench import in_turns
    found, steps = time_layouts(width, batch, turns, first_images=False), 20
    rows = in_turns(training_ways(width, batch, steps), turns, per=steps, memory="kept")
    medians = {way: statistics.median(r["seconds"] for r in rows if r["way"] == way) for way in ("network", "step")}
    return {"layout": min(found, key=found.get), "convolutions": min(found.values()),
            "memory": time_passes("judge", width, batch, turns), **medians}


def time_matching(width: int, batch: int, turns: int, n_steps: int = 5) -> dict:
    """A step of matching with everything kept: nine passes through each convolution, six through the first."""
    from selmatch.show import bench
    found = time_layouts(width, batch, turns, True, times_in_matching)
    rows = bench.time_matching(["textbook", "kept"], turns, memory="kept", width=width, batch=batch, n_steps=n_steps)
    first = bench.time_floor(turns, memory="kept", width=width, batch=batch)
    middle = lambda rows: statistics.median(r["seconds"] for r in rows)
    ways = {way: middle([r for r in rows if r["way"] == way]) / n_steps for way in ("textbook", "kept")}
    return {"layout": min(found, key=found.get), "convolutions": min(found.values()), "network": 3 * middle(first),
            "memory": time_passes("matching", width, batch, turns), "step": ways["kept"], "textbook": ways["textbook"]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--out", type=Path, default=Path("convolutions.csv"))
    parser.add_argument("--only", choices=("judge", "matching"), help="one kind of step; the other rows of --out stay")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)      # what, width, batch, threads: in this process
    args = parser.parse_args()
    if args.one:
        import torch
        what, *numbers = args.one[0], *map(int, args.one[1:])
        torch.set_num_threads(numbers[-1])
        kinds = {"judge": time_judge, "matching": time_matching}
        times = profile_one(what, *numbers[:2]) if args.inside else kinds[what](*numbers[:2], args.turns)
        print(json.dumps(times))
        return
    import pandas as pd

    from selmatch.core import write_atomic
    rows = []
    for what, width, batch in [kind for kind in KINDS if args.only in (None, kind[0])]:
        for threads in args.threads:
            command = [sys.executable, __file__, "--turns", str(args.turns), "--one", what, str(width), str(batch), str(threads)]
            ask = lambda *more: json.loads(subprocess.run([*command, *more], capture_output=True, text=True, check=True)
                                           .stdout.strip().splitlines()[-1])
            found = ask() | ask("--inside")
            rows.append({"what": what, "width": width, "batch": batch, "threads": threads}
                        | {name: value if isinstance(value, str) else round(1000 * value, 2) for name, value in found.items()})
            print(rows[-1], flush=True)
    table = pd.DataFrame(rows).rename(columns={name: f"{name}_ms" for name in ("convolutions", "memory", "network", "step", "textbook", "inside", "fused", "other")})
    table = table.assign(processor=cpu_model(), torch=version("torch"))
    if args.only and args.out.exists():
        others = pd.read_csv(args.out)
        table = pd.concat([others[others.what != args.only], table])
    write_atomic(args.out, lambda draft: table.to_csv(draft, index=False))


if __name__ == "__main__":
    main()
