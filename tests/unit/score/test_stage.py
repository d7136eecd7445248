"""Scores as files: verdicts with duplicates, images in, Parquet out and back."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from emm.errors import UserError
from emm.score import stage
from emm.score.nearest import Neighbours
from emm.score.stage import ScoreResult, ScoreTable


def uniform(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture
def training() -> np.ndarray:
    """Six images of which the first comes three times and another twice."""
    images = uniform(1, 9, 4, 4, 3)
    images[[4, 7]] = images[0]
    images[8] = images[2]
    return images


def some_tables(count: int = 3, components: int = 192) -> list[ScoreTable]:
    rng = np.random.default_rng(2)
    tables = []
    for step in range(count):
        squared = np.sort(rng.integers(0, 255**2 * components, (50, 2)), axis=1)
        neighbours = Neighbours(rng.integers(0, 1000, (50, 2)), squared)
        result = ScoreResult(neighbours, components, 1000, 0, 0)
        tables.append(ScoreTable(50.25 * step, 100 * step, 0.99929, result))
    return tables


def test_copies_of_repeated_images_count_by_the_chosen_rule(training):
    samples = training[[0, 1, 2, 3]]
    distinct = stage.score_arrays(samples, training, "distinct", xp=np)
    published = stage.score_arrays(samples, training, "published", xp=np)
    assert distinct.memorized.tolist() == [True] * 4
    assert published.memorized.tolist() == [False, True, False, True]
    for result in (distinct, published):
        assert result.n_memorized_published == 2
        assert result.n_duplicates == 3
        assert (result.n_training, result.components) == (9, 48)


def test_rules_agree_without_duplicates():
    samples, training = uniform(3, 5, 4, 4, 1), uniform(4, 8, 4, 4, 1)
    samples[0] = training[6]
    results = [stage.score_arrays(samples, training, rule, xp=np) for rule in stage.RULES]
    for result in results:
        np.testing.assert_array_equal(result.neighbours, results[0].neighbours)
        assert result.n_duplicates == 0
        assert result.n_memorized_published == result.memorized.sum() == 1


def test_unknown_rule(training):
    with pytest.raises(UserError, match="'unique' is not one of distinct, published"):
        stage.score_arrays(training, training, "unique", xp=np)


def test_summary_row_per_checkpoint(training):
    result = stage.score_arrays(training[:4], training, xp=np)
    tables = [ScoreTable(epoch, 10, 0.5, result) for epoch in (1.0, 2.5)]
    rows = stage.summary_rows(tables)
    assert [row["epoch"] for row in rows] == [1.0, 2.5]
    assert list(rows[0])[:9] == [
        "epoch",
        "step",
        "ema",
        "n_samples",
        "n_training",
        "n_memorized",
        "n_memorized_published",
        "n_duplicates",
        "memorization_ratio",
    ]
    assert rows[0]["n_samples"] == rows[0]["n_memorized"] == rows[0]["distinct_copied"] == 4
    assert rows[0]["n_memorized_published"] == 2
    assert rows[0]["knn_distance"] == 0


def test_gallery_shows_the_first_samples_of_each_verdict(training):
    samples = uniform(5, 9, 4, 4, 3)
    samples[[1, 7]] = training[3]
    result = stage.score_arrays(samples, training, xp=np)
    arrays = stage.gallery(samples, training, ScoreTable(0.0, 0, 0.0, result, np.arange(9)), 2)
    np.testing.assert_array_equal(arrays["sample"], [0, 1, 2, 7])
    assert all(len(values) == 4 for values in arrays.values())
    np.testing.assert_array_equal(arrays["memorized"], [False, True, False, True])
    np.testing.assert_array_equal(arrays["nearest"][1], training[3])
    np.testing.assert_array_equal(arrays["labels"], [0, 1, 2, 7])
    differences = arrays["samples"].astype(int) - arrays["nearest"]
    np.testing.assert_array_equal((differences**2).sum(axis=(1, 2, 3)), arrays["d1_squared"])
    unlabelled = stage.gallery(samples, training, ScoreTable(0.0, 0, 0.0, result), 99)
    np.testing.assert_array_equal(unlabelled["labels"], [-1] * 9)


def test_scores_come_back_as_they_were_written(tmp_path):
    path = tmp_path / "run" / "scores.parquet"
    tables = some_tables()
    tables[1] = ScoreTable(7.5, 3, 0.5, tables[1].result, np.arange(50))
    stage.write_scores(path, iter(tables), run="cifar10-n1000", evaluation="heun18")
    rows = stage.read_scores(path)
    assert rows.schema == stage.score_schema(rows.schema.field("d1_squared").type)
    assert rows.num_rows == 150
    assert set(rows["run"].to_pylist()) == {"cifar10-n1000"}
    assert set(rows["evaluation"].to_pylist()) == {"heun18"}
    for index, table in enumerate(tables):
        part = rows.slice(50 * index, 50)
        found = {name: part[name].to_numpy() for name in part.column_names[2:]}
        assert set(found["epoch"]) == {table.epoch}
        assert set(found["ema"]) == {table.ema}
        assert set(found["step"]) == {table.step}
        np.testing.assert_array_equal(found["sample"], np.arange(50))
        np.testing.assert_array_equal(found["label"], np.arange(50) if index == 1 else -1)
        indices, squared_distances = table.result.neighbours
        np.testing.assert_array_equal(np.stack([found["nn1"], found["nn2"]], 1), indices)
        squared = np.stack([found["d1_squared"], found["d2_squared"]], 1)
        np.testing.assert_array_equal(squared, squared_distances)
        np.testing.assert_array_equal(found["memorized"], table.result.memorized)
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(("components", "bits"), [(33025, "int32"), (33026, "int64")])
def test_file_layout(tmp_path, components, bits):
    path = tmp_path / "scores.parquet"
    stage.write_scores(path, some_tables(4, components), run="r", evaluation="e")
    metadata = pq.read_metadata(path)
    assert metadata.num_row_groups == 4
    columns = [metadata.row_group(3).column(index) for index in range(metadata.num_columns)]
    assert all(column.compression == "ZSTD" for column in columns)
    encodings = {column.path_in_schema: column.encodings for column in columns}
    assert all("DELTA_BINARY_PACKED" in encodings[name] for name in stage.PACKED)
    assert str(stage.read_scores(path).schema.field("d2_squared").type) == bits


def test_some_columns(tmp_path):
    path = tmp_path / "scores.parquet"
    stage.write_scores(path, some_tables(), run="r", evaluation="e")
    assert stage.read_scores(path, ["nn1", "memorized"]).column_names == ["nn1", "memorized"]


def test_failing_while_writing_leaves_the_old_file(tmp_path):
    def broken():
        yield some_tables(1)[0]
        raise UserError("sampling failed")

    path = tmp_path / "scores.parquet"
    stage.write_scores(path, some_tables(2), run="r", evaluation="e")
    with pytest.raises(UserError, match="sampling failed"):
        stage.write_scores(path, broken(), run="r", evaluation="e")
    assert stage.read_scores(path).num_rows == 100
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(ValueError, match="no checkpoints"):
        stage.write_scores(path, [], run="r", evaluation="e")


def read_or_refuse(path) -> pa.Table | None:
    """The rows, or None where the file is refused."""
    try:
        return stage.read_scores(path)
    except UserError:
        return None


def test_flipped_bytes_never_pass_for_other_scores(tmp_path):
    path = tmp_path / "scores.parquet"
    stage.write_scores(path, some_tables(2), run="r", evaluation="e")
    whole, expected = path.read_bytes(), stage.read_scores(path)
    positions = range(0, len(whole), 4)
    found = []
    for position in positions:
        damaged = bytearray(whole)
        damaged[position] ^= 1 << position // 4 % 8
        path.write_bytes(damaged)
        found.append(read_or_refuse(path))
    assert all(rows.equals(expected) for rows in found if rows is not None)  # no data in that byte
    assert found.count(None) > len(positions) / 2


def test_flipped_data_is_refused(tmp_path):
    path = tmp_path / "scores.parquet"
    stage.write_scores(path, some_tables(2), run="r", evaluation="e")
    whole = bytearray(path.read_bytes())
    column = pq.read_metadata(path).row_group(0).column(9)
    whole[column.data_page_offset + column.total_compressed_size - 20] ^= 1
    path.write_bytes(whole)
    with pytest.raises(UserError, match="damaged"):
        stage.read_scores(path)


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.9, 0.999])
def test_truncated_files_are_refused(tmp_path, share):
    path = tmp_path / "scores.parquet"
    stage.write_scores(path, some_tables(2), run="r", evaluation="e")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(UserError, match="damaged"):
        stage.read_scores(path)


def test_missing_and_foreign_files(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        stage.read_scores(tmp_path / "scores.parquet")
    pq.write_table(pa.table({"nn1": [1, 2]}), tmp_path / "other.parquet")
    with pytest.raises(UserError, match="not the columns of a score file"):
        stage.read_scores(tmp_path / "other.parquet")


def save(path, array) -> None:
    np.save(path, array, allow_pickle=True)


@pytest.mark.parametrize("shape", [(5, 4, 4, 3), (5, 4, 4, 1), (5, 4, 4)])
def test_array_files(tmp_path, shape):
    images = uniform(6, *shape)
    save(tmp_path / "a.npy", images)
    np.savez(tmp_path / "b.npz", images)
    np.savez_compressed(tmp_path / "c.npz", labels=np.arange(5), samples=images)
    np.savez(tmp_path / "d.npz", anything=images)
    np.savez(tmp_path / "e.npz", samples=np.zeros(3), images=images)
    for name in ("a.npy", "b.npz", "c.npz", "d.npz", "e.npz"):
        found = stage.load_images(tmp_path / name)
        np.testing.assert_array_equal(found, images.reshape(5, 4, 4, -1))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.linspace(0, 1, 48).reshape(1, 4, 4, 3), r"float64.*x in 0\.\.1.*255 \* x"),
        (np.linspace(-1, 1, 48).reshape(1, 4, 4, 3), r"127\.5 \* \(x \+ 1\)"),
        (np.arange(48).reshape(1, 4, 4, 3), r"int64.*np\.rint\(x\)"),
        (np.zeros((2, 3, 8, 8), np.uint8), "channels first"),
        (np.zeros((0, 8, 8, 3), np.uint8), "no images"),
        (np.zeros((2, 8), np.uint8), r"shape \(2, 8\)"),
        (np.array([{}, {}]), "cannot be read as an array"),
        (np.array(["a"]), "save 8-bit images"),
    ],
)
def test_arrays_that_are_no_images(tmp_path, array, message):
    path = tmp_path / "samples.npy"
    save(path, array)
    with pytest.raises(UserError, match=message) as caught:
        stage.load_images(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_ambiguous_and_damaged_archives(tmp_path):
    path = tmp_path / "samples.npz"
    np.savez(path, x=np.zeros(1), y=np.zeros(1))
    with pytest.raises(UserError, match="holds x, y; name the array images or samples"):
        stage.load_images(path)
    np.savez(path, images=uniform(7, 5, 8, 8, 3))
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 255
    for damaged in (whole[:200], bytes(flipped), b""):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match="cannot be read as an array"):
            stage.load_images(path)


def test_other_paths(tmp_path):
    with pytest.raises(UserError, match="no such file or folder"):
        stage.load_images(tmp_path / "samples.npy")
    (tmp_path / "samples.pt").write_bytes(b"x")
    with pytest.raises(UserError, match=r"expected an \.npy or \.npz file or a folder"):
        stage.load_images(tmp_path / "samples.pt")


def test_folder_and_array_of_different_sizes(tmp_path):
    Image.fromarray(uniform(8, 8, 8, 3)).save(tmp_path / "a.png")
    samples = stage.load_images(tmp_path)
    np.testing.assert_array_equal(samples, uniform(8, 8, 8, 3)[None])
    with pytest.raises(UserError, match="samples are 8x8x3, training images 4x4x3"):
        stage.score_arrays(samples, uniform(9, 5, 4, 4, 3), xp=np)
