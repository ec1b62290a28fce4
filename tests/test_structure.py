"""The house: rooms in order, sync, anatomy, packaging."""
import ast
import configparser
import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from statistics import median

import pytest
import yaml

from conftest import FIGURES, LIBRARY, NOTEBOOKS, ROOT

PACKAGE = ROOT / "selmatch"
GENERATED = ("__init__", "__main__", "_modidx")
WIDTH = 100


def cells(path):
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def source(cell):
    return "".join(cell["source"])


def code_of(path):
    """The code cells of a notebook, as text."""
    return [source(cell) for cell in cells(path) if cell["cell_type"] == "code"]


def parsed(text):
    """The tree of a cell, without its magics."""
    return ast.parse(re.sub(r"^\s*[%!].*$", "", text, flags=re.M))


def is_exported(text):
    return text.startswith("#| export")


def module_of(notebook):
    """The module that a notebook exports: `data.images`."""
    named = re.search(r"^#\| default_exp (\S+)$", "\n".join(code_of(notebook)), re.M)
    assert named, f"{notebook.name} names no module"
    return named[1]


# ---------------------------------------------------------------- rooms

ORDER = {module_of(path): path for path in LIBRARY}      # in reading order: a room imports from rooms before it
NUMBER = {name: int(path.name.split("_")[0]) for name, path in ORDER.items()}
LESSONS = [path for path in NOTEBOOKS if path.name[0] in "012347"]
REFERENCE = [path for path in NOTEBOOKS if path.name[0] in "56"]


def modules_of(package):
    """Dotted name below the package -> file, for every module that comes from a notebook."""
    files = [path for path in sorted(package.rglob("*.py")) if path.stem not in GENERATED]
    return {".".join(path.relative_to(package).with_suffix("").parts): path for path in files}


def imports_of(name, path, known):
    """The modules of the package that a module imports, whichever way and at whatever depth."""
    here, found = ["selmatch", *name.split(".")], set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level] if node.level else []
            whole = ".".join([*base, *([node.module] if node.module else [])])
            found |= {whole} | {f"{whole}.{alias.name}" for alias in node.names}
    return sorted({f.removeprefix("selmatch.") for f in found if f.startswith("selmatch.")} & known - {name})


def upward_imports(package):
    """Every import from a room that is not before it, as (who, whom); and how many were looked at."""
    offences, seen, modules = [], 0, modules_of(package)
    for name, path in modules.items():
        for other in imports_of(name, path, set(modules)):
            seen += 1
            if NUMBER[other] >= NUMBER[name]:
                offences.append((name, other))
    return offences, seen


def test_every_module_comes_from_a_live_notebook():
    modules = modules_of(PACKAGE)
    assert set(modules) == set(ORDER)
    for name, path in modules.items():
        text = path.read_text(encoding="utf-8")
        notebook = re.search(r"File to edit: (\S+?\.ipynb)\.?$", text, re.M)
        assert notebook, name
        assert (path.parent / notebook[1]).resolve() == ORDER[name], f"{name} says {notebook[1]}"
        for marked in re.findall(r"^# %% (\S+\.ipynb) #", text, re.M):
            assert (path.parent / marked).resolve() == ORDER[name], f"{name} has a cell of {marked}"


def test_numbers_are_unique():
    twice = [number for number, count in Counter(path.name.split("_")[0] for path in NOTEBOOKS).items() if count > 1]
    assert not twice


def test_a_module_imports_only_from_rooms_before_it():
    offences, seen = upward_imports(PACKAGE)
    assert not offences
    assert seen > 150, f"only {seen} imports were found: the check is blind"


@pytest.mark.parametrize("line", [
    "from ..study.tables import accuracies", "from ..study import tables", "from .. import study\nfrom ..study import tables",
    "from selmatch.study.tables import accuracies", "import selmatch.study.tables", "from selmatch.study import tables",
    "def late():\n    from ..study.tables import accuracies", "class Late:\n    def late(self):\n        from ..study import tables",
    "if False:\n    import selmatch.study.tables as t",
])
def test_an_upward_import_is_seen(line, tmp_path):
    shutil.copytree(PACKAGE, tmp_path / "selmatch", ignore=shutil.ignore_patterns("__pycache__"))
    before = upward_imports(tmp_path / "selmatch")[0]
    with open(tmp_path / "selmatch" / "train" / "networks.py", "a", encoding="utf-8") as file:
        file.write(f"\n{line}\n")
    assert upward_imports(tmp_path / "selmatch")[0] == sorted([*before, ("train.networks", "study.tables")], key=lambda pair: list(modules_of(PACKAGE)).index(pair[0]))


@pytest.mark.parametrize("line", ["from . import loop", "from .loop import distill", "def late():\n    from . import loop"])
def test_an_upward_import_within_a_package_is_seen(line, tmp_path):
    shutil.copytree(PACKAGE, tmp_path / "selmatch", ignore=shutil.ignore_patterns("__pycache__"))
    before = upward_imports(tmp_path / "selmatch")[0]
    with open(tmp_path / "selmatch" / "distill" / "sweep.py", "a", encoding="utf-8") as file:
        file.write(f"\n{line}\n")
    assert set(upward_imports(tmp_path / "selmatch")[0]) - set(before) == {("distill.sweep", "distill.loop")}


def test_imports_are_read_across_packages(tmp_path):
    known = {"core", "data.images", "data.loaders", "train.training", "distill.kernels"}
    def read(name, text):
        (tmp_path / "x.py").write_text(text)
        return imports_of(name, tmp_path / "x.py", known)
    assert read("data.loaders", "from ..core import home\nfrom .images import ImageSet") == ["core", "data.images"]
    assert read("data.images", "from ..train.training import train\nfrom ..train import training") == ["train.training"]
    assert read("data.images", "from . import loaders") == ["data.loaders"]
    assert read("train.training", "from ..distill import kernels, sweep") == ["distill.kernels"]
    assert read("core", "from .data import loaders\nimport os, math") == ["data.loaders"]
    assert read("core", "from data import images") == []


# ---------------------------------------------------------------- what an import costs

HEAVY = ["torch", "pandas", "sklearn"]


def loaded_by(code, *names):
    """Which of `names` stand among the modules of a fresh process after this code, however it ends."""
    ask = f"""import atexit, sys
def tell():
    print("\\nLOADED", *[name for name in {list(names)!r} if name in sys.modules])
atexit.register(tell)
{code}"""
    done = subprocess.run([sys.executable, "-c", ask], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.rsplit("LOADED", 1)[1].split()


def test_what_is_loaded_is_seen():
    assert loaded_by("import selmatch.core", "selmatch", "json", "torch") == ["selmatch", "json"]
    assert loaded_by("import torch", *HEAVY)[:1] == ["torch"]


@pytest.mark.parametrize("module", ["selmatch", "selmatch.core", "selmatch.methods", "selmatch.study.profile", "selmatch.show.figures", "selmatch.app"])
def test_an_import_is_light(module):
    assert loaded_by(f"import {module}", *HEAVY) == []


@pytest.mark.parametrize("words", [["--help"], ["methods"], ["profiles"], ["distill", "--help"]])
def test_the_command_helps_without_loading_torch(words):
    code = f"import runpy\nsys.argv = ['selmatch', *{words}]\nrunpy.run_module('selmatch', run_name='__main__', alter_sys=True)"
    assert loaded_by(code, *HEAVY) == []


def test_importing_needs_no_notebook_tools():
    assert loaded_by("import selmatch.app", "nbdev", "papermill", "dask", "IPython", "nbconvert") == []


# ---------------------------------------------------------------- sync

def test_notebooks_are_clean_and_exported(tmp_path):
    copy = tmp_path / "project"
    left_out = shutil.ignore_patterns(".git", ".venv", ".selmatch", "figures.*", ".pytest_cache", "__pycache__", ".ipynb_checkpoints", "data")
    shutil.copytree(ROOT, copy, ignore=lambda folder, names: left_out(folder, names) - ({"data"} if "selmatch" in folder else set()))
    def run(module, command):
        code = f"from nbdev.{module} import {command}; {command}()"
        subprocess.run([sys.executable, "-c", code], cwd=copy, check=True, capture_output=True, text=True)
    run("clean", "nbdev_clean")
    unclean = [path.name for path in [*NOTEBOOKS, *FIGURES] if (copy / path.relative_to(ROOT)).read_text() != path.read_text()]
    run("doclinks", "nbdev_export")
    files = {p.relative_to(PACKAGE) for p in PACKAGE.rglob("*.py")}
    assert files == {p.relative_to(copy / "selmatch") for p in (copy / "selmatch").rglob("*.py")}
    stale = [str(file) for file in sorted(files) if (copy / "selmatch" / file).read_text() != (PACKAGE / file).read_text()]
    assert not stale, "not what its notebook exports: make sync"
    assert not unclean, "not clean: make sync"


# ---------------------------------------------------------------- lines and statements

def crowded(text):
    """Lines of a program on which a statement begins behind something else: `a; b`, `if x: y`."""
    lines, found = text.splitlines(), []
    for node in ast.walk(parsed(text)):
        for part in ("body", "orelse", "finalbody"):
            body = getattr(node, part, None)
            if not isinstance(body, list):      # of a lambda, of `a if b else c`
                continue
            if isinstance(node, ast.ClassDef) and len(body) == 1:      # a class that is only its docstring
                continue
            for statement in body:
                line = lines[statement.lineno - 1]
                if line.encode()[: statement.col_offset].strip():
                    found.append(line.strip())
    return found


@pytest.mark.parametrize("text", ["a = 1; b = 2", "if x: y = 1", "if x:\n    y = 1\nelse: y = 2", "for x in y: z(x)", "while x: y()", "with x: y()",
                                  "try: x()\nexcept E:\n    y()", "try:\n    x()\nexcept E: y()", "try:\n    x()\nfinally: y()", "def f(x): return x",
                                  "def f(x,\n      y): return x", "x = \"\"\"a\nb\"\"\"; y = 1", "class A:\n    def f(self): return 1",
                                  "match x:\n    case 1: y()", "%matplotlib inline\nif x: y = 1"])
def test_a_crowded_line_is_seen(text):
    assert len(crowded(text)) == 1


@pytest.mark.parametrize("text", ["a = 1", "plot();", "f = lambda x: x", "x = [y for y in z if y]", "if x:\n    y()\nelif z:\n    w()\nelse:\n    v()",
                                  "class E(Exception): \"docstring\"", "@wrap\ndef f(x,\n      y):   # why\n    \"docstring\"\n    return x", "x = a if b else c"])
def test_an_airy_line_is_left_alone(text):
    assert not crowded(text)


def texts_of(path):
    """What stands in lines: the program of a module without nbdev's list of names, or the code cells."""
    if path.suffix == ".ipynb":
        return code_of(path)
    text = path.read_text(encoding="utf-8")
    return [re.sub(r"^__all__ = \[.*?\]$", "", text, count=1, flags=re.M | re.S)]


PROGRAMS = [*modules_of(PACKAGE).values(), *NOTEBOOKS, *FIGURES]


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_line_is_too_long(path):
    wide = [line for text in texts_of(path) for line in text.splitlines() if len(line) > WIDTH]
    assert not wide


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: str(path.relative_to(ROOT)))
def test_one_statement_a_line(path):
    assert not [line for text in texts_of(path) for line in crowded(text)]


def classes_of(package):
    """Names of all classes that the package defines."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in modules_of(package).values()]
    return {node.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}


def set_from_outside(text, classes):
    """Lines that hang something on a class after its definition."""
    def is_class(node):
        if isinstance(node, ast.Call):
            return getattr(node.func, "id", None) == "type"
        name = node.id if isinstance(node, ast.Name) else getattr(node, "attr", None)
        return name in classes | {"cls", "__class__"}
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "setattr" and is_class(node.args[0]):
            found.append(ast.unparse(node))
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)] if isinstance(node, (ast.AnnAssign, ast.AugAssign)) else []
        found += [ast.unparse(node) for t in targets if isinstance(t, ast.Attribute) and is_class(t.value)]
        names = [getattr(d, "id", getattr(d, "attr", None)) for d in getattr(node, "decorator_list", [])]
        found += [f"@{name} {node.name}" for name in names if name in ("patch", "patch_to")]
    return found


def test_nothing_is_hung_on_a_class_from_outside():
    classes = classes_of(PACKAGE)
    assert len(classes) > 40
    for name, path in modules_of(PACKAGE).items():
        assert not set_from_outside(path.read_text(encoding="utf-8"), classes), name


@pytest.mark.parametrize("line", ["for f in fs:\n    setattr(Study, f.__name__, f)", "Study.ask = ask", "setattr(type(study), 'ask', ask)",
                                  "setattr(study.Study, 'ask', ask)", "@patch\ndef ask(self: Study):\n    pass"])
def test_hanging_on_a_class_is_seen(line):
    assert len(set_from_outside(line, {"Study"})) == 1
    assert not set_from_outside("setattr(part, name, norm)\nrun.broken = call.broken", {"Study"})


# ---------------------------------------------------------------- anatomy

def defined(path):
    """Names that a notebook exports: functions and classes."""
    found = []
    for text in filter(is_exported, code_of(path)):
        found += [node.name for node in parsed(text).body if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
    return found


def count_checks(path):
    """Assertions and shown failures in the cells that are not exported."""
    n = 0
    for text in code_of(path):
        if is_exported(text) or text.startswith("#| default_exp"):
            continue
        nodes = list(ast.walk(parsed(text)))
        n += sum(isinstance(node, ast.Assert) for node in nodes)
        n += sum(isinstance(node, ast.ExceptHandler) for node in nodes)
        n += sum(isinstance(node, ast.With) and "raises(" in ast.unparse(node.items[0]) for node in nodes)
    return n


def lengths_of(path):
    """Lines of the code cells, shortest first, and the 90th percentile among them."""
    lengths = sorted(len(text.splitlines()) for text in code_of(path))
    return lengths, lengths[-(-len(lengths) * 9 // 10) - 1]


def prose_of(path):
    return "\n".join(source(cell) for cell in cells(path) if cell["cell_type"] == "markdown")


def longest_silence(path):
    """The most code cells in a row without a word."""
    longest = in_a_row = 0
    for cell in cells(path):
        in_a_row = in_a_row + 1 if cell["cell_type"] == "code" else 0
        longest = max(longest, in_a_row)
    return longest


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_begins_as_all_do(path):
    title, code = source(cells(path)[0]).splitlines(), code_of(path)
    assert title[0].startswith("# ")
    assert title[1].startswith("> ")
    if path not in LIBRARY:
        assert not any(is_exported(text) for text in code)
        return
    assert code[0].startswith("#| default_exp ")
    assert is_exported(code[1])
    body = parsed(code[1]).body
    assert all(isinstance(node, (ast.Import, ast.ImportFrom)) for node in body), "the first exported cell is for imports"


@pytest.mark.parametrize("path", LESSONS, ids=lambda p: p.stem)
def test_a_lesson_has_its_parts(path):
    prose = prose_of(path)
    for part in ("## The idea", "## Try it", "<details>", "## Where next", "| symbol |", "otice"):
        assert part in prose, f"{path.name} lacks {part!r}"
    words = len(re.findall(r"\w+", prose))
    assert words >= 400, f"{path.name} explains itself in {words} words"
    assert longest_silence(path) <= 3


@pytest.mark.parametrize("path", LESSONS, ids=lambda p: p.stem)
def test_the_cells_of_a_lesson_are_short(path):
    lengths, p90 = lengths_of(path)
    assert (median(lengths) <= 8, p90 <= 16, lengths[-1] <= 40) == (True, True, True), f"median {median(lengths)}, p90 {p90}, longest {lengths[-1]}"


@pytest.mark.parametrize("path", LESSONS, ids=lambda p: p.stem)
def test_a_lesson_shows_a_picture(path):
    kinds = [kind for cell in cells(path) if cell["cell_type"] == "code" for output in cell["outputs"] for kind in output.get("data", {})]
    assert "image/png" in kinds or "image/svg+xml" in kinds


@pytest.mark.parametrize("path", LESSONS, ids=lambda p: p.stem)
def test_a_lesson_checks_what_it_exports(path):
    checks, names = count_checks(path), defined(path)
    assert checks >= max(1, len(names)), f"{checks} checks for {len(names)} definitions"


@pytest.mark.parametrize("path", REFERENCE, ids=lambda p: p.stem)
def test_a_reference_room_is_in_order(path):
    """`Study` is the one class that may be long: it is the list of what a study can be asked for, each
    answer a line or a handful, and to part it would only mean to look in two places."""
    lengths, _ = lengths_of(path)
    assert median(lengths) <= 16
    long = [text for text in code_of(path) if len(text.splitlines()) > 60 and not re.search(r"^class Study\(", text, re.M)]
    assert not long, [text.splitlines()[:3] for text in long]
    assert count_checks(path) > 0
    assert longest_silence(path) <= 4
    assert "## The idea" in prose_of(path)


@pytest.mark.parametrize("path", LIBRARY, ids=lambda p: p.stem)
def test_every_exported_symbol_is_used_or_checked_and_documented(path):
    everywhere = "\n".join(text for p in [*NOTEBOOKS, *FIGURES] for text in code_of(p))
    for text in filter(is_exported, code_of(path)):
        for node in parsed(text).body:
            if not isinstance(node, (ast.FunctionDef, ast.ClassDef)) or node.name.startswith("_"):
                continue
            if not node.decorator_list:      # a decorator may have entered it in a register
                assert len(re.findall(rf"\b{node.name}\b", everywhere)) > 1, f"{node.name} is never used"
            if len(ast.unparse(node).splitlines()) > 3:
                assert ast.get_docstring(node), f"{path.name}: {node.name} has no docstring"


@pytest.mark.parametrize("path", FIGURES, ids=lambda p: p.stem)
def test_figure_anatomy(path):
    book = cells(path)
    code = [c for c in book if c["cell_type"] == "code"]
    assert "claims" in source(book[0]) or "shows" in source(book[0])
    assert "How to read" in source(book[0])
    assert code[0]["metadata"].get("tags") == ["parameters"]
    assert sum(len(source(c).splitlines()) for c in code) <= 80
    assert all(not c["outputs"] and c["execution_count"] is None for c in code), "figure notebooks are committed without outputs"
    assert "publish(" in "".join(map(source, code))
    assert "assert " in "".join(map(source, code))
    assert not any("#| export" in source(c) for c in code)


def test_every_figure_notebook_is_known_to_the_runner():
    from selmatch.show.figures import figures
    assert {p.stem for p in FIGURES} == set(figures)


# ---------------------------------------------------------------- figures that are committed

def executed():
    """Every executed figure notebook of the repository."""
    return sorted(path for path in (ROOT / "figures").glob("*/*.ipynb"))


def sources_without_parameters(path):
    """Cells of a notebook, without those that papermill put in."""
    return [source(c).rstrip() for c in cells(path) if "injected-parameters" not in c["metadata"].get("tags", [])]


def test_executed_notebooks_have_the_source_of_today():
    mine = executed()
    assert len(mine) >= 20
    old = [str(path.relative_to(ROOT)) for path in mine
           if sources_without_parameters(path) != [text.replace("](../", "](../../nbs/") for text in
                                                   sources_without_parameters(ROOT / "nbs" / "figures" / path.name)]]
    assert not old, "drawn by another notebook than today's: draw them again"


def test_figures_of_a_folder_share_one_profile():
    from selmatch.study.profile import Profile, read_section
    for folder in {path.parent for path in executed()}:
        numbers = lambda words: {float(key) if re.fullmatch(r"[\d.]+", key) else key: value for key, value in words.items()}
        cards = [json.loads(card.read_text(encoding="utf-8"), object_hook=numbers)["profile"] for card in folder.glob("*.json")]
        # With words that came later, at their defaults; what was tuned for one figure only is the next test's.
        profiles = {repr(read_section(card | {"tuned": {}}, Profile)) for card in cards}
        assert len(profiles) == 1, folder.name


def origins():
    sys.path.insert(0, str(ROOT / "scripts"))
    import say_origins
    return say_origins


def test_what_a_folder_shows_was_tuned_alike():
    for folder in {path.parent for path in executed()}:
        cards = [json.loads(card.read_text(encoding="utf-8")) for card in sorted(folder.glob("*.json"))]
        assert set(origins().tell_versions(cards, folder)) == {0}, folder.name


def test_a_word_tuned_for_one_figure_matters_where_another_shows_the_method(tmp_path):
    """What only one of two profiles tunes makes another version where the other figure shows that method, and only there."""
    (tmp_path / "one.csv").write_text("method,score\nMTT,1\n", encoding="utf-8")
    (tmp_path / "two.csv").write_text("method,score\nDM,1\n", encoding="utf-8")
    profile = lambda **tuned: {"matching": {"lr_images": 5.0}, "tuned": {m: {"lr_images": v} for m, v in tuned.items()}}
    def versions(mine, theirs):
        cards = [{"figure": "one", "profile": profile(**mine)}, {"figure": "two", "profile": profile(**theirs)}]
        return origins().tell_versions(cards, tmp_path)
    assert versions({"mtt": 1.0}, {"mtt": 1.0, "dm": 2.0}) == [0, 0]         # figure one shows no DM
    assert versions({"mtt": 1.0, "dm": 2.0}, {"mtt": 1.0}) == [0, 1]         # figure two does
    assert versions({"mtt": 1.0, "dm": 5.0}, {"mtt": 1.0}) == [0, 0]         # by what the profile says anyway
    assert versions({"mtt": 1.0}, {"mtt": 3.0}) == [0, 1]                    # tuned in both, otherwise


@pytest.mark.parametrize("name", ["cifar10-jpeg-lite"])
def test_a_folder_that_was_drawn_piece_by_piece_says_what_drew_what(name):
    page = (ROOT / "figures" / name / "README.md").read_text(encoding="utf-8")
    assert page == origins().describe_folder(ROOT / "figures" / name), f"python scripts/say_origins.py figures/{name}"
    assert "All figures come from one version of the profile" in page


def test_environment_yml_follows_settings_ini():
    settings = configparser.ConfigParser(delimiters=["="])
    settings.read(ROOT / "settings.ini")
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, pip = environment["dependencies"][0], environment["dependencies"][-1]["pip"]
    assert python == f"python>={settings['DEFAULT']['min_python']}"
    assert pip == ["-e .[dev]"]
    figures, docs, dev = (set(settings["DEFAULT"][f"{k}_requirements"].split()) for k in ("figures", "docs", "dev"))
    assert figures | docs <= dev, "what draws figures and builds the site must be part of the development extras"


def test_committed_figures_are_complete_and_say_where_they_come_from():
    folders = sorted(p for p in (ROOT / "figures").iterdir() if list(p.glob("*.json")) and p.name not in ("bench", "structure"))
    assert {"digits", "cifar10-jpeg-lite"} <= {p.name for p in folders}
    for folder in folders:
        cards = sorted(folder.glob("*.json"))
        assert {p.stem for p in cards} == {p.stem for p in folder.glob("*.csv")}
        assert cards, f"{folder} has a gallery of nothing"
        for path in cards:
            card = json.loads(path.read_text(encoding="utf-8"))
            assert card["profile"]["name"] == folder.name
            assert {"versions", "code", "device", "data", "caption"} <= set(card)
            for kind in ("png", "svg", "csv", "ipynb"):
                assert path.with_suffix(f".{kind}").exists(), f"{path.stem}.{kind}"
            assert str(ROOT) not in path.with_suffix(".ipynb").read_text(), "an executed notebook shows a path of this machine"
            assert 'out = \\"/' not in path.with_suffix(".ipynb").read_text(), "an executed notebook says where somebody drew it"


def readme_writer():
    sys.path.insert(0, str(ROOT / "scripts"))
    import write_readme
    return write_readme


PAGES = {name: (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "RESULTS.md", "CLUSTER.md")}


def test_the_numbers_of_the_pages_come_from_files():
    writer = readme_writer()
    assert tuple(PAGES) == writer.PAGES
    for name, text in PAGES.items():
        assert writer.renew(text) == text, f"the blocks of {name} are not what the files say: make readme"
    named = [block for text in PAGES.values() for block in re.findall(r"<!-- begin: ([^>]*?) -->", text)]
    assert sorted(named) == sorted(writer.BLOCKS), "a block is written twice, or by nobody"


@pytest.mark.parametrize("name", PAGES)
def test_no_number_of_a_page_is_typed(name):
    assert readme_writer().stray_numbers(PAGES[name]) == []


@pytest.mark.parametrize("name, block", [("README.md", "table digits"), ("RESULTS.md", "claims digits")])
def test_a_typed_number_would_be_found(name, block):
    writer, text = readme_writer(), PAGES[name]
    planted = re.sub(r"\n## ", "\nSelMatch reaches 99.3 %.\n\n## ", text, count=1)
    assert writer.stray_numbers(planted) == ["99.3"]
    assert writer.stray_numbers("Python 3.11, `1.5`, ## Withdrawn") == []
    begin, end = f"<!-- begin: {block} -->", f"<!-- end: {block} -->"
    inside = text.index(begin) + len(begin)
    forged = text[:inside] + "\n12.3" + text[text.index(end):]
    assert writer.renew(forged) == text


@pytest.mark.parametrize("name", [*PAGES, "nbs/README.md"])
def test_links_and_counts_of_the_pages(name):
    from selmatch.methods import methods
    text, place = (ROOT / name).read_text(encoding="utf-8"), (ROOT / name).parent
    targets = re.findall(r"\]\((?!https?:)([^)#]+)\)", text)
    assert len(targets) > (2 if name == "CLUSTER.md" else 10)
    for target in targets:
        assert (place / target).exists(), f"{name} links to {target}, which does not exist"
    assert set(re.findall(r"(\d+) methods", text)) <= {str(len(methods))}


def test_every_chapter_stands_in_the_reading_order():
    text = (ROOT / "nbs" / "README.md").read_text(encoding="utf-8")
    for folder in ("nbs", "nbs/figures"):
        for path in (ROOT / folder).glob("*.ipynb"):
            assert f"({path.relative_to(ROOT / 'nbs')})" in text, path.name


def test_the_readme_shows_a_picture_first_and_fits_three_screens():
    lines = PAGES["README.md"].splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("!["))
    assert first < 8
    assert len(lines) < 150


def test_claims_of_one_sentence_are_told_together():
    claim = {"verdict": "holds", "gap": 1.234, "half": 0.4, "p_holm": 0.01, "sets": 5}
    same = claim | {"verdict": "the same", "gap": 0.0, "half": None}
    found = readme_writer().gather_claims([claim | {"sentence": "A beats B at 5%."}, same | {"sentence": "A beats B at 10%."}])
    assert list(found) == ["A beats B"]
    said = [readme_writer().say_claim(*look) for look in found["A beats B"]]
    assert said == ["5%: **holds (+1.23 ± 0.40)**", "10%: the same images"]


@pytest.mark.parametrize("name", ["tab1_accuracy", "tab2_ablation", "fig4_alpha", "tab6_variants", "tab1_everything"])
def test_no_distilling_row_of_the_digits_is_a_start(name):
    import pandas as pd
    from selmatch.methods import methods, variants
    file = ROOT / "figures" / "digits" / f"{name}.csv"
    if not file.exists():
        pytest.skip(f"{name} is not drawn yet")
    table = pd.read_csv(file)
    distils = {m.title for m in (methods | variants).values() if m.objective}
    distilled = table[{"tab2_ablation": lambda: table["update"] != "none", "fig4_alpha": lambda: table.alpha > 0}.get(
        name, lambda: table.method.isin(distils))()]
    assert len(distilled)
    assert (distilled.iteration > 0).all()
    assert table.groupby(["method", "ratio"]).set_seed.nunique().min() >= 5


def test_the_picture_of_the_rooms_is_drawn_from_the_same_imports():
    sys.path.insert(0, str(ROOT / "scripts"))
    import draw_rooms
    modules = modules_of(PACKAGE)
    assert draw_rooms.find_modules() == NUMBER
    for name, path in modules.items():
        assert sorted(draw_rooms.read_imports(name, set(modules))) == imports_of(name, path, set(modules)), name
    assert draw_rooms.without_detours({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == {"a": {"b"}, "b": {"c"}, "c": set()}
    assert draw_rooms.find_layers({"show": {"api"}, "api": set()}, ["show", "api"]) == {"show": 1, "api": 0}, "read first, and yet above"
    for kind in ("png", "svg"):
        assert (ROOT / "figures" / "structure" / f"rooms.{kind}").exists()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_no_demonstration_hides_a_function_of_its_chapter(path):
    """In a notebook they share one namespace: `begin = time.time()` broke a command that calls `begin()`."""
    code = [source(c) for c in cells(path) if c["cell_type"] == "code"]
    exported = {n.name for text in code if text.startswith("#| export") for n in ast.parse(text).body if isinstance(n, (ast.FunctionDef, ast.ClassDef))}
    for text in code:
        if text.startswith("#|"):
            continue
        for statement in ast.parse(re.sub(r"(?m)^%.*", "", text)).body:
            names = ({statement.name} if isinstance(statement, (ast.FunctionDef, ast.ClassDef)) else
                     {n.id for n in ast.walk(statement) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)})
            assert not names & exported, f"{names & exported} in: {text.splitlines()[0]}"


# ---------------------------------------------------------------- names

def complaints(path):
    """What pyflakes says of names in a program: (its kind, the name, the line)."""
    from pyflakes import checker, messages
    text = path.read_text(encoding="utf-8")
    kinds = (messages.UndefinedName, messages.UnusedImport, messages.UndefinedLocal, messages.RedefinedWhileUnused)
    found = [m for m in checker.Checker(ast.parse(text), str(path)).messages if isinstance(m, kinds)]
    lines = text.splitlines()
    return [(type(m).__name__, re.split(r" as |\.", str(m.message_args[0]))[-1], lines[m.lineno - 1]) for m in found]


def test_every_name_is_known_and_every_import_used():
    """A script that nobody runs may have lost an import for weeks. What a lesson imports once may be used by its examples alone."""
    wrong = []
    for path in [*sorted((ROOT / "selmatch").rglob("*.py")), *sorted((ROOT / "scripts").glob("*.py")), *sorted((ROOT / "site").glob("*.py"))]:
        home = re.search(r"File to edit: \S*?(\w+\.ipynb)", path.read_text(encoding="utf-8")[:600])
        examples = "\n".join(code_of(ROOT / "nbs" / home[1])) if home else ""
        for kind, name, line in complaints(path):
            is_for_effect = "# noqa" in line or path.name == "methods.py" and line.startswith("    from selmatch")
            if kind == "UnusedImport" and (is_for_effect or len(re.findall(rf"\b{name}\b", examples)) > 1): continue
            if path.name != "_modidx.py": wrong.append(f"{path.relative_to(ROOT)}: {kind} {name}")
    assert not wrong
