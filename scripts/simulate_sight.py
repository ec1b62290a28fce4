"""Pictures as they look to other eyes and to a printer.

    python scripts/simulate_sight.py FIGURE.png ...      writes FIGURE.sight.png beside each

Four views in one sheet: protanopia, deuteranopia, tritanopia, and grey. The matrices are those of
Machado, Oliveira and Fernandes, "A Physiologically-based Model for Simulation of Color Vision
Deficiency" (IEEE TVCG 15(6), 2009), at severity 1.0; they act on linear RGB.
"""
import sys
from itertools import combinations
from pathlib import Path

import numpy as np

SIGHTS = {
    "protanopia": [[0.152286, 1.052583, -0.204868],
                   [0.114503, 0.786281, 0.099216],
                   [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968],
                     [0.280085, 0.672501, 0.047413],
                     [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779],
                   [-0.078411, 0.930809, 0.147602],
                   [0.004733, 0.691367, 0.303900]],
    "grey": [[0.2126, 0.7152, 0.0722]] * 3,      # luminance of sRGB
}
APART = 12.0      # CIE76 difference from which two colours count as different in a line or a mark


def to_linear(srgb: np.ndarray) -> np.ndarray:
    """sRGB in [0, 1], any shape, without its gamma."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def from_linear(linear: np.ndarray) -> np.ndarray:
    linear = np.clip(linear, 0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def see(srgb: np.ndarray, sight: str) -> np.ndarray:
    """sRGB `(..., 3)` in [0, 1] as somebody with this sight sees it."""
    return from_linear(to_linear(np.asarray(srgb, float)) @ np.array(SIGHTS[sight]).T)


def to_lab(srgb: np.ndarray) -> np.ndarray:
    """sRGB `(..., 3)` in [0, 1] as CIE L*a*b* under D65."""
    xyz = to_linear(np.asarray(srgb, float)) @ np.array(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]).T
    ratio = xyz / [0.9505, 1.0, 1.089]
    f = np.where(ratio > 0.008856, np.cbrt(ratio), 7.787 * ratio + 16 / 116)
    x, y, z = f[..., 0], f[..., 1], f[..., 2]
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)


def distance(one, other, sight: str) -> float:
    """CIE76 difference of two sRGB colours under a sight."""
    return float(np.linalg.norm(to_lab(see(one, sight)) - to_lab(see(other, sight))))


# ------------------------------------------------------------------------ what one axes tells apart

def looks_of(ax) -> set[tuple]:
    """How lines and bars of an axes look: colour, and what else they differ in. Lines of one look
    belong together, and so do bars of one colour and hatch; frames of pictures are not asked."""
    from matplotlib.colors import to_hex
    looks = set()
    for line in ax.get_lines():
        if len(line.get_xdata()) and line.get_visible():
            mark = line.get_marker() if line.get_marker() not in ("None", None, "") else ""
            if mark in ("|", "_"):              # the end of a whisker
                continue
            hollow = mark and to_hex(line.get_markerfacecolor(), True)[-2:] == "00"
            dashes = str(line._unscaled_dash_pattern) if line.get_linestyle() != "None" else "none"
            looks.add((to_hex(line.get_color()), ("line", mark, bool(hollow), dashes)))
    for bar in ax.patches:
        if bar.get_visible() and bar.get_alpha() is None and bar.get_facecolor()[3]:
            looks.add((to_hex(bar.get_facecolor()), ("bar", bar.get_hatch())))
    return looks


def find_twins(figure, apart: float = APART) -> list[tuple]:
    """Pairs in one axes that differ in colour alone, and in that not enough for every sight:
    (title of the axes, colour, colour, sight, difference). Axes whose rows are named at their side
    (methods) are read by place; a colour bar explains colours that are in order."""
    found = []
    barred = any(hasattr(ax, "_colorbar") for ax in figure.axes)
    for ax in figure.axes:
        if barred or hasattr(ax, "_colorbar") or has_named_rows(ax):
            continue
        for (one, look), (other, like) in combinations(sorted(looks_of(ax)), 2):
            if look != like or one == other:
                continue
            for sight in SIGHTS:
                gap = distance(rgb(one), rgb(other), sight)
                if gap < apart:
                    found.append((ax.get_title(), one, other, sight, round(gap, 1)))
    return found


def rgb(code: str) -> np.ndarray:
    return np.array([int(code[i:i + 2], 16) for i in (1, 3, 5)]) / 255


def has_named_rows(ax) -> bool:
    """Whether words stand beside the vertical axis, so that a row is known by its place."""
    texts = [t.get_text() for t in ax.get_yticklabels()]
    shared = [t.get_text() for other in ax.get_shared_y_axes().get_siblings(ax)
              for t in other.get_yticklabels()]
    return any(any(letter.isalpha() for letter in text) for text in [*texts, *shared])


def write_sheet(path: Path) -> Path:
    """Four views of a picture, two by two, with their names."""
    from PIL import Image, ImageDraw
    seen = np.asarray(Image.open(path).convert("RGB")) / 255
    high, wide, _ = seen.shape
    sheet = Image.new("RGB", (2 * wide, 2 * (high + 24)), "white")
    write = ImageDraw.Draw(sheet)
    for number, sight in enumerate(SIGHTS):
        x, y = number % 2 * wide, number // 2 * (high + 24)
        view = Image.fromarray((255 * see(seen, sight)).round().astype(np.uint8))
        sheet.paste(view, (x, y + 24))
        write.text((x + 6, y + 6), sight, fill="black")
    target = path.with_suffix(".sight.png")
    sheet.save(target)
    return target


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(write_sheet(Path(name)))
