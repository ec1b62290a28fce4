"""Expert files that almost fit, decoded images that were cut, a small set on another device than its words, and draws that are for other images."""
import pickle
from dataclasses import replace

import pytest
import torch

from conftest import refuses
from selmatch.core import DamagedFile, InputError, save_tensors
from selmatch.data import images as room
from selmatch.data.images import ImageSet, StoredImages, write_pixels
from selmatch.distill.experts import ExpertTask, Trajectory, expert_recipe, list_expert_tasks
from selmatch.distill.objectives import real_images
from selmatch.train.augment import Augmentation, Draw, apply, draw

PIXELS = (255 * torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(0))).to(torch.uint8)
DATA = ImageSet(torch.randn(6, 1, 4, 4), torch.arange(6) % 2, ("a", "b"), (0.5,), (0.5,))


# ---------------------------------------------------------------- experts

@pytest.mark.parametrize("theta, card, words", [(torch.zeros(4), {}, ["(4,)", "(epochs kept, weights)"]), (torch.zeros(0, 3), {}, ["(0, 3)"]), (torch.zeros(3, 0), {}, ["(3, 0)"]), (torch.zeros(3, 2), {"kept": [0, 1]}, ["[0, 1]", "3 rows"]),
                                                (torch.zeros(2, 2), {"kept": "01"}, ["2 rows", "must agree"]), (torch.zeros(2, 2), {"kept": [0, -1]}, ["-1"]), (torch.zeros(2, 2), {"kept": [0, True]}, ["True"])])
def test_files_that_hold_no_path_of_weights(theta, card, words, tmp_path):
    save_tensors(tmp_path / "e.safetensors", {"theta": theta}, card)
    refuses(lambda: Trajectory(tmp_path / "e.safetensors").kept, "e.safetensors", *words)


def test_epochs_are_looked_up_by_their_number(tmp_path):
    theta = torch.arange(6.0).view(3, 2)
    theta[2, 1] = float("nan")
    save_tensors(tmp_path / "e.safetensors", {"theta": theta}, {"kept": [0, 4, 9]})
    expert = Trajectory(tmp_path / "e.safetensors")
    assert expert.epochs == 9 and torch.equal(expert[4], theta[1])
    refuses(lambda: expert[5], "e.safetensors does not hold epoch 5", "3 of the epochs 0 to 9")
    refuses(lambda: expert.check([4, 0, 7, 5]), "does not hold epoch 5")
    refuses(lambda: expert[9], "not finite in epoch 9", "lower rate")


def test_what_no_expert_can_keep(tmp_path):
    task = lambda **words: ExpertTask(tmp_path / "e.safetensors", DATA, {"name": "ConvNet"}, expert_recipe(6, 2, 3, 0.1), 0, **words)
    refuses(lambda: task(keep=()), "keep=() is empty")
    refuses(lambda: task(keep=(0, 5)), "keep=5", "[0, 2]")
    refuses(lambda: task(precision="float8"), "'float8'", "bfloat16")
    assert task(keep=(0, 2)).keep == (0, 2)
    refuses(lambda: list_expert_tasks(tmp_path, DATA, {}, expert_recipe(6, 2, 3, 0.1), 0), "number of experts=0")


# ---------------------------------------------------------------- images

def test_decoded_files_of_another_form_are_damaged(tmp_path):
    whole = {"pixels": PIXELS, "sums": torch.ones(6, 1).long(), "squares": torch.ones(6, 1).long(), "digests": torch.zeros(6, 16, dtype=torch.uint8)}
    assert room.check_stored("x", whole) is whole
    for name, part in {"pixels": PIXELS.float(), "sums": torch.ones(5, 1).long(), "squares": torch.ones(6, 2).long(), "digests": torch.zeros(6, 8, dtype=torch.uint8)}.items():
        with pytest.raises(DamagedFile, match=f"its {'pixels' if name == 'pixels' else name} are not those of 6 images"): room.check_stored("x", whole | {name: part})
        with pytest.raises(DamagedFile): room.check_stored("x", {k: v for k, v in whole.items() if k != name})
    with pytest.raises(DamagedFile): room.check_stored("x", whole | {"pixels": PIXELS[:0]})


def test_stored_images_are_read_when_they_are_asked_for_and_travel_unread(tmp_path):
    file = tmp_path / "x.safetensors"
    write_pixels(file, PIXELS)
    stored = StoredImages(str(file), torch.arange(6), (0.5,), (0.25,))
    data = ImageSet(stored, torch.arange(6) % 2, ("a", "b"), (0.5,), (0.25,))
    assert data.shape == (1, 4, 4) and "images" not in vars(data)
    expected = (PIXELS / 255 - 0.5) / 0.25
    assert torch.allclose(data.images, expected, atol=1e-6) and "images" in vars(data)
    back = pickle.loads(pickle.dumps(data))
    assert "images" not in vars(back) and torch.allclose(back.images, expected, atol=1e-6), "only where it can be made again does it stay behind"
    plain = replace(DATA)
    assert torch.equal(pickle.loads(pickle.dumps(plain)).images, DATA.images)
    some = data.subset(torch.tensor([4, 1]))
    assert "images" not in vars(some) and torch.allclose(some.images, expected[[4, 1]], atol=1e-6) and some.key != data.key
    assert torch.allclose(data.subset(data.labels == 1).images, expected[1::2], atol=1e-6)
    there = data.to("meta")
    assert there.source.device.type == "meta" and there.labels.device.type == "meta" and data.to("cpu") is data


def test_real_images_are_those_of_the_small_set():
    other = replace(DATA, classes=("a", "b", "c"))
    refuses(lambda: real_images(DATA, other), "2 classes", "3", "must agree")
    refuses(lambda: real_images(DATA, replace(DATA, images=torch.zeros(6, 3, 4, 4))), "(1, 4, 4)", "(3, 4, 4)")
    assert real_images(DATA, DATA) is DATA


# ---------------------------------------------------------------- augmentation

def test_draws_are_for_as_many_images_as_there_are():
    made = draw(Augmentation("dsa"), 6, torch.Generator().manual_seed(0))
    refuses(lambda: apply(torch.zeros(5, 1, 4, 4), made), "draw for 6 images", "5")
    refuses(lambda: apply(torch.zeros(6, 1, 4, 4), made, torch.arange(3)), "has 3")
    part = made.rows(torch.tensor([5, 0]))
    assert torch.equal(part.u, made.u[[5, 0]]) and torch.equal(part.family, made.family[[5, 0]])
    moved = made.to("meta")
    assert moved.u.device.type == "meta" and moved.family.device.type == "cpu" and isinstance(moved, Draw)


def test_a_combined_draw_is_told_which_images_are_distilled():
    combined = Augmentation("combined", ("cutout",), "flip")
    refuses(lambda: draw(combined, 4, torch.Generator()), "'combined'", "mask")
    mask = torch.tensor([True, False, False, True])
    families = draw(combined, 4, torch.Generator(), mask).family
    assert (families[mask] == families[0]).all() and (families[~mask] == families[1]).all() and families[0] != families[1]
    refuses(lambda: Augmentation("dsa", ()), "strong=() is empty")
    refuses(lambda: Augmentation("dsaa"), "'dsaa'")
    refuses(lambda: Augmentation("dsa", per="pixel"), "'pixel'")
    assert [Augmentation(kind, ("cutout",), "flip").moves for kind in ("none", "simple", "dsa", "combined")] == [False, True, False, True]
