"""Write the README's table of results from figures/digits/tab1_accuracy.csv (`make readme`): numbers come from files, never from typing."""
import re
from pathlib import Path

import pandas as pd

from selmatch.methods import methods
from selmatch.show.plots import accuracy_table

ROOT = Path(__file__).resolve().parent.parent
DISTILS = {m.title for m in methods.values() if m.alpha != 0}
NOTE = ("† In so many of the sets validation images chose iteration 0, the start itself, which is not distilled "
        "(the column `iteration` of [the table's rows](figures/digits/tab1_accuracy.csv)).")


def undistilled(table: pd.DataFrame) -> pd.Series:
    """By (method, ratio), for methods that distil: how many of the sets are the start itself, as in "1 of 2"; else nothing."""
    sets = table[table.method.isin(DISTILS)].drop_duplicates(["method", "ratio", "set_seed"])
    counts = sets.assign(start=sets.iteration == 0).groupby(["method", "ratio"]).start.agg(["sum", "count"])
    return counts[counts["sum"] > 0].apply(lambda row: f"{row['sum']} of {row['count']}", axis=1)


def cells(table: pd.DataFrame) -> pd.DataFrame:
    """The table of a paper, each cell that holds undistilled sets marked; only the others can be the best of their column."""
    marks = undistilled(table)
    marked = pd.MultiIndex.from_frame(table[["method", "ratio"]]).isin(marks.index)
    whole = accuracy_table(table).map(lambda text: text.replace(" ★", ""), na_action="ignore")
    whole.update(accuracy_table(table[~marked]))
    for (method, ratio), mark in marks.items():
        whole.loc[method, f"{ratio:.0%}"] += f" †{mark} not distilled"
    return whole


def block() -> str:
    """The lines between the README's markers."""
    table = pd.read_csv(ROOT / "figures" / "digits" / "tab1_accuracy.csv")
    wide = cells(table)
    head = "| method | " + " | ".join(f"{c} kept" for c in wide.columns) + " |\n|---|" + "---|" * len(wide.columns)
    rows = "".join(f"\n| {name} | " + " | ".join(row) + " |" for name, row in zip(wide.index, wide.values))
    return head + rows + (f"\n\n{NOTE}" if len(undistilled(table)) else "")


def renewed(text: str) -> str:
    """The README with its table as the CSV has it."""
    return re.sub(r"(<!-- results -->\n).*?(\n<!-- end of results -->)", lambda m: m[1] + block() + m[2], text, flags=re.S)


if __name__ == "__main__":
    readme = ROOT / "README.md"
    readme.write_text(renewed(readme.read_text(encoding="utf-8")), encoding="utf-8")
