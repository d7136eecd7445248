"""What is known of each source without loading it. Standard library only: read at parse time."""

from collections.abc import Sequence
from dataclasses import dataclass

from emm.errors import UserError

SELECTIONS = ("balanced_prefix", "random")
CIFAR10_CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)


@dataclass(frozen=True)
class SourceInfo:
    """A source at a glance. None stands for what only the user's own files tell.

    resolution: height and width in pixels; channels: 1 or 3; size: images, for a generated
    source the default number. class_names and class_counts (images per class) are empty when
    the source has no classes.
    """

    resolution: int | None
    channels: int | None
    size: int | None
    class_names: tuple[str, ...] | None = ()
    class_counts: tuple[int, ...] | None = ()
    generated: bool = False

    @property
    def classes(self) -> int | None:
        """Number of classes; 0 when there are none."""
        return None if self.class_names is None else len(self.class_names)

    @property
    def smallest_class(self) -> int | None:
        """Images of the smallest class: a balanced subset has at most so many of each."""
        return min(self.class_counts) if self.class_counts else None


SOURCES = {
    "cifar10": SourceInfo(32, 3, 50_000, CIFAR10_CLASSES, (5000,) * 10),
    "digits": SourceInfo(
        8, 1, 1797, tuple("0123456789"), (178, 182, 177, 183, 181, 182, 181, 179, 174, 180)
    ),
    "folder": SourceInfo(None, None, None, None, None),
    "gaussian_mixture": SourceInfo(32, 3, 10_000, generated=True),
    "mondrian": SourceInfo(32, 3, 10_000, generated=True),
    "random_ink": SourceInfo(32, 3, 10_000, generated=True),
}


def source_info(dataset: str) -> SourceInfo:
    """Entry of a source; UserError with the known names for any other."""
    if dataset not in SOURCES:
        raise UserError(f"data.dataset: no source {dataset!r}; allowed: {', '.join(SOURCES)}")
    return SOURCES[dataset]


def check_subset(
    dataset: str,
    *,
    size: int | None,
    num_classes: int | None = None,
    selection: str = "balanced_prefix",
    resolution: int | None = None,
    label_kind: str = "none",
    source_size: int | None = None,
) -> None:
    """UserError when the subset cannot be made; what only the files tell is left to the stage.

    source_size: images of a generated source, if other than the default.
    """
    info = source_info(dataset)
    if resolution and info.resolution and resolution > info.resolution:
        raise UserError(too_large(resolution, info.resolution))
    if label_kind == "true" and info.classes == 0:
        raise UserError(f"labels.kind true: {dataset} has no classes")
    if info.class_counts is not None:
        available = source_size if info.generated and source_size else info.size
        shares(size, info.class_counts, available, num_classes, selection)


def shares(
    size: int | None,
    counts: Sequence[int],
    available: int,
    num_classes: int | None,
    selection: str,
) -> tuple[int, ...]:
    """Images that each class gives to a subset of `size` images, if it can be made at all.

    counts: images per class, empty without classes; available: images of the source. The result
    is empty when classes play no part: a plain prefix or a random selection.
    """
    if selection not in SELECTIONS:
        allowed = ", ".join(SELECTIONS)
        raise UserError(f"data.selection: no selection {selection!r}; allowed: {allowed}")
    if size is not None and size < 1:
        raise UserError(f"data.size {size}: a subset needs at least one image")
    used = _used_counts(counts, num_classes)
    total = sum(used) if counts else available
    if size is not None and size > total:
        raise UserError(f"data.size {size}: the source has only {total} such images")
    return balanced_shares(size, used) if counts and selection == "balanced_prefix" else ()


def _used_counts(counts: Sequence[int], num_classes: int | None) -> Sequence[int]:
    """Images per class of the first `num_classes` classes, or of all."""
    if num_classes is None:
        return counts
    if not counts:
        raise UserError(f"data.num_classes {num_classes}: the source has no classes")
    if not 1 <= num_classes <= len(counts):
        raise UserError(f"data.num_classes {num_classes}: the source has {len(counts)} classes")
    return counts[:num_classes]


def balanced_shares(size: int | None, counts: Sequence[int]) -> tuple[int, ...]:
    """Images per class of a balanced prefix (Gu et al. 2023, Fig. 2b): N//k, the rest to the last.

    Fewer images than classes would all fall to the last class by that rule; they are one of each
    of the first N classes instead. size None takes everything, balanced or not.
    """
    classes = len(counts)
    if size is None:
        return tuple(counts)
    if size < classes:
        wanted = (1,) * size + (0,) * (classes - size)
    else:
        wanted = (size // classes,) * (classes - 1) + (size // classes + size % classes,)
    for label, (share, count) in enumerate(zip(wanted, counts, strict=True)):
        if share > count:
            raise UserError(
                f"data.size {size}: needs {share} images of class {label}, which has {count}; at "
                f"most {classes * min(counts)} images are balanced, null takes all {sum(counts)}"
            )
    return wanted


def too_large(resolution: int, native: int) -> str:
    """The message for a resolution above that of the images."""
    return f"data.resolution {resolution}: the images have {native} pixels and are not enlarged"
