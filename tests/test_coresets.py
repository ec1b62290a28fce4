"""Coresets: against brute force, known answers, the released code's defects, the contract of a selection."""
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from selmatch.select.coresets import Evidence, LastLayerGradients, average_images, cluster_sizes, coreset_selections, craig, facility_location, farthest_first, gather, glister, grand, gradient_similarity, gradient_weights, herd, herding, judged_draws, k_center, kmeans_images, kmeans_real, made_starts, matching_pursuit, optimised_real, scores_needed, validation_judge
from selmatch.core import InputError
from selmatch.data.images import ImageSet, class_rows
from selmatch.data.loaders import load_digits
from selmatch.train.networks import make_network
from selmatch.select.scores import ForgettingCounter
from selmatch.select.window import hardest, join_classes, random, read_options
from selmatch.train.training import Recipe, train

DIGITS = load_digits(per_class=60)
SPEC = {"name": "ConvNet", "width": 8, "depth": 2}
seed = lambda s: torch.Generator().manual_seed(s)
NET = train(make_network(SPEC, DIGITS.train.shape, 10, 0), DIGITS.train, Recipe(steps=30), seed(0))
EVIDENCE = gather(NET, DIGITS.train, DIGITS.validation)
GRADIENTS = EVIDENCE.last_layer_gradients
DIFFICULTY = GRADIENTS.errors.norm(dim=1)
BY_EVIDENCE = ["herding", "k_center", "craig", "gradmatch", "glister", "grand"]
OPTIONS = dict(evidence=EVIDENCE, judge=lambda data: float(data.images.mean()), draws=3)


def written_out(gradients):
    return torch.einsum("nk,nf->nkf", gradients.errors.double(), gradients.inputs.double()).flatten(1)


def cloud(n, d, s):
    return torch.randn(n, d, generator=seed(s), dtype=torch.float64)


# ---- evidence

def test_inner_products_equal_those_of_gradients_written_out():
    g, part = GRADIENTS.at(class_rows(DIGITS.train)[4]), written_out(GRADIENTS.at(class_rows(DIGITS.train)[4]))
    assert torch.allclose(g.kernel(), part @ part.T, rtol=1e-9)
    assert torch.allclose(g.mean().double().flatten(), part.mean(0), atol=1e-6)
    assert torch.allclose(g.sum().double().flatten(), part.sum(0), atol=1e-5)
    assert torch.allclose(g.along(g.mean()).double(), part @ part.mean(0), atol=1e-5)
    assert torch.allclose(g.lengths().double(), part.norm(dim=1), atol=1e-5)


def test_gradients_are_those_of_the_loss_the_network_was_trained_with():
    NET.eval()
    for row in range(0, 40, 7):
        loss = F.cross_entropy(NET(DIGITS.train.images[row:row + 1]), DIGITS.train.labels[row:row + 1])
        weight, bias = torch.autograd.grad(loss, [NET.classifier.weight, NET.classifier.bias])
        assert torch.allclose(torch.outer(GRADIENTS.errors[row], GRADIENTS.inputs[row]), torch.cat([weight, bias[:, None]], 1), atol=1e-5)


def test_a_second_softmax_hides_images_that_are_surely_wrong():
    logits = torch.tensor([[8., 0.]], requires_grad=True)
    twice, = torch.autograd.grad(F.cross_entropy(logits.softmax(1), torch.tensor([1])), logits)
    ours = Evidence(torch.zeros(1, 1), logits.detach().softmax(1), torch.tensor([1])).last_layer_gradients.errors
    assert ours.norm() > 1.4
    assert twice.norm() < 1e-3


def test_gather_looks_once_in_evaluation_mode_and_leaves_the_network_as_it_was():
    net, seen = make_network(SPEC, DIGITS.train.shape, 10, 1).train(), []
    before = {k: v.clone() for k, v in net.state_dict().items()}
    net.body.register_forward_hook(lambda module, given, out: seen.append((len(out), module.training)))
    evidence = gather(net, DIGITS.train, batch=100)
    assert net.training
    assert sum(n for n, _ in seen) == len(DIGITS.train)
    assert not any(mode for _, mode in seen)
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert evidence.validation is None
    assert not evidence.features.requires_grad
    soft = replace(DIGITS.train, labels=F.one_hot(DIGITS.train.labels, 10).float())
    assert torch.equal(gather(net, soft).labels, DIGITS.train.labels)


# ---- herding

def test_herding_equals_the_plain_loop():
    points = cloud(40, 5, 0)
    chosen = []
    for t in range(15):
        left = [i for i in range(40) if i not in chosen]
        chosen.append(min(left, key=lambda i: ((t + 1) * points.mean(0) - points[chosen].sum(0) - points[i]).norm().item()))
    assert herd(points, 15).tolist() == chosen


def test_herding_takes_the_nearest_and_so_tracks_the_mean():
    def farthest(points, m):                             # the released argmax
        chosen = []
        for t in range(m):
            distance = ((t + 1) * points.mean(0) - points[chosen].sum(0) - points).norm(dim=1)
            distance[chosen] = -1
            chosen.append(int(distance.argmax()))
        return torch.tensor(chosen)
    for s in range(5):
        points = cloud(100, 4, s)
        error = lambda rows: (points[rows].mean(0) - points.mean(0)).norm().item()
        chance = np.mean([error(torch.randperm(100, generator=seed(i))[:10]) for i in range(30)])
        assert error(herd(points, 10)) < 0.6 * chance < chance < error(farthest(points, 10))


# ---- k-center

def test_k_center_is_within_twice_the_best_radius():
    radius = lambda points, rows: torch.cdist(points, points[rows]).min(1).values.max().item()
    for s in range(10):
        points = cloud(11, 2, s)
        for m in (2, 3, 4):
            best = min(radius(points, list(chosen)) for chosen in combinations(range(11), m))
            assert best <= radius(points, farthest_first(points, m)) <= 2 * best


def test_k_center_starts_at_the_middle_and_never_repeats_itself_even_among_copies():
    points = torch.tensor([[0.], [0.], [0.], [4.], [4.]])
    chosen = farthest_first(points, 5)
    assert sorted(chosen.tolist()) == [0, 1, 2, 3, 4]
    assert points[chosen[:2]].flatten().tolist() == [0., 4.]
    middle = (points - points.mean(0)).norm(dim=1).argmin()
    assert farthest_first(points, 1).tolist() == [middle]


# ---- CRAIG

def value(similarity, rows):
    return similarity[:, list(rows)].max(1).values.sum().item()


@pytest.mark.parametrize("ties", [False, True])
def test_lazy_greedy_equals_plain_greedy_and_keeps_its_promise(ties):
    for s in range(8):
        points = cloud(12, 2, s).mul(1 if not ties else 1.5).round(decimals=6 if not ties else 0)
        distance = torch.cdist(points, points, p=1)
        similarity, chosen = distance.max() - distance, []
        for _ in range(4): chosen.append(max((j for j in range(12) if j not in chosen), key=lambda j: value(similarity, [*chosen, j])))
        lazy = facility_location(similarity, 4).tolist()
        assert value(similarity, lazy) == pytest.approx(value(similarity, chosen))
        assert (lazy == chosen or not ties)
        best = max(value(similarity, rows) for rows in combinations(range(12), 4))
        assert (1 - 1 / np.e) * best <= value(similarity, lazy) <= best + 1e-9


def test_craig_weights_count_from_zero():
    similarity = gradient_similarity(GRADIENTS.at(class_rows(DIGITS.train)[0]))
    chosen = facility_location(similarity, 6)
    sizes = cluster_sizes(similarity, chosen)
    assert sizes.sum() == len(similarity)
    assert (sizes >= 1).all()
    assert (sizes + 1).sum() != len(similarity)          # the released counts start at one
    by_hand = [0] * 6
    for row in similarity[:, chosen].tolist(): by_hand[row.index(max(row))] += 1
    assert sizes.tolist() == by_hand
    distance = torch.cdist(written_out(GRADIENTS.at(class_rows(DIGITS.train)[0])), written_out(GRADIENTS.at(class_rows(DIGITS.train)[0])))
    assert torch.allclose(similarity, distance.max() - distance, atol=1e-4)


# ---- GradMatch

@pytest.mark.parametrize("lam", [1e-6, 1e-3, 1.0])
def test_pursuit_equals_a_new_fit_at_every_step(lam):
    for s in range(3):
        A = cloud(30, 50, s) + 0.3
        K, goal = A @ A.T, A.mean(0)
        ridge, chosen, rest = lam * K.diagonal().mean(), [], A.mean(0)
        for _ in range(10):
            along = A @ rest
            along[chosen] = -torch.inf
            chosen.append(int(along.argmax()))
            B = A[chosen]
            rest = goal - B.T @ torch.linalg.solve(B @ B.T + ridge * torch.eye(len(B), dtype=B.dtype), B @ goal)
        rows, n_taken = matching_pursuit(K, A @ goal, 10, lam)
        assert rows[:n_taken].tolist() == chosen[:n_taken]
        assert n_taken == 10


def test_pursuit_stops_when_nothing_is_missing_and_fills_up():
    A = cloud(20, 3, 0)                                  # three dimensions: three gradients say it all
    rows, n_taken = matching_pursuit(A @ A.T, A @ A.sum(0), 12, lam=0)
    assert n_taken == 3
    assert len(set(rows.tolist())) == 12
    along = A @ A.sum(0)
    assert (along[rows[3:]].diff() <= 0).all()
    nothing, n_taken = matching_pursuit(torch.zeros(5, 5), torch.zeros(5), 4)
    assert n_taken == 0
    assert nothing.tolist() == [0, 1, 2, 3]


def test_weights_solve_the_problem_as_written_and_not_that_of_its_normal_equations():
    from scipy.optimize import nnls
    worse = 0
    for s in range(10):
        A = cloud(8, 6, s)
        goal, K = cloud(1, 6, 100 + s)[0], A @ A.T
        lam = 0.05
        ridge, b = lam * K.diagonal().mean(), A @ goal
        w = gradient_weights(K, b, torch.arange(8), lam)
        slope = K @ w + ridge * w - b                    # half the gradient of the objective
        assert (w >= 0).all()
        assert (slope > -1e-8).all()
        assert (slope * w).abs().max() < 1e-8      # Karush, Kuhn, Tucker
        objective = lambda v: (goal - v @ A).square().sum() + ridge * v.square().sum()
        released = torch.from_numpy(nnls((K + ridge * torch.eye(8, dtype=K.dtype)).numpy(), b.numpy())[0])
        assert objective(w) <= objective(released) + 1e-9
        worse += bool(objective(released) > objective(w) + 1e-6)
    assert worse >= 5


def test_dependent_gradients_need_a_ridge():
    K = torch.ones(3, 3)
    with pytest.raises(InputError, match="lam=0"): gradient_weights(K, torch.ones(3), torch.arange(3), lam=0)
    with pytest.raises(InputError, match="lam=-1"): matching_pursuit(K, torch.ones(3), 2, lam=-1)
    assert gradient_weights(K, torch.ones(3), torch.arange(3)).sum() == pytest.approx(1, abs=1e-3)


# ---- Glister

def test_glister_equals_autograd_at_the_moved_weights():
    start = torch.cat([NET.classifier.weight, NET.classifier.bias[:, None]], 1).detach().double()
    gradients, held = written_out(GRADIENTS).view(len(DIGITS.train), *start.shape), EVIDENCE.validation
    inputs, chosen = held.last_layer_gradients.inputs.double(), [[] for _ in range(10)]
    for _ in range(4):
        weights = (start - 0.1 * gradients[sum(chosen, [])].sum(0)).requires_grad_()
        slope, = torch.autograd.grad(F.cross_entropy(inputs @ weights.T, held.labels), weights)
        gain = (gradients * slope).sum((1, 2))
        for mine, rows in zip(chosen, class_rows(DIGITS.train)): mine.append(max((r for r in rows.tolist() if r not in mine), key=lambda r: gain[r].item()))
    assert glister(DIGITS.train, 4, evidence=EVIDENCE).tolist() == sum(chosen, [])


def test_glister_without_its_update_is_another_method():
    with_update, ranking = (glister(DIGITS.train, 8, evidence=EVIDENCE, eta=eta) for eta in (0.1, 0))
    assert set(with_update.tolist()) != set(ranking.tolist())
    gain = GRADIENTS.along(EVIDENCE.validation.last_layer_gradients.mean())
    assert torch.equal(ranking, hardest(DIGITS.train, 8, difficulty=gain))              # all that is left is a score
    assert len(glister(DIGITS.train, 2, evidence=replace(EVIDENCE, validation=None))) == 20
    sure = replace(EVIDENCE, validation=replace(EVIDENCE.validation, probabilities=F.one_hot(EVIDENCE.validation.labels, 10).float()))
    assert len(set(glister(DIGITS.train, 3, evidence=sure).tolist())) == 30             # log 0 does no harm
    with pytest.raises(InputError, match="eta=-1"): glister(DIGITS.train, 2, evidence=EVIDENCE, eta=-1)


# ---- the hardest

def test_an_image_never_learned_is_the_hardest():
    counter, rows = ForgettingCounter(4), torch.arange(4)
    for answers in ([1, 1, 0, 0], [1, 0, 0, 1], [1, 1, 0, 0], [1, 0, 0, 1], [1, 1, 0, 0]): counter.see(rows, torch.tensor(answers).bool())
    four = replace(DIGITS.train, images=DIGITS.train.images[:4], labels=torch.zeros(4, dtype=torch.int64), classes=("a",))
    assert coreset_selections["forgetting"](four, 1, difficulty=counter.counts()).item() == 2
    assert coreset_selections["forgetting"](four, 3, difficulty=counter.forgotten).tolist().count(2) == 0


def test_scores_share_one_code():
    assert all(coreset_selections[name] is hardest for name in scores_needed)
    assert torch.equal(grand(DIGITS.train, 5, evidence=EVIDENCE), hardest(DIGITS.train, 5, difficulty=GRADIENTS.lengths()))


# ---- real-data baselines

def test_optimised_real_keeps_the_best_draw():
    judge = lambda data: float(data.images.mean())
    table = judged_draws(DIGITS.train, 3, judge=judge, draws=8, generator=seed(5))
    generator = seed(5)
    drawn = [random(DIGITS.train, 3, generator=generator) for _ in range(8)]
    assert torch.equal(optimised_real(DIGITS.train, 3, judge=judge, draws=8, generator=seed(5)), max(drawn, key=lambda rows: judge(DIGITS.train.subset(rows))))
    assert [score for score, _ in table] == sorted((judge(DIGITS.train.subset(rows)) for rows in drawn), reverse=True)
    with pytest.raises(InputError, match="draws=0"): optimised_real(DIGITS.train, 3, judge=judge, draws=0, generator=seed(0))
    judge = validation_judge(DIGITS.validation, SPEC, Recipe(steps=5), n=2)
    assert judge(DIGITS.train) == judge(DIGITS.train)
    assert 0 <= judge(DIGITS.train) <= 1


def test_averages_go_from_the_class_mean_to_the_class_itself():
    images, size = DIGITS.train.images[class_rows(DIGITS.train)[0]], min(map(len, class_rows(DIGITS.train)))
    assert torch.allclose(average_images(DIGITS.train, 1, generator=seed(0)).images[0], images.mean(0), atol=1e-6)
    assert torch.allclose(kmeans_images(DIGITS.train, 1, generator=seed(0)).images[0], images.mean(0), atol=1e-5)
    even = DIGITS.train.subset(torch.cat([rows[:24] for rows in class_rows(DIGITS.train)]))
    groups = average_images(even, 6, generator=seed(0)).images.view(10, 6, 1, 8, 8)
    assert torch.allclose(groups.mean(1), even.images.view(10, 24, 1, 8, 8).mean(1), atol=1e-5)
    whole = average_images(even, 24, generator=seed(0)).images[:24]
    assert sorted(whole.flatten(1).tolist()) == sorted(even.images[:24].flatten(1).tolist())
    copies = average_images(DIGITS.train, 3, generator=seed(0), copies=True).images.view(10, 3, 64)
    assert torch.equal(copies[:, 0], copies[:, 2])
    assert size > 3


@pytest.mark.parametrize("name", sorted(made_starts))
def test_made_sets_are_sets_class_by_class(name):
    made = made_starts[name](DIGITS.train, 4, generator=seed(0))
    assert isinstance(made, ImageSet)
    assert made.images.shape == (40, *DIGITS.train.shape)
    assert made.images.dtype == torch.float32
    assert torch.equal(made.labels, torch.arange(10).repeat_interleave(4))
    assert made.mean == DIGITS.train.mean
    assert made.key == made_starts[name](DIGITS.train, 4, generator=seed(0)).key != made_starts[name](DIGITS.train, 4, generator=seed(1)).key
    with pytest.raises(InputError, match="ipc=0"): made_starts[name](DIGITS.train, 0, generator=seed(0))


def test_kmeans_real_takes_the_nearest_and_each_only_once():
    points = torch.tensor([0., 0.2, 1., 9., 9.1, 10.]).view(6, 1, 1, 1)
    line = ImageSet(points, torch.zeros(6, dtype=torch.int64), ("a",), (0.,), (1.,))
    assert sorted(kmeans_real(line, 2, generator=seed(0)).tolist()) == [1, 4]           # centroids 0.4 and 9.37
    copies = replace(line, images=torch.zeros(6, 1, 1, 1))
    assert len(set(kmeans_real(copies, 1, generator=seed(0)).tolist())) == 1
    by_pixels, by_features = kmeans_real(DIGITS.train, 5, generator=seed(0)), kmeans_real(DIGITS.train, 5, generator=seed(0), evidence=EVIDENCE)
    assert len(set(by_features.tolist())) == 50
    assert not torch.equal(by_pixels, by_features)


# ---- the contract

@pytest.mark.parametrize("name", sorted(coreset_selections))
def test_contract(name):
    words, _ = read_options(coreset_selections[name])
    given = {word: value for word, value in OPTIONS.items() if word in words}
    def pick(ipc, difficulty=DIFFICULTY):
        chance = {"generator": seed(3)} if "generator" in words else {}
        return coreset_selections[name](DIGITS.train, ipc, difficulty=difficulty, **given, **chance)
    rows = pick(6)
    assert rows.shape == (60,)
    assert rows.dtype == torch.int64
    assert len(set(rows.tolist())) == 60
    assert torch.equal(DIGITS.train.labels[rows], torch.arange(10).repeat_interleave(6))
    assert (DIFFICULTY[rows].view(10, 6).diff(dim=1) <= 0).all()
    assert torch.equal(rows, pick(6))
    smallest = min(map(len, class_rows(DIGITS.train)))
    assert len(pick(smallest)) == 10 * smallest
    for ipc in (0, smallest + 1, True, 1.5):
        with pytest.raises(InputError, match="ipc="): pick(ipc)
    with pytest.raises(InputError, match="difficulty"): pick(2, DIFFICULTY[:3])


@pytest.mark.parametrize("name", BY_EVIDENCE)
def test_order_of_picking_order_of_the_data_and_evidence_about_other_data(name):
    select = coreset_selections[name]
    small, large = (select(DIGITS.train, ipc, evidence=EVIDENCE).view(10, ipc) for ipc in (3, 6))
    assert torch.equal(small, large[:, :3])              # the first half is the set of half the size
    mixed = torch.randperm(len(DIGITS.train), generator=seed(9))
    shuffled = replace(EVIDENCE, features=EVIDENCE.features[mixed], probabilities=EVIDENCE.probabilities[mixed], labels=EVIDENCE.labels[mixed])
    again = mixed[select(DIGITS.train.subset(mixed), 3, evidence=shuffled)].view(10, 3)
    assert torch.equal(again, small)                     # where an image stands in the file does not matter
    assert set(select(DIGITS.train, 3, evidence=EVIDENCE, difficulty=DIFFICULTY).tolist()) == set(small.flatten().tolist())
    for wrong in (None, EVIDENCE.validation, shuffled, replace(EVIDENCE, features=EVIDENCE.features / 0)):
        with pytest.raises(InputError, match="evidence"): select(DIGITS.train, 2, evidence=wrong)


def test_join_classes_keeps_the_order_of_picking_among_equals():
    picks = [torch.tensor([5, 2, 9]), torch.tensor([1, 0, 3])]
    difficulty = torch.zeros(len(DIGITS.train))
    difficulty[9] = 1
    assert join_classes(DIGITS.train, picks).tolist() == [5, 2, 9, 1, 0, 3]
    assert join_classes(DIGITS.train, picks, difficulty).tolist() == [9, 5, 2, 1, 0, 3]


def test_what_chooses_by_accuracy_says_when_it_cannot():
    """Without validation images a judge gave NaN, and the first of all draws or cuts was taken in silence."""
    from selmatch.select.dynamics import ccs
    none = DIGITS.validation.subset(torch.arange(0))
    with pytest.raises(InputError, match="validation has 0 images"): validation_judge(none, SPEC, Recipe(steps=1))
    blind = lambda data: float("nan")
    with pytest.raises(InputError, match="judge gave .nan"): judged_draws(DIGITS.train, 2, judge=blind, draws=2, generator=seed(0))
    asked = dict(difficulty=DIFFICULTY, generator=seed(0))
    with pytest.raises(InputError, match="is a number"): ccs(DIGITS.train, 2, judge=blind, **asked)
    with pytest.raises(InputError, match="judge=None"): ccs(DIGITS.train, 2, **asked)
    assert len(ccs(DIGITS.train, 2, cuts=(0.1,), **asked)) == 20


def test_scores_that_are_equal_in_both_keep_the_order_of_the_data():
    from selmatch.select.scores import break_ties
    alike = torch.zeros(3)
    assert torch.argsort(break_ties(alike, torch.ones(3)), descending=True).tolist() == [0, 1, 2]
    with pytest.raises(InputError, match="1 of 3 second scores"): break_ties(alike, torch.tensor([0., float("nan"), 1.]))
