"""Copies of the workflow that run at a scale of seconds, for the tests that start it."""

import shutil
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
PARTS = ("Snakefile", "config.yaml", "workflow", "profiles", "slurm")
TINY = {
    "title": "A few seconds a run",
    "comparable": False,
    "rules": {
        "data.dataset": {"to": "digits"},
        "data.resolution": {"to": 8},
        "data.size": {"factor": 0.01},
        "model.channels": {"to": 8},
        "model.channel_mult": {"to": [1, 2]},
        "model.attention_levels": {"to": []},
        "model.num_blocks": {"to": 1},
        "model.dropout": {"to": 0.0},
        "model.precond": {"to": "edm"},
        "train.lr": {"to": 2.0e-3},
        "train.batch_size": {"to": 10},
        "train.epochs": {"factor": 0.0015},
        "train.warmup_epochs": {"to": 5},
        "train.ema": {"to": 0.98},
        "eval.num_samples": {"factor": 0.004},
        "eval.steps": {"to": 8},
        "eval.snapshots": {"to": 2},
    },
}


def copy_workflow(folder: Path) -> None:
    """Copy the workflow of the repository as it is on disk."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in PARTS:
        source = REPOSITORY / name
        if source.is_dir() and not source.is_symlink():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, folder / name, symlinks=True, ignore=ignored)
        else:
            shutil.copy2(source, folder / name, follow_symlinks=False)
