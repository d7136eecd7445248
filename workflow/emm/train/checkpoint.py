"""Checkpoints and training state: safetensors files that carry their own checksum."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import Tensor

from emm.errors import UserError
from emm.files import atomic_path

SEAL = "emm"  # of the header: one entry, since the format writes several in a random order


def save(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write tensors and JSON-like metadata atomically, with a SHA-256 over both."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    content = json.dumps(metadata, sort_keys=True)
    header = {SEAL: f"{_checksum(plain, content)} {content}"}
    with atomic_path(path) as temporary:
        temporary.write_bytes(serialise(plain, header))  # its own writer hides a full disk


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and metadata of a file; missing, truncated or altered files are UserErrors."""
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        with safe_open(path, framework="pt") as stream:
            header = stream.metadata() or {}
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: damaged ({error}); delete it and run again") from error
    checksum, _, content = header.get(SEAL, "").partition(" ")
    if checksum != _checksum(tensors, content):
        raise UserError(f"{path}: damaged (checksum differs); delete it and run again")
    return tensors, json.loads(content)


def _checksum(tensors: Mapping[str, Tensor], content: str) -> str:
    total = hashlib.sha256(content.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return total.hexdigest()
