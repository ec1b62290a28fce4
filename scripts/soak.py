"""A soak: small runs on one store, by two processes that are killed at random, and now and then a file that is damaged. At the end
the store must hold the same bits as one that nobody disturbed.   python scripts/soak.py --minutes 60 [--home FOLDER on a small disk]"""
import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORK = "import sys; sys.path.insert(0, 'tests'); import warnings; warnings.simplefilter('ignore'); from test_durable import tiny_run; tiny_run(sys.argv[1]); print('done')"


def start(home):
    return subprocess.Popen([sys.executable, "-c", WORK, str(home)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})


def damage(home, chance):
    """Flip a byte of a file of a store. Experts are left: theirs are compared when somebody follows them."""
    files = [p for p in sorted(home.rglob("*.safetensors")) if "experts" not in p.parts]
    if files:
        path = chance.choice(files)
        data = bytearray(path.read_bytes())
        if data:
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
            path.write_bytes(data)


def bits(home):
    left_out = (".bad", ".tmp", ".lock", "seconds.json", "checkpoint.safetensors")
    return {str(p.relative_to(home)): p.read_bytes() for p in sorted(home.rglob("*")) if p.is_file() and not p.name.endswith(left_out) and ".tmp" not in str(p)}


def one_round(home, chance, seconds):
    """Two processes, killed after a while; then one that may finish, twice (the second clears what the first found locked)."""
    pair = [start(home) for _ in range(2)]
    time.sleep(chance.uniform(0, seconds))
    for process in pair:
        process.send_signal(chance.choice([signal.SIGKILL, signal.SIGTERM]))
        process.communicate()
    if chance.random() < 0.3:
        damage(home, chance)
    for _ in range(2):
        last = start(home)
        said, error = last.communicate(timeout=600)
        if last.returncode:
            raise SystemExit(f"a restart failed: {error[-2000:]}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--home", type=Path, help="a folder, for example on a small disk; emptied between rounds")
    words = parser.parse_args()
    chance, room = random.Random(words.seed), Path(tempfile.mkdtemp(dir=words.home))
    begin = time.monotonic()
    start(room / "whole").communicate()
    seconds, expected, rounds = 1.2 * (time.monotonic() - begin), bits(room / "whole"), 0
    while time.monotonic() - begin < 60 * words.minutes:
        one_round(room / "home", chance, seconds)
        if bits(room / "home") != expected:
            raise SystemExit(f"round {rounds} ended with other bits: see {room}")
        if chance.random() < 0.8:
            shutil.rmtree(room / "home")
        rounds += 1
        print(f"{rounds} rounds, {(time.monotonic() - begin) / 60:.1f} minutes: the same bits", flush=True)
    shutil.rmtree(room)


if __name__ == "__main__":
    main()
