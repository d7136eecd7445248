"""ArtBench-10: which paintings, from which folders, and what is refused."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from emm.data import artbench
from emm.data.artbench import STYLES
from emm.data.check import check_source
from emm.data.sources import Place, load_source
from emm.data.stage import build_subset, read_subset, write_subset
from emm.errors import UserError

FEW = 3


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(artbench, "PER_STYLE", FEW)
    info = artbench.SOURCES["artbench10"]
    smaller = type(info)(**vars(info) | {"size": 10 * FEW, "class_counts": (FEW,) * 10})
    monkeypatch.setitem(artbench.SOURCES, "artbench10", smaller)


def paint(path: Path, colour: int, side: int = 16, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((side, side, 3), colour, np.uint8)).save(path, **options)


def gallery(folder: Path, count: int = FEW + 1) -> Path:
    """Paintings as they are distributed, written in another order; the colour tells which."""
    for rank, style in enumerate(STYLES):
        for number in reversed(range(count)):
            paint(folder / style / f"artist-{number}_work.png", 20 * rank + number)
    return folder


def colours(source) -> list[int]:
    return source.images[:, 0, 0, 0].tolist()


FIRST = [20 * rank + number for rank in range(10) for number in range(FEW)]


def test_the_first_of_each_style_in_order_of_their_names(tmp_path):
    gallery(tmp_path)
    source = load_source("artbench10", path=tmp_path, resolution=16, threads=2)
    assert source.images.shape == (10 * FEW, 16, 16, 3)
    assert colours(source) == FIRST
    assert source.labels.tolist() == [rank for rank in range(10) for _ in range(FEW)]
    assert source.class_names == STYLES
    assert source.names[FEW] == "baroque/artist-0_work.png"


def test_as_published_there_are_a_hundred_of_ten_styles(monkeypatch):
    monkeypatch.undo()
    info = artbench.SOURCES["artbench10"]
    assert (info.size, info.classes, info.smallest_class) == (1000, 10, 100)
    assert STYLES[0] == "art_nouveau"
    assert STYLES[-1] == "ukiyo_e"


@pytest.mark.parametrize(
    "part", ["artbench-10-imagefolder-split/train", "train", "artbench-10-imagefolder", "."]
)
def test_folders_of_the_archives(tmp_path, part):
    gallery(tmp_path / "artbench10" / part)
    assert colours(load_source("artbench10", cache=tmp_path, resolution=16)) == FIRST


def test_training_images_come_before_the_unsplit_folder(tmp_path):
    gallery(tmp_path / "train")
    for style in STYLES:
        for number in range(FEW):
            paint(tmp_path / "artbench-10-imagefolder" / style / f"{number}.png", 255)
            paint(tmp_path / "test" / style / f"{number}.png", 255)
    assert colours(load_source("artbench10", path=tmp_path, resolution=16)) == FIRST


def test_the_metadata_tell_test_images_apart(tmp_path):
    gallery(tmp_path / "artbench-10-imagefolder", count=FEW + 2)
    with (tmp_path / "ArtBench-10.csv").open("w", newline="") as stream:
        table = csv.DictWriter(stream, ["name", "artist", "label", "split"])
        table.writeheader()
        for style in STYLES:
            for number in range(FEW + 2):
                split = "test" if number == 1 and style != "baroque" else "train"
                row = {"name": f"artist-{number}_work.png", "label": style, "split": split}
                table.writerow(row)
    found = colours(load_source("artbench10", path=tmp_path, resolution=16))
    assert found[:FEW] == [0, 2, 3]
    assert found[FEW : 2 * FEW] == [20, 21, 22]


@pytest.mark.parametrize("content", [b"name,artist\na,b\n", b"", b"\xff\xfe\x00"])
def test_other_metadata_are_refused(tmp_path, content):
    gallery(tmp_path)
    (tmp_path / "ArtBench-10.csv").write_bytes(content)
    with pytest.raises(UserError, match=r"ArtBench-10\.csv: (needs the columns|cannot be read)"):
        load_source("artbench10", path=tmp_path, resolution=16)


def test_subsets_are_balanced_nested_and_know_their_styles(tmp_path):
    source = load_source("artbench10", path=gallery(tmp_path), resolution=16)
    small, large = (build_subset(source, size=size, resolution=16) for size in (10, 20))
    assert np.bincount(large.classes).tolist() == [2] * 10
    assert set(small.index) < set(large.index)
    write_subset(tmp_path / "subset.npz", large)
    assert read_subset(tmp_path / "subset.npz").class_names == STYLES


def test_smaller_resolutions_and_several_formats(tmp_path):
    gallery(tmp_path)
    paint(tmp_path / "realism" / "a.jpg", 128, side=32)
    source = load_source("artbench10", path=tmp_path, resolution=8)
    assert source.images.shape[1:] == (8, 8, 3)
    assert "realism/a.jpg" in source.names


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "baroque").rename(folder / "barock"), "missing: baroque"),
        (
            lambda folder: [f.unlink() for f in (folder / "ukiyo_e").glob("artist-[12]*")],
            r"too few images: ukiyo_e \(2 of 3 images\)",
        ),
    ],
)
def test_incomplete_folders(tmp_path, spoil, message):
    spoil(gallery(tmp_path))
    with pytest.raises(UserError, match=message) as caught:
        load_source("artbench10", path=tmp_path, resolution=16)
    assert "\n" not in str(caught.value)


def test_no_folder(tmp_path):
    with pytest.raises(UserError) as caught:
        load_source("artbench10", cache=tmp_path, resolution=16)
    assert str(caught.value).startswith(f"{tmp_path / 'artbench10'}: no such folder; a folder for")


def test_unsuitable_images_are_named(tmp_path):
    gallery(tmp_path)
    Image.fromarray(np.zeros((16, 20, 3), np.uint8)).save(tmp_path / "realism" / "a.png")
    with pytest.raises(UserError, match=r"realism/a\.png: is 20x16 .*, not square"):
        load_source("artbench10", path=tmp_path, resolution=16)
    with pytest.raises(UserError, match=r"data\.resolution: needed for artbench10"):
        load_source("artbench10", path=tmp_path)


def test_check(tmp_path):
    folder = gallery(tmp_path / "train")
    lines = check_source("artbench10", Place(path=tmp_path, resolution=16))
    assert lines == [
        f"artbench10: {folder}: the first 100 images of each of 10 styles, 16x16 pixels"
    ]
    path = folder / "realism" / "artist-0_work.png"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match="cut short; download it again"):
        check_source("artbench10", Place(path=tmp_path, resolution=16))


def test_digits_as_paintings():
    digits, paintings = load_source("digits"), load_source("digits_rgb")
    assert paintings.images.shape == (1797, 64, 64, 3)
    np.testing.assert_array_equal(paintings.images[:, 3::8, 5::8, 1], digits.images[..., 0])
    assert len(np.unique(paintings.images[0, :8, 8:16])) == 1
    np.testing.assert_array_equal(paintings.labels, digits.labels)
    assert paintings.class_names[7] == "seven"
