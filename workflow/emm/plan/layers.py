"""The layers of a network from its settings, in plain Python: their arithmetic and their size.

Equal to what torch says of the built network (`emm.nets.cost`), which takes too long for the
hundreds of networks of a plan.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

PYRAMID_TAPS = 4  # of the filter of NCSN++


class Layer(NamedTuple):
    """Operations per image of a forward pass, a multiply-add as two, and trainable parameters."""

    operations: float
    parameters: int


def layers(settings: Mapping[str, Any], image_channels: int, resolution: int) -> list[Layer]:
    """All layers of a network of ours that do arithmetic; most labels only have parameters.

    settings: complete ones of a run, dotted.
    """
    if settings["model.arch"] == "dit":
        return [*_dit(settings, image_channels, resolution), *_labels(settings)]
    widths = [settings["model.channels"]]
    widths += [widths[0] * mult for mult in settings["model.channel_mult"]]
    about = (widths, settings["model.num_blocks"], settings["model.attention_levels"], resolution)
    if settings["model.arch"] == "iddpm":
        found = _iddpm(*about, image_channels)
    else:
        found = _unet(*about, image_channels, settings["model.arch"] == "ncsnpp")
    return [*found, *_labels(settings)]


def _labels(settings: Mapping[str, Any]) -> list[Layer]:
    classes, channels = settings["labels.num_classes"], settings["model.channels"]
    if not classes:
        return []
    features = channels * {"iddpm": 4, "ncsnpp": 2}.get(settings["model.arch"], 1)
    if settings["labels.kind"] == "vectors":
        dim = settings["labels.dim"]
        return [Layer(2 * dim * features, (dim + 1) * features)]
    bias = settings["model.arch"] != "iddpm"
    return [Layer(0, (classes + bias) * features)]


@dataclass(frozen=True)
class Block:
    """A residual block: channels, pixels of its output, and what else it does.

    resampled: pixels that a filter before it is counted by, 0 if it keeps the size.
    """

    inputs: int
    outputs: int
    pixels: int
    attends: bool = False
    resampled: int = 0

    def layers(self, embedding: int, given: int, taps: int = 2) -> Iterator[Layer]:
        """given: numbers per channel that the embedding gives; taps: of the resampling filter."""
        yield _norm(self.inputs)
        yield _conv(self.inputs, self.outputs, 3, self.pixels)
        yield _linear(embedding, given * self.outputs)
        yield _norm(self.outputs)
        yield _conv(self.outputs, self.outputs, 3, self.pixels)
        if self.inputs != self.outputs or self.resampled:
            yield _conv(self.inputs, self.outputs, 1, self.pixels)
        if self.resampled and taps > 2:  # on the input and in the branch
            yield Layer(2 * _filter(self.inputs, self.resampled), 0)
        if self.attends:
            yield _norm(self.outputs)
            yield _conv(self.outputs, 3 * self.outputs, 1, self.pixels)
            yield _conv(self.outputs, self.outputs, 1, self.pixels)
            yield Layer(4.0 * self.pixels**2 * self.outputs, 0)


def _unet(
    widths: Sequence[int],
    num_blocks: int,
    attends: Sequence[int],
    resolution: int,
    image_channels: int,
    is_ncsnpp: bool,
) -> Iterator[Layer]:
    """DDPM++; or NCSN++, which has a filter of four taps and an image pyramid."""
    channels, embedding, full = widths[0], 4 * widths[0], resolution**2
    yield _linear(channels * (2 if is_ncsnpp else 1), embedding)
    yield _linear(embedding, embedding)
    yield _conv(image_channels, channels, 3, full)
    for block in _unet_blocks(widths, num_blocks, attends, resolution):
        yield from block.layers(embedding, 1, PYRAMID_TAPS if is_ncsnpp else 2)
    yield _norm(widths[1])
    yield _conv(widths[1], image_channels, 3, full)
    if is_ncsnpp:
        yield from _pyramid(widths, image_channels, resolution)


def _unet_blocks(
    widths: Sequence[int], num_blocks: int, attends: Sequence[int], resolution: int
) -> Iterator[Block]:
    levels = len(widths) - 1
    pixels = [(resolution >> level) ** 2 for level in range(levels)]
    for level, (above, width) in enumerate(pairwise(widths)):
        if level:
            yield Block(above, above, pixels[level], resampled=pixels[level])
        for inputs in [above] + [width] * (num_blocks - 1):
            yield Block(inputs, width, pixels[level], level + 1 in attends)
    below = widths[-1]
    yield Block(below, below, pixels[-1], attends=True)
    yield Block(below, below, pixels[-1])
    for level in reversed(range(levels)):
        above, width = widths[level : level + 2]
        if level < levels - 1:  # torch counts a transposed convolution by its input
            yield Block(below, below, pixels[level], resampled=pixels[level + 1])
        for inputs in [below + width] + [2 * width] * (num_blocks - 1):
            yield Block(inputs, width, pixels[level])
        yield Block(width + above, width, pixels[level], level + 1 in attends)
        below = width


def _pyramid(widths: Sequence[int], image_channels: int, resolution: int) -> Iterator[Layer]:
    """Convolutions on a padded image, and the filter that halves it."""
    below = image_channels
    for level in range(2, len(widths)):
        size, width = resolution >> (level - 2), widths[level - 1]
        yield _conv(below, width, 3, (size + 2) ** 2)
        yield Layer(_filter(width, (size // 2) ** 2), 0)
        below = width


def _iddpm(
    widths: Sequence[int],
    num_blocks: int,
    attends: Sequence[int],
    resolution: int,
    image_channels: int,
) -> Iterator[Layer]:
    """The U-Net of improved DDPM, which also predicts a variance."""
    channels, embedding, full = widths[0], 4 * widths[0], resolution**2
    yield _linear(channels, embedding)
    yield _linear(embedding, embedding)
    yield _conv(image_channels, channels, 3, full)
    for block in _iddpm_blocks(widths, num_blocks, attends, resolution):
        yield from block.layers(embedding, 2)
    for level, width in enumerate(widths[1:-1]):
        yield _conv(width, width, 3, (resolution >> (level + 1)) ** 2)
    for level, width in enumerate(widths[2:]):
        yield _conv(width, width, 3, (resolution >> level) ** 2)
    yield _norm(widths[1])
    yield _conv(widths[1], 2 * image_channels, 3, full)


def _iddpm_blocks(
    widths: Sequence[int], num_blocks: int, attends: Sequence[int], resolution: int
) -> Iterator[Block]:
    levels, skips = len(widths) - 1, [widths[0]]
    pixels = [(resolution >> level) ** 2 for level in range(levels)]
    for level, (above, width) in enumerate(pairwise(widths)):
        for inputs in [above] + [width] * (num_blocks - 1):
            yield Block(inputs, width, pixels[level], level + 1 in attends)
        skips += [width] * (num_blocks + (level < levels - 1))
    last = widths[-1]
    yield Block(last, last, pixels[-1], attends=True)
    yield Block(last, last, pixels[-1])
    for level in reversed(range(levels)):
        width = widths[level + 1]
        for _ in range(num_blocks + 1):
            yield Block(last + skips.pop(), width, pixels[level], level + 1 in attends)
            last = width


def _dit(settings: Mapping[str, Any], image_channels: int, resolution: int) -> Iterator[Layer]:
    """The diffusion transformer; windows of attention are masks, which save nothing."""
    width, patch = settings["model.channels"], settings["model.patch"]
    tokens = (resolution // patch) ** 2
    yield from (_linear(width, width), _linear(width, width))
    yield _conv(image_channels, width, patch, tokens)
    for _ in range(settings["model.depth"]):
        yield _linear(width, 6 * width)
        for inputs, outputs in ((1, 3), (1, 1), (1, 4), (4, 1)):
            yield _conv(inputs * width, outputs * width, 1, tokens)
        yield Layer(4.0 * tokens**2 * width, 0)
    yield _linear(width, 2 * width)
    yield _conv(width, patch**2 * image_channels, 1, tokens)


def _conv(inputs: int, outputs: int, size: int, pixels: int) -> Layer:
    weights = inputs * outputs * size**2
    return Layer(2.0 * weights * pixels, weights + outputs)


def _linear(inputs: int, outputs: int) -> Layer:
    return Layer(2.0 * inputs * outputs, (inputs + 1) * outputs)


def _norm(channels: int) -> Layer:
    return Layer(0, 2 * channels)


def _filter(channels: int, pixels: int) -> float:
    return 2.0 * channels * PYRAMID_TAPS**2 * pixels
