"""Write the README's table of results from figures/digits/tab1_accuracy.csv (`make readme`): numbers come from files, never from typing."""
import re
from pathlib import Path

import pandas as pd

from selmatch.show.plots import accuracy_table

ROOT = Path(__file__).resolve().parent.parent


def block() -> str:
    """The lines between the README's markers."""
    table = accuracy_table(pd.read_csv(ROOT / "figures" / "digits" / "tab1_accuracy.csv"))
    head = "| method | " + " | ".join(f"{c} kept" for c in table.columns) + " |\n|---|" + "---|" * len(table.columns)
    return head + "".join(f"\n| {name} | " + " | ".join(row) + " |" for name, row in zip(table.index, table.values))


def renewed(text: str) -> str:
    """The README with its table as the CSV has it."""
    return re.sub(r"(<!-- results -->\n).*?(\n<!-- end of results -->)", lambda m: m[1] + block() + m[2], text, flags=re.S)


if __name__ == "__main__":
    readme = ROOT / "README.md"
    readme.write_text(renewed(readme.read_text(encoding="utf-8")), encoding="utf-8")
