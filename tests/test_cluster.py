"""A real scheduler with two worker processes on loopback: the same bits as here, with a disk in common and without."""
import os
import signal
import threading
import time

import pytest
import torch

pytest.importorskip("distributed")

from selmatch import cluster as room
from selmatch.app import make_computer
from selmatch.cluster import Cluster, run_on_cluster
from selmatch.computer import Computer
from selmatch.core import InputError
from selmatch.study import sets, tables
from selmatch.study.profile import load_profile
from selmatch.study.study import Study

SMALL = dict(seeds=2, ratios=(0.3,), alpha={0.3: 0.2})


@pytest.fixture(scope="module")
def dask():
    client = room.connect("local:2")
    yield client
    client.cluster.close()
    client.close()


def study_on(client, folder, shared):
    cluster = Cluster("local:2", folder, shared)
    cluster.__dict__["client"] = client
    computer = Computer(quiet=True, cluster=cluster)
    return Study(load_profile("smoke", **SMALL), computer, folder), cluster


@pytest.fixture(scope="module")
def serial(tmp_path_factory):
    study = Study(load_profile("smoke", **SMALL), Computer(quiet=True, workers=1), tmp_path_factory.mktemp("serial"))
    return study, tables.windows(study), tables.accuracies(study, ["random", "mtt", "selmatch"])


def set_files(study):
    return {p.relative_to(study.folder): p.read_bytes() for p in sorted(study.folder.rglob("at_*/set.safetensors"))}


@pytest.mark.parametrize("shared", [pytest.param(None, marks=pytest.mark.slow), False])
def test_the_same_bits_as_serial(dask, serial, tmp_path, shared):
    study, cluster = study_on(dask, tmp_path / "home", shared)
    here, windows, accuracies = serial
    assert tables.windows(study).equals(windows)
    assert tables.accuracies(study, ["random", "mtt", "selmatch"]).equals(accuracies)
    assert set_files(study) == set_files(here)
    assert {p.name for p in study.folder.rglob("expert_*")} == {p.name for p in here.folder.rglob("expert_*")}
    assert cluster.sees_folder is (shared is None)
    assert study.left(study.windows_plan()) == 0
    print("bytes of a task, median:", sorted(cluster.sent)[len(cluster.sent) // 2])


def test_tasks_are_light(dask, tmp_path):
    study, cluster = study_on(dask, tmp_path / "home", None)
    plan = study.windows_plan()
    images = sum(t.nbytes for t in (study.splits.test.images, study.splits.validation.images))
    for trial in plan.items:
        parcel = room.pack((plan.task, trial), study.folder)
        assert len(parcel.content) < images / 2, "test images travel with every task"


@pytest.mark.slow
def test_what_was_there_travels_and_what_is_made_comes_back(dask, serial, tmp_path):
    """Experts are trained here, sets are made by workers that do not see them."""
    home = tmp_path / "home"
    Study(load_profile("smoke", **SMALL), Computer(quiet=True, workers=1), home).experts()
    study, cluster = study_on(dask, home, False)
    task = sets.small_sets(study, ["mtt"], [0.3], 1)["mtt", 0.3, 0]
    assert task.done
    theirs = sets.small_sets(serial[0], ["mtt"], [0.3], 1)["mtt", 0.3, 0]
    assert torch.equal(task.last().data.images, theirs.last().data.images)


@pytest.mark.slow
def test_a_worker_that_is_killed_takes_nothing_with_it(serial, tmp_path):
    client = room.connect("local:2")
    study, _ = study_on(client, tmp_path / "home", None)
    def kill():
        time.sleep(1.5)
        os.kill(next(iter(client.run(os.getpid).values())), signal.SIGKILL)
    killer = threading.Thread(target=kill)
    killer.start()
    try:
        assert tables.windows(study).equals(serial[1])
        assert tables.accuracies(study, ["mtt"]).equals(serial[2][serial[2].method == "MTT"].reset_index(drop=True))
    finally:
        killer.join()
        client.cluster.close()
        client.close()


def test_an_error_on_a_worker_is_raised_here(dask, tmp_path):
    study, cluster = study_on(dask, tmp_path / "home", None)
    with pytest.raises(InputError, match="ratio"):
        run_on_cluster(cluster, refuse, [1], "refuse", quiet=True)


def refuse(item):
    raise InputError(f"ratio={item} is not allowed")


def test_a_wrong_address_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("SELMATCH_HOME", str(tmp_path))
    computer = make_computer("cpu", 1, "nowhere:1")
    monkeypatch.setattr(room, "patience", 1)
    with pytest.raises(InputError, match="nowhere:1"):
        computer.cluster(refuse, [1], "x", True)
    assert make_computer("cpu", 1).cluster is None


def test_searches_that_take_the_study_along_stay_here(dask, serial, tmp_path):
    """Their helpers travel, a search does not: it would take the connection with it."""
    study, _ = study_on(dask, tmp_path / "home", None)
    names = ["herding", "dual", "c-score"]
    assert tables.accuracies(study, names, [0.3]).equals(tables.accuracies(serial[0], names, [0.3]))
