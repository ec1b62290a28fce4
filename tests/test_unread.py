"""Sets of many images are read a batch at a time: the same bits as from the whole tensor, which is never made."""
import pytest
import torch

from selmatch.computer import Computer
from selmatch.data import images
from selmatch.data.images import ImageSet, StoredImages, is_unread, read_afresh, split_images, take_images, write_pixels
from selmatch.select.coresets import gather
from selmatch.train import training
from selmatch.train.augment import Augmentation
from selmatch.train.networks import make_network
from selmatch.train.training import Recipe, predict, train

SPEC = {"name": "ConvNet", "width": 4, "depth": 1}


@pytest.fixture
def stored(tmp_path):
    pixels = torch.randint(0, 256, (40, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    write_pixels(tmp_path / "x.safetensors", pixels)
    def make():
        x = StoredImages(str(tmp_path / "x.safetensors"), torch.arange(39, -1, -1), (0.4, 0.5, 0.6), (0.2, 0.3, 0.2))
        return ImageSet(x, torch.arange(40) % 3, ("a", "b", "c"), x.mean, x.std)
    return make


def is_made(data): return "images" in data.__dict__


@pytest.mark.parametrize("kind", ["none", "simple", "dsa"])
def test_the_bits_are_those_of_the_whole_tensor(stored, kind, monkeypatch):
    def run(data):
        net = make_network(SPEC, data.shape, 3, 0)
        train(net, data, Recipe(steps=12, batch=16, augmentation=Augmentation(kind)), torch.Generator().manual_seed(1))
        return [*net.state_dict().values(), predict(net, data, batch=7), gather(net, data, batch=9).features]
    whole, unread = stored(), stored()
    expected = run(whole)
    monkeypatch.setattr(images, "unread_numbers", 100)
    monkeypatch.setattr(training, "strip_numbers", 100)
    found = run(unread)
    assert is_made(whole) and not is_made(unread)
    assert all(torch.equal(a, b) for a, b in zip(expected, found))
    unread.images
    assert not is_unread(unread) and all(torch.equal(a, b) for a, b in zip(expected, run(unread)))


def test_what_is_taken_is_what_stands_there(stored, monkeypatch):
    monkeypatch.setattr(images, "unread_numbers", 0)
    data, whole = stored(), stored().images
    rows = torch.tensor([3, 0, 39])
    assert is_unread(data) and torch.equal(take_images(data, rows), whole[rows])
    assert [len(x) for x in split_images(data, 16)] == [16, 16, 8] and torch.equal(torch.cat(list(split_images(data, 16))), whole)
    assert is_unread(data), "nothing was kept"
    few = data.subset(rows)
    assert torch.equal(take_images(few, torch.tensor([1])), whole[:1]) and data.to("cpu") is data
    monkeypatch.setattr(images, "unread_numbers", 40 * 3 * 64)
    assert not is_unread(data), "as many as are allowed"


def test_how_many_are_looked_at_at_once(stored):
    """A thousand small digits, some tens of photographs: what a network keeps of a batch grows with both, and small batches stay in the cache."""
    sizes = lambda side: len(next(split_images(ImageSet(torch.zeros(2000, 1, side, side), torch.arange(2000) % 2, ("a", "b"), (0.0,), (1.0,)))))
    assert (sizes(8), sizes(64)) == (1024, 32)
    elsewhere = lambda side: len(next(split_images(ImageSet(torch.zeros(2000, 3, side, side, device="meta"), torch.zeros(2000, dtype=torch.int64, device="meta"), ("a",), (0.0,) * 3, (1.0,) * 3))))
    assert (elsewhere(32), elsewhere(64), elsewhere(224), elsewhere(4000)) == (1024, 1024, 111, 1), "a GPU takes more, and of large photographs not a thousand"


def test_a_judged_set_holds_no_more_than_before(stored, monkeypatch):
    """Each of many sets that are judged one after the other would otherwise keep its tensor until all are."""
    from selmatch.train.judge import evaluate, trials
    data = stored()
    work = trials(data, 2, 0, network=SPEC, recipe=Recipe(steps=2, batch=16), tests={"test": stored()})
    table = evaluate(work, computer=Computer(quiet=True))
    assert not is_made(data) and not any(is_made(trial.data) for trial in work) and len(table) == 2
    given = ImageSet(stored().images, data.labels, data.classes, data.mean, data.std)
    assert read_afresh(given).images is given.images and read_afresh(data).key == data.key
