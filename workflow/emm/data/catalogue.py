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
CIFAR100_CLASSES = (
    "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus "
    "butterfly camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach "
    "couch crab crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster "
    "house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree "
    "motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear "
    "pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket "
    "rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar "
    "sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip "
    "turtle wardrobe whale willow_tree wolf woman worm"
)
SVHN_COUNTS = (4948, 13861, 10585, 8497, 7458, 6882, 5727, 5595, 5045, 4659)
ARTBENCH_STYLES = (
    "art_nouveau baroque expressionism impressionism post_impressionism "
    "realism renaissance romanticism surrealism ukiyo_e"
)
DIGIT_WORDS = "zero one two three four five six seven eight nine"
DIGIT_COUNTS = (178, 182, 177, 183, 181, 182, 181, 179, 174, 180)


@dataclass(frozen=True)
class SourceInfo:
    """A source at a glance. None stands for what only the user's own files tell.

    resolution: height and width in pixels; channels: 1 or 3; size: images, for a generated
    source the default number. class_names and class_counts (images per class) are empty when
    the source has no classes. takes_path: files may lie at data.path. blends: the two classes are
    mixed by data.alpha. reduced: images are brought to data.resolution while they are read or
    generated, so that it belongs to the source.
    """

    resolution: int | None
    channels: int | None
    size: int | None
    class_names: tuple[str, ...] | None = ()
    class_counts: tuple[int, ...] | None = ()
    generated: bool = False
    takes_path: bool = False
    blends: bool = False
    reduced: bool = False

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
    "cifar100": SourceInfo(
        32, 3, 50_000, tuple(CIFAR100_CLASSES.split()), (500,) * 100, takes_path=True
    ),
    "svhn": SourceInfo(32, 3, 73_257, tuple("0123456789"), SVHN_COUNTS, takes_path=True),
    "digits": SourceInfo(8, 1, 1797, tuple("0123456789"), DIGIT_COUNTS),
    "digits_blend": SourceInfo(8, 1, 1797, ("3", "other digits"), (183, 1614), blends=True),
    "digits_rgb": SourceInfo(64, 3, 1797, tuple(DIGIT_WORDS.split()), DIGIT_COUNTS),
    "cifar10_imagenet_dog": SourceInfo(
        32, 3, 4000, ("cifar10", "imagenet"), (2000, 2000), takes_path=True, blends=True
    ),
    "ffhq": SourceInfo(1024, 3, 10_000, takes_path=True, reduced=True),
    "artbench10": SourceInfo(
        256, 3, 1000, tuple(ARTBENCH_STYLES.split()), (100,) * 10, takes_path=True, reduced=True
    ),
    "folder": SourceInfo(None, None, None, None, None, takes_path=True),
}
SOURCES |= {
    name: SourceInfo(None, 3, size, (name,), (size,), generated=True, reduced=True)
    for name, size in [
        ("flat", 20_000),
        ("gaussian_mixture", 20_000),
        ("mondrian", 10_000),
        ("random_ink", 10_000),
    ]
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
    only_class: str | None = None,
    alpha: float | None = None,
    selection: str = "balanced_prefix",
    resolution: int | None = None,
    label_kind: str = "none",
) -> None:
    """UserError when the subset cannot be made; what only the files tell is left to the stage."""
    info = source_info(dataset)
    if resolution and info.resolution and resolution > info.resolution:
        raise UserError(too_large(resolution, info.resolution))
    if info.reduced and not resolution:
        raise UserError(no_resolution(dataset))
    if label_kind == "true" and info.classes == 0:
        raise UserError(f"labels.kind true: {dataset} has no classes")
    if info.class_counts is None:
        return
    counts, available = info.class_counts, info.size
    if only_class is not None:
        counts = (info.class_counts[class_number(only_class, info.class_names)],)
        available = counts[0]
    shares(size, counts, available, num_classes, selection, alpha)


def class_number(name: str, class_names: Sequence[str] | None) -> int:
    """Position of a class; UserError with the known ones for any other."""
    if name not in (class_names or ()):
        known = ", ".join(class_names or ()) or "none"
        raise UserError(f"data.only_class: no class {name!r}; the source has {known}")
    return list(class_names).index(name)


def shares(
    size: int | None,
    counts: Sequence[int],
    available: int,
    num_classes: int | None,
    selection: str,
    alpha: float | None = None,
) -> tuple[int, ...]:
    """Images that each class gives to a subset of `size` images, if it can be made at all.

    counts: images per class, empty without classes; available: images of the source; alpha: share
    of the second of two classes, if they blend. The result is empty when classes play no part: a
    plain prefix or a random selection.
    """
    if selection not in SELECTIONS:
        allowed = ", ".join(SELECTIONS)
        raise UserError(f"data.selection: no selection {selection!r}; allowed: {allowed}")
    if size is not None and size < 1:
        raise UserError(f"data.size {size}: a subset needs at least one image")
    if alpha is not None:
        _check_blend(counts, num_classes, selection)
        return blend_shares(size, counts, alpha)
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


def _check_blend(counts: Sequence[int], num_classes: int | None, selection: str) -> None:
    if len(counts) != 2:
        raise UserError(f"data.alpha: blends two classes; the source has {len(counts)}")
    if num_classes not in (None, 2):
        raise UserError(f"data.num_classes {num_classes}: a blend has two, leave it out")
    if selection != "balanced_prefix":
        raise UserError(f"data.selection {selection}: a blend takes the first images of each kind")


def blend_shares(size: int | None, counts: Sequence[int], alpha: float) -> tuple[int, int]:
    """Images of each of two kinds (Gu et al. 2023, Fig. 2c): int(N (1 - alpha)) and the rest.

    Truncated in floating point, as published: N = 1000 and alpha = 0.8 are 199 and 801. At most
    as many images as there are of the commoner kind.
    """
    if size is None:
        raise UserError("data.size: needed for a blend, which has no size of its own")
    if size > max(counts):
        raise UserError(f"data.size {size}: a blend of this source has at most {max(counts)}")
    wanted = (first := int(size * (1 - alpha)), size - first)
    for kind, share, count in zip(("first", "second"), wanted, counts, strict=True):
        if share > count:
            raise UserError(
                f"data.size {size}: with data.alpha {alpha:g} needs {share} images of the {kind} "
                f"kind, of which there are {count}"
            )
    return wanted


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


def repeated_images(size: int, share: float) -> int:
    """How many of the distinct images of a subset are repeated; 0 for no share."""
    return round(share * size)


def too_large(resolution: int, native: int) -> str:
    """The message for a resolution above that of the images."""
    return f"data.resolution {resolution}: the images have {native} pixels and are not enlarged"


def no_resolution(dataset: str) -> str:
    """The message for a source that has no resolution of its own, or too large a one."""
    how = "generated" if SOURCES[dataset].generated else "reduced while it is read"
    return f"data.resolution: needed for {dataset}, which is {how}; set 64, say"
