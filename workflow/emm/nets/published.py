"""Weights of published DDPM++ and NCSN++ networks, stored under the names of the EDM code."""

import math
import re
from collections.abc import Mapping

import torch
from torch import Tensor

from emm.errors import UserError
from emm.nets.unet import UNet

IGNORED = "resample_filter"  # buffers that follow from the configuration
WRAPPER = "model."  # of a network inside its preconditioning
RENAMES = [  # own name, as a pattern, to EDM's; the level becomes the image size at the end
    (r"^mapping\.frequencies$", "map_noise.freqs"),
    (r"^mapping\.labels\.", "map_label."),
    (r"^mapping\.hidden\.", "map_layer0."),
    (r"^mapping\.output\.", "map_layer1."),
    (r"^stem\.", "enc.level1_conv."),
    (r"^head_(norm|conv)\.", r"dec.level1_aux_\1."),
    (r"^encoder\.(level\d+)\.entry\.0\.", r"enc.\1_down."),
    (r"^encoder\.(level\d+)\.merge\.conv\.", r"enc.\1_aux_residual."),
    (r"^encoder\.(level\d+)\.blocks\.", r"enc.\1_block"),
    (r"^decoder\.bottom\.entry\.", r"dec.bottom_in"),
    (r"^decoder\.(level\d+)\.entry\.0\.", r"dec.\1_up."),
    (r"^decoder\.(level\d+|bottom)\.blocks\.", r"dec.\1_block"),
    (r"\.norm_in\.", ".norm0."),
    (r"\.conv_in\.", ".conv0."),
    (r"\.shift\.", ".affine."),
    (r"\.norm_out\.", ".norm1."),
    (r"\.conv_out\.", ".conv1."),
    (r"\.shortcut\.", ".skip."),
    (r"\.attention\.norm\.", ".norm2."),
    (r"\.attention\.qkv\.", ".qkv."),
    (r"\.attention\.projection\.", ".proj."),
]


def edm_names(network: UNet) -> dict[str, str]:
    """Names in `network.state_dict()` to the names of the same tensors in the EDM code."""
    return {name: _edm_name(name, network) for name in network.state_dict()}


def from_edm_state_dict(state: Mapping[str, Tensor], network: UNet) -> dict[str, Tensor]:
    """State dict for `network` from one of the EDM code, with or without its "model." prefix.

    Tensors keep their dtype. Raises UserError that names the first tensor that is missing, left
    over or of another shape than the network's settings give it.
    """
    state = {name.removeprefix(WRAPPER): tensor for name, tensor in state.items()}
    names = edm_names(network)
    check_names(state, set(names.values()))
    targets = network.state_dict()
    return {own: _converted(own, name, state[name], targets[own]) for own, name in names.items()}


def _edm_name(name: str, network: UNet) -> str:
    levels = len(network.decoder)
    name = name.replace(f"decoder.level{levels}.", "decoder.bottom.")
    for pattern, replacement in RENAMES:
        name = re.sub(pattern, replacement, name)
    name = name.replace("bottom", f"level{levels}")
    return re.sub(r"level(\d+)", lambda found: _size(network, int(found[1])), name)


def _size(network: UNet, level: int) -> str:
    pixels = network.resolution >> (level - 1)
    return f"{pixels}x{pixels}"


def check_names(state: Mapping[str, Tensor], expected: set[str]) -> None:
    """UserError that names the first tensor that is missing or left over."""
    found = {name for name in state if name.rpartition(".")[2] != IGNORED}
    for problem, names in [("missing", expected - found), ("unknown", found - expected)]:
        if names:
            raise UserError(
                f"published weights: {problem} tensor {min(names)} ({len(names)} {problem} in "
                "all); check that the network has the settings of the weights"
            )


def check_shape(name: str, tensor: Tensor, wanted: torch.Size) -> None:
    """UserError if a published tensor has another shape than the network's settings give it."""
    if tensor.shape != wanted:
        raise UserError(
            f"published weights: tensor {name} has shape {tuple(tensor.shape)}, the network needs "
            f"{tuple(wanted)}; check that the network has the settings of the weights"
        )


def _converted(own: str, name: str, tensor: Tensor, target: Tensor) -> Tensor:
    """The published tensor in the layout of ours."""
    wanted = target.shape[::-1] if own == "mapping.labels.weight" else target.shape
    check_shape(name, tensor, wanted)
    if own == "mapping.labels.weight":
        return tensor.t()
    if own == "mapping.frequencies":
        return tensor.to(torch.float32) * (2 * math.pi)
    if ".attention.qkv." in own:  # q, k, v of one channel after the other, to q, k, v as blocks
        return tensor.unflatten(0, (-1, 3)).transpose(0, 1).flatten(0, 1)
    return tensor
