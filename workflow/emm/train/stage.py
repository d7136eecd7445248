"""Training as a stage: a subset and settings in, checkpoints and the record of a run out."""

import hashlib
import platform
import resource
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from emm import slurm
from emm.data.stage import Subset, read_subset
from emm.errors import UserError
from emm.files import checked, write_text
from emm.given import OPTIMUM, is_trained
from emm.ids import identity, run_id
from emm.owner import exclusive
from emm.processes import rank
from emm.provenance import provenance
from emm.sd import STABLE_DIFFUSION
from emm.spec import RECIPE_VERSION, TENSOR_CORES_VERSION, Recipe, digest, flatten, nested, parse
from emm.train import METRICS
from emm.train.schedules import epoch_at, epoch_size, evaluated_steps


def train_run(
    settings: Mapping[str, Any],
    subset_path: Path,
    record: Iterable[tuple[float, str | int]],
    ema: Sequence[float],
    output: Path,
    *,
    threads: int = 1,
    save_seconds: float = 300.0,
) -> dict[str, Any]:
    """Train what `settings` say on a subset file and write the run's record to `output`.

    record: (epochs, snapshots) of each evaluation, see `snapshot_steps`; ema: rates to track.
    Checkpoints, state and metrics.parquet stand beside the record, which is written last. The same
    call resumes. Of several processes that share a training (emm.train.team) the first writes; the
    others return nothing. UserError for settings that do not fit the subset, Interrupted when
    stopped.
    """
    recipe = parse(Recipe, nested(settings), "settings")
    subset = read_subset(subset_path)
    require_fit(subset, flatten(recipe), subset_path)
    settings = flatten(recipe) | {"data.size": subset.size}
    steps = sorted({s for pair in record for s in _steps(pair, settings)})
    _check_length(settings, steps[-1])
    if is_trained(settings):
        told = _train(recipe, subset, steps, ema, output.parent, threads, save_seconds)
        if told is None:
            return {}
        summary, steps = told
        checkpoints = [_entry(step, settings) for step in steps]
    else:
        summary, checkpoints = _untrained(recipe, subset, ema, output.parent)
    content = {
        "run": run_id(settings),
        "recipe_version": RECIPE_VERSION,
        "settings": _plain(nested(settings)),
        "ema": list(ema),
        **summary,
        "checkpoints": checkpoints,
        "made": provenance() | {"memory_mb": _peak_memory_mb()},
    }
    write_text(output, yaml.safe_dump(content, sort_keys=False))
    return content


def _check_length(settings: Mapping[str, Any], last: int) -> None:
    """A learning rate that falls to 0 does so at the end of train.epochs, which the id holds."""
    if settings["train.lr_schedule"] != "constant" and last != evaluated_steps(settings)[-1]:
        raise UserError(
            f"--record: ends at step {last}, train.epochs {settings['train.epochs']:g} at step "
            f"{evaluated_steps(settings)[-1]}; with train.lr_schedule "
            f"{settings['train.lr_schedule']} both have to be the same"
        )


def require_fit(subset: Subset, settings: Mapping[str, Any], path: Path) -> None:
    """UserError if `subset`, read from `path`, is not the one that dotted settings describe."""
    found = {
        "data.size": subset.size,
        "data.dummy_size": subset.n_dummy,
        "data.copies": int(subset.multiplicity.max()),
        "data.resolution": subset.images.shape[1],
    }
    for key, value in found.items():
        if settings[key] not in (None, value):
            raise UserError(f"{key} {settings[key]}: {path} has {value}")
    kind = settings["labels.kind"]
    if not _has_labels(subset, kind):
        raise UserError(f"labels.kind {kind}: {path} has other labels")


def _has_labels(subset: Subset, kind: str) -> bool:
    """Whether the labels of a subset can be of a kind; random ones can be any."""
    if kind == "none" or not subset.label_dim:
        return kind == "none" and not subset.label_dim
    each = unique_labels(subset)
    expected = {"true": subset.classes, "unique": each, "vectors": each}
    expected["constant"] = np.zeros_like(each)
    return kind == "random" or np.array_equal(subset.labels, expected[kind])


def unique_labels(subset: Subset) -> np.ndarray:
    """Labels of which each distinct image has its own, shared by its copies."""
    _, numbers = np.unique(subset.originals, return_inverse=True)
    return numbers


def _steps(pair: tuple[float, str | int], settings: Mapping[str, Any]) -> list[int]:
    epochs, snapshots = pair
    return evaluated_steps(settings | {"train.epochs": epochs, "eval.snapshots": snapshots})


def _train(
    recipe: Recipe,
    subset: Subset,
    steps: Sequence[int],
    ema: Sequence[float],
    folder: Path,
    threads: int,
    save_seconds: float,
) -> tuple[dict[str, Any], list[int]] | None:
    """What the record says of the training, and the steps of all whole checkpoints.

    None in a process that does not lead.
    """
    import torch

    from emm.nets.cost import parameters
    from emm.train.device import build_denoiser, choose_device
    from emm.train.loop import Plan
    from emm.train.team import joined

    torch.set_num_threads(threads)
    device = choose_device(recipe.train.device)
    settings = flatten(recipe) | {"data.size": subset.size}
    key, size, until = _identity(settings, subset), epoch_size(settings), slurm.stop_time()
    plan = Plan(key, recipe.train, size, tuple(ema), tuple(steps), save_seconds, until)
    fine_tunes = recipe.model.arch == STABLE_DIFFUSION
    denoiser = None if fine_tunes else build_denoiser(recipe, subset, device)
    # The lock comes before the others, who wait to be met and need not know why they are not.
    with nullcontext() if rank() else exclusive(folder), joined() as team:
        state, key, about = _fit(recipe, subset, denoiser, plan, folder, device, team)
    if not team.leads:
        return None
    recorded = recorded_steps(folder, key, ema)
    rows = [row for row in state.metrics if row[0] <= recorded[-1]]
    _write_metrics(folder / "metrics.parquet", rows)
    summary = {
        "parameters": parameters(state.flat.network),
        "device": _device_name(device),
        "processes": team.size,
        "seconds": round(rows[-1][4], 3),
        "loss": rows[-1][2],
        **about,
    }
    return summary, recorded


def _fit(
    recipe: Recipe, subset: Subset, denoiser: Any, plan: Any, folder: Path, device: Any, team: Any
) -> tuple[Any, str, dict[str, Any]]:
    """The state after a training, what identifies its checkpoints, and what it began from.

    denoiser: None where a model of others is fine-tuned.
    """
    from emm.train.device import as_tensors
    from emm.train.loop import train
    from emm.train.progress import Progress

    if team.size > plan.settings.batch_size:
        raise UserError(f"--processes {team.size}: a batch has {plan.settings.batch_size} images")
    if denoiser is None and team.size > 1:
        raise UserError("--processes: the fine-tuning of Stable Diffusion takes one GPU")
    with Progress("step", plan.steps, told=team.leads) as progress:
        if denoiser is not None:
            tensors = as_tensors(subset, device)
            return train(denoiser, *tensors, plan, folder, progress, team), plan.identity, {}
        from emm.sd.finetune import fine_tune

        state, base = fine_tune(recipe, subset, plan, folder, device, progress)
        return state, base.identity(plan.identity), {"base": base.record}


def _untrained(
    recipe: Recipe, subset: Subset, ema: Sequence[float], folder: Path
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What the record says of a run that trains nothing, and its one checkpoint."""
    summary = {"parameters": 0, "device": "cpu", "seconds": 0.0}
    checkpoint = {"step": 0, "epoch": 0.0, "file": None}
    if recipe.model.weights is not None:
        from emm.train.given import import_weights

        summary |= import_weights(recipe, subset, ema, folder)
        checkpoint = _entry(0, flatten(recipe) | {"data.size": len(subset)})
    elif recipe.model.arch != OPTIMUM:
        from emm.train.given import describe_denoiser

        summary |= describe_denoiser(recipe)
    _write_metrics(folder / "metrics.parquet", [])
    return summary, [checkpoint]


def _identity(settings: Mapping[str, Any], subset: Subset) -> str:
    """Digest of all that decides a trajectory: code, settings and the training set itself."""
    content = hashlib.sha256(np.ascontiguousarray(subset.images))
    content.update(np.ascontiguousarray(subset.labels))
    told = [RECIPE_VERSION, identity(settings), content.hexdigest()]
    if settings["train.precision"] != "fp32":
        told.append(TENSOR_CORES_VERSION)
    if settings["model.arch"] == STABLE_DIFFUSION:
        told += [list(subset.class_names), subset.classes.tolist()]
    return digest(told)


def recorded_steps(folder: Path, identity: str, ema: Sequence[float]) -> list[int]:
    """Steps of the whole checkpoints of a run that hold these EMA rates, of any plan."""
    from emm.train.loop import has_checkpoint

    paths = sorted(folder.glob("checkpoints/step-*.safetensors"))
    steps = [int(path.stem.removeprefix("step-")) for path in paths]
    return [s for s, path in zip(steps, paths, strict=True) if has_checkpoint(path, identity, ema)]


def _device_name(device: Any) -> str:
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu ({platform.processor() or platform.machine()})"


def _write_metrics(path: Path, rows: Sequence[Sequence[float]]) -> None:
    """Metrics of a training as Parquet: one row every half per cent."""
    import pandas as pd

    from emm.analyse.parquet import write_table

    frame = pd.DataFrame(list(rows), columns=list(METRICS), dtype=float)
    write_table(path, frame.astype({"step": "int64"}))


def _entry(step: int, settings: Mapping[str, Any]) -> dict[str, Any]:
    from emm.train.loop import checkpoint_path

    epoch = epoch_at(step, settings)
    return {"step": step, "epoch": epoch, "file": str(checkpoint_path(Path(), step))}


def _plain(content: Any) -> Any:
    """Content with lists for tuples, as YAML writes it."""
    if isinstance(content, Mapping):
        return {key: _plain(value) for key, value in content.items()}
    return list(content) if isinstance(content, tuple) else content


def _peak_memory_mb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def read_run(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The record of a run and its dotted settings; a damaged or foreign file is a UserError."""
    content = checked(path, _load_record)
    recipe = parse(Recipe, content["settings"], str(path))
    return content, flatten(recipe)


def _load_record(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError("not valid YAML") from error
    if not isinstance(content, dict) or not {"run", "settings", "checkpoints"} <= set(content):
        raise ValueError("not the record of a run")
    made = content.get("made")
    if not isinstance(made, dict) or "memory_mb" not in made:  # what is written last
        raise ValueError("the record of a run is cut off")
    return content
