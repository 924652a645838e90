"""Checkpoints: what is saved comes back, and files that cannot be read or written are one sentence."""

import pytest
import torch
from torch import nn

from pipeline.base.errors import InputError
from pipeline.training.checkpoints import load_weights, read_weights, save_weights


def test_weights_and_provenance_come_back(tmp_path):
    network, other = nn.Linear(3, 2), nn.Linear(3, 2)
    save_weights(tmp_path / "deep/w.safetensors", network, {"run": "a", "ids": 4})
    tensors, provenance = read_weights(tmp_path / "deep/w.safetensors")
    load_weights(other, tensors, "w")
    assert provenance == {"run": "a", "ids": 4} and torch.equal(other.weight, network.weight)
    before = (tmp_path / "deep/w.safetensors").read_bytes()
    save_weights(tmp_path / "deep/w.safetensors", other, {"ids": 4, "run": "a"})
    assert (tmp_path / "deep/w.safetensors").read_bytes() == before
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["w.safetensors"]


def test_bad_files_are_named(tmp_path):
    save_weights(tmp_path / "w.safetensors", nn.Linear(3, 2), {})
    whole = (tmp_path / "w.safetensors").read_bytes()
    for content in (b"", whole[:20], whole[:-4]):
        (tmp_path / "cut.safetensors").write_bytes(content)
        with pytest.raises(InputError, match="cut.safetensors.*damaged"):
            read_weights(tmp_path / "cut.safetensors")
    for changed, said in ((whole[:-1] + bytes([whole[-1] ^ 1]), "its tensors are not those of its tensors_sha256"),
                          (whole.replace(b"tensors_sha256", b"tensors_sha255"), "no tensors_sha256 in its metadata"),
                          (whole.replace(b'\\"tensors', b'\\ntensors'), "damaged")):
        assert changed != whole
        (tmp_path / "cut.safetensors").write_bytes(changed)
        with pytest.raises(InputError, match=f"cut.safetensors.*{said}"):
            read_weights(tmp_path / "cut.safetensors")
    with pytest.raises(InputError, match="no such weights"):
        read_weights(tmp_path / "nowhere.safetensors")
    tensors, _ = read_weights(tmp_path / "w.safetensors")
    with pytest.raises(InputError, match=r"'w'.*bias is \(2,\), expected \(5,\)"):
        load_weights(nn.Linear(3, 5), tensors, "w")
    with pytest.raises(InputError, match="w.safetensors/w': cannot be written"):
        save_weights(tmp_path / "w.safetensors/w", nn.Linear(3, 2), {})
