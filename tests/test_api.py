"""Ten lines of Python: the names, what they take from whom, and what they refuse."""
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

import selmatch as sm
from conftest import ROOT
from selmatch.api import change_words, limit_iterations, name_network, read_pixels
from selmatch.core import InputError
from selmatch.data.images import class_rows
from selmatch.study.profile import load_profile
from selmatch.train.networks import carry, make_network, networks

QUICK = {"score.runs": 1, "score.epochs": 2, "evaluation.steps": 20, "evaluation.n": 2, "window.step": 0.45, "window.n": 1,
         "network.width": 4, "network.depth": 2, "experts.n": 1, "experts.epochs": 16, "matching.iterations": 2}


pytestmark = pytest.mark.usefixtures("registers_as_before")


@pytest.fixture(scope="module")
def raw():
    from sklearn.datasets import load_digits
    digits = load_digits()
    return (digits.images / 16)[:600], digits.target[:600]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="module")
def data(raw, home):
    return sm.from_arrays(*raw, words=QUICK, results=home, quiet=True)


def test_the_ten_lines(data, tmp_path):
    table = sm.score(data)
    assert list(table.columns) == ["row", "class", "difficulty", "forgetting", "el2n", "rank"]
    small = sm.select(data, "window", ratio=0.1)
    assert len(small) == sum(round(0.1 * n) for n in data.sizes(ratio=0.1).given)
    assert torch.equal(small.images, data.train.images[small.rows])
    judged = sm.evaluate(small, data)
    assert len(judged) == 2 and judged.test_accuracy.between(0, 1).all()
    x, y = small.to_torch()[3]
    assert x.shape == (1, 8, 8) and int(y) == int(small.labels[3])
    again = sm.load(small.save(tmp_path / "small"))
    assert torch.equal(again.images, small.images)
    made = sm.distill(data, "selmatch", per_class=3, alpha=0.7, beta=0.1)
    assert made.distilled.sum() == 20 and not torch.equal(made.images[made.distilled], data.train.images[made.rows][made.distilled])


def test_a_name_is_loaded_when_it_is_used():
    code = "import sys, time; t = time.time(); import selmatch as sm; d = time.time() - t; assert 'torch' not in sys.modules; assert d < 0.7; assert callable(sm.select) and callable(sm.distill); assert 'torch' not in sys.modules; sm.score; assert 'torch' in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True).returncode == 0
    assert {"select", "distill", "from_folder", "compare", "shrink"} <= set(dir(sm))
    with pytest.raises(AttributeError, match="selectt"): sm.selectt


def test_data_from_torch_and_arrays_and_huggingface_are_the_same(raw, home, data):
    x, y = raw
    bytes_ = (x * 255).round().astype(np.uint8)
    from PIL import Image

    class Pairs(torch.utils.data.Dataset):
        classes = [str(c) for c in range(10)]
        def __len__(self): return len(y)
        def __getitem__(self, i): return Image.fromarray(bytes_[i]), int(y[i])

    class Column(type("Image", (), {})): pass
    class ClassLabel:
        names = Pairs.classes
    class Split:
        features = {"picture": type("Image", (), {})(), "label": ClassLabel()}
        def __getitem__(self, name): return [Image.fromarray(b) for b in bytes_] if name == "picture" else y.tolist()

    one = sm.from_torch(Pairs(), words=QUICK, results=home, quiet=True)
    two = sm.from_huggingface({"train": Split()}, words=QUICK, results=home, quiet=True)
    three = sm.from_arrays(bytes_[..., None], y, classes=Pairs.classes, words=QUICK, results=home, quiet=True)
    assert one.train.key == two.train.key == three.train.key
    assert sm.from_arrays(x, [f"digit {c}" for c in y], results=home, words=QUICK, quiet=True).classes[3] == "digit 3"


def test_an_official_test_set_stays_one(raw, home):
    x, y = raw
    data = sm.from_arrays(x[:400], y[:400], test=(x[400:], y[400:]), words=QUICK, results=home, quiet=True)
    assert len(data.test) == 200 and len(data) == 400
    asked = data.sizes(ratio=0.1)
    assert list(asked.small) == [round(0.1 * n) for n in asked.given]


@pytest.mark.parametrize("call, words", [
    (lambda d: sm.select([1, 2, 3]), ["list", "from_folder", "from_arrays"]),
    (lambda d: sm.score("my/images"), ["str", "from_folder"]),
    (lambda d: sm.evaluate([1], d), ["list", "select"]),
    (lambda d: sm.from_torch([1, 2, 3]), ["dataset[0]", "(image, label)"]),
    (lambda d: sm.from_torch(iter([])), ["list_iterator", "len()"]),
    (lambda d: sm.from_huggingface([1]), ["load_dataset"]),
    (lambda d: sm.from_arrays([[1, 2]], [0]), ["list", "(n, h, w)"]),
    (lambda d: sm.from_arrays(np.zeros((4, 8, 8)) + 5, [0, 1, 0, 1]), ["[5, 5]", "0 to 1"]),
    (lambda d: sm.from_arrays(np.zeros((4, 8, 8), np.int32), [0, 1, 0, 1]), ["int32", "uint8"]),
    (lambda d: sm.from_arrays(np.zeros((4, 8, 8)), [0, 1]), ["labels", "(2,)", "4"]),
    (lambda d: sm.from_arrays(np.zeros((4, 8, 8)), [1, 1, 1, 1]), ["one class"]),
    (lambda d: sm.select(d, "selmatch"), ["selmatch", "distill"]),
    (lambda d: sm.distill(d, "window"), ["window", "select"]),
    (lambda d: sm.select(d, "windw"), ["windw", "window"]),
    (lambda d: sm.select(d, ratio=0.1, images=30), ["ratio", "images", "one of them"]),
    (lambda d: sm.select(d, "window", ratio=0.1, beta=0.95), ["beta=0.95"]),
    (lambda d: sm.evaluate(sm.select(d, "random", per_class=1), d, network="ConvNext"), ["ConvNext", "ConvNet"]),
])
def test_bad_input_is_one_sentence(call, words, data):
    with pytest.raises(InputError) as error: call(data)
    for word in words: assert word in str(error.value), error.value
    assert "\n" not in str(error.value)


def test_any_word_of_a_profile_can_be_said():
    p = load_profile("folder")
    assert change_words(p, {"score.epochs": 7, "objectives.dm.batch_real": 9}).objectives["dm"]["batch_real"] == 9
    assert p.objectives["dm"]["batch_real"] == 64
    assert limit_iterations(p, 60).matching.evaluate_at == (50,)
    for word in ("score.epoch", "scor.epochs", "matching"):
        with pytest.raises(InputError): change_words(p, {word: 3})


class OwnNet(nn.Module):
    """Knows nothing of features or flat weights."""
    def __init__(self, channels, n_classes, image_size):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(channels, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())
        self.head = nn.Linear(4 * (image_size // 2) ** 2, n_classes)

    def forward(self, x): return self.head(self.layers(x))


def test_a_network_of_ones_own_is_known_in_every_process(raw, home, tmp_path):
    one, two = (sm.from_arrays(*raw, network=OwnNet, words=QUICK_OWN, results=tmp_path / str(w), workers=w, quiet=True) for w in (1, 2))
    tables = [sm.evaluate(sm.select(d, "random", per_class=4), d) for d in (one, two)]
    assert tables[0].test_accuracy.tolist() == tables[1].test_accuracy.tolist()
    spec = one.study.network
    assert "BatchNorm2d" in spec["own"] and carry({"name": "ConvNet"}) == {"name": "ConvNet"}
    net = make_network(spec, (1, 8, 8), 10, 0)
    assert net.embed(torch.zeros(2, 1, 8, 8)).shape == (2, 64)


QUICK_OWN = {k: v for k, v in QUICK.items() if not k.startswith("network")}


def test_another_body_under_the_same_name_is_another_key(raw, home):
    from selmatch.core import fingerprint
    def keys(width):
        source = f"lambda c, k, s: __import__('torch').nn.Sequential(__import__('torch').nn.Flatten(), __import__('torch').nn.Linear(c * s * s, k), ) if {width} else None"
        make = eval(source)
        make.__module__, make.__name__, make.__qualname__ = "mine", "net", f"net{width}"
        networks["net"] = make
        return fingerprint(carry({"name": "net"}))
    assert keys(1) != keys(2)
    del networks["net"]


@pytest.mark.slow
def test_a_torchvision_model_judges(raw, home):
    def small_mobile(channels, n_classes, image_size):
        from torchvision.models import squeezenet1_1
        net = squeezenet1_1(num_classes=n_classes)
        net.features[0] = nn.Conv2d(channels, 64, 3, padding=1)
        net.features[2], net.features[5], net.features[8] = nn.Identity(), nn.Identity(), nn.MaxPool2d(2)
        return net
    data = sm.from_arrays(*raw, words=QUICK_OWN | {"evaluation.steps": 1, "evaluation.n": 1}, results=home, quiet=True)
    small = sm.select(data, "random", per_class=2)
    assert len(sm.evaluate(small, data, network=small_mobile)) == 1


class Twice(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x): return 2 * x
    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g): return 2 * g


class OnceOnly(OwnNet):
    def forward(self, x): return Twice.apply(super().forward(x))


class WithDropout(OwnNet):
    def forward(self, x): return nn.functional.dropout(super().forward(x), 0.5, self.training)


class Detached(OwnNet):
    """A part of its gradient is a constant to whoever differentiates it again, and nobody marked it."""
    class Part(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x.square()
        @staticmethod
        def backward(ctx, g): return 2 * ctx.saved_tensors[0].detach() * g

    def forward(self, x): return self.head(self.Part.apply(self.layers(x)))


@pytest.mark.parametrize("network, word", [(OnceOnly, "second derivative.*off by"), (Detached, "second derivative.*off by"), (WithDropout, "dropout")])
def test_a_network_is_probed_before_any_work(network, word, raw, tmp_path):
    data = sm.from_arrays(*raw, network=network, words=QUICK_OWN, results=tmp_path, quiet=True)
    with pytest.raises(InputError, match=word): sm.distill(data, "mtt", per_class=1)
    assert not list(tmp_path.rglob("*.safetensors")), "work was started"
    assert len(sm.distill(data, "dm", per_class=1, iterations=1)) == 10


class MaxPooled(nn.Module):
    def __init__(self, channels, n_classes, image_size):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(channels, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3, padding=1), nn.LeakyReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, n_classes))

    def forward(self, x): return self.layers(x)


class NormedInFloat(OwnNet):
    """A part computes in single precision, as norms of large models do: differences are noise, and nothing is concluded from noise."""
    def forward(self, x):
        seen = self.layers(x)
        return self.head((seen.float() / seen.float().square().mean(1, keepdim=True).sqrt()).type_as(seen))


class OnlyFloat(OwnNet):
    def forward(self, x): return super().forward(x.float())


@pytest.mark.parametrize("network", [OwnNet, MaxPooled, NormedInFloat, OnlyFloat])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32)])
def test_a_network_that_can_be_differentiated_twice_passes_the_probe(network, shape):
    from selmatch.study.sets import miss_of_derivatives
    networks["mine"] = network
    assert miss_of_derivatives({"name": "mine"}, shape, 3) < 1e-4


def test_our_networks_have_the_second_derivatives_that_they_give():
    from selmatch.study.sets import miss_of_derivatives
    for norm in ("instance", "batch"):
        assert 0 < miss_of_derivatives({"name": "ConvNet", "width": 8, "depth": 2, "norm": norm}, (1, 8, 8), 3) < 1e-4, norm


def test_ones_own_method_in_one_class(data):
    class Brighter(sm.Question):
        "Wants the mean of the images to be that of the real ones."
        def loss(self, images, labels, generator): return (images.mean() - self.train.images.mean() - 1).square()
    made = sm.distill(data, Brighter, per_class=2, iterations=3)
    assert made.distilled.all() and made.images.mean() > data.train.images[made.rows].mean()

    class Last:
        def __call__(self, data, ipc): return torch.cat([rows[-ipc:] for rows in class_rows(data)])
    assert sm.select(data, Last, per_class=2).rows[:2].tolist() == class_rows(data.train)[0][-2:].tolist()


def test_a_method_asks_for_what_it_needs_and_nothing_else(raw, tmp_path):
    data = sm.from_arrays(*raw, words=QUICK, results=tmp_path, quiet=True)
    sm.select(data, "random", ratio=0.1)
    assert not list(tmp_path.rglob("*.safetensors")), "a network was trained for a random draw"
    sm.select(data, "herding", ratio=0.1)
    assert len(list(tmp_path.rglob("*.safetensors"))) == 1, "herding needs one network"


def test_uneven_classes_give_their_share(raw, home):
    x, y = raw
    keep = np.concatenate([np.flatnonzero(y == c)[:n] for c, n in ((0, 60), (1, 30), (2, 6))])
    data = sm.from_arrays(x[keep], y[keep], words=QUICK, results=home, quiet=True)
    for method in ("random", "window", "herding"):
        small = sm.select(data, method, ratio=0.2)
        assert torch.bincount(small.labels).tolist() == [12, 6, 1], method
    capped = data.sizes(per_class=10)
    assert capped.capped == ("2",) and capped.small[2] == capped.train[2]
    with pytest.warns(UserWarning, match="of the few images of 2 rounds to none"):
        made = sm.distill(data, "selmatch", ratio=0.2, alpha=0.5, beta=0.0)
    assert (made.card["balance"], made.card["ipc"], made.card["distilled_per_class"]) == ("share", [12, 6, 1], [6, 3, 0])
    assert torch.bincount(made.labels[made.distilled], minlength=3).tolist() == [6, 3, 0]


def test_alpha_that_rounds_to_nothing_is_said(data):
    with pytest.warns(UserWarning, match="nothing is distilled"):
        assert not sm.distill(data, "selmatch", per_class=2, alpha=0.1, beta=0.0).distilled.any()


def test_pixels_of_every_order():
    assert read_pixels(np.zeros((2, 5, 7, 3), np.uint8)).shape == (2, 3, 5, 7)
    assert read_pixels(torch.ones(2, 3, 5, 7)).max() == 1
    assert name_network({"name": "ViT", "depth": 1})["depth"] == 1
