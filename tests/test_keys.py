"""What an edit costs: which stored results lie under another key afterwards, and which do not."""
import ast
import shutil

import pytest

from selmatch.methods import load_registers
from selmatch.study.store import code_key, import_closure, module_file, package

# what the rooms of the study pass to `study.key`, told once more: the test below holds them to it
PASSED = {
    "study.study": {("select.scores",), ("select.dynamics",), ("train.judge",), ("select.coverage",), ("distill.experts",),
                    ("distill.experts", "distill.trajectories"), ("distill.trajectories",), ("train.judge", "train.teacher")},
    "study.sets": {("select.coresets", "select.coverage", "select.dynamics", "select.scores"), ("distill.loop",), ("select.curriculum",)},
    "study.tables": {("distill.compiled", "distill.experts", "distill.sweep"), ("select.coverage",)},
}
STAGES = {" + ".join(modules): modules for passed in PASSED.values() for modules in passed} | {"data.whitening": ("data.whitening",)}
OBJECTIVES = load_registers()["objective"]
FOLLOWING = {name for name, kind in OBJECTIVES.items() if {"experts", "flat experts"} & set(kind.needs)}


def family(name):
    """The room that an objective's class is written in: `distill.kernels`."""
    return OBJECTIVES[name].__module__.removeprefix("selmatch.")


def modules_behind(name):
    """Whose closures stand in the key of a set: the loop's, its objective's, and in the names of its experts theirs."""
    experts = {"experts": ("distill.experts",), "flat experts": ("distill.experts", "distill.trajectories")}
    needed = [modules for need, modules in experts.items() if need in OBJECTIVES[name].needs]
    return [("distill.loop",), (family(name),), *needed]


def keys_of(folder):
    """The part of every key that names code: of each stage, and of the sets of each objective."""
    asked = {*STAGES.values(), *(modules for name in OBJECTIVES for modules in modules_behind(name))}
    key = {modules: code_key.__wrapped__(*modules, folder=folder) for modules in asked}      # not remembered: the files change
    stages = {stage: key[modules] for stage, modules in STAGES.items()}
    return stages | {f"set by {name}": tuple(key[modules] for modules in modules_behind(name)) for name in OBJECTIVES}


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    """A copy of the package, and the keys that its code gives."""
    folder = tmp_path_factory.mktemp("copy") / "selmatch"
    shutil.copytree(package, folder, ignore=shutil.ignore_patterns("__pycache__"))
    return folder, keys_of(folder)


@pytest.fixture
def changed_by(copied):
    """What lies under another key when these modules have another text."""
    folder, before = copied
    def edit(*modules, change=lambda text: text + "\nedited = 1\n"):
        files = {module: module_file(module, folder) for module in modules}
        texts = {file: file.read_text(encoding="utf-8") for file in files.values()}
        try:
            for file, text in texts.items():
                assert change(text) != text
                file.write_text(change(text), encoding="utf-8")
            after = keys_of(folder)
        finally:
            for file, text in texts.items():
                file.write_text(text, encoding="utf-8")
        return {name for name in before if after[name] != before[name]}
    return edit


def sets(names):
    return {f"set by {name}" for name in names}


def tuples_of_modules(module):
    """The tuples of module names in a room's source: what it passes to `study.key`."""
    known = {".".join(p.relative_to(package).with_suffix("").parts) for p in package.rglob("*.py")}
    tree = ast.parse(module_file(module, package).read_text(encoding="utf-8"))
    tuples = [node.elts for node in ast.walk(tree) if isinstance(node, ast.Tuple) and node.elts]
    named = [tuple(getattr(part, "value", None) for part in parts) for parts in tuples]
    return {names for names in named if all(isinstance(name, str) and name in known for name in names)}


@pytest.mark.parametrize("module", PASSED)
def test_the_rooms_pass_these_modules(module):
    assert tuples_of_modules(module) == PASSED[module]


def test_every_family_is_here():
    assert {family(name) for name in OBJECTIVES} == {"distill.condensation", "distill.kernels", "distill.rollout", "distill.trajectories"}
    assert {"kip", "frepo"} <= set(OBJECTIVES) - FOLLOWING
    assert {"trajectory", "tesla", "ftd", "datm"} <= FOLLOWING


@pytest.mark.parametrize("module", ["distill.condensation", "distill.kernels", "distill.rollout"])
def test_a_family_of_objectives_discards_its_own_sets_only(module, changed_by):
    assert changed_by(module) == sets(name for name in OBJECTIVES if family(name) == module)


def test_trajectory_matching_discards_what_follows_experts(changed_by):
    """And the flat experts, whose training is written there."""
    flat = {"distill.experts + distill.trajectories", "distill.trajectories"}
    assert changed_by("distill.trajectories") == sets(FOLLOWING) | flat


@pytest.mark.parametrize("modules", [["data.loaders", "data.export"], ["computer"], ["methods", "app", "show.plots", "show.bench"],
                                     ["study.study", "study.sets", "study.tables", "study.store", "study.profile", "study.search", "study.estimate"]])
def test_an_edit_that_changes_no_result_discards_nothing(modules, changed_by):
    assert changed_by(*modules) == set()


@pytest.mark.parametrize("module", ["distill.sweep", "distill.compiled"])
def test_the_sweep_discards_what_follows_experts_and_no_kernel_method(module, changed_by):
    changed = changed_by(module)
    assert sets(FOLLOWING) <= changed
    assert not changed & sets(["kip", "frepo"])
    assert not changed & {"select.scores", "train.judge", "data.whitening", "select.coverage"}


def test_experts_discard_what_follows_them(changed_by):
    changed = changed_by("distill.experts")
    assert sets(FOLLOWING) | {"distill.experts", "distill.experts + distill.trajectories"} <= changed
    assert not changed & sets(set(OBJECTIVES) - FOLLOWING)


@pytest.mark.parametrize("module", ["core", "data.images", "train.networks"])
def test_what_all_stand_on_discards_all_sets(module, changed_by):
    assert sets(OBJECTIVES) <= changed_by(module)


def test_the_loop_discards_all_sets_and_no_expert(changed_by):
    changed = changed_by("distill.loop")
    assert sets(OBJECTIVES) <= changed
    assert not changed & {"distill.experts", "distill.experts + distill.trajectories", "train.judge", "select.scores"}


def test_words_discard_nothing(changed_by):
    assert changed_by("distill.kernels", change=lambda text: text + "\n# a comment\n") == set()
    def reworded(text):
        tree = ast.parse(text)
        first = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and ast.get_docstring(node))
        first.body[0].value.value = "Another docstring."
        return ast.unparse(tree)
    assert changed_by("distill.kernels", change=reworded) == set()


def test_a_closure_follows_imports_at_any_depth(tmp_path):
    texts = {"core": "", "a": "from .core import x", "b": "def late():\n    from . import a", "rooms/c": "from .. import b\nfrom ..computer import run_all",
             "rooms/d": "from .c import y", "computer": "from . import a", "apart": ""}
    for name, text in texts.items():
        file = tmp_path / f"{name}.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    assert import_closure("rooms.d", folder=tmp_path) == ["a", "b", "core", "rooms.c", "rooms.d"]
    assert import_closure("apart", folder=tmp_path) == ["apart"]
