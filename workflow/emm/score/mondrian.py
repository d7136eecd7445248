"""Mondrian samples (Yoon et al. 2023, Fig. 2): which they are, whose layout they copy, how random.

Such an image is a cross of random pixels between four quadrants of one colour each
(emm.data.synthetic.mondrian). Copying the quadrants but not the cross hardly ever counts as
memorized, so copies of layouts are counted apart.

The paper does not say which samples it takes for Mondrian images. QUADRANT_SPREAD and CROSS_SPREAD
were chosen by eye on samples of 8x8 pixels, of the networks of the quick scale; on images of 32x32
pixels, whose quadrants have sides of 4 to 27, they are unproven. Networks that have learnt the
images draw quadrants well below that, and their counts do not depend on it. Where they are
still blurred it decides: of mixtures at the quick scale 30 grey levels instead of 25 find several
times as many, so that a count such as the paper's 2,626 is compared through this choice.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from emm.score.criteria import is_memorized, share_of

# In grey levels. Where small networks learn a mixture of Mondrian images and a Gaussian mixture,
# quadrants in samples of the first kind have standard deviations of 5 to 20 once these are learnt,
# and in those of the second kind from 65 on; true images have 0, and 80 to 98. In between are the
# blurred samples of networks that are hardly trained, in which no eye sees a Mondrian image.
QUADRANT_SPREAD = 25.0
CROSS_SPREAD = 20.0  # the crosses of these samples have 25 to 75, what is flat has none
APART = 1e6  # between positions that differ: further than any two images are
LEAST_COUNT = 5  # expected at each position, for a chi-squared test
BLOCK = 128
SHARES = ("mondrian_ratio", "mondrian_memorization_ratio", "layout_copy_ratio")
COLUMNS = (
    *("n_mondrian", "n_memorized_mondrian"),
    *(f"{name}{end}" for name in SHARES for end in ("", "_low", "_high")),
    *("quadrant_sd_q50", "colour_ks", "cross_ks", "cross_correlation", "position_p"),
)


@dataclass(frozen=True)
class Crosses:
    """Where the crosses of a data set may be.

    width: pixels; starts: first rows of a cross, which are its first columns too.
    """

    width: int
    starts: np.ndarray


@dataclass(frozen=True)
class Layouts:
    """The layout that fits each of N images best.

    starts: (N, 2) int64, first row and column of the cross; colours: (N, 4, 3) float64 in grey
    levels, top left, top right, bottom left, bottom right, NaN for a quadrant without pixels;
    areas: (N, 4) int64, pixels of these quadrants; quadrant_sd: (N,), standard deviation within
    quadrants; cross_sd: (N,), of the cross.
    """

    starts: np.ndarray
    colours: np.ndarray
    areas: np.ndarray
    quadrant_sd: np.ndarray
    cross_sd: np.ndarray

    def __getitem__(self, chosen: np.ndarray) -> "Layouts":
        parts = (self.starts, self.colours, self.areas, self.quadrant_sd, self.cross_sd)
        return Layouts(*(part[chosen] for part in parts))

    def __len__(self) -> int:
        return len(self.starts)


def crosses_of(settings: Mapping[str, Any], resolution: int) -> Crosses | None:
    """The crosses of a run's data from its dotted settings; None where it has none."""
    if settings["data.dataset"] != "mondrian":
        return None
    width, margin = settings["data.cross_width"], settings["data.cross_margin"]
    if settings["data.cross_position"] == "centre":
        return Crosses(width, np.array([(resolution - width) // 2]))
    return Crosses(width, np.arange(margin, resolution - margin - width + 1))


def find_layouts(images: np.ndarray, crosses: Crosses) -> Layouts:
    """Layouts of uint8 images (N, H, H, 3): crosses with the least variance within quadrants."""
    parts = [
        _fitted(images[start : start + BLOCK], crosses) for start in range(0, len(images), BLOCK)
    ]
    names = ("starts", "colours", "areas", "quadrant_sd", "cross_sd")
    return Layouts(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def _fitted(images: np.ndarray, crosses: Crosses) -> Layouts:
    """Layouts of one block, from sums over all quadrants at all positions."""
    values, size = images.astype(np.int32), images.shape[1]
    squared = (values**2).sum(axis=-1, keepdims=True)
    parts = (np.ones((1, size, size, 1), np.int32), values, squared)
    areas, sums, squares = (np.stack(list(_quadrants(part, crosses))) for part in parts)
    with np.errstate(invalid="ignore"):
        means = sums / areas
    explained = (np.nan_to_num(means) * sums).sum(axis=-1, keepdims=True)
    residuals = (squares - explained).sum(axis=(0, -1))  # (N, S, S)
    best = residuals.reshape(len(images), -1).argmin(axis=1)
    at = (np.arange(len(images)), *np.divmod(best, len(crosses.starts)))
    inside = areas.sum(axis=0).flat[0]
    cross = [
        v.sum(axis=(1, 2)) - q.sum(axis=0)[at] for v, q in ((values, sums), (squared, squares))
    ]
    return Layouts(
        crosses.starts[np.stack(at[1:], axis=1)],
        means[:, *at].transpose(1, 0, 2),
        areas[:, 0, *at[1:], 0].T,
        np.sqrt(residuals[at] / (3 * inside)),
        _spread(*cross, size**2 - inside),
    )


def _spread(total: np.ndarray, square: np.ndarray, count: int) -> np.ndarray:
    """Standard deviation within channels (N,) from sums (N, 3) and summed squares (N, 1)."""
    variance = square[:, 0] / (3 * count) - ((total / count) ** 2).mean(axis=1)
    return np.sqrt(variance.clip(min=0))


def _quadrants(values: np.ndarray, crosses: Crosses) -> Iterator[np.ndarray]:
    """Sums over each quadrant (N, S, S, C) of values (N, H, H, C), for all S x S positions."""
    sums = np.pad(values.cumsum(axis=1).cumsum(axis=2), ((0, 0), (1, 0), (1, 0), (0, 0)))
    first, after = crosses.starts, crosses.starts + crosses.width
    for half in (sums[:, first], sums[:, -1:] - sums[:, after]):
        yield half[:, :, first]
        yield half[:, :, -1:] - half[:, :, after]


def is_mondrian(layouts: Layouts) -> np.ndarray:
    """Whether each image has quadrants of one colour, and a cross that has not, bool (N,).

    Quadrants of true Mondrian images have no variance at all, those that a network draws one of a
    few grey levels; images of the other classes are noise from edge to edge.
    """
    return (layouts.quadrant_sd < QUADRANT_SPREAD) & (layouts.cross_sd > CROSS_SPREAD)


def copies_layout(layouts: Layouts, training: Layouts, squared_distances: np.ndarray) -> np.ndarray:
    """Whether cross position and quadrant colours are those of a training image, bool (N,).

    The memorization criterion without the pixels inside: with all pixels of each quadrant in its
    mean colour, and the cross left out, the sample is less than a third as far from the training
    image as whole samples are from their second neighbours; these (N, 2) squared_distances are
    those of the criterion. Means differ by no more than their pixels do, so that a memorized sample
    is a copy of a layout too wherever both have the cross at the same place.
    """
    from scipy.spatial import cKDTree

    apart = cKDTree(_features(training)).query(_features(layouts))[0]
    return 9 * apart**2 < squared_distances[:, 1]


def _features(layouts: Layouts) -> np.ndarray:
    """Points (N, 14) as far apart as images of quadrants at one position, or very far."""
    weighted = np.sqrt(layouts.areas)[..., None] * np.nan_to_num(layouts.colours)
    return np.hstack([APART * layouts.starts, weighted.reshape(len(layouts), -1)])


def summarise(
    images: np.ndarray,
    layouts: Layouts,
    squared_distances: np.ndarray,
    training: Layouts,
    crosses: Crosses,
) -> dict[str, float]:
    """Summary of the Mondrian ones among N >= 1 samples, by column name (COLUMNS).

    squared_distances: (N, 2), to the two nearest training images; training: layouts of these.
    Shares come with their 95 % Wilson intervals. `colour_ks` and `cross_ks` are
    Kolmogorov-Smirnov distances from uniform grey levels, `cross_correlation` is that of
    neighbouring pixels on the lines of the cross, `position_p` the probability of positions this
    uneven if they were uniform. What needs Mondrian samples is NaN where there are none.
    """
    chosen = is_mondrian(layouts)
    count, copies = int(chosen.sum()), int(is_memorized(squared_distances[chosen]).sum())
    facts = dict.fromkeys(COLUMNS, np.nan)
    facts |= {"n_mondrian": float(count), "n_memorized_mondrian": float(copies)}
    facts |= share_of("mondrian_ratio", count, len(images))
    if not count:
        return facts
    images, layouts, distances = images[chosen], layouts[chosen], squared_distances[chosen]
    of_layouts = int(copies_layout(layouts, training, distances).sum())
    return {
        **facts,
        **share_of("mondrian_memorization_ratio", copies, count),
        **share_of("layout_copy_ratio", of_layouts, count),
        "quadrant_sd_q50": float(np.median(layouts.quadrant_sd)),
        **_randomness(images, layouts, crosses),
    }


def _randomness(images: np.ndarray, layouts: Layouts, crosses: Crosses) -> dict[str, float]:
    """How far colours, cross pixels and positions are from random."""
    lines = cross_lines(images, layouts, crosses).astype(float)
    first, second = lines[:, :-1].ravel(), lines[:, 1:].ravel()
    return {
        "colour_ks": _distance(layouts.colours[np.isfinite(layouts.colours)]),
        "cross_ks": _distance(lines.ravel()),
        "cross_correlation": float(np.corrcoef(first, second)[0, 1]),
        "position_p": _evenness(layouts.starts, crosses),
    }


def cross_lines(images: np.ndarray, layouts: Layouts, crosses: Crosses) -> np.ndarray:
    """Rows, then columns of pixels that the crosses are made of: (2 N width, H, 3)."""
    offset = np.arange(images.shape[1]) - layouts.starts[:, :, None]
    on_line = (offset >= 0) & (offset < crosses.width)
    return np.concatenate([images[on_line[:, 0]], images.transpose(0, 2, 1, 3)[on_line[:, 1]]])


def _distance(grey_levels: np.ndarray) -> float:
    """Kolmogorov-Smirnov distance from uniform grey levels 0..255, each as wide as one."""
    from scipy.stats import ks_1samp, uniform

    levels = uniform(-0.5, 256)
    return float(ks_1samp(grey_levels, levels.cdf, method="asymp").statistic)


def _evenness(starts: np.ndarray, crosses: Crosses) -> float:
    """Probability of rows and columns this uneven by chance; NaN where there are too few."""
    places = len(crosses.starts)
    if places == 1 or len(starts) < LEAST_COUNT * places:
        return np.nan
    from scipy.stats import chi2, chisquare

    counts = [np.bincount(line - crosses.starts[0], minlength=places) for line in starts.T]
    uneven = sum(chisquare(count).statistic for count in counts)
    return float(chi2.sf(uneven, 2 * (places - 1)))
