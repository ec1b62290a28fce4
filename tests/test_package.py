"""The package as others get it: a wheel, installed where no clone is, has all that the command needs."""
import os
import shutil
import subprocess
import sys
import zipfile

import pytest

from conftest import FIGURES, ROOT

LEFT_OUT = shutil.ignore_patterns(".git", ".venv", ".selmatch", "build", "dist", "*.egg-info", ".pytest_cache", "__pycache__", "digits", "cifar10-jpeg-lite", "cifar10-lite")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy, so that the clone stays as it is."""
    room = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT, room / "clone", ignore=LEFT_OUT)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(room / "dist"), str(room / "clone")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=room)
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-3000:]
    files = list((room / "dist").glob("*.whl"))
    assert len(files) == 1
    return files[0]


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Run Python with nothing but the installed wheel before the libraries, in a folder that is no clone."""
    site, elsewhere = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("elsewhere")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--disable-pip-version-check", "--target", str(site), str(wheel)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    environment = {**os.environ, "PYTHONPATH": str(site), "SELMATCH_HOME": str(elsewhere / "home")}

    def run(*arguments):
        return subprocess.run([sys.executable, *arguments], cwd=elsewhere, env=environment, capture_output=True, text=True, timeout=500)
    run.site, run.elsewhere = site, elsewhere
    return run


def test_the_wheel_carries_what_the_command_needs(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    assert FIGURES
    assert {f"selmatch/notebooks/{path.name}" for path in FIGURES} <= names
    assert "selmatch/notebooks/cpu.json" in names
    own = {path.relative_to(ROOT).as_posix() for path in (ROOT / "selmatch").rglob("*") if path.suffix in (".py", ".yaml", ".csv")}
    assert "selmatch/profiles/published.csv" in own
    assert own <= names
    assert not {name for name in names if name.startswith(("tests/", "nbs/", "figures/"))}
    with zipfile.ZipFile(wheel) as content:
        for path in FIGURES:
            assert content.read(f"selmatch/notebooks/{path.name}") == path.read_bytes(), f"{path.name}: there are two sources"


HELP = """
import sys, selmatch
from selmatch.app import cli, main
print(selmatch.__file__)
for command in cli.commands:
    try: main([command, "--help"])
    except SystemExit as stop: assert stop.code == 0, command
"""


@pytest.mark.slow
def test_every_command_has_help_without_a_clone(installed):
    from selmatch.app import cli
    done = installed("-c", HELP)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith(str(installed.site)), "another installation was tried"
    assert done.stdout.count("Usage:") == len(cli.commands) > 10


@pytest.mark.slow
@pytest.mark.parametrize("command, words", [("profiles", ["digits", "smoke", "tinyimagenet"]), ("methods", ["selmatch", "mtt", "gradmatch"])])
def test_as_a_module_without_a_clone(command, words, installed):
    done = installed("-m", "selmatch", command)
    assert done.returncode == 0, done.stderr[-2000:]
    for word in words:
        assert word in done.stdout


@pytest.mark.slow
@pytest.mark.notebook
def test_a_figure_is_drawn_without_a_clone(installed):
    done = installed("-m", "selmatch", "figures", "--profile", "smoke", "--only", "tab4_cost", "--device", "cpu", "--workers", "1")
    assert done.returncode == 0, done.stderr[-3000:]
    folder = installed.elsewhere / "figures" / "smoke"
    for kind in ("png", "svg", "csv", "json", "ipynb", "html"):
        assert (folder / f"tab4_cost.{kind}").stat().st_size > 100


@pytest.mark.slow
def test_the_published_numbers_are_there_without_a_clone(installed):
    done = installed("-c", "from selmatch.show.published import read_published; print(len(read_published()))")
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) > 50
