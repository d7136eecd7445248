"""What a skip mask does, in numbers: how many skips it keeps, at which resolution, and which."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

DERIVED = (  # settings that follow from a mask; filters, axes and groups may name them
    "model.skip_count",
    "model.skip_deleted",
    "model.skip_resolution",
    "model.skip_index",
)


def derived(settings: Mapping[str, Any]) -> dict[str, int | None]:
    """The settings of DERIVED for a run's dotted settings (Gu et al. 2023, Section 4.3).

    skip_count, skip_deleted: skips that are kept and zeroed. skip_resolution, pixels: the one
    resolution where all kept skips stand, or else all zeroed ones; None if there is none, and
    for the full mask. skip_index: from 1 in encoder order, when exactly one skip is kept.
    """
    model = (settings[f"model.{key}"] for key in ("skip_mask", "channel_mult", "num_blocks"))
    mask, channel_mult, num_blocks = model
    return dict(_derived(mask, len(channel_mult), num_blocks + 1, settings["data.resolution"]))


def full_mask(settings: Mapping[str, Any]) -> str:
    """All bits of a run's network: num_blocks + 1 skips per level."""
    return "1" * (len(settings["model.channel_mult"]) * (settings["model.num_blocks"] + 1))


@lru_cache(maxsize=4096)
def _derived(
    mask: str, levels: int, per_level: int, resolution: int | None
) -> dict[str, int | None]:
    mask = "1" * (levels * per_level) if mask == "all" else mask
    kept = [position for position, bit in enumerate(mask) if bit == "1"]
    zeroed = [position for position, bit in enumerate(mask) if bit == "0"]
    level = _common_level(kept, per_level) if zeroed else None
    level = _common_level(zeroed, per_level) if level is None else level
    at = None if level is None or resolution is None else resolution // 2**level
    index = kept[0] + 1 if len(kept) == 1 else None
    return dict(zip(DERIVED, (len(kept), len(zeroed), at, index), strict=True))


def _common_level(positions: list[int], per_level: int) -> int | None:
    """The one level, from 0, of all positions; None for several or none."""
    levels = {position // per_level for position in positions}
    return levels.pop() if len(levels) == 1 else None
