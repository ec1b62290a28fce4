"""The protocol of objectives: what each declares, who is in the register, and what no study can give."""
from dataclasses import dataclass, fields
from typing import ClassVar

import pytest

from selmatch.core import InputError, fingerprint
from selmatch.distill.objectives import Objective, objectives, register, supplies
from selmatch.distill.trajectories import TrajectoryMatching
from selmatch.methods import load_registers

load_registers()                     # every family of the package enters its own
NAMES = ["trajectory", "tesla", "ftd", "datm", "dc", "dsa", "dm", "kip", "frepo", "dd"]
MATCHING = {
    "iterations": 60, "n_steps": 5, "expert_epochs": 2, "max_start": 9,
    "batch": 32, "precision": "float32", "lr_images": 100.0, "compile": "auto",
}
FIVE = {word: MATCHING[word] for word in ("n_steps", "expert_epochs", "max_start", "batch", "precision")}


@pytest.mark.parametrize("name", NAMES)
def test_the_register_holds_classes_that_declare_what_they_need(name):
    kind = objectives[name]
    assert isinstance(kind, type)
    assert issubclass(kind, Objective)
    words = {f.name for f in fields(kind)}
    assert set(kind.needs) <= set(supplies)
    assert {supplies[need] for need in kind.needs} <= words
    assert set(kind.matching_words(MATCHING, 60)) <= words


@pytest.mark.parametrize("name, needs", [
    ("trajectory", {"network", "experts"}), ("tesla", {"network", "experts"}),
    ("ftd", {"network", "flat experts"}), ("datm", {"network", "flat experts"}),
    ("dc", {"network", "train"}), ("dsa", {"network", "train"}), ("dm", {"network", "train"}),
    ("kip", {"train"}), ("frepo", {"network", "train"}), ("dd", {"network", "train"}),
])
def test_needs(name, needs):
    assert set(objectives[name].needs) == needs


def test_defaults_from_the_section_matching():
    for name in ("trajectory", "tesla", "ftd"):
        assert objectives[name].matching_words(MATCHING, 60) == FIVE
    bounds = {"min_start": 0, "first_max_start": 4, "expansion_end": 30}
    assert objectives["datm"].matching_words(MATCHING, 60) == FIVE | bounds
    assert objectives["datm"].matching_words(MATCHING | {"max_start": 1}, 1)["first_max_start"] == 1
    for name in ("dc", "dsa", "dm", "kip", "frepo", "dd"):
        assert objectives[name].matching_words(MATCHING, 60) == {}


def test_a_class_and_its_parent_with_the_same_words_have_other_identities():
    family = [objectives[name]({}, ("room/expert_000",)) for name in ("trajectory", "tesla", "ftd")]
    assert len({fingerprint(one.identity()) for one in family}) == 3
    assert [one.identity()["objective"] for one in family] == ["TrajectoryMatching", "TESLA", "FTD"]
    elsewhere = TrajectoryMatching({}, ("/another/place/room/expert_000",))
    assert elsewhere.identity() == family[0].identity()


@pytest.mark.parametrize("asked, message", [
    (("weather",), "need of Odd 'weather'.*network"),
    (("train",), "word of Odd, which needs train, 'train'.*network"),
])
def test_a_class_that_needs_what_no_study_gives_is_not_registered(asked, message):
    @dataclass(frozen=True)
    class Odd(Objective):
        network: dict
        needs: ClassVar[tuple[str, ...]] = asked

    with pytest.raises(InputError, match=message):
        register("odd")(Odd)
    assert "odd" not in objectives


def test_a_class_that_says_nothing_is_refused_when_it_runs():
    with pytest.raises(NotImplementedError, match="Objective does not say how it runs"):
        Objective().start(None)
