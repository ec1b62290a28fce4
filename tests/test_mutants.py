"""The mutants of scripts/mutants.py: every kind of change is made, a sample grows without changing, and killed, survived and timed out are told apart."""
import ast
import sys
from collections import Counter

import pytest

from conftest import ROOT

sys.path.insert(0, str(ROOT / "scripts"))
import mutants  # noqa: E402

SOURCE = '''"A module."
from math import floor
__all__ = ["f"]

@staticmethod
def f(x: int = 3, *, quick=True) -> int:
    "Words: 1 < 2."
    if x < 0 and not quick:
        raise ValueError(f"x={x + 1} is too small")
    total = 0
    for i in range(x):
        total += i
        print(i, flush=True)
    return min(total, -x)
'''


def made_of(text):
    return list(mutants.all_mutants("window", text))


def test_every_kind_of_change_is_made_once_and_words_are_left_alone():
    found = made_of(SOURCE)
    changes = [(m.kind, m.before, m.after) for m, _ in found]
    assert {("comparison", "x < 0", "x <= 0"), ("comparison", "x < 0", "x >= 0"), ("and, or", "x < 0 and (not quick)", "x < 0 or not quick"), ("sign or not", "not quick", "quick"),
            ("sign or not", "-x", "x"), ("constant", "0", "1"), ("constant", "3", "4"), ("constant", "3", "2"), ("constant", "True", "False"), ("arithmetic", "total += i", "total -= i"),
            ("name", "min", "max"), ("word dropped", "print(i, flush=True)", "print(i)"), ("statement dropped", "print(i, flush=True)", ""), ("statement dropped", "total += i", ""),
            ("returned", "return min(total, -x)", "return None")} <= set(changes)
    assert any(kind == "condition" and after.startswith("not ") for kind, _, after in changes) and any(kind == "statement dropped" and before.startswith("raise") for kind, before, _ in changes)
    plain = ast.unparse(ast.parse(SOURCE))
    texts = [text for _, text in found]
    assert len(set(texts)) == len(texts) and plain not in texts
    for text in texts:
        for kept in ("'A module.'", "from math import floor", "__all__ = ['f']", "Words: 1 < 2.", "@staticmethod", "x={x + 1} is too small"):
            assert kept in text or "raise" not in text and "too small" in kept
    assert {m.place for m, _ in found} == {"f"} and all(m.line for m, _ in found)


@pytest.mark.parametrize("line, others", [("a // b", ["a / b"]), ("a is None", ["a is not None"]), ("a in b", ["a not in b"]), ("a == b", ["a != b"]), ("a >= b", ["a > b", "a < b"]), ("1.5", ["3.0"]), ("0.0", ["1.0"]),
                                          ("[x for x in a if x]", ["[x for x in a]"]), ("any(a)", ["all(a)"]), ("t.argmax(1)", ["t.argmin(1)", "t.argmax(2)", "t.argmax(0)"]), ("a if b else c", ["a if not b else c"]), ("f'{a + 1}'", []), ("'text'", [])])
def test_changes_of_an_expression(line, others):
    found = [text.removeprefix("x = ") for _, text in made_of(f"x = {line}")]
    assert sorted(found) == sorted(others)


def test_a_larger_sample_holds_the_smaller_and_a_seed_draws_it():
    few, more, other = (mutants.drawn(["window", "store"], n, seed) for n, seed in ((20, 0), (60, 0), (60, 1)))
    assert [m for m, _ in few] == [m for m, _ in more][:20] and {m for m, _ in more} != {m for m, _ in other}
    every = [m for m, _ in mutants.drawn(list(mutants.ROOMS), None, 0)]
    assert len({(m.room, m.number) for m in every}) == len(every) > 400
    assert min(Counter(m.room for m in every).values()) >= 20


def test_the_tests_of_every_room_are_there():
    for module, words in mutants.ROOMS.values():
        assert (ROOT / module).exists() and all((ROOT / word).exists() for word in words if word.startswith("tests/"))


def test_every_named_survivor_is_still_a_mutant():
    every = {(m.room, m.place, m.before, m.after) for m, _ in mutants.drawn(list(mutants.ROOMS), None, 0)}
    named = mutants.named_survivors()
    assert [key for key in named if key not in every] == []
    assert all(len(why.split()) >= 3 for why in named.values())


@pytest.fixture
def little(tmp_path, monkeypatch):
    """A tree with one module and one test."""
    (tmp_path / "tree" / "pack").mkdir(parents=True)
    (tmp_path / "tree" / "tests").mkdir()
    (tmp_path / "tree" / "pack" / "room.py").write_text("def half(n):\n    while n > 4:\n        n -= 1\n    unused = 7\n    return n / 2\n")
    (tmp_path / "tree" / "tests" / "test_room.py").write_text("from pack.room import half\ndef test_half(): assert half(9) == 2\n")
    monkeypatch.setattr(mutants, "ROOMS", {"room": ("pack/room.py", ["tests/test_room.py"])})
    monkeypatch.setattr(mutants, "grace", 1)
    return tmp_path


@pytest.mark.slow
def test_killed_survived_and_timed_out_are_told_apart(little, capfd):
    pairs, out = mutants.drawn(["room"], None, 0, little / "tree"), little / "m.csv"
    mutants.try_all(pairs[:4], out, little / "tree")
    assert len(mutants.read_rows(out)) == 4
    mutants.try_all(pairs, out, little / "tree")
    rows = mutants.read_rows(out)
    assert len(rows) == len(pairs), "it goes on where it was stopped"
    outcome = {(row["before"], row["after"]): row["outcome"] for row in rows}
    assert outcome["7", "8"] == outcome["7", "6"] == "survived" and outcome["n / 2", "n * 2"] == "killed" and outcome["n > 4", "n <= 4"] == "killed"
    assert outcome["n -= 1", "n += 1"] == outcome["n -= 1", ""] == "timeout"
    said = mutants.report(rows, {("room", "half", "7", "8"): "nobody reads it"})
    assert "nobody reads it" in said and "NOT NAMED" in said and f"{len(rows):5d} tried" in said
    assert (little / "tree" / "pack" / "room.py").read_text().count("n > 4") == 1, "the tree itself is left alone"


def test_tests_that_fail_unchanged_judge_nothing(little, capfd):
    (little / "tree" / "tests" / "test_room.py").write_text("def test_half(): assert False\n")
    with pytest.raises(SystemExit, match="room was not finished"): mutants.try_all(mutants.drawn(["room"], None, 0, little / "tree"), little / "m.csv", little / "tree")
    assert "do not pass unchanged" in capfd.readouterr().out and not (little / "m.csv").exists()
