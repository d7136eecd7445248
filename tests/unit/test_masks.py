"""What a skip mask does."""

import pytest

from emm.masks import derived, full_mask
from emm.spec import DEFAULTS


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        ("all", (9, 0, None, None)),
        ("111111111", (9, 0, None, None)),
        ("000100000", (1, 8, 16, 4)),
        ("000000111", (3, 6, 8, None)),
        ("110111111", (8, 1, 32, None)),
        ("100000001", (2, 7, None, None)),
        ("000000000", (0, 9, None, None)),
    ],
)
def test_masks(mask, expected):
    assert tuple(derived(DEFAULTS | {"model.skip_mask": mask}).values()) == expected


def test_masks_of_other_networks():
    own = {"model.channel_mult": (1, 2, 2, 2), "model.num_blocks": 1, "data.resolution": 64}
    assert derived(DEFAULTS | own | {"model.skip_mask": "00000010"})["model.skip_resolution"] == 8
    own |= {"data.resolution": None, "model.skip_mask": "00000011"}
    assert derived(DEFAULTS | own)["model.skip_resolution"] is None


def test_full_masks():
    assert full_mask(DEFAULTS) == "1" * 9
    assert full_mask(DEFAULTS | {"model.num_blocks": 4, "model.channel_mult": (1, 2)}) == "1" * 10
