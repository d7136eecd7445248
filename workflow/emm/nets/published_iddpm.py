"""Weights of published IDDPM networks, stored under the names of the improved-diffusion code."""

import re
from collections.abc import Iterator, Mapping

from torch import Tensor

from emm.nets.iddpm import IDDPMUNet
from emm.nets.published import check_names, check_shape

PARTS = [  # of a block, ours to theirs
    (r"\.norm_in\.", ".in_layers.0."),
    (r"\.conv_in\.", ".in_layers.2."),
    (r"\.modulation\.", ".emb_layers.1."),
    (r"\.norm_out\.", ".out_layers.0."),
    (r"\.conv_out\.", ".out_layers.3."),
    (r"\.shortcut\.", ".skip_connection."),
    (r"\.attention\.norm\.", ".norm."),
    (r"\.attention\.qkv\.", ".qkv."),
    (r"\.attention\.projection\.", ".proj_out."),
]
ENDS = {
    "time_hidden.": "time_embed.0.",
    "time_output.": "time_embed.2.",
    "labels.": "label_emb.",
    "stem.": "input_blocks.0.0.",
    "head_norm.": "out.0.",
    "head_conv.": "out.2.",
}


def iddpm_names(network: IDDPMUNet) -> dict[str, str]:
    """Names in `network.state_dict()` to those of the same tensors in improved-diffusion."""
    places = dict(_places(network)) | ENDS
    return {name: _published_name(name, places) for name in network.state_dict()}


def from_iddpm_state_dict(state: Mapping[str, Tensor], network: IDDPMUNet) -> dict[str, Tensor]:
    """State dict for `network` from one of improved-diffusion.

    Raises UserError that names the first tensor that is missing, left over or of another shape
    than the network's settings give it.
    """
    names = iddpm_names(network)
    targets = network.state_dict()
    check_names(state, set(names.values()))
    return {own: _converted(state[name], name, targets[own]) for own, name in names.items()}


def _places(network: IDDPMUNet) -> Iterator[tuple[str, str]]:
    """Prefixes of our blocks and the places that the published lists give them."""
    position = 1  # the stem is first
    for level, stage in enumerate(network.encoder):
        for index in range(len(stage.blocks)):
            yield f"encoder.{level}.blocks.{index}.", f"input_blocks.{position}."
            position += 1
        if stage.resample is not None:
            yield f"encoder.{level}.resample.", f"input_blocks.{position}.0.op."
            position += 1
    yield "middle.0.", "middle_block."
    yield "middle.1.", "middle_block.2."
    position = 0
    for level, stage in enumerate(network.decoder):
        for index in range(len(stage.blocks)):
            yield f"decoder.{level}.blocks.{index}.", f"output_blocks.{position}."
            position += 1
        if stage.resample is not None:
            place = 1 if stage.blocks[-1].attention is None else 2
            yield f"decoder.{level}.resample.", f"output_blocks.{position - 1}.{place}.conv."


def _published_name(name: str, places: Mapping[str, str]) -> str:
    own = next(prefix for prefix in places if name.startswith(prefix))
    place, rest = places[own], name.removeprefix(own)
    if own.startswith("middle.1") or own in ENDS or own.endswith("resample."):
        member = ""
    else:
        member = "1." if rest.startswith("attention.") else "0."
    published = f"{place}{member}{rest}"
    for pattern, replacement in PARTS:
        published = re.sub(pattern, replacement, published)
    return published


def _converted(tensor: Tensor, name: str, target: Tensor) -> Tensor:
    """The published tensor; its 1x1 convolutions over pixels have a dimension less."""
    if tensor.ndim == 3 and target.ndim == 4:
        tensor = tensor.unsqueeze(-1)
    check_shape(name, tensor, target.shape)
    return tensor
