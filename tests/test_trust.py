"""Nothing is trusted blindly: planted pickles never run, and a byte that is flipped, zeroed, cut or added is found or changes nothing."""
import json
import os
import pickle
import random
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from conftest import ROOT
from selmatch.core import DamagedFile, InputError, fingerprint, home, load_tensors, read_json, save_tensors, write_json
from selmatch.data.images import StoredImages, compare_pixels, map_tensors, write_pixels
from selmatch.data.loaders import decode_once, load_digits
from selmatch.distill.experts import Trajectory, open_expert
from selmatch.distill.sets import SyntheticSet, distilled_mask, load_set, save_set
from selmatch.select.scores import load_difficulty, read_arrays
from selmatch.show.bench import load_bench
from selmatch.show.figures import read_card, write_gallery
from selmatch.study.store import Store, sweep_once
from selmatch.train.networks import FlatNetwork, make_network
from test_durable import SPEC, TRAIN, bits, tiny_experts, tiny_run, tiny_set
from test_input import refuses


@pytest.fixture(autouse=True)
def no_words():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def mutate(data, chance):
    """One byte flipped, zeroed, cut away or added, or the end cut off."""
    place, way = chance.randrange(len(data)), chance.choice(["flip", "zero", "cut", "add", "end"])
    if way == "flip": return data[:place] + bytes([data[place] ^ 1 << chance.randrange(8)]) + data[place + 1:]
    if way == "zero": return data[:place] + b"\0" + data[place + 1:]
    if way == "cut": return data[:place] + data[place + 1:]
    if way == "add": return data[:place] + bytes([chance.randrange(256)]) + data[place:]
    return data[:place]


def flat():
    return FlatNetwork(make_network(SPEC, TRAIN.shape, 10, 0))


def small_set(n=2):
    rows = torch.cat([torch.nonzero(TRAIN.labels == c).flatten()[:n] for c in range(10)])
    return SyntheticSet(TRAIN.subset(rows), distilled_mask(10, n, 0.5), 0.02, {"method": "dm"})


def read_decoded(path):
    """What a study sees of decoded data: it is compared, then normalised."""
    map_tensors.cache_clear()
    compare_pixels(str(path))
    stored = map_tensors(str(path))
    return [StoredImages(str(path), torch.arange(6)).tensor(), stored["labels"], stored["sums"], stored["digests"]]


def make_file(kind, folder):
    """A file of one kind, and the way it is read: -> (path, path -> what it says)."""
    folder.mkdir(parents=True, exist_ok=True)
    if kind == "result":
        Store(folder).save("ab12", {"x": torch.arange(5.0), "n": 3, "text": "words"})
        return Store(folder).file("ab12"), lambda path: Store(folder).load("ab12")
    if kind == "set":
        save_set(small_set(), folder / "set")
        return folder / "set" / "set.safetensors", lambda path: (lambda s: [s.data.images, s.data.labels, s.distilled, s.lr, s.card])(load_set(path.parent))
    if kind == "expert":
        theta = torch.randn(3, flat().n_params, generator=torch.Generator().manual_seed(0))
        card = {"kept": [0, 2, 3], "layout": [[name, list(shape)] for name, shape in flat().layout]}
        save_tensors(folder / "e.safetensors", {"theta": theta}, card, by_row=["theta"])
        return folder / "e.safetensors", lambda path: (lambda e: [e[t] for t in (0, 2, 3)] + [e.card])(open_expert(path, flat()))
    if kind == "decoded":
        pixels = torch.randint(0, 256, (6, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        write_pixels(folder / "d.safetensors", pixels, labels=torch.arange(6))
        return folder / "d.safetensors", read_decoded
    if kind == "note":
        write_json(folder / "n.json", {"seconds": 12.5, "history": "ab"})
        return folder / "n.json", read_json
    raise AssertionError(kind)


KINDS = ["result", "set", "expert", "decoded", "note"]


def check_mutations(kind, folder, n, seed=0):
    """Every mutation gives the same, or a refusal that names the file."""
    path, read = make_file(kind, folder)
    data, chance, refused = path.read_bytes(), random.Random(seed), 0
    expected = fingerprint(read(path))
    for i in range(n):
        path.write_bytes(mutate(data, chance))
        try:
            assert fingerprint(read(path)) == expected, f"{kind}: mutation {i} changed what is read"
        except InputError as error:
            refused += 1
            assert path.name in str(error) or path.parent.name in str(error), error
    path.write_bytes(data)
    return refused


@pytest.mark.parametrize("kind", KINDS)
def test_a_changed_byte_is_found_or_changes_nothing(kind, tmp_path):
    assert check_mutations(kind, tmp_path, 40) > 25


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_two_thousand_changed_bytes_are_found_or_change_nothing(kind, tmp_path):
    assert check_mutations(kind, tmp_path, 2000, seed=1) > 1500


@pytest.mark.parametrize("kind", ["set", "expert"])
def test_a_changed_letter_does_not_make_a_file_one_of_others(kind, tmp_path):
    """Files of others need no digests; ours are not taken for such where the word before the digests is changed."""
    path, read = make_file(kind, tmp_path)
    data = path.read_bytes()
    at = data.index(b"sealed")
    for place in range(at, at + 6):
        for other in (data[:place] + bytes([data[place] ^ 1]) + data[place + 1:], data[:place] + b"_" + data[place + 1:], data[:place] + data[place].to_bytes().upper() + data[place + 1:]):
            path.write_bytes(other)
            with refuses(path.name, "digests stand under another name"): read(path)
    path.write_bytes(data)
    read(path)


# ---------------------------------------------------------------- damage in a home is mended

@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    tiny_run(folder)
    return folder


def check_mended(whole, folder, n, seed):
    files = sorted(p.relative_to(whole) for p in whole.rglob("*") if p.is_file() and p.name != "card.json")
    expected, chance = {k: v for k, v in bits(whole).items()}, random.Random(seed)
    for i in range(n):
        name, mine = chance.choice(files), folder / str(i)
        shutil.copytree(whole, mine)
        (mine / name).write_bytes(mutate((mine / name).read_bytes(), chance))
        sweep_once.cache_clear()
        results, task = tiny_run(mine)
        task.last()
        sweep_once.cache_clear()
        sweep_once(mine)                                # as the next command does: a paused checkpoint may be left
        if name.parts[0] != "experts":                  # their rows are compared when somebody follows them
            assert bits(mine) == expected, f"{name} was not mended"
        else:
            try:
                assert all(torch.equal(Trajectory(mine / name)[t], Trajectory(whole / name)[t]) for t in range(4))
            except DamagedFile as error:
                assert name.name in str(error)


def test_damage_in_a_home_is_set_aside_and_made_again(whole, tmp_path):
    check_mended(whole, tmp_path, 12, seed=0)


@pytest.mark.slow
def test_damage_anywhere_in_a_home_is_mended(whole, tmp_path):
    check_mended(whole, tmp_path, 200, seed=1)


def test_a_missing_last_set_is_not_replaced_by_the_one_before(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "home")
    task = tiny_set(tmp_path / "home")
    assert task.done and task.last().card["iteration"] == 8
    shutil.rmtree(task.at(8))
    assert not task.done
    with refuses("at_000008", "again"): task.last()
    tiny_run(tmp_path / "home")
    assert task.last().card["iteration"] == 8
    assert bits(tmp_path / "home") == bits(whole)


def test_decoded_data_that_were_changed_are_decoded_again(tmp_path):
    pixels = torch.randint(0, 256, (6, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    source = tmp_path / "source"
    source.write_text("x")
    decode = lambda: decode_once([str(source)], lambda path: write_pixels(path, pixels), "x", tmp_path / "cache")
    path = Path(decode())
    good = path.read_bytes()
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    map_tensors.cache_clear()
    with pytest.warns(UserWarning, match="decoded anew"): decode()
    assert path.read_bytes() == good
    assert torch.equal(map_tensors(str(path))["pixels"], pixels)


def test_decoded_data_are_compared_once_for_each_state(tmp_path, monkeypatch):
    from selmatch.data import images
    path, read = make_file("decoded", tmp_path)
    asked = []
    theirs = images.digest_images
    monkeypatch.setattr(images, "digest_images", lambda pixels: asked.append(1) or theirs(pixels))
    for _ in range(3): compare_pixels(str(path))
    assert len(asked) == 1
    os.utime(path, (1, 1))                        # a copy that sets the time back is asked, too
    compare_pixels(str(path))
    assert len(asked) == 2
    compare_pixels(str(path), again=True)
    assert len(asked) == 3


# ---------------------------------------------------------------- planted pickles

class Trap:
    def __init__(self, place): self.place = place
    def __reduce__(self): return os.mkdir, (str(self.place),)


def plant(path, trap):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(trap))


def test_a_planted_pickle_never_runs(whole, tmp_path):
    """In place of every file of a home, of a set, an expert, decoded data, scores, a bench, a gallery, and of a torch file."""
    trap, place = Trap(tmp_path / "it ran"), tmp_path / "it ran"
    mine = tmp_path / "home"
    shutil.copytree(whole, mine)
    for path in [p for p in mine.rglob("*") if p.is_file()]: plant(path, trap)
    sweep_once.cache_clear()
    tiny_run(mine)
    assert {k: v for k, v in bits(mine).items()} == bits(whole)
    for name, read in {"set/set.safetensors": lambda p: load_set(p.parent), "e.safetensors": lambda p: open_expert(p, flat()), "n.json": read_json,
                       "d.safetensors": lambda p: compare_pixels(str(p)), "scores.npy": read_arrays, "scores.npz": read_arrays, "scores.pt": read_arrays,
                       "bench.json": lambda p: load_bench(p, {})}.items():
        plant(tmp_path / name, trap)
        with pytest.raises(InputError): read(tmp_path / name)
    np.save(tmp_path / "objects.npy", np.array([trap], dtype=object), allow_pickle=True)
    with pytest.raises(InputError): read_arrays(tmp_path / "objects.npy")
    torch.save({"theta": trap}, tmp_path / "expert.pt")
    with pytest.raises(InputError): open_expert(tmp_path / "expert.pt", flat())
    plant(tmp_path / "fig3_window.json", trap)
    assert read_card(tmp_path / "fig3_window.json") is None
    assert not place.exists()
    assert pickle.loads(pickle.dumps(trap)) is None and place.exists(), "the trap works"


def test_results_are_not_looked_for_where_one_stands(tmp_path):
    """A folder that a stranger packed, with a home in it: whoever stands there has their own."""
    (tmp_path / ".selmatch" / "results").mkdir(parents=True)
    (tmp_path / "settings.ini").write_text("[DEFAULT]\nlib_name = selmatch\n")
    (tmp_path / "nbs").mkdir()
    code = "from selmatch.core import home; print(home())"
    words = {k: v for k, v in os.environ.items() if k != "SELMATCH_HOME"} | {"PYTHONPATH": str(ROOT), "XDG_DATA_HOME": str(tmp_path / "user")}
    ask = lambda cwd, **more: subprocess.run([sys.executable, "-c", code], cwd=cwd, env=words | more, capture_output=True, text=True, check=True).stdout.strip()
    assert ask(tmp_path) == str(tmp_path / "user" / "selmatch") or sys.platform != "linux"
    assert str(tmp_path / ".selmatch") != ask(tmp_path)
    assert ask(ROOT / "nbs") == str(ROOT / ".selmatch")
    assert ask(tmp_path, SELMATCH_HOME=str(tmp_path / "mine")) == str(tmp_path / "mine")


# ---------------------------------------------------------------- files of strangers

def test_sets_that_cannot_be_are_refused(tmp_path):
    save_set(small_set(), tmp_path)
    tensors, card = load_tensors(tmp_path / "set.safetensors")
    def other(words={}, **parts):
        save_tensors(tmp_path / "set.safetensors", tensors | parts, card | words)
        return load_set(tmp_path)
    assert other().data.labels.equal(tensors["labels"])
    with refuses("labels", "20 class numbers"): other(labels=tensors["labels"][1:])
    with refuses("labels go from", "10 classes"): other(labels=tensors["labels"] + 1)
    with refuses("labels", "int32"): other(labels=tensors["labels"].int())
    with refuses("soft labels"): other(labels=torch.full((20, 10), -0.1))
    with refuses("image 0", "not finite"): other(images=tensors["images"] * float("nan"))
    with refuses("images", "int64"): other(images=tensors["images"].long())
    with refuses("images", "(20, 64)"): other(images=tensors["images"].flatten(1))
    with refuses("distilled", "20 times"): other(distilled=tensors["distilled"][1:])
    for word, value in {"lr": -0.1, "std": [0.0], "mean": [float("inf")], "classes": "abc"}.items():
        with refuses(word): other({word: value})
    with refuses("lr"): other({"lr": [0.1, float("nan")]})
    with refuses("one name"): other({"classes": ["a"] * 10})
    with refuses("channel"): other({"mean": [0.1, 0.2]})


def test_a_card_that_is_no_json_is_named(tmp_path):
    for text in ("no json", "[1]", "{" * 100_000, "null"):
        save_file({"theta": torch.zeros(2, 3)}, tmp_path / "e.safetensors", metadata={"card": text})
        with refuses("e.safetensors", "card"): Trajectory(tmp_path / "e.safetensors").card


def test_a_file_of_others_needs_no_digests_but_a_result_does(tmp_path):
    save_set(small_set(), tmp_path)
    tensors, card = load_tensors(tmp_path / "set.safetensors")
    save_file(tensors, tmp_path / "set.safetensors", metadata={"card": json.dumps(card)})
    assert load_set(tmp_path).data.images.equal(tensors["images"])
    with refuses("no digests"): load_tensors(tmp_path / "set.safetensors", sealed=True)


def test_score_files_that_are_none(tmp_path, monkeypatch):
    from selmatch.select import scores
    monkeypatch.setattr(scores, "largest_scores", 2**20)
    for name, save in {"bomb.npz": np.savez_compressed, "large.npy": np.save}.items():
        save(tmp_path / name, np.zeros(2**20))
        with refuses(name, "bytes"): read_arrays(tmp_path / name)
    assert (tmp_path / "bomb.npz").stat().st_size < 20_000
    np.savez_compressed(tmp_path / "good.npz", scores=np.arange(400.0))
    good = (tmp_path / "good.npz").read_bytes()
    for place in range(30, len(good) - 30, 23):
        (tmp_path / "bad.npz").write_bytes(good[:place] + bytes([good[place] ^ 255]) + good[place + 1:])
        try: read_arrays(tmp_path / "bad.npz")
        except InputError: pass
    np.save(tmp_path / "zero.npy", np.float64(3))
    with refuses("zero.npy"): load_difficulty(tmp_path / "zero.npy", "forgetting", TRAIN)
    np.save(tmp_path / "text.npy", np.array(["a", "b"]))
    with refuses("text.npy", "numbers"): load_difficulty(tmp_path / "text.npy", "forgetting", TRAIN)


def test_a_bench_file_that_is_none(tmp_path):
    for text in ("", "[]", "{}", '{"done": [], "rows": 3}', '{"done": [], "rows": [3]}', "\udcff"):
        (tmp_path / "b.json").write_text(text, errors="surrogateescape")
        with refuses("b.json", "bench"): load_bench(tmp_path / "b.json", {})


def test_a_gallery_shows_no_markup_and_no_broken_card(tmp_path):
    card = {"figure": "fig3_window", "caption": "<script>alert(1)</script>", "profile": {"name": "<b>", "title": "t\"><i>", "seed": 0},
            "versions": {"selmatch": "1", "torch": "2"}, "data": {"fingerprint": "ab"},
            "claims": [{"sentence": "<img src=x>", "verdict": "<u>", "gap": 1.0, "half": None, "p_holm": 0.1, "sets": 2}]}
    (tmp_path / "fig3_window.json").write_text(json.dumps(card))
    for name, text in {"tab1_accuracy": "", "fig1_coverage": "[]", "fig2_method": json.dumps(card | {"figure": "fig2_method", "profile": {}}),
                       "tab4_cost": json.dumps(card | {"figure": "tab4_cost", "claims": [{"sentence": 3}]})}.items():
        (tmp_path / f"{name}.json").write_text(text)
        assert read_card(tmp_path / f"{name}.json") is None
    page = write_gallery(tmp_path).read_text()
    assert "&lt;script&gt;alert(1)" in page and "&lt;img src=x&gt;" in page
    for mark in ("<script", "<b>", "<i>", "<u>", "<img src=x"): assert mark not in page
    (tmp_path / "fig3_window.json").write_text("")
    with refuses(tmp_path, "no figure"): write_gallery(tmp_path)


def page_of(*cells):
    import nbformat
    from selmatch.show.figures import make_page
    return make_page(nbformat.v4.new_notebook(cells=list(cells)), "fig")


def output_of(kind, text):
    import nbformat
    return nbformat.v4.new_code_cell("1", outputs=[nbformat.v4.new_output("display_data", {kind: text})])


@pytest.mark.parametrize("bad", ["<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "<a href='javascript:alert(1)'>x</a>", "<a href=' DATA:text/html,alert(1)'>x</a>",
                                 "<img src='data:image/svg+xml;base64,alert(1)'>", "<iframe src='alert(1)'></iframe>", "<p style='x:alert(1)'>x</p>", "<svg onload=alert(1)></svg>", "<SCRIPT\n>alert(1)</SCRIPT >"])
def test_an_executed_page_runs_no_script(bad):
    import nbformat
    cells = [output_of("text/markdown", f"**What differs**: {bad}"), output_of("text/html", bad), nbformat.v4.new_markdown_cell(bad), output_of("image/svg+xml", bad)]
    body = page_of(*cells).partition("<body")[2]
    assert not re.search(r"(=\s*['\"]?[^'\"<>]*alert|<script[^>]*>\s*alert|<iframe|<svg)", body)


def test_an_executed_page_shows_what_the_notebook_shows():
    """Headings, paragraphs, tables, pictures: none of them as text between brackets."""
    import nbformat
    for path in sorted((ROOT / "figures" / "digits").glob("*.ipynb"))[:4]:
        book = nbformat.read(path, 4)
        page = page_of(*book.cells)
        assert page.count("<h1") == 1 and "<p>" in page
        assert not re.search(r"&lt;/?(p|h1|h2|table|td|th|style|img|li)\b", page), path.name
        assert page.count('src="data:image/png;base64,') == sum("image/png" in o.get("data", {}) for c in book.cells for o in c.get("outputs", []))
    rows = page_of(output_of("text/html", "<style scoped>td {x: y}</style><table class='dataframe'><thead><tr><th>a</th></tr></thead><tbody><tr><td colspan='2'>1</td></tr></tbody></table>"))
    assert "<thead>" in rows and 'colspan="2"' in rows and "td {x: y}" not in rows
    assert '<a href="tab1_accuracy.html">' in page_of(nbformat.v4.new_markdown_cell("[table](tab1_accuracy.html)"))
