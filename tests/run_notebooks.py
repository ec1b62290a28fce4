"""Run the library notebooks in place and keep their outputs (`make notebooks`)."""
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from selmatch.show.figures import drop_warnings

ROOT = Path(__file__).resolve().parent.parent
WIDGET = "application/vnd.jupyter.widget-view+json"


def run(path: Path):
    """Execute one notebook in a kernel of its own, in the folder of the notebooks; returns it with all outputs."""
    book = nbformat.read(path, 4)
    NotebookClient(book, timeout=900, kernel_name="python3", extra_arguments=["--IPKernelApp.log_level=40"], store_widget_state=False,
                   resources={"metadata": {"path": str(ROOT / "nbs")}}).execute()
    return book


def said_in_red(book) -> list[str]:
    """What a reader would see on red: all that was written to stderr."""
    return [output["text"] for cell in book.cells for output in cell.get("outputs", []) if output.get("name") == "stderr"]


def drop_sliders(book):
    """Drop the sliders: a picture stands below each, and without this kernel they would be an error message."""
    for cell in book.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if WIDGET not in output.get("data", {})]


if __name__ == "__main__":
    chosen = [Path(name) for name in sys.argv[1:]] or sorted((ROOT / "nbs").glob("[0-9]*.ipynb"))
    for number, path in enumerate(chosen, 1):
        begin = time.perf_counter()
        book = run(path)
        if red := "".join(said_in_red(book)).strip():
            print(f"{path.name} wrote to stderr, which is left out: {red[:2000]}", flush=True)
        drop_warnings(book)
        drop_sliders(book)
        nbformat.write(book, path)
        print(f"[{number}/{len(chosen)}] {path.name}: {time.perf_counter() - begin:.0f} s", flush=True)
