"""Build the site: `python site/make.py` (or `make site`). Nothing is executed and nothing is
fetched; the notebooks are shown with the outputs that they have.

Pages are first written as sources for the generator (Sphinx with MyST-NB), then it is run."""
import argparse
import shutil
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from cards import stage_cards  # noqa: E402
from drawings import find_drawings, stage_drawings  # noqa: E402
from generator import build, list_sources  # noqa: E402
from lessons import list_lessons, stage_lessons  # noqa: E402
from pages import ROOT, WRITTEN, Links  # noqa: E402
from reference import place_guides, stage_api, stage_guides, stage_profiles  # noqa: E402
from story import stage_story  # noqa: E402

from selmatch.core import InputError  # noqa: E402


def place_all(everything: dict) -> Links:
    """Where each file of the project stands on the site. A figure's notebook is shown where it was
    drawn: for the first profile that has it."""
    links = Links()
    for path in list_lessons():
        links.put(path.relative_to(ROOT), f"lessons/{path.name}")
    for profile, drawings in reversed(everything.items()):
        links.put(f"figures/{profile}", f"figures/{profile}/index.md")
        for drawing in drawings:
            links.put(f"nbs/figures/{drawing.name}.ipynb",
                      f"figures/{profile}/{drawing.name}.ipynb")
            place = f"figures/{profile}/{drawing.name}"
            for kind in ("ipynb", "svg", "csv", "json"):
                links.put(f"{place}.{kind}", f"{place}.{kind}")
            links.put(f"{place}.png", f"{place}.svg")
            if (drawing.folder / "README.md").exists():
                links.put(f"figures/{profile}/README.md", f"figures/{profile}/README.md")
    links.put("nbs/README.md", "lessons/index.md")
    links.put("nbs/figures", "figures/index.md")
    links.put("figures", "figures/index.md")
    links.put("figures/structure/rooms.png", "figures/structure/rooms.svg")
    place_guides(links)
    return links


def stage(sources: Path, profile: str, label: int | None = None):
    """Write all sources below `sources`."""
    everything = find_drawings()
    links = place_all(everything)
    stage_story(sources, profile, everything, label)
    stage_lessons(sources, links)
    stage_drawings(sources, links, everything)
    stage_cards(sources, everything)
    stage_profiles(sources, everything)
    stage_api(sources)
    stage_guides(sources, links)


def forget_old(out: Path, work: Path, began: set[Path]):
    """Take away pages of the sources that nothing writes any more, and what was built from them: a
    figure that is gone from its folder."""
    for page in began - set(WRITTEN):
        page.unlink()
        built = out / page.relative_to(work / "sources").with_suffix(".html")
        built.unlink(missing_ok=True)


def main():
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    ask.add_argument("--out", type=Path, default=ROOT / "build" / "site")
    ask.add_argument("--profile", default="digits",
                     help="whose figures and images the front page tells the story with;\n"
                          "a profile with photographs takes them from your own data")
    ask.add_argument("--label", type=int, help="the class shown, where figure 2 was not drawn")
    ask.add_argument("--fresh", action="store_true", help="forget what an earlier build kept")
    given = ask.parse_args()
    began = time.perf_counter()
    work = given.out.parent / f".{given.out.name}"
    if given.fresh:
        shutil.rmtree(work, ignore_errors=True)
    if given.fresh and (given.out / ".buildinfo").exists():     # a site, and nothing else of yours
        shutil.rmtree(given.out)
    (work / "sources" / "extra").mkdir(parents=True, exist_ok=True)
    before = set(list_sources(work))
    try:
        stage(work / "sources", given.profile, given.label)
    except InputError as error:
        sys.exit(f"make site: {error}")
    forget_old(given.out, work, before)
    status = build(given.out, work)
    size = sum(path.stat().st_size for path in given.out.rglob("*") if path.is_file())
    print(f"{given.out / 'index.html'}   ({size / 1e6:.1f} MB, "
          f"{time.perf_counter() - began:.0f} s)")
    sys.exit(status)


if __name__ == "__main__":
    main()
