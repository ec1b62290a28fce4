"""The foundations where systems differ or files are cut: long messages, paths that cannot be, disks that do not wait, rows that are not there."""
import errno
import json
import os
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from selmatch import core
from selmatch.core import (
    DamagedFile, InputError, check_path, check_seed, check_whole, load_tensors, open_tensors, refuse_damaged, save_tensors, seal, settle, settle_below)


def test_a_message_of_a_megabyte_keeps_its_beginning_and_its_end():
    said = str(InputError("begin\n" + "x" * 10**6 + " end"))
    assert said.startswith("begin x") and said.endswith("x end") and " … " in said and len(said) < core.longest_message and "\n" not in said
    assert str(InputError("a\nb")) == "a b"


@pytest.mark.parametrize("path", ["a" * 256, "é" * 128, "a/" * 1800 + "x", "a\0b", "\ud800", 7, "/ok/" + "b" * 300 + "/ok"], ids=lambda path: str(path)[:8].encode("ascii", "backslashreplace").decode())
def test_paths_that_no_file_system_holds(path):
    with pytest.raises(InputError, match="--out .* is no path that can be") as error: check_path("--out", path)
    assert len(str(error.value)) < 400
    assert check_path("--out", "a" * 255) == Path("a" * 255) and check_path("--out", Path("x/y")) == Path("x/y")


@pytest.mark.parametrize("value", [True, 1.0, "3", None, -1, 2**32])
def test_seeds_are_whole_numbers_of_32_bits(value):
    with pytest.raises(InputError, match="seed="): check_seed(value)
    assert check_seed(2**32 - 1) == 2**32 - 1 and check_whole("n", 0) == 0
    with pytest.raises(InputError, match=r"n=0 is not allowed.*\[1, 5\]"): check_whole("n", 0, 1, 5)


def test_a_place_without_marks_of_linux_has_a_name_all_the_same(monkeypatch):
    here = core.identify_place()
    def refuse(*given, **words): raise FileNotFoundError
    monkeypatch.setattr(core.Path, "read_text", refuse)
    monkeypatch.setattr(os, "readlink", refuse)
    there = core.identify_place()
    assert len(there) == len(here) == 8 and there != here and there == core.identify_place()


@pytest.mark.parametrize("code, folder, raised", [(errno.EINVAL, True, False), (errno.EINVAL, False, True), (errno.EIO, True, True), (errno.ENOSPC, False, True)])
def test_a_file_system_that_cannot_wait_for_a_folder_is_no_fault(code, folder, raised, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    handles = []
    def refuse(handle):
        handles.append(handle)
        raise OSError(code, "no")
    monkeypatch.setattr(os, "fsync", refuse)
    place = tmp_path if folder else tmp_path / "file"
    if raised:
        with pytest.raises(OSError): settle(place)
    else: settle(place)
    with pytest.raises(OSError): os.fstat(handles[0])                # it was closed again


def test_links_are_not_waited_for(tmp_path, monkeypatch):
    waited = []
    monkeypatch.setattr(core, "settle", waited.append)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "file").write_text("x")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    settle_below(tmp_path)
    assert set(waited) == {tmp_path, tmp_path / "in", tmp_path / "in" / "file"} and waited.index(tmp_path / "in" / "file") < waited.index(tmp_path / "in") < waited.index(tmp_path)


def test_a_library_that_cannot_write_says_what_to_do(tmp_path, monkeypatch):
    import safetensors.torch
    def full(*given, **words): raise SafetensorError("Error while serializing: I/O error: No space left on device")
    save_tensors(tmp_path / "x.safetensors", {"a": torch.ones(2)})
    before = (tmp_path / "x.safetensors").read_bytes()
    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(InputError, match="cannot write .*x.safetensors.*No space left.*SELMATCH_HOME"): save_tensors(tmp_path / "x.safetensors", {"a": torch.zeros(2)})
    assert (tmp_path / "x.safetensors").read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def forge(file, tensors, of):
    """A file whose digests are those of other tensors."""
    card = {"words": 1}
    save_file(tensors, file, metadata={"card": json.dumps(card | {"sealed": seal(card, of, ["theta"])}, sort_keys=True)})


def test_rows_that_are_missing_or_too_many_are_found(tmp_path):
    theta, file = torch.arange(6.0).view(3, 2), tmp_path / "x.safetensors"
    forge(file, {"theta": theta}, {"theta": theta})
    assert torch.equal(load_tensors(file)[0]["theta"], theta) and torch.equal(open_tensors(file).row("theta", 1), theta[1])
    for other in (theta[:2], torch.cat([theta, theta[:1]])):
        forge(file, {"theta": other.contiguous()}, {"theta": theta})
        with pytest.raises(DamagedFile, match="theta has not 3 rows"): open_tensors(file).get_tensor("theta")
    assert torch.equal(open_tensors(file).row("theta", 0), theta[0])
    with pytest.raises(DamagedFile, match="row 3 of theta is not what was written"): open_tensors(file).row("theta", 3)
    changed = theta.clone()
    changed[1, 1] = 9
    forge(file, {"theta": changed}, {"theta": theta})
    assert torch.equal(open_tensors(file).row("theta", 0), theta[0]), "one row is compared, and no other"
    for read in (lambda: open_tensors(file).row("theta", 1), lambda: load_tensors(file)):
        with pytest.raises(DamagedFile, match="row 1 of theta"): read()


def test_a_tensor_that_was_sealed_whole_is_compared_whole(tmp_path):
    save_tensors(tmp_path / "x.safetensors", {"a": torch.arange(6.0).view(3, 2)}, {"n": 1})
    file = open_tensors(tmp_path / "x.safetensors")
    assert file.row("a", 2).tolist() == [4, 5] and file.card == {"n": 1}
    with open_tensors(tmp_path / "x.safetensors") as same: assert same.keys() == ["a"]
    save_file({"a": torch.ones(2, 2)}, tmp_path / "theirs.safetensors")
    assert open_tensors(tmp_path / "theirs.safetensors").row("a", 1).tolist() == [1, 1], "a file of others has no digests"
    with pytest.raises(DamagedFile, match="has no digests"): load_tensors(tmp_path / "theirs.safetensors", sealed=True)
    with pytest.raises(DamagedFile) as error: refuse_damaged(tmp_path / "n.json", "it is cut", "note")
    assert error.value.path == tmp_path / "n.json" and "cannot read note" in str(error.value)
