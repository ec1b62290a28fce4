"""The table of minutes: how long each selection takes cold, how much memory, and what its images teach.

    python scripts/time_selection.py FOLDER --images 5000 --out minutes.csv

Every selection runs in a process of its own with an empty store, so that nothing is found; decoding is done once
before, and its seconds are printed. `minutes` is wall time from decoded images to the chosen rows, with the networks
that are trained on the way; `memory_gb` the largest resident memory of that process and of its workers;
`accuracy` the mean of fresh networks on the held-out test images, of which none took part in a choice."""
import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

METHODS = ["random", "herding", "k-center", "window", "gradmatch", "ccs"]


def open_data(args, home: Path, quiet: bool = True):
    """The images by chapter 64; `--per-class` leaves some out, to try the script on few."""
    import selmatch as sm
    words = dict(word.split("=", 1) for word in args.set)
    import yaml
    words = {key: yaml.safe_load(value) for key, value in words.items()}
    few = {} if args.per_class is None else {"per_class": args.per_class}
    return sm.from_folder(args.folder, size=args.size, words=words, workers=args.workers, device=args.device,
                          results=home, quiet=quiet, cache=args.cache, **few)


def peak_gb() -> float:
    """Largest resident memory of this process, and of the largest of its children beside it."""
    mine, theirs = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return (mine + theirs) / 1e6


def time_one(args):
    """Choose by one method and judge; prints one line of JSON."""
    import selmatch as sm
    home = Path(tempfile.mkdtemp())
    try:
        data = open_data(args, home)
        len(data)                                        # decoded and mapped
        begin, cpu = time.perf_counter(), time.process_time()
        small = sm.select(data, args.method, images=args.images)
        seconds, memory = time.perf_counter() - begin, peak_gb()
        table = sm.evaluate(small, data, networks=args.networks, augmentation="dsa")
        print(json.dumps({"method": args.method, "minutes": round(seconds / 60, 3), "memory_gb": round(memory, 2),
                          "images": len(small), "of": len(data.train), "networks": len(table),
                          "accuracy": round(100 * table.test_accuracy.mean(), 2),
                          "std": round(100 * table.test_accuracy.std(), 2),
                          "own_cpu_seconds": round(time.process_time() - cpu, 1)}))
    finally:
        shutil.rmtree(home, ignore_errors=True)


def processor() -> str:
    names = [line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
             if line.startswith("model name")] if Path("/proc/cpuinfo").exists() else []
    return names[0] if names else platform.processor()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--images", type=int, default=5000, help="how many to choose")
    parser.add_argument("--per-class", type=int, help="use only so many images of each class of the folder")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--networks", type=int, default=3, help="networks that judge each selection")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--methods", nargs="*", default=METHODS)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a word of the profile")
    parser.add_argument("--cache", default=None, help="where decoded images are kept")
    parser.add_argument("--out", type=Path, default=Path("minutes.csv"))
    parser.add_argument("--method", help=argparse.SUPPRESS)      # one of them, in this process
    args = parser.parse_args()
    if args.method:
        return time_one(args)
    import pandas as pd
    from selmatch.core import write_atomic
    with tempfile.TemporaryDirectory() as cache:
        args.cache = args.cache or cache
        begin = time.perf_counter()
        data = open_data(args, Path(cache) / "home", quiet=False)
        count = len(data.train) + len(data.validation) + len(data.test)
        seconds = time.perf_counter() - begin
        print(f"decoding: {count:,} images in {seconds:.1f} s, {count / seconds:,.0f} a second; {processor()}, "
              f"load {os.getloadavg()[0]:.1f}", flush=True)
        rows = []
        for method in args.methods:
            command = [sys.executable, __file__, *sys.argv[1:], "--cache", args.cache, "--method", method]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                print(f"{method}: {done.stderr.strip().splitlines()[-1]}", flush=True)
                continue
            rows.append(json.loads(done.stdout.strip().splitlines()[-1]))
            print(rows[-1], flush=True)
    write_atomic(args.out, lambda draft: pd.DataFrame(rows).to_csv(draft, index=False))
    print(f"Written: {args.out}")


if __name__ == "__main__":
    main()
