"""What a network can be, in plain Python: asked when a run is planned and when it is built."""

from collections.abc import Sequence

from emm.errors import UserError


def check_network(
    *,
    resolution: int | None,
    channels: int,
    levels: int,
    num_blocks: int,
    attention_levels: Sequence[int],
    skip_mask: str,
) -> None:
    """UserError for settings of a U-Net that do not fit together; resolution None is unknown."""
    if channels < 4 or channels % 2:
        raise UserError(f"model.channels: {channels} is not an even number of at least 4")
    if num_blocks < 1:
        raise UserError(f"model.num_blocks: {num_blocks} blocks per level; use at least 1")
    if levels < 1:
        raise UserError("model.channel_mult: the list is empty; give one number per level")
    if resolution is not None:
        _check_resolution(resolution, levels)
    for level in attention_levels:
        if not 1 <= level <= levels:
            raise UserError(
                f"model.attention_levels: level {level} does not exist; model.channel_mult has "
                f"levels 1 (full resolution) to {levels}"
            )
    length = levels * (num_blocks + 1)
    if skip_mask != "all" and (len(skip_mask) != length or set(skip_mask) - set("01")):
        raise UserError(
            f"model.skip_mask: {skip_mask!r} is not {length} characters 0 or 1, one per skip of "
            f"{levels} levels with {num_blocks} blocks"
        )


def _check_resolution(resolution: int, levels: int) -> None:
    factor = 2 ** (levels - 1)
    if resolution < factor or resolution % factor:
        raise UserError(
            f"data.resolution: {resolution} px cannot be halved {levels - 1} times; use a multiple "
            f"of {factor} px, or fewer levels in model.channel_mult"
        )
