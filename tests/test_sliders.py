"""Sliders in lessons: values, pictures, what a kernel answers to a moved slider, and a lesson in JupyterLab."""
import base64
import importlib.util
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import matplotlib.pyplot as plt
import nbformat
import pytest

from conftest import NOTEBOOKS, ROOT
from run_notebooks import WIDGET, drop_sliders, said_in_red
from selmatch.core import InputError
from selmatch.show import sliders
from selmatch.show.sliders import explore, figure_rows, make_sliders, render, share_view, start_values, window_view


def line(slope=1, height=0):
    fig, ax = plt.subplots(figsize=(2, 1.2))
    ax.plot([0, 1], [height, height + slope])
    ax.set(ylim=(-3, 3))
    return fig


# ---------------------------------------------------------------- without a kernel

@pytest.mark.parametrize("choices, message", [
    ({}, "nothing to move"), ({"slop": [1]}, "unknown slider 'slop': choose one of slope, height"),
    ({"slope": []}, "slider 'slope' has no values"), ({"slope": [2, 3]}, "starts at 1, which is not among its values: \\[2, 3\\]")])
def test_a_slider_that_cannot_work_is_refused_before_anything_is_drawn(choices, message):
    drawn = []
    def draw(slope=1, height=0):
        drawn.append(slope)
    with pytest.raises(InputError, match=message):
        explore(draw, **choices)
    assert drawn == []


def test_in_a_script_a_figure_is_handed_over():
    figure = explore(line, slope=[0, 1])
    assert figure.axes[0].lines[0].get_ydata().tolist() == [0, 1]
    plt.close(figure)


def test_pictures_of_one_drawing_have_one_size():
    """A page must not jump when a slider moves."""
    pytest.importorskip("PIL")
    from io import BytesIO
    from PIL import Image
    from selmatch.data.images import class_rows
    from selmatch.data.loaders import load_digits
    data, windows = load_digits().train, figure_rows("fig3_window")
    eights = data.images[class_rows(data)[8]]
    shown = [render(lambda beta, kept: window_view(eights, data, windows, beta, kept), {"beta": beta, "kept": kept})
             for beta, kept in ((0.0, 0.05), (0.9, 0.05), (0.9, 0.3))]
    pictures = [base64.b64decode(s["image/png"]) for s in shown]
    assert len({Image.open(BytesIO(p)).size for p in pictures}) == 1
    assert len(set(pictures)) == 3
    assert shown[1]["text/plain"] == "β = 0.9, kept = 0.05"
    assert plt.get_fignums() == []


def test_dots_stand_on_the_means_of_the_rows():
    from selmatch.data.images import class_rows
    from selmatch.data.loaders import load_digits
    data = load_digits().train
    eights = data.images[class_rows(data)[8]]
    windows, shares = figure_rows("fig3_window"), figure_rows("fig4_alpha").query("augmentation == 'dsa'")
    for ratio, beta in ((0.05, 0.0), (0.3, 0.6)):
        part = windows[(windows.ratio == ratio) & (windows.beta == beta)]
        figure = window_view(eights, data, windows, beta, ratio)
        assert figure.axes[1].texts[0].get_text() == f"{100 * part.test_accuracy.mean():.1f} %"
        plt.close(figure)
    for ratio, alpha in ((0.05, 0.0), (0.3, 0.8)):
        part = shares[(shares.ratio == ratio) & (shares.alpha == alpha)]
        figure = share_view(eights, data, shares, alpha, ratio, 0.1)
        said = [ax.texts[0].get_text() for ax in figure.axes[1:]]
        assert said == [f"{100 * part[y].mean():.1f} %" for y in ("test_accuracy", "hard_coverage")]
        n, ipc = round(alpha * round(ratio * len(eights))), round(ratio * len(eights))
        assert figure.axes[0].get_title() == f"α = {alpha:g}: {ipc - n} frozen (blue), {n} distilled (red)"
        plt.close(figure)


def test_without_ipywidgets_the_picture_stands_still(monkeypatch, capsys):
    monkeypatch.setattr(sliders.importlib.util, "find_spec", lambda name: None)
    assert make_sliders({"slope": 1}, {"slope": [0, 1]}) == {}
    assert "pip install ipywidgets" in capsys.readouterr().out


def test_a_slider_starts_where_its_drawing_does():
    pytest.importorskip("ipywidgets", reason="ipywidgets is in the extra `dev`")
    start = start_values(line, {"slope": [0, 1, 2], "height": [0]})
    made = make_sliders(start, {"slope": [0, 1, 2], "height": [0]})
    assert {name: slider.value for name, slider in made.items()} == {"slope": 1, "height": 0}


# ---------------------------------------------------------------- in a kernel, without a browser

class Kernel:
    """A kernel, and what it says."""

    def __init__(self):
        from jupyter_client.manager import start_new_kernel
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        environment.pop("MPLBACKEND", None)
        self.manager, self.client = start_new_kernel(kernel_name="python3", env=environment, cwd=str(ROOT))

    def listen(self, asked):
        """The messages that answer one request, up to the end of it."""
        said = []
        while True:
            message = self.client.get_iopub_msg(timeout=60)
            if message["parent_header"].get("msg_id") != asked:
                continue
            if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                return said
            said.append(message)

    def run(self, code):
        return self.listen(self.client.execute(code))

    def move(self, comm, index):
        """What a front end sends when a slider is moved."""
        data = {"method": "update", "state": {"index": index}, "buffer_paths": []}
        message = self.client.session.msg("comm_msg", {"comm_id": comm, "data": data})
        self.client.shell_channel.send(message)
        return self.listen(message["header"]["msg_id"])

    def close(self):
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


DRAW = """
import matplotlib.pyplot as plt
from selmatch.show.sliders import explore
def draw(slope=1):
    fig, ax = plt.subplots(figsize=(2, 1.2))
    ax.plot([0, 1], [0, slope])
    ax.set(ylim=(-3, 3))
    return fig
"""


@pytest.fixture
def kernel():
    pytest.importorskip("ipykernel", reason="ipykernel is in the extra `dev`")
    pytest.importorskip("ipywidgets", reason="ipywidgets is in the extra `dev`")
    kernel = Kernel()
    yield kernel
    kernel.close()


@pytest.mark.slow
def test_a_moved_slider_replaces_the_picture(kernel):
    assert not [m for m in kernel.run(DRAW) if m["msg_type"] in ("error", "stream")]
    said = kernel.run("explore(draw, slope=[-2, 1, 2])")
    shown = [m["content"] for m in said if m["msg_type"] == "display_data"]
    assert not [m for m in said if m["msg_type"] in ("error", "stream")]
    assert [WIDGET in s["data"] for s in shown] == [True, False], "a slider, and one picture"
    slider, picture = shown
    assert picture["data"]["text/plain"] == "slope = 1"
    moved = [m["content"] for m in kernel.move(slider["data"][WIDGET]["model_id"], 0) if m["msg_type"] == "update_display_data"]
    assert len(moved) == 1
    assert moved[0]["transient"] == picture["transient"]
    assert moved[0]["data"]["text/plain"] == "slope = -2"
    assert moved[0]["data"]["image/png"] != picture["data"]["image/png"]


@pytest.mark.slow
def test_plots_after_a_slider_are_shown(kernel):
    """A style that ends may not take from a notebook what shows its figures."""
    kernel.run(DRAW + """
from selmatch.show.plots import use_style
def styled(slope=1):
    with use_style():
        return draw(slope)
""")
    kernel.run("explore(styled, slope=[-2, 1, 2])")
    said = kernel.run("plt.plot([0, 1]);")
    assert [sorted(m["content"]["data"]) for m in said if m["msg_type"] == "display_data"] == [["image/png", "text/plain"]]


@pytest.mark.slow
def test_a_kernel_without_ipywidgets_shows_the_picture(kernel):
    kernel.run("import sys; sys.modules['ipywidgets'] = None" + DRAW)
    said = kernel.run("explore(draw, slope=[-2, 1, 2])")
    shown = [m["content"]["data"] for m in said if m["msg_type"] == "display_data"]
    assert [sorted(data) for data in shown] == [["image/png", "text/plain"]]
    assert [m["content"]["name"] for m in said if m["msg_type"] == "stream"] == ["stdout"]


# ---------------------------------------------------------------- lessons as they are committed

def moving_cells(book):
    return [cell for cell in book.cells if cell.cell_type == "code" and re.search(r"^explore\(", cell.source, re.M)]


BOOKS = {path.stem: nbformat.read(path, 4) for path in NOTEBOOKS}
MOVING = [name for name, book in BOOKS.items() if moving_cells(book)]


def test_lessons_have_the_three_sliders_and_more():
    assert {"00_tour", "22_window", "38_sets", "39_loop"} <= set(MOVING)


@pytest.mark.parametrize("name", MOVING)
def test_where_nothing_can_move_there_is_a_picture(name):
    """On a web page and in a repository: a PNG, its values in words, and no widget that nobody can draw."""
    for cell in moving_cells(BOOKS[name]):
        assert len(cell.source.splitlines()) <= 10
        shown = [output.data for output in cell.outputs if "data" in output]
        assert [sorted(data) for data in shown] == [["image/png", "text/plain"]]
        assert " = " in shown[0]["text/plain"]


@pytest.mark.parametrize("name", BOOKS)
def test_no_lesson_is_committed_with_red_words_or_a_widget(name):
    book = BOOKS[name]
    assert said_in_red(book) == []
    kinds = {kind for cell in book.cells for output in cell.get("outputs", []) for kind in output.get("data", {})}
    assert not [kind for kind in kinds if "widget" in kind], "make notebooks leaves the sliders out"
    assert "widgets" not in book.metadata


def test_red_words_and_widgets_would_be_seen():
    red = nbformat.v4.new_output("stream", name="stderr", text="FutureWarning: …")
    slider = nbformat.v4.new_output("display_data", data={WIDGET: {"model_id": "x"}, "text/plain": "SelectionSlider()"})
    picture = nbformat.v4.new_output("display_data", data={"image/png": "", "text/plain": "β = 0"})
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1", outputs=[red, slider, picture])])
    assert said_in_red(book) == ["FutureWarning: …"]
    drop_sliders(book)
    assert book.cells[0].outputs == [red, picture]


def test_progress_is_shown_by_one_kind_of_bar():
    """`tqdm.auto` is a widget where ipywidgets is there and a red warning where it is not; ours is always the plain bar."""
    code = "\n".join(path.read_text(encoding="utf-8") for path in [*(ROOT / "selmatch").rglob("*.py"), *NOTEBOOKS])
    assert code.count("from tqdm import tqdm") >= 4
    assert not re.findall(r"tqdm\.(?:auto|notebook|autonotebook)", code)


# ---------------------------------------------------------------- in JupyterLab, as a reader has it

LESSON = "38_sets"          # the one that runs fastest
QUIET = {"@jupyterlab/apputils-extension/notification.jupyterlab-settings": {"fetchNews": "false", "checkForUpdates": False},
         "@jupyterlab/notebook-extension/tracker.jupyterlab-settings": {"windowingMode": "none"}}      # every cell is on the page


class Lab:
    """A JupyterLab on this machine alone, with a folder and settings of its own."""

    def __init__(self, place):
        self.files, self.token = place / "lessons", os.urandom(16).hex()
        self.files.mkdir()
        for name, settings in QUIET.items():
            file = place / "settings" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(settings))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{free.getsockname()[1]}"
        own = {"HOME": "home", "JUPYTER_CONFIG_DIR": "config", "JUPYTER_DATA_DIR": "data", "JUPYTER_RUNTIME_DIR": "runtime", "IPYTHONDIR": "ipython",
               "JUPYTERLAB_SETTINGS_DIR": "settings", "JUPYTERLAB_WORKSPACES_DIR": "workspaces", "SELMATCH_HOME": "results"}
        environment = {**os.environ, **{name: str(place / folder) for name, folder in own.items()}, "PYTHONPATH": str(ROOT), "JUPYTER_TOKEN": self.token}
        for name in ("MPLBACKEND", "PYTHONWARNINGS"):
            environment.pop(name, None)
        self.log = open(place / "lab.log", "w")
        command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--LabApp.expose_app_in_browser=True", "--ServerApp.ip=127.0.0.1", f"--ServerApp.port={self.url.rsplit(':')[-1]}",
                   "--ServerApp.port_retries=0", f"--ServerApp.root_dir={self.files}", "--LabApp.news_url=", "--LabApp.extension_manager=readonly",
                   "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
        self.server = subprocess.Popen(command, cwd=place, env=environment, stdout=self.log, stderr=subprocess.STDOUT)

    def answers(self):
        """Whether it does, to somebody who knows the token."""
        request = urllib.request.Request(f"{self.url}/api/status", headers={"Authorization": f"token {self.token}"})
        try:
            return urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=5).status == 200
        except OSError:
            return False

    def wait(self, seconds=60):
        end = time.monotonic() + seconds
        while not self.answers():
            assert self.server.poll() is None and time.monotonic() < end, "JupyterLab does not start: see lab.log"
            time.sleep(0.3)

    def close(self):
        """Stop the server and its kernels; whatever is left of them is an error."""
        import psutil
        family = [psutil.Process(self.server.pid)] if self.server.poll() is None else []
        family += [child for process in family for child in process.children(recursive=True)]
        self.server.terminate()
        left = psutil.wait_procs(family, timeout=60)[1]
        for process in left:
            process.kill()
        self.server.wait(60)
        self.log.close()
        assert not left, "JupyterLab left processes behind"


@pytest.fixture
def lab(tmp_path):
    for name in ("jupyterlab", "ipywidgets", "playwright"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is in the extra `dev`")
    lab = Lab(tmp_path)
    try:
        lab.wait()
        yield lab
    finally:
        lab.close()
    assert not lab.answers()


CHROMIUM = next(filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome", "chrome"])), None)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
RUN_ALL = """async () => {
    const lab = window.jupyterapp, lesson = lab.shell.currentWidget;
    await lesson.context.ready;
    await lesson.sessionContext.ready;
    await lesson.sessionContext.session.kernel.info;
    return await lab.commands.execute('notebook:run-all-cells');
}"""
SAVE = "() => window.jupyterapp.commands.execute('docmanager:save')"


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine (Debian: apt-get install chromium)")
def test_a_lesson_in_jupyterlab_runs_to_its_end_and_its_slider_works(lab, tmp_path):
    from playwright.sync_api import sync_playwright
    file = lab.files / f"{LESSON}.ipynb"
    shutil.copy(ROOT / "nbs" / file.name, file)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page, asked = chromium.new_page(viewport={"width": 1280, "height": 1000}), []
        page.on("request", lambda request: asked.append(request.url))
        page.set_default_timeout(300_000)
        page.goto(f"{lab.url}/lab/tree/{file.name}?token={lab.token}")
        page.wait_for_selector(".jp-Notebook .jp-CodeCell")
        assert page.evaluate(RUN_ALL), "a cell of the lesson went wrong"       # what the menu's Run All Cells does, once the kernel is there
        check_sliders(page, tmp_path)
        page.evaluate(SAVE)
        chromium.close()
    assert [url for url in asked if not url.startswith((lab.url, "data:", "blob:"))] == []
    check_run(nbformat.read(file, 4))


def check_sliders(page, tmp_path):
    """Each slider of the cell moves its own words, and the one picture below all of them."""
    from playwright.sync_api import expect
    cell = page.locator(".jp-CodeCell", has=page.locator(".widget-hslider")).first
    cell.scroll_into_view_if_needed()
    picture, sliders = cell.locator(".jp-RenderedImage img"), cell.locator(".widget-hslider").all()
    assert len(sliders) == len(re.findall(r"(\w+)=(?:sorted|list)\(", moving_cells(BOOKS[LESSON])[0].source))
    for number, slider in enumerate(sliders):
        for key in ("ArrowLeft", "ArrowRight", "ArrowRight"):
            before, read = picture.get_attribute("src"), slider.locator(".widget-readout").inner_text()
            slider.locator(".noUi-handle").press(key)
            expect(slider.locator(".widget-readout")).not_to_have_text(read)
            expect(picture).not_to_have_attribute("src", before, timeout=30_000)
        page.screenshot(path=tmp_path / f"moved-{number}.png")
    expect(picture).to_have_count(1)


def check_run(book):
    """As it was saved: every cell has run, nothing went wrong, nothing is red."""
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert not [output for cell in code for output in cell.outputs if output.output_type == "error"]
    assert said_in_red(book) == []
