"""The race for alpha and beta: against brute force, with its costs counted, and over real runs that pause."""
import itertools
import random
from dataclasses import replace

import pytest
import torch

from selmatch.study import search, sets, tables
from selmatch.core import InputError
from selmatch.study.search import field_sizes, race_cost, regret, successive_halving
from selmatch.study.verdicts import intervals
from selmatch.study.profile import load_profile
from selmatch.study.study import Study
from selmatch.computer import Computer

GRID = list(itertools.product((0.0, 0.3, 0.6, 1.0), (0.8, 0.4, 0.0)))


class Counting:
    """A judge whose candidates' scores approach their truth at one pace; it counts what its resumed runs have cost."""
    def __init__(self, seed, noise=0.0):
        self.draw, self.noise, self.done, self.networks = random.Random(seed), noise, dict.fromkeys(GRID, 0), 0
        self.truth = {c: self.draw.random() for c in GRID}

    def __call__(self, alive, budget):
        assert all(self.done[c] < budget for c in alive)
        self.done.update(dict.fromkeys(alive, budget))
        self.networks += len(alive)
        return [self.truth[c] * (1 - 0.9**budget) + self.noise * self.draw.gauss(0, 1) for c in alive]


@pytest.mark.parametrize("rungs, keep", [([1, 3, 9], 1 / 3), ([15, 30, 60, 120], 0.34), ([2, 4], 0.5), ([7], 0.1), ([1, 2, 3], 1.0), ([1, 2, 3, 4, 5], 1e-6)])
@pytest.mark.parametrize("seed", range(3))
def test_without_noise_it_finds_what_brute_force_finds_and_pays_what_it_says(rungs, keep, seed):
    judge = Counting(seed)
    race, brute = successive_halving(GRID, judge, rungs, keep), max(GRID, key=judge.truth.get)
    assert race.winner == brute
    assert regret(judge.truth, race.winner) == 0
    sizes = field_sizes(len(GRID), len(rungs), keep)
    assert race.table.groupby("rung").size().tolist() == sizes
    assert judge.networks == sum(sizes) == len(race.table)
    assert race.cost == sum(judge.done.values()) == race_cost(sizes, rungs) <= race_cost(sizes, rungs, resumed=False)
    whole = Counting(seed)
    grid = successive_halving(GRID, whole, rungs[-1:])
    assert grid.winner == brute
    assert grid.cost == len(GRID) * rungs[-1] >= race.cost


def test_every_rung_keeps_its_best_whatever_the_noise():
    for seed in range(20):
        table = successive_halving(GRID, Counting(seed, noise=1.0), [1, 2, 4], 0.4).table
        for rung, rows in table.groupby("rung"):
            assert rows[rows.survived].score.min() >= rows[~rows.survived].score.max() or rows.survived.all()
            later = table[table.rung == rung + 1]
            assert later.empty or later.candidate.tolist() == rows[rows.survived].candidate.tolist()


@pytest.mark.parametrize("settings, words", [({"alphas": []}, "search.alphas"), ({"along": [2]}, "search.along=2"), ({"alphas": [1.5]}, "search.alphas=1.5"), ({"rungs": [30, 15]}, "search.rungs=15"), ({"rungs": [0]}, "search.rungs=0"), ({"keep": 0}, "search.keep=0"),
                                             ({"keep": 2}, "search.keep=2"), ({"judges": 0}, "search.judges=0"), ({"betas_step": 0}, "search.betas_step=0"), ({"rung": [3]}, "search.rung")])
def test_wrong_settings_are_named(settings, words):
    with pytest.raises(InputError, match=words): load_profile("smoke", search=settings)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return Study(load_profile("smoke"), Computer(quiet=True), tmp_path_factory.mktemp("home"))


def test_a_race_over_runs_that_pause_gives_the_bits_of_runs_that_do_not(study):
    race, tasks = search.search(study, 0.3), search.candidate_tasks(study, 0.3)
    rungs = study.profile.search.rungs
    alone = Study(study.profile, study.computer, study.folder / "alone")
    (alpha, beta), reached = race.winner, race.table[race.table.alpha > 0].groupby(["alpha", "beta"]).budget.max()
    for candidate, budget in reached.items():
        assert [s.card["iteration"] for s in tasks[candidate].kept()] == [0, *(r for r in rungs if r <= budget)]
    longest = reached.idxmax()
    whole = search.candidate_tasks(alone, 0.3)[longest]
    sets.make_sets(alone, [whole])
    assert whole.folder.name == tasks[longest].folder.name
    assert len(whole.kept()) == len(rungs) + 1
    for a, b in zip(whole.kept(), tasks[longest].kept()):
        assert torch.equal(a.data.images, b.data.images)
        assert a.lr == b.lr
        assert a.card == b.card
    table = race.table
    assert race.cost == sum(reached)
    assert (table[table.alpha == 0].paid == 0).all()
    assert (alpha, beta) in search.list_candidates(study, 0.3)
    again = search.search(Study(study.profile, study.computer, study.folder), 0.3)
    assert again.winner == race.winner
    assert again.table.equals(table)


def test_the_grid_goes_on_from_the_race_and_agrees_with_it(study):
    race, grid = search.search(study, 0.3), search.search(study, 0.3, whole=True)
    tasks, scores = search.candidate_tasks(study, 0.3), grid.table.set_index(["alpha", "beta"]).score
    assert all(t.done for t in tasks.values())
    assert not any(list(t.folder.glob("checkpoint*")) for t in tasks.values() if t.objective)
    last = race.table[race.table.budget == race.table.budget.max()]
    assert all(scores[row.alpha, row.beta] == row.score for row in last.itertuples())
    assert grid.table.score.max() == scores[grid.winner]
    assert grid.cost == 6 * sum(t.objective is not None for t in tasks.values())
    assert grid.table.networks.sum() == len(tasks) * study.profile.search.judges
    one_size = replace(study.profile, search=replace(study.profile.search, ratios=(0.3,)))
    row = search.regrets(Study(one_size, study.computer, study.folder)).iloc[0]
    assert row.found == race.winner
    assert row.best == grid.winner
    assert row["iterations race"] == race.cost
    assert row["regret of the judges"] == 100 * (scores.max() - scores[race.winner])


def test_sizes_that_the_profile_does_not_have_are_refused_before_any_work(study):
    from selmatch.api import change_words
    for place in ("search.ratios", "tuning.ratios", "compared_at"):
        with pytest.raises(InputError, match=f"ratio of {place} 0.77"): change_words(study.profile, {place: (0.77,)})
    narrow = change_words(study.profile, {"ratios": (0.3,)})          # names of sizes that are gone are passed over
    assert narrow.sizes_of("search.ratios") == (0.3,)


def test_only_methods_with_a_window_and_an_open_alpha_are_raced(study):
    for name in ("mtt", "window", "random"):
        with pytest.raises(InputError, match=f"{name}.*selmatch-dsa"): search.search(study, 0.3, name)
    tasks = search.candidate_tasks(study, 0.1, "selmatch-dm")
    assert {t.descent.iterations for t in tasks.values() if t.descent} == {6}
    assert len(tasks) == len(search.list_candidates(study, 0.1)) == 9


@pytest.mark.slow
def test_the_ablation_has_every_different_cell_once_and_shares_its_runs(study):
    table, p = tables.ablation(study), study.profile
    cells = intervals(table, ["start", "update", "augmentation", "ratio"])
    assert len(cells) == 14 * len(p.ratios)
    assert (cells.sets == p.seeds).all()
    assert (cells.networks == p.seeds * p.evaluation.n).all()
    assert not table.isna().any().any()
    runs = [f for f in (study.folder / "sets").iterdir() if (f / "at_000003").exists()]      # those of the race stop at 2, 4, 6
    assert len(runs) == 2 * 2 * p.seeds * len(p.ratios)                                       # start × (part, all), however they are judged
    ours = tables.accuracies(study, ["selmatch"])
    same = table[(table.start == "window") & (table["update"] == "part") & (table.augmentation == "combined")]
    assert ours.test_accuracy.tolist() == same.test_accuracy.tolist()


@pytest.mark.slow
def test_the_command_prints_the_race_and_how_to_use_its_winner(selmatch_command, tmp_path):
    done = selmatch_command("search", "--profile", "smoke", "--device", "cpu", "--ratio", "0.3", "--out", tmp_path / "race.csv")
    assert done.returncode == 0, done.stderr
    assert "after    2 iterations:   6 judged" in done.stdout
    assert "cost: 14 iterations of 24" in done.stdout
    assert "found: alpha = " in done.stdout
    words = done.stdout.split("use it: selmatch ")[1].splitlines()[0].split()
    made = selmatch_command(*words, "--device", "cpu", "--out", tmp_path / "small")
    assert made.returncode == 0, made.stderr
    assert (tmp_path / "small" / "card.json").exists(), made.stderr
    refused = selmatch_command("search", "--profile", "smoke", "--method", "mtt")
    assert refused.returncode == 2
    assert "mtt" in refused.stderr
    assert refused.stderr.count("\n") == 1
