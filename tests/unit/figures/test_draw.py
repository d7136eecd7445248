"""Figures: every format, the values drawn, the same bytes again, and legible text."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_up import CAPACITY, SIZES, assert_legible, galleries, made_up
from PIL import Image

from emm.analyse.tables import emm_table
from emm.documents import Figure
from emm.errors import UserError
from emm.figures import style
from emm.figures.curves import curve
from emm.figures.draw import draw
from emm.figures.grids import grid
from emm.figures.points import points
from emm.figures.tables import latex, markdown, table


def blocks(values, **options):
    return pd.concat([made_up(**options, **{"model.num_blocks": value}) for value in values])


KINDS = made_up()
SEEDS = blocks((2, 4, 6, 8, 10, 12), capacity={"none": 45}, seeds=(0, 1, 2))
MANY = made_up(epochs=tuple(np.linspace(50, 2000, 30)))
ODD = made_up({"none": 1500, "true": 3000}, (200, 500, 1000, 2000, 4000, 5000, 8000, 10000))
LOW = made_up({"none": 9, "true": 12, "unique": 9000}, (32, 64, 128))
CURVES = {
    "labels": (KINDS, {"hue": "labels.kind", "emm": True}),
    "last": (KINDS, {"hue": "labels.kind", "emm": True, "epoch": "last"}),
    "distance": (KINDS, {"hue": "labels.kind", "y": "knn_distance"}),
    "epochs": (MANY, {"hue": "labels.kind", "x": "epoch", "epoch": "all"}),
    "seeds": (SEEDS, {"hue": "model.num_blocks", "emm": True}),
    "blocks": (SEEDS, {"x": "model.num_blocks", "hue": "data.size"}),
    "style": (
        blocks((2, 4)),
        {"hue": "labels.kind", "style": "model.num_blocks", "emm": True},
    ),
    "odd sizes": (ODD, {"hue": "labels.kind", "emm": True}),
    "log sizes": (ODD, {"hue": "labels.kind", "emm": True, "log_x": True}),
    "censored": (LOW, {"hue": "labels.kind", "emm": True}),
    "single": (KINDS, {"where": {"labels.kind": "none"}, "emm": True}),
    "words": (KINDS, {"x": "labels.kind", "hue": "data.size"}),
}
WHERE = {"epochs": {"data.size": 64}, "single": {"labels.kind": "none"}}


def curve_figure(name):
    memorization, options = CURVES[name]
    return Figure(plot="curve", **{"where": WHERE.get(name, {}), **options}), memorization


@pytest.mark.parametrize("name", CURVES)
def test_curves_are_legible(name):
    figure, memorization = curve_figure(name)
    with style.paper():
        picture, _ = curve(figure, memorization, emm_table(memorization))
        assert picture.get_figwidth() == style.SINGLE
        assert_legible(picture)
        axes = picture.axes[0]
        assert axes.get_xlabel()
        assert axes.get_ylabel()
        labels = axes.get_xticklabels()
        assert sum(bool(label.get_text()) and label.get_visible() for label in labels) >= 3


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("count", [5, 16])
def test_grids_are_legible(count, channels):
    figure = Figure(plot="grid", hue="labels.kind", where={"data.size": 64}, count=count)
    with style.paper():
        picture, drawn = grid(figure, KINDS, galleries(KINDS, channels=channels))
        assert_legible(picture)
    assert len(drawn) == 4 * count
    framed = len(picture.axes[0].patches) - 1  # and one in the key
    assert framed == drawn["memorized"].sum() > 0
    np.testing.assert_array_equal(drawn["memorized"], 3 * drawn["d1"] < drawn["d2"])


def test_grid_shows_the_pixels():
    shown = galleries(KINDS)
    figure = Figure(plot="grid", where={"data.size": 64, "labels.kind": "none"}, count=3)
    with style.paper():
        picture, drawn = grid(figure, KINDS, shown)
    gallery = shown[drawn["evaluation"][0]]
    strips = [np.asarray(image.get_array()) for image in picture.axes[0].images]
    for strip, images in zip(strips, (gallery["samples"], gallery["nearest"]), strict=True):
        scale = strip.shape[0] // 8
        tile = strip[scale // 2 :: scale, scale // 2 : 8 * scale : scale]
        np.testing.assert_array_equal(tile, images[0].repeat(3, axis=-1))


@pytest.mark.parametrize("rows", ["labels.kind", "data.size"])
def test_tables_are_legible(rows):
    columns = "data.size" if rows == "labels.kind" else "labels.kind"
    with style.paper():
        picture, _, _ = table(Figure(plot="table", rows=rows, columns=columns), KINDS)
        assert_legible(picture)


def test_every_format_is_written_and_again_the_same(tmp_path):
    figure, memorization = curve_figure("labels")
    emm = emm_table(memorization)
    first = draw(figure, memorization, emm, None, tmp_path / "one" / "fig5.a")
    second = draw(figure, memorization, emm, None, tmp_path / "two" / "fig5.a")
    assert [path.name for path in first] == [f"fig5.a.{s}" for s in ("svg", "pdf", "png", "csv")]
    assert sorted(first) == sorted((tmp_path / "one").iterdir())
    for one, two in zip(first, second, strict=True):
        assert one.read_bytes() == two.read_bytes(), one
    with Image.open(first[2]) as image:
        assert round(image.info["dpi"][0]) == 300
        assert image.width == round(3.3 * 300)


@pytest.mark.parametrize("plot", ["grid", "table"])
def test_other_plots_repeat(tmp_path, plot):
    options = {"rows": "labels.kind", "columns": "data.size"} if plot == "table" else {}
    where = {"data.size": [64, 128]}
    figure = Figure(plot=plot, hue="labels.kind", where=where, **options)
    shown = galleries(KINDS)
    pairs = zip(*(draw(figure, KINDS, None, shown, tmp_path / n) for n in "ab"), strict=True)
    suffixes = []
    for one, two in pairs:
        assert one.read_bytes() == two.read_bytes(), one
        suffixes.append(one.suffix[1:])
    texts = ["md", "tex"] if plot == "table" else []
    assert suffixes == ["svg", "pdf", "png", "csv", *texts]


def test_csv_is_what_was_drawn(tmp_path):
    figure, memorization = curve_figure("labels")
    emm = emm_table(memorization)
    csv = pd.read_csv(draw(figure, memorization, emm, None, tmp_path / "fig")[-1])
    with style.paper():
        picture, _ = curve(figure, memorization, emm)
    lines = [line for line in picture.axes[0].lines if len(line.get_xdata()) == len(SIZES)]
    lines = [line for line in lines if line.get_linestyle() == "-"]
    for (_, rows), line in zip(csv.groupby("labels.kind", sort=False), lines, strict=True):
        np.testing.assert_allclose(line.get_xydata()[:, 0], rows["data.size"])
        np.testing.assert_allclose(line.get_xydata()[:, 1], rows["memorization_ratio_percent"])
    assert list(csv["labels.kind"].unique()) == list(CAPACITY)
    expected = memorization.groupby(["labels.kind", "data.size"])["memorization_ratio"].max()
    drawn = csv.set_index(["labels.kind", "data.size"])["memorization_ratio_percent"]
    np.testing.assert_allclose(drawn.sort_index(), 100 * expected.sort_index())
    marked = csv.drop_duplicates("labels.kind").set_index("labels.kind")
    assert marked.loc["none", "emm_status"] == "bracketed"
    assert marked.loc["unique", ["emm_status", "emm_bound"]].tolist() == ["above", 256]
    assert (csv["interval"] == "95 %").all()


def test_csv_holds_what_all_of_it_shares(tmp_path):
    """A setting that is drawn keeps the values drawn."""
    figure, memorization = curve_figure("labels")
    shared = {"eval.guidance": 1.5, "data.size": 7}
    csv = draw(figure, memorization, None, None, tmp_path / "fig", shared=shared)[-1]
    table, alone = (
        pd.read_csv(path) for path in (csv, draw(figure, memorization, None, None, csv)[-1])
    )
    assert (table["eval.guidance"] == 1.5).all()
    pd.testing.assert_frame_equal(table.drop(columns="eval.guidance"), alone)


def test_emm_marks_stand_at_the_emm():
    figure, memorization = curve_figure("labels")
    emm = emm_table(memorization)
    with style.paper():
        picture, drawn = curve(figure, memorization, emm)
    axes = picture.axes[0]
    vertical = {line.get_xdata()[0] for line in axes.lines if len(set(line.get_xdata())) == 1}
    values = set(drawn["emm"].dropna())
    assert len(values) == 3
    assert values <= vertical
    texts = [text.get_text() for text in picture.legends[0].get_texts()]
    assert texts[-1] == "unique labels: EMM ≥ 256"
    assert len(axes.texts) == 1  # the arrow of the censored series


def test_a_censored_emm_that_may_lie_within_has_a_bar():
    figure, memorization = curve_figure("censored")
    emm = emm_table(memorization)

    def bars(open_ended: bool) -> list[tuple[float, float]]:
        changed = emm.copy()
        wide = changed["status"] != "bracketed"
        for name, end in (("emm_low", -np.inf), ("emm_high", np.inf)):
            sure = np.where(changed["status"] == "above", np.inf, -np.inf)
            changed.loc[wide, name] = end if open_ended else sure[wide]
        with style.paper():
            picture, _ = curve(figure, memorization, changed)
        axes = picture.axes[0]
        heavy = (line for line in axes.lines if line.get_linewidth() == 2)
        ends = [tuple(line.get_xdata()) for line in heavy if len(line.get_xdata()) == 2]
        return [pair for pair in ends if pair == pytest.approx(axes.get_xlim())]

    assert not bars(open_ended=False)
    assert len(bars(open_ended=True)) == 3


def test_seeds_are_averaged_with_their_sd():
    figure, memorization = curve_figure("seeds")
    with style.paper():
        _, drawn = curve(figure, memorization, None)
    assert set(drawn["repetitions"]) == {3}
    assert set(drawn["interval"]) == {"sd"}
    best = memorization.groupby(["model.num_blocks", "data.size", "train.seed"])
    ratios = 100 * best["memorization_ratio"].max().loc[2, 64]
    point = drawn[(drawn["model.num_blocks"] == 2) & (drawn["data.size"] == 64)].iloc[0]
    assert point["memorization_ratio_percent"] == pytest.approx(ratios.mean())
    assert point["high"] - point["low"] == pytest.approx(2 * ratios.std(ddof=1))


def test_where_takes_values_lists_and_yaml_booleans():
    for wanted, kinds in ((True, ["true"]), (["none", "unique"], ["none", "unique"])):
        figure = Figure(plot="curve", hue="labels.kind", where={"labels.kind": wanted})
        with style.paper():
            _, drawn = curve(figure, KINDS)
        assert list(drawn["labels.kind"].unique()) == kinds


def drawn_as_table(memorization, wanted=(), **options):
    figure = Figure(plot="table", columns="data.size", **options)
    with style.paper():
        picture, drawn, blocks = table(figure, memorization, wanted)
        assert_legible(picture)
    return figure, drawn, blocks


def test_table_texts():
    figure, drawn, blocks = drawn_as_table(KINDS, rows="labels.kind", best="columns")
    bold = [[cell.bold for cell in line] for line in blocks[0].body]
    assert [line[0] for line in bold] == [False] * 4
    for size, column in zip(SIZES, list(zip(*bold, strict=True))[1:], strict=True):
        values = drawn[drawn["data.size"] == size]["memorization_ratio_percent"]
        assert list(column) == list(values == values.max())
    lines = markdown(figure, blocks).splitlines()
    assert lines[0].startswith(r"| Labels / Memorization ratio (%) | \|D\| = 16 |")
    assert [line.replace(r"\|", "").count("|") for line in lines] == [7] * 6
    text = latex(figure, blocks)
    assert r"Memorization ratio (\%)" in text
    assert text.count(r"\\") == 6
    assert r"\textbf{" in text


def test_lower_distances_are_bold():
    _, drawn, _ = drawn_as_table(KINDS, y="knn_distance", rows="labels.kind", best="columns")
    column = drawn[drawn["data.size"] == 256].set_index("labels.kind")
    assert column["best"].to_dict() == {
        "none": False,
        "true": False,
        "random": False,
        "unique": True,
    }


def test_the_best_of_a_row():
    _, drawn, _ = drawn_as_table(KINDS, rows="labels.kind", best="rows")
    for _, row in drawn.groupby("labels.kind"):
        values = row["memorization_ratio_percent"]
        assert list(row["best"]) == list(values == values.max())


def test_a_lone_value_is_not_the_best_and_nothing_is_unless_asked():
    _, drawn, _ = drawn_as_table(
        KINDS[KINDS["labels.kind"] == "none"], rows="labels.kind", best="columns"
    )
    assert not drawn["best"].any()
    _, drawn, _ = drawn_as_table(KINDS, rows="labels.kind")
    assert not drawn["best"].any()


DECAY = pd.concat(
    made_up({"none": 45}, sizes=(16, 32), **{"train.weight_decay": decay, "train.ema": ema})
    for decay, ema in ((0.0, 0.9), (1e-5, 0.9), (0.1, 0.9), (0.0, 0.5))
)


def test_a_setting_that_is_left_open_has_a_row_of_its_own():
    rows = pd.concat(
        made_up({"none": 45}, sizes=(16, 32), **{"model.window": side}) for side in (None, 3, 5)
    )
    _, _, (block,) = drawn_as_table(rows, rows="model.window")
    assert [line[0].text for line in block.body] == ["3", "5", "no window"]
    assert all(cell.text.replace(".", "").isdigit() for line in block.body for cell in line[1:])


def test_two_halves_of_a_table():
    halves = [
        frozenset(DECAY[DECAY["train.ema"] == 0.9]["evaluation"]),
        frozenset(DECAY[DECAY["train.weight_decay"] == 0]["evaluation"]),
    ]
    rows = ({"rows": "train.weight_decay"}, {"rows": "train.ema"})
    figure, drawn, blocks = drawn_as_table(DECAY, halves, halves=list(rows), best="columns")
    assert [[line[0].text for line in block.body] for block in blocks] == [
        ["0", r"$1\times10^{-5}$", "0.1"],
        ["0.9", "0.5"],
    ]
    assert len(drawn) == 2 * (3 + 2)
    lines = markdown(figure, blocks).splitlines()
    assert lines[-1].startswith("| 0.1 |")
    assert lines[-1].endswith("|  |  |  |")
    assert latex(figure, blocks).count(r"\cmidrule") == 2


def test_a_setting_that_goes_with_the_columns():
    rows = pd.concat(
        made_up({"none": 45}, sizes=(16,), **{"train.batch_size": size, "train.lr": size * 1e-6})
        for size in (128, 256)
    )
    figure = Figure(
        plot="table", rows="data.size", columns="train.batch_size", also="train.lr", best="rows"
    )
    with style.paper():
        _, _, (block,) = table(figure, rows)
    assert [[cell.text for cell in line] for line in block.head] == [
        ["Batch size", "128", "256"],
        ["Learning rate", r"$1.28\times10^{-4}$", r"$2.56\times10^{-4}$"],
    ]
    mixed = rows.assign(**{"train.lr": range(len(rows))})
    with pytest.raises(UserError, match=r"also: train\.lr has several values"):
        table(figure, mixed)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"where": {"labels.kind": "none", "data.size": 17}}, "no rows to draw"),
        ({"hue": "model.widht"}, "no column 'model.widht'"),
        ({}, "differ in labels.kind"),
        ({"hue": "labels.kind", "epoch": "all"}, "mixes checkpoints"),
        ({"plot": "table", "rows": "labels.kind"}, "a table needs `rows`"),
        ({"plot": "grid", "hue": "labels.kind"}, "no gallery of evaluation"),
    ],
)
def test_nothing_to_draw_is_a_user_error(tmp_path, options, message):
    with pytest.raises(UserError, match=f"figure fig1: .*{message}"):
        draw(Figure(**{"plot": "curve", **options}), KINDS, None, {}, tmp_path / "fig1")
    assert not list(tmp_path.iterdir())


def test_drawing_needs_no_display_and_hashes_nothing(tmp_path):
    """Other processes with other hash seeds write the same bytes."""
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); import test_draw as t; from pathlib import"
        " Path; f, m = t.curve_figure('single'); t.draw(f, m, None, None, Path(sys.argv[2]))"
    )
    for seed in "12":
        command = [sys.executable, "-c", script, str(Path(__file__).parent), str(tmp_path / seed)]
        path = str(Path(style.__file__).parents[2])
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": path}
        environment.pop("DISPLAY", None)
        subprocess.run(command, check=True, env=environment)
    for suffix in ("svg", "pdf", "png", "csv"):
        assert (tmp_path / f"1.{suffix}").read_bytes() == (tmp_path / f"2.{suffix}").read_bytes()


def test_emm_is_marked_on_memorization_ratios_only():
    figure, memorization = curve_figure("distance")
    marked = figure.model_copy(update={"emm": True})
    with style.paper():
        picture, drawn = curve(marked, memorization, emm_table(memorization))
    assert "emm" not in drawn
    assert picture.legends[0].get_texts()[0].get_text() == "unconditional"


def test_many_blocks_stand_in_two_columns():
    figure = Figure(plot="grid", hue="labels.kind", count=4)
    with style.paper():
        picture, drawn = grid(figure, KINDS, galleries(KINDS, 4))
        assert_legible(picture)
    assert list(drawn.groupby("labels.kind", sort=False)["data.size"].unique().iloc[0]) == [*SIZES]
    assert picture.get_figwidth() == style.DOUBLE


MASKS = ("100000000", "010000000", "111000000", "000100000", "000000001", "all")
SKIPS = pd.concat(
    made_up(
        {"none": 20 + 30 * rank},
        sizes=(32,),
        **{"model.skip_mask": mask, "model.num_blocks": 2, "data.resolution": 32},
    )
    for rank, mask in enumerate(MASKS)
).assign(**{"model.channel_mult": [(2, 2, 2)] * 18})


def test_points_show_every_run(tmp_path):
    figure = Figure(
        plot="points",
        x="model.skip_resolution",
        hue="model.skip_count",
        reference={"model.skip_mask": "all"},
    )
    whole = SKIPS["model.skip_mask"] == "all"
    with style.paper():
        picture, drawn = points(figure, SKIPS[~whole], SKIPS[whole])
        assert_legible(picture)
    assert list(drawn["model.skip_resolution"]) == [32, 32, 32, 16, 8]
    assert sorted(drawn["model.skip_mask"]) == sorted(MASKS[:-1])
    shown = {line.get_ydata()[0] for line in picture.axes[0].lines if len(line.get_xdata()) == 1}
    assert shown >= set(drawn[drawn["model.skip_count"] == 3]["memorization_ratio_percent"])
    labels = [text.get_text() for text in picture.legends[0].get_texts()]
    assert labels == ["kept 1", "kept 3", "all kept"]
    parts = {"reference": (frozenset(SKIPS[whole]["evaluation"]),)}
    paths = draw(figure, SKIPS, None, None, tmp_path / "skips", parts)
    assert all(path.stat().st_size for path in paths)


def test_a_curve_over_skips_has_its_reference_line():
    figure = Figure(plot="curve", x="model.skip_index")
    single = SKIPS["model.skip_mask"].isin(["100000000", "010000000", "000100000", "000000001"])
    with style.paper():
        picture, drawn = curve(figure, SKIPS[single], None, SKIPS[~single])
        assert_legible(picture)
    assert list(drawn["model.skip_index"]) == [1, 2, 4, 9]
    assert [text.get_text() for text in picture.legends[0].get_texts()] == ["all kept"]


def test_bootstrapped_numbers_of_samples():
    figure = Figure(
        plot="curve",
        x="eval.num_samples",
        y="memorization_ratio_sd",
        hue="data.size",
        sample_sizes=[50, 200, 1000],
        epoch="last",
    )
    rows = made_up({"none": 45}, sizes=(32, 64), **{"eval.num_samples": 1000})
    with style.paper():
        picture, drawn = curve(figure, rows)
        assert_legible(picture)
    assert list(drawn["eval.num_samples"]) == [50, 200, 1000] * 2
    for size, members in rows[rows["epoch"] == 2000].groupby("data.size"):
        share = members["memorization_ratio"].item()
        sds = drawn[drawn["data.size"] == size].set_index("eval.num_samples")
        for count, sd in sds["memorization_ratio_sd"].items():
            assert sd == pytest.approx(100 * np.sqrt(share * (1 - share) / count), rel=0.12)


def test_several_lines_of_images():
    figure = Figure(plot="grid", hue="labels.kind", count=4, lines=3)
    with style.paper():
        picture, drawn = grid(figure, KINDS, galleries(KINDS))
    assert len(drawn) == 20 * 12
    assert len(picture.axes[0].images) == 20 * 6
