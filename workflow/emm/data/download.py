"""Files of the web in the cache folder, with hashes that tell whether they are whole."""

import hashlib
from pathlib import Path

from emm.errors import UserError


def fetch(url: str, md5: str, name: str, cache: Path | str) -> Path:
    """Path of a file in the cache folder after its download; UserError where that fails."""
    import pooch

    try:
        return Path(pooch.retrieve(url, f"md5:{md5}", name, cache))
    except (OSError, ValueError) as error:  # no network, disk full; wrong hash
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise UserError(
            f"cannot download {url} ({reason}); fetch it on another machine and put it "
            f"at {Path(cache) / name}, or name its folder as `cache` in config.yaml "
            "(docs/data.md)"
        ) from error


def md5_of(path: Path) -> str:
    """MD5 of a file as hexadecimal text."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def check_md5(path: Path, found: str, expected: str | None, url: str) -> None:
    """UserError for another hash than the expected one, if there is one."""
    if expected is not None and found != expected:
        raise UserError(
            f"{path}: truncated or not the official file: MD5 {found}, expected {expected}; "
            f"download it again from {url}"
        )
