"""The store by hand: what a key is made of, what is kept, and how a plan is made (scripts/mutants.py asks for every line)."""
import ast
import json
import os
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from selmatch.computer import Computer, claim
from selmatch.core import DamagedFile, load_tensors, save_tensors
from selmatch.select import coverage, window
from selmatch.study import store
from selmatch.study.store import Plan, Store

QUIET = Computer(quiet=True)

# ---------------------------------------------------------------- what a key is made of

def same_code(one, two):
    return ast.dump(store.drop_docstrings(ast.parse(one))) == ast.dump(store.drop_docstrings(ast.parse(two)))


def test_docstrings_are_no_code_and_all_else_is():
    assert same_code('"a"\ndef f():\n    "b"\n    return 1', '"x"\ndef f():\n    "yy"\n    return 1')
    assert same_code('class A:\n    "b"', 'class A:\n    "c"')
    assert same_code('class A:\n    "b"', "class A:\n    pass")
    assert not same_code("def f():\n    g()\n    return 1", "def f():\n    return 1"), "a call is no docstring"
    assert not same_code("def f():\n    x = 1\n    'a'", "def f():\n    x = 2\n    'a'")
    assert not same_code("f = lambda: 1", "f = lambda: 2")
    ast.unparse(store.drop_docstrings(ast.parse('def f():\n    "only"')))


@pytest.fixture
def package(tmp_path):
    """A package of five modules, of which `top` reaches all but `alone`."""
    folder = tmp_path / "selmatch"
    (folder / "data").mkdir(parents=True)
    texts = {"top.py": "import os\nfrom .core import x\nfrom selmatch.data import images\nfrom os import path\n", "core.py": "from . import base\n", "base.py": "y = 1\n",
             "data/images.py": "from ..base import y\nfrom .lower import z\n", "data/lower.py": "from .. import base\n", "alone.py": "from .top import x\n", "computer.py": "from . import alone\n"}
    for name, text in texts.items(): (folder / name).write_text(text)
    return folder


def test_imports_of_a_module(package):
    assert store.imported_modules("top", package) == {"core", "data.images"}
    assert store.imported_modules("core", package) == {"base"}
    assert store.imported_modules("data.images", package) == {"base", "data.lower"}
    assert store.imported_modules("data.lower", package) == {"base"}
    assert store.imported_modules("base", package) == set()
    assert store.module_file("data.images", package) == package / "data" / "images.py" and store.module_file("data.none", package) is None
    (package / "wide.py").write_text("from selmatch import core\nfrom numpy import core\nfrom selmatch.data.images import y")
    assert store.imported_modules("wide", package) == {"core", "data.images"}
    (package / "foreign.py").write_text("from numpy import core\nfrom scipy.data import images\nimport selmatch.core")
    assert store.imported_modules("foreign", package) == set(), "another library's names are not ours"


def test_the_closure_of_imports(package):
    assert store.import_closure("top", folder=package) == ["base", "core", "data.images", "data.lower", "top"]
    assert store.import_closure("core", "alone", folder=package)[:2] == ["alone", "base"]
    assert store.import_closure("computer", folder=package) == [], "without effect"
    (package / "core.py").write_text("from .top import x\n")
    assert "core" in store.import_closure("top", folder=package), "a circle ends"


def test_a_key_is_that_of_the_closure_and_of_the_libraries(package, monkeypatch):
    key = lambda *names: store.code_key.__wrapped__(*names, folder=package)
    before = key("top")
    (package / "alone.py").write_text("x = 2\n")
    assert key("top") == before and len(before) == 16
    (package / "data" / "lower.py").write_text('"words"\nfrom .. import base\n')
    assert key("top") == before
    (package / "data" / "lower.py").write_text("from .. import base\nz = 3\n")
    assert key("top") != before
    before = key("top")
    assert key("top", "alone") != before
    for library in ("torch", "scikit-learn", "scipy"):
        with monkeypatch.context() as patch:
            patch.setattr(store, "minor_version", lambda name: "0.0" if name == library else "1.0")
            one = key("top")
            patch.setattr(store, "minor_version", lambda name: "1.0")
            assert key("top") != one, library


def test_a_minor_version(monkeypatch):
    for whole, minor in {"2.14.1+cpu": "2.14", "2.14": "2.14", "3.0.0.dev1": "3.0"}.items():
        monkeypatch.setattr(store, "version", lambda name: whole)
        assert store.minor_version("torch") == minor


def test_the_code_of_things():
    def one(x): return x + 1
    def two(x): return x + 2
    def told():
        def one(x):
            "With words."
            return x + 1
        return one
    assert store.own_code(one) != store.own_code(two) and len(store.own_code(one)) == 16
    assert store.own_code(one) == store.own_code(told()), "words are no code"
    names = {}
    for name in ("f", "g"): exec(f"def {name}(): pass", names)            # typed where no source is kept
    for name in ("f", "g"): names[name].__module__ = "typed"
    assert store.own_code(names["f"]) != store.own_code(names["g"])
    assert store.code_of(window.window_start) == store.code_key("select.window") != store.code_of(coverage.radius)
    assert store.code_of(one) != store.code_of(two) and store.code_of(one) == store.code_of(one)
    names["f"].__module__ = None
    assert store.code_of(names["f"]) != store.code_of(names["g"])


def test_the_code_of_a_rule_is_also_what_it_calls_and_holds(tmp_path):
    """A helper that changes, a value around it, an attribute, a base class: yesterday's result must not be served."""
    def key(body, name="rule"):
        path = tmp_path / f"mine{len(list(tmp_path.iterdir()))}.py"
        path.write_text(body)
        names = {"__name__": "mine"}
        exec(compile(body, str(path), "exec"), names)
        import linecache
        linecache.checkcache()
        return store.code_of(names[name])
    plain = "import torch\nimport numpy as np\n\ndef level(): return torch.zeros(1) + np.ones(1) + {}\n\ndef rule(x): return [level() for _ in x]\n"
    assert key(plain.format(0)) == key(plain.format(0)) != key(plain.format(100))
    around = "def make(n):\n    def rule(x): return x * n\n    return rule\n\nrule = make({})\n"
    assert key(around.format(0)) == key(around.format(0)) != key(around.format(5))
    whole = "import functools\n\ndef base(x, n): return n\n\nrule = functools.partial(base, n={})\n"
    assert key(whole.format(0)) == key(whole.format(0)) != key(whole.format(5))
    held = "class Rule:\n    def __init__(self, n): self.n, self.calls = n, 0\n    def __call__(self, x):\n        self.calls += 1\n        return self.n\n\nrule = Rule({})\n"
    assert key(held.format(0)) == key(held.format(0)) != key(held.format(5))
    below = "class Base:\n    def loss(self): return {}\n\nclass rule(Base): pass\n"
    assert key(below.format(0)) == key(below.format(0)) != key(below.format(5))
    counted = "calls = {}\n\ndef rule(x):\n    global calls\n    calls += 1\n    return x\n"
    assert key(counted.format(0)) == key(counted.format(7)), "what it writes itself is no input"


# ---------------------------------------------------------------- what is kept

@pytest.mark.parametrize("value", [None, True, 3, 2.5, "text", [1, [2, "a"]], {"a": 1, 7: [True]}, {}, [], {"tensor": "no tensor"}, {"dict": [[1, 2]]}, {2.5: {"a": {}}}])
def test_plain_values_come_back(value):
    packed = store.pack(value, tensors := {})
    assert json.loads(json.dumps(packed)) == packed and tensors == {}
    assert store.unpack(packed, {}) == value


def test_tensors_tuples_and_numbers_of_numpy():
    tensors = {}
    packed = store.pack({"x": torch.arange(3), "y": (torch.ones(2), [torch.zeros(1)]), np.int64(4): np.float64(0.5)}, tensors)
    assert list(tensors) == ["0", "1", "2"] and json.dumps(packed)
    back = store.unpack(packed, tensors)
    assert back["x"].tolist() == [0, 1, 2] and back["y"][0].tolist() == [1, 1] and back["y"][1][0].tolist() == [0] and back[4] == 0.5 and type(back[4]) is float


@pytest.mark.parametrize("value", [{1, 2}, object(), b"x", {(1, 2): 3}, {None: 1}, [{"a": {3}}], 1j])
def test_what_no_result_may_hold(value):
    with pytest.raises(TypeError, match="a result may hold"): store.pack(value, {})


def test_a_result_says_who_made_it(tmp_path, monkeypatch):
    kept = Store(tmp_path)
    kept.save("ab12", {"n": 3}, "judge", "a cluster")
    by = load_tensors(kept.file("ab12"))[1]["by"]
    assert by["label"] == "judge" and by["processor"] == "a cluster" and {"selmatch", "torch"} <= set(by)
    kept.save("ab12", {"n": 3})
    by = load_tensors(kept.file("ab12"))[1]["by"]
    assert by["label"] == "" and by["processor"] == store.name_processor() and torch.backends.cpu.get_cpu_capability() in by["processor"] and " " in by["processor"]
    assert kept.file("ab12") == tmp_path / "results" / "ab" / "ab12.safetensors"


def test_a_result_is_there_or_not(tmp_path, monkeypatch):
    kept, asked = Store(tmp_path), []
    assert kept.has("ab12") is False and kept.find("ab12") is None
    kept.save("ab12", {"n": 3})
    theirs = store.load_tensors
    monkeypatch.setattr(store, "load_tensors", lambda *given, **words: asked.append(words) or theirs(*given, **words))
    assert kept.has("ab12") and kept.has("ab12") and len(asked) == 1, "compared once in this state"
    assert asked == [{"sealed": True}] and kept.find("ab12") == ({"n": 3},)
    kept.save("none", None)
    assert kept.has("none") and kept.find("none") == (None,)
    file = kept.file("ab12")
    state = file.stat()
    content = file.read_bytes()
    file.write_bytes(content[:-1] + b"!")
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    with pytest.warns(UserWarning, match="ab12.safetensors.bad"): assert not kept.has("ab12")
    assert not file.exists() and not kept.has("ab12")
    file.write_bytes(content + b"more")
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
    with pytest.warns(UserWarning, match="ab12.safetensors.bad"): assert not kept.has("ab12"), "of another size"


def test_a_result_that_was_set_aside_by_another_is_not_set_aside_twice(tmp_path, monkeypatch):
    kept = Store(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert kept.find("ab12") is None
    with pytest.raises(DamagedFile): kept.load("ab12")
    kept.file("ab12").parent.mkdir(parents=True)
    save_tensors(kept.file("ab12"), {}, {"no": "result"})
    with pytest.raises(DamagedFile, match="its card holds no result"): kept.load("ab12")


# ---------------------------------------------------------------- plans

def counted(log):
    def work(item):
        log.append(item)
        return {"twice": 2 * item}
    return work


def test_a_plan_is_made_once_and_in_order(tmp_path):
    log, kept = [], Store(tmp_path)
    plan = Plan("double", counted(log), [3, 1, 3, 2], ["k3", "k1", "k3", "k2"])
    assert len(plan) == 4 and kept.left(plan) == 3 and kept.missing(plan) == [("k3", 3), ("k1", 1), ("k2", 2)]
    assert kept.run(plan, QUIET) == [{"twice": 6}, {"twice": 2}, {"twice": 6}, {"twice": 4}]
    assert sorted(log) == [1, 2, 3] and kept.left(plan) == 0
    assert kept.run(plan, QUIET)[0] == {"twice": 6} and len(log) == 3
    assert load_tensors(kept.file("k1"))[1]["by"]["label"] == "double"
    more = Plan("double", counted(log), [1, 5], ["k1", "k5"])
    assert kept.left(more) == 1 and kept.run(more, QUIET) == [{"twice": 2}, {"twice": 10}] and log[3:] == [5]
    assert kept.run(Plan("none", None, [], []), QUIET) == []


def test_a_plan_with_files_of_its_own(tmp_path):
    log, kept = [], Store(tmp_path / "home")
    def make(item):
        log.append(item)
        (tmp_path / item).write_text("there")
    plan = Plan("own", make, ["a", "b"], [str(tmp_path / x) for x in "ab"], lambda item: (tmp_path / item).exists())
    (tmp_path / "b").write_text("there")
    assert kept.left(plan) == 1
    assert kept.run(plan, QUIET) == ["a", "b"] and log == ["a"] and not list((tmp_path / "home").rglob("*.safetensors"))
    assert not list(tmp_path.rglob("*.lock"))


def hold(kept, plan, key, seconds, then=lambda: None):
    """A thread that has the right to make one thing for a while; returns it when it has it."""
    inside = threading.Event()
    def keep():
        with kept.claim(plan, key, True) as ours:
            assert ours
            inside.set()
            time.sleep(seconds)
            then()
    thread = threading.Thread(target=keep)
    thread.start()
    assert inside.wait(10)
    return thread


def test_what_somebody_else_is_at_is_waited_for_and_not_made_twice(tmp_path):
    log, kept = [], Store(tmp_path)
    plan = Plan("double", counted(log), [1, 2], ["k1", "k2"])
    other = hold(kept, plan, "k1", 1.0, lambda: log.append("k1 is free") or kept.save("k1", {"twice": 2}))
    assert store.settle_task(kept, plan, False, ("k1", 1)) is False and log == [], "not waited for"
    assert kept.run(plan, QUIET) == [{"twice": 2}, {"twice": 4}] and log == [2, "k1 is free"], "first what nobody is at"
    other.join()
    assert store.settle_task(kept, plan, False, ("k2", 2)) is True and log[2:] == []


def test_what_somebody_else_gave_up_is_made(tmp_path):
    log, kept = [], Store(tmp_path)
    plan = Plan("double", counted(log), [1], ["k1"])
    other = hold(kept, plan, "k1", 0.4)
    assert kept.run(plan, QUIET) == [{"twice": 2}] and log == [1]
    other.join()


def test_the_right_to_a_thing_of_its_own_is_for_its_place(tmp_path):
    kept, own = Store(tmp_path / "home"), Plan("own", None, ["a"], [str(tmp_path / "a")], lambda item: False)
    with claim(tmp_path / "a"):
        with kept.claim(own, str(tmp_path / "a"), False) as ours: assert not ours
    with claim(kept.file("k1")):
        with kept.claim(Plan("x", None, [], []), "k1", False) as ours: assert not ours
        with kept.claim(Plan("x", None, [], []), "k2", False) as ours: assert ours


def test_elsewhere_results_come_back_and_are_kept_here(tmp_path, monkeypatch):
    calls, kept, log = [], Store(tmp_path), []
    def there(task, items, label, computer, keep):
        calls.append((label, list(items), keep is None))
        made = [task(item) for item in items]
        for i in reversed(range(len(made))):
            if keep: keep(i, made[i])
        return made
    monkeypatch.setattr(store, "run_all", there)
    cluster = Computer(quiet=True, cluster=lambda *given: None)
    plan = Plan("double", counted(log), [1, 2], ["k1", "k2"])
    assert kept.run(plan, cluster) == [{"twice": 2}, {"twice": 4}]
    assert load_tensors(kept.file("k2"))[1]["by"] | {"label": "double", "processor": "a cluster"} == load_tensors(kept.file("k2"))[1]["by"]
    own = Plan("own", lambda item: (tmp_path / item).mkdir(), ["a"], [str(tmp_path / "a")], lambda item: (tmp_path / item).exists())
    assert kept.run(own, cluster) == ["a"]
    assert calls == [("double", [1, 2], False), ("own", ["a"], True)]
    assert kept.run(plan, cluster) and len(calls) == 2, "nothing is missing: nobody is called"


def test_a_worker_is_handed_its_own_item_only(tmp_path, monkeypatch):
    handed, theirs = [], store.run_all
    monkeypatch.setattr(store, "run_all", lambda make, items, label, computer: handed.append(make) or theirs(make, items, label, computer))
    Store(tmp_path).run(Plan("double", counted([]), [1, 2], ["k1", "k2"]), QUIET)
    assert [make.args[1].items for make in handed] == [make.args[1].keys for make in handed] == [()], "and what is made is not asked for again"


def test_what_another_process_has_swept_is_gone(tmp_path, monkeypatch):
    (tmp_path / "stays").write_text("x")
    monkeypatch.setattr(store, "find_leftovers", lambda folder: [folder / "was here", folder / "was there"])
    store.sweep_once.__wrapped__(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["stays"]


def test_leftovers_are_those_of_finished_things(tmp_path):
    for name in ("sets/a-000000000000000a/checkpoint.safetensors", "sets/a-000000000000000a/history.csv", "sets/b-000000000000000b/checkpoint.safetensors", "experts/000000000000000c/e0.draft.safetensors", "experts/000000000000000c/e0.safetensors", "experts/000000000000000c/e1.draft.safetensors"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    found = {str(p.relative_to(tmp_path)) for p in store.find_leftovers(tmp_path)}
    assert found == {"sets/a-000000000000000a/checkpoint.safetensors", "experts/000000000000000c/e0.draft.safetensors"}
    draft = tmp_path / "results" / f".x.{'0' * 8}-1-{'0' * 16}.tmp"
    draft.mkdir(parents=True)
    os.utime(draft, (1, 1))
    store.sweep_once.cache_clear()
    Store(tmp_path).run(Plan("none", None, [], []), QUIET)
    assert not any((tmp_path / name).exists() for name in found) and not draft.exists()
    assert (tmp_path / "sets/b-000000000000000b/checkpoint.safetensors").exists() and (tmp_path / "experts/000000000000000c/e1.draft.safetensors").exists()
    (tmp_path / "sets/a-000000000000000a/checkpoint.safetensors").write_text("x")
    Store(tmp_path).run(Plan("none", None, [], []), QUIET)
    assert (tmp_path / "sets/a-000000000000000a/checkpoint.safetensors").exists(), "once in a process"


def test_what_a_plan_asks_for_is_noted(tmp_path, monkeypatch):
    noted, kept = [], Store(tmp_path)
    monkeypatch.setattr(store, "note_use", noted.append)
    kept.save("k1", 1)
    kept.run(Plan("x", None, [1], ["k1"]), QUIET)
    assert noted == [kept.file("k1")]
    (tmp_path / "set").mkdir()
    (tmp_path / "expert").write_text("x")
    noted.clear()
    kept.run(Plan("own", None, [1, 2], [str(tmp_path / "set"), str(tmp_path / "expert")], lambda item: True), QUIET)
    assert noted == [tmp_path / "set" / "history.csv", tmp_path / "set" / "seconds.json", tmp_path / "expert"]


def test_a_plan_by_default_runs_here(tmp_path, capsys):
    assert Store(tmp_path).run(Plan("double", lambda x: x, [1], ["k1"])) == [1]
    assert store.run_plan(Store(tmp_path), Plan("double", lambda x: x, [1], ["k1"])) == [1]
    assert Path(tmp_path / "results" / "k1" / "k1.safetensors").exists()
