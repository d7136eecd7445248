"""Samples that are kept part by part."""

import numpy as np
import pytest

from emm.diffusion import shards
from emm.errors import Interrupted
from emm.files import read_arrays


def images(start: int, stop: int) -> np.ndarray:
    return np.arange(start, stop).astype(np.uint8).repeat(12).reshape(-1, 2, 2, 3)


class Drawing:
    """Draws images, notes what it was asked for, and stops at its `last` call."""

    def __init__(self, last: int | None = None):
        self.calls, self.last = [], last

    def __call__(self, start: int, stop: int) -> np.ndarray:
        self.calls.append((start, stop))
        if len(self.calls) == self.last:
            raise Interrupted("stopped by SIGTERM")
        return images(start, stop)


def write(folder, draw, count=10, token="now", batch_size=4, **keywords):
    path = folder / "step-1.npz"
    shards.write_samples(path, count, draw, token=token, batch_size=batch_size, **keywords)
    return read_arrays(path)


def test_one_shard_is_written_once(tmp_path):
    draw = Drawing()
    labels = np.arange(10)
    found = write(tmp_path, draw, labels=labels)
    assert draw.calls == [(0, 10)]
    np.testing.assert_array_equal(found["images"], images(0, 10))
    np.testing.assert_array_equal(found["labels"], labels)
    assert write(tmp_path, draw).keys() == {"images", "labels", "token"}  # already done
    assert draw.calls == [(0, 10)]


@pytest.mark.parametrize("batch_size", [1, 64, 100, 256, 300])
def test_shards_are_of_whole_batches(tmp_path, batch_size):
    draw = Drawing()
    shards.write_samples(tmp_path / "a.npz", 700, draw, token="now", batch_size=batch_size)
    assert all(start % batch_size == 0 for start, _ in draw.calls)
    assert [stop for _, stop in draw.calls][:-1] == [start for start, _ in draw.calls][1:]
    assert all(stop - start >= shards.SHARD for start, stop in draw.calls[:-1])
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


def test_a_killed_call_goes_on_with_the_shard_it_was_at(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "SHARD", 4)
    with pytest.raises(Interrupted):
        write(tmp_path, Drawing(last=3))
    (tmp_path / "step-1.shard-00000004.npz").write_bytes(b"half")
    resumed = Drawing()
    found = write(tmp_path, resumed)
    assert resumed.calls == [(4, 8), (8, 10)]
    np.testing.assert_array_equal(found["images"], images(0, 10))
    assert [path.name for path in tmp_path.iterdir()] == ["step-1.npz"]


@pytest.mark.parametrize("changed", [{"token": "other"}, {"count": 9}, {"batch_size": 3}])
def test_shards_of_another_call_are_not_taken(tmp_path, monkeypatch, changed):
    monkeypatch.setattr(shards, "SHARD", 4)
    with pytest.raises(Interrupted):
        write(tmp_path, Drawing(last=3))
    draw = Drawing()
    count = changed.get("count", 10)
    found = write(tmp_path, draw, **changed)
    np.testing.assert_array_equal(found["images"], images(0, count))
    if "token" in changed:
        assert draw.calls[0] == (0, 4)
