"""The table of minutes: how long each selection takes cold, how much memory, and what its images teach.

    python scripts/time_selection.py FOLDER --images 5000 --out minutes.csv

Every selection runs in a process of its own with an empty store, so that nothing is found, compiled code included;
decoding is done once before, and its seconds are printed. `minutes` is wall time from decoded images to the chosen
rows, with the networks that are trained on the way; `memory_gb` the most that this process and all its workers held at
one moment, pages that they share counted once (proportional set size; on Linux, sampled twice a second); `largest_gb`
the most that one of them held; `accuracy` the mean of fresh networks on the held-out test images, of which none took
part in a choice."""
import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from importlib.metadata import version
from pathlib import Path

from selmatch.show.bench import cpu_model

METHODS = ["random", "herding", "k-center", "window", "gradmatch", "ccs"]


def open_data(args, home: Path, quiet: bool = True):
    """The images by chapter 64; `--per-class` leaves some out, to try the script on few."""
    import selmatch as sm
    words = dict(word.split("=", 1) for word in args.set)
    import yaml
    words = {key: yaml.safe_load(value) for key, value in words.items()}
    few = {} if args.per_class is None else {"per_class": args.per_class}
    return sm.from_folder(args.folder, size=args.size, words=words, workers=args.workers, threads=args.threads,
                          device=args.device, results=home, quiet=quiet, cache=args.cache, **few)


def list_family(root: int) -> list[int]:
    """A process and all that it started, and they in turn."""
    found = [root]
    for one in found:
        for tasks in Path(f"/proc/{one}/task").glob("*/children"):
            try:
                found += map(int, tasks.read_text().split())
            except OSError:
                pass                              # it ended meanwhile
    return found


def held_gb(process: int) -> float:
    """Memory of one process, of a shared page its share; 0 where Linux does not say, or it ended."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1e6


class Watch(threading.Thread):
    """What this process and its workers hold at most, looked at twice a second until `stop`."""
    def __init__(self):
        super().__init__(daemon=True)
        self.total = self.largest = 0.0
        self.over = threading.Event()

    def look(self):
        held = [held_gb(process) for process in list_family(os.getpid())]
        self.total, self.largest = max(self.total, sum(held)), max(self.largest, *held)

    def run(self):
        while not self.over.wait(0.5):
            self.look()

    def stop(self):
        self.look()
        self.over.set()
        self.join()


def time_one(args):
    """Choose by one method and judge; prints one line of JSON."""
    import selmatch as sm
    home = Path(tempfile.mkdtemp())
    try:
        data = open_data(args, home)
        len(data)                                        # decoded and mapped
        begin, watch = time.perf_counter(), Watch()
        watch.start()
        small = sm.select(data, args.method, images=args.images)
        seconds = time.perf_counter() - begin
        watch.stop()
        table = sm.evaluate(small, data, networks=args.networks, augmentation="dsa")
        score, proxy = data.study.profile.score, data.study.profile.proxy
        print(json.dumps({"method": args.method, "minutes": round(seconds / 60, 2), "memory_gb": round(watch.total, 2),
                          "largest_gb": round(watch.largest, 2), "score_epochs": score.epochs,
                          "proxy_epochs": proxy.epochs, "window_networks": data.study.profile.window.n,
                          "images": len(small), "of": len(data.train), "networks": len(table),
                          "accuracy": round(100 * table.test_accuracy.mean(), 2),
                          "std": round(100 * table.test_accuracy.std(), 2)}))
    finally:
        shutil.rmtree(home, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--images", type=int, default=5000, help="how many to choose")
    parser.add_argument("--per-class", type=int, help="use only so many images of each class of the folder")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--networks", type=int, default=3, help="networks that judge each selection")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1, help="of each worker")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--methods", nargs="*", default=METHODS)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a word of the profile")
    parser.add_argument("--cache", default=None, help="where decoded images are kept")
    parser.add_argument("--out", type=Path, default=Path("minutes.csv"))
    parser.add_argument("--add", action="store_true", help="to the rows that are in --out already")
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
        print(f"decoding: {count:,} images in {seconds:.1f} s, {count / seconds:,.0f} a second; {cpu_model()}, "
              f"load {os.getloadavg()[0]:.1f}", flush=True)
        rows = []
        for method in args.methods:
            command = [sys.executable, __file__, *sys.argv[1:], "--cache", args.cache, "--method", method]
            with tempfile.TemporaryDirectory() as compiled:           # nothing was compiled before
                there = os.environ | {"TORCHINDUCTOR_CACHE_DIR": compiled}
                done = subprocess.run(command, capture_output=True, text=True, env=there)
            if done.returncode:
                print(f"{method}: {done.stderr.strip().splitlines()[-1]}", flush=True)
                continue
            rows.append(json.loads(done.stdout.strip().splitlines()[-1]))
            print(rows[-1], flush=True)
    table = pd.DataFrame(rows).assign(workers=args.workers, threads=args.threads, processor=cpu_model(),
                                      torch=version("torch"))
    if args.add and args.out.exists():
        table = pd.concat([pd.read_csv(args.out), table])
    write_atomic(args.out, lambda draft: table.to_csv(draft, index=False))
    print(f"Written: {args.out}")


if __name__ == "__main__":
    main()
