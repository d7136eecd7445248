"""When what ran, as lanes and as a picture."""

import io

import numpy as np
import pytest
from PIL import Image

from emm.usage.account import make_account
from emm.usage.timeline import busy_spans, draw, pack

DAY = 1.7e9


def attempts(results):
    return make_account(results.catalog).attempts


def hours(spans) -> list[tuple[float, float]]:
    return [((start - DAY) / 3600, (end - DAY) / 3600) for start, end in spans]


def test_lanes_by_host_and_gpu(results, keys):
    """Two GPUs of a node, one of which two jobs shared for a while, and a host without."""
    names = [run for run, _ in keys]
    results.log("train", names[0], 0, 2, gpu_id="GPU-b")
    results.log("train", names[1], 1, 2, gpu_id="GPU-b")
    results.log("train", names[2], 2, 1, gpu_id="GPU-b")
    results.log("train", names[3], 0, 1, gpu_id="GPU-a")
    results.log("train", names[4], 0, 1, host="laptop", gpu=None, gpu_id=None)
    lanes = {group.label: group.lanes for group in pack(attempts(results))}
    assert list(lanes) == ["laptop", "node1, GPU 1", "node1, GPU 2"]
    assert [[a.run for a in lane] for lane in lanes["node1, GPU 2"]] == [
        [names[0], names[2]],
        [names[1]],
    ]
    assert [len(lane) for lane in lanes["node1, GPU 1"]] == [1]


def test_long_times_without_jobs_are_cut_out(results, keys):
    for (run, _), start in zip(keys, (0, 1.5, 4.2, 30), strict=False):
        results.log("train", run, start, 2)
    assert hours(busy_spans(attempts(results))) == pytest.approx(
        np.array([(0, 3.5), (4.2, 6.2), (30, 32)])
    )
    results.log("train", keys[4][0], 3.4, 0.7)  # leaves six minutes of the first gap
    assert hours(busy_spans(attempts(results))) == pytest.approx(np.array([(0, 6.2), (30, 32)]))


def colours(picture: bytes) -> tuple[tuple[int, int], set[tuple[int, ...]]]:
    """Size of a picture, and the colours that fill some of it below the legend."""
    with Image.open(io.BytesIO(picture)) as image:
        bars = image.convert("RGB").crop((0, LEGEND, *image.size))
        return image.size, {colour for count, colour in bars.getcolors(1 << 24) if count > 200}


LEGEND = 50  # pixels
BLUE, ORANGE, GREEN = (1, 115, 178), (222, 143, 5), (2, 158, 115)


def test_the_picture_has_a_bar_in_the_colour_of_its_rule(results, keys):
    run, evaluation = keys[0]
    results.log("train", run, 0, 2)
    size, found = colours(draw(attempts(results)))
    assert BLUE in found
    assert ORANGE not in found
    results.log("sample", f"{run}/{evaluation}", 2, 1)
    results.log("score", f"{run}/{evaluation}", 3, 1, host="node2")
    larger, found = colours(draw(attempts(results)))
    assert {BLUE, ORANGE, GREEN} <= found
    assert larger[0] == size[0]
    assert larger[1] > size[1]  # a lane more


def test_many_hosts_fit_into_a_picture(results, keys):
    for number in range(600):
        results.log("train", keys[0][0], number / 100, 5, host=f"node{number:03d}")
    (_, height), found = colours(draw(attempts(results)))
    assert height < 2500
    assert BLUE in found


def test_a_picture_of_nothing(results, keys):
    assert colours(draw([]))[1] == {(255, 255, 255)}
    results.benchmark("train", keys[0][0], 2, 60)
    results.benchmark("sample", "/".join(keys[0]), 2, 60)  # at the same time: a copy
    found = attempts(results)
    assert len(found) == 2
    assert draw(found) == draw([])
