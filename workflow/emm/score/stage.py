"""Scoring as a stage: images in, one table of samples per run and one summary row per checkpoint.

In: samples and training images, uint8 (N, H, W, C), from arrays or folders.
Out: a Parquet file with one row group per checkpoint, summary rows, and arrays for pictures.
"""

import contextlib
import math
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from emm.data.folder import image_files, read_folder
from emm.data.orbits import STILL, Move
from emm.errors import UserError
from emm.files import atomic_path, checked
from emm.score.criteria import is_memorized, summarise
from emm.score.nearest import (
    Neighbours,
    count_duplicates,
    integer_type,
    nearest_distinct,
    two_nearest,
)
from emm.score.orbits import nearest_in_orbits

RULES = ("distinct", "published")
ARRAY_NAMES = ("images", "samples", "arr_0")
UNREADABLE = (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error)
PACKED = ("step", "sample", "label", "nn1", "nn2", "d1_squared", "d2_squared")
FILES = ("sample_file", "nearest_file")  # only where images are files
CONSTANT = ("run", "evaluation", "epoch", "ema")


@dataclass(frozen=True)
class ScoreResult:
    """Neighbours of one set of samples and how duplicated training images bear on the verdict.

    `neighbours` follow the chosen rule: "distinct" counts repeated training images once,
    "published" each on its own, as Gu et al. 2023 do, so that copies of a repeated image are never
    memorized. `n_memorized_published` is the count under the second rule whichever was chosen.
    """

    neighbours: Neighbours
    components: int
    n_training: int
    n_duplicates: int
    n_memorized_published: int

    @property
    def memorized(self) -> np.ndarray:
        """Verdict on each sample under the chosen rule, bool (N,)."""
        return is_memorized(self.neighbours.squared_distances)


@dataclass(frozen=True)
class ScoreTable:
    """Scores of one checkpoint: its epoch, optimiser step and EMA rate; `labels` are int (N,).

    sample_files, training_files: names of the images where they are files, in their order.
    mondrian: which samples are Mondrian images, bool (N,), where that is asked; facts: further
    columns of the summary.
    """

    epoch: float
    step: int
    ema: float
    result: ScoreResult
    labels: np.ndarray | None = None
    sample_files: Sequence[str] | None = None
    training_files: Sequence[str] | None = None
    mondrian: np.ndarray | None = None
    facts: Mapping[str, float] = field(default_factory=dict)


def score_arrays(
    samples: np.ndarray,
    training: np.ndarray,
    duplicates: str = "distinct",
    xp: ModuleType | None = None,
    moves: Sequence[Move] = (STILL,),
) -> ScoreResult:
    """Score uint8 samples (N, ...) against training images (M, ...) in one search.

    moves: what augmentation made of the training images, whose orbits are the reference then.
    Raises UserError as `two_nearest` does, and for a rule that is not one of RULES.
    """
    if duplicates not in RULES:
        raise UserError(f"duplicates: {duplicates!r} is not one of {', '.join(RULES)}")
    if len(moves) > 1:
        neighbours, published, n_duplicates = nearest_in_orbits(
            samples, training, moves, duplicates, xp
        )
    elif duplicates == "distinct":
        neighbours, published, n_duplicates = nearest_distinct(samples, training, xp=xp)
    else:
        neighbours = published = two_nearest(samples, training, xp=xp)
        n_duplicates = count_duplicates(training)
    return ScoreResult(
        neighbours=neighbours,
        components=training[0].size,
        n_training=len(training),
        n_duplicates=n_duplicates,
        n_memorized_published=int(is_memorized(published.squared_distances).sum()),
    )


def summary_rows(tables: Iterable[ScoreTable]) -> list[dict[str, float]]:
    """One row per checkpoint for the memorization table; columns as in `criteria.summarise`.

    `coverage` is the share of the training images that samples are copies of, `coverage_ceiling`
    the expected one if every sample were a copy of one of them, drawn uniformly.
    """
    return [_summary_row(table) for table in tables]


def _summary_row(table: ScoreTable) -> dict[str, float]:
    result = table.result
    summary = summarise(result.neighbours, result.components)
    first = {
        "epoch": table.epoch,
        "step": table.step,
        "ema": table.ema,
        "n_samples": summary["n_samples"],
        "n_training": result.n_training,
        "n_memorized": summary["n_memorized"],
        "n_memorized_published": result.n_memorized_published,
        "n_duplicates": result.n_duplicates,
    }
    coverage = {
        "coverage": summary["distinct_copied"] / result.n_training,
        "coverage_ceiling": -math.expm1(-summary["n_samples"] / result.n_training),
    }
    return first | summary | coverage | table.facts


def gallery(
    samples: np.ndarray, training: np.ndarray, table: ScoreTable, count: int
) -> dict[str, np.ndarray]:
    """Arrays for pictures of samples above their nearest training images.

    The first `count` samples, and then the first so many memorized, not memorized, and Mondrian
    ones. Keys: sample (int64, ascending), samples, nearest (uint8, image shapes), nn1, d1_squared,
    d2_squared (int64), memorized (bool), labels (int32, -1 if none), and mondrian (bool) where that
    is known, all of the same length.
    """
    memorized, kind = table.result.memorized, {}
    groups = [np.ones(len(samples), bool), memorized, ~memorized]
    if table.mondrian is not None:
        groups += [table.mondrian & memorized, table.mondrian & ~memorized]
        kind = {"mondrian": table.mondrian}
    shown = np.unique(np.concatenate([np.flatnonzero(group)[:count] for group in groups]))
    indices, squared_distances = table.result.neighbours
    of_all = {
        "samples": samples,
        "nn1": indices[:, 0],
        "d1_squared": squared_distances[:, 0],
        "d2_squared": squared_distances[:, 1],
        "memorized": memorized,
        "labels": _labels(table.labels, len(samples)),
        **kind,
    }
    arrays = {name: values[shown] for name, values in of_all.items()}
    return {"sample": shown, **arrays, "nearest": training[arrays["nn1"]]}


def _labels(labels: np.ndarray | None, count: int) -> np.ndarray:
    return np.full(count, -1, np.int32) if labels is None else np.asarray(labels, np.int32)


def write_scores(
    path: Path | str, tables: Iterable[ScoreTable], *, run: str, evaluation: str
) -> None:
    """Write the samples of a run atomically to Parquet, one row group per checkpoint.

    Squared distances are int32 where they fit, else int64. Pages carry checksums. The tables are
    taken one at a time; there must be at least one.
    """
    writer = None
    with atomic_path(path) as temporary:
        try:
            for table in tables:
                rows = _rows(table, run, evaluation)
                writer = writer or _writer(temporary, rows.schema)
                writer.write_table(rows, row_group_size=len(rows))
            if writer is None:
                raise ValueError(f"{path}: no checkpoints to write")
        finally:
            if writer is not None:
                writer.close()


def _rows(table: ScoreTable, run: str, evaluation: str) -> pa.Table:
    indices, squared_distances = table.result.neighbours
    count = len(indices)
    columns = {
        "run": pa.repeat(run, count),
        "evaluation": pa.repeat(evaluation, count),
        "epoch": np.full(count, table.epoch),
        "step": np.full(count, table.step),
        "ema": np.full(count, table.ema),
        "sample": np.arange(count),
        "label": _labels(table.labels, count),
        "nn1": indices[:, 0],
        "nn2": indices[:, 1],
        "d1_squared": squared_distances[:, 0],
        "d2_squared": squared_distances[:, 1],
        "memorized": table.result.memorized,
    }
    if table.sample_files is not None:
        columns["sample_file"] = table.sample_files
    if table.training_files is not None:
        columns["nearest_file"] = np.asarray(table.training_files)[indices[:, 0]]
    schema = score_schema(pa.from_numpy_dtype(integer_type(table.result.components)))
    for name in FILES:
        schema = schema.append(pa.field(name, pa.string())) if name in columns else schema
    arrays = [pa.array(columns[field.name]).cast(field.type) for field in schema]
    return pa.Table.from_arrays(arrays, schema=schema)


def score_schema(distance: pa.DataType) -> pa.Schema:
    """Columns of a score file whose squared distances have the given type."""
    return pa.schema(
        {
            "run": pa.string(),
            "evaluation": pa.string(),
            "epoch": pa.float64(),
            "step": pa.int64(),
            "ema": pa.float64(),
            "sample": pa.int32(),
            "label": pa.int32(),
            "nn1": pa.int32(),
            "nn2": pa.int32(),
            "d1_squared": distance,
            "d2_squared": distance,
            "memorized": pa.bool_(),
        }
    )


def _writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    return pq.ParquetWriter(
        path,
        schema,
        compression="zstd",
        use_dictionary=list(CONSTANT),
        column_encoding=dict.fromkeys(PACKED, "DELTA_BINARY_PACKED"),
        write_page_checksum=True,
    )


def read_scores(path: Path | str, columns: list[str] | None = None) -> pa.Table:
    """Rows of a score file, all or some columns; a damaged or foreign file is a UserError."""
    return checked(path, lambda file: _read_parquet(file, columns))


def _read_parquet(path: Path, columns: list[str] | None) -> pa.Table:
    with open_scores(path) as file:
        return file.read(columns, use_threads=False)


@contextlib.contextmanager
def open_scores(path: Path, dictionaries: Sequence[str] = ()) -> Iterator[pq.ParquetFile]:
    """A score file to read from, with page checksums verified; ValueError if it is none.

    Column names, types and numbers of rows have no checksum: they are compared.
    dictionaries: columns that come as codes and the words that they stand for.
    """
    try:
        with pq.ParquetFile(
            path, page_checksum_verification=True, read_dictionary=list(dictionaries)
        ) as file:
            schema, about = file.schema.to_arrow_schema(), file.metadata
            plain = pa.schema([field for field in schema if field.name not in FILES])
            if plain not in (score_schema(pa.int32()), score_schema(pa.int64())):
                raise ValueError("not the columns of a score file")
            groups = (about.row_group(index) for index in range(about.num_row_groups))
            if sum(group.num_rows for group in groups) != about.num_rows:
                raise ValueError("not a whole Parquet file")
            yield file
    except FileNotFoundError:
        raise
    except KeyError as error:
        raise ValueError("not the columns of a score file") from error
    except (pa.ArrowException, OSError) as error:
        raise ValueError("not a whole Parquet file") from error


def load_images(path: Path | str) -> np.ndarray:
    """Images uint8 (N, H, W, C) of an .npy or .npz file or a folder of image files.

    An .npz holds a single array or one named images, samples or arr_0. (N, H, W) is taken as one
    channel. Raises UserError for anything else.
    """
    path = Path(path)
    if path.is_dir():
        return read_folder(path).images
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    if path.suffix not in (".npy", ".npz"):
        raise UserError(f"{path}: expected an .npy or .npz file or a folder of images")
    images = _load_array(path)
    _check_values(path, images)
    return images[..., None] if images.ndim == 3 else images


def file_names(path: Path | str) -> list[str] | None:
    """Names of the images of a folder in the order of `load_images`; None for an array file."""
    path = Path(path)
    if not path.is_dir():
        return None
    return [file.relative_to(path).as_posix() for file in image_files(path)]


def same_channels(samples: np.ndarray, training: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both with one channel where one of them has, and the other is grey saved as RGB."""
    if {samples.shape[-1], training.shape[-1]} != {1, 3}:
        return samples, training
    return _grey(samples), _grey(training)


def _grey(images: np.ndarray) -> np.ndarray:
    first = images[..., :1]
    return first if (images == first).all() else images


def _load_array(path: Path) -> np.ndarray:
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            return loaded[_array_name(path, loaded.files)]
    except UNREADABLE as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: cannot be read as an array ({reason})") from error


def _array_name(path: Path, names: list[str]) -> str:
    known = [name for name in ARRAY_NAMES if name in names]
    if known or len(names) == 1:
        return [*known, *names][0]
    held = ", ".join(names) or "nothing"
    raise UserError(f"{path}: holds {held}; name the array {' or '.join(ARRAY_NAMES)}")


def _check_values(path: Path, images: np.ndarray) -> None:
    """Raise UserError unless the array holds 8-bit images with channels last."""
    if images.dtype != np.uint8:
        raise UserError(f"{path}: values are {images.dtype}, need uint8; {_conversion(images)}")
    if images.size == 0:
        raise UserError(f"{path}: no images in an array of shape {images.shape}")
    if images.ndim == 4 and images.shape[1] <= 4 < images.shape[3]:
        raise UserError(f"{path}: shape {images.shape} has channels first; transpose(0, 2, 3, 1)")
    if images.ndim not in (3, 4):
        raise UserError(f"{path}: shape {images.shape}; need (N, H, W, C) or (N, H, W)")


def _conversion(images: np.ndarray) -> str:
    """How to make 8-bit images of other numbers, judged by their range."""
    if images.dtype.kind not in "iuf" or images.size == 0:
        return "save 8-bit images"
    low, high = images.min(), images.max()
    grey = "x" if high > 1 else "255 * x" if low >= 0 else "127.5 * (x + 1)"
    return f"for x in {low:g}..{high:g} save np.clip(np.rint({grey}), 0, 255).astype(np.uint8)"
