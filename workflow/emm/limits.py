"""What a network can be, in plain Python: asked when a run is planned and when it is built."""

import itertools
import math
from collections.abc import Sequence

from emm.errors import UserError

UNETS = ("ddpmpp", "ncsnpp", "iddpm")
NETWORKS = (*UNETS, "dit")  # values of model.arch that are networks of ours
MAX_GROUPS, MIN_GROUP_CHANNELS = 32, 4


def check_network(
    *,
    resolution: int | None,
    channels: int,
    channel_mult: Sequence[int],
    num_blocks: int,
    attention_levels: Sequence[int],
    skip_mask: str,
) -> None:
    """UserError for settings of a U-Net that do not fit together; resolution None is unknown."""
    levels = len(channel_mult)
    if channels < 4 or channels % 2:
        raise UserError(f"model.channels: {channels} is not an even number of at least 4")
    if num_blocks < 1:
        raise UserError(f"model.num_blocks: {num_blocks} blocks per level; use at least 1")
    if levels < 1:
        raise UserError("model.channel_mult: the list is empty; give one number per level")
    _check_widths(channels, channel_mult)
    if resolution is not None:
        _check_resolution(resolution, levels)
    _check_attention(attention_levels, levels)
    length = levels * (num_blocks + 1)
    if skip_mask != "all" and (len(skip_mask) != length or set(skip_mask) - set("01")):
        raise UserError(
            f"model.skip_mask: {skip_mask!r} is not {length} characters 0 or 1, one per skip of "
            f"{levels} levels with {num_blocks} blocks"
        )


def check_iddpm(
    *,
    resolution: int | None,
    channels: int,
    channel_mult: Sequence[int],
    num_blocks: int,
    attention_levels: Sequence[int],
    heads: int,
    groups: int = MAX_GROUPS,
) -> None:
    """UserError for settings of the IDDPM U-Net that do not fit together."""
    if num_blocks < 1:
        raise UserError(f"model.num_blocks: {num_blocks} blocks per level; use at least 1")
    if not channel_mult:
        raise UserError("model.channel_mult: the list is empty; give one number per level")
    if resolution is not None:
        _check_resolution(resolution, len(channel_mult))
    _check_attention(attention_levels, len(channel_mult))
    for mult in channel_mult:
        if channels * mult % heads or channels % 2:
            raise UserError(
                f"model.channels {channels} times {mult} does not divide into {heads} heads, or "
                f"is odd; make model.channels a multiple of {max(heads, 2)}"
            )
    for width in (channels, *(channels * mult for mult in channel_mult)):
        if width % groups:
            raise UserError(
                f"model.groups {groups}: does not divide {width} channels; use a divisor, such as "
                f"{math.gcd(groups, width)}, or make model.channels a multiple of {groups}"
            )


def check_dit(
    *, resolution: int | None, channels: int, heads: int, patch: int, window: int | None
) -> None:
    """UserError for settings of the diffusion transformer that do not fit together."""
    if channels % heads or channels % 4:
        raise UserError(
            f"model.channels {channels}: make it a multiple of model.heads {heads} and of 4"
        )
    if resolution is not None and resolution % patch:
        raise UserError(f"model.patch {patch}: does not divide data.resolution {resolution}")
    if window is not None and window % 2 == 0:
        raise UserError(
            f"model.window {window}: use an odd number of tokens, with one in its middle"
        )


def norm_groups(channels: int) -> int:
    """Groups of a group norm (Song et al. 2021): at most 32, of at least 4 channels each.

    UserError where they do not divide the channels.
    """
    groups = min(MAX_GROUPS, channels // MIN_GROUP_CHANNELS)
    if groups == 0 or channels % groups:
        raise UserError(
            f"model.channels, model.channel_mult: group norm cannot split {channels} channels "
            f"into {groups} equal groups; make model.channels a multiple of {MAX_GROUPS}, or of "
            f"{MIN_GROUP_CHANNELS} if no layer is wider than {MAX_GROUPS * MIN_GROUP_CHANNELS}"
        )
    return groups


def _check_widths(channels: int, channel_mult: Sequence[int]) -> None:
    """Layers that are normalized: those of the levels, and those joined with a skip."""
    joined = [a + b for a, b in itertools.pairwise([1, *channel_mult])]
    for multiple in (*channel_mult, *joined, *(2 * multiple for multiple in channel_mult)):
        norm_groups(channels * multiple)


def _check_attention(attention_levels: Sequence[int], levels: int) -> None:
    for level in attention_levels:
        if not 1 <= level <= levels:
            raise UserError(
                f"model.attention_levels: level {level} does not exist; model.channel_mult has "
                f"levels 1 (full resolution) to {levels}"
            )


def _check_resolution(resolution: int, levels: int) -> None:
    factor = 2 ** (levels - 1)
    if resolution < factor or resolution % factor:
        raise UserError(
            f"data.resolution: {resolution} px cannot be halved {levels - 1} times; use a multiple "
            f"of {factor} px, or fewer levels in model.channel_mult"
        )
