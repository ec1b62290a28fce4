"""Run the library notebooks in place and keep their outputs (`make notebooks`)."""
import os
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from selmatch.show.figures import drop_warnings

ROOT = Path(__file__).resolve().parent.parent


def run(path: Path):
    """Execute one notebook in a kernel of its own, in the folder of the notebooks; returns it with its outputs."""
    book = nbformat.read(path, 4)
    NotebookClient(book, timeout=900, kernel_name="python3", extra_arguments=["--IPKernelApp.log_level=40"],
                   resources={"metadata": {"path": str(ROOT / "nbs")}}).execute()
    drop_warnings(book)
    return book


if __name__ == "__main__":
    os.environ["PYTHONWARNINGS"] = "ignore::FutureWarning"      # PyTorch's own, about its insides; they would stand in the outputs
    chosen = [Path(name) for name in sys.argv[1:]] or sorted((ROOT / "nbs").glob("[0-9]*.ipynb"))
    for number, path in enumerate(chosen, 1):
        begin = time.perf_counter()
        nbformat.write(run(path), path)
        print(f"[{number}/{len(chosen)}] {path.name}: {time.perf_counter() - begin:.0f} s", flush=True)
