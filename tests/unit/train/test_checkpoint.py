"""Checkpoints: exact round trips, and nothing damaged is read."""

import errno
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from emm.errors import Interrupted, UserError
from emm.train import checkpoint

METADATA = {"identity": "ab", "step": 3, "ema": [0.99929, 0.0], "seconds": 0.1}


def tensors() -> dict[str, torch.Tensor]:
    flat = torch.randn(24, generator=torch.Generator().manual_seed(0))
    return {
        "part.0": flat[:12].view(3, 4),
        "part.1": flat[12:],
        "turned": flat.view(4, 6).t(),
        "scalar": torch.tensor(0.1, dtype=torch.float64),
        "empty": torch.zeros(0, 6, dtype=torch.float64),
        "special": torch.tensor([float("nan"), float("inf"), -0.0]),
        "half": torch.ones(3, dtype=torch.bfloat16),
    }


@pytest.fixture
def path(tmp_path) -> Path:
    path = tmp_path / "deep" / "state.safetensors"
    checkpoint.save(path, tensors(), METADATA)
    return path


def test_round_trip(path):
    found, metadata = checkpoint.load(path)
    assert metadata == METADATA
    assert sorted(found) == sorted(tensors())
    for name, expected in tensors().items():
        assert (found[name].dtype, found[name].shape) == (expected.dtype, expected.shape)
        bits = [t.contiguous().reshape(-1).view(torch.uint8) for t in (found[name], expected)]
        assert torch.equal(*bits)
    assert list(path.parent.iterdir()) == [path]


def test_same_content_same_bytes(path, tmp_path):
    for _ in range(5):
        checkpoint.save(tmp_path / "again", tensors(), dict(reversed(METADATA.items())))
        assert (tmp_path / "again").read_bytes() == path.read_bytes()


def test_missing(tmp_path):
    with pytest.raises(UserError, match="none: no such file"):
        checkpoint.load(tmp_path / "none")


def test_every_altered_byte_is_noticed(path):
    content = path.read_bytes()
    for position in range(0, len(content), 3):
        altered = bytearray(content)
        altered[position] ^= 0x40
        path.write_bytes(altered)
        with pytest.raises(UserError, match="damaged"):
            checkpoint.load(path)


def test_every_length_is_noticed(path):
    content = path.read_bytes()
    for length in [*range(0, len(content), 7), len(content) - 1]:
        path.write_bytes(content[:length])
        with pytest.raises(UserError, match=r"damaged.*; delete it and run again"):
            checkpoint.load(path)
    path.write_bytes(content + b"\0")
    with pytest.raises(UserError, match="damaged"):
        checkpoint.load(path)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"emm": ""}, {"emm": "ab {}"}])
def test_foreign_files(tmp_path, metadata):
    save_file({"x": torch.ones(2)}, tmp_path / "foreign", metadata)
    with pytest.raises(UserError, match="damaged"):
        checkpoint.load(tmp_path / "foreign")


def test_full_disk_leaves_the_old_file(path, monkeypatch):
    before = path.read_bytes()

    def full(self, content):
        with self.open("wb") as stream:
            stream.write(content[: len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(Interrupted, match="No space left on device; free some space"):
        checkpoint.save(path, {"x": torch.ones(5)}, {})
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]
