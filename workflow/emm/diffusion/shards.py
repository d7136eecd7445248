"""The samples of a checkpoint, drawn and kept in shards: a killed call loses one at most."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from emm.errors import UserError
from emm.files import read_arrays, write_arrays
from emm.train.progress import Progress

SHARD = 256  # images, or the multiple of the batch that reaches as far


def write_samples(
    path: Path,
    count: int,
    draw: Callable[[int, int], np.ndarray],
    *,
    token: str,
    batch_size: int,
    labels: np.ndarray | None = None,
) -> None:
    """Write `count` images to `path`, with their labels if there are any, unless that is done.

    draw: images uint8 (stop - start, H, W, C) from their positions start and stop; it is called
    for whole batches. token: what tells the files of this evaluation from others.
    """
    if is_done(path, token):
        return
    size = -(-SHARD // batch_size) * batch_size
    images = []
    with Progress(f"{path.stem}: image", count) as progress:
        for start in range(0, count, size):
            stop = min(start + size, count)
            images.append(
                _shard(path, start, stop, draw, token) if count > size else draw(0, count)
            )
            progress(stop)
    extra = {} if labels is None else {"labels": labels}
    write_arrays(path, {"images": np.concatenate(images), "token": np.str_(token), **extra})
    for shard in path.parent.glob(f"{path.stem}.shard-*.npz"):
        shard.unlink()


def _shard(
    path: Path, start: int, stop: int, draw: Callable[[int, int], np.ndarray], token: str
) -> np.ndarray:
    """Images of a shard, which is drawn and written if it is not there."""
    shard = path.with_name(f"{path.stem}.shard-{start:08d}.npz")
    token = f"{token}-{stop}"
    if (found := _read(shard, token)) is not None:
        return found["images"]
    images = draw(start, stop)
    write_arrays(shard, {"images": images, "token": np.str_(token)})
    return images


def is_done(path: Path, token: str) -> bool:
    """Whether a file of samples is whole and has this token."""
    return _read(path, token) is not None


def _read(path: Path, token: str) -> dict[str, np.ndarray] | None:
    try:
        found = read_arrays(path)
    except UserError:
        return None
    return found if str(found.get("token")) == token else None
