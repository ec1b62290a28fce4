"""What draws figures, where something is missing or goes wrong: a library, a notebook, a page, one figure of several, or the user who has had enough."""
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
import torch

from conftest import refuses
from selmatch.computer import Computer
from selmatch.core import InputError
from selmatch.show import figures as room
from selmatch.study.profile import load_profile
from selmatch.study.study import open_study

CARD = {"figure": "fig3_window", "caption": "words", "profile": {"name": "smoke", "title": "t", "seed": 0}, "versions": {"selmatch": "1", "torch": "2"}, "data": {"fingerprint": "ab"}}
CLAIM = {"sentence": "A beats B.", "verdict": "yes", "gap": 1.5, "half": 0.25, "p_holm": 0.01, "sets": 5}


def write_card(folder, name="fig3_window", **changes):
    (folder / f"{name}.json").write_text(json.dumps(CARD | {"figure": name} | changes))


# ---------------------------------------------------------------- provenance and its page

@pytest.mark.parametrize("changes", [{"figure": "fig4_alpha"}, {"caption": None}, {"profile": {"name": "smoke"}}, {"profile": {"name": "smoke", "title": "t"}}, {"profile": 3}, {"versions": {}}, {"data": None}, {"claims": 3},
                                     {"claims": [{}]}, {"claims": [CLAIM | {"gap": True}]}, {"claims": [CLAIM | {"gap": "1"}]}, {"claims": [CLAIM | {"sets": 2.5}]}, {"claims": [CLAIM | {"verdict": None}]}])
def test_what_is_no_provenance_is_none(changes, tmp_path):
    write_card(tmp_path, claims=[CLAIM])
    assert room.read_card(tmp_path / "fig3_window.json")["claims"] == [CLAIM]
    (tmp_path / "fig3_window.json").write_text(json.dumps(CARD | changes))
    assert room.read_card(tmp_path / "fig3_window.json") is None
    assert room.compare_published(tmp_path) == {"fig3_window.json": "damaged"}


@pytest.mark.parametrize("text", ["{", "[]", "3", '"figure"', "[" * 100_000])
def test_a_page_of_nothing_is_refused(text, tmp_path):
    (tmp_path / "fig3_window.json").write_text(text)
    refuses(lambda: room.write_gallery(tmp_path), tmp_path, "no figure to show")
    assert not (tmp_path / "index.html").exists()


def test_claims_stand_below_their_figure_with_their_numbers(tmp_path):
    study = SimpleNamespace(profile=load_profile("smoke"))
    refuses(lambda: room.write_claims("fig3_window", [CLAIM], study, tmp_path), "fig3_window.json", "publish it first")
    write_card(tmp_path)
    assert room.list_claims([]) == "" and "<li>" not in room.write_gallery(tmp_path).read_text()
    unknown = CLAIM | {"sentence": "<b>C</b> beats D.", "half": None, "p_holm": None, "gap": -2.0}
    room.write_claims("fig3_window", [CLAIM, unknown], study, tmp_path)
    page = room.write_gallery(tmp_path).read_text(encoding="utf-8")
    assert "A beats B. <em>yes</em>: +1.50 ± 0.25, p = 0.010, 5 sets" in page
    assert "&lt;b&gt;C&lt;/b&gt; beats D." in page and "-2.00 ± unknown, p = unknown, 5 sets" in page


def test_a_caption_with_half_a_letter_is_shown_all_the_same(tmp_path):
    (tmp_path / "fig3_window.json").write_text(json.dumps(CARD | {"caption": "half \ud83d a letter"}))
    assert "half \\ud83d a letter" in room.write_gallery(tmp_path).read_text(encoding="utf-8")


# ---------------------------------------------------------------- notebooks and their parameters

def test_a_notebook_that_is_carried_is_found_first(tmp_path, monkeypatch):
    monkeypatch.setattr(room, "package", tmp_path / "selmatch")
    refuses(lambda: room.figure_notebook("fig3_window"), "fig3_window.ipynb does not exist", "install selmatch again")
    refuses(lambda: room.figure_notebook("fig99"), "'fig99'", "fig3_window")
    for place in ("nbs/figures", "selmatch/notebooks"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "fig3_window.ipynb").write_text("{}")
        assert room.figure_notebook("fig3_window") == tmp_path / place / "fig3_window.ipynb"


def test_parameters_must_exist_and_fit(monkeypatch):
    monkeypatch.setattr(room, "known_parameters", lambda name: {"tab4_cost": {}, "fig2_method": {"ratio": "0", "label": "8"}}[name])
    study = SimpleNamespace(profile=SimpleNamespace(ratios=(0.1, 0.3)), splits=SimpleNamespace(train=SimpleNamespace(n_classes=3)))
    refuses(lambda: room.check_parameters("fig2_method", {"ratio": 0.2}, study), "ratio 0.2", "0, 0.1, 0.3")
    refuses(lambda: room.check_parameters("fig2_method", {"label": 3}, study), "label=3", "[0, 2]")
    refuses(lambda: room.check_parameters("tab4_cost", {"ratio": 0}, study), "tab4_cost", "'ratio'", "(it has none)")
    refuses(lambda: room.choose_parameters(["tab4_cost"], {"ratio": 0}, study), "tab4_cost", "(it has none)")
    refuses(lambda: room.choose_parameters(["tab4_cost", "fig2_method"], {"ratios": 0}, study), "tab4_cost, fig2_method", "'ratios'", "label, ratio")
    assert room.choose_parameters(["tab4_cost", "fig2_method"], {"ratio": 0.3}, study) == {"tab4_cost": {}, "fig2_method": {"label": 2, "ratio": 0.3}}


def test_only_what_differs_from_a_notebooks_defaults_is_told(tmp_path):
    study = SimpleNamespace(profile=SimpleNamespace(name="digits"), computer=Computer("cpu", workers=2))
    assert room.notebook_options(study, None, None) == {}
    study.computer = Computer("cpu", workers=1)
    assert room.notebook_options(study, "mine.yaml", tmp_path) == {"profile": "mine.yaml", "workers": 1, "out": str(tmp_path)}


@pytest.mark.parametrize("name", ["papermill", "nbformat", "nbconvert", "bleach", "ipykernel"])
def test_a_library_that_is_missing_is_named_before_work(name, monkeypatch):
    room.check_extras()
    monkeypatch.setitem(sys.modules, name, None)
    refuses(room.check_extras, f"{name} is not installed", "selmatch[figures]")


class Stop(Exception):
    def __init__(self, ename, evalue): self.ename, self.evalue = ename, evalue


@pytest.fixture
def papermill(monkeypatch):
    """What runs notebooks, played: it writes a book with all that differs between two runs, or stops."""
    state = SimpleNamespace(error=None, asked=[])
    def execute(source, done, parameters, **words):
        state.asked.append((Path(source).name, parameters, words["cwd"]))
        if state.error: raise state.error
        new = nbformat.v4
        cells = [new.new_code_cell("# Parameters\nout = '/tmp/x'\nhome = '/me'\nratio = 0.3", metadata={"tags": ["injected-parameters"], "papermill": {"duration": 1.2}}),
                 new.new_markdown_cell("words"), new.new_code_cell("1", outputs=[new.new_output("stream", name="stderr", text="/tmp/x: warning"), new.new_output("stream", name="stdout", text="claim holds")])]
        nbformat.write(new.new_notebook(cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "P", "language": "python"}, "papermill": {"start_time": "now"}}), done)
    theirs = room.import_extra
    fake = SimpleNamespace(execute_notebook=execute, PapermillExecutionError=Stop)
    monkeypatch.setattr(room, "import_extra", lambda name: fake if name == "papermill" else theirs(name))
    return state


def test_a_book_keeps_nothing_of_its_run(papermill, tmp_path):
    room.execute_notebook("fig3_window", tmp_path / "new", {"ratio": 0.3})
    text = (tmp_path / "new" / "fig3_window.ipynb").read_text()
    book = nbformat.reads(text, 4)
    for word in ("/tmp/x", "/me", "duration", "start_time", "warning"): assert word not in text, word
    assert book.cells[0].source == "# Parameters\nratio = 0.3" and [cell.id for cell in book.cells] == [f"fig3_window-{i}" for i in range(3)] and "claim holds" in text
    page = (tmp_path / "new" / "fig3_window.html").read_text(encoding="utf-8")
    assert "claim holds" in page and papermill.asked[0][:2] == ("fig3_window.ipynb", {"ratio": 0.3})


@pytest.mark.parametrize("evalue, said", [("no such row\nmore", "KeyError: no such row; see"), ("", "KeyError: ; see")])
def test_a_notebook_that_stops_says_where(evalue, said, papermill, tmp_path):
    papermill.error = Stop("KeyError", evalue)
    refuses(lambda: room.execute_notebook("fig3_window", tmp_path, {}), "fig3_window stopped with", said, tmp_path / "fig3_window.ipynb")


# ---------------------------------------------------------------- several figures

@pytest.fixture
def drawing(monkeypatch, tmp_path):
    """A study whose figures cost nothing; `state.fails`: what stops one of them."""
    state = SimpleNamespace(fails={}, computed=[], drawn=[], said=[], threads=[])
    def compute(name):
        def call(study):
            state.threads.append(torch.get_num_threads())
            if name in state.fails: raise state.fails[name]
            state.computed.append(name)
        return room.Figure(call)
    monkeypatch.setattr(room, "figures", {name: compute(name) for name in ("a", "b", "c")})
    monkeypatch.setattr(room, "check_extras", lambda: None)
    monkeypatch.setattr(room, "choose_parameters", lambda names, given, study: {name: {} for name in names})
    monkeypatch.setattr(room, "expect", lambda study, names, own, quick: (1000.0, "an hour"))
    def execute(name, folder, parameters):
        if f"draw {name}" in state.fails: raise state.fails[f"draw {name}"]
        state.drawn.append(name)
    monkeypatch.setattr(room, "execute_notebook", execute)
    monkeypatch.setattr(room, "write_gallery", lambda folder: folder)
    study = SimpleNamespace(profile=SimpleNamespace(name="digits"), computer=Computer(workers=2), splits=None)
    state.run = lambda: room.draw_figures(study, ["a", "b", "c"], out=tmp_path, say=state.said.append)
    return state


def test_what_takes_long_is_said_first_and_all_is_drawn(drawing, tmp_path):
    assert drawing.run() == tmp_path and drawing.computed == ["a", "b", "c"] and sorted(drawing.drawn) == ["a", "b", "c"]
    assert drawing.said[0] == "an hour" and "[2/3] b" in drawing.said and sum(line.startswith("drawn: ") for line in drawing.said) == 3


def test_processes_that_draw_side_by_side_leave_each_other_room(drawing):
    """Each took every core: five figures whose results were there took 154 seconds on two cores, and 44 with a thread each."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        drawing.run()
        assert drawing.threads == [1, 1, 1] and torch.get_num_threads() == 3
        study = open_study("smoke")
        assert torch.get_num_threads() == study.computer.threads == 1, "and so does a figure's notebook"
    finally: torch.set_num_threads(before)


def test_one_that_fails_stops_no_other_and_is_said_twice(drawing):
    drawing.fails = {"b": InputError("it diverged")}
    refuses(drawing.run, "it diverged")
    assert sorted(drawing.drawn) == ["a", "c"] and "b is not drawn: it diverged" in drawing.said
    drawing.fails["draw c"] = InputError("a damaged file")
    refuses(drawing.run, "2 of 3 figures are not drawn", "it diverged", "a damaged file")


def test_other_errors_are_nobodys_to_hide(drawing):
    drawing.fails = {"b": ZeroDivisionError()}
    with pytest.raises(ZeroDivisionError): drawing.run()


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_who_is_told_to_stop_stops_the_kernels_that_draw_and_nobody_else(stop, monkeypatch):
    psutil, killed = pytest.importorskip("psutil"), []
    class Child:
        def __init__(self, *words, gone=False): self.words, self.gone = words, gone
        def cmdline(self):
            if self.gone: raise psutil.NoSuchProcess(1)
            return self.words
        def kill(self): killed.append(self.words)
    children = [Child("python", "-m", "ipykernel_launcher"), Child("python", "worker"), Child(gone=True), Child("ipykernel", "2")]
    monkeypatch.setattr(psutil, "Process", lambda: SimpleNamespace(children=lambda recursive: children))
    with ThreadPoolExecutor(1) as pool:
        import threading
        hold = threading.Event()
        drawn = [pool.submit(hold.wait), pool.submit(print, "never")]
        with pytest.raises(stop), room.stopped_kernels(drawn): raise stop
        hold.set()
    assert drawn[1].cancelled() and killed == [("python", "-m", "ipykernel_launcher"), ("ipykernel", "2")]
    with pytest.raises(InputError), room.stopped_kernels(drawn): raise InputError("no reason to kill")
    assert len(killed) == 2


def test_a_figure_of_one_size_computes_and_counts_the_size_that_is_asked_for(tmp_path, monkeypatch):
    """Once the runner made the sets of the default size whatever `-p ratio=` said, and the notebook those that were shown."""
    from selmatch.study import tables
    from selmatch.study.study import Study
    study, made = Study(load_profile("smoke"), Computer(workers=1), tmp_path / "home"), []
    sizes, shown = study.profile.ratios, [name for name, figure in room.figures.items() if figure.at]
    asked = [name for name in room.figures if "ratio" in room.known_parameters(name)]
    assert set(asked) - set(shown) == {"fig1_coverage"}          # of all sizes: the parameter names the panel
    monkeypatch.setattr(tables, "anatomy", lambda study, ratio: made.append(ratio))
    monkeypatch.setattr(room, "execute_notebook", lambda name, folder, options: made.append(options["ratio"]))
    monkeypatch.setattr(room, "write_gallery", lambda folder: None)
    for ratio in sizes:
        room.draw_figures(study, ["fig2_method"], {"ratio": ratio}, tmp_path / "out", say=lambda words: None)
    assert made == [ratio for ratio in sizes for _ in range(2)]


def test_an_estimate_of_figures_refuses_a_parameter_that_none_has(tmp_path, monkeypatch):
    from click.testing import CliRunner
    from selmatch.app import cli
    monkeypatch.setenv("SELMATCH_HOME", str(tmp_path))
    asked = ["figures", "--profile", "smoke", "--only", "fig2_method", "--estimate", "-p"]
    refused = CliRunner().invoke(cli, [*asked, "nonsense=3"])
    assert refused.exit_code and "nonsense" in refused.output + str(refused.exception)
    bills = [CliRunner().invoke(cli, [*asked, f"ratio={ratio}"]).output for ratio in (0.1, 0.3)]
    assert ["10%" in bill for bill in bills] == [True, False], bills
