"""The card where the usual is not asked: options, whitening, sizes and rules that a reader must be told."""
import re
import shlex
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import selmatch as sm
from selmatch.core import InputError
from selmatch.data.images import class_rows
from selmatch.data.loaders import load_digits
from selmatch.show import card
from selmatch.study import shrink
from selmatch.study.profile import load_profile

QUICK = {"evaluation.steps": 4, "network.width": 4, "network.depth": 1, "experts.n": 1, "experts.epochs": 16, "matching.iterations": 1,
         "score.epochs": 2, "score.runs": 1, "window.step": 0.5, "window.n": 1, "evaluation.n": 2, "proxy.epochs": 1}


def write_noise(folder, counts, shape=(8, 8), seed=0):
    rng = np.random.default_rng(seed)
    for c, n in counts.items():
        (folder / c).mkdir(parents=True, exist_ok=True)
        for i in range(n): Image.fromarray(rng.integers(0, 256, (*shape, 3), dtype=np.uint8)).save(folder / c / f"{i:03d}.png")
    return folder


def read(folder, room, **words):
    return sm.from_folder(folder, **{"size": 8, "quiet": True, "workers": 1, "results": room / "home", "words": QUICK} | words)


def small_of(folder, room, **words):
    """`shrink` by the least effort, and the text of its card."""
    out = room / "small"
    how = {"size": 8, "quiet": True, "workers": 1, "results": room / "home", "words": QUICK} | words
    if not isinstance(folder, sm.Data): how = {"ratio": 0.2, "budget": 1e-3, "flips": False, "tell": lambda line: None} | how
    else: how = {"ratio": 0.2, "budget": 1e-3, "flips": False, "tell": lambda line: None}
    found = sm.shrink(folder, out, **how)
    return found, (out / "README.md").read_text(encoding="utf-8")


# ---------------------------------------------------------------- what was given

def test_what_is_left_out_does_not_turn_a_held_out_test_set_into_its_own(tmp_path):
    folder = write_noise(tmp_path / "mine", {"a": 40, "b": 40, "c": 40})
    data = read(folder, tmp_path, classes=["a", "b"])
    assert data.given == (40, 40) and data.sizes(ratio=0.1).small == (4, 4)
    assert "80 images given = 20 for testing" in shrink.say_sizes(data.sizes(ratio=0.1))
    assert sum(shrink.count_given(load_digits(per_class=20))) == 200
    assert sum(read(folder, tmp_path, per_class=20).given) == 60


def test_a_test_set_that_came_along_is_not_given_even_where_the_numbers_agree(tmp_path):
    """train/ 3 × 30 and test/ 3 × 15, two classes: 60 + 30 = 90 is also the number of all training images."""
    write_noise(tmp_path / "mine" / "train", dict.fromkeys("abc", 30))
    write_noise(tmp_path / "mine" / "test", dict.fromkeys("abc", 15), seed=1)
    data = read(tmp_path / "mine", tmp_path, classes=["a", "b"])
    assert sum(data.given) == 60 and "30 of its own for testing" in shrink.say_sizes(data.sizes(ratio=0.1))


def test_a_pickle_from_before_is_read():
    import pickle
    splits = load_digits(per_class=4)
    assert pickle.loads(pickle.dumps(splits)).held_out
    words = {name: value for name, value in splits.__dict__.items() if name != "held_out"}
    old = object.__new__(type(splits))
    old.__dict__.update(words)
    assert old.held_out is False and shrink.count_given(old)


# ---------------------------------------------------------------- choosing where classes differ

@pytest.fixture(scope="module")
def uneven(tmp_path_factory):
    x, y = np.random.default_rng(0).random((90, 8, 8)).astype("float32"), np.array(([0] * 3 + [1] + [2] * 2) * 15)
    return sm.from_arrays(x, y, quiet=True, workers=1, results=tmp_path_factory.mktemp("home"), words=QUICK)


@pytest.mark.parametrize("order", ["sorted", "reversed"])
def test_a_rule_of_ones_own_may_give_its_rows_in_any_order(order, uneven):
    def mine(data, ipc):
        rows = [rows[:ipc] for rows in class_rows(data)]
        return torch.cat(rows).sort().values if order == "sorted" else torch.cat(rows[::-1])
    small = sm.select(uneven, mine, ratio=0.3)
    asked = uneven.sizes(ratio=0.3).small
    assert len(set(asked)) == 3 and tuple(torch.bincount(small.labels).tolist()) == asked == tuple(small.card["ipc"])
    assert len(set(small.rows.tolist())) == sum(asked)


def test_a_rule_that_takes_another_number_is_named(uneven):
    def stingy(data, ipc): return torch.cat([rows[:ipc - 1] for rows in class_rows(data)])
    with pytest.raises(InputError, match="'stingy' took . images of class '0'"): sm.select(uneven, stingy, per_class=3)


def test_parted_evidence_keeps_its_validation_images(uneven):
    seen = uneven.study.evidence()
    part = shrink.take_rows({"evidence": seen}, torch.arange(5))["evidence"]
    assert len(part.labels) == 5 and part.validation is seen.validation is not None


# ---------------------------------------------------------------- judging

def test_a_set_called_like_what_stands_beside_is_judged_too(uneven):
    mine = sm.select(uneven, "hardest", per_class=2).made
    names = {"random": mine, "random (given)": mine, "all training images": mine}
    rows = shrink.judge_sets(uneven.study, names, draws=1, full=True, n=1)
    images = dict(zip(rows["set"], rows.images))
    assert images == {"random (given) (given)": 6, "random (given)": 6, "all training images (given)": 6, "random": 6, "all training images": len(uneven.train)}
    assert shrink.judge_sets(uneven.study, {"random": mine}, n=1)["set"].tolist() == ["random"]


def test_labels_that_a_teacher_gives_in_every_step_are_asked_for(uneven, monkeypatch):
    from selmatch.study.study import Study
    seen, run = [], Study.run_trials
    def spy(self, work, label):
        seen.extend((t.tags["set"], t.loss) for t in work)
        return run(self, work, label)
    monkeypatch.setattr(Study, "run_trials", spy)
    small = sm.select(uneven, "random-online", per_class=2)
    seen.clear()
    sm.evaluate(small, uneven, networks=1, draws=1)
    assert dict(seen) == {"small": uneven.study.taught, "random": None}


# ---------------------------------------------------------------- settings

def test_what_somebody_named_stays_whatever_the_effort():
    named = frozenset({"score.epochs", "window.step", "evaluation.n"})
    p = sm.api.change_words(load_profile("folder"), {"score.epochs": 3, "window.step": 0.25, "evaluation.n": 4})
    for effort in shrink.efforts:
        q = shrink.apply_effort(p, shrink.replace(effort, named=named))
        assert (q.score.epochs, q.window.step, q.evaluation.n) == (3, 0.25, 4) and (q.score.runs, q.window.n) == (effort.watched, effort.scan)
        assert shrink.apply_effort(p, effort).score.epochs == effort.epochs
    assert card.named_words(p) == named and card.named_words(load_profile("digits")) == frozenset()


def test_shrinking_keeps_what_was_set_and_refuses_what_it_cannot_do(tmp_path):
    folder, said = write_noise(tmp_path / "mine", {"a": 30, "b": 30}), []
    plan = {"only_plan": True, "tell": said.append}
    small_words = {"size": 8, "quiet": True, "workers": 1, "results": tmp_path / "home"}
    sm.shrink(folder, tmp_path / "small", words=QUICK | {"score.runs": 7}, **plan, **small_words)
    assert re.search(r"watch networks learn +7 ×", "\n".join(said)), said
    with pytest.raises(InputError, match="seeds=3"): sm.shrink(folder, tmp_path / "small", words={"seeds": 3}, **plan, **small_words)
    with pytest.raises(InputError, match="size cannot be given"): sm.shrink(read(folder, tmp_path), tmp_path / "small", size=16, **plan)
    with pytest.raises(InputError, match="data is a int"): sm.shrink(5, tmp_path / "small")
    with pytest.raises(InputError, match="lie in each other"): sm.shrink(read(folder, tmp_path), folder / "small", **plan)
