"""What the soak compares after each round: all that we write, but not how long it took."""
import sys

from conftest import ROOT
from selmatch.study.store import Store

sys.path.insert(0, str(ROOT / "scripts"))
import soak  # noqa: E402


def test_a_result_is_compared_without_its_seconds(tmp_path):
    def home(name, **result):
        Store(tmp_path / name).save("0a1b", result, label="judge")
        return soak.bits(tmp_path / name)
    first = home("a", seed=1, accuracy=0.5, seconds=0.25)
    assert len(first) == 1
    assert home("b", seed=1, accuracy=0.5, seconds=1.5e-05) == first
    assert home("c", seed=1, accuracy=0.25, seconds=0.25) != first
    assert home("d", seed=2, accuracy=0.5, seconds=0.25) != first


def test_a_damaged_result_is_another_one(tmp_path):
    Store(tmp_path).save("0a1b", {"seconds": 0.25})
    first = soak.bits(tmp_path)
    [file] = tmp_path.rglob("*.safetensors")
    data = bytearray(file.read_bytes())
    data[-3] ^= 1
    file.write_bytes(data)
    assert soak.bits(tmp_path) != first


def test_what_lies_aside_is_no_litter(tmp_path):
    for name in ("checkpoint.safetensors.bad", "set.safetensors", "checkpoint.safetensors", ".a.tmp", "run.lock", "draft-1"): (tmp_path / name).touch()
    assert sorted(path.name for path in soak.litter(tmp_path)) == [".a.tmp", "checkpoint.safetensors", "draft-1", "run.lock"]
