"""Sets of other people: files of MTT's, DC's and DM's families, folders; their normalisation; one protocol for all."""
from dataclasses import replace

import numpy as np
import pytest
import torch

import selmatch as sm
from selmatch.core import InputError
from selmatch.distill.sets import SyntheticSet
from selmatch.api import count_alike, count_leaks
from selmatch.others import find_normalisation, normalisations, read_set, say_table, undo_normalisation

QUICK = {"evaluation.steps": 15, "evaluation.n": 2, "network.width": 4, "network.depth": 2}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    from sklearn.datasets import load_digits
    raw = load_digits()
    return sm.from_arrays(raw.images[:600] / 16, raw.target[:600], words=QUICK, results=tmp_path_factory.mktemp("home"), quiet=True)


@pytest.fixture
def few(data):
    return data.train.subset(torch.arange(40))


def pixels_of(few):
    return (few.images * few.std[0] + few.mean[0]).clamp(0, 1)


def refuses(words, call):
    with pytest.raises(InputError) as error: call()
    for word in words: assert str(word) in str(error.value), error.value
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind, store", [("data", lambda f: f.images), ("pixels", pixels_of), ("half", lambda f: 2 * pixels_of(f) - 1),
                                         ("bytes", lambda f: (255 * pixels_of(f)).round())])
def test_mtts_files_are_read_and_their_normalisation_is_found(kind, store, data, few, tmp_path):
    torch.save(store(few), tmp_path / "images_best.pt")
    torch.save(few.labels, tmp_path / "labels_best.pt")
    small = sm.read_set(tmp_path / "images_best.pt", data)
    assert small.card["normalised"] == kind
    assert torch.allclose(small.images, few.images, atol=0.02)
    assert torch.equal(small.labels, few.labels)


@pytest.mark.parametrize("zero", [np.float64(0.5), np.float32(0.5)])
def test_dcs_and_dms_files(zero, data, few, tmp_path):
    runs = [[few.images[:20], few.labels[:20]], [few.images[20:], few.labels[20:]]]
    torch.save({"data": runs, "accs_all_exps": {"ConvNet": [zero, 0.4]}}, tmp_path / "res_DC.pt")
    for number, rows in enumerate((slice(0, 20), slice(20, 40))):
        small = read_set(tmp_path / "res_DC.pt", data, number=number)
        assert torch.allclose(small.images, few.images[rows], atol=1e-5) and torch.equal(small.labels, few.labels[rows])
    refuses(["experiment 2", "it has 2"], lambda: read_set(tmp_path / "res_DC.pt", data, number=2))


def test_soft_labels_and_logits(data, few, tmp_path):
    logits = torch.randn(40, 10)
    torch.save(few.images, tmp_path / "images_best.pt")
    torch.save(logits, tmp_path / "labels_best.pt")
    small = read_set(tmp_path / "images_best.pt", data)
    assert torch.allclose(small.labels, logits.softmax(1), atol=1e-6)
    torch.save(logits.softmax(1), tmp_path / "others.pt")
    again = read_set(tmp_path / "images_best.pt", data, labels=tmp_path / "others.pt")
    assert torch.allclose(again.labels, small.labels, atol=1e-6)


def test_zca_is_undone_when_it_is_named(data, few, tmp_path):
    from selmatch.data.whitening import fit_whitening
    torch.save(fit_whitening(data.train, more=[data.validation]).apply(few).images, tmp_path / "images_best.pt")
    torch.save(few.labels, tmp_path / "labels_best.pt")
    small = read_set(tmp_path / "images_best.pt", data, normalised="zca")
    assert torch.allclose(small.images, few.images, atol=1e-2)


def test_a_folder_of_images(data, few, tmp_path):
    from selmatch.data.export import save_folder
    save_folder(few, tmp_path / "mine")
    small = read_set(tmp_path / "mine", data)
    assert small.labels.bincount(minlength=10).tolist() == few.labels.bincount(minlength=10).tolist()
    (tmp_path / "mine" / "0").rename(tmp_path / "mine" / "zero")
    (tmp_path / "mine" / "classes.json").unlink()
    refuses(["class", "zero"], lambda: read_set(tmp_path / "mine", data))


class Bomb:
    def __reduce__(self): return exec, ("raise SystemExit('code was run')",)


def test_bad_files_are_refused(data, few, tmp_path):
    file = tmp_path / "images_best.pt"
    refuses(["does not exist", file], lambda: read_set(file, data))
    torch.save(Bomb(), file)
    refuses([file, "cannot read"], lambda: read_set(file, data))
    file.write_bytes(b"no tensors")
    refuses([file, "cannot read"], lambda: read_set(file, data))
    torch.save(few.images, file)
    refuses(["labels_best.pt", "not there"], lambda: read_set(file, data))
    torch.save(few.labels[:7], tmp_path / "labels_best.pt")
    refuses(["(7,)", "(40,)"], lambda: read_set(file, data))
    torch.save(few.labels + 9, tmp_path / "labels_best.pt")
    refuses(["10 classes"], lambda: read_set(file, data))
    torch.save(few.labels, tmp_path / "labels_best.pt")
    torch.save(few.images[:, :, :4], file)
    refuses(["(1, 4, 8)", "(1, 8, 8)"], lambda: read_set(file, data))
    torch.save(few.images * float("nan"), file)
    refuses(["NaN"], lambda: read_set(file, data, normalised="data"))
    torch.save(few.images * 9, file)
    refuses(["cannot be told", "--normalised", "zca"], lambda: read_set(file, data))
    refuses(["normalised", "'dataset'", "half"], lambda: undo_normalisation(few.images, "dataset", data.train))
    torch.save({"pictures": 3}, file)
    refuses(["images (n, c, h, w) are needed"], lambda: read_set(file, data))


def test_a_set_with_test_images_is_refused(data):
    leak = SyntheticSet(replace(data.train, images=data.test.images[:9], labels=data.test.labels[:9]), torch.zeros(9).bool())
    assert count_leaks(leak, data) == 9
    refuses(["leak", "9 of the"], lambda: sm.compare({"leak": leak}, data))


def test_all_are_judged_by_one_protocol(data, few):
    theirs = SyntheticSet(few, torch.ones(40).bool(), card={"method": "imported"})
    table = sm.compare({"theirs": theirs, "mine": sm.select(data, "random", per_class=4)}, data, draws=2, networks=3, epochs=2)
    assert table["set"].tolist() == ["theirs", "mine", "random", "all training images"]
    assert table.networks.tolist() == [3, 3, 6, 3] and table.sets.tolist() == [1, 1, 2, 1]
    assert table["half"].notna().all() and table["mean"].between(0, 100).all()
    assert "2 sets, 6 networks; interval over sets" in say_table(table)
    assert say_table(table.head(1).assign(networks=1, half=float("nan"))).endswith("(1 set, 1 network)")
    wide = sm.compare({"theirs": theirs}, data, draws=0, full=False, network={"name": "ConvNet", "width": 8, "depth": 1})
    assert wide["set"].tolist() == ["theirs"]
    same = sm.compare({"a": theirs, "b": theirs}, data, draws=0, full=False)
    assert same["mean"].nunique() == 1, "the same set under two names is judged alike"


def test_every_normalisation_is_explained():
    assert set(normalisations) == {"pixels", "bytes", "data", "cifar", "half", "imagenet", "zca"}


def test_a_made_set_of_other_images_is_refused(data, tmp_path):
    from sklearn.datasets import load_digits
    raw = load_digits()
    other = sm.from_arrays(raw.images[600:900] / 16, raw.target[600:900], words=QUICK, results=tmp_path / "home", quiet=True)
    sm.select(other, "random", per_class=2).save(tmp_path / "theirs")
    refuses(["made from other training images"], lambda: read_set(tmp_path / "theirs", data))
    assert find_normalisation(data.train.images, data.train) == "data"


def test_a_test_image_is_found_in_a_file_of_selmatchs_family_and_after_whitening(data):
    """Real images, stored by CIFAR's numbers as those codes have them: undone by others, no leak is seen."""
    from selmatch import others
    chance = torch.Generator().manual_seed(0)
    real = torch.randint(0, 256, (12, 3, 32, 32), generator=chance) / 255
    own = replace(data.train, images=torch.zeros(4, 3, 32, 32), labels=torch.arange(4), mean=(0.49, 0.48, 0.45), std=(0.247, 0.243, 0.262))
    mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in others.cifar)
    stored = torch.cat([(real - mean) / std, (real + 0.2 * torch.randn(real.shape, generator=chance) - mean) / std])
    kind = find_normalisation(stored, own)
    back = undo_normalisation(stored, kind, own)
    assert kind == "cifar" and count_alike(255 * back.flatten(1), 255 * real.flatten(1)) == 12
    near = (255 * real).flatten(1) + torch.randint(-2, 3, (12, 3072), generator=chance)
    far = near.clone()
    far[:, 7] += 6
    assert count_alike(near, 255 * real.flatten(1)) == 12 and count_alike(far, 255 * real.flatten(1)) == 0
