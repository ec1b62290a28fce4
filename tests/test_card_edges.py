"""The card where the usual is not asked: options, whitening, sizes and rules that a reader must be told."""
import re
import shlex
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import selmatch as sm
from selmatch.core import InputError
from selmatch.data.export import class_folders, save_folder
from selmatch.data.images import ImageSet, class_rows
from selmatch.data.loaders import load_digits
from selmatch.show import card
from selmatch.study import shrink
from selmatch.study.profile import load_profile

pytestmark = pytest.mark.usefixtures("registers_as_before")      # rules of one's own

QUICK = {"evaluation.steps": 4, "network.width": 4, "network.depth": 1, "experts.n": 1, "experts.epochs": 16, "matching.iterations": 1,
         "score.epochs": 2, "score.runs": 1, "window.step": 0.5, "window.n": 1, "evaluation.n": 2, "proxy.epochs": 1}


def write_noise(folder, counts, shape=(8, 8), seed=0):
    rng = np.random.default_rng(seed)
    for c, n in counts.items():
        (folder / c).mkdir(parents=True, exist_ok=True)
        for i in range(n): Image.fromarray(rng.integers(0, 256, (*shape, 3), dtype=np.uint8)).save(folder / c / f"{i:03d}.png")
    return folder


def read(folder, room, **words):
    return sm.from_folder(folder, **{"size": 8, "quiet": True, "workers": 1, "results": room / "home", "words": QUICK} | words)


def small_of(folder, room, **words):
    """`shrink` by the least effort, and the text of its card."""
    out = room / "small"
    how = {"size": 8, "quiet": True, "workers": 1, "results": room / "home", "words": QUICK} | words
    if not isinstance(folder, sm.Data): how = {"ratio": 0.2, "budget": 1e-3, "flips": False, "tell": lambda line: None} | how
    else: how = {"ratio": 0.2, "budget": 1e-3, "flips": False, "tell": lambda line: None}
    found = sm.shrink(folder, out, **how)
    return found, (out / "README.md").read_text(encoding="utf-8")


# ---------------------------------------------------------------- what was given

def test_what_is_left_out_does_not_turn_a_held_out_test_set_into_its_own(tmp_path):
    folder = write_noise(tmp_path / "mine", {"a": 40, "b": 40, "c": 40})
    data = read(folder, tmp_path, classes=["a", "b"])
    assert data.given == (40, 40) and data.sizes(ratio=0.1).small == (4, 4)
    assert "80 images given = 20 for testing" in shrink.say_sizes(data.sizes(ratio=0.1))
    assert sum(shrink.count_given(load_digits(per_class=20))) == 200
    assert sum(read(folder, tmp_path, per_class=20).given) == 60


def test_a_test_set_that_came_along_is_not_given_even_where_the_numbers_agree(tmp_path):
    """train/ 3 × 30 and test/ 3 × 15, two classes: 60 + 30 = 90 is also the number of all training images."""
    write_noise(tmp_path / "mine" / "train", dict.fromkeys("abc", 30))
    write_noise(tmp_path / "mine" / "test", dict.fromkeys("abc", 15), seed=1)
    data = read(tmp_path / "mine", tmp_path, classes=["a", "b"])
    assert sum(data.given) == 60 and "30 of its own for testing" in shrink.say_sizes(data.sizes(ratio=0.1))


def test_a_pickle_from_before_is_read():
    import pickle
    splits = load_digits(per_class=4)
    assert pickle.loads(pickle.dumps(splits)).held_out
    words = {name: value for name, value in splits.__dict__.items() if name != "held_out"}
    old = object.__new__(type(splits))
    old.__dict__.update(words)
    assert old.held_out is False and shrink.count_given(old)


# ---------------------------------------------------------------- choosing where classes differ

@pytest.fixture(scope="module")
def uneven(tmp_path_factory):
    x, y = np.random.default_rng(0).random((90, 8, 8)).astype("float32"), np.array(([0] * 3 + [1] + [2] * 2) * 15)
    return sm.from_arrays(x, y, quiet=True, workers=1, results=tmp_path_factory.mktemp("home"), words=QUICK)


@pytest.mark.parametrize("order", ["sorted", "reversed"])
def test_a_rule_of_ones_own_may_give_its_rows_in_any_order(order, uneven):
    def mine(data, ipc):
        rows = [rows[:ipc] for rows in class_rows(data)]
        return torch.cat(rows).sort().values if order == "sorted" else torch.cat(rows[::-1])
    small = sm.select(uneven, mine, ratio=0.3)
    asked = uneven.sizes(ratio=0.3).small
    assert len(set(asked)) == 3 and tuple(torch.bincount(small.labels).tolist()) == asked == tuple(small.card["ipc"])
    assert len(set(small.rows.tolist())) == sum(asked)


def test_a_rule_that_takes_another_number_is_named(uneven):
    def stingy(data, ipc): return torch.cat([rows[:ipc - 1] for rows in class_rows(data)])
    with pytest.raises(InputError, match="'stingy' took . images of class '0'"): sm.select(uneven, stingy, per_class=3)


def test_parted_evidence_keeps_its_validation_images(uneven):
    seen = uneven.study.evidence()
    part = shrink.take_rows({"evidence": seen}, torch.arange(5))["evidence"]
    assert len(part.labels) == 5 and part.validation is seen.validation is not None


# ---------------------------------------------------------------- judging

def test_a_set_called_like_what_stands_beside_is_judged_too(uneven):
    mine = sm.select(uneven, "hardest", per_class=2).made
    names = {"random": mine, "random (given)": mine, "all training images": mine}
    rows = shrink.judge_sets(uneven.study, names, draws=1, full=True, n=1)
    images = dict(zip(rows["set"], rows.images))
    assert images == {"random (given) (given)": 6, "random (given)": 6, "all training images (given)": 6, "random": 6, "all training images": len(uneven.train)}
    assert shrink.judge_sets(uneven.study, {"random": mine}, n=1)["set"].tolist() == ["random"]


def test_labels_that_a_teacher_gives_in_every_step_are_asked_for(uneven, monkeypatch):
    from selmatch.study.study import Study
    seen, run = [], Study.run_trials
    def spy(self, work, label):
        seen.extend((t.tags["set"], t.loss) for t in work)
        return run(self, work, label)
    monkeypatch.setattr(Study, "run_trials", spy)
    small = sm.select(uneven, "random-online", per_class=2)
    seen.clear()
    sm.evaluate(small, uneven, networks=1, draws=1)
    assert dict(seen) == {"small": uneven.study.taught, "random": None}


# ---------------------------------------------------------------- settings

def test_what_somebody_named_stays_whatever_the_effort():
    named = frozenset({"score.epochs", "window.step", "evaluation.n"})
    p = sm.api.change_words(load_profile("folder"), {"score.epochs": 3, "window.step": 0.25, "evaluation.n": 4})
    for effort in shrink.efforts:
        q = shrink.apply_effort(p, shrink.replace(effort, named=named))
        assert (q.score.epochs, q.window.step, q.evaluation.n) == (3, 0.25, 4) and (q.score.runs, q.window.n) == (effort.watched, effort.scan)
        assert shrink.apply_effort(p, effort).score.epochs == effort.epochs
    assert card.named_words(p) == named and card.named_words(load_profile("digits")) == frozenset()


def test_shrinking_keeps_what_was_set_and_refuses_what_it_cannot_do(tmp_path):
    folder, said = write_noise(tmp_path / "mine", {"a": 30, "b": 30}), []
    plan = {"only_plan": True, "tell": said.append}
    small_words = {"size": 8, "quiet": True, "workers": 1, "results": tmp_path / "home"}
    sm.shrink(folder, tmp_path / "small", words=QUICK | {"score.runs": 7}, **plan, **small_words)
    assert re.search(r"watch networks learn +7 ×", "\n".join(said)), said
    with pytest.raises(InputError, match="seeds=3"): sm.shrink(folder, tmp_path / "small", words={"seeds": 3}, **plan, **small_words)
    with pytest.raises(InputError, match="size cannot be given"): sm.shrink(read(folder, tmp_path), tmp_path / "small", size=16, **plan)
    with pytest.raises(InputError, match="data is a int"): sm.shrink(5, tmp_path / "small")
    with pytest.raises(InputError, match="lies in"): sm.shrink(read(folder, tmp_path), folder / "small", **plan)


# ---------------------------------------------------------------- the command on the card

def retest(text):
    """The words of the card's `selmatch evaluate …`, as the command line reads them, and the data it would read."""
    line = re.search(r"`selmatch (evaluate .*)`", text)[1]
    from selmatch.app import cli
    return shlex.split(line), cli.commands["evaluate"].make_context("evaluate", shlex.split(line)[1:]).params


def test_the_command_of_the_card_reads_and_judges_as_it_was_done(tmp_path, monkeypatch):
    from selmatch.app import make_data
    folder = write_noise(tmp_path / "my photos", {"a": 30, "b": 30, "c": 30})
    found, text = small_of(folder, tmp_path, words=QUICK | {"data.per_class": 20}, validation=0.3, classes=["a", "c"])
    monkeypatch.chdir(tmp_path)
    words, params = retest(text)
    assert ["--profile" in words, "--no-flip" in words] == [False, True]
    again = make_data(**{k: params[k] for k in ("data", "seed", "size", "no_flip", "words", "profile")}, quiet=True)
    mine = found.study
    assert again.train.key == mine.splits.train.key and again.test.key == mine.splits.test.key
    assert again.study.network == mine.network and again.study.profile.evaluation == mine.profile.evaluation
    assert again.study.profile.allowed == mine.profile.allowed


def test_a_network_that_suits_the_images_needs_no_word_and_any_other_does():
    p = load_profile("folder")
    shape = (3, 64, 64)
    assert card.list_changes(p, p, shape, True) == ['network={"name": "ConvNet", "width": 32, "depth": 3, "norm": "batch"}']
    assert card.list_changes(shrink.fit_network(p, shape), p, shape, True) == []
    other = sm.api.change_words(p, {"network": {"name": "ResNet18"}, "whiten": True, "augmentation.strong": ["color"]})
    assert card.list_changes(other, p, shape, True) == ['network={"name": "ResNet18"}', 'augmentation.strong=["color"]', "whiten=true"]
    as_they_are = shrink.replace(p, data={"name": "folder", "root": "."})
    assert card.list_changes(shrink.fit_network(as_they_are, shape), p, shape, True) == ["data.size=null"]


def test_images_in_memory_have_no_command_and_no_program(tmp_path, uneven):
    found, text = small_of(uneven, tmp_path)
    assert card.asked_data(uneven, None) == "" and "selmatch evaluate" not in text and "PHOTOS" not in text
    assert "## Train on it again" not in text
    assert card.asked_data(sm.api.open_study("digits", workers=1, quiet=True), None) == "--data digits --seed 0"


# ---------------------------------------------------------------- the program on the card

def test_data_that_were_read_before_lead_back_to_their_files(tmp_path):
    found, text = small_of(read(write_noise(tmp_path / "mine", {"a": 15, "b": 15}), tmp_path), tmp_path)
    assert "selmatch evaluate small --data folder:mine" in text and "\"PHOTOS\", 'mine')" in text
    assert set(pd.read_csv(tmp_path / "small" / "files.csv").original) == {f"{c}/{i:03d}.png" for c in "ab" for i in range(15)}


@pytest.mark.parametrize("words, mode", [({"fit": "stretch"}, "RGB"), ({"fit": "pad", "background": "#305070"}, "RGBA"), ({"fit": "crop", "mode": "L"}, "JPEG"), ({}, "P")])
def test_the_program_reads_pictures_by_the_rule_of_the_data(words, mode, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    for c in "ab":
        (tmp_path / "mine" / c).mkdir(parents=True)
        for i in range(15):
            array = rng.integers(0, 256, (40, 60, 4 if mode == "RGBA" else 3), dtype=np.uint8)
            picture = Image.fromarray(array)
            if mode == "P": picture = picture.quantize(16)
            picture.save(tmp_path / "mine" / c / f"{i}.{'jpg' if mode == 'JPEG' else 'png'}", **({"transparency": 0} if mode == "P" else {}))
    data = read(tmp_path / "mine", tmp_path, **words)
    small = sm.select(data, "random", per_class=2)
    small.save(tmp_path / "small")
    found = SimpleNamespace(study=data.study, small=small.made, flips=False)
    files = card.list_originals(data)
    classes = [data.classes[c] for c in data.test.labels]
    held = pd.DataFrame({"original": card.shorten(files["test"], tmp_path / "mine"), "class": classes, "split": "test"})
    held.to_csv(tmp_path / "small" / "files.csv")
    program = card.write_snippet(found, {"a": "a", "b": "b"}, str(tmp_path / "mine"), files)
    monkeypatch.chdir(tmp_path / "small")
    names = {}
    exec(program.split("def block")[0], names)
    assert torch.allclose(names["x_test"], data.test.images, atol=1e-4) and torch.equal(names["y_test"], data.test.labels)
    assert len(names["x"]) == len(small)


def test_there_is_no_program_that_would_not_be_the_recipe(tmp_path):
    folder = tmp_path / "mine"
    for c, base in (("a", 0), ("b", 30000)):
        (folder / c).mkdir(parents=True)
        for i in range(15): Image.fromarray((base + 1000 * np.random.default_rng(i).random((8, 8))).astype(np.uint16)).save(folder / c / f"{i}.png")
    data = read(folder, tmp_path)
    found = SimpleNamespace(study=data.study, small=sm.select(data, "random", per_class=2).made, flips=False)
    files = card.list_originals(data)
    assert card.write_snippet(found, {}, "mine", files | {"test": files["test"][:0]}) and not card.write_snippet(found, {}, "mine", files)
    assert not card.write_snippet(found, {}, "mine", None)


def test_whitened_images_are_shrunk_judged_and_written(tmp_path):
    found, text = small_of(write_noise(tmp_path / "mine", {"a": 30, "b": 30}), tmp_path, words=QUICK | {"whiten": True})
    assert "def train(" not in text and "--set whiten=true" in text
    again = shrink.read_pictures(found.study, found.small.data)
    assert again.mean == ("whitened",) and (again.images - found.small.data.images).abs().max() < 0.2
    shown = np.asarray(Image.open(next((tmp_path / "small" / "images" / "a").glob("*.png"))))
    assert shown.shape == (8, 8, 3) and sm.load(tmp_path / "small").data.mean == ("whitened",)


# ---------------------------------------------------------------- the words on the card

def proof_of(**means):
    """Rows of `judge_sets`: name -> accuracy of each draw."""
    return pd.DataFrame([{"set": name, "recipe": recipe, "number": number, "images": 10, "seed": seed, "test_accuracy": mean + 0.01 * seed,
                          "validation_accuracy": mean, "easy_accuracy": mean, "hard_accuracy": mean}
                         for name, draws in means.items() for recipe in ("own", "plain") for number, mean in enumerate(draws) for seed in range(2)])


def test_of_random_images_the_draw_that_is_kept_has_a_row_of_its_own():
    found = SimpleNamespace(proof=proof_of(random=(0.5, 0.8, 0.8), window=(0.6,)), method="random", coverage={"random": {"coverage": 0.25}}, flips=False)
    lines = card.tabulate_proof(found, "own").splitlines()[2:]
    assert "this set**" in lines[0] and "50.5" in lines[0] and "25 %" in lines[0] and "1 × 2" in lines[0]
    assert "this set" not in "".join(lines[1:]) and any("70.5" in line for line in lines)
    found.method = "window"
    assert [line for line in card.tabulate_proof(found, "own").splitlines() if "this set" in line][0].startswith("| **best window")


def test_the_verdict_names_the_recipe_that_was_used():
    found = SimpleNamespace(proof=proof_of(random=(0.5,), window=(0.6,), selmatch=(0.7,)), method="window", flips=False)
    assert "under crop (" in card.say_verdict(found) and "flip" not in card.say_verdict(found)
    found.flips = True
    assert "under crop and flip (" in card.say_verdict(found)


def test_other_augmentations_in_the_table_are_said():
    proof = proof_of(random=(0.5,), window=(0.6,), selmatch=(0.7,))
    found = SimpleNamespace(proof=proof, method="selmatch", flips=True)
    assert card.say_others(found) == "random images, best window (real images): all images by DSA"
    assert "random images under theirs" in card.say_verdict(found)
    found.method = "window"
    assert "under theirs" not in card.say_verdict(found)
    assert card.say_others(found) == "SelMatch (part distilled): distilled images by DSA, the others by crop and flip"
    found.proof = proof[proof["set"] != "selmatch"]
    assert card.say_others(found) == ""


@pytest.mark.parametrize("words, said", [
    ({}, "forgetting events, ties by EL2N, mean of 2 network(s) watched for 10 epochs"), ({"score.kind": "el2n"}, "EL2N, mean of 2 network(s)"),
    ({"score.ties": None}, "forgetting events, mean"), ({"score.kind": "c_score", "score.ties": None}, "1 - C-score, estimated by 2 held-out"),
    ({"score.kind": "file", "score.path": "there/mine.npy", "score.ties": None}, "the file mine.npy (forgetting)")])
def test_the_difficulty_is_the_profiles(words, said):
    assert card.say_difficulty(sm.api.change_words(load_profile("folder"), words)).startswith(said)


@pytest.mark.parametrize("schedule, said", [("cosine", "falling to 0 as a cosine"), ("step", "a tenth of it after half"), ("constant", "throughout")])
def test_the_rates_are_the_profiles(schedule, said):
    p = sm.api.change_words(load_profile("folder"), {"evaluation.schedule": schedule})
    found = SimpleNamespace(study=SimpleNamespace(profile=p), small=SimpleNamespace(card={"augmentation": "dsa"}), flips=True)
    assert f"rate 0.05, {said}" in card.say_recipe(found)


def test_files_that_were_left_out_are_listed(tmp_path):
    folder = write_noise(tmp_path / "mine", {"a": 30, "b": 30, "c": 5})
    (folder / "a" / "torn.png").write_bytes(b"no picture")
    (folder / "b" / "copy.png").write_bytes((folder / "b" / "000.png").read_bytes())
    _, text = small_of(folder, tmp_path, skip_unreadable=True, drop_leaked=True, classes=["a", "b"])
    table = pd.read_csv(tmp_path / "small" / "files.csv")
    assert len(table) == 30 + 30 + 5 + 2 and table.original.is_unique
    gone = set(table[table.split == "left out"].original)
    assert {"a/torn.png"} < gone and len(gone) == 7 and len(gone & {"b/copy.png", "b/000.png"}) == 1
    assert "left out: it cannot be read" in text


def test_another_numbering_of_classes_is_said():
    names = tuple(str(i) for i in range(12))
    assert "(0, 1, 10, 11, …)" in card.say_order(names, dict(zip(names, names))) and "match classes by name" in card.say_order(names, dict(zip(names, names)))
    assert card.say_order(("a", "b"), {"b": "b", "a": "a"}) == ""


def test_the_program_that_renumbers_classes_gives_our_numbers(tmp_path, monkeypatch):
    names = ("2", "10", "AC/DC")
    data = ImageSet(torch.arange(6.).view(6, 1, 1, 1).expand(6, 3, 4, 4) / 6, torch.tensor([0, 0, 1, 1, 2, 2]), names, (0.0,) * 3, (1.0,) * 3)
    save_folder(data, tmp_path / "images")
    monkeypatch.chdir(tmp_path)
    said = card.say_order(names, dict(zip(names, class_folders(names))))
    room = {}
    exec(re.search("```python\n(.*?)```", said, re.S)[1], room)
    numbers = {Path(file).parent.name: room["data"][i][1] for i, (file, _) in enumerate(room["data"].samples)}
    assert room["data"].classes == ["10", "2", class_folders(names)[2]] and numbers == {folder: i for i, folder in enumerate(class_folders(names))}


def test_ones_own_set_may_be_compared_where_the_data_has_copies(tmp_path):
    """What was chosen from the training images is theirs to have, also where the test set repeats it; others' images are not."""
    folder = write_noise(tmp_path / "mine", {"a": 10, "b": 10})
    for c in "ab":
        for file in sorted((folder / c).iterdir()): (folder / c / f"copy {file.name}").write_bytes(file.read_bytes())
    with pytest.warns(UserWarning, match="copies of others"):
        data = read(folder, tmp_path)
        assert len(data.test) == 10
    small = sm.select(data, "random", per_class=8)
    table = sm.compare({"mine": small}, data, draws=1, full=False, networks=1)
    assert table["set"].tolist() == ["mine", "random"]
    foreign = shrink.replace(small.made, card=small.card | {"train_fingerprint": "another"})
    with pytest.raises(InputError, match="test images"): sm.compare({"mine": foreign}, data, draws=1, full=False, networks=1)
