"""Counts of copies in the scores of all samples against pandas.read_parquet and groupby.

The scores are made up, of the columns and the layout that `emm score` writes: a file per run, with
20 checkpoints of 10,000 samples each: 60 million, as many as the papers score. Each side is
measured in a process of its own, which tells its peak memory. With --full pandas reads them all at
once as well, which takes 13 GB.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
from common import Goal, Options, Row, Target, compare

from emm.score.nearest import Neighbours
from emm.score.recount import recount, score_files
from emm.score.stage import ScoreResult, ScoreTable, write_scores

COUNT, ROUNDS = 60_000_000, 3
CHECKPOINTS, SAMPLES, TRAINING = 20, 10_000, 50_000
THRESHOLD = Fraction(2, 5)  # another one than that of the column `memorized`
COLUMNS = ["run", "evaluation", "step", "d1_squared", "d2_squared"]
KEY = ["run", "evaluation", "step"]
OURS, WHOLE, BY_FILE = "emm recount", "pandas, all at once", "pandas, file by file"
LEAST, MOST = Target("at least", 5), Target("at most", 4)


def _what(count: int) -> str:
    return f"copies in {count:,} scored samples"


def _memory(count: int) -> str:
    return f"{_what(count)}, peak memory"


GOALS = (
    Goal("cpu", _what(COUNT), BY_FILE, LEAST),
    Goal("cpu", _memory(COUNT), BY_FILE, MOST),
)


def rows(options: Options) -> Iterator[Row]:
    """Rows of the CPU; nothing here is for a GPU."""
    if options.device == "cpu":
        sides = (OURS, BY_FILE, WHOLE) if options.full else (OURS, BY_FILE)
        yield from measured(COUNT, options.threads, sides)


def measured(count: int, threads: int, sides: tuple[str, ...]) -> Iterator[Row]:
    what = _what(count)
    with tempfile.TemporaryDirectory(prefix="emm-tables-") as folder:
        make(Path(folder), count)
        runs = {side: [] for side in sides}
        for turn in range(ROUNDS):
            for side in sides[turn % len(sides) :] + sides[: turn % len(sides)]:
                if side != WHOLE or not runs[side]:  # once: it takes minutes, and most memory
                    runs[side].append(apart(side, folder, threads))
    counts = {tuple(map(tuple, run["counts"])) for side in sides for run in runs[side]}
    if len(counts) != 1:
        raise SystemExit(f"{what}: the sides count differently")
    times = {side: [run["seconds"] for run in runs[side]] for side in sides}
    peaks = {f"gb_{side}": max(run["gb"] for run in runs[side]) for side in sides}
    yield compare(what, BY_FILE, LEAST, times, (OURS, BY_FILE), **peaks)
    if WHOLE in sides:
        times[WHOLE] *= len(times[OURS])
        yield compare(what, WHOLE, LEAST, times, (OURS, WHOLE), **peaks)
    yield Row(_memory(count), BY_FILE, MOST, peaks[f"gb_{OURS}"], "GB", details=peaks)


def make(folder: Path, count: int) -> None:
    """Files with so many samples in all; of each, the nearest images are those of a generator."""
    rng = np.random.default_rng(0)
    evaluation = "40000ep-10000samples-0a1b2c3d"
    for number in range(max(1, count // (CHECKPOINTS * SAMPLES))):
        run = f"cifar10-32px-n{1000 + number}-ddpmpp-c128b2-{number:08x}"
        path = folder / "runs" / run / evaluation / "scores.parquet"
        tables = (_checkpoint(rng, step) for step in range(1, CHECKPOINTS + 1))
        write_scores(path, tables, run=run, evaluation=evaluation)


def _checkpoint(rng: np.random.Generator, number: int) -> ScoreTable:
    first = rng.gamma(2, 2e5, SAMPLES).astype(np.int64)
    squared = np.stack([first, first + rng.gamma(2, 4e5, SAMPLES).astype(np.int64)], axis=1)
    neighbours = Neighbours(rng.integers(0, TRAINING, (SAMPLES, 2)), squared)
    result = ScoreResult(neighbours, 3072, TRAINING, 0, 0)
    return ScoreTable(2000.0 * number, 4883 * number, 0.99929, result)


def apart(side: str, folder: str, threads: int) -> dict:
    """Seconds, peak memory and counts of a side, in a process of its own."""
    command = [sys.executable, __file__, side, folder, str(threads)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def by_recount(files: list[Path], threads: int) -> pd.Series:
    found = recount(files, [THRESHOLD], threads)
    return found.set_index(KEY)["n_memorized"]


def by_pandas(files: list[Path]) -> pd.Series:
    frame = pd.read_parquet(files, columns=COLUMNS)
    first, second = (frame[name].astype(np.int64) for name in COLUMNS[3:])
    below = THRESHOLD.denominator**2 * first < THRESHOLD.numerator**2 * second
    return below.groupby([frame[name] for name in KEY]).sum()


def by_files(files: list[Path]) -> pd.Series:
    return pd.concat([by_pandas([path]) for path in files])


def main() -> None:
    """One side, as a process of its own."""
    parser = argparse.ArgumentParser()
    parser.add_argument("side", choices=(OURS, WHOLE, BY_FILE))
    parser.add_argument("folder", type=Path)
    parser.add_argument("threads", type=int)
    given = parser.parse_args()
    files = score_files([given.folder])
    started = time.perf_counter()
    if given.side == OURS:
        found = by_recount(files, given.threads)
    else:
        found = by_pandas(files) if given.side == WHOLE else by_files(files)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    counts = [[*map(str, key), int(count)] for key, count in sorted(found.items())]
    print(json.dumps({"seconds": seconds, "gb": peak, "counts": counts}))


if __name__ == "__main__":
    main()
