"""Grids of one kind of samples or split by verdict, and examples of training images."""

import numpy as np
import pandas as pd
import pytest
from made_up import assert_legible, galleries, made_up

from emm.data.stage import Subset
from emm.documents import Figure
from emm.errors import UserError
from emm.figures import style
from emm.figures.draw import draw
from emm.figures.examples import examples
from emm.figures.grids import grid

SIZES = (32, 64)
ROWS = made_up({"none": 45}, SIZES).assign(n_mondrian=400, n_memorized_mondrian=100)


def shown(count=24, first=24, rows=ROWS):
    """Galleries whose every other sample is a Mondrian image; every third is memorized."""
    found = galleries(rows, count, channels=3)
    kind = {"mondrian": np.arange(count) % 2 == 1, "count": np.int64(first)}
    return {name: arrays | kind for name, arrays in found.items()}


def drawn(pictures=None, rows=ROWS, **options):
    with style.paper():
        picture, table = grid(Figure(plot="grid", **options), rows, pictures or shown())
        assert_legible(picture)
    return picture, table


def headings(picture) -> list[str]:
    words = [text.get_text() for text in picture.axes[0].texts]
    return [text for text in words if text not in ("generated", "nearest") and "d_1" not in text]


def test_only_mondrian_samples():
    picture, table = drawn(only="mondrian", count=6)
    assert table["sample"].tolist() == [1, 3, 5, 7, 9, 11] * 2
    assert headings(picture) == [
        "$|\\mathcal{D}|$ = 32: 100 of 400 Mondrian samples memorized",
        "$|\\mathcal{D}|$ = 64: 100 of 400 Mondrian samples memorized",
    ]


def test_no_more_than_the_gallery_took_from_the_first_samples():
    """Behind its first samples a gallery holds more of the rarer kinds."""
    _, table = drawn(shown(24, first=10), count=5, lines=4)
    assert len(table) == 20
    _, table = drawn(shown(24, first=10), only="mondrian", count=5, lines=4)
    assert len(table) == 20
    assert table["sample"].max() == 19


def test_old_galleries_are_the_first_samples():
    _, table = drawn(galleries(ROWS, 12), count=5)
    assert table["sample"].tolist() == [*range(5)] * 2


def test_split_by_verdict():
    one = ROWS[ROWS["data.size"] == 32]
    picture, table = drawn(rows=one, split="verdict", count=4, lines=2)
    assert table["memorized"].tolist() == [True] * 8 + [False] * 8
    share = 100 * one.iloc[-1]["n_memorized"] / 1000
    assert headings(picture) == [f"{share:.1f} % memorized", f"{100 - share:.1f} % not memorized"]
    assert len(picture.axes[0].patches) == 8 + 1


def test_a_verdict_that_no_sample_has_is_left_out():
    none = {name: g | {"memorized": np.zeros(24, bool)} for name, g in shown().items()}
    picture, table = drawn(none, split="verdict", count=4)
    assert not table["memorized"].any()
    assert len(headings(picture)) == 2


@pytest.mark.parametrize("split", [None, "verdict"])
def test_a_model_without_mondrian_samples_has_an_empty_block(tmp_path, split):
    """Of a short training: the figure says so instead of stopping the workflow."""
    found = shown()
    found[ROWS["evaluation"].iloc[0]]["mondrian"] = np.zeros(24, bool)
    rows = ROWS.assign(n_mondrian=np.where(ROWS["data.size"] == 32, 0, 400))
    picture, table = drawn(found, rows, only="mondrian", split=split, count=4)
    assert headings(picture)[0] == "$|\\mathcal{D}|$ = 32: none of 1,000 samples is Mondrian"
    assert set(table["data.size"]) == {64}
    for arrays in found.values():
        arrays["mondrian"] = np.zeros(24, bool)
    figure = Figure(plot="grid", only="mondrian", split=split)
    paths = draw(figure, rows.assign(n_mondrian=0), None, found, tmp_path / "none")
    assert paths[-1].read_text().count("\n") == 1


def test_a_kind_that_was_not_asked_for_is_refused():
    with pytest.raises(UserError, match="only: which samples are mondrian is known where"):
        drawn(galleries(ROWS), only="mondrian")


def test_split_and_only_count_mondrian_samples():
    picture, table = drawn(only="mondrian", split="verdict", count=4)
    assert table["sample"].tolist() == [3, 9, 15, 21, 1, 5, 7, 11] * 2
    assert [words.split(": ")[1] for words in headings(picture)] == [
        "100 of 400 Mondrian samples memorized",
        "300 of 400 Mondrian samples not memorized",
    ] * 2


def test_blocks_of_different_heights_leave_no_gaps():
    few = {name: g | {"memorized": np.arange(24) < 2} for name, g in shown().items()}
    one = ROWS[ROWS["data.size"] == 32]
    short, _ = drawn(few, rows=one, split="verdict", count=4, lines=3)
    tall, _ = drawn(shown(36, 36), rows=one, split="verdict", count=4, lines=3)
    assert short.get_figheight() < tall.get_figheight() - 1


def mixtures():
    """Runs of two data sets with and without dummies, and their training sets."""
    rng, rows, subsets = np.random.default_rng(0), [], {}
    for dataset, dummy, count in (
        ("mondrian", None, 0),
        ("mondrian", "gaussian_mixture", 9),
        ("random_ink", "gaussian_mixture", 4),
    ):
        about = {"data.dataset": dataset, "data.dummy": dummy, "data.dummy_size": count}
        made = made_up({"none": 45}, (32,), **about)
        images = rng.integers(0, 256, (32 + count, 8, 8, 3), np.uint8)
        told = np.full(len(images), -1)
        of = Subset(images, told, told, np.arange(len(images)), 0, count)
        rows, subsets = [*rows, made], subsets | {made["evaluation"].iloc[0]: of}
    return pd.concat(rows), subsets


def test_examples_show_each_data_set_once(tmp_path):
    rows, subsets = mixtures()
    figure = Figure(plot="examples", count=4, lines=2)
    with style.paper():
        picture, table = examples(figure, rows, subsets)
        assert_legible(picture)
    words = [text.get_text() for text in picture.axes[0].texts if text.get_text()]
    assert words == ["Mondrian", "Gaussian mixture", "Random ink"]
    names = list(subsets)
    used = table.groupby("data.dataset", sort=False)["evaluation"].first().to_dict()
    assert used == {"mondrian": names[0], "gaussian_mixture": names[1], "random_ink": names[2]}
    assert table["data.dataset"].value_counts().eq(8).all()
    strip = np.asarray(picture.axes[0].images[2].get_array())
    scale = strip.shape[0] // 8
    tile = strip[scale // 2 :: scale, scale // 2 : 8 * scale : scale]
    np.testing.assert_array_equal(tile, subsets[names[1]].images[32])  # the first dummy
    paths = draw(figure, rows, None, subsets, tmp_path / "fig2")
    assert all(path.stat().st_size for path in paths)


def test_examples_by_another_setting():
    rows, subsets = mixtures()
    figure = Figure(plot="examples", hue="data.dummy_size", count=3)
    with style.paper():
        picture, table = examples(figure, rows, subsets)
        assert_legible(picture)
    assert len(table) == 5 * 3
    words = [text.get_text() for text in picture.axes[0].texts if text.get_text()]
    assert words[:2] == ["Mondrian, dummies 0", "Mondrian, dummies 9"]
