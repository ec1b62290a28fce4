"""`selmatch shrink`: the sum, the choice, the folder that is written, and that others can read it."""
import csv
import json
import os
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import selmatch as sm
from conftest import ROOT
from selmatch.app import cli, main, read_time, sections
from selmatch.core import InputError
from selmatch.data.images import pictures
from selmatch.data.loaders import load_digits
from selmatch.study import shrink
from selmatch.study.shrink import choose_set, count_small, depth_for, efforts, say_sizes, without_flips

QUICK = {"evaluation.steps": 12, "network.width": 4, "experts.n": 1, "experts.epochs": 16, "matching.iterations": 2, "proxy.epochs": 1}
WORDS = [word for k, v in QUICK.items() for word in ("--set", f"{k}={v}")]


def write_images(folder, counts, side=8, suffix=".png"):
    """Digits as files, so many of each of the first classes; class 0 is called `nought`."""
    from sklearn import datasets
    digits = datasets.load_digits()
    for c, n in enumerate(counts):
        place = folder / ("nought" if c == 0 else f"digit {c}")
        place.mkdir(parents=True, exist_ok=True)
        for i, row in enumerate(np.flatnonzero(digits.target == c)[:n]):
            picture = Image.fromarray((digits.images[row] * 15.9).astype(np.uint8)).resize((side, side)).convert("RGB")
            picture.save(place / f"photo {i}{suffix}")
    return folder


def arrays():
    "Six hundred digits and their labels."
    from sklearn import datasets
    digits = datasets.load_digits()
    return (digits.images / 16)[:600], digits.target[:600]


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("photos") / "mine", (60, 60, 60), side=16)


@pytest.fixture(scope="module")
def shrunk(mine, tmp_path_factory):
    room, said = tmp_path_factory.mktemp("out"), []
    before = {p: p.stat().st_mtime_ns for p in mine.rglob("*")}
    found = sm.shrink(mine, room / "small", ratio=0.1, budget=1e6, words=QUICK, size=16, results=room / "home", quiet=True, originals="copy", tell=said.append)
    assert before == {p: p.stat().st_mtime_ns for p in mine.rglob("*")}, "the source was touched"
    return room / "small", found, "\n".join(said)


def test_the_sum_is_said_and_right(shrunk):
    _, found, said = shrunk
    assert "180 images given = 45 for testing + 27 for validation + 108 for training" in said
    assert "18 images, 10.0% of what was given" in said
    assert found.sizes.small == (6, 6, 6) and len(found.small) == 18


def test_every_image_is_accounted_for(shrunk, mine):
    folder, found, _ = shrunk
    table = pd.read_csv(folder / "files.csv")
    assert len(table) == 180 and table.original.is_unique
    assert table.split.value_counts().to_dict() == {"train": 90, "test": 45, "validation": 27, "small": 18}
    assert set(table.original) == {str(p.relative_to(mine)) for p in mine.rglob("*.png")}
    assert (table.original.str.split("/").str[0] == table["class"]).all()
    own = table[table.split == "small"]
    assert own.part.isin(["kept", "distilled"]).all() and own["rank"].notna().all() and own.difficulty.notna().all()
    assert (own.part == "distilled").sum() == int(found.small.distilled.sum())
    for row in own[own.part == "kept"].itertuples():
        ours, original = np.asarray(Image.open(folder / row.file)), np.asarray(Image.open(mine / row.original))
        assert np.abs(ours.astype(int) - original).max() <= 1, row.file
    held = {str(mine / name) for name in table[table.split == "test"].original}
    assert not held & {str(mine / name) for name in own.original}


def test_the_originals_are_there_at_full_size(shrunk, mine):
    folder, _, _ = shrunk
    own = pd.read_csv(folder / "files.csv").query("split == 'small'")
    for row in own.itertuples():
        copy = folder / row.file.replace("images", "originals", 1)
        assert copy.read_bytes() == (mine / row.original).read_bytes()


def test_the_card(shrunk):
    folder, found, _ = shrunk
    text = (folder / "README.md").read_text(encoding="utf-8")
    import yaml
    head = yaml.safe_load(text.split("---\n")[1])
    assert head["task_categories"] == ["image-classification"] and head["size_categories"] == ["n<1K"]
    assert head["configs"][0]["data_files"] == [{"split": "train", "path": "images/*/*.png"}]
    for words in ("all training images", "random images", "best window", "SelMatch", "easy half", "covered", "A plain recipe", "this set**", "```python", "180 images given"):
        assert words in text, words
    assert str(ROOT) not in text and "/tmp" not in text.replace("made by", ""), "the card shows a path of this machine"
    recipes = found.proof.groupby("recipe")["set"].unique()
    assert set(recipes["own"]) >= {"random", "window", "selmatch", "all training images"} and set(recipes["own"]) == set(recipes["plain"])
    assert Image.open(folder / "contact.png").size[0] > 300


def test_image_folder_and_tensors_agree(shrunk):
    from torchvision.datasets import ImageFolder
    folder, found, _ = shrunk
    data = ImageFolder(folder / "images")
    small = sm.load(folder)
    assert data.classes == sorted(small.classes) and len(data) == len(small)
    listed = pd.read_csv(folder / "files.csv").query("split == 'small'").set_index("file")["class"]
    for file, target in data.samples:
        assert data.classes[target] == listed[os.path.relpath(file, folder)]
    assert torch.equal(small.images, found.small.data.images)


def test_hugging_face_reads_it(shrunk):
    """In an environment of its own: SELMATCH_DATASETS_PYTHON names a Python that has `datasets`."""
    python = os.environ.get("SELMATCH_DATASETS_PYTHON", sys.executable)
    folder, found, _ = shrunk
    code = f"""import datasets
datasets.disable_progress_bars()
for data in (datasets.load_dataset({str(folder)!r}, split="train"), datasets.load_dataset("imagefolder", data_dir={str(folder / 'images')!r}, split="train")):
    print(sorted(data.features["label"].names), len(data), sorted(data["label"]))"""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder.parent / "hf"), "HF_DATASETS_CACHE": str(folder.parent / "hf")}
    if subprocess.run([python, "-c", "import datasets"], capture_output=True).returncode:
        pytest.skip("the library `datasets` is not installed: name a Python that has it by SELMATCH_DATASETS_PYTHON")
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    expected = f"{sorted(found.small.data.classes)} 18 {sorted(found.small.data.hard_labels.tolist())}"
    assert done.stdout.splitlines() == [expected, expected]


@pytest.mark.slow
def test_the_snippet_of_the_card_reproduces_the_number(mine, tmp_path):
    """The plain recipe, exec'd as it stands, with pictures instead of tensors; both at 150 steps."""
    words = QUICK | {"network.width": 16, "evaluation.steps": 150}
    found = sm.shrink(mine, tmp_path / "small", ratio=0.2, budget=1, words=words, size=16, results=tmp_path / "home", quiet=True, tell=lambda line: None)
    text = (tmp_path / "small" / "README.md").read_text(encoding="utf-8")
    program = next(block for block in re.findall(r"```python\n(.*?)```", text, re.S) if "def train(" in block)
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path / "small", env={**os.environ, "PHOTOS": str(mine)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    theirs = np.mean(json.loads(re.search(r"\[.*\]", done.stdout)[0]))
    ours = 100 * found.proof.query("recipe == 'plain' and set == @found.method").test_accuracy.mean()
    assert abs(theirs - ours) < 12, (theirs, ours)


def refuses(words, call):
    with pytest.raises(InputError) as error: call()
    for word in words: assert str(word) in str(error.value), error.value


def test_bad_output_is_refused_before_work(mine, tmp_path):
    home = {"results": tmp_path / "home"}
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "diary.txt").write_text("mine")
    (tmp_path / "file").write_text("x")
    for out in (tmp_path / "there", mine, mine / "small", mine.parent, tmp_path / "file", tmp_path / "file" / "small"):
        refuses(["--out", out], lambda: sm.shrink(mine, out, **home))
    refuses(["originals", "'move'"], lambda: sm.shrink(mine, tmp_path / "new", originals="move", **home))
    assert not (tmp_path / "home").exists() and (tmp_path / "there" / "diary.txt").read_text() == "mine"


def test_a_full_disk_leaves_nothing(mine, tmp_path, monkeypatch, shrunk):
    from selmatch.show import card
    _, found, _ = shrunk
    def full(*_, **__): raise OSError(28, "No space left on device")
    monkeypatch.setattr(card, "draw_sheet", full)
    refuses(["No space left", tmp_path / "small"], lambda: card.write_shrunk(found, tmp_path / "small", "mine", str(mine), None))
    assert not list(tmp_path.iterdir())


def test_what_is_tried_fits_the_time(mine, tmp_path):
    said = []
    assert sm.shrink(mine, tmp_path / "small", budget=1e6, only_plan=True, words=QUICK, size=16, results=tmp_path / "home", quiet=True, tell=said.append) is None
    assert "train experts" in "\n".join(said) and not (tmp_path / "small").exists()
    said.clear()
    sm.shrink(mine, tmp_path / "small", budget=1e-3, only_plan=True, words=QUICK, size=16, results=tmp_path / "home", quiet=True, tell=said.append)
    assert "train experts" not in "\n".join(said) and "longer than" in "\n".join(said)
    assert [e.distils for e in efforts] == sorted((e.distils for e in efforts), reverse=True)


@pytest.mark.slow
def test_uneven_classes_keep_their_share_and_are_named(tmp_path):
    folder, said = write_images(tmp_path / "photos", (120, 40, 6)), []
    found = sm.shrink(folder, tmp_path / "small", ratio=0.3, budget=1, words=QUICK, size=8, results=tmp_path / "home", quiet=True, tell=said.append)
    counts = dict(zip(found.small.data.classes, torch.bincount(found.small.data.labels).tolist()))
    assert counts == {"nought": 36, "digit 1": 12, "digit 2": 2}
    found = count_small(load_digits(per_class=20), per_class=500)
    assert set(found.capped) == set(found.classes) and "0, 1, 2" in say_sizes(found)


def test_photographs_that_lose_most_of_themselves_are_named(tmp_path):
    folder, said = write_images(tmp_path / "photos", (12, 12), side=256), []
    sm.shrink(folder, tmp_path / "small", only_plan=True, words=QUICK, size=16, results=tmp_path / "home", quiet=True, tell=said.append)
    assert any("0.4%" in line and "256" in line and "--size 32" in line for line in said), said


def judged(**accuracies):
    return pd.DataFrame([{"set": name, "recipe": "own", "number": 0, "seed": seed, "validation_accuracy": mean + step}
                         for name, (mean, steps) in accuracies.items() for seed, step in enumerate(steps)])


def test_distilling_must_win_by_more_than_chance():
    still, steady, noise = (0, 0.01, 0.02), (0.001, 0.01, 0.019), (0, 0.2, -0.2)
    assert choose_set(judged(random=(0.2, still), window=(0.3, still), selmatch=(0.4, steady)))[0] == "selmatch"
    name, why = choose_set(judged(random=(0.2, still), window=(0.3, still), selmatch=(0.4, still)))
    assert name == "window" and "+10.0 points" in why and "nan" not in why, "a scatter that was not seen is no interval"
    assert choose_set(judged(random=(0.2, still), window=(0.3, still), selmatch=(0.32, noise)))[0] == "window"
    assert choose_set(judged(random=(0.4, still), window=(0.3, still), selmatch=(0.35, still)))[0] == "random"
    name, why = choose_set(judged(random=(0.2, still), window=(0.3, still)))
    assert name == "window" and "nothing was distilled" in why


def test_networks_and_flips_suit_the_images():
    from selmatch.study.profile import load_profile
    assert [depth_for(side) for side in (8, 28, 32, 64, 128, 224)] == [1, 3, 3, 4, 5, 6]
    p = without_flips(load_profile("folder"))
    assert "flip" not in p.augmentation.strong and p.augmentation.simple == "shift"


def arrows(folder, mirrored_is_another, n=24, side=8):
    """Wedges that are thick on one side, two classes: `left` and `right`, or upright ones that a mirror leaves in their class."""
    rng = np.random.default_rng(0)
    for c, name in enumerate(("left", "right") if mirrored_is_another else ("top", "bottom")):
        (folder / name).mkdir(parents=True)
        ramp = np.tile(np.linspace(40, 220, side), (side, 1))
        ramp = ramp[:, ::-1] if c else ramp
        ramp = ramp if mirrored_is_another else ramp.T
        for i in range(n):
            Image.fromarray(np.clip(ramp + rng.normal(0, 15, ramp.shape), 0, 255).astype(np.uint8)).save(folder / name / f"{i}.png")
    return folder


def test_whether_a_mirror_misleads_is_found_out_or_said(tmp_path):
    from selmatch.study.profile import load_profile
    from selmatch.study.shrink import settle_flips
    words = {"network.width": 8, "network.depth": 1, "evaluation.steps": 100, "augmentation.strong": ["flip"]}
    for other, stay in ((True, False), (False, True)):
        data = sm.from_folder(arrows(tmp_path / str(other), other), size=8, words=words, workers=1, results=tmp_path / "home", quiet=True)
        found, why = settle_flips(data.study, data.sizes(ratio=0.5), None)
        assert found is stay and "on validation images" in why, why
        if other: assert float(why.split("images ")[1].split("%")[0]) < 80 < float(why.split("it, ")[1].split("%")[0]), why
    for asked in (True, False):
        assert settle_flips(data.study, data.sizes(ratio=0.5), asked) == (asked, "as asked")
    told = sm.from_folder(tmp_path / "True", size=8, flip=False, results=tmp_path / "home", quiet=True)
    assert settle_flips(told.study, told.sizes(ratio=0.5), None) == (False, "as the profile says")
    assert load_profile("folder").allowed.simple == "simple"


def test_the_card_names_the_data_as_it_was_read(tmp_path):
    """What `selmatch evaluate` is told, so that the same images are read, and seen the same way."""
    import shlex
    from selmatch.app import cli
    from selmatch.show.card import asked_data
    folder = arrows(tmp_path / "my photos", True, n=8)
    (tmp_path / "list.csv").write_text("file,label\n" + "".join(f"{p.relative_to(folder)},{p.parent.name}\n" for p in folder.rglob("*.png")))
    (folder / "list.csv").write_text((tmp_path / "list.csv").read_text())
    data = sm.from_folder(folder, size=16, fit="pad", background="black", mode="L", drop_leaked=True, labels=str(folder / "list.csv"), results=tmp_path / "home", quiet=True)
    line = asked_data(data, folder.name, flips=False)
    assert shlex.split(line) == ["--data", "folder:my photos", "--seed", "0", "--size", "16", "--fit", "pad", "--background", "black", "--mode", "L", "--labels", "list.csv", "--drop-leaked", "--no-flip"]
    context = cli.commands["evaluate"].make_context("evaluate", ["small", *shlex.split(line)])
    assert context.params["no_flip"] and context.params["labels"] == "list.csv"
    assert shlex.split(asked_data(sm.from_folder(folder, size=16, results=tmp_path / "home", quiet=True), "x")) == ["--data", "folder:x", "--seed", "0", "--size", "16"]


def test_what_becomes_of_photographs_is_said(tmp_path, monkeypatch, capsys):
    folder = write_images(tmp_path / "mine", (12, 12))
    words = ["select", "--method", "random", "--ratio", "0.5", "--data", "folder:mine", "--device", "cpu", "--out", "a"]
    assert run([*words, "--size", "16"], monkeypatch, tmp_path, tmp_path / "home") == 0
    said = capsys.readouterr().err
    assert "read as 16 × 16 pixels (--size)\n" in said and "networks see mirrored images, too: --no-flip" in said
    assert run([*words[:-1], "b", "--size", "8", "--no-flip"], monkeypatch, tmp_path, tmp_path / "home") == 0
    said = capsys.readouterr().err
    assert "read as" not in said and "mirrored" not in said
    for picture in folder.rglob("*.png"): Image.open(picture).resize((20, 10)).save(picture)
    assert run([*words[:-1], "c", "--size", "8", "--fit", "pad"], monkeypatch, tmp_path, tmp_path / "home") == 0
    assert "read as 8 × 8 pixels (--size); where a picture is not square the rest is filled up (--fit)" in capsys.readouterr().err


@pytest.mark.parametrize("text, seconds", [("10", 600), ("10m", 600), ("90s", 90), ("2h", 7200), (1.5, 90)])
def test_times(text, seconds):
    assert read_time(text) == seconds


@pytest.mark.parametrize("text", ["soon", "-3m", "", "10d"])
def test_what_is_no_time(text):
    with pytest.raises(InputError, match="time"): read_time(text)


def run(line, monkeypatch, place, home):
    monkeypatch.setenv("SELMATCH_HOME", str(home))
    monkeypatch.chdir(place)
    with pytest.raises(SystemExit) as stop: main(line if isinstance(line, list) else line.split())
    return stop.value.code


def test_help_fits_one_screen_in_the_order_of_use(capsys, monkeypatch, tmp_path):
    """24 lines of 80 characters, the prompt among them; nothing is cut off."""
    assert run("--help", monkeypatch, tmp_path, tmp_path) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 23 and max(map(len, lines)) <= 80
    rows = [line for line in lines if line[15:24].strip() in cli.commands]
    assert [line[15:24].strip() for line in rows] == [name for names in sections.values() for name in names]
    assert set(cli.commands) == {name for names in sections.values() for name in names}
    assert not [line for line in rows if line.endswith("...")]
    for title, names in sections.items(): assert next(line for line in rows if line.startswith(title))[15:].startswith(names[0])
    for word in ("--version", "--debug", "--help", "selmatch shrink my/images"): assert word in "\n".join(lines)


QUICK_COMMANDS = ("score", "window", "select", "experts", "distill", "evaluate", "coverage", "compare", "import")
SLOW_EXAMPLES = {"search", "tune", "bench", "figures"}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder in which the examples run: my/images, a set of theirs; the examples that write come first."""
    place = tmp_path_factory.mktemp("place")
    write_images(place / "my" / "images", (40, 40))
    data = sm.from_folder(place / "my" / "images", words=QUICK, results=place / "home", quiet=True)
    (place / "theirs").mkdir()
    few = data.train.subset(torch.arange(0, len(data.train), 6))
    torch.save(few.images, place / "theirs" / "images_best.pt")
    torch.save(few.labels, place / "theirs" / "labels_best.pt")
    return place


ORDER = ["shrink", "score", "window", "select", "experts", "distill", "evaluate", "coverage", "import", "compare", "methods", "profiles", "fetch"]


def example_of(name):
    lines = cli.commands[name].epilog or ""
    assert lines.startswith("Example: selmatch "), f"{name} has no example"
    return lines.removeprefix("Example: selmatch ").split()


@pytest.mark.parametrize("name", list(cli.commands))
def test_every_command_has_an_example_that_can_be_read(name):
    words = example_of(name)
    assert words[0] == name
    context = cli.commands[name].make_context(name, list(words[1:]), resilient_parsing=False)
    assert context.command.name == name


@pytest.mark.slow
def test_the_examples_run(workplace, monkeypatch, capsys):
    left = [name for name in cli.commands if name not in ORDER and name not in SLOW_EXAMPLES]
    for name in [*ORDER, *left]:
        words = example_of(name)
        extra = WORDS + ["--set", "window.step=0.4", "--set", "score.epochs=2"] if name in (*QUICK_COMMANDS, "shrink") else []
        if name in ("evaluate", "coverage", "compare", "import", "distill"):
            extra += ["--workers", "1"]
        code = run([*words, *extra], monkeypatch, workplace, workplace / "home")
        said = capsys.readouterr()
        assert code == 0, f"{name}: {said.err[-500:]}"
    assert (workplace / "small" / "README.md").exists() and (workplace / "scores.csv").exists()
    for name in ("chosen", "made", "theirs-read"): assert (workplace / name / "card.json").exists(), name


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SLOW_EXAMPLES - {"search"}))
def test_the_long_examples_run(name, workplace, monkeypatch):
    assert run(example_of(name), monkeypatch, workplace, workplace / "home") == 0


def test_limits_of_a_command(workplace, monkeypatch, capsys):
    base = ["--data", "folder:my/images", "--set", "network.width=4", "--set", "network.depth=1", "--device", "cpu"]
    assert run(["score", *base, "--estimate"], monkeypatch, workplace, workplace / "none") == 0
    assert "watch networks learn" in capsys.readouterr().out
    assert run(["experts", *base, "--minutes", "0.001"], monkeypatch, workplace, workplace / "none") == 2
    assert "--minutes" in capsys.readouterr().err
    assert run(["score", *base, "--set", "score.epoch=3"], monkeypatch, workplace, workplace / "none") == 2
    assert "score.epochs" in capsys.readouterr().err
    assert not list((workplace / "none").rglob("results/*")), "work was started"
    searching = ["search", *base, "--ratio", "0.2", "--set", "search.alphas=[0,0.5]"]
    assert run([*searching, "--estimate"], monkeypatch, workplace, workplace / "none") == 0
    said = capsys.readouterr().out
    assert "distill candidates, 20%" in said
    assert "slide the window" not in said, "the race brings its own windows"
    assert run(["tune", "--profile", "smoke", "--only", "dm", "--estimate"], monkeypatch, workplace, workplace / "none") == 0
    assert "tune DM" in capsys.readouterr().out


def test_a_choice_never_looks_at_test_images():
    """Windows and mirroring are chosen on validation images: the networks of that choice are not even asked about others."""
    study = sm.from_arrays(*arrays(), words={"network.width": 4, "network.depth": 2}, quiet=True).study
    sizes = shrink.count_small(study.splits, ratio=0.1)
    work = shrink.flip_trials(study, sizes, 1)
    study.__dict__["difficulty"] = torch.rand(len(study.splits.train))      # nobody has to be watched here
    work += shrink.window_trials(study, sizes)
    assert {name for trial in work for name in trial.tests} == {"validation"}
    assert {trial.recipe.steps for trial in work} == {shrink.brief * study.profile.evaluation.steps}


def test_epochs_follow_the_number_of_images_unless_they_are_named(monkeypatch, tmp_path):
    """Ten epochs of a few images, four of many; what somebody names stays, by itself or as a whole section."""
    x, y = arrays()
    epochs = lambda words, **more: (lambda p: (p.score.epochs, p.proxy.epochs))(
        sm.from_arrays(x, y, words=words, results=tmp_path, quiet=True, **more).study.profile)
    assert epochs({}) == (10, 10)
    n = len(sm.from_arrays(x, y, results=tmp_path, quiet=True).train)
    monkeypatch.setattr(shrink, "most_seen", 6 * n)
    assert epochs({}) == (6, 6)
    assert epochs({"score.epochs": 9}) == (9, 6) and epochs({"score.lr": 0.1}) == (6, 6)
    assert epochs({"proxy": {"epochs": 8}}) == (6, 8)
    assert epochs({}, profile="digits") != (6, 6), "a profile with settings of its own stays as it is"
    study = sm.from_arrays(x, y, words={"score.epochs": 9}, results=tmp_path, quiet=True).study
    assert shrink.apply_effort(study.profile, shrink.efforts[0], n).score.epochs == 6
    kept = shrink.replace(shrink.efforts[0], named=frozenset({"score.epochs"}))
    assert shrink.apply_effort(study.profile, kept, n).score.epochs == 9


def test_shrinking_passes_on_how_files_are_read(workplace, monkeypatch, capsys):
    """What every other command understands: a broken file is left out, and named, where one says so."""
    place = workplace / "torn"
    write_images(place, (12, 12))
    broken = next((place).rglob("*.png"))
    broken.write_bytes(broken.read_bytes()[:20])
    words = ["shrink", "torn", "--estimate", "--out", "torn-small", "--set", "network.width=4", "--set", "network.depth=1"]
    assert run(words, monkeypatch, workplace, workplace / "none") == 2
    assert broken.name in capsys.readouterr().err
    assert run([*words, "--skip-unreadable", "--fit", "pad"], monkeypatch, workplace, workplace / "none") == 0
    assert "in all" in capsys.readouterr().out
    assert run([*words, "--skip-unreadable", "--fit", "sideways"], monkeypatch, workplace, workplace / "none") == 2
    assert "sideways" in capsys.readouterr().err


@pytest.mark.parametrize("words", [{}, {"classes": ["b", "d"]}, {"classes": 2}, {"per_class": 20}, {"classes": ["d", "a"], "per_class": 7, "max_pixels": 10_000}])
def test_each_image_leads_back_to_its_own_file(words, tmp_path):
    """Also where classes or images were left out: every pixel of every part is that of the file named for it."""
    from selmatch.show.card import list_originals
    rng = np.random.default_rng(0)
    for c in "abcd":
        (tmp_path / "mine" / c).mkdir(parents=True)
        for i in range(30): Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(tmp_path / "mine" / c / f"{i:02d}.png")
    data = sm.from_folder(tmp_path / "mine", size=16, validation=0.2, cache=str(tmp_path / "cache"), results=tmp_path / "home", quiet=True, **words)
    files = list_originals(data)
    for name in ("train", "validation", "test"):
        part = getattr(data.splits, name)
        assert len(files[name]) == len(part) > 0
        for file, shown in zip(files[name], pictures(part)): assert (np.asarray(Image.open(file)) == shown).all(), file
