"""Copies counted again at other thresholds, from the scores of several runs."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from emm.errors import UserError
from emm.score.criteria import is_memorized, wilson_interval
from emm.score.nearest import Neighbours
from emm.score.recount import recount, score_files, threshold_from
from emm.score.stage import ScoreResult, ScoreTable, read_scores, write_scores

THRESHOLDS = (Fraction(1, 3), Fraction(1, 2), Fraction(1))


def table(squared: np.ndarray, step: int) -> ScoreTable:
    neighbours = Neighbours(np.tile([0, 1], (len(squared), 1)), squared)
    return ScoreTable(2.5 * step, step, 0.5, ScoreResult(neighbours, 3072, 100, 0, 0))


def write(folder: Path, run: str, sizes: tuple[int, ...], seed: int) -> Path:
    """Scores of checkpoints with so many samples each; some ratios of theirs are exactly 1/3."""
    rng, path = np.random.default_rng(seed), folder / run / "heun" / "scores.parquet"
    tables = []
    for step, size in enumerate(sizes):
        first = rng.integers(0, 3000, size)
        second = np.where(rng.random(size) < 0.5, 9 * first, rng.integers(3000, 30_000, size))
        tables.append(table(np.stack([first, np.maximum(first, second)], axis=1), step))
    write_scores(path, tables, run=run, evaluation="heun")
    return path


@pytest.fixture
def results(tmp_path) -> Path:
    write(tmp_path, "b", (40, 7), 1)
    write(tmp_path, "a", (25,), 2)
    return tmp_path


@pytest.mark.parametrize("threads", [1, 3])
def test_counts_are_those_of_pandas(results, threads):
    found = recount(score_files([results]), THRESHOLDS, threads)
    assert len(found) == 3 * len(THRESHOLDS)
    for row in found.itertuples():
        scores = read_scores(row.file).to_pandas()
        scores = scores[scores["step"] == row.step]
        assert (row.run, row.evaluation) == (scores["run"].iloc[0], "heun")
        assert row.n_samples == len(scores)
        distances = scores[["d1_squared", "d2_squared"]].astype(object)  # integers of any size
        square = Fraction(row.threshold).limit_denominator(1000) ** 2
        expected = sum(first < square * second for first, second in distances.to_numpy())
        assert row.n_memorized == expected
        assert row.memorization_ratio == expected / len(scores)
        interval = (row.memorization_ratio_low, row.memorization_ratio_high)
        assert interval == wilson_interval(expected, len(scores))
    default = found[np.isclose(found["threshold"], 1 / 3)]
    scored = [read_scores(path)["memorized"].to_numpy().sum() for path in sorted(set(found.file))]
    assert default.groupby("file")["n_memorized"].sum().tolist() == scored
    assert 0 < sum(scored) < default["n_samples"].sum()


def test_order_is_that_of_files_and_checkpoints(results):
    found = recount(score_files([results / "b", results]), THRESHOLDS[:2], threads=2)
    assert list(zip(found.run, found.step, found.threshold.round(2), strict=True)) == [
        (run, step, threshold) for run, step in [("b", 0), ("b", 1), ("a", 0)]
        for threshold in (0.33, 0.5)
    ]  # fmt: skip


def test_thresholds_are_exact_at_the_largest_distances():
    largest = 255**2 * 3 * 1024**2
    threshold = threshold_from("0.999")
    second = 10**6 * (largest // 10**6)
    first = second // 10**6 * 999**2
    squared = np.array([[first - 1, second], [first, second], [first + 1, second]])
    assert is_memorized(squared, threshold).tolist() == [True, False, False]


@pytest.mark.parametrize("text", ["0", "-1/3", "1.01", "1/0", "a third", "0.3333", "1/1001", "nan"])
def test_thresholds_that_are_none(text):
    with pytest.raises(UserError, match=f"--threshold {text}: write a fraction"):
        threshold_from(text)


def test_places_without_scores(tmp_path):
    with pytest.raises(UserError, match=r"no scores\.parquet in it"):
        score_files([tmp_path])
    with pytest.raises(UserError, match="no such file"):
        recount(score_files([tmp_path / "scores.parquet"]))


def test_files_that_are_put_together_another_way(results):
    """Several runs in one file, in any order and in row groups of any size."""
    files = score_files([results])
    apart = recount(files, THRESHOLDS).drop(columns="file")
    rows = pa.concat_tables([read_scores(path) for path in files])
    mixed = rows.take(np.random.default_rng(5).permutation(len(rows)))
    pq.write_table(mixed, results / "mixed.parquet", row_group_size=11)
    together = recount([results / "mixed.parquet"], THRESHOLDS).drop(columns="file")
    names = ["run", "step", "threshold"]
    together, apart = (frame.sort_values(names, ignore_index=True) for frame in (together, apart))
    assert together.equals(apart)


def test_foreign_files_are_refused(tmp_path):
    pq.write_table(pa.table({"step": [1]}), tmp_path / "other.parquet")
    with pytest.raises(UserError, match="not the columns of a score file"):
        recount([tmp_path / "other.parquet"])


def test_flipped_bytes_never_pass_for_other_counts(tmp_path):
    path = write(tmp_path, "a", (30, 30), 4)
    whole, expected = path.read_bytes(), recount([path], THRESHOLDS)
    refused = 0
    for position in range(0, len(whole), 9):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << position // 9 % 8
        path.write_bytes(damaged)
        try:
            assert recount([path], THRESHOLDS).equals(expected)
        except UserError:
            refused += 1
    assert refused > 20
