"""Scores of runs: what samples are compared with, and what the summary says of mixtures."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from emm.analyse.parquet import read_table
from emm.data.stage import Subset, repeat, write_subset
from emm.data.synthetic import gaussian_mixture, mondrian
from emm.diffusion import SAMPLE_INDEX
from emm.errors import UserError
from emm.files import read_arrays
from emm.score import copies, orbits
from emm.score.mondrian import COLUMNS
from emm.score.runs import reference, score_run
from emm.score.stage import read_scores
from emm.spec import DEFAULTS

SIZE = {"resolution": 16}
DATA, DUMMIES = mondrian(12, 1, **SIZE), gaussian_mixture(30, 1, **SIZE)


def subset(n_dummy: int = 30) -> Subset:
    images = np.concatenate([DATA, DUMMIES[:n_dummy]])
    told = np.full(len(images), -1)
    return Subset(images, told, told, np.arange(len(images)), 0, n_dummy)


def samples(path, *, label="drawn", dataset="mondrian", checkpoints=1, count=40, **others):
    """A folder as `emm sample` leaves it: half the samples copy data, a quarter dummies."""
    fresh = mondrian(count // 4, 9, **SIZE)
    images = np.concatenate([DATA[np.arange(count // 2) % 5], DUMMIES[7 : 7 + count // 4], fresh])
    entries = []
    path.mkdir()
    for step in range(1, checkpoints + 1):
        np.savez(path / f"step-{step}.npz", images=images)
        entries.append({"step": step, "epoch": float(step), "file": f"step-{step}.npz"})
    settings = DEFAULTS | {"data.dataset": dataset, "data.resolution": 16, "eval.label": label}
    settings |= {name.replace("__", "."): value for name, value in others.items()}
    index = {"run": "r", "evaluation": "e", "settings": settings, "checkpoints": entries}
    (path / SAMPLE_INDEX).write_text(json.dumps(index))
    return path


def scored(tmp_path, of: Subset, **options) -> pd.DataFrame:
    write_subset(tmp_path / "subset.npz", of)
    paths = {"summary": tmp_path / "summary.parquet", "pictures": tmp_path / "gallery.npz"}
    folder = samples(tmp_path / "samples", **options)
    frame = score_run(
        folder, tmp_path / "subset.npz", tmp_path / "scores.parquet", **paths, picture_count=4
    )
    pd.testing.assert_frame_equal(read_table(paths["summary"]), frame, check_dtype=False)
    return frame


@pytest.mark.parametrize(
    ("label", "rows"), [("drawn", (0, 42)), ("data", (0, 12)), ("dummy", (12, 42))]
)
def test_the_reference_set_follows_the_label(tmp_path, label, rows):
    row = scored(tmp_path, subset(), label=label).iloc[0]
    found = read_scores(tmp_path / "scores.parquet").to_pandas()
    assert row["n_training"] == rows[1] - rows[0]
    assert found["nn1"].between(rows[0], rows[1] - 1).all()
    assert found["nn2"].between(rows[0], rows[1] - 1).all()
    copies = found[found["d1_squared"] == 0]
    originals = {"drawn": {*range(5), *range(19, 29)}, "data": set(range(5))}
    assert set(copies["nn1"]) == originals.get(label, set(range(19, 29)))
    assert row["n_memorized"] == {"drawn": 30, "data": 20, "dummy": 10}[label]


@pytest.mark.parametrize("mixed", [False, True])
def test_copies_are_told_from_copies_of_what_was_asked_for(tmp_path, mixed):
    of = subset()
    told = Subset(of.images, np.arange(42), of.classes, of.index, 42, 30)
    folder = samples(tmp_path / "samples")
    labels = np.arange(40) % 10  # of copies of 0..4, whose labels are right half the time
    labels = np.stack([labels, np.full(40, 41)], axis=1) if mixed else labels
    file = folder / "step-1.npz"
    np.savez(file, images=read_arrays(file)["images"], labels=labels)
    write_subset(tmp_path / "subset.npz", told)
    paths = {"summary": tmp_path / "summary.parquet", "pictures": tmp_path / "gallery.npz"}
    frame = score_run(folder, tmp_path / "subset.npz", tmp_path / "scores.parquet", **paths)
    row = frame.iloc[0]
    assert (row["n_memorized"], row["n_label_hits"]) == (30, 10)
    assert row["label_hit_ratio"] == pytest.approx(1 / 3)
    column = read_scores(tmp_path / "scores.parquet").to_pandas()["label"]
    assert set(column) == ({-1} if mixed else set(range(10)))


def test_coverage_and_its_ceiling(tmp_path):
    row = scored(tmp_path, subset(), label="data").iloc[0]
    assert row["distinct_copied"] == 5
    assert row["coverage"] == 5 / 12
    assert row["coverage_ceiling"] == pytest.approx(1 - np.exp(-40 / 12))


def test_a_label_without_images_is_refused():
    with pytest.raises(UserError, match=r"eval\.label dummy: .* needs two .* there are 0"):
        reference(subset(0), "dummy")
    with pytest.raises(UserError, match="there are 1"):
        reference(subset(1), "dummy")
    assert reference(subset(0), "data") == reference(subset(0), "drawn") == slice(0, 12)


def test_mondrian_samples_of_a_mixture(tmp_path):
    frame = scored(tmp_path, subset(), checkpoints=2)
    assert len(frame) == 2
    row = frame.iloc[1]
    assert (row["n_mondrian"], row["n_memorized_mondrian"]) == (30, 20)
    assert row["n_memorized"] == 30
    assert row["mondrian_memorization_ratio"] == row["layout_copy_ratio"] == 2 / 3


def test_tables_hold_runs_of_all_data_sets(tmp_path):
    """Other data sets have the columns, so that a table of several experiments is of one piece."""
    frames = []
    for dataset in ("mondrian", "cifar10"):
        (tmp_path / dataset).mkdir()
        frames.append(scored(tmp_path / dataset, subset(), dataset=dataset))
    table = pd.concat(frames, ignore_index=True)
    assert table.loc[0, list(COLUMNS[:12])].notna().all()
    assert table.loc[1, list(COLUMNS)].isna().all()
    assert table[list(COLUMNS)].dtypes.eq(float).all()


def test_the_gallery_holds_enough_of_each_kind(tmp_path):
    scored(tmp_path, subset())
    shown = read_arrays(tmp_path / "gallery.npz")
    assert shown["count"] == 4
    assert (np.diff(shown["sample"]) > 0).all()
    np.testing.assert_array_equal(shown["sample"], [0, 1, 2, 3, 30, 31, 32, 33])
    np.testing.assert_array_equal(shown["memorized"], [True] * 4 + [False] * 4)
    assert shown["mondrian"].all()
    np.testing.assert_array_equal(shown["nearest"], subset().images[shown["nn1"]])


def test_no_gallery_of_another_data_set_says_what_is_mondrian(tmp_path):
    scored(tmp_path, subset(), dataset="cifar10")
    shown = read_arrays(tmp_path / "gallery.npz")
    assert "mondrian" not in shown
    assert {len(values) for name, values in shown.items() if values.ndim} == {8}


def test_the_reference_of_a_training_with_flips_are_orbits(tmp_path):
    mirrored = subset()
    mirrored = replace(mirrored, images=mirrored.images[:, :, ::-1].copy())
    for augment, found in (("none", 0), ("flip", 30)):
        (tmp_path / augment).mkdir()
        row = scored(tmp_path / augment, mirrored, train__augment=augment).iloc[0]
        assert row["n_memorized"] == found
    assert (row["n_memorized_originals"], row["memorization_ratio_originals"]) == (0, 0)
    assert row["n_training"] == 42


def test_trainings_without_flips_and_copies_have_no_such_columns(tmp_path):
    frame = scored(tmp_path, subset())
    assert not {*orbits.COLUMNS, *copies.COLUMNS[:-2]} & set(frame.columns)


def test_repeated_images_are_counted_apart(tmp_path):
    repeated = repeat(subset(), 0.25, 4)
    frame = scored(tmp_path, repeated, checkpoints=2)
    row = frame.iloc[1]
    assert (row["n_repeated"], row["n_single"]) == (3, 9)
    assert row["n_memorized_repeated"] + row["n_memorized_single"] == 20
    assert row["n_memorized"] == 30  # ten are of dummies
    assert (row["n_training"], row["n_duplicates"]) == (42 + 9, 9)
    assert row["coverage"] == 15 / 42
    assert row["n_memorized_published"] == 30 - row["n_memorized_repeated"]
