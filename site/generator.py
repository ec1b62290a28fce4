"""The generator (Sphinx) is run over pages that were staged; nothing of the package is loaded here."""
import os
from pathlib import Path

HERE = Path(__file__).resolve().parent


def build(out: Path, work: Path, pages: list[str] | None = None, jobs: int = 2) -> int:
    """Run the generator; its exit status, not 0 where it warned. `pages`: only these (a test of a
    few pages; links to the others lead nowhere then, so warnings do not count)."""
    os.environ["SELMATCH_SITE_SOURCES"] = str(work / "sources")
    from sphinx.cmd.build import main as sphinx
    words = ["-b", "html", "-c", str(HERE), "-d", str(work / "doctrees"), "-j", str(jobs), "-q"]
    if pages is None:
        return sphinx([*words, "-W", "--keep-going", str(work / "sources"), str(out)])
    other = [page.relative_to(work / "sources").as_posix() for page in list_sources(work)]
    other = ",".join(["extra", *(page for page in other if page not in pages)])
    return sphinx([*words, "-Q", "-D", f"exclude_patterns={other}", str(work / "sources"),
                   str(out)])


def list_sources(work: Path) -> list[Path]:
    """All pages that were staged."""
    pages = (work / "sources").rglob("*")
    return sorted(page for page in pages if page.suffix in (".md", ".ipynb"))
