"""Sets under other networks, what distilling changed, and ours beside the published numbers."""
from dataclasses import replace

import pandas as pd
import pytest

from selmatch.study import tables
from selmatch.core import InputError
from selmatch.show.published import beside_published, published_accuracies
from selmatch.study.profile import load_profile
from selmatch.study.study import Study
from selmatch.study.tables import spread
from selmatch.computer import Computer

TINY = {"network": {"name": "ConvNet", "width": 4, "depth": 1, "norm": "none"}, "n": 3, "steps": 5, "lr": 0.1}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    profile = load_profile("smoke", transfer={"tiny": TINY})
    return Study(replace(profile, ratios=(0.3,)), Computer(quiet=True), tmp_path_factory.mktemp("home"))


def test_the_table_has_every_network_and_every_set(study):
    table, judges = tables.transfer(study, ["random", "mtt"]), study.judges
    assert list(table.network.unique()) == ["its own", "tiny"]
    assert list(table.method.unique()) == ["Random", "MTT", "Full data"]
    for title, judge in judges.items():
        rows = table[table.network == title]
        assert rows.groupby("method").size().to_dict() == {"Random": 2 * judge.n, "MTT": 2 * judge.n, "Full data": judge.n}
    assert judges["tiny"].lr == 0.1
    assert judges["tiny"].momentum == judges["its own"].momentum
    assert not table.isna().any().any()
    assert table[table.network == "its own"].test_accuracy.tolist()[:-2] == tables.accuracies(study, ["random", "mtt"]).test_accuracy.tolist()      # the same networks
    assert table[(table.network == "its own") & (table.method == "Full data")].test_accuracy.tolist() == tables.full_accuracy(study).test_accuracy.tolist()


def test_a_second_call_trains_nothing(study, monkeypatch):
    table = tables.transfer(study, ["random"])
    monkeypatch.setattr("selmatch.study.store.run_all", lambda *_: pytest.fail("something was computed again"))
    assert tables.transfer(Study(study.profile, study.computer, study.folder), ["random"]).equals(table)


@pytest.mark.parametrize("words, said", [({"network": {"name": "ConvNetz"}}, r"transfer\[odd\].*ConvNetz"), ({"lrr": 0.1}, r"transfer\[odd\].*lrr"), ({"lr": "fast"}, r"transfer\[odd\]: lr='fast'"),
                                         ({"n": 0}, r"transfer\[odd\]: evaluation.n=0"), ({"schedule": "cosinus"}, r"transfer\[odd\].*cosinus")])
def test_a_wrong_network_is_named_when_the_profile_is_read(words, said):
    with pytest.raises(InputError, match=said): load_profile("smoke", transfer={"odd": words})


@pytest.mark.parametrize("network, said", [({"name": "ConvNet", "depth": 5}, r"transfer\[odd\]: depth=5"), ({"name": "ViT", "patch": 3}, r"transfer\[odd\]: patch=3"), ({"name": "VGG11", "width": 3}, r"transfer\[odd\].*'width'")])
def test_a_network_that_does_not_fit_is_named_before_work_starts(tmp_path, network, said):
    study = Study(load_profile("smoke", transfer={"odd": {"network": network}}), Computer(quiet=True), tmp_path)
    with pytest.raises(InputError, match=said):
        tables.transfer(study, ["random"])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["digits", "smoke"])
def test_the_networks_of_the_profiles_fit_their_images(name):
    study = Study(load_profile(name))
    assert len(study.judges) == len(study.profile.transfer) + 1 > 1
    assert len(study.splits.train)


def test_changes_say_what_moved(study):
    table = tables.changes(study, ["selmatch-dsa", "selmatch-soft"], 0.3)
    frozen, moved = table[~table.distilled], table[table.distilled]
    assert len(table) == 2 * 10 * study.ipc(0.3)
    assert (frozen.moved == 0).all()
    assert (moved.moved > 0).all()
    assert (frozen.label_start == frozen.label_end).all()
    hard = table[table.method == "SelMatch, DSA"]
    assert (hard.label_end == 1).all()
    assert (moved[moved.method != "SelMatch, DSA"].label_end < 1).all()
    start, last = tables.before_after(study, "selmatch-soft", 0.3)
    row = moved[moved.method != "SelMatch, DSA"].iloc[-1]
    at = row["class"] * study.ipc(0.3) + row.place
    assert row.moved == pytest.approx(float((last.data.images[at] - start.data.images[at]).square().mean().sqrt()))
    assert row.label_end == pytest.approx(float(last.data.labels[at, row["class"]]))
    for n in (1, 3, 4, 50):
        shown = spread(table, n)
        assert (shown.groupby(["method", "class"]).size() == min(n, study.ipc(0.3))).all()
        assert not shown.duplicated(["method", "class", "place"]).any()


def table(*rows):
    return pd.DataFrame(rows, columns=["method", "ratio", "test_accuracy"])


def test_the_same_dataset_has_gaps_and_another_only_gains_and_order():
    theirs = published_accuracies("cifar10").set_index(["method", "ratio"]).accuracy_percent
    made_up = table(*[(m, r, theirs[m, r] / 100 + 0.01) for r in (0.05, 0.3) for m in ("Random", "MTT", "SelMatch", "Best window")], ("Mine", 0.05, 0.99))
    same, other = beside_published(made_up, "cifar10"), beside_published(made_up, "digits")
    gaps = next(iter(same.values()))
    assert gaps.xs("gap", axis=1, level=1).to_numpy() == pytest.approx(1.0)
    assert "Mine" not in gaps.index
    assert not any("gap" in b.columns.get_level_values(-1) for b in other.values())
    assert next(iter(other)).startswith("ANOTHER DATASET than digits")
    for blocks in (same, other):
        order, taught = list(blocks.items())[-2:]
        assert order[1]["methods"].tolist() == [4, 4]
        assert order[1]["Spearman's ρ"].tolist() == pytest.approx([1, 1])
        assert "another question" in taught[0]
        assert not set(taught[1].index) & set(made_up.method)
    gain = list(other.values())[1]
    assert gain[("5%", "ours")].to_numpy() == pytest.approx(gain[("5%", "published")].to_numpy())


@pytest.mark.parametrize("rows", [[("Random", .07, .8)], [("MTT", .1, .8)], [("Mine", .1, .8)]])
def test_little_in_common_is_no_error(rows):
    for data in ("digits", "cifar100"): assert len(beside_published(table(*rows), data)) >= 3
    with pytest.raises(InputError, match="mnist"): published_accuracies("mnist")
