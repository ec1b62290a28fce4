"""When is a difference one: sets, pairs, Student, Holm, main effects, and the sentences made of them."""
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from selmatch.core import InputError
from selmatch.study.verdicts import (
    compare, correct_by_holm, describe_sample, half_width, intervals, main_effect, pair_test, set_means, state_claims)


def table(accuracy, methods=None):
    """Rows of networks from accuracies (methods, ratios, sets, networks) in [0, 1]."""
    m, r, s, _ = (axis.ravel() for axis in np.indices(accuracy.shape))
    names = np.array(methods or [f"m{i}" for i in range(len(accuracy))])
    return pd.DataFrame({"method": names[m], "ratio": (r + 1) / 10, "set_seed": s, "test_accuracy": accuracy.ravel()})


@pytest.fixture
def random_table():
    return table(np.random.default_rng(0).random((3, 2, 5, 2)))


def test_networks_of_one_set_count_once(random_table):
    twice = pd.concat([random_table, random_table], ignore_index=True)
    once, doubled = (compare(rows, [("m0", "m1")]).drop(columns="sets") for rows in (random_table, twice))
    pd.testing.assert_frame_equal(once, doubled)
    rows = intervals(twice, ["method", "ratio"])
    assert (rows.sets == 5).all()
    assert (rows.networks == 20).all()
    assert describe_sample(twice) == "5 sets × 4 networks"


def test_an_interval_is_that_of_scipy(random_table):
    for (method, ratio), row in intervals(random_table, ["method", "ratio"]).iterrows():
        looks = set_means(random_table, ["method", "ratio"])[method, ratio]
        low, high = stats.t.interval(0.95, 4, looks.mean(), stats.sem(looks))
        assert (row["mean"] - row.half, row["mean"] + row.half) == pytest.approx((low, high))


def test_a_pair_is_tested_as_scipy_does(random_table):
    found = compare(random_table, [("m0", "m1"), ("m2", "m1")])
    means = set_means(random_table, ["ratio", "method"]).sort_index()
    for row in found.itertuples():
        a, b = means[row.ratio, row.a], means[row.ratio, row.b]
        assert row.p == pytest.approx(stats.ttest_rel(a, b).pvalue)
        assert row.gap == pytest.approx((a - b).mean())


def test_pairs_are_those_of_one_seed(random_table):
    shuffled = random_table.sample(frac=1, random_state=0)
    pairs = [("m0", "m1"), ("m1", "m2")]
    key = ["ratio", "a", "b"]
    pd.testing.assert_frame_equal(compare(random_table, pairs).sort_values(key, ignore_index=True),
                                  compare(shuffled, pairs).sort_values(key, ignore_index=True))
    fewer = random_table[(random_table.method != "m0") | (random_table.set_seed < 3)]
    assert compare(fewer, [("m0", "m1")]).sets.tolist() == [3, 3]


@pytest.mark.parametrize("m", [1, 2, 7, 40])
def test_holm_rejects_what_stepping_down_rejects(m):
    draw = np.random.default_rng(m)
    for _ in range(50):
        p = draw.random(m) ** 4
        rejected = np.zeros(m, bool)
        for step, i in enumerate(np.argsort(p)):
            if p[i] >= 0.05 / (m - step):
                break
            rejected[i] = True
        assert ((correct_by_holm(p) < 0.05) == rejected).all()


@pytest.mark.parametrize("n_sets", [2, 3, 5])
def test_at_most_one_table_of_twenty_finds_a_winner_among_equals(n_sets):
    """What is promised of a whole table; 6,000 tables, so that 5 % come out as 6 % by chance once in two thousand times."""
    draw = np.random.default_rng(n_sets)
    looks = draw.standard_normal((6000, 2, 5, n_sets)) + draw.standard_normal((6000, 2, 1, n_sets))
    pairs = [(0, 1), (0, 2), (0, 3), (0, 4), (1, 2), (3, 4)]
    apart = np.stack([looks[:, :, a] - looks[:, :, b] for a, b in pairs], 2).reshape(6000, 12, n_sets)
    p = stats.ttest_1samp(apart, 0, axis=-1).pvalue
    assert p[0, 0] == pytest.approx(pair_test(apart[0, 0])["p"])
    wrong = sum(correct_by_holm(row).min() < 0.05 for row in p)
    assert wrong / 6000 < 0.06


def test_a_table_corrects_all_its_rows_together():
    draw = np.random.default_rng(3)
    accuracy = 0.9 + 0.01 * draw.standard_normal((6, 4, 5, 1))
    accuracy[0] += 0.02
    found = compare(table(accuracy), [("m0", f"m{i}") for i in range(1, 6)])
    assert len(found) == 20
    assert np.allclose(found.p_holm, correct_by_holm(found.p))
    alone = compare(table(accuracy[:2]), [("m0", "m1")])
    assert (alone.p_holm <= found[found.b == "m1"].p_holm.to_numpy() + 1e-12).all()


def test_one_set_decides_nothing():
    rows = table(np.stack([np.full((1, 1, 50), 0.9), np.full((1, 1, 50), 0.5)]))
    found = compare(rows, [("m0", "m1")])
    assert found.verdict.tolist() == ["undecided"]
    assert found.p.isna().all()
    assert np.isnan(half_width([1.0]))
    assert state_claims(found, "{a} beats {b}.")[0]["verdict"] == "undecided"


def test_the_same_images_are_no_question():
    rows = table(np.random.default_rng(0).random((3, 1, 4, 1)), ["A", "B", "C"])
    rows = rows.assign(images=[f"{s}" if m != "C" else f"c{s}" for m, s in zip(rows.method, rows.set_seed)], augmentation="dsa")
    found = compare(rows, [("A", "B"), ("A", "C")])
    assert found.verdict[0] == "the same"
    assert np.isnan(found.p_holm[0])
    assert found.p_holm[1] == pytest.approx(found.p[1])                     # it alone was asked
    other = rows.assign(augmentation=np.where(rows.method == "A", "combined", "dsa"))
    assert "the same" not in compare(other, [("A", "B")]).verdict.tolist()   # trained in another way


def test_a_main_effect_is_the_mean_over_partners_within_each_seed():
    draw = np.random.default_rng(0)
    rows = pd.DataFrame([{"start": s, "update": u, "ratio": r, "set_seed": k, "test_accuracy": draw.random()}
                         for s in ("random", "window") for u in ("none", "part", "all") for r in (.05, .1) for k in range(4) for _ in range(2)])
    rows = rows[(rows.start == "window") | (rows["update"] != "none")]       # without a partner
    effect = main_effect(rows, "start", "window", "random", ["update"])
    means = set_means(rows, ["ratio", "update", "start"])
    for ratio in (.05, .1):
        looks = [np.mean([means[ratio, u, "window", k] - means[ratio, u, "random", k] for u in ("part", "all")]) for k in range(4)]
        assert effect.gap[ratio] == pytest.approx(np.mean(looks))
        assert effect.p[ratio] == pytest.approx(stats.ttest_1samp(looks, 0).pvalue)
        assert (effect.pairs[ratio], effect.sets[ratio]) == (2, 4)


def test_unknown_names_are_refused_with_what_there_is(random_table):
    with pytest.raises(InputError, match="column 'weather'.*method"):
        intervals(random_table, ["weather"])
    with pytest.raises(InputError, match="easy.*m0"):
        main_effect(random_table, "method", "easy", "m1", [])


def test_a_sentence_carries_its_numbers():
    accuracy = 0.9 + 0.001 * np.random.default_rng(0).standard_normal((2, 1, 5, 1))
    accuracy[1] -= 0.05
    good, bad = (state_claims(compare(table(accuracy), [pair]), "{a} beats {b} at {ratio:.0%}.")[0]
                 for pair in (("m0", "m1"), ("m1", "m0")))
    assert (good["sentence"], good["verdict"], good["sets"]) == ("m0 beats m1 at 10%.", "holds", 5)
    assert bad["verdict"] == "does not hold"
    assert good["gap"] == pytest.approx(5, abs=.2)
    assert bad["p_holm"] < 0.05


def test_two_differences_that_coincide_give_no_verdict():
    """Accuracies are counts: without scatter Student's t is infinite, and that is no certainty."""
    rows = table(np.array([[[[.95], [.93]]], [[[.92], [.90]]]]))
    found = compare(rows, [("m0", "m1")])
    assert found.gap[0] == pytest.approx(3)
    assert found.verdict.tolist() == ["undecided"]
    assert state_claims(found, "{a} beats {b}.")[0]["p_holm"] == 1
    alone = compare(table(np.array([[[[.95]]], [[[.92]]]])), [("m0", "m1")])
    assert state_claims(alone, "{a} beats {b}.")[0]["p_holm"] is None, "NaN is no JSON"


def test_a_question_without_scatter_counts_in_the_correction():
    """Whether two differences coincide is chance; if such a question left the family, the others would be corrected for too few."""
    sets = [[[.90], [.91], [.93]], [[.92], [.93], [.95]], [[.95], [.99], [.98]]]      # m1 - m0 is 2 points in all
    rows = table(np.array([[one] for one in sets]))
    both = compare(rows, [("m1", "m0"), ("m2", "m0")])
    (alone,) = compare(rows, [("m2", "m0")]).p_holm
    assert both.verdict[0] == "undecided" and both.p_holm[1] == pytest.approx(2 * alone)


def test_a_claim_without_a_number_is_shown():
    from selmatch.show.figures import list_claims
    claim = {"sentence": "A < B.", "verdict": "undecided", "gap": 1.0, "half": None, "p_holm": None, "sets": 1}
    assert "A &lt; B." in list_claims([claim])
    assert "± unknown, p = unknown, 1 sets" in list_claims([claim])


@pytest.mark.parametrize("sizes", [(0.1,), (0.05, 0.1, 0.2, 0.3)])
def test_an_effect_is_found_under_the_size_and_not_under_a_tuple_of_it(sizes):
    rows = [{"ratio": r, "set_seed": s, "start": start, "augmentation": how, "test_accuracy": 0.8 + 0.01 * s + 0.02 * (start == "window")}
            for r in sizes for s in range(3) for start in ("window", "random") for how in ("dsa", "simple")]
    effect = main_effect(pd.DataFrame(rows), "start", "window", "random", ["augmentation"])
    assert effect.index.tolist() == list(sizes)
    assert effect.gap.round(6).tolist() == [2.0] * len(sizes)
