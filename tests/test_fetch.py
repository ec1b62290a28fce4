"""Official files by their own names: fetched from a server of the test's own, unpacked, and drawn from end to end."""
import http.server
import shutil
import tarfile
import threading
import zipfile
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

from selmatch.app import main as leave
from selmatch.core import InputError
from selmatch.data import fetch as room
from selmatch.data.fetch import OfficialFile, advise, fetch, find_md5, official_files
from selmatch.data.images import pictures
from test_data import write_cifar
import write_official


def main(words):
    """Run a command; it ends well."""
    with pytest.raises(SystemExit) as end:
        leave(words)
    assert end.value.code == 0


@pytest.fixture
def server(tmp_path):
    """Serves the files of a folder; breaks off after half of what was asked as often as `breaks` says."""
    state = SimpleNamespace(breaks=0, asked=[], knows_ranges=True, tells_end=True, folder=tmp_path / "served")
    state.folder.mkdir()

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_GET(self):
            file = state.folder / self.path[1:]
            if not file.exists():
                return self.send_error(404, "nothing here")
            begin = int(self.headers.get("Range", "bytes=0-")[6:-1]) if state.knows_ranges else 0
            state.asked.append(begin)
            content = file.read_bytes()
            if begin and begin >= len(content):
                self.send_response(416)
                if state.tells_end: self.send_header("Content-Range", f"bytes */{len(content)}")
                return self.end_headers()
            self.send_response(206 if begin else 200)
            self.send_header("Content-Length", str(len(content) - begin))
            self.end_headers()
            rest, state.breaks = content[begin:], state.breaks - 1
            self.wfile.write(rest[:len(rest) // 2] if state.breaks >= 0 else rest)

    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    state.url = f"http://127.0.0.1:{running.server_port}"
    yield state
    running.shutdown()
    running.server_close()


@pytest.fixture
def served(server):
    file = server.folder / "scores.npy"
    file.write_bytes(np.random.default_rng(0).bytes(30_000))
    return OfficialFile(f"{server.url}/scores.npy", find_md5(file)), file.read_bytes()


@pytest.mark.parametrize("breaks", [0, 1, 3])
def test_a_broken_line_goes_on_where_it_stopped(server, served, tmp_path, breaks):
    file, content = served
    server.breaks = breaks
    assert room.fetch_file(file, tmp_path / "data").read_bytes() == content
    assert server.asked[0] == 0
    assert len(server.asked) == breaks + 1
    assert all(a < b for a, b in zip(server.asked, server.asked[1:]))
    assert [p.name for p in (tmp_path / "data").iterdir()] == ["scores.npy"]


def test_a_killed_download_goes_on_in_the_next_command(server, served, tmp_path):
    file, content = served
    part = tmp_path / "scores.npy.part"
    part.write_bytes(content[:12_345])
    assert room.fetch_file(file, tmp_path).read_bytes() == content
    assert server.asked == [12_345]
    part.write_bytes(content)                       # all had come, and the name was not given yet
    assert room.fetch_file(file, tmp_path).read_bytes() == content


def test_a_server_without_ranges_begins_anew(server, served, tmp_path):
    file, content = served
    server.knows_ranges = False
    (tmp_path / "scores.npy.part").write_bytes(b"x" * 100)
    assert room.fetch_file(file, tmp_path).read_bytes() == content


def test_what_is_not_official_is_thrown_away(server, served, tmp_path):
    file, content = served
    (server.folder / "scores.npy").write_bytes(content[:-1] + b"x")
    with pytest.raises(InputError, match="MD5"):
        room.fetch_file(file, tmp_path)
    assert not list(tmp_path.glob("scores.npy*"))


def test_a_missing_file_and_a_silent_server_are_named(server, tmp_path):
    with pytest.raises(InputError, match="404 nothing here"):
        room.fetch_file(OfficialFile(f"{server.url}/none.npy"), tmp_path)
    with pytest.raises(InputError, match="cannot fetch http://127.0.0.1:9/none"):
        room.fetch_file(OfficialFile("http://127.0.0.1:9/none"), tmp_path)


def test_an_archive_cannot_leave_its_folder(tmp_path):
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as book:
        book.writestr("good/one", "1")
        book.writestr("../outside", "2")
    with tarfile.open(tmp_path / "bad.tar.gz", "w:gz") as book:
        link = tarfile.TarInfo("good")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc"
        book.addfile(link)
    (tmp_path / "text.zip").write_text("no archive")
    for name in ("bad.zip", "bad.tar.gz", "text.zip"):
        with pytest.raises(InputError, match=name):
            room.unpack(tmp_path / name, inside)
    assert not outside.exists()
    assert not list(inside.iterdir())


def test_every_dataset_of_the_paper_has_its_files():
    assert set(official_files) == {"cifar10", "cifar100", "tinyimagenet"}
    for files in official_files.values():
        assert files[0].marker and files[0].md5
        assert any("forgetting" in file.name for file in files)


def official(server, tmp_path):
    """CIFAR-10 as it is published, but small: the archive, the C-scores, SelMatch's scores."""
    write_cifar(tmp_path / "made", "CIFAR10", n=60)
    place = tmp_path / "made" / "cifar-10-batches-py"
    with tarfile.open(server.folder / "cifar-10-python.tar.gz", "w:gz") as book:
        book.add(place, "cifar-10-batches-py")
    from selmatch.data.loaders import load_data
    train = load_data("cifar10", root=str(place.parent), validation=0.0, cache=str(tmp_path / "c")).train
    labels = train.labels.numpy()
    scores = np.random.default_rng(1).random(len(labels))
    np.savez(server.folder / "cifar10-cscores-orig-order.npz", scores=scores, labels=labels)
    np.save(server.folder / "forgetting_CIFAR10.npy", scores)
    files = [replace(file, url=f"{server.url}/{file.name}", md5="") for file in official_files["cifar10"]]
    return files, labels


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*is not the official file")
def test_the_window_is_drawn_from_official_files_by_one_command(server, tmp_path, monkeypatch, capsys):
    files, labels = official(server, tmp_path)
    monkeypatch.setitem(official_files, "cifar10", files)
    monkeypatch.setenv("SELMATCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("SELMATCH_HOME", str(tmp_path / "home"))
    from selmatch.study.profile import profile_folder
    small = yaml.safe_load((profile_folder / "smoke.yaml").read_text(encoding="utf-8"))
    paper = yaml.safe_load((profile_folder / "cifar10.yaml").read_text(encoding="utf-8"))
    small |= {"data": paper["data"] | {"validation": 0.2}, "transfer": {}, "seeds": 1,
              "score": {**small["score"], **{k: paper["score"][k] for k in ("kind", "path", "file_kind", "key")}}}
    profile = tmp_path / "tiny.yaml"
    profile.write_text(yaml.safe_dump(small), encoding="utf-8")
    server.breaks = 1
    main(["figures", "--profile", str(profile), "--only", "fig3_window", "--download", "--workers", "1", "--out", str(tmp_path / "figures")])
    assert (tmp_path / "figures" / "fig3_window.png").exists()
    assert sorted(p.name for p in (tmp_path / "data").iterdir()) == ["cifar-10-batches-py", "cifar10-cscores-orig-order.npz", "forgetting_CIFAR10.npy"]
    asked = len(server.asked)
    main(["fetch", "cifar10"])
    assert len(server.asked) == asked, "what is there is not asked for again"


@pytest.mark.filterwarnings("ignore:.*is not the official file")
def test_scores_of_other_images_are_refused(server, tmp_path, monkeypatch):
    files, labels = official(server, tmp_path)
    fetch("cifar10", tmp_path / "data", lambda line: None, {"cifar10": files})
    file = tmp_path / "data" / "cifar10-cscores-orig-order.npz"
    from selmatch.data.loaders import load_data
    from selmatch.select.scores import load_difficulty
    splits = load_data("cifar10", root=str(tmp_path / "data"), validation=0.0, cache=str(tmp_path / "c"))
    difficulty = load_difficulty(file, "c_score", splits, "scores")
    with np.load(file) as arrays:
        expected = 1 - arrays["scores"][splits.rows.numpy()]
        np.savez(tmp_path / "turned.npz", scores=arrays["scores"], labels=np.roll(arrays["labels"], 1))
    assert np.allclose(difficulty.numpy(), expected)
    with pytest.raises(InputError, match="rows differ"):
        load_difficulty(tmp_path / "turned.npz", "c_score", splits, "scores")


def test_without_a_line_the_files_are_listed(tmp_path, capsys):
    main(["fetch", "tinyimagenet", "--list", "--root", str(tmp_path)])
    said = capsys.readouterr().out
    assert "tiny-imagenet-200.zip" in said
    assert str(tmp_path / "forgetting_Tiny.npy") in said
    assert advise("cifar100", tmp_path).count("->") == 3
    shutil.rmtree(tmp_path)


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_an_archive_that_would_fill_the_disk_is_refused(kind, tmp_path, monkeypatch):
    inside, archive = tmp_path / "inside", tmp_path / f"large.{kind}"
    inside.mkdir()
    (tmp_path / "zeros").write_bytes(b"\0" * 5000)
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) if kind == "zip" else tarfile.open(archive, "w:gz") as book:
        for name in "abc": (book.write if kind == "zip" else book.add)(tmp_path / "zeros", name)
    monkeypatch.setattr(room, "largest_unpacked", 10_000)
    with pytest.raises(InputError, match=f"large.{kind} unpacks to 15,000 bytes or more, and 10,000 are allowed"): room.unpack(archive, inside)
    assert not list(inside.iterdir())
    monkeypatch.setattr(room, "largest_unpacked", 15_000)
    (inside / "a").write_text("was here")
    room.unpack(archive, inside)
    assert sorted(p.name for p in inside.iterdir()) == ["a", "b", "c"] and (inside / "a").read_text() == "was here"


def test_an_archive_without_what_was_promised_is_named(server, tmp_path):
    with zipfile.ZipFile(server.folder / "set.zip", "w") as book: book.writestr("other/one", "1")
    file = OfficialFile(f"{server.url}/set.zip", marker="set/names.txt")
    with pytest.raises(InputError, match="set.zip does not hold set/names.txt"): room.bring(file, tmp_path / "data")
    assert file.place(tmp_path) == tmp_path / "set" / "names.txt" and OfficialFile(file.url).place(tmp_path) == tmp_path / "set.zip"


def test_what_was_received_whole_before_a_stop_is_not_asked_for_anew(server, served, tmp_path):
    """The server has nothing more than we have: 416."""
    file, content = served
    (tmp_path / "scores.npy.part").write_bytes(content)
    assert room.fetch_file(file, tmp_path).read_bytes() == content and server.asked == [len(content)]


@pytest.mark.parametrize("tells_end, part", [(True, b"longer than what the server has"), (False, b""), (False, b"longer")])
def test_a_part_that_is_not_what_the_server_has_is_begun_anew(server, served, tmp_path, tells_end, part):
    """Also without a checksum: a part that is longer passed as whole, for the server has nothing behind its end."""
    file, content = served
    server.tells_end = tells_end
    (tmp_path / "scores.npy.part").write_bytes(content + part)
    assert room.fetch_file(OfficialFile(file.url), tmp_path).read_bytes() == content and server.asked == [len(content + part), 0]


def test_a_line_that_breaks_again_and_again_is_given_up(server, served, tmp_path):
    file, content = served
    server.breaks = 99
    with pytest.raises(InputError, match="cannot fetch .*scores.npy: it breaks off again and again|IncompleteRead"): room.keep_receiving(file.url, tmp_path / "part", "scores", tries=3)
    assert len(server.asked) == 3 and content.startswith((tmp_path / "part").read_bytes()), "what came stays"
    with pytest.raises(InputError, match="unknown dataset 'mnist'"): fetch("mnist", tmp_path)


@pytest.mark.parametrize("name, kind, words", [("../outside", tarfile.REGTYPE, "leads outside"), ("/outside", tarfile.REGTYPE, "leads outside"), ("link", tarfile.SYMTYPE, "no plain file"), ("pipe", tarfile.FIFOTYPE, "no plain file")])
def test_a_python_that_does_not_look_after_archives_is_looked_after(name, kind, words, tmp_path, monkeypatch):
    """Before 3.11.4 (Debian 12 has 3.11.2) `extractall` knows no filter: what would lead outside is refused by us."""
    from selmatch.data import fetch
    monkeypatch.delattr(tarfile, "data_filter", raising=False)
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, "/etc/passwd"
    with tarfile.open(tmp_path / "a.tar", "w") as book: book.addfile(member)
    (tmp_path / "to").mkdir()
    with pytest.raises(InputError, match=words): fetch.unpack_tar(tmp_path / "a.tar", tmp_path / "to")
    assert not any((tmp_path / "to").iterdir()) and not (tmp_path / "outside").exists()
    good = tarfile.TarInfo("in/good")
    with tarfile.open(tmp_path / "b.tar", "w") as book: book.addfile(good)
    fetch.unpack_tar(tmp_path / "b.tar", tmp_path / "to")
    assert (tmp_path / "to" / "in" / "good").exists()


@pytest.mark.filterwarnings("ignore:.*is not the official file")
def test_a_folder_can_be_written_as_official_files(tmp_path, monkeypatch):
    """For whoever has the images as a folder only: the profiles of the official files are tried on them."""
    from PIL import Image
    from selmatch.data.loaders import load_data
    from selmatch.select.scores import load_difficulty
    rng, order = np.random.default_rng(0), np.random.default_rng(1).permutation(20)
    shades, labels = rng.integers(0, 256, (20, 3)), np.repeat(np.arange(10), 2)       # of the j-th file of the folder
    for split, n in (("train", 2), ("test", 1)):
        for i in range(10 * n):
            place = tmp_path / "cifar10" / split / f"class {i // n}"
            place.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (32, 32), tuple(map(int, shades[i]))).save(place / f"{i % n:04d}.png")
    known, scores = np.empty(20, int), rng.random(20)
    known[order] = labels
    np.savez(tmp_path / "scores.npz", folder_order=order, labels=known, c_score=scores)
    monkeypatch.setattr("sys.argv", ["write_official.py", *(str(tmp_path / name) for name in ("cifar10", "scores.npz", "data"))])
    write_official.main()
    splits = load_data("cifar10", root=str(tmp_path / "data"), validation=0.0, cache=str(tmp_path / "c"))
    assert splits.train.labels.tolist() == known.tolist() and splits.train.classes == tuple(f"class {i}" for i in range(10))
    found = pictures(splits.train)[:, 0, 0]
    assert (found[order] == shades).all()
    difficulty = load_difficulty(tmp_path / "data" / "cifar10-cscores-orig-order.npz", "c_score", splits, "scores")
    assert np.allclose(difficulty.numpy(), 1 - scores)
    before = {file: file.read_bytes() for file in (tmp_path / "data").rglob("*") if file.is_file()}
    with pytest.raises(SystemExit): write_official.main()
    assert before == {file: file.read_bytes() for file in (tmp_path / "data").rglob("*") if file.is_file()}
