"""Weights that others trained: files of them, and networks that take them."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from emm.errors import UserError
from emm.files import checked
from emm.nets.iddpm import IDDPMUNet
from emm.nets.pickled import LONGEST, REFUSED, Held, Recorded, read_pickle, reason, shown
from emm.nets.published import WRAPPER, check_shape, from_edm_state_dict
from emm.nets.published_iddpm import from_iddpm_state_dict

AUGMENTATION = "map_augment."  # EDM's input for augmentations, which sampling leaves out
NETWORKS = ("ema", "model", "state_dict", "net")  # where a file of several things has the network
ZIP, LEGACY = b"PK\x03\x04", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # torch's two formats
NAME = re.compile(rf"[!-~]{{1,{LONGEST}}}")  # of a tensor: messages and records show it as it is
UNUSABLE = (RuntimeError, MemoryError, OverflowError)  # of torch, for tensors that are not plain


@dataclass(frozen=True)
class Weights:
    """A network's tensors by name, as the file stores them.

    kind: class of the object that held them, "" where the file does not say; constants: the
    numbers among its attributes.
    """

    tensors: dict[str, Tensor]
    kind: str = ""
    constants: Mapping[str, float] = field(default_factory=dict)


def read_weights(path: Path) -> Weights:
    """The network of a safetensors file, a torch file (.pt), or a pickle of EDM (.pkl).

    Of a file with several entries `ema` is taken. No code of the file is run, and a file that
    needs it is refused: a UserError, as for a missing or damaged file and one without tensors.
    """
    content = _content(path)
    if isinstance(content, Mapping) and not _is_state(content):
        content = next((content[name] for name in NETWORKS if name in content), content)
    if isinstance(content, Recorded):
        return _of_module(path, content)
    if not isinstance(content, Mapping) or not _is_state(content):
        raise UserError(
            f"{path}: holds no network; it should be a state dict, or have one as "
            f"{', '.join(NETWORKS)}"
        )
    return Weights(_named(path, content))


def load_published(network: nn.Module, state: Mapping[str, Tensor]) -> list[str]:
    """Load weights that others trained into a network; returns the tensors that it has no use for.

    state: the state dict of a network of EDM or DiffMemorize (for a `UNet`; with or without its
    preconditioning's prefix "model.", and map_augment is left out) or of improved-diffusion (for
    an `IDDPMUNet`), or one with our own names, in any precision. Raises UserError for the first
    tensor that is missing, left over or misshaped.
    """
    state = {name.removeprefix(WRAPPER): tensor for name, tensor in state.items()}
    ignored = [name for name in state if name.startswith(AUGMENTATION)]
    kept = {n: tensor for n, tensor in state.items() if not n.startswith(AUGMENTATION)}
    try:
        network.load_state_dict(_converted(kept, network))
    except UNUSABLE as error:
        raise UserError(f"published weights: cannot be loaded ({reason(error)})") from error
    return ignored


def _converted(state: Mapping[str, Tensor], network: nn.Module) -> Mapping[str, Tensor]:
    """State dict under our names, of the network's shapes."""
    own = network.state_dict()
    if set(state) == set(own):
        for name, tensor in state.items():
            check_shape(name, tensor, own[name].shape)
        return state
    convert = from_iddpm_state_dict if isinstance(network, IDDPMUNet) else from_edm_state_dict
    return convert(state, network)


def _content(path: Path) -> Any:
    """What a file holds; its first bytes tell the format."""
    start = checked(path, _first_bytes)
    if start[8:9] == b"{":
        return _attempt(path, "a safetensors file", load_file)
    if start.startswith((ZIP, LEGACY)):
        return _attempt(path, "a file of torch", _load_torch)
    return read_pickle(path)


def _first_bytes(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(len(LEGACY))


def _attempt(path: Path, kind: str, read: Callable[[Path], Any]) -> Any:
    try:
        return read(path)
    except Exception as error:  # each library has its own for damaged files
        if REFUSED.search(str(error)):
            raise UserError(
                f"{path}: refused: {reason(error)}, which is no tensor or plain container; "
                "nothing of the file was run (of EDM's files, take network-snapshot-*.pkl)"
            ) from error
        raise UserError(f"{path}: damaged, or not {kind} ({reason(error)})") from error


def _load_torch(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True)


def _is_state(content: Mapping[Any, Any]) -> bool:
    return bool(content) and all(isinstance(value, Tensor | Held) for value in content.values())


def _of_module(path: Path, module: Recorded) -> Weights:
    try:
        tensors = _named(path, dict(module.tensors()))
        numbers = {k: float(v) for k, v in module.attributes.items() if type(v) in (int, float)}
    except (AttributeError, TypeError, ValueError, *UNUSABLE) as error:
        raise UserError(f"{path}: damaged: its {module.kind} is no module") from error
    if not tensors:
        raise UserError(f"{path}: its {module.kind} holds no tensors")
    return Weights(tensors, module.kind, numbers)


def _named(path: Path, state: Mapping[Any, Tensor | Held]) -> dict[str, Tensor]:
    """Tensors by name; UserError for a name that no line of text can show."""
    for name in state:
        if not isinstance(name, str) or not NAME.fullmatch(name):
            label = shown(name) if isinstance(name, str) else type(name).__name__
            raise UserError(f"{path}: damaged: a tensor has the name {label}")
    tensors = {name: v.tensor if isinstance(v, Held) else v for name, v in state.items()}
    return {name: tensor.detach() for name, tensor in tensors.items()}
