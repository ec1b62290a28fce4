"""A cluster played by fakes: who is not there, what is handed over once, what a worker leaves, and workers that are lost again and again."""
import os
import pickle
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("distributed")

from selmatch import cluster as room
from selmatch.cluster import Cluster, all_see, connect, lay_out, list_states, pack, run_on_cluster, unpack, work_on
from selmatch.core import InputError, fingerprint


class Lost(Exception): pass


class Future:
    def __init__(self, key, answer): self.key, self.answer, self.released = key, answer, False
    def done(self): return self.released
    def release(self): self.released = True


class Client:
    """Runs each task when its result is asked for, on a worker of its own folder; `losses`: so many rounds are lost."""
    def __init__(self, losses=0): self.losses, self.handed, self.waited, self.cancelled, self.cluster, self.closed = losses, [], 0, [], None, 0
    def scatter(self, thing, hash, broadcast):
        self.handed.append(thing)
        return thing
    def submit(self, call, *given, pure): return Future(f"f{id(given)}-{len(self.handed)}-{os.urandom(4).hex()}", lambda: call(*given))
    def cancel(self, futures, force): self.cancelled += futures
    def wait_for_workers(self, n, timeout): self.waited += 1
    def run(self, call, *given): return {"one": call(*given)}
    def nthreads(self): return {"one": 1}
    def close(self): self.closed += 1


@pytest.fixture
def fake(monkeypatch, tmp_path):
    """A cluster of this kind, whose workers keep their files below a folder of the test."""
    def as_completed(futures, with_results):
        client = monkeypatch.client
        for i, future in enumerate(futures):
            if client.losses and i == 1:
                client.losses -= 1
                raise Lost
            yield future, future.answer()
    monkeypatch.setattr(room, "import_distributed", lambda: SimpleNamespace(as_completed=as_completed))
    monkeypatch.setattr(room, "lost_errors", lambda: (Lost,))
    monkeypatch.setattr(room, "worker_folder", lambda name: (tmp_path / "worker").mkdir(exist_ok=True) or tmp_path / "worker")
    def make(shared=False, losses=0):
        cluster = Cluster("tcp://nowhere:1", tmp_path / "home", shared)
        monkeypatch.client = cluster.__dict__["client"] = Client(losses)
        (tmp_path / "home").mkdir(exist_ok=True)
        return cluster
    return make


def double(item): return 2 * item


def total(item):
    tensor, path = item
    return float(tensor.sum()) + len(Path(path).read_text())


def write(item):
    item.parent.mkdir(parents=True, exist_ok=True)
    item.write_text("made there")
    return item.name


def test_results_stand_in_the_order_of_the_tasks_and_are_told_as_they_come(fake):
    told, cluster = [], fake()
    assert run_on_cluster(cluster, double, [1, 2, 3], "double", quiet=True, keep=lambda i, result: told.append((i, result))) == [2, 4, 6]
    assert told == [(0, 2), (1, 4), (2, 6)] and len(cluster.sent) == 3 and cluster.client.cancelled == []
    assert run_on_cluster(cluster, double, [], "nothing", quiet=True) == []


def test_workers_that_were_lost_are_waited_for_and_only_what_is_left_is_sent_again(fake):
    told, cluster = [], fake(losses=2)
    assert run_on_cluster(cluster, double, [1, 2, 3], "double", quiet=True, keep=lambda i, result: told.append(i)) == [2, 4, 6]
    assert told == [0, 1, 2] and cluster.client.waited == 2 and len(cluster.sent) == 3 + 2 + 1


def test_workers_that_are_lost_again_and_again_are_given_up(fake):
    cluster, items = fake(losses=99), list(range(room.rounds + 3))
    with pytest.raises(InputError, match=f"tcp://nowhere:1.*lost its workers {room.rounds} times in 'double'.*3 of {len(items)} tasks"): run_on_cluster(cluster, double, items, "double", quiet=True)
    assert cluster.client.waited == room.rounds


def test_an_error_of_a_task_is_raised_and_the_rest_is_cancelled(fake):
    cluster = fake()
    with pytest.raises(ZeroDivisionError): run_on_cluster(cluster, lambda item: 1 // item, [1, 0, 1], "divide", quiet=True)
    assert len(cluster.client.cancelled) == 2 and cluster.client.waited == 0


def test_large_tensors_and_files_are_handed_over_once(fake, tmp_path):
    cluster = fake()
    file, tensor = cluster.folder / "in" / "words.txt", torch.ones(room.large)
    file.parent.mkdir()
    file.write_text("seven c")
    assert run_on_cluster(cluster, total, [(tensor, file), (tensor, str(file))], "sum", quiet=True) == [room.large + 7.0] * 2
    assert len(cluster.client.handed) == 2 and all(sent < tensor.nbytes / 4 for sent in cluster.sent)
    assert (tmp_path / "worker" / "in" / "words.txt").read_text() == "seven c"
    seen = fake(shared=True)
    assert run_on_cluster(seen, total, [(tensor, file)], "sum", quiet=True) == [room.large + 7.0] and len(seen.client.handed) == 1, "who sees the folder needs no file"


def test_what_a_worker_wrote_comes_back_and_replaces_what_was_here(fake, tmp_path):
    cluster = fake()
    place = cluster.folder / "sets" / "new.txt"
    assert run_on_cluster(cluster, write, [place], "write", quiet=True) == ["new.txt"] and place.read_text() == "made there"
    place.write_text("older")
    (tmp_path / "worker" / "sets" / "new.txt").unlink()
    run_on_cluster(cluster, write, [place], "write", quiet=True)
    assert place.read_text() == "made there"


def test_a_worker_returns_what_changed_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setattr(room, "worker_folder", lambda name: tmp_path)
    (tmp_path / "old").write_text("x")
    parcel = pack((write, Path("/home/of/mine") / "b" / "c"), Path("/home/of/mine"))
    assert work_on(parcel.content, "/home/of/mine", False, [], [], []) == ("c", {os.path.join("b", "c"): b"made there"})
    assert work_on(pack((double, 4)).content, str(tmp_path), True, [], [], []) == (8, {})
    lay_out(tmp_path, {"old": b"newer", "n/e/w": b"1"})
    assert (tmp_path / "old").read_text() == "newer" and set(list_states(tmp_path)) == {"old", os.path.join("b", "c"), os.path.join("n", "e", "w")}


def test_a_file_that_goes_while_it_is_listed_is_not_there(tmp_path):
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    (tmp_path / "here").write_text("four")
    assert {name: size for name, (size, _) in list_states(tmp_path).items()} == {"here": 4}


def test_each_process_has_a_folder_of_its_own_for_each_home(tmp_path, monkeypatch):
    monkeypatch.setattr(room.tempfile, "gettempdir", lambda: str(tmp_path))
    one, two = room.worker_folder("a"), room.worker_folder("b")
    assert one != two and one.is_dir() and str(os.getpid()) in one.name and one.stat().st_mode & 0o077 == 0 and room.worker_folder("a") == one


def test_small_views_and_things_elsewhere_travel_inside(tmp_path):
    wide = torch.arange(2 * room.large).view(2, -1).T
    for thing in (torch.ones(3), wide, Path("/elsewhere/x"), "words", tmp_path):
        parcel = pack(thing, tmp_path / "home")
        back = unpack(parcel.content, parcel.blobs, tmp_path)
        assert parcel.blobs == {} and (torch.equal(back, thing) if isinstance(thing, torch.Tensor) else back == thing)
    parcel = pack(str(tmp_path / "home" / "a"), tmp_path / "home")
    assert unpack(parcel.content, {}, Path("/there")) == "/there/a" and parcel.files == {}
    tensor = torch.rand(room.large)
    parcel = pack([tensor, tensor])
    a, b = unpack(parcel.content, parcel.blobs)
    assert list(parcel.blobs) == [fingerprint(tensor)] and torch.equal(a, tensor)
    a.zero_()
    assert b.sum() > 0 and tensor.sum() > 0, "what is unpacked is nobody else's"
    with pytest.raises(pickle.UnpicklingError): pickle.loads(parcel.content)


# ---------------------------------------------------------------- reaching it

def test_without_the_library_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(InputError, match=r"pip install 'selmatch\[cluster\]'"): room.import_distributed()


@pytest.mark.parametrize("address, error", [("tcp://there:1", OSError("timed out")), ("local:many", None), ("here", ValueError("no address"))])
def test_an_address_that_does_not_answer_is_named(address, error, monkeypatch):
    def client(*given, **words): raise error
    monkeypatch.setattr(room, "import_distributed", lambda: SimpleNamespace(Client=client, LocalCluster=client))
    with pytest.raises(InputError, match=f"cluster='{address}' does not answer"): connect(address)


def test_local_is_a_cluster_of_ones_own_and_is_closed_with_it(monkeypatch):
    made = []
    class Own:
        def __init__(self, n, threads_per_worker, dashboard_address): made.append((n, threads_per_worker, dashboard_address))
        def close(self): made.append("closed")
    monkeypatch.setattr(room, "import_distributed", lambda: SimpleNamespace(LocalCluster=Own, Client=lambda own, **words: SimpleNamespace(cluster=own if isinstance(own, Own) else None, close=lambda: made.append("left"))))
    Cluster("local:3", Path("x")).close()
    assert made == [(3, 1, None), "left", "closed"]
    Cluster("tcp://there:1", Path("x")).close()
    assert made[3:] == ["left"], "somebody else's goes on"


@pytest.mark.parametrize("answers, shared", [(["own", "own"], True), (["own", None], False), ([None], False), (["other"], False), ([], False)])
def test_whether_all_workers_see_the_folder(answers, shared, tmp_path):
    def run(call, path): return {i: call(path) if answer == "own" else answer for i, answer in enumerate(answers)}
    client = SimpleNamespace(run=run)
    assert all_see(client, tmp_path / "new" / "home") is shared and list((tmp_path / "new" / "home").iterdir()) == []
    cluster = Cluster("tcp://there:1", tmp_path / "home")
    cluster.__dict__["client"] = client
    assert cluster.sees_folder is shared and Cluster("x", tmp_path, True).sees_folder and room.read_word(str(tmp_path / "none")) is None


def test_a_set_that_another_worker_began_goes_on_where_it_was(fake, tmp_path):
    """Files of a folder travel with a task that names it, and take the place of older ones."""
    cluster = fake()
    begun = cluster.folder / "sets" / "a" / "checkpoint"
    begun.parent.mkdir(parents=True)
    def go_on(folder):
        file = folder / "checkpoint"
        file.write_text(file.read_text() + "+1")
        return file.read_text()
    begun.write_text("60")
    (tmp_path / "worker" / "sets" / "a").mkdir(parents=True)
    (tmp_path / "worker" / "sets" / "a" / "checkpoint").write_text("25")          # of an earlier task of this worker
    assert run_on_cluster(cluster, go_on, [begun.parent], "go on", quiet=True) == ["60+1"] and begun.read_text() == "60+1"


def test_what_an_interrupted_task_left_on_its_worker_comes_home(fake, tmp_path):
    """A task that its caller had given up ends on its worker; asked for again it finds its files there, and home gets them."""
    cluster, there = fake(), tmp_path / "worker" / "sets" / "a"
    there.mkdir(parents=True)
    (there / "history").write_text("done"), (there.parent / "b").write_text("another's")
    assert run_on_cluster(cluster, lambda folder: (folder / "history").read_text(), [cluster.folder / "sets" / "a"], "again", quiet=True) == ["done"]
    assert (cluster.folder / "sets" / "a" / "history").read_text() == "done" and not (cluster.folder / "sets" / "b").exists()


def test_workers_of_several_threads_are_refused(fake):
    cluster = fake()
    cluster.client.nthreads = lambda: {"one": 1, "two": 4}
    with pytest.raises(InputError, match="worker of 4 threads.*--nthreads 1"): run_on_cluster(cluster, double, [1], "double", quiet=True)
    assert cluster.client.handed == []


def test_a_scheduler_that_dies_is_named(fake, monkeypatch):
    """Dask gives the error of a task that was called off as its result; and waiting for workers that never come ends by an error."""
    cluster, asked = fake(), []
    monkeypatch.setattr(room, "import_distributed", lambda: SimpleNamespace(as_completed=lambda futures, with_results: [(f, Lost()) for f in futures]))
    def wait(n, timeout):
        asked.append(timeout)
        raise TimeoutError
    cluster.client.wait_for_workers = wait
    with pytest.raises(InputError, match="lost its workers 5 times in 'double': 2 of 2"): run_on_cluster(cluster, double, [1, 2], "double", quiet=True)
    assert len(asked) == room.rounds
    def closed(): raise RuntimeError("ConnectionPool is closed")
    cluster.client.nthreads = closed
    with pytest.raises(InputError, match="answers no more: ConnectionPool is closed"): run_on_cluster(cluster, double, [1, 2], "double", quiet=True)
