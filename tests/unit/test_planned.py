"""Captions of planned figures: what they tell of the runs as a scale has them."""

import re

import pytest
from docutils.core import publish_parts

from emm import catalog
from emm.planned import PlannedFigure

SCALES = ("paper", "quick")
OF_THE_PAPER = r"\d+k\b|\d,\d{3}|\bcars?\b|painting|Stable Diffusion|\b100\b"
TIMES = {"without": 0, "with as many": 1, "with three times as": 3, "with seven times as": 7}


def planned(scale: str, experiments: str, **config: object) -> dict[str, PlannedFigure]:
    return catalog.load({"scale": scale, "experiments": experiments, **config}).figures


def as_run(figure: PlannedFigure) -> str:
    """The line of a caption that tells settings."""
    lines = [line for line in figure.caption.split("\n\n") if line.startswith("As run: ")]
    assert len(lines) <= 1
    return "".join(lines)


def own(tmp_path, figure: str) -> PlannedFigure:
    """A figure of runs that differ in size, width and skip connections."""
    path = tmp_path / "mine.yaml"
    path.write_text(
        "title: x\nset: {data.resolution: 32}\nruns:\n"
        "  - {data.size: [10, 20], model.channels: 64}\n"
        "  - {data.size: 10, model.channels: 128, model.skip_mask: ['110111111', '100111111']}\n"
        f"figures: {{own: {figure}}}\n"
    )
    return planned("paper", str(path))["own"]


@pytest.mark.parametrize(("scale", "guidance"), [("paper", "7.5"), ("quick", "1.5")])
def test_guidance_of_table_6(scale, guidance):
    for name, figure in planned(scale, "stable_diffusion").items():
        expected = "1" if name == "table6_unguided" else guidance
        assert as_run(figure).endswith(f", guidance {expected}.")
        assert figure.shared["eval.guidance"] == float(expected)


def test_data_and_sizes_are_those_of_the_runs():
    data = "only the class ``automobile``, 2k training images, 6k Gaussian mixture dummies"
    assert as_run(planned("paper", "cars")["yoon_fig12"]) == (
        f"As run: CIFAR-10, 32×32 pixels, {data}."  # noqa: RUF001
    )
    data = "only the class ``other digits``, 16 training images, 48 Gaussian mixture dummies"
    assert as_run(planned("quick", "cars")["yoon_fig12"]) == (
        f"As run: one and other handwritten digits, 8×8 pixels, {data}."  # noqa: RUF001
    )
    forced = planned("quick", "cars", set={"data.size": 20})["yoon_fig10"]
    assert "20 training images, no dummies." in as_run(forced)


def test_what_differs_between_rows_goes_unsaid(tmp_path):
    figure = own(tmp_path, "{plot: table, rows: model.channels, columns: data.size}")
    assert figure.shared == {"data.dataset": "cifar10", "data.resolution": 32}
    figure = own(tmp_path, "{plot: curve, where: {data.size: [10, 20], model.channels: 64}}")
    assert "data.size" not in figure.shared
    assert as_run(figure).endswith("32×32 pixels, width 64.")  # noqa: RUF001


def test_what_the_filter_names_is_said_as_the_scale_has_it(tmp_path):
    figure = "{plot: curve, where: {model.channels: 64, model.skip_deleted: 0, data.dummy_size: 0}}"
    paper = own(tmp_path, figure)
    assert as_run(paper).endswith(" pixels, no dummies, width 64, deleted 0.")
    path = tmp_path / "plain.yaml"
    path.write_text(
        "title: x\nruns: [{data.size: [500, 1000], model.channels: 64}]\n"
        "figures: {plain: {plot: curve, where: {model.channels: 64}}}\n"
    )
    assert planned("quick", str(path))["plain"].shared["model.channels"] == 8


@pytest.mark.parametrize("scale", SCALES)
def test_captions_of_all_figures_are_valid_and_name_their_data(scale):
    settings = {"report_level": 1, "halt_level": 2}
    for figure in planned(scale, "all").values():
        publish_parts(figure.caption, writer="html5", settings_overrides=settings)
        assert "pixels" in as_run(figure) or figure.shared.get("data.dataset")


@pytest.mark.parametrize("experiments", ["yoon2023", "stable_diffusion"])
def test_what_holds_in_the_paper_alone_is_said_to(experiments):
    found = catalog.load({"scale": "quick", "experiments": experiments})
    for experiment in found.experiments.values():
        assert not re.search(OF_THE_PAPER, experiment.title)
        for name, figure in experiment.figures.items():
            assert not re.search(OF_THE_PAPER, figure.title), name
            for sentence in figure.caption.split(". "):
                assert "paper" in sentence or not re.search(OF_THE_PAPER, sentence), name


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(("experiment", "count"), [("cars", 5), ("dummies", 1)])
def test_titles_count_dummies_as_they_are_run(scale, experiment, count):
    counted = 0
    for name, figure in planned(scale, experiment).items():
        for words, times in TIMES.items():
            if words in figure.figure.title and "data.dummy_size" in figure.shared:
                counted += 1
                assert figure.shared["data.dummy_size"] == times * figure.shared["data.size"], name
    assert counted == count


def test_captions_tell_the_features_that_images_are_compared_by():
    """A Fréchet distance without its features is taken for one of Inception."""
    figures = planned("quick", "quality")
    for name in ("quality_plane", "quality_trap", "quality_recall", "quality_coverage"):
        assert "of a small classifier that is trained here, on 90 %" in figures[name].caption
        assert ": 400 samples with as many held-out images" in figures[name].caption
    assert "features of pixels" in planned("quick", "quality", features="pixels")[name].caption
    assert "Compared by" in planned("quick", "onset")["onset_window"].caption
    assert "Compared by" not in planned("quick", "onset")["onset_steps"].caption
