"""What a cluster brings: the same work by one process here, by two here, and by two Dask workers on loopback.

    python scripts/time_cluster.py --profile digits --ratio 0.1 --turns 3 --out figures/bench/cluster.csv

The work is the window's networks of one size of a profile, cold each time. The watched networks, on whose answers
windows rest, are trained before the clock starts. The Dask workers are there already, as a cluster's are; the first
turn has to bring them modules and data, and is in the table like the others. `bytes` are what a task weighs when it
is sent (median), `data_mb` what travels once to each worker without a disk in common."""
import argparse
import shutil
import statistics
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import pandas as pd

from selmatch import cluster as room
from selmatch.cluster import Cluster
from selmatch.computer import Computer
from selmatch.core import write_atomic
from selmatch.show.bench import cpu_model
from selmatch.study.profile import load_profile
from selmatch.study.study import Study


def copy_home(home: Path, fresh: Path) -> Path:
    """The store as it was before the clock starts."""
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.copytree(home, fresh)
    return fresh


def work_on(p, computer: Computer, folder: Path) -> tuple[float, pd.DataFrame]:
    """Seconds, and the rows."""
    study = Study(p, computer, folder)
    plan = study.windows_plan()
    begin = time.perf_counter()
    rows = study.run(plan)
    return time.perf_counter() - begin, pd.DataFrame(rows).drop(columns="seconds", errors="ignore")


def weigh(plan, folder: Path) -> float:
    """MB of large tensors and files behind all tasks of a plan: each goes to a worker once."""
    parts = {}
    for item in plan.items:
        parcel = room.pack((plan.task, item), folder)
        parts |= {key: tensor.nbytes for key, tensor in parcel.blobs.items()}
        parts |= {key: file.stat().st_size for key, file in parcel.files.items()}
    return sum(parts.values()) / 1e6


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="digits")
    parser.add_argument("--ratio", type=float, default=0.1)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("cluster.csv"))
    args = parser.parse_args()
    p = load_profile(args.profile)
    p = load_profile(args.profile, ratios=(args.ratio,), alpha={args.ratio: p.alpha[args.ratio]}, transfer={})
    rows, bits = [], []
    with tempfile.TemporaryDirectory() as place:
        place = Path(place)
        before = Study(p, Computer(workers=2, quiet=True), place / "home")
        data_mb = weigh(before.windows_plan(), place / "home")      # asks for the scores of all runs, too
        client = room.connect("local:2")
        for turn in range(args.turns):
            for way in ("one process", "two processes", "two Dask workers"):
                folder = copy_home(place / "home", place / f"{way} {turn}")
                cluster, computer = None, Computer(workers=1 + (way == "two processes"), quiet=True)
                if "Dask" in way:
                    cluster = Cluster("local:2", folder, False)
                    cluster.__dict__["client"] = client
                    computer = Computer(quiet=True, cluster=cluster)
                seconds, table = work_on(p, computer, folder)
                bits.append(table)
                sent = cluster.sent if cluster else []
                rows.append({"way": way, "turn": turn, "tasks": len(table), "seconds": round(seconds, 2),
                             "bytes": int(statistics.median(sent)) if sent else None})
                print(rows[-1], flush=True)
        client.cluster.close()
        client.close()
    assert all(table.equals(bits[0]) for table in bits), "another way gave other bits"
    table = pd.DataFrame(rows).assign(profile=args.profile, ratio=args.ratio, data_mb=round(data_mb, 3),
                                      processor=cpu_model(), torch=version("torch"), dask=version("distributed"))
    write_atomic(args.out, lambda draft: table.to_csv(draft, index=False))
    medians = table.groupby("way", sort=False).seconds.median()
    print((medians / medians["one process"]).round(3).to_string())
    print(f"the same bits in all {len(bits)} runs; written: {args.out}")


if __name__ == "__main__":
    main()
