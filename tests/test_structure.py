"""The house: floors, sync, anatomy, packaging."""
import ast
import configparser
import json
import re
import shutil
import subprocess
import sys
from statistics import median

import pytest
import yaml

from conftest import FIGURES, LIBRARY, NOTEBOOKS, ROOT

FLOOR = {name: floor for floor, names in enumerate([
    ["data", "whitening", "networks", "augment"], ["training"], ["scores", "experts", "coverage"], ["selection", "coresets", "matching"], ["objectives"], ["trajectories"], ["condensation"], ["kernels"], ["rollout"], ["distill"], ["search"], ["study"], ["estimate"], ["plots"], ["bench"], ["app"],
]) for name in names}
ORDER = [path.stem.split("_", 1)[1] for path in LIBRARY]


def cells(path):
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def source(cell):
    return "".join(cell["source"])


def test_every_module_comes_from_a_live_notebook():
    modules = {p.stem for p in (ROOT / "selmatch").glob("*.py")} - {"__init__", "__main__", "_modidx"}
    assert modules == set(ORDER)
    assert modules == set(FLOOR)
    for name in modules:
        header = (ROOT / "selmatch" / f"{name}.py").read_text(encoding="utf-8")
        notebook = re.search(r"File to edit: \.\./nbs/(\S+?)\.?$", header, re.M)
        assert notebook, name
        assert (ROOT / "nbs" / notebook[1]).exists(), name


def modules_of(package):
    """Dotted name below the package -> file, for every module in it: `data`, or `data.images` in a package to come."""
    files = [p for p in sorted(package.rglob("*.py")) if p.stem not in ("_modidx", "__main__")]
    return {".".join(p.relative_to(package).with_suffix("").parts): p for p in files}


def imports_of(name, path, known):
    """The modules of the package that a module imports, whichever way it writes them (nbdev writes relative ones)."""
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
    """Every import from a room that is not below, as (who, whom); and how many imports were looked at."""
    offences, seen, modules = [], 0, modules_of(package)
    for name, path in modules.items():
        if name == "__init__": continue
        for other in imports_of(name, path, set(modules)):
            seen += 1
            within = FLOOR[other] == FLOOR[name] and FLOOR[name] in (0, FLOOR["selection"])
            if not (FLOOR[other] < FLOOR[name] or within) or ORDER.index(other) >= ORDER.index(name):
                offences.append((name, other))
    return offences, seen


def test_imports_only_from_floors_below():
    offences, seen = upward_imports(ROOT / "selmatch")
    assert not offences
    assert seen > 80, f"only {seen} imports were found: the check is blind"


@pytest.mark.parametrize("line", ["from .study import Study", "from selmatch.study import Study", "import selmatch.study", "from . import study",
                                  "from selmatch import study", "def late():\n    from .study import Study"])
def test_an_upward_import_is_seen(line, tmp_path):
    shutil.copytree(ROOT / "selmatch", tmp_path / "selmatch", ignore=shutil.ignore_patterns("__pycache__"))
    assert not upward_imports(tmp_path / "selmatch")[0]
    with open(tmp_path / "selmatch" / "networks.py", "a", encoding="utf-8") as file: file.write(f"\n{line}\n")
    assert upward_imports(tmp_path / "selmatch")[0] == [("networks", "study")]


def test_imports_are_read_across_packages(tmp_path):
    known = {"core", "data.images", "data.loaders", "train.training"}
    def read(name, text):
        (tmp_path / "x.py").write_text(text)
        return imports_of(name, tmp_path / "x.py", known)
    assert read("data.loaders", "from ..core import home\nfrom .images import ImageSet") == ["core", "data.images"]
    assert read("data.images", "from ..train.training import train\nfrom ..train import training") == ["train.training"]
    assert read("core", "from .data import loaders\nimport os, math") == ["data.loaders"]
    assert read("core", "from data import images") == []


def test_importing_needs_no_notebook_tools():
    code = "import sys; import selmatch.app; bad = {'nbdev', 'papermill', 'dask', 'IPython', 'nbconvert'} & set(sys.modules); sys.exit(str(bad) if bad else 0)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_notebooks_are_clean_and_exported(tmp_path):
    copy = tmp_path / "project"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", ".venv", ".selmatch", "figures.*", ".pytest_cache", "__pycache__", ".ipynb_checkpoints"))
    run = lambda command: subprocess.run([sys.executable, "-c", f"from nbdev.{command[0]} import {command[1]}; {command[1]}()"], cwd=copy, check=True, capture_output=True, text=True)
    run(("clean", "nbdev_clean"))
    for path in [*NOTEBOOKS, *FIGURES]:
        assert (copy / path.relative_to(ROOT)).read_text() == path.read_text(), f"{path.name} is not clean: make sync"
    shutil.rmtree(copy / "selmatch")
    shutil.copytree(ROOT / "selmatch", copy / "selmatch", ignore=shutil.ignore_patterns("__pycache__"))
    run(("doclinks", "nbdev_export"))
    for path in sorted((ROOT / "selmatch").glob("*.py")):
        assert (copy / "selmatch" / path.name).read_text() == path.read_text(), f"{path.name} is not what its notebook exports: make sync"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_library_anatomy(path):
    book = cells(path)
    code, prose = [c for c in book if c["cell_type"] == "code"], "\n".join(source(c) for c in book if c["cell_type"] == "markdown")
    title = source(book[0]).splitlines()
    assert title[0].startswith("# ")
    assert title[1].startswith("> ")
    exports = [source(c).startswith("#|") for c in code]
    if path in LIBRARY:
        assert source(code[0]).startswith("#| default_exp")
        assert exports[1]
    else:
        assert not any(exports)
    for part in ("## The idea", "## Try it", "<details>", "## Where next", "| symbol |" if path.stem not in ("12_plots", "14_app", "15_own_method") else "|---|", "otice"):
        assert part in prose, f"{path.name} lacks {part!r}"
    words = len(re.findall(r"\w+", prose))
    assert words >= 400, f"{path.name} explains itself in {words} words"
    lengths = sorted(len(source(c).splitlines()) for c in code)
    assert median(lengths) <= 16
    assert lengths[-1] <= 41
    in_a_row = 0
    for cell in book:
        in_a_row = in_a_row + 1 if cell["cell_type"] == "code" else 0
        assert in_a_row <= 4, f"{path.name}: more than four code cells without a word, at {source(cell)[:60]!r}"
    assert any("assert " in source(c) for c in code)


@pytest.mark.parametrize("path", LIBRARY, ids=lambda p: p.stem)
def test_every_exported_symbol_is_used_or_checked_and_documented(path):
    exported = [source(c) for c in cells(path) if c["cell_type"] == "code" and "#| export" in source(c)]
    for text in exported:
        for node in ast.parse(re.sub(r"^#\|.*$", "", text, flags=re.M)).body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_") and not getattr(node, "decorator_list", None):
                everywhere = "".join(source(c) for p in [*LIBRARY, *FIGURES] for c in cells(p) if c["cell_type"] == "code")
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
    assert sum(len(source(c).splitlines()) for c in code) <= 60
    assert all(not c["outputs"] and c["execution_count"] is None for c in code), "figure notebooks are committed without outputs"
    assert "publish(" in "".join(map(source, code))
    assert "assert " in "".join(map(source, code))
    assert not any("#| export" in source(c) for c in code)


def test_every_figure_notebook_is_known_to_the_runner():
    from selmatch.app import figures, more_figures
    assert {p.stem for p in FIGURES} == set(figures) | set(more_figures)


def test_environment_yml_follows_settings_ini():
    settings = configparser.ConfigParser(delimiters=["="])
    settings.read(ROOT / "settings.ini")
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, pip = environment["dependencies"][0], environment["dependencies"][-1]["pip"]
    assert python == f"python>={settings['DEFAULT']['min_python']}"
    assert pip == ["-e .[dev]"]
    figures, dev = (set(settings["DEFAULT"][f"{k}_requirements"].split()) for k in ("figures", "dev"))
    assert figures <= dev, "what draws figures must be part of the development extras"


def test_committed_figures_are_complete_and_say_where_they_come_from():
    folders = sorted(p for p in (ROOT / "figures").iterdir() if (p / "index.html").exists())
    assert {"digits", "cifar10-jpeg-lite"} <= {p.name for p in folders}
    for folder in folders:
        cards = sorted(folder.glob("*.json"))
        assert {p.stem for p in cards} == {p.stem for p in folder.glob("*.csv")}
        assert cards, f"{folder} has a gallery of nothing"
        for path in cards:
            card = json.loads(path.read_text(encoding="utf-8"))
            assert card["profile"]["name"] == folder.name
            assert {"versions", "code", "device", "data", "caption"} <= set(card)
            for kind in ("png", "svg", "csv", "ipynb", "html"):
                assert path.with_suffix(f".{kind}").exists(), f"{path.stem}.{kind}"
            assert str(ROOT) not in path.with_suffix(".ipynb").read_text(), "an executed notebook shows a path of this machine"


def test_readme_table_comes_from_its_csv():
    import readme
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme.renewed(text) == text, "the README's table is not what figures/digits/tab1_accuracy.csv says: make readme"
    targets = re.findall(r"\]\((?!https?:)([^)#]+)\)", text)
    assert len(targets) > 30
    for target in targets:
        assert (ROOT / target).exists(), f"the README links to {target}, which does not exist"


def test_readme_marks_rows_that_are_the_start_itself():
    import pandas as pd
    import readme
    rows = [("Random", 0.1, 0, 0, 0.9), ("MTT", 0.1, 0, 0, 0.95), ("MTT", 0.1, 1, 40, 0.99), ("SelMatch", 0.1, 0, 40, 0.97), ("SelMatch", 0.2, 0, 0, 0.99)]
    table = pd.DataFrame(rows, columns=["method", "ratio", "set_seed", "iteration", "test_accuracy"])
    assert readme.undistilled(table).to_dict() == {("MTT", 0.1): "1 of 2", ("SelMatch", 0.2): "1 of 1"}
    cells = readme.cells(table)
    assert "†1 of 2 not distilled" in cells.loc["MTT", "10%"]
    assert "†1 of 1 not distilled" in cells.loc["SelMatch", "20%"]
    assert "†" not in cells.loc["SelMatch", "10%"] and "★" in cells.loc["SelMatch", "10%"]
    assert "★" not in cells.loc["MTT", "10%"] + cells.loc["SelMatch", "20%"]
    assert "†" not in cells.loc["Random", "10%"], "a selection distils nothing, and says so"
