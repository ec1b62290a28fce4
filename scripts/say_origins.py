"""Write README.md into a folder of figures: which profile, code and PyTorch drew each of them.

    python scripts/say_origins.py figures/cifar10-jpeg-lite

Figures of one folder that were drawn at different times may come from different versions of a profile. Their JSONs
say so, one by one; the page says it side by side."""
import csv
import json
import re
import sys
from pathlib import Path

from selmatch.core import write_atomic
from selmatch.methods import methods, set_leader, variants
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
    """What rows depend on, as text: which methods and sizes are compared is another question, and so is what was
    tuned (`tuned_alike`)."""
    return json.dumps(row_words(profile), sort_keys=True)


def shown_leaders(card: dict, folder: Path) -> set[str]:
    """The methods under whose names the sets of a figure are tuned, as far as its table names any."""
    with open(folder / f"{card['figure']}.csv", encoding="utf-8", newline="") as file:
        titles = {row.get("method") for row in csv.DictReader(file)}
    return {set_leader(m) for m in [*methods.values(), *variants.values()] if m.title in titles}


def tuned_alike(one: dict, other: dict, folder: Path) -> bool:
    """Whether two figures of a folder show sets by the same tuned words. What only one of two profiles tunes makes no
    difference where the other figure does not show it, or where the pick is what the profile says anyway."""
    for mine, theirs in ((one, other), (other, one)):
        known, base = theirs["profile"].get("tuned", {}), theirs["profile"]["matching"]
        for name, words in mine["profile"].get("tuned", {}).items():
            plain = {word: base.get(word) for word in words}
            if words != known.get(name, plain) and (name in known or name in shown_leaders(theirs, folder)):
                return False
    return True


def tell_versions(cards: list[dict], folder: Path) -> list[int]:
    """Of each figure the number of its version of the profile."""
    versions, numbers = [], []
    def fits(card: dict, version: list[dict]) -> bool:
        return all(tell_version(card["profile"]) == tell_version(other["profile"])
                   and tuned_alike(card, other, folder) for other in version)
    for card in cards:
        number = next((i for i, version in enumerate(versions) if fits(card, version)), len(versions))
        versions[number:] = versions[number:] or [[]]
        versions[number].append(card)
        numbers.append(number)
    return numbers


def say_adopted(card: dict) -> str:
    """Published tables of this folder on which a figure rests."""
    names = ", ".join(card.get("adopted", {}))
    return f" (rests on {names})" if names else ""


def describe_folder(folder: Path) -> str:
    """The page of a folder of figures."""
    cards = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    versions = tell_versions(cards, folder)
    lines = [f"# {folder.name}: which profile drew what", "",
             "This page is made from the JSONs beside the figures (`python scripts/say_origins.py`). " + (
                 "All figures come from one version of the profile." if max(versions) == 0 else
                 f"The figures come from **{max(versions) + 1} versions of the profile**, so numbers of rows with different letters may not be read as of one experiment.") +
             " What is said of distilling concerns those that show distilled sets.",
             "", "| figure | sample | profile | " + " | ".join(WORDS) + " | joined at epochs | code | PyTorch | processor |",
             "|---" * (len(WORDS) + 7) + "|"]
    for card, number in zip(cards, versions):
        version = "ABCDEFGH"[number]
        cells = [read_word(card["profile"], place) for place in WORDS.values()]
        lines.append(f"| [{card['figure']}]({card['figure']}.ipynb){say_adopted(card)} | {say_sample(card['caption'])} | {version} | " + " | ".join(cells) +
                     f" | {say_joined(card['profile'])} | `{card['code']}` | {card['versions']['torch'].split('+')[0]} | {card.get('processor', '–')} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    for name in sys.argv[1:]:
        text = describe_folder(Path(name))
        write_atomic(Path(name) / "README.md", lambda draft: draft.write_text(text, encoding="utf-8"))
