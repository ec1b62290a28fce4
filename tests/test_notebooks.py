"""Every notebook of the book runs, top to bottom, in a fresh kernel; its own checks are assertions; nothing of it is red."""
import pytest

from conftest import NOTEBOOKS
from run_notebooks import run, said_in_red

pytestmark = [pytest.mark.notebook, pytest.mark.slow]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_runs(path, monkeypatch, tmp_path):
    monkeypatch.setenv("SELMATCH_HOME", str(tmp_path))
    assert said_in_red(run(path)) == []
