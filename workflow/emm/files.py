"""Files that are whole or absent: atomic writes and checked reads."""

import contextlib
import errno
import hashlib
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emm.errors import Interrupted, UserError

if TYPE_CHECKING:
    import numpy as np

DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS, errno.EISDIR, errno.ENOTDIR, errno.EEXIST}
DAMAGED = (zipfile.BadZipFile, zlib.error, ValueError, EOFError, OSError, KeyError, RuntimeError)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Failures of writing to a path in one line.

    Raises Interrupted when the disk is full: nothing that was finished is touched. A path that
    cannot be written to is a UserError.
    """
    try:
        yield
    except OSError as error:
        if error.errno in DISK_FULL:
            reason = os.strerror(error.errno)
            message = f"{path}: {reason}; free some space and run the same command again"
            raise Interrupted(message) from error
        if error.errno in FORBIDDEN:
            raise UserError(f"{path}: cannot be written ({os.strerror(error.errno)})") from error
        raise


@contextlib.contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Path to write to; on success it is synced and renamed to `path`, on failure removed.

    Errors as `writing` has them.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            with temporary.open("rb") as stream:
                os.fsync(stream.fileno())
            temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text(path: Path | str, text: str) -> None:
    """Write a text file atomically (UTF-8)."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_arrays(path: Path | str, arrays: "Mapping[str, np.ndarray]") -> None:
    """Write named arrays to an .npz file atomically; the format carries a CRC-32 per array."""
    import numpy as np

    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.savez(stream, allow_pickle=False, **arrays)


def read_arrays(path: Path | str) -> "dict[str, np.ndarray]":
    """Read all arrays of an .npz file; a damaged or truncated file is a UserError."""
    return checked(path, _read_npz)


def _read_npz(path: Path) -> "dict[str, np.ndarray]":
    import numpy as np

    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def checked(path: Path | str, read: Callable[[Path], Any]) -> Any:
    """Result of `read(path)`, with missing and damaged files as one-line UserErrors."""
    path = Path(path)
    try:
        return read(path)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except DAMAGED as error:
        if isinstance(error, OSError) and error.errno in FORBIDDEN:
            raise UserError(f"{path}: cannot be read ({os.strerror(error.errno)})") from error
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: damaged ({reason}); delete it and run again") from error


def sha256(path: Path | str) -> str:
    """SHA-256 of a file as hexadecimal text."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
