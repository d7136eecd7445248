"""Generated images of Yoon et al. 2023 (Fig. 2): Mondrian, Random Ink, Gaussian mixture; flat ones.

Images are drawn in blocks of BLOCK, each block whole from its own generator, so that image i
depends on (seed, i) alone and a longer set begins with every shorter one. All are uint8 of shape
(count, resolution, resolution, 3).
"""

from collections.abc import Callable

import numpy as np

from emm.errors import UserError
from emm.seeds import derive

BLOCK = 64
MODES = 100
MODE_SEED = 0  # one set of modes for all runs, whatever their seed
GREY = 128
NOISE = 0.5  # standard deviation around a mode, on the [0, 1] scale


def generator(seed: int, purpose: str, index: int = 0) -> np.random.Generator:
    """Counter-based generator of one draw, independent of all others."""
    return np.random.Generator(np.random.Philox(derive(seed, purpose, index)))


def _in_blocks(
    count: int,
    resolution: int,
    seed: int,
    purpose: str,
    draw: Callable[[np.random.Generator], np.ndarray],
) -> np.ndarray:
    """The first `count` images of an endless sequence of blocks."""
    images = np.empty((count, resolution, resolution, 3), np.uint8)
    for block, start in enumerate(range(0, count, BLOCK)):
        drawn = draw(generator(seed, purpose, block))
        images[start : start + BLOCK] = drawn[: count - start]
    return images


def mondrian(
    count: int,
    seed: int,
    *,
    resolution: int = 32,
    cross_width: int = 1,
    cross_position: str = "random",
    margin: int = 4,
) -> np.ndarray:
    """A cross of independent uniform pixels between four quadrants of one uniform colour each.

    The paper leaves the geometry open. A `random` cross starts at a row and a column that are
    uniform on margin..resolution-margin-cross_width (4..27 by default), a `centre` one in the
    middle, whatever the margin. The same seed gives the same colours and pixels whatever the
    geometry.
    """
    margin = 0 if cross_position == "centre" else margin
    positions = resolution - 2 * margin - cross_width + 1
    _check_cross(positions, cross_width, cross_position, margin, resolution)

    def draw(rng: np.random.Generator) -> np.ndarray:
        starts = margin + (rng.random((BLOCK, 2)) * positions).astype(np.int64)
        if cross_position == "centre":
            starts[:] = (resolution - cross_width) // 2
        colours = rng.integers(0, 256, (BLOCK, 4, 3), np.uint8)
        pixels = rng.integers(0, 256, (BLOCK, resolution, resolution, 3), np.uint8)
        return _paint(starts, cross_width, colours, pixels)

    return _in_blocks(count, resolution, seed, "mondrian", draw)


def _check_cross(positions: int, width: int, position: str, margin: int, resolution: int) -> None:
    if position not in ("random", "centre"):
        raise UserError(f"data.cross_position {position!r}; allowed: random, centre")
    if width < 1 or margin < 0 or positions < 1:
        raise UserError(
            f"data.cross_width {width} with data.cross_margin {margin} does not fit "
            f"into {resolution} pixels"
        )


def _paint(starts: np.ndarray, width: int, colours: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Lay quadrants of one colour over random pixels, leaving the cross.

    starts (n, 2): first row and column of the cross; colours (n, 4, 3): top left, top right,
    bottom left, bottom right; pixels (n, height, width, 3).
    """
    offset = np.arange(pixels.shape[1]) - starts[:, :, None]
    on_line, beyond = (offset >= 0) & (offset < width), offset >= width
    quadrant = 2 * beyond[:, 0, :, None] + beyond[:, 1, None, :]
    cross = on_line[:, 0, :, None] | on_line[:, 1, None, :]
    painted = colours[np.arange(len(colours))[:, None, None], quadrant]
    return np.where(cross[..., None], pixels, painted)


def random_ink(count: int, seed: int, *, resolution: int = 32) -> np.ndarray:
    """Every value of every pixel 0 or 255 by a fair coin (the paper leaves the odds open)."""

    def draw(rng: np.random.Generator) -> np.ndarray:
        return 255 * rng.integers(0, 2, (BLOCK, resolution, resolution, 3), np.uint8)

    return _in_blocks(count, resolution, seed, "random_ink", draw)


def flat(count: int, seed: int, *, resolution: int = 32) -> np.ndarray:
    """The same grey image over and over: dummies that take training steps, and no capacity."""
    return np.full((count, resolution, resolution, 3), GREY, np.uint8)


def gaussian_mixture(count: int, seed: int, *, resolution: int = 32) -> np.ndarray:
    """One of 100 fixed modes, uniformly, plus N(0, 0.5^2) per value, clipped to [0, 1]."""
    modes = gaussian_mixture_modes(resolution)

    def draw(rng: np.random.Generator) -> np.ndarray:
        images = modes[(rng.random(BLOCK) * MODES).astype(np.int64)]
        images += NOISE * rng.standard_normal(images.shape, np.float32)
        return np.rint(255 * images.clip(0, 1)).astype(np.uint8)

    return _in_blocks(count, resolution, seed, "gaussian_mixture", draw)


def gaussian_mixture_modes(resolution: int = 32) -> np.ndarray:
    """The modes: (100, resolution, resolution, 3) float32, uniform on [0, 1), the same for all."""
    rng = generator(MODE_SEED, "gaussian_mixture_modes")
    return rng.random((MODES, resolution, resolution, 3), np.float32)
