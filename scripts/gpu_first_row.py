"""The first row of the paper (SelMatch, table 1: CIFAR-10, 5 %) on one GPU, in a given time, and what matching costs there.

    python scripts/gpu_first_row.py --data cifar10_jpeg.tar.xz --scores cifar10_scores.npz --out row --seconds 520
    python scripts/gpu_first_row.py --data … --scores … --out again --resume row       (more networks on the sets of the first run)
    python scripts/gpu_first_row.py --parts bench --out bench --seconds 140
    python scripts/gpu_first_row.py --parts probe --out probe --seconds 90          (seconds of each kind of step; several at once share the GPU)
    … --parts row --out row1 --first-set 1 --sets 1 --experts 3 --iterations 200 --judge-steps 6000          (one set of each method, beside others)

Four sets of 225 images a class (5 % of the 4,500 that are left when a tenth is held out): random, window, MTT and SelMatch, each judged by
fresh ResNet-18s. The paper trains 100 experts for 100 epochs, takes 10,000 iterations and 19,500 steps a judge. Here a few steps of each are
timed first, then as much of each is planned as fits. `events.jsonl` gets a line for every finished piece, at once; `summary.json` is rewritten
with it. A piece that fails is logged and the others go on; a piece that the time cuts off leaves no row.
"""
import argparse
import contextlib
import json
import lzma
import math
import os
import platform
import subprocess
import sys
import tarfile
import tempfile
import time
import traceback
import warnings

began = time.perf_counter()       # importing counts

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from io import BytesIO
from multiprocessing import get_context
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch

from selmatch.show import bench
from selmatch.train.augment import Augmentation
from selmatch.core import InputError, check_choice, fingerprint, load_tensors, save_tensors, write_atomic
from selmatch.data.images import ImageSet, StoredImages as Pixels, write_pixels
from selmatch.data.loaders import load_parts, read_image
from selmatch.distill.loop import Descent, distill
from selmatch.distill.sets import SyntheticSet, distilled_mask
from selmatch.methods import Method, find_method
from selmatch.distill.experts import expert_recipe, list_expert_tasks, train_expert
from selmatch.train.training import precisions
from selmatch.train.networks import make_network
from selmatch.distill.objectives import Objective
from selmatch.distill.trajectories import FollowExperts, TrajectoryMatching
from selmatch.select.scores import load_difficulty
from selmatch.select.window import read_options, select, selections
from selmatch.study.estimate import kernel_seconds
from selmatch.train.training import Recipe, predict, renew_network, replays, steps_per_epoch, train

PUBLISHED = {"random": 73.4, "window": 79.3, "mtt": 80.7, "selmatch": 82.8}       # SelMatch, table 1 and figure 3: CIFAR-10, 5 %, ResNet-18
ALPHA, BETA, RATIO, PAPER_STEPS = 0.6, 0.5, 0.05, 19_500
STRONG = ("color", "crop", "cutout", "flip", "scale", "rotate")


class OutOfTime(Exception):
    """The piece in hand would not end in time."""


def arguments(given=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="the .tar.xz archive: cifar10/train/CLASS/0000.jpg …, cifar10/test/CLASS/0000.jpg …")
    parser.add_argument("--scores", type=Path, help="the .npz file with c_score and folder_order")
    parser.add_argument("--out", type=Path, required=True, help="folder for events.jsonl, summary.json, bench.json and the distilled sets")
    parser.add_argument("--resume", type=Path, help="folder of an earlier run: its rows and sets are taken over")
    parser.add_argument("--merge", type=Path, nargs="+", help="folders of runs that made other sets by the same settings: one summary of all, and nothing else")
    parser.add_argument("--parts", default="row", help="bench, probe and row, parted by commas, in that order")
    parser.add_argument("--seconds", type=float, default=520, help="everything ends within this, from the start of the program")
    parser.add_argument("--bench-seconds", type=float, default=100, help="begin no measurement of the bench after so many")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=["cpu", "cuda"])
    parser.add_argument("--quick", action="store_true", help="tiny networks and numbers, to see that it works")
    parser.add_argument("--compile", default="yes", choices=["yes", "no"])
    parser.add_argument("--graphs", default="auto", choices=["auto", "yes", "no"], help="CUDA graphs for judges: auto times both and compares their losses")
    parser.add_argument("--judge-precision", default="bfloat16", choices=precisions)
    parser.add_argument("--expert-precision", default="tf32", choices=precisions)
    parser.add_argument("--match-precision", default="tf32", choices=precisions)
    for name, kind in {"sets": int, "judges": int, "judge-steps": int, "experts": int, "expert-epochs": int, "iterations": int, "max-start": int}.items():
        parser.add_argument(f"--{name}", type=kind, help="instead of the planned number")
    parser.add_argument("--first-set", type=int, default=0, help="number of the first set; each set has experts of its own")
    parser.add_argument("--n-steps", type=int, default=55)
    parser.add_argument("--start-lr", type=float, default=1e-3)
    parser.add_argument("--lr-images", type=float, default=1000.0)
    parser.add_argument("--methods", default="random,window,mtt,selmatch")
    parser.add_argument("--warm", choices=["judge", "sweep"], help=argparse.SUPPRESS)      # compile in a process of its own and end
    words = parser.parse_args(given)
    for part in words.parts.split(","): check_choice("part", part, ["bench", "probe", "row"])
    for method in words.methods.split(","): check_choice("method", method, list(PUBLISHED))
    if "row" in words.parts and not words.warm and not words.merge and not (words.data and words.scores): parser.error("the row needs --data and --scores")
    return words


def to_json(thing):
    if isinstance(thing, float) and not math.isfinite(thing): return str(thing)
    if isinstance(thing, (np.integer, np.floating)): return thing.item()
    return str(thing)


class Log:
    """Lines of JSON, each written at once; what is in them is also kept."""
    def __init__(self, out: Path):
        out.mkdir(parents=True, exist_ok=True)
        self.out, self.events, self.file = out, [], open(out / "events.jsonl", "a", encoding="utf-8")

    def __call__(self, kind: str, **what) -> dict:
        event = {"kind": kind, "at": round(time.perf_counter() - began, 2), **what}
        self.events.append(event)
        self.file.write(json.dumps(event, default=to_json) + "\n")
        self.file.flush()
        text = " ".join(f"{k}={v if not isinstance(v, float) else round(v, 5)}" for k, v in what.items() if k not in ("traceback", "history"))
        print(f"[{event['at']:7.1f} s] {kind}: {text[:600]}", flush=True)
        return event

    def of(self, kind: str) -> list[dict]: return [e for e in self.events if e["kind"] == kind]

    @contextlib.contextmanager
    def piece(self, name: str):
        """Time a piece; an error is logged with its traceback, and the program goes on."""
        start = time.perf_counter()
        try:
            with warnings.catch_warnings(record=True) as seen:
                warnings.simplefilter("default")
                yield
            self("piece", name=name, seconds=time.perf_counter() - start, warnings=sorted({str(w.message)[:300] for w in seen}))
        except OutOfTime: self("out of time", name=name, seconds=time.perf_counter() - start)
        except Exception as error:
            self("error", name=name, seconds=time.perf_counter() - start, error=f"{type(error).__name__}: {error}"[:1000], traceback=traceback.format_exc()[-6000:])
            if torch.cuda.is_initialized(): torch.cuda.empty_cache()


def machine(device: str) -> dict:
    gpu = device == "cuda"
    return {"device": device, "processor": bench.processor(), "torch": torch.__version__, "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version() if gpu else None,
            "python": platform.python_version(), "cores": os.cpu_count(), "selmatch": bench.selmatch.__version__,
            "cudnn_benchmark": torch.backends.cudnn.benchmark, "memory_gib": torch.cuda.get_device_properties(0).total_memory / 2**30 if gpu else None}


# ---------------------------------------------------------------- data

def decode(pictures: list[bytes]) -> np.ndarray: return np.stack([read_image(BytesIO(p)) for p in pictures])

def read_archive(path: Path, workers: int) -> dict[str, tuple[list[str], list[int], torch.Tensor]]:
    """Per part ("train", "test"): class names, the class of each image and its pixels `(n, c, h, w)` uint8, sorted as a folder is."""
    raw = lzma.open(path).read()
    with tarfile.open(fileobj=BytesIO(raw)) as archive: files = {m.name: raw[m.offset_data:m.offset_data + m.size] for m in archive if m.isfile() and m.name.lower().endswith(".jpg")}
    names = sorted(files, key=lambda name: name.split("/")[-3:])
    chunks = [names[i:i + 500] for i in range(0, len(names), 500)]
    pixels = dict.fromkeys(names)
    with ProcessPoolExecutor(workers, get_context("fork")) as pool:
        for chunk, arrays in zip(chunks, pool.map(decode, [[files[n] for n in chunk] for chunk in chunks])): pixels.update(zip(chunk, arrays))
    parts = {}
    for part in ("train", "test"):
        mine = [n for n in names if n.split("/")[-3] == part]
        classes = sorted({n.split("/")[-2] for n in mine})
        parts[part] = classes, [classes.index(n.split("/")[-2]) for n in mine], torch.from_numpy(np.stack([pixels[n] for n in mine]))
    return parts

def load(parts: dict, room: Path):
    """The splits that `load_folder(validation=0.1, seed=0)` gives for the unpacked archive."""
    (classes, y, x), (_, y_test, x_test) = parts["train"], parts["test"]
    write_pixels(room / "pixels.safetensors", torch.cat([x, x_test]))
    pixels = lambda rows: Pixels(str(room / "pixels.safetensors"), torch.cat([rows[0], rows[1] + len(y)]))
    return load_parts([torch.tensor(y), torch.tensor(y_test)], pixels, classes, "cifar10", validation=0.1, seed=0)


# ---------------------------------------------------------------- the row

@dataclass(frozen=True)
class Shared(Objective):
    """An objective whose running form serves every set: experts are opened and steps compiled once."""
    running: FollowExperts
    deadline: float

    def start(self, like: ImageSet): return self

    def state(self) -> dict: return {}

    def identity(self) -> dict: return self.running.spec.identity()

    def __call__(self, current, generator):
        if time.perf_counter() > self.deadline: raise OutOfTime
        return self.running(current, generator)


class Row:
    """Everything of the row: data on the device, what was measured, the plan, and the pieces of work."""
    def __init__(self, words: argparse.Namespace, log: Log, room: Path, parts: dict | None = None):
        self.parts = parts
        self.words, self.log, self.room, self.device = words, log, room, words.device
        self.end, self.compiled, self.graphs, self.sets = began + words.seconds, words.compile == "yes", False, {}
        quick = words.quick
        self.student = {"name": "ConvNet", "width": 8 if quick else 128, "depth": 2 if quick else 3, "norm": "batch"}
        self.judge_network = {"name": "ConvNet", "width": 8, "depth": 2} if quick else {"name": "ResNet18"}
        self.n_steps, self.batch, self.expert_batch, self.judge_batch = (4, 8, 16, 8) if quick else (words.n_steps, 125, 256, 128)
        self.measured = {}

    def left(self) -> float: return self.end - time.perf_counter()

    def load(self):
        splits = load(self.parts, self.room)
        self.train, self.test, self.listed = splits.train.to(self.device), splits.test.to(self.device), splits.train
        for part in (self.train, self.test): part.images      # made on the device, once
        self.difficulty = load_difficulty(self.words.scores, "c_score", splits, key="c_score", order="folder_order")
        self.per_class = int(torch.bincount(self.train.hard_labels).min())
        self.ipc = round(RATIO * self.per_class) if not self.words.quick else max(2, self.per_class // 4)
        self.log("data", train=len(self.train), validation=len(splits.validation), test=len(self.test), per_class=self.per_class, ipc=self.ipc,
                 mean=self.train.mean, std=self.train.std, difficulty=fingerprint(self.difficulty))

    @cached_property
    def resident(self) -> ImageSet:
        """The training images as one tensor on the device, to take subsets from."""
        return ImageSet(self.train.images, self.train.labels, self.train.classes, self.train.mean, self.train.std, self.train.name)

    def judge_recipe(self, method: Method, steps: int) -> Recipe:
        augmentation = Augmentation(method.augmentation, STRONG, "simple")
        return Recipe(steps, self.judge_batch, 0.1, 0.9, 5e-4, "cosine", augmentation, self.compiled, self.words.judge_precision)

    def start(self, name: str, seed: int) -> SyntheticSet:
        """The images a method starts from, class by class, hardest first, and which of them it distils."""
        method = find_method(name)
        words = {"difficulty": self.difficulty, "beta": BETA, "generator": torch.Generator().manual_seed(seed)}
        named, _ = read_options(selections[method.start])
        rows = select(method.start, self.listed, self.ipc, **{k: v for k, v in words.items() if k in named})
        mask = distilled_mask(self.train.n_classes, self.ipc, ALPHA if method.alpha is None else method.alpha)
        return SyntheticSet(self.resident.subset(rows), mask.to(self.device), self.words.start_lr)

    # -- measuring

    def seconds_of_training(self, network: dict, data: ImageSet, recipe: Recipe, distilled=None, graphs: bool = False) -> tuple[float, float, list[float]]:
        """(Seconds of the first step, seconds of a later one, losses): the first compiles."""
        marks, losses, first = [], [], 6
        labels = data.labels
        def on_step(step, epoch, rows, logits):
            losses.append(torch.nn.functional.cross_entropy(logits.float(), labels[rows]))
            if step in (0, 1, first, recipe.steps - 1):
                if self.device == "cuda": torch.cuda.synchronize()
                marks.append(time.perf_counter())
        begin = time.perf_counter()
        net = renew_network(network, data.shape, data.n_classes, 0, self.device)
        train(net, data, recipe, torch.Generator().manual_seed(0), distilled, on_step=on_step, graphs=graphs)
        return marks[1] - begin, (marks[3] - marks[2]) / (recipe.steps - 1 - first), torch.stack(losses).tolist()

    def expert_recipe(self, epochs: int) -> Recipe:
        return expert_recipe(len(self.train), epochs, self.expert_batch, 0.01, compiled=self.compiled, precision=self.words.expert_precision)

    def measure_expert(self):
        recipe = replace(self.expert_recipe(1), steps=12 if self.words.quick else 60)
        graphs = replays(recipe, self.device)
        compiling, step, _ = self.seconds_of_training(self.student, self.train, recipe, graphs=graphs)
        self.measured |= {"expert_step": step, "expert_epoch": step * steps_per_epoch(len(self.train), recipe)}
        self.log("measured", what="expert", compiling=compiling, graphs=graphs, **self.measured)

    def measure_judge(self):
        small, recipe = self.start("selmatch", 0), self.judge_recipe(find_method("selmatch"), 12 if self.words.quick else 80)
        compiling, step, plain = self.seconds_of_training(self.judge_network, small.data, recipe, small.distilled)
        self.log("measured", what="judge", compiling=compiling, judge_step=step, losses=[plain[0], plain[-1]])
        self.measured["judge_step"] = step
        if self.device != "cuda" or not self.compiled or self.words.graphs == "no": return
        with self.log.piece("judge by graphs"):
            compiling, fast, losses = self.seconds_of_training(self.judge_network, small.data, recipe, small.distilled, graphs=True)
            early = max(abs(a - b) for a, b in zip(plain[:4], losses[:4]))       # the same network, batches and first steps
            late = abs(np.mean(plain[-20:]) - np.mean(losses[-20:]))
            agree = math.isfinite(sum(losses)) and early < 0.3 and late < 0.5
            self.graphs = agree and (fast < 0.95 * step or self.words.graphs == "yes")
            if self.graphs: self.measured["judge_step"] = fast
            self.log("measured", what="judge by graphs", compiling=compiling, judge_step=fast, early=early, late=late, used=self.graphs)

    def matching(self, experts: list, max_start: int) -> TrajectoryMatching:
        return TrajectoryMatching(self.student, experts, self.n_steps, 2, 0, max_start, self.batch, Augmentation("dsa", STRONG), self.compiled, precision=self.words.match_precision)

    def measure_sweep(self, experts: list):
        """Seconds of one outer iteration, compiled and not; the faster is used."""
        start, generator = self.start("selmatch", 0), torch.Generator().manual_seed(0)
        from selmatch.distill.loop import OptimisedImages as Moving
        descent = self.descent(1)
        current, times = Moving(start, descent).current(0), {}
        for compiled in ([True, False] if self.compiled else [False]):
            with self.log.piece(f"outer iteration, {'compiled' if compiled else 'eager'}"):
                ask = replace(self.matching(experts, 1), compiled=compiled).start(start.data)
                begin = time.perf_counter()
                asked = ask(current, generator)
                float(asked.loss)
                first, turns = time.perf_counter() - begin, []
                for _ in range(3 if compiled else 2):
                    begin = time.perf_counter()
                    asked = ask(current, generator)
                    norm = float(asked.images.norm())
                    turns.append(time.perf_counter() - begin)
                if not (math.isfinite(norm) and norm > 0): raise FloatingPointError(f"the gradient's length is {norm}")
                times[compiled] = float(np.median(turns))
                self.log("measured", what="outer iteration", compiled=compiled, first=first, seconds=times[compiled], loss=float(asked.loss), gradient=norm)
                if compiled: break
        if not times: raise RuntimeError("no way of matching works")
        self.match_compiled = min(times, key=times.get)
        self.measured["iteration"] = times[self.match_compiled]

    def descent(self, iterations: int) -> Descent:
        return Descent(iterations, self.words.lr_images, 0.0, 1e-5, self.words.start_lr, 0.5)

    # -- the plan

    def plan_experts(self) -> tuple[int, int]:
        """Up to a seventh of what is left for experts, of 40 epochs where that gives four."""
        if self.words.quick: return self.words.experts or 2, self.words.expert_epochs or 3
        share, epoch = self.left() / 7, self.measured["expert_epoch"] + 0.005
        budget = share / epoch
        epochs = self.words.expert_epochs or min(100, max(10, 40 if budget >= 160 else int(budget / 4)))
        return self.words.experts or max(2, min(10, int(budget / epochs))), epochs

    def plan(self) -> dict:
        """Sets, iterations and judge steps for what is left: a third for distilling, the rest for judging."""
        distilling = [m for m in self.words.methods.split(",") if find_method(m).objective]
        methods, w = self.words.methods.split(","), self.words
        left = self.left() - (3 if w.quick else 12)
        sets, judges = w.sets or (1 if w.quick else 2), w.judges or (1 if w.quick else 2)
        if w.quick: iterations, steps = w.iterations or 3, w.judge_steps or 10
        else:
            have = len(self.sets)
            new = max(0, sets * len(distilling) - have)
            iterations = w.iterations or int(min(10_000, 0.36 * left / max(1, new) / self.measured["iteration"]))
            rest = left - new * iterations * self.measured["iteration"]
            networks = sets * judges * len(methods)
            steps = w.judge_steps or int(min(PAPER_STEPS, (rest / networks - 1.5) / self.measured["judge_step"]))
            if steps < 1000 and not w.sets: sets, steps = 1, int(min(PAPER_STEPS, (rest / (networks / 2) - 1.5) / self.measured["judge_step"]))
        return {"methods": methods, "sets": sets, "judges": judges, "iterations": max(1, iterations), "judge_steps": max(1, steps), "seconds": left}

    # -- pieces

    def seeds(self) -> range: return range(self.words.first_set, self.words.first_set + self.plan_made["sets"])

    def settings(self) -> dict:
        """What a row depends on besides method and seeds."""
        p = self.plan_made
        return {"student": self.student, "judge": self.judge_network, "ipc": self.ipc, "alpha": ALPHA, "beta": BETA, "judge_steps": p["judge_steps"], "iterations": p["iterations"],
                "experts": p["experts"], "expert_epochs": p["expert_epochs"], "max_start": p["max_start"], "n_steps": self.n_steps, "batch": self.batch,
                "start_lr": self.words.start_lr, "lr_images": self.words.lr_images, "judge_batch": self.judge_batch,
                "precision": {"judge": self.words.judge_precision, "expert": self.words.expert_precision, "match": self.words.match_precision}}

    def set_file(self, name: str, seed: int, folder: Path | None = None) -> Path: return (folder or self.log.out) / f"set_{name}_{seed}.safetensors"

    def small_set(self, name: str, seed: int) -> SyntheticSet | None:
        """The set to judge: frozen images as they are, distilled ones as last left, in half precision, as they are stored."""
        start = self.start(name, seed)
        if find_method(name).objective is None: return start
        if (name, seed) not in self.sets: return None
        images = start.data.images.clone()
        images[start.distilled] = self.sets[name, seed].to(self.device).float()
        return replace(start, data=replace(start.data, images=images))

    def distil(self, name: str, seed: int):
        if (name, seed) in self.sets: return
        cost = self.plan_made["iterations"] * self.measured["iteration"]
        if cost > self.left() - 5: raise OutOfTime
        start, begin = self.start(name, seed), time.perf_counter()
        made = distill(start, Shared(self.running, self.end - 3), self.descent(self.plan_made["iterations"]), seed)
        small, history = made.last, made.history
        pixels = small.data.images[start.distilled]
        self.sets[name, seed] = pixels.half().cpu()
        if not pixels.isfinite().all(): raise FloatingPointError(f"{name} {seed} has pixels that are not finite")
        save_tensors(self.set_file(name, seed), {"pixels": self.sets[name, seed]}, {"method": name, "set_seed": seed, "settings": self.settings(), "lr": small.lr})
        thinned = history.iloc[:: max(1, len(history) // 50)]
        seconds = time.perf_counter() - begin
        self.log("distilled", method=name, set_seed=seed, seconds=seconds, per_iteration=seconds / len(history), iterations=len(history), skipped=int(history.skipped.sum()),
                 loss_first=float(history.loss[: max(1, len(history) // 10)].mean()), loss_last=float(history.loss[-max(1, len(history) // 10):].mean()),
                 lr=small.lr, moved=float((pixels - start.data.images[start.distilled]).square().mean().sqrt()), history=thinned.values.tolist())

    def judge(self, name: str, set_seed: int, seed: int):
        if any((r["method"], r["set_seed"], r["network_seed"]) == (name, set_seed, seed) for r in self.log.of("row")): return
        small = self.small_set(name, set_seed)
        if small is None: return
        steps = self.plan_made["judge_steps"]
        if steps * self.measured["judge_step"] + 1 > self.left(): raise OutOfTime
        begin, deadline = time.perf_counter(), self.end - 1
        def on_step(step, epoch, rows, logits):
            if step % 50 == 49 and time.perf_counter() > deadline: raise OutOfTime
        net = renew_network(self.judge_network, small.data.shape, small.data.n_classes, seed, self.device)
        train(net, small.data, self.judge_recipe(find_method(name), steps), torch.Generator().manual_seed(1000 + seed), small.distilled, on_step=on_step, graphs=self.graphs)
        right = (predict(net, self.test).argmax(1) == self.test.hard_labels).float().mean()
        on_train = (predict(net, small.data).argmax(1) == small.data.hard_labels).float().mean()
        self.log("row", method=name, set_seed=set_seed, network_seed=seed, test_accuracy=float(right), train_accuracy=float(on_train), judge_steps=steps,
                 precision=self.words.judge_precision, compiled=self.compiled, graphs=self.graphs, seconds=time.perf_counter() - begin, settings=fingerprint(self.settings()))

    def take_over(self, folder: Path):
        """The plan, the rows and the sets of an earlier run."""
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        self.plan_made = summary["plan"] | {"judges": summary["plan"]["judges"] + 20, "seconds": self.left()}
        mine, theirs = json.loads(json.dumps(self.settings())), summary["settings"]
        differ = [k for k in mine if mine[k] != theirs.get(k)]
        if differ: raise InputError(f"{folder} was run with other {', '.join(differ)}: give the same options, or another folder")
        for row in summary["rows"]: self.log("row", **{k: v for k, v in row.items() if k not in ("kind", "at")})
        for name in self.words.methods.split(","):
            for seed in self.seeds():
                if not self.set_file(name, seed, folder).exists(): continue
                tensors, card = load_tensors(self.set_file(name, seed, folder))
                self.sets[name, seed] = tensors["pixels"]
                save_tensors(self.set_file(name, seed), tensors, card)
        self.log("taken over", folder=str(folder), rows=len(summary["rows"]), sets=[f"{m} {s}" for m, s in self.sets])

    def experts_first(self):
        """Experts, one file each, in single precision."""
        n, epochs = (self.plan_made["experts"], self.plan_made["expert_epochs"]) if hasattr(self, "plan_made") else self.plan_experts()
        self.log("plan of experts", experts=n, epochs=epochs, seconds=n * epochs * self.measured["expert_epoch"])
        begin = time.perf_counter()
        tasks = list_expert_tasks(self.room / "experts", self.train, self.student, self.expert_recipe(epochs), n, 100 * self.words.first_set, self.device, draft_every=10**9)
        paths = [train_expert(task) for task in tasks]
        seconds = time.perf_counter() - begin
        net = make_network(self.student, self.train.shape, self.train.n_classes, 0).to(self.device)
        from selmatch.distill.experts import Trajectory
        from selmatch.train.networks import load_flat
        load_flat(net, Trajectory(paths[0])[epochs].to(self.device)).train()       # batch statistics, as the student has
        with torch.no_grad(): share = float((net(self.test.images[:2000]).argmax(1) == self.test.labels[:2000]).float().mean())
        self.log("experts", n=n, epochs=epochs, seconds=seconds, per_epoch=seconds / n / epochs, accuracy_of_first=share)
        return paths, n, epochs

    def run(self):
        with self.log.piece("data"): self.load()
        helpers = self.warm() if self.compiled and self.device == "cuda" else []
        resumed = self.words.resume and (self.words.resume / "summary.json").exists()
        if resumed: self.take_over(self.words.resume)
        missing = not resumed or any((m, s) not in self.sets for m in self.words.methods.split(",") if find_method(m).objective for s in self.seeds())
        experts = epochs = n = 0
        if missing:
            with self.log.piece("measure experts"): self.measure_expert()
            if "expert_step" not in self.measured:
                self.compiled = False
                with self.log.piece("measure experts, eager"): self.measure_expert()
            with self.log.piece("experts"): experts, n, epochs = self.experts_first()
        for helper in helpers: self.wait(helper)
        compiled = self.words.compile == "yes"
        self.compiled = compiled
        with self.log.piece("measure judge"): self.measure_judge()
        if "judge_step" not in self.measured:
            self.compiled = False
            with self.log.piece("measure judge, eager"): self.measure_judge()
        judges_compiled, self.compiled = self.compiled, compiled
        if experts:
            with self.log.piece("measure matching"): self.measure_sweep(experts)
        self.compiled = judges_compiled
        if not resumed:
            methods = self.words.methods
            if "iteration" not in self.measured: self.words.methods = ",".join(m for m in methods.split(",") if not find_method(m).objective)
            ahead = max(1, epochs - 2)
            self.plan_made = self.plan() | {"experts": n, "expert_epochs": epochs, "max_start": min(ahead, self.words.max_start or ahead)}
        if "iteration" in self.measured:
            spec = replace(self.matching(experts, self.plan_made["max_start"]), compiled=self.match_compiled)
            with self.log.piece("open experts"): self.running = spec.start(self.train)
        self.log("plan", **self.plan_made, measured=self.measured, settings=self.settings(), graphs=self.graphs)
        self.finish()
        for network in range(self.plan_made["judges"] + (0 if self.words.quick else 20)):      # more than planned where the time allows, in whole rounds
            for seed in self.seeds():
                round_cost = sum(self.plan_made["judge_steps"] * self.measured["judge_step"] + 1 for _ in self.plan_made["methods"])
                if network >= self.plan_made["judges"] and round_cost > self.left(): return
                for name in self.plan_made["methods"]:
                    if find_method(name).objective and hasattr(self, "running"):
                        with self.log.piece(f"distil {name} {seed}"): self.distil(name, seed)
                for name in self.plan_made["methods"]:
                    if self.left() < 2: return
                    with self.log.piece(f"judge {name} {seed} {network}"): self.judge(name, seed, network)
                    self.finish()

    # -- compiling in processes of their own, into the compiler's cache, while experts are trained

    def warm(self) -> list:
        common = [sys.executable, __file__, "--out", str(self.room), "--device", self.device, "--judge-precision", self.words.judge_precision, "--match-precision", self.words.match_precision, "--expert-precision", self.words.expert_precision, "--graphs", self.words.graphs,
                  *(["--quick"] if self.words.quick else [])]
        return [(what, subprocess.Popen([*common, "--warm", what], stdout=subprocess.DEVNULL, stderr=open(self.room / f"{what}.txt", "w"))) for what in ("judge", "sweep")]

    def wait(self, helper):
        what, process = helper
        try: code = process.wait(timeout=max(1, min(60, self.left() / 4)))
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        self.log("compiled ahead", what=what, code=code, said=(self.room / f"{what}.txt").read_text()[-800:] if code else "")

    def finish(self):
        write_summary(self)


def noise(n: int, device: str) -> ImageSet:
    return bench.random_images(n, torch.Generator().manual_seed(0)).to(device)

def warm(words: argparse.Namespace):
    """Compile what the row will need, on noise of the same shapes."""
    row = Row(words, Log(Path(tempfile.mkdtemp())), Path(tempfile.mkdtemp()))
    if words.warm == "judge":
        net, data = make_network(row.judge_network, (3, 32, 32), 10, 0).to(words.device), noise(4 * row.judge_batch, words.device)
        for graphs in {"auto": [False, True], "yes": [False, True], "no": [False]}[words.graphs]:
            train(net, data, row.judge_recipe(find_method("selmatch"), 4), torch.Generator().manual_seed(0), torch.arange(len(data)) % 2 == 0, graphs=graphs)
    else:
        problem = bench.matching_problem(row.student["width"], row.student["depth"], 32, row.batch, 2, words.device)
        bench.compiled_sweep(problem, words.match_precision)


def tabulate(rows: list[dict], names: list[str]) -> list[dict]:
    """One line a method: mean, spread over networks and over sets, how many of each."""
    table = []
    for name in names:
        mine = [r for r in rows if r["method"] == name]
        values = [100 * r["test_accuracy"] for r in mine]
        by_set = {s: float(np.mean([100 * r["test_accuracy"] for r in mine if r["set_seed"] == s])) for s in sorted({r["set_seed"] for r in mine})}
        table.append({"method": name, "mean": float(np.mean(values)) if values else None, "std_networks": float(np.std(values, ddof=1)) if len(values) > 1 else None,
                      "std_sets": float(np.std(list(by_set.values()), ddof=1)) if len(by_set) > 1 else None, "sets": len(by_set), "networks": len(values), "published": PUBLISHED[name]})
    return table


def merge(folders: list[Path], out: Path):
    """`summary.json` in `out`: the rows of several runs that made different sets by one protocol."""
    found = [json.loads((folder / "summary.json").read_text(encoding="utf-8")) for folder in folders]
    for folder, one in zip(folders, found):
        if one["settings"] != found[0]["settings"]: raise InputError(f"{folder} was run with other settings than {folders[0]}: {one['settings']} against {found[0]['settings']}")
    rows = [row for one in found for row in one["rows"]]
    if len({(r["method"], r["set_seed"], r["network_seed"]) for r in rows}) < len(rows): raise InputError(f"{', '.join(map(str, folders))} judged the same sets: give each its own --first-set")
    pieces = [{**piece, "run": i} for i, one in enumerate(found) for piece in one["pieces"]]
    whole = found[0] | {"rows": rows, "table": tabulate(rows, found[0]["plan"]["methods"]), "pieces": pieces, "side_by_side": len(found), "seconds": max(one["seconds"] for one in found),
                        "measured": [one["measured"] for one in found], "errors": [e for one in found for e in one["errors"]], "peak_memory_mb": sum(one["peak_memory_mb"] or 0 for one in found) or None}
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(out / "summary.json", lambda p: p.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8"))


def write_summary(row: Row):
    log, rows = row.log, row.log.of("row")
    table = tabulate(rows, row.plan_made["methods"])
    summary = {"what": "CIFAR-10 (JPEG), 5 % (225 of the 4,500 images a class that are left when a tenth is held out), ResNet-18; paper: 100 experts of 100 epochs, 10,000 iterations, 19,500 steps",
               "quick": row.words.quick, "machine": machine(row.device), "seconds": time.perf_counter() - began, "options": {k: str(v) for k, v in vars(row.words).items()},
               "plan": row.plan_made, "settings": row.settings(), "measured": row.measured, "table": table, "rows": rows,
               "pieces": [e for e in log.events if e["kind"] in ("data", "measured", "experts", "distilled", "compiled ahead", "out of time", "taken over") or (e["kind"] == "piece" and e["seconds"] > 1)],
               "errors": [{k: v for k, v in e.items() if k != "traceback"} for e in log.of("error")],
               "peak_memory_mb": torch.cuda.max_memory_allocated() / 1e6 if row.device == "cuda" else None}
    write_atomic(log.out / "summary.json", lambda p: p.write_text(json.dumps(summary, indent=1, default=to_json) + "\n", encoding="utf-8"))


# ---------------------------------------------------------------- steps, timed on noise

def run_probe(words: argparse.Namespace, log: Log):
    """Seconds of a step of an expert and of a judge, with and without CUDA graphs, and of an outer iteration, on noise."""
    row, cuda = Row(words, log, Path(tempfile.mkdtemp())), words.device == "cuda"
    many = 12 if words.quick else 300
    data = noise(20 * row.judge_batch, words.device)
    row.train = data
    expert = replace(row.expert_recipe(1), steps=many)
    judge = row.judge_recipe(find_method("selmatch"), many)
    mask = torch.arange(len(data)) % 2 == 0
    for what, network, recipe, of in (("judge", row.judge_network, judge, mask), ("expert", row.student, expert, None)):
        for graphs in ([True, False] if cuda else [False]):
            with log.piece(f"probe {what}, graphs {graphs}"):
                compiling, step, losses = row.seconds_of_training(network, data, recipe, of, graphs)
                log("probe", what=what, graphs=graphs, compiling=compiling, seconds=step, last_loss=losses[-1])
                if not cuda or not graphs: continue
                again = lambda: row.seconds_of_training(network, data, replace(recipe, steps=60), of, graphs)
                log("probe", what=f"{what}, kernels", seconds=kernel_seconds(again, torch.device(words.device)) / 60)
    problem = bench.matching_problem(row.student["width"], row.student["depth"], 32, row.batch, row.n_steps, words.device)
    with log.piece("probe iteration"):
        way = lambda: bench.compiled_sweep(problem, words.match_precision, 1)
        first = bench.time_once(way)
        turns = [bench.time_once(way) for _ in range(2 if words.quick else 12)]
        log("probe", what="iteration", first=first, seconds=float(np.median(turns)), slowest=max(turns))
        if cuda: log("probe", what="iteration, kernels", seconds=kernel_seconds(way, torch.device(words.device)))


# ---------------------------------------------------------------- the bench

def run_bench(words: argparse.Namespace, log: Log):
    """`selmatch bench --only matching`, measurement by measurement, for a given time; its file can be continued by that command."""
    versions = {"selmatch": bench.selmatch.__version__, "torch": torch.__version__, "python": platform.python_version()}
    result = {"device": words.device, "processor": bench.processor(), "quick": words.quick, "versions": versions, "done": [], "rows": []}
    file, end = log.out / "bench.json", time.perf_counter() + min(words.bench_seconds, began + words.seconds - time.perf_counter() - 5)
    if words.resume and (words.resume / "bench.json").exists():
        earlier = json.loads((words.resume / "bench.json").read_text(encoding="utf-8"))
        if all(earlier[k] == result[k] for k in ("device", "processor", "quick", "versions")): result = earlier
    for label, measure in bench.bench_matching(words.device, words.quick):
        label = f"matching: {label}"
        if label in result["done"]: continue
        if time.perf_counter() > end:
            log("out of time", name=label)
            break
        with log.piece(label):
            rows = measure()
            result["rows"] += rows
            result["done"].append(label)
            write_atomic(file, lambda p: p.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8"))
            log("bench", label=label, rows=summarised(rows))
        if words.device == "cuda": torch.cuda.empty_cache()

def summarised(rows: list[dict]) -> list[dict]:
    """Medians of the timings; other rows as they are."""
    timed = {}
    for row in rows:
        if "seconds" in row: timed.setdefault((row["part"], row["n_steps"], row["way"]), []).append(row["seconds"])
    medians = [{"part": part, "n_steps": n, "way": way, "median_seconds": float(np.median(s)), "n": len(s)} for (part, n, way), s in timed.items()]
    return medians + [row for row in rows if "seconds" not in row]


def main(given=None):
    words = arguments(given)
    torch.backends.cudnn.benchmark = words.device == "cuda"      # the fastest convolutions of each shape, in all ways alike
    if words.merge: return merge(words.merge, words.out)
    if words.warm: return warm(words)
    log, parts = Log(words.out), None
    if "row" in words.parts:
        with log.piece("decode"): parts = read_archive(words.data, min(16, os.cpu_count() or 1))      # by forks, so before the GPU is touched
    log("machine", **machine(words.device), options={k: str(v) for k, v in vars(words).items()})
    with tempfile.TemporaryDirectory() as room:
        for part in words.parts.split(","):
            with log.piece(part): {"bench": run_bench, "probe": run_probe}[part](words, log) if part != "row" else Row(words, log, Path(room), parts).run()
    for event in log.of("error"): print(event["name"], event["traceback"], file=sys.stderr)
    if (words.out / "summary.json").exists(): print(json.dumps(json.loads((words.out / "summary.json").read_text())["table"], indent=1))
    log("end", errors=len(log.of("error")), rows=len(log.of("row")))
    return 0


if __name__ == "__main__": sys.exit(main())
