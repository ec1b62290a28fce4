"""A soak: two processes at a time do the same work on one home and are killed at random; now and then a file is damaged, or the
disk is full. At the end of each round the home must hold the same bits as one that nobody disturbed, and nothing else.

    python scripts/soak.py --minutes 60             small runs of every kind, and the stages of the profile `smoke` by the command line
    python scripts/soak.py --work tiny --disk 3     small runs only, on a disk of 3 MB of its own (Linux)
    python scripts/soak.py --home FOLDER            on a disk of yours; room is made in it and removed"""
import argparse
import errno
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

STAGES = ["score --profile smoke --out {}/scores.csv", "distill --profile smoke --method selmatch --ratio 0.1 --beta 0.35 --out {}/selmatch",
          "distill --profile smoke --method dm --ratio 0.1 --out {}/dm", "evaluate {}/dm --profile smoke --out {}/accuracies.csv"]


def do_tiny(home: Path):
    "Everything that we write, small, as a command does it."
    from selmatch import app
    from test_durable import tiny_run
    app.cli.command("tiny")(lambda: tiny_run(home) and None)
    app.main(["tiny"])


def do_smoke(home: Path):
    "The stages of the profile `smoke`, by the command line; ends where one does not succeed."
    from selmatch.app import main
    os.environ["SELMATCH_HOME"] = str(home)
    for line in STAGES:
        try:
            main([*(word.format(home) for word in line.split()), "--workers", "1", "--device", "cpu"])
        except SystemExit as stop:
            if stop.code: raise


WORK = {"tiny": do_tiny, "smoke": do_smoke}
LEFT_OUT = (".bad", ".lock", "seconds.json")      # what was set aside; who is at work; the time it took


def load():
    "What all work needs, once: each process is a fork of this one, which does nothing itself."
    import torch  # noqa: F401
    import selmatch.api  # noqa: F401
    sys.path.insert(0, str(ROOT / "tests"))
    import test_durable  # noqa: F401


class Process:
    "A process that does some work on a home."
    def __init__(self, work: str, home: Path):
        home.mkdir(exist_ok=True)
        self.errors, self.returncode = tempfile.TemporaryFile("w+"), None
        self.number = os.fork()
        if not self.number: self.live(work, home)

    def live(self, work: str, home: Path):
        code = 1
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.dup2(self.errors.fileno(), 2)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            warnings.simplefilter("ignore")
            WORK[work](home)
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        except KeyboardInterrupt:
            code = 130
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)

    def poll(self) -> int | None:
        if self.returncode is None:
            number, status = os.waitpid(self.number, os.WNOHANG)
            if number: self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self) -> str:
        "Until it has ended; -> what it said."
        if self.poll() is None: self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.number, 0)[1])
        self.errors.seek(0)
        return self.errors.read()


def damage(home: Path, chance: random.Random):
    "Flip a byte of a file of a home. Experts are left: theirs are compared when somebody follows them."
    files = [p for p in sorted(home.glob("*/*/**/*.safetensors")) if "experts" not in p.parts]
    if files:
        path = chance.choice(files)
        data = bytearray(path.read_bytes())
        if data:
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
            path.write_bytes(data)


def fill(room: Path, left: int):
    "Fill a disk, but for some bytes."
    with open(room / "full", "wb", buffering=0) as file:
        try:
            while True: file.write(bytes(4096))
        except OSError as error:
            if error.errno != errno.ENOSPC: raise
        file.truncate(max(0, file.tell() - left))


def without_seconds(file: Path) -> bytes | str:
    "A file as it is; of a stored result, whose digests are compared, all but the seconds that its task took."
    if "results" not in file.parts or file.suffix != ".safetensors": return file.read_bytes()
    from selmatch.core import DamagedFile, fingerprint, load_tensors
    try: tensors, card = load_tensors(file, sealed=True)
    except DamagedFile: return file.read_bytes()
    result = json.dumps(card["result"], sort_keys=True)
    return fingerprint(re.sub(r'\["seconds", [-+.\de]+\]', "", result), card["by"], *tensors, *tensors.values())


def bits(home: Path) -> dict[str, bytes | str]:
    "Every file but those of LEFT_OUT, and the notes about the state of other files."
    return {str(p.relative_to(home)): without_seconds(p) for p in sorted(home.rglob("*")) if p.is_file() and not p.name.endswith(LEFT_OUT) and p.parent.name != "compared"}


def finish(work: str, home: Path) -> float:
    "One process that nobody disturbs; -> the seconds that it took."
    begin, process = time.monotonic(), Process(work, home)
    said = process.wait()
    if process.returncode: raise SystemExit(f"an undisturbed {work} run ended with {process.returncode}: {said[-2000:]}")
    return time.monotonic() - begin


def one_round(work: str, home: Path, chance: random.Random, seconds: float, small: bool) -> str:
    "Two processes, killed after a while, perhaps on a full disk; then one that may finish, twice (the second clears what the first found locked). -> what was done."
    full = small and chance.random() < 0.4
    if full: fill(home.parent, chance.choice([0, 4096, 20_000, 60_000, 150_000]))
    pair, told, begin = [Process(work, home) for _ in range(2)], [], time.monotonic()
    for process in pair:
        end = begin + chance.uniform(0, seconds)
        while process.poll() is None and time.monotonic() < end: time.sleep(0.01)
        how = chance.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
        if process.poll() is None: os.kill(process.number, how)
        said = process.wait()
        no_room = full and "No space left" in said and "Traceback" not in said
        if process.returncode in (1, 2) and not no_room: raise SystemExit(f"a {work} run failed: {said[-2000:]}")
        told.append("done" if not process.returncode else "no room" if process.returncode in (1, 2) else signal.Signals(how).name)
    (home.parent / "full").unlink(missing_ok=True)
    if chance.random() < 0.3:
        damage(home, chance)
        told.append("damaged")
    for _ in range(2): finish(work, home)
    return ", ".join(told + ["on a full disk"] * full)


def litter(home: Path) -> list[Path]:
    "What a run that ended should not leave; what was found damaged lies aside as `.bad`, until `selmatch cache clean`."
    found = (p for p in home.rglob("*") if not p.name.endswith(".bad"))
    return [p for p in found if p.name.endswith((".tmp", ".lock")) or "draft" in p.name or p.name.startswith("checkpoint")]


def soak(room: Path, works: list[str], minutes: float, seed: int, small: bool):
    chance, expected, seconds, counts = random.Random(seed), {}, {}, Counter()
    for work in works:
        seconds[work] = finish(work, room / work)
        expected[work] = bits(room / work)
        shutil.rmtree(room / work)
    begin = time.monotonic()
    while time.monotonic() - begin < 60 * minutes:
        work = chance.choice(works)
        home = room / work
        told = one_round(work, home, chance, 1.3 * seconds[work], small)
        found = bits(home)
        if found != expected[work]:
            differ = [name for name in sorted({*found, *expected[work]}) if found.get(name) != expected[work].get(name)]
            raise SystemExit(f"round {counts['rounds']} ({work}: {told}) ended with other bits: {', '.join(differ)}")
        if litter(home): raise SystemExit(f"round {counts['rounds']} ({work}: {told}) left litter: {litter(home)}")
        counts.update({"rounds": 1, "processes killed": told.count("SIG"), "damaged files": told.count("damaged"), "full disks": told.count("full disk")})
        print(f"{(time.monotonic() - begin) / 60:5.1f} minutes, {work}: {told}: the same bits", flush=True)
        if chance.random() < 0.8 or small: shutil.rmtree(home)
    print(f"{counts['rounds']} rounds, {counts['processes killed']} processes killed, {counts['damaged files']} files damaged, {counts['full disks']} full disks: nothing lost", flush=True)


def on_small_disk(megabytes: int):
    "Begin again in a room of one's own, where a small disk is mounted that goes with the process."
    place = tempfile.mkdtemp(prefix="disk-")
    words = [word for word in sys.argv[1:] if word not in ("--disk", str(megabytes)) and not word.startswith("--disk=")]
    script = f"mount -t tmpfs -o size={megabytes}m tmpfs {place} && exec \"$@\""
    done = subprocess.run(["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh", sys.executable, __file__, *words, "--home", place, "--small"])
    os.rmdir(place)
    sys.exit(done.returncode)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", choices=[*WORK, "both"], default="both")
    parser.add_argument("--home", type=Path, help="a folder on the disk that is to be tried")
    parser.add_argument("--disk", type=int, metavar="MB", help="mount a disk of this size for it, which some rounds fill (Linux, `unshare`)")
    parser.add_argument("--small", action="store_true", help="the disk of --home is ours alone: some rounds fill it")
    words = parser.parse_args()
    if words.disk: on_small_disk(words.disk)
    os.environ |= {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
    load()
    with tempfile.TemporaryDirectory(dir=words.home, prefix="soak-") as room:
        soak(Path(room), list(WORK) if words.work == "both" else [words.work], words.minutes, words.seed, words.small)


if __name__ == "__main__":
    main()
