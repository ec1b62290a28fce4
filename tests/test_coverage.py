"""Coverage by hand: distances, radius, features (scripts/mutants.py asks for every number)."""
import numpy as np
import pytest
import torch

from selmatch.data.loaders import load_digits
from selmatch.select import coverage
from selmatch.train.networks import flatten
from selmatch.train.training import Recipe
from test_input import refuses

POINTS = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]])


def test_distances_to_neighbours_of_a_rank():
    queries = torch.tensor([[0.0, 0.0], [3.0, 0.0]])
    assert coverage.nearest(POINTS, queries).tolist() == [0.0, 3.0]
    assert np.allclose(coverage.nearest(POINTS, queries, 2), [1.0, 10**0.5])
    assert np.allclose(coverage.nearest(POINTS, queries, 3), [5.0, 4.0])
    assert coverage.nearest(POINTS[:1], queries).tolist() == [0.0, 3.0]
    with refuses("3 points have no neighbour number 4"): coverage.nearest(POINTS, queries, 4)
    with refuses("0 points have no neighbour number 1"): coverage.nearest(POINTS[:0], queries)


def test_the_radius_is_the_mean_distance_to_the_nearest_other():
    assert coverage.radius(POINTS) == pytest.approx((1 + 18**0.5 + 1) / 3)
    assert type(coverage.radius(POINTS)) is float


def test_what_lies_within_the_radius_is_covered():
    tests = torch.tensor([[0.0, 0.0], [0.0, 3.0], [6.0, 8.0]])
    assert coverage.is_covered(tests, POINTS, 2.0).tolist() == [True, True, False], "at the radius, too"
    assert coverage.is_covered(tests, POINTS, 1.9).tolist() == [True, False, False]
    assert coverage.is_covered(tests, POINTS, 5.0).dtype == torch.bool


def test_a_feature_network_is_trained_on_the_set_with_its_seed():
    train = load_digits(per_class=4).train
    spec, recipe = {"name": "ConvNet", "width": 2, "depth": 1}, Recipe(steps=2, batch=8, lr=0.1)
    made = [coverage.feature_network(train, spec, recipe, *seed) for seed in ([], [0], [1])]
    assert torch.equal(flatten(made[0]), flatten(made[1])) and not torch.equal(flatten(made[0]), flatten(made[2]))
    assert not any(net.training for net in made), "in evaluation mode"
    still = coverage.feature_network(train, spec, Recipe(steps=2, batch=8, lr=1e-9))
    assert not torch.allclose(flatten(made[0]), flatten(still), atol=1e-4), "it was trained"


def test_features_are_what_the_network_embeds_in_parts():
    train, seen = load_digits(per_class=4).train, []
    net = coverage.feature_network(train, {"name": "ConvNet", "width": 2, "depth": 1}, Recipe(steps=1, batch=8, lr=0.1))
    theirs = net.embed
    net.embed = lambda x: seen.append(len(x)) or theirs(x)
    with torch.no_grad(): expected = theirs(train.images)
    found = coverage.features(net, train.images, batch=16)
    assert torch.allclose(found, expected, atol=1e-6) and not found.requires_grad and len(found) == len(train)
    assert max(seen) == 16 and sum(seen) == len(train)
    seen.clear()
    coverage.features(net, torch.zeros(1025, *train.shape))
    assert seen == [1024, 1]
