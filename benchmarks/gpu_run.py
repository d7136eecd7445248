"""One real training of the published network on a GPU: train, sample, score, and check the scores.

    python benchmarks/gpu_run.py --minutes 8 --output benchmarks/results

in a clone without results/paper writes the curve of memorization over training as
gpu_run-<GPU>.json, and fails unless CuPy's neighbours of all samples equal NumPy's.
"""

import argparse
import json
import platform
import re
import subprocess
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import yaml
from sklearn.datasets import load_sample_images

from emm.score.nearest import array_module
from emm.score.stage import score_arrays

FILE = Path(__file__).with_suffix(".yaml")
PIXELS = 32
SHARE_OF_TRAINING = 0.65  # of the time; the rest samples, scores, checks and starts processes
RESULTS = Path("results/paper")


def main() -> None:
    arguments = parse()
    started = time.monotonic()
    require_gpu()
    if RESULTS.exists():
        raise SystemExit(f"{RESULTS} exists: start in a clone without results")
    images = photo_crops()
    Path("data").mkdir(exist_ok=True)
    np.savez(Path("data/photo_crops.npz"), images=images)
    run = yaml.safe_load(FILE.read_text())["runs"][0]
    size, snapshots = run["data.size"], run["eval.snapshots"]
    images_seen = arguments.minutes * 60 * SHARE_OF_TRAINING * arguments.images_per_second
    epochs = max(1, round(images_seen / size / snapshots)) * snapshots
    settings = ", ".join(filter(None, [f"train.epochs: {epochs}", arguments.set]))
    workflow("--config", f"experiments={FILE}", "scale=paper", f"set={{{settings}}}")
    result = gather(size) | {"wall_seconds": time.monotonic() - started}
    name = re.sub(r"\W+", "-", result["gpu"]).lower().strip("-")
    path = arguments.output / f"gpu_run-{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=8, help="about how long it may take")
    parser.add_argument("--images-per-second", type=float, default=2000, help="of this GPU")
    parser.add_argument("--set", default="", help="more settings, such as 'model.channels: 8'")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    return parser.parse_args()


def require_gpu() -> None:
    """Exit unless torch and CuPy both see a GPU."""
    if not torch.cuda.is_available() or array_module().__name__ != "cupy":
        raise SystemExit("needs a CUDA device that torch and CuPy both see")


def photo_crops() -> np.ndarray:
    """All 520 disjoint 32x32 crops of scikit-learn's two photographs."""
    photographs = np.stack(load_sample_images().images)
    _, height, width, _ = photographs.shape
    rows, columns = height // PIXELS, width // PIXELS
    cut = photographs[:, : rows * PIXELS, : columns * PIXELS]
    tiles = cut.reshape(-1, rows, PIXELS, columns, PIXELS, 3).swapaxes(2, 3)
    return tiles.reshape(-1, PIXELS, PIXELS, 3)


def workflow(*options: str) -> None:
    """The project's own workflow; samples are kept to be scored again."""
    command = ["snakemake", "--profile", "profiles/local", "--resources", "gpu=1", "--notemp"]
    subprocess.run([*command, *options], check=True)


def gather(size: int) -> dict:
    run = only(RESULTS.glob(f"runs/*-n{size}-*/run.yaml")).parent
    evaluation = only(run.glob("*/summary.parquet")).parent
    record = yaml.safe_load((run / "run.yaml").read_text())
    metrics = pd.read_parquet(run / "metrics.parquet")
    training = np.load(only(RESULTS.glob("subsets/*.npz")))["images"]
    checked = check_scores(evaluation, training)
    summary = pd.read_parquet(evaluation / "summary.parquet")
    curve = summary.sort_values("epoch")
    return {
        "what": f"published network on {size} crops of photographs: train, sample, score",
        "settings": {group: record["settings"][group] for group in ("model", "train")},
        "gpu": torch.cuda.get_device_name(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "cupy": array_module().__version__,
        },
        "parameters": record["parameters"],
        "training_images": size,
        "epochs": float(curve["epoch"].max()),
        "train_seconds": record["seconds"],
        "images_per_second": float(metrics["images_per_second"].median()),
        "scores_checked_against_numpy": checked,
        "curve": [
            {
                "epoch": float(row.epoch),
                "n_memorized": int(row.n_memorized),
                "n_samples": int(row.n_samples),
                "memorization_ratio": float(row.memorization_ratio),
                "distinct_copied": int(row.distinct_copied),
                "knn_distance": float(row.knn_distance),
                "median_ratio": float(row.ratio_q50),
            }
            for row in curve.itertuples()
        ],
        "loss": metrics[["epoch", "loss"]].iloc[:: max(1, len(metrics) // 40)].to_dict("list"),
    }


def check_scores(evaluation: Path, training: np.ndarray) -> int:
    """Number of samples whose scores, as the workflow wrote them, are NumPy's bit for bit."""
    scores = pd.read_parquet(evaluation / "scores.parquet")
    for step, found in scores.groupby("step"):
        samples = np.load(evaluation / "samples" / f"step-{step:08d}.npz")["images"]
        expected = score_arrays(samples, training, xp=np).neighbours
        found = found.sort_values("sample")
        np.testing.assert_array_equal(found[["nn1", "nn2"]], expected.indices)
        distances = found[["d1_squared", "d2_squared"]]
        np.testing.assert_array_equal(distances, expected.squared_distances)
    return len(scores)


def only(paths) -> Path:
    found = list(paths)
    if len(found) != 1:
        raise SystemExit(f"expected one file, found {found}")
    return found[0]


if __name__ == "__main__":
    main()
