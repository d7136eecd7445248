"""Size and arithmetic of a network, on the meta device: nothing is computed."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from emm.nets.blocks import Block, MappingNetwork, Merge
from emm.nets.dit import DiT, Head, TransformerBlock
from emm.nets.unet import UNet

KINDS = {
    MappingNetwork: "mapping",
    Merge: "merge",
    Head: "head",
    nn.Conv2d: "conv",
    nn.GroupNorm: "norm",
}
ENDS = ("stem", "head_norm", "head_conv")  # layers of the network that belong to no block


def parameters(network: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(weight.numel() for weight in network.parameters() if weight.requires_grad)


def forward_flops(network: UNet | DiT) -> int:
    """Floating-point operations of one forward pass per image; a multiply-add counts as two.

    Convolutions and matrix products only (`torch.utils.flop_counter`); attention in windows is
    masked, so it counts in full. A training step costs three times as much.
    """
    with FlopCounterMode(display=False) as counter:
        _meta_forward(network)
    return counter.get_total_flops()


def layers(network: UNet | DiT) -> list[dict[str, Any]]:
    """One row per layer in the order of computation; parameters add up to the network's.

    Keys: name; kind (mapping, conv, norm, block, down, up, merge or head); attention (whether the
    layer has any); skip (position in the skip mask, from 1, of the skip that the layer makes or
    takes, or None); parameters; shape (of the output, without the batch).
    """
    rows: list[dict[str, Any]] = []

    def record(name: str, layer: nn.Module) -> Any:
        row = _row(name, layer)

        def hook(_layer: nn.Module, _inputs: Any, output: Tensor) -> None:
            rows.append({**row, "shape": list(output.shape[1:])})

        return layer.register_forward_hook(hook)

    recorded = (Block, Head, MappingNetwork, Merge, TransformerBlock)
    modules = network.named_modules()
    hooks = [record(name, m) for name, m in modules if isinstance(m, recorded) or name in ENDS]
    try:
        _meta_forward(network)
    finally:
        for hook in hooks:
            hook.remove()
    if not isinstance(network, DiT):
        _number_skips(rows)
    return rows


def _meta_forward(network: UNet | DiT) -> None:
    tensors = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    weights = {name: tensor.detach().to("meta") for name, tensor in tensors.items()}
    size = (1, network.image_channels, network.resolution, network.resolution)
    dtype = network.stem.weight.dtype
    image, c_noise = (torch.empty(shape, dtype=dtype, device="meta") for shape in (size, (1,)))
    labels = torch.empty(1, dtype=torch.int64, device="meta") if network.label_dim else None
    with torch.no_grad():
        functional_call(network, weights, (image, c_noise, labels))


def _row(name: str, layer: nn.Module) -> dict[str, Any]:
    is_block = isinstance(layer, Block)
    resamples = is_block and layer.resample is not None
    return {
        "name": name,
        "kind": layer.resample.direction if resamples else KINDS.get(type(layer), "block"),
        "attention": isinstance(layer, TransformerBlock)
        or (is_block and layer.attention is not None),
        "skip": None,
        "parameters": parameters(layer),
    }


def _number_skips(rows: list[dict[str, Any]]) -> None:
    made: list[int] = []
    for row in rows:
        if row["kind"] == "merge":
            row["skip"] = made[-1]
        elif row["name"] == "stem" or row["name"].startswith("encoder"):
            made.append(len(made) + 1)
            row["skip"] = made[-1]
        elif row["name"].startswith("decoder") and ".blocks." in row["name"]:
            row["skip"] = made.pop()
