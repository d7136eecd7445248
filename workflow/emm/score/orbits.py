"""Nearest training images among all that augmentation can make of each (emm.data.orbits).

A sample may copy any member of an image's orbit, and the second neighbour is of another image: one
member beside another would hide the copy. Exact: every move is a search of its own by
`two_nearest`, and the results are merged by image.
"""

from collections.abc import Iterator, Sequence
from types import ModuleType

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from emm.data.orbits import Move, moved
from emm.errors import UserError
from emm.score.criteria import copies_of
from emm.score.nearest import (
    DistinctNeighbours,
    Neighbours,
    check_images,
    nearest_distinct,
    occurrences,
    two_nearest,
)

RATIO = "memorization_ratio_originals"
COLUMNS = ("n_memorized_originals", RATIO, f"{RATIO}_low", f"{RATIO}_high")


def nearest_in_orbits(
    samples: np.ndarray,
    training: np.ndarray,
    moves: Sequence[Move],
    duplicates: str = "distinct",
    xp: ModuleType | None = None,
) -> DistinctNeighbours:
    """Two nearest orbits of each sample; indices are of the images that these are made of.

    duplicates: "distinct" takes images of which one is in the other's orbit for one and names the
    first of them; "published" keeps each apart and returns the same neighbours twice.
    `n_duplicates` is the number of images in an earlier one's orbit. Input and errors as for
    `nearest_distinct`.
    """
    check_images(samples, training)
    first, groups = orbit_groups(training, moves)
    n_duplicates = len(training) - len(first)
    every = np.arange(len(training))
    published = _search(samples, training, moves, every, every, xp)
    if duplicates == "published" or not n_duplicates:
        return DistinctNeighbours(published, published, n_duplicates)
    if len(first) < 2:
        raise UserError(f"all {len(training)} training images have one orbit: two must differ")
    neighbours = _search(samples, training, moves, occurrences(training)[0], groups, xp)
    named = Neighbours(first[neighbours.indices], neighbours.squared_distances)
    return DistinctNeighbours(named, published, n_duplicates)


def orbit_groups(images: np.ndarray, moves: Sequence[Move]) -> tuple[np.ndarray, np.ndarray]:
    """Images of which one is a member of the other's orbit, or which others link so, as groups.

    The first image of each group, ascending, and the position in that list of each image's group.
    """
    row_of = {image.tobytes(): row for row, image in reversed(list(enumerate(images)))}
    links = [
        (row, row_of[member])
        for move in moves
        for row, image in enumerate(moved(images, move))
        if (member := image.tobytes()) in row_of
    ]
    rows, others = np.array(links).T
    shape = (len(images), len(images))
    graph = coo_array((np.ones(len(links), bool), (rows, others)), shape)
    _, labels = connected_components(graph, directed=False)
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    order = np.argsort(first)
    return first[order], np.argsort(order)[inverse]


def _search(
    samples: np.ndarray,
    training: np.ndarray,
    moves: Sequence[Move],
    rows: np.ndarray,
    groups: np.ndarray,
    xp: ModuleType | None,
) -> Neighbours:
    """Two nearest groups of each sample, among all moves of the training images in `rows`."""
    count, best = int(groups[rows].max()) + 1, None
    for members in _rounds(rows, groups[rows]):
        for move in moves:
            found = two_nearest(samples, moved(training[members], move), xp=xp)
            keys = found.squared_distances * count + groups[members][found.indices]
            best = keys if best is None else _merge(best, keys, count)
    squared_distances, indices = np.divmod(best, count)
    return Neighbours(indices, squared_distances)


def _rounds(rows: np.ndarray, groups: np.ndarray) -> Iterator[np.ndarray]:
    """Rows with exactly one member of each group at a time, until all had their turn."""
    order = np.argsort(groups, kind="stable")
    sizes = np.bincount(groups)
    starts = np.cumsum(sizes) - sizes
    for turn in range(sizes.max()):
        yield rows[order[starts + np.minimum(turn, sizes - 1)]]


def _merge(best: np.ndarray, keys: np.ndarray, count: int) -> np.ndarray:
    """The two smallest keys (N, 2) of different groups; a key is distance * count + group."""
    keys = np.concatenate([best, keys], axis=1)
    nearest = keys.min(axis=1, keepdims=True)
    same = keys % count == nearest % count
    others = np.where(same, np.iinfo(np.int64).max, keys).min(axis=1, keepdims=True)
    return np.concatenate([nearest, others], axis=1)


def summarise(
    samples: np.ndarray, training: np.ndarray, duplicates: str, xp: ModuleType | None
) -> dict[str, float]:
    """COLUMNS of samples (N, ...) against training images (M, ...) as they are, unmoved.

    What a score that knows nothing of the augmentation would say, with its 95 % Wilson interval.
    """
    search = nearest_distinct if duplicates == "distinct" else two_nearest
    found = search(samples, training, xp=xp)
    neighbours = found.neighbours if isinstance(found, DistinctNeighbours) else found
    return copies_of("originals", neighbours.squared_distances)
