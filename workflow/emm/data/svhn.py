"""Street View House Numbers (Netzer et al. 2011), cropped digits, from the official MATLAB file."""

from pathlib import Path

import numpy as np

from emm.data.download import check_md5, fetch, md5_of
from emm.errors import UserError

NAME = "train_32x32.mat"
URL = f"http://ufldl.stanford.edu/housenumbers/{NAME}"
MD5 = "e26dedcc434d2e4c54c9b2d4a06d8373"
ZERO = 10  # what the file calls the digit 0


def read_svhn(path: Path | str, md5: str | None = MD5) -> tuple[np.ndarray, np.ndarray]:
    """Training images (73257, 32, 32, 3) uint8 and labels int64, the digits, in file order.

    path: the file or a folder that holds it. md5: expected hash; None skips the check. Damaged and
    foreign files are UserErrors.
    """
    place = Path(path) / NAME if Path(path).is_dir() else Path(path)
    if not place.is_file():
        raise UserError(f"{place}: no such file; expected {NAME} of SVHN (docs/data.md)")
    check_md5(place, md5_of(place), md5, URL)
    return _parse(place)


def fetch_svhn(cache: Path | str) -> Path:
    """Path of the file in the cache folder; downloads it when it is not there."""
    return cached_svhn(cache) or fetch(URL, MD5, NAME, Path(cache) / "svhn")


def cached_svhn(cache: Path | str) -> Path | None:
    """Path of the file in the cache folder or in its folder `svhn`, if it is there."""
    places = (Path(cache) / "svhn" / NAME, Path(cache) / NAME)
    return next((place for place in places if place.exists()), None)


def _parse(path: Path) -> tuple[np.ndarray, np.ndarray]:
    from scipy.io import loadmat

    try:
        content = loadmat(path, variable_names=("X", "y"))
        images = np.ascontiguousarray(content["X"].transpose(3, 0, 1, 2))
        labels = content["y"].ravel().astype(np.int64)
    except Exception as error:  # a damaged file may raise anything
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: not a file of SVHN ({reason}); download {URL}") from error
    if images.dtype != np.uint8 or images.shape != (len(labels), 32, 32, 3):
        raise UserError(f"{path}: {images.dtype} images {images.shape}, labels {labels.shape}")
    return images, np.where(labels == ZERO, 0, labels)
