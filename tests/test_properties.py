"""Properties over many drawn cases (hypothesis): selections, windows, splits, draws, stores, fingerprints."""
import tempfile
from pathlib import Path

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from selmatch.core import fingerprint, load_tensors, read_json, save_tensors, write_json
from selmatch.data.images import ImageSet, split_rows
from selmatch.select.window import select, window
from selmatch.study.store import Store, pack, unpack
from selmatch.train.augment import Augmentation, apply, draw

few = settings(max_examples=25, deadline=None, derandomize=True)
sizes = st.lists(st.integers(3, 9), min_size=2, max_size=4)        # of the classes
seeds = st.integers(0, 2**31 - 1)


def images(sizes, seed):
    """A set with classes of these sizes in drawn order."""
    labels = torch.cat([torch.full((n,), c) for c, n in enumerate(sizes)])
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))]
    return ImageSet(torch.zeros(len(labels), 1, 2, 2), labels, tuple(map(str, range(len(sizes)))), (0.0,), (1.0,))


@few
@given(sizes, seeds, st.integers(1, 3), st.floats(0, 1))
def test_a_window_is_a_run_of_neighbours_by_difficulty(sizes, seed, ipc, share):
    data = images(sizes, seed)
    difficulty = torch.rand(len(data), generator=torch.Generator().manual_seed(seed)).double()
    beta = share * (1 - max(ipc / n for n in sizes))
    rows = window(data, ipc, difficulty=difficulty, beta=max(beta, 0.0))
    assert len(set(rows.tolist())) == ipc * len(sizes)
    for c in range(len(sizes)):
        mine = rows[c * ipc:(c + 1) * ipc]
        assert (data.labels[mine] == c).all(), "class by class"
        chosen = difficulty[mine]
        assert (chosen.diff() <= 0).all(), "hardest first"
        every = difficulty[data.labels == c]
        assert int(((every <= chosen.max()) & (every >= chosen.min())).sum()) == ipc, "without gaps"


@few
@given(sizes, seeds, st.integers(1, 3))
def test_selections_are_balanced_and_the_same_for_one_seed(sizes, seed, ipc):
    data = images(sizes, seed)
    difficulty = torch.rand(len(data), generator=torch.Generator().manual_seed(seed)).double()
    for name, words in {"random": lambda: {"generator": torch.Generator().manual_seed(seed)}, "hardest": lambda: {"difficulty": difficulty}, "easiest": lambda: {"difficulty": difficulty}}.items():
        one, two = (select(name, data, ipc, **words()) for _ in range(2))
        assert torch.equal(one, two)
        assert torch.bincount(data.labels[one], minlength=len(sizes)).tolist() == [ipc] * len(sizes)
        assert len(set(one.tolist())) == len(one)


@few
@given(sizes, st.floats(0, 0.95), seeds)
def test_a_split_loses_no_row_and_takes_the_same_share_of_each_class(sizes, share, seed):
    labels = images(sizes, seed).labels
    stay, held = split_rows(labels, share, seed)
    assert sorted([*stay.tolist(), *held.tolist()]) == list(range(len(labels)))
    assert torch.bincount(labels[held], minlength=len(sizes)).tolist() == [round(share * n) for n in sizes]
    assert all(map(torch.equal, (stay, held), split_rows(labels, share, seed)))


@few
@given(seeds, st.integers(1, 5))
def test_a_draw_is_replayed_and_linear_in_the_images(seed, n):
    how = Augmentation("dsa", ("scale", "rotate", "crop", "cutout", "flip"))
    x = torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    y = torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64)
    one, two = (draw(how, n, torch.Generator().manual_seed(seed)) for _ in range(2))
    assert torch.equal(apply(x, one), apply(x, two)), "replay"
    assert torch.allclose(apply(2 * x - 3 * y, one), 2 * apply(x, one) - 3 * apply(y, one), atol=1e-9), "geometry is linear, so that its adjoint exists"


plain = st.recursive(st.none() | st.booleans() | st.integers(-2**53, 2**53) | st.floats(allow_nan=False) | st.text(max_size=8),
                     lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3), max_leaves=8)


@few
@given(plain)
def test_what_is_stored_comes_back(value):
    tensors = {}
    assert unpack(pack(value, tensors), tensors) == value
    with tempfile.TemporaryDirectory() as room:
        store = Store(Path(room))
        store.save("ab", {"value": value, "x": torch.arange(3)})
        found = store.load("ab")
        assert found["value"] == value
        assert found["x"].tolist() == [0, 1, 2]
        write_json(Path(room) / "n.json", {"value": value})
        assert read_json(Path(room) / "n.json") == {"value": value}


@few
@given(st.lists(st.integers(0, 4), min_size=0, max_size=3), st.sampled_from([torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool]))
def test_tensors_of_every_kind_come_back(shape, dtype):
    tensor = torch.ones(shape).to(dtype)
    with tempfile.TemporaryDirectory() as room:
        by_row = ["a"] if shape else []
        save_tensors(Path(room) / "t.safetensors", {"a": tensor}, {"shape": shape}, by_row=by_row)
        found, card = load_tensors(Path(room) / "t.safetensors", sealed=True)
    assert found["a"].dtype == dtype and torch.equal(found["a"], tensor) and card == {"shape": shape}


@few
@given(st.lists(st.binary(max_size=6), min_size=2, max_size=2))
def test_fingerprints_agree_exactly_when_contents_do(pair):
    a, b = (np.frombuffer(x, dtype=np.uint8) for x in pair)
    assert (fingerprint(a) == fingerprint(b)) == (pair[0] == pair[1])
    assert fingerprint([a, b]) != fingerprint([np.concatenate([a, b])])
