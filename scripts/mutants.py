"""Mutation testing of four rooms: a comparison turned, a number off by one, a statement dropped — and do their tests notice?

    python scripts/mutants.py --sample 300 --out mutants.csv     goes on where it was stopped; a larger sample holds the smaller one
    python scripts/mutants.py --list --rooms window              all mutants of a room
    python scripts/mutants.py --report --out mutants.csv         shares, and the survivors

Each mutant is tried in a copy of the tree, against the few tests that concern its room, until the first fails. The copy's
process has loaded all libraries once and forks for every mutant: a mutant costs its tests, and not the loading of PyTorch.
Survivors that no test can kill are named, with the reason, in scripts/survivors.csv; they count as survivors."""
import argparse
import ast
import copy
import csv
import hashlib
import importlib
import io
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NAMED = Path(__file__).with_name("survivors.csv")
grace = 20      # seconds that a mutant may take in any case; and five times what its tests take unchanged

# room -> its module, and what pytest is told: the tests that concern it, the fast ones first
ROOMS = {
    "sweep": ("selmatch/distill/sweep.py", ["tests/test_sweep.py", "tests/test_matching.py", "-k", "(test_sweep or finite or no_steps or rate_for or no_bit or they_fit) and not compiled and not resnet"]),
    "window": ("selmatch/select/window.py", ["tests/test_window.py"]),
    "coverage": ("selmatch/select/coverage.py", ["tests/test_coverage.py"]),
    "store": ("selmatch/study/store.py", ["tests/test_store.py"]),
}


# ---------------------------------------------------------------- what a mutant is

@dataclass(frozen=True)
class Mutant:
    "One change of one place of a module."
    room: str
    number: int     # among all of its room
    line: int
    place: str      # the function it lies in
    kind: str
    before: str
    after: str
    code: str       # of which text it is a mutant


COMPARISONS = {ast.Lt: [ast.LtE, ast.GtE], ast.LtE: [ast.Lt, ast.Gt], ast.Gt: [ast.GtE, ast.LtE], ast.GtE: [ast.Gt, ast.Lt], ast.Eq: [ast.NotEq], ast.NotEq: [ast.Eq],
               ast.Is: [ast.IsNot], ast.IsNot: [ast.Is], ast.In: [ast.NotIn], ast.NotIn: [ast.In]}
ARITHMETIC = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Div, ast.Mod: ast.Mult, ast.Pow: ast.Mult, ast.MatMult: ast.Mult,
              ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr}
NAMES = {"min": "max", "max": "min", "any": "all", "all": "any", "argmin": "argmax", "argmax": "argmin", "floor": "ceil", "zeros_like": "ones_like", "zeros": "ones",
         "idxmax": "idxmin", "minimum": "maximum", "sorted": "list"}


def with_changes(node: ast.AST, **parts) -> ast.AST:
    made = copy.copy(node)
    for name, value in parts.items(): setattr(made, name, value)
    return made


def change_node(node: ast.AST) -> Iterator[tuple[str, ast.AST | None]]:
    "(kind, what stands there instead) of every change of one node itself; None: the statement goes."
    if isinstance(node, ast.Compare):
        for i, op in enumerate(node.ops):
            for other in COMPARISONS[type(op)]: yield "comparison", with_changes(node, ops=[*node.ops[:i], other(), *node.ops[i + 1:]])
    elif isinstance(node, (ast.BinOp, ast.AugAssign)) and type(node.op) in ARITHMETIC:
        yield "arithmetic", with_changes(node, op=ARITHMETIC[type(node.op)]())
    elif isinstance(node, ast.BoolOp):
        yield "and, or", with_changes(node, op=ast.Or() if isinstance(node.op, ast.And) else ast.And())
    elif isinstance(node, ast.UnaryOp):
        yield "sign or not", node.operand
    elif isinstance(node, ast.Constant):
        if isinstance(node.value, bool): yield "constant", ast.Constant(not node.value)
        elif isinstance(node.value, int): yield from (("constant", ast.Constant(node.value + d)) for d in ((1, -1) if node.value else (1,)))
        elif isinstance(node.value, float): yield "constant", ast.Constant(2 * node.value + (node.value == 0))
    elif isinstance(node, ast.comprehension) and node.ifs:
        yield "condition", with_changes(node, ifs=[])
    elif isinstance(node, ast.Name) and node.id in NAMES:
        yield "name", with_changes(node, id=NAMES[node.id])
    elif isinstance(node, ast.Attribute) and node.attr in NAMES:
        yield "name", with_changes(node, attr=NAMES[node.attr])
    elif isinstance(node, ast.Call) and any(k.arg for k in node.keywords):
        for i, word in enumerate(node.keywords):
            if word.arg: yield "word dropped", with_changes(node, keywords=[*node.keywords[:i], *node.keywords[i + 1:]])
    if isinstance(node, (ast.If, ast.While, ast.IfExp)) and not isinstance(node.test, (ast.Compare, ast.UnaryOp)):
        yield "condition", with_changes(node, test=ast.UnaryOp(ast.Not(), node.test))
    if isinstance(node, ast.AugAssign) or isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield "statement dropped", None
    elif isinstance(node, (ast.Raise, ast.Continue, ast.Break)):
        yield "statement dropped", None
    elif isinstance(node, ast.Return) and node.value is not None and not (isinstance(node.value, ast.Constant) and node.value.value is None):
        yield "returned", with_changes(node, value=ast.Constant(None))


SKIPPED = {ast.ImportFrom: (), ast.Import: (), ast.JoinedStr: (), ast.AnnAssign: ("annotation",), ast.arg: ("annotation",), ast.FunctionDef: ("returns", "decorator_list"),
           ast.ClassDef: ("decorator_list",)}


def places_of(node: ast.AST, inside: str = "(module)") -> Iterator[tuple[ast.AST, str, int | None, ast.AST, str]]:
    "(parent, field, index or None, node, function) of all that can be changed: no docstring, message, annotation, import or `__all__`."
    for field, value in ast.iter_fields(node):
        if field in SKIPPED.get(type(node), ()): continue
        for i, child in enumerate(value if isinstance(value, list) else [value]):
            if not isinstance(child, ast.AST) or type(child) in (ast.ImportFrom, ast.Import, ast.JoinedStr): continue
            if isinstance(child, ast.Assign) and ast.unparse(child.targets[0]) == "__all__": continue
            name = f"{inside}.{child.name}".removeprefix("(module).") if isinstance(child, (ast.FunctionDef, ast.ClassDef)) else inside
            yield node, field, i if isinstance(value, list) else None, child, name
            yield from places_of(child, name)


def put(parent: ast.AST, field: str, index: int | None, node: ast.AST):
    if index is None: setattr(parent, field, node)
    else: getattr(parent, field)[index] = node


def all_mutants(room: str, text: str) -> Iterator[tuple[Mutant, str]]:
    "Every mutant of a module, and its text."
    tree, code, number = ast.parse(text), hashlib.sha256(text.encode()).hexdigest()[:12], 0
    plain = [ast.unparse(part) for part in tree.body]
    for i in range(len(tree.body)):
        seen, alone = {plain[i]}, ast.Module([tree.body[i]], [])
        for parent, field, index, node, place in list(places_of(alone)):
            for kind, other in list(change_node(node)):
                put(parent, field, index, ast.Pass() if other is None else other)
                made = ast.unparse(ast.fix_missing_locations(alone))
                put(parent, field, index, node)
                if made in seen: continue
                seen.add(made)
                line = getattr(node, "lineno", None) or getattr(getattr(node, "target", None), "lineno", 0)
                before, after = (node, other) if kind != "condition" or not hasattr(node, "test") else (node.test, other.test)
                words = (" ".join(ast.unparse(x).split())[:160] if x else "" for x in (before, after))
                yield Mutant(room, number, line, place, kind, *words, code), "\n".join([*plain[:i], made, *plain[i + 1:]])
                number += 1


def drawn(rooms: list[str], sample: int | None, seed: int, root: Path = ROOT) -> list[tuple[Mutant, str]]:
    "A sample of the mutants of some rooms; a larger one of the same seed holds it."
    every = [pair for room in rooms for pair in all_mutants(room, (root / ROOMS[room][0]).read_text(encoding="utf-8"))]
    random.Random(seed).shuffle(every)
    return every[:sample]


# ---------------------------------------------------------------- trying them

class Server:
    "A process in a copy of the tree that has loaded what tests need, and forks for each run."
    def __init__(self, room: str, tree: Path):
        self.module, self.tests, self.tree = tree / ROOMS[room][0], ROOMS[room][1], tree
        self.whole, self.limit = self.module.read_text(encoding="utf-8"), 600.0
        os.chdir(tree)
        os.environ["PYTHONPATH"] = os.pathsep.join([str(tree), str(tree / "tests")])
        sys.path[:0] = [str(tree), str(tree / "tests")]
        note = tree / "loaded.json"
        self.check_whole(note)                                # writes .pyc files, and notes what was loaded
        self.load(json.loads(note.read_text()))
        begin = time.monotonic()
        self.check_whole()
        self.seconds = time.monotonic() - begin
        self.limit = grace + 5 * self.seconds

    def check_whole(self, note: Path | None = None):
        said = self.run(note)
        if said != "survived": raise SystemExit(f"the tests of {self.module.stem} do not pass unchanged: {said}\n" + (self.tree / "said.txt").read_text()[-3000:])

    def load(self, names: list[str]):
        "Libraries, and of ours what the room itself stands on: never the room, or what imports it."
        below, todo = set(), [self.module]
        while todo:
            path = todo.pop()
            package = path.relative_to(self.tree).parts[:-1]
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ImportFrom) and node.level:
                    parts = [*package[:len(package) - node.level + 1], *(node.module or "").split(".")]
                    file = self.tree.joinpath(*parts).with_suffix(".py")
                    if file.exists() and file not in below:
                        below.add(file)
                        todo.append(file)
        for name in names + [".".join(p.relative_to(self.tree).with_suffix("").parts) for p in sorted(below)]:
            try: importlib.import_module(name)
            except BaseException: pass                        # what cannot be loaded alone is loaded by who needs it

    def run(self, note: Path | None = None) -> str:
        "killed, survived or timeout: the tests of the room, as its module now is."
        number = os.fork()
        if not number: self.child(note)
        end, status = time.monotonic() + self.limit, 0
        while not (done := os.waitpid(number, os.WNOHANG))[0] and time.monotonic() < end: time.sleep(0.02)
        try: os.killpg(number, signal.SIGKILL)                # it, or what it left
        except OSError: pass
        if not done[0]:
            os.waitpid(number, 0)
            return "timeout"
        status = os.waitstatus_to_exitcode(done[1])
        return {0: "survived", 5: "no test", -signal.SIGXCPU: "timeout"}.get(status, "killed")

    def child(self, note: Path | None):
        os.setsid()
        said = os.open(self.tree / "said.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for handle in (1, 2): os.dup2(said, handle)
        resource.setrlimit(resource.RLIMIT_CPU, (int(self.limit), int(self.limit) + 5))
        code = 1
        try:
            import pytest
            sys.dont_write_bytecode = note is None
            before = {*sys.modules}
            code = int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", "-n", "0", "-m", "not slow", "--basetemp", str(self.tree / "tmp"), *self.tests]))
            if note:
                loaded = [n for n, m in sys.modules.items() if n not in before and not str(getattr(m, "__file__", "")).startswith(str(self.tree))]
                note.write_text(json.dumps(loaded))
        finally:
            sys.stdout.flush()
            os._exit(code)

    def judge(self, text: str) -> str:
        "Put a mutant in place of the module and run."
        for old in self.module.parent.glob(f"__pycache__/{self.module.stem}.*.pyc"): old.unlink()
        self.module.write_text(text, encoding="utf-8")
        try: return self.run()
        finally: self.module.write_text(self.whole, encoding="utf-8")


def copy_tree(to: Path, root: Path = ROOT) -> Path:
    left_out = shutil.ignore_patterns(".git", ".venv", ".selmatch", "build", "__pycache__", "*.egg-info", "figures", ".pytest_cache", ".hypothesis", "shared")
    shutil.copytree(root, to, ignore=left_out, symlinks=True)
    return to


def try_room(room: str, mutants: list[tuple[Mutant, str]], out: Path, root: Path = ROOT):
    "Try mutants of one room in a copy of the tree, and keep each outcome as soon as it is known. In a process of its own."
    with tempfile.TemporaryDirectory(prefix="mutants-", ignore_cleanup_errors=True) as place:
        os.environ["SELMATCH_HOME"] = f"{place}/home"
        server = Server(room, copy_tree(Path(place) / "tree", root))
        print(f"{room}: {len(mutants)} mutants, {server.seconds:.1f} s for its tests unchanged", flush=True)
        for mutant, text in mutants:
            begin = time.monotonic()
            outcome = server.judge(text)
            rows = [*read_rows(out), asdict(mutant) | {"outcome": outcome, "seconds": f"{time.monotonic() - begin:.1f}"}]
            write_rows(out, rows)
            if outcome != "killed": print(f"{outcome}: {room} line {mutant.line}, {mutant.place}: {mutant.before}  ->  {mutant.after or '(dropped)'}", flush=True)


def try_all(mutants: list[tuple[Mutant, str]], out: Path, root: Path = ROOT):
    "Those that were not tried, room by room, each room in a process of its own."
    tried = {identify(row) for row in read_rows(out)}
    for room in ROOMS:
        mine = [pair for pair in mutants if pair[0].room == room and identify(asdict(pair[0])) not in tried]
        if not mine: continue
        sys.stdout.flush()
        number = os.fork()
        if not number:
            code = 1
            try:
                try_room(room, mine, out, root)
                code = 0
            except SystemExit as error:
                print(error, flush=True)
            finally:
                sys.stdout.flush()
                os._exit(code)
        if os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]): raise SystemExit(f"{room} was not finished")


# ---------------------------------------------------------------- the table

COLUMNS = [f.name for f in fields(Mutant)] + ["outcome", "seconds"]


def identify(row: dict) -> tuple:
    return tuple(str(row[name]) for name in ("room", "number", "code"))


def read_rows(out: Path) -> list[dict]:
    return list(csv.DictReader(io.StringIO(out.read_text(encoding="utf-8")))) if out.exists() else []


def write_rows(out: Path, rows: list[dict]):
    from selmatch.core import write_atomic       # here, for it is to be that of the copy
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    write_atomic(out, lambda draft: draft.write_text(text.getvalue(), encoding="utf-8"))


def named_survivors(file: Path = NAMED) -> dict[tuple, str]:
    "(room, function, before, after) -> why no test can kill it."
    return {tuple(row[name] for name in ("room", "place", "before", "after")): row["why"] for row in read_rows(file)}


def report(rows: list[dict], named: dict[tuple, str]) -> str:
    lines, survivors = [], [row for row in rows if row["outcome"] == "survived"]
    for room in [*ROOMS, "all"]:
        mine = [row["outcome"] for row in rows if room in (row["room"], "all")]
        if mine: lines.append(f"{room:10s} {len(mine):5d} tried  {mine.count('killed'):5d} killed  {mine.count('timeout'):3d} timeouts  {mine.count('survived'):4d} survived  "
                              f"{100 * (len(mine) - mine.count('survived')) / len(mine):5.1f} %")
    for row in survivors:
        why = named.get(tuple(row[name] for name in ("room", "place", "before", "after")), "NOT NAMED")
        lines.append(f"{row['room']} line {row['line']} {row['place']}: {row['before']}  ->  {row['after'] or '(dropped)'}   {why}")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rooms", nargs="*", choices=list(ROOMS), default=list(ROOMS))
    parser.add_argument("--sample", type=int, help="so many mutants of these rooms together; default: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("mutants.csv"), help="outcomes so far; it goes on from there")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--report", action="store_true")
    words = parser.parse_args()
    mutants, out = drawn(words.rooms, words.sample, words.seed), words.out.resolve()
    if words.list:
        for mutant, _ in sorted(mutants, key=lambda pair: (pair[0].room, pair[0].number)):
            print(f"{mutant.room} {mutant.number} line {mutant.line} {mutant.place} [{mutant.kind}]: {mutant.before}  ->  {mutant.after or '(dropped)'}")
        return
    if not words.report: try_all(mutants, out)
    asked = {identify(asdict(mutant)) for mutant, _ in mutants}
    print(report([row for row in read_rows(out) if identify(row) in asked], named_survivors()))


if __name__ == "__main__":
    main()
