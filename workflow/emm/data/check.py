"""What lies where sources are expected: looked through before anything is trained on it."""

from collections.abc import Callable, Sequence

from emm.data import cifar, svhn
from emm.data.artbench import (
    PER_STYLE,
    STYLES,
    artbench_files,
    artbench_folder,
    artbench_reduction,
)
from emm.data.catalogue import source_info
from emm.data.ffhq import ffhq_files, ffhq_folder, ffhq_reduction
from emm.data.imagenet_dogs import REDUCTION, SYNSETS, dog_files
from emm.data.reduced import image_sizes
from emm.data.sources import Place, load_source
from emm.errors import UserError


def check_source(dataset: str, place: Place) -> list[str]:
    """A line for each thing that was found; UserError for the first that is missing or unfit.

    Downloads nothing. Sources that need no files, and the user's own folder, are loaded.
    """
    return CHECKS.get(dataset, _loaded)(dataset, place)


def _cifar10(dataset: str, place: Place) -> list[str]:
    return _cifar(dataset, cifar.CIFAR10, place)


def _cifar100(dataset: str, place: Place) -> list[str]:
    return _cifar(dataset, cifar.CIFAR100, place)


def _cifar(dataset: str, release: cifar.Release, place: Place) -> list[str]:
    path = place.path or cifar.cached_cifar(release, place.cache)
    if path is None:
        raise _not_there(f"{place.cache}: has neither {release.archive} nor {release.folder}")
    images, _ = cifar.read_cifar(release, path)
    return [f"{dataset}: {path}: MD5 as published, {len(images):,} training images"]


def _svhn(dataset: str, place: Place) -> list[str]:
    path = place.path or svhn.cached_svhn(place.cache)
    if path is None:
        raise _not_there(f"{place.cache}: has no svhn/{svhn.NAME}")
    images, _ = svhn.read_svhn(path)
    return [f"svhn: {path}: MD5 as published, {len(images):,} training images"]


def _not_there(what: str) -> UserError:
    return UserError(f"{what}, which `emm data` without --check downloads (docs/data.md)")


def _dogs(dataset: str, place: Place) -> list[str]:
    folder = place.folder("imagenet_dogs")
    lines = _cifar10("cifar10", Place(cache=place.cache))
    files = dog_files(folder)
    sizes = image_sizes(files, REDUCTION, place.threads)
    found = f"{len(SYNSETS)} of {len(SYNSETS)} synsets, {len(files):,} images"
    return [*lines, f"imagenet_dogs: {folder}: {found}, {_extent(sizes)}"]


def _ffhq(dataset: str, place: Place) -> list[str]:
    folder = ffhq_folder(place.folder("ffhq"))
    reduction, files = ffhq_reduction(place.resolution), ffhq_files(folder)
    sizes = image_sizes(files, reduction, place.threads)
    names = " to ".join(files[at].relative_to(folder).as_posix() for at in (0, -1))
    return [f"ffhq: {folder}: the first {len(files):,} images, {names}, {_extent(sizes)}"]


def _artbench10(dataset: str, place: Place) -> list[str]:
    path = place.folder("artbench10")
    reduction, files = artbench_reduction(place.resolution), artbench_files(path)
    sizes = image_sizes(files, reduction, place.threads)
    found = f"the first {PER_STYLE} images of each of {len(STYLES)} styles"
    return [f"artbench10: {artbench_folder(path)}: {found}, {_extent(sizes)}"]


def _extent(sizes: Sequence[tuple[int, int]]) -> str:
    """The least and the greatest width and height."""
    ends = dict.fromkeys(
        f"{end(width for width, _ in sizes)}x{end(height for _, height in sizes)}"
        for end in (min, max)
    )
    return f"{' to '.join(ends)} pixels"


def _loaded(dataset: str, place: Place) -> list[str]:
    if source_info(dataset).generated:
        return [f"{dataset}: generated, needs no files"]
    source = load_source(dataset, path=place.path, cache=place.cache)
    count, height, width, channels = source.images.shape
    where = f"{place.path}: " if source_info(dataset).takes_path else "comes with scikit-learn, "
    return [
        f"{dataset}: {where}{count:,} images of {width}x{height} pixels, {channels} channels, "
        f"{source.num_classes} classes"
    ]


CHECKS: dict[str, Callable[[str, Place], list[str]]] = {
    "artbench10": _artbench10,
    "cifar10": _cifar10,
    "cifar100": _cifar100,
    "cifar10_imagenet_dog": _dogs,
    "ffhq": _ffhq,
    "svhn": _svhn,
}
