"""Write README.md into a folder of figures: which profile, code and PyTorch drew each of them.

    python scripts/say_origins.py figures/cifar10-jpeg-lite

Figures of one folder that were drawn at different times may come from different versions of a profile. Their JSONs
say so, one by one; the page says it side by side."""
import json
import re
import sys
from pathlib import Path

from selmatch.core import write_atomic
from selmatch.study.store import row_words

WORDS = {     # what is shown of a profile: column -> where it stands
    "iterations": ("matching", "iterations"), "lr_images": ("matching", "lr_images"),
    "β": ("window", "beta"), "experts": ("experts", "n"), "judge steps": ("evaluation", "steps"),
}


def read_word(profile: dict, place: tuple[str, ...]) -> str:
    """A word of a profile as text."""
    for key in place:
        profile = profile[key]
    if isinstance(profile, dict):
        return ", ".join(f"{100 * float(k):g} %: {v}" for k, v in profile.items())
    return "searched" if profile is None else str(profile)


def say_joined(profile: dict) -> str:
    """The epochs of an expert at which a student may join it, the last one included."""
    first = profile["objectives"].get("trajectory", {}).get("min_start", 0)
    return f"{first} to {profile['matching']['max_start'] - 1}"


def say_sample(caption: str) -> str:
    """What the caption says of the sample: sets, and networks on each."""
    found = re.search(r"\d+ sets? × \d+ networks?|n = \d+ per \w+", caption)
    return found[0] if found else "–"


def tell_version(profile: dict) -> str:
    """What rows depend on, as text: which methods and sizes are compared is another question."""
    return json.dumps([row_words(profile), profile.get("tuned", {})], sort_keys=True)


def say_adopted(card: dict) -> str:
    """Published tables of this folder on which a figure rests."""
    names = ", ".join(card.get("adopted", {}))
    return f" (rests on {names})" if names else ""


def describe_folder(folder: Path) -> str:
    """The page of a folder of figures."""
    cards = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    versions = list(dict.fromkeys(tell_version(card["profile"]) for card in cards))
    lines = [f"# {folder.name}: which profile drew what", "",
             "This page is made from the JSONs beside the figures (`python scripts/say_origins.py`). " + (
                 "All figures come from one version of the profile." if len(versions) == 1 else
                 f"The figures come from **{len(versions)} versions of the profile**, so numbers of rows with different letters may not be read as of one experiment.") +
             " What is said of distilling concerns those that show distilled sets.",
             "", "| figure | sample | profile | " + " | ".join(WORDS) + " | joined at epochs | code | PyTorch | processor |",
             "|---" * (len(WORDS) + 7) + "|"]
    for card in cards:
        version = "ABCDEFGH"[versions.index(tell_version(card["profile"]))]
        cells = [read_word(card["profile"], place) for place in WORDS.values()]
        lines.append(f"| [{card['figure']}]({card['figure']}.ipynb){say_adopted(card)} | {say_sample(card['caption'])} | {version} | " + " | ".join(cells) +
                     f" | {say_joined(card['profile'])} | `{card['code']}` | {card['versions']['torch'].split('+')[0]} | {card.get('processor', '–')} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    for name in sys.argv[1:]:
        text = describe_folder(Path(name))
        write_atomic(Path(name) / "README.md", lambda draft: draft.write_text(text, encoding="utf-8"))
