"""Pages that list what there is: every module with its docstrings, every profile, the guides."""
import ast
import re
import shutil
from pathlib import Path

import yaml

from drawings import Drawing
from lessons import list_lessons
from pages import ROOT, Links, escape, read_cells, table, title_of, write_if_new


def modules() -> list[tuple[str, Path, str]]:
    """(module, its lesson, its docstring), in reading order."""
    found = []
    for path in list_lessons():
        text = "\n".join(cell["source"] for cell in read_cells(path))
        named = re.search(r"^#\| default_exp (\S+)$", text, re.M)
        if named:
            file = ROOT / "selmatch" / (named[1].replace(".", "/") + ".py")
            found.append((named[1], path, ast.get_docstring(ast.parse(file.read_text("utf-8")))))
    return found


def stage_api(out: Path):
    """A page for each module; the generator fills it from the docstrings."""
    rows = []
    for name, path, said in modules():
        title, lead = title_of(read_cells(path))
        rows.append([f"[`selmatch.{name}`]({name}.md)", lead, f"[{title}](../lessons/{path.name})"])
        write_if_new(out / "api" / f"{name}.md", (
            f"# What `selmatch.{name}` offers\n\n> {lead}\n\nIts lesson, with the why: "
            f"[{title}](../lessons/{path.name}).\n\n```{{eval-rst}}\n"
            f".. automodule:: selmatch.{name}\n   :members:\n   :exclude-members: __init__\n"
            "```\n"))
    tree = "\n".join(name for name, _, _ in modules())
    write_if_new(out / "api" / "index.md", (
        "# Every function and class, from its docstring\n\n> Shapes, units, errors and sources, "
        "module by module.\n\n" + table(["module", "what it says", "lesson"], rows)
        + f"\n```{{toctree}}\n:hidden:\n\n{tree}\n```\n"))


def flat(values: dict, before: str = "") -> list[tuple[str, str]]:
    """Settings as `part.key` and value."""
    found = []
    for key, value in values.items():
        name = f"{before}{key}"
        if isinstance(value, dict) and value:
            found += flat(value, f"{name}.")
        else:
            found.append((name, str(value)))
    return found


def stage_profiles(out: Path, everything: dict[str, list[Drawing]]):
    """A page for each profile of the package."""
    rows, names = [], []
    for path in sorted((ROOT / "selmatch" / "profiles").glob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        values = yaml.safe_load(text)
        title = str(values.get("title", path.stem))
        has = (f"[{len(everything[path.stem])} figures](../figures/{path.stem}/index.md)"
               if path.stem in everything else "none here")
        names.append(path.stem)
        rows.append([f"[{path.stem}]({path.stem}.md)", escape(title), has])
        settings = [[f"`{key}`", f"`{value}`".replace("|", "\\|")] for key, value in flat(values)
                    if key != "title"]
        write_if_new(out / "profiles" / f"{path.stem}.md", (
            f"# The profile {path.stem}\n\n> {escape(title)}\n\nFigures: {has}. Draw them with "
            f"`make figures PROFILE={path.stem}`; `selmatch figures --profile {path.stem} "
            "--estimate` says first how long that takes.\n\n## Its settings\n\n"
            + table(["setting", "value"], settings)
            + f"\n## The file\n\n```yaml\n{text}```\n"))
    tree = "\n".join(names)
    write_if_new(out / "profiles" / "index.md", (
        "# Profiles: one file says all of a run\n\n> Data, networks, scores, experts, sizes: what "
        "a result depends on, and nothing else. [Chapter 50](../lessons/50_profile.ipynb) "
        "explains the words.\n\n" + table(["profile", "what it is", "figures"], rows)
        + f"\n```{{toctree}}\n:hidden:\n\n{tree}\n```\n"))


GUIDES = {"README.md": ("readme", "Run it yourself"),
          "RESULTS.md": ("results", "What was measured, and what was withdrawn"),
          "CLUSTER.md": ("cluster", "Any command on many machines"), "CONTRIBUTING.md": ("contributing",
                                                               "Contributing, and where things go")}


def place_guides(links: Links):
    for file, (name, _) in GUIDES.items():
        links.put(file, f"guides/{name}.md")


def stage_guides(out: Path, links: Links):
    """The texts that stand beside the notebooks."""
    rows, tree = [], []
    for file, (name, title) in GUIDES.items():
        text = links.mend((ROOT / file).read_text(encoding="utf-8"), file, f"guides/{name}.md")
        text = re.sub(r"^# .*$", f"# {title}", text, count=1, flags=re.M) if title else text
        write_if_new(out / "guides" / f"{name}.md", text)
        rows.append(f"* [{title or re.search('^# (.*)$', text, re.M)[1]}]({name}.md)")
        tree.append(name)
    rooms = out / "extra" / "figures" / "structure" / "rooms.svg"
    rooms.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(ROOT / "figures" / "structure" / "rooms.svg", rooms)
    lines, end = "\n".join(rows), "\n".join(tree)
    write_if_new(out / "guides" / "index.md", (
        "# Run it, spread it, change it\n\n> The results in numbers, the commands, and the rules "
        f"of the house.\n\n{lines}\n\n```{{toctree}}\n:hidden:\n\n{end}\n```\n"))
