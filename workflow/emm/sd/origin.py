"""Where a base model comes from, and whether it still is the one that a run was trained from.

A fine-tuned U-Net fits its own base alone: the autoencoder that decodes what it draws, the text
encoder that reads its prompts and the noise schedule. So the record of a run says which base it
was, by the commit of a model of the hub or by a fingerprint of a folder.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from emm.errors import UserError
from emm.sd import TINY
from emm.sd.base import PARTS, first_line, require_extra, require_parts
from emm.spec import digest

SECONDARY = ("*fp16*", "*non_ema*", "*.msgpack", "*.onnx*")  # other copies of the weights
BLOCKS, BLOCK = 32, 2**16  # parts of a file that are read, evenly spread, and their bytes
REVISION, FINGERPRINT = "revision", "fingerprint"


@dataclass(frozen=True)
class Origin:
    """A base model that was found.

    folder: with its parts; kind, mark: the REVISION of the hub (its commit), or the FINGERPRINT of
    a folder.
    """

    folder: Path
    kind: str
    mark: str

    @property
    def record(self) -> dict[str, str]:
        """What the record of a run says of its base."""
        return {"folder": str(self.folder), self.kind: self.mark}

    def identity(self, key: str) -> str:
        """Identity of a training that starts from this model and has the identity `key` else."""
        return digest([key, self.mark])


def find_base(base: str, run_folder: Path) -> Origin:
    """The model of model.base: a tiny one beside its run, a local one, or the hub's.

    A hub name may end in @REVISION; what is not downloaded yet is, unless HF_HUB_OFFLINE=1.
    UserError if there is no such model.
    """
    require_extra()
    local = run_folder / "base" if base == TINY else Path(base).expanduser()
    if local.is_dir() or base == TINY:
        return Origin(local, FINGERPRINT, fingerprint(local))
    folder = _from_hub(base)
    return Origin(folder, REVISION, folder.name)


def find_again(base: str, run_folder: Path, recorded: Mapping[str, Any] | None) -> Origin:
    """The model that a run was trained from, by what its record says (`Origin.record`).

    A model of the hub is had at the recorded commit, wherever the hub has moved to. UserError if
    another model is found. Old records say nothing that could be compared.
    """
    known = recorded if isinstance(recorded, Mapping) else {}
    is_local = base == TINY or Path(base).expanduser().is_dir()
    if REVISION in known and not is_local:
        base = f"{base.partition('@')[0]}@{known[REVISION]}"
    found = find_base(base, run_folder)
    expected = {key: known[key] for key in (REVISION, FINGERPRINT) if key in known}
    if expected and expected != {found.kind: found.mark}:
        kind, mark = next(iter(expected.items()))
        raise UserError(
            f"model.base {base}: {found.folder} ({found.kind} {found.mark}) is not what the run "
            f"was trained from ({kind} {mark}); restore that, or train the run again"
        )
    return found


def fingerprint(folder: Path) -> str:
    """Digest of the files of a model that may be loaded: names, sizes and blocks of the content.

    Configurations and vocabularies are read whole, weights in places: 4 GB in no time.
    """
    require_parts(folder)
    content = hashlib.sha256()
    for part in PARTS:
        for path in sorted((folder / part).iterdir()):
            hidden = path.name.startswith(".") or any(fnmatch(path.name, p) for p in SECONDARY)
            if path.is_file() and not hidden:
                content.update(f"{part}/{path.name} {path.stat().st_size}\n".encode())
                for block in _blocks(path):
                    content.update(block)
    return content.hexdigest()[:16]


def _blocks(path: Path) -> Iterator[bytes]:
    """Evenly spread blocks of a file; all of one that has no more."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        for start in range(0, size, max(BLOCK, size // BLOCKS)):
            stream.seek(start)
            yield stream.read(BLOCK)


def _from_hub(base: str) -> Path:
    """Folder of a model of the hub, whose name is the commit."""
    from huggingface_hub import snapshot_download

    name, _, revision = base.partition("@")
    try:
        return Path(
            snapshot_download(
                name,
                revision=revision or None,
                allow_patterns=[f"{part}/*" for part in PARTS],
                ignore_patterns=list(SECONDARY),
            )
        )
    except (OSError, ValueError) as error:
        raise UserError(
            f"model.base {base}: neither a folder nor to be had from the hub "
            f"({first_line(error)}); name a folder, or download it first (docs/stable-diffusion.md)"
        ) from error
