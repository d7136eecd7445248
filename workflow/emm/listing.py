"""What the command line lists: runs with their state, networks with their cost, settings."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from emm.analyse.names import PER_IMAGE
from emm.catalog import Catalog, Run
from emm.data.catalogue import SOURCES
from emm.errors import UserError
from emm.expansion import load_recipes
from emm.resolve import fill, label_classes
from emm.sd import STABLE_DIFFUSION
from emm.spec import DEFAULTS, Recipe, flatten, nested, parse_recipe, suggestion

if TYPE_CHECKING:
    import pandas as pd

    from emm.plan.calibrate import Timing
    from emm.plan.gpus import Gpu

DONE, RESUMABLE, MISSING = "done", "resumable", "missing"
RESULTS = ("evaluation", "epoch", "n_samples", "n_memorized", "memorization_ratio", "knn_distance")


def run_rows(catalog: Catalog) -> list[dict[str, Any]]:
    """The distinct runs of a catalog: id, settings, experiments, state and results."""
    return [_run_row(catalog, run) for run in catalog.runs.values()]


def _run_row(catalog: Catalog, run: Run) -> dict[str, Any]:
    folder = catalog.run_folder(run.id)
    summaries = _summaries(catalog, run)
    return {
        "id": run.id,
        "experiments": sorted(run.experiments),
        "state": _state(catalog, run),
        "epochs": run.epochs,
        "ema": run.ema,
        "settings": dict(run.settings),
        "folder": str(folder),
        "results": [row for path in summaries if path.exists() for row in _results(path)],
    }


def _state(catalog: Catalog, run: Run) -> str:
    """Done when every evaluation is scored, resumable when a training has left something."""
    folder = catalog.run_folder(run.id)
    if all(path.exists() for path in _summaries(catalog, run)):
        return DONE
    left = ("run.yaml", "state.safetensors", "state.previous.safetensors")
    return RESUMABLE if any((folder / name).exists() for name in left) else MISSING


def _summaries(catalog: Catalog, run: Run) -> list[Path]:
    return [catalog.evaluation_folder(run.id, name) / "summary.parquet" for name in run.evaluations]


def _results(path: Path) -> list[dict[str, Any]]:
    from emm.analyse.parquet import read_rows

    return [{name: row[name] for name in RESULTS} for row in read_rows(path)]


def print_runs(rows: list[dict[str, Any]]) -> None:
    """A line per run: id, state, epochs, best memorization ratio."""
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("Run", "State", "Experiments"):
        table.add_column(name, overflow="fold")
    for name in ("Epochs", "Best ratio"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        ratios = [result["memorization_ratio"] for result in row["results"]]
        best = f"{100 * max(ratios):.1f} %" if ratios else "-"
        experiments = ", ".join(row["experiments"])
        table.add_row(row["id"], row["state"], experiments, f"{row['epochs']:g}", best)
    console().print(table)
    states = [row["state"] for row in rows]
    counts = ", ".join(f"{states.count(s)} {s}" for s in (DONE, RESUMABLE, MISSING))
    print(f"{len(rows)} runs: {counts}")


def print_counts(rows: "pd.DataFrame") -> None:
    """The ratio at the best checkpoint of each file of scores, a column per threshold."""
    thresholds = sorted(set(rows["threshold"]))
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("Scores", overflow="fold")
    table.add_column("Checkpoints", justify="right")
    for threshold in thresholds:
        table.add_column(f"below {threshold:.3g}", justify="right", no_wrap=True)
    best = rows.pivot_table("memorization_ratio", "file", "threshold", "max", sort=False)
    counts = rows.groupby("file")["step"].nunique()
    for file, ratios in best.iterrows():
        texts = (f"{100 * ratios[threshold]:.1f} %" for threshold in thresholds)
        table.add_row(escape(file), str(counts[file]), *texts)
    console().print(table)


def without_infinities(content: Any) -> Any:
    """The same for JSON, which knows no infinity and no NaN: null."""
    if isinstance(content, dict):
        return {key: without_infinities(value) for key, value in content.items()}
    if isinstance(content, list):
        return [without_infinities(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def print_measured(found: Mapping[str, float]) -> None:
    """A line per column of a measure that has a value: 95 % interval, and held-out images'."""
    from emm.analyse.metrics import metric

    ends = ("_low", "_high")
    beside = {
        name
        for name, value in found.items()
        if name.removesuffix("_held_out") in found.keys() - {name} and not math.isnan(value)
    }
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("Column", overflow="fold")
    table.add_column("Measure")
    for name in ("Value", "95 % interval", *(["Held out"] if beside else [])):
        table.add_column(name, justify="right", no_wrap=True)
    for name, value in found.items():
        if name.endswith(ends) or name in beside or math.isnan(value):
            continue
        about = metric(name)
        texts = [
            "" if math.isnan(number) else f"{about.factor * number:.4g}"
            for number in (found.get(f"{name}{end}", math.nan) for end in ("", *ends, "_held_out"))
        ]
        interval = f"{texts[1]} to {texts[2]}" if texts[1] else ""
        cells = (texts[0], interval, *([texts[3]] if beside else []))
        table.add_row(name, about.label, *cells)
    console().print(table)


def print_plan(facts: Mapping[str, Any], folder: Path) -> None:
    """What a plan comes to, by experiment and in all."""
    from emm.plan.page import hours

    kind = "gpu" if facts["gpu_hours"] else "cpu"
    name = "GPU-hours" if facts["gpu_hours"] else "Core-hours"
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("Experiment")
    for heading in ("Runs", "Jobs", name, "of its own", "GB"):
        table.add_column(heading, justify="right")
    for row in facts["experiments"]:
        costs = (hours(row[f"{own}{kind}_hours"]) for own in ("", "own_"))
        texts = (f"{row['runs']:,}", f"{row['jobs']:,}", *costs, f"{row['final_gb']:,.1f}")
        table.add_row(row["experiment"], *texts)
    console().print(table)
    left = f" ({hours(facts['left_gpu_hours'])} left)" if facts["gpu_hours"] else ""
    print(
        f"{facts['runs']:,} runs, {facts['jobs']:,} jobs, {hours(facts[f'{kind}_hours'])} "
        f"{name.replace('Core', 'core')}{left} on {facts['gpu']}; on {facts['gpus']} of them "
        f"{hours(facts['wall_hours'])} hours, the longest chain takes "
        f"{hours(facts['longest_chain_hours'])}; {hours(facts['final_gb'])} GB in the end, "
        f"{hours(facts['peak_gb'])} at most"
    )
    print(f"speeds: {facts['speeds']}")
    print(f"{folder}/plan.html draws the jobs, jobs.csv lists them")


def print_calibration(gpu: "Gpu", timings: "Sequence[Timing]") -> None:
    """Images per second as they were measured and as a plan has them, and the speeds."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("Images per second")
    for name in ("Precision", "Pixels", "Batch", "Measured", "Planned", "Planned / measured"):
        table.add_column(name, justify="right")
    for timing in timings:
        side, planned = timing.settings["data.resolution"], timing.planned(gpu)
        rates = (f"{timing.images / seconds:,.0f}" for seconds in (timing.seconds, planned))
        about = ("training" if timing.is_training else "sampling, a pass", timing.precision)
        ratio = f"{timing.seconds / planned:.2f}"
        table.add_row(*about, f"{side}x{side}", str(timing.images), *rates, ratio)
    console().print(table)
    speeds = ", ".join(f"{name} {speed:.3g}" for name, speed in gpu.operations.items())
    print(f"{gpu.title}: operations per second {speeds}; {gpu.step_seconds:.3g} s of a step of the")
    print(f"basic network beyond them; {gpu.start_seconds:.3g} s until `emm train` has done a step")


def print_usage(facts: Mapping[str, Any], folder: Path) -> None:
    """What ran and what it took, by experiment and in all."""
    from emm.plan.page import hours

    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("Experiment")
    for name in ("Jobs", "Attempts", "Hours", "GPU-hours", "of its own", "planned"):
        table.add_column(name, justify="right")
    for row in facts["experiments"]:
        counts = [f"{row[key]:,}" for key in ("jobs", "attempts")]
        used = ("hours", "gpu_hours", "own_gpu_hours", "planned_gpu_hours")
        table.add_row(row["experiment"], *counts, *(hours(row[key]) for key in used))
    console().print(table)
    print(
        f"{facts['attempts']:,} attempts at {facts['jobs']:,} of {facts['all_jobs']:,} jobs, "
        f"{facts['finished_jobs']:,} of which finished, in {hours(facts['hours'])} hours (planned "
        f"{hours(facts['planned_hours'])}); GPU-hours: {hours(facts['gpu_hours'])} (planned "
        f"{hours(facts['planned_gpu_hours'])} on {facts['gpu']})"
    )
    for line in facts["notes"]:
        print(f"note: {line}")
    print(
        f"{folder}/usage.html shows what was asked for and used, usage.parquet lists the attempts"
    )


def network_facts(
    recipe: str, pairs: list[str], read: Callable[[list[str]], Mapping[str, Any]]
) -> dict[str, Any]:
    """Parameters, forward GFLOP per image (a multiply-add counts as two) and layers."""
    import torch

    from emm import nets
    from emm.nets.cost import forward_flops, layers, parameters

    settings = recipe_settings(recipe, pairs, read)
    model = Recipe.model_validate(nested(settings)).model
    if model.arch == "optimum":
        raise UserError("the optimum has no network")
    if model.arch == STABLE_DIFFUSION:
        raise UserError("the network of stable_diffusion is the U-Net of model.base")
    info = fill(settings)
    with torch.device("meta"):
        built = nets.build(
            model,
            resolution=settings["data.resolution"] or info.resolution or 32,
            image_channels=info.channels or 3,
            label_dim=label_dim(settings),
            label_vectors=_label_vectors(settings),
        )
    gflop = forward_flops(built) / 1e9
    return {
        "recipe": recipe,
        "parameters": parameters(built),
        "forward_gflop": gflop,
        "training_gflop": 3 * gflop,
        "layers": layers(built),
    }


def recipe_settings(
    recipe: str, pairs: list[str], read: Callable[[list[str]], Mapping[str, Any]]
) -> dict[str, Any]:
    """Dotted settings of a recipe, with KEY=VALUE pairs over them."""
    recipes = load_recipes()
    if recipe not in recipes:
        raise UserError(f"--recipe: no recipe {recipe!r}{suggestion(recipe, recipes)}")
    wanted = read(pairs)
    named = {pair.partition("=")[0] for pair in pairs}
    changed = {key: wanted[key] for key in named}
    return flatten(parse_recipe(DEFAULTS | recipes[recipe] | changed, "--set"))


def label_dim(settings: Mapping[str, Any]) -> int:
    """Width of the network's label input; UserError where it follows from unknown data."""
    width = label_classes(settings)
    if not width and settings["labels.kind"] != "none":
        each = settings["labels.kind"] in PER_IMAGE
        needed = "data.size" if each else "data.num_classes"
        raise UserError(f"{needed}: needed for {settings['labels.kind']} labels of this source")
    return width


def _label_vectors(settings: Mapping[str, Any]) -> Any:
    import torch

    if settings["labels.kind"] != "vectors":
        return None
    return torch.empty(label_dim(settings), settings["labels.dim"])


def print_network(facts: Mapping[str, Any]) -> None:
    """The layers of a network and their sum."""
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("Layer", "Kind", "Output"):
        table.add_column(name)
    table.add_column("Parameters", justify="right")
    for row in facts["layers"]:
        kind = f"{row['kind']}, attention" if row["attention"] else row["kind"]
        shape = "x".join(str(part) for part in row["shape"])
        table.add_row(row["name"], kind, shape, f"{row['parameters']:,}")
    console().print(table)
    print(
        f"{facts['recipe']}: {facts['parameters']:,} parameters, "
        f"{facts['forward_gflop']:.3f} GFLOP per image forward, "
        f"{facts['training_gflop']:.3f} in training"
    )


def print_settings() -> None:
    """Every setting with its default and meaning."""
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("Setting", "Default", "Allowed", "Meaning"):
        table.add_column(name, overflow="fold")
    definitions = Recipe.model_json_schema()["$defs"]
    for group, field in Recipe.model_fields.items():
        for key, schema in definitions[field.annotation.__name__]["properties"].items():
            default = as_yaml(DEFAULTS[f"{group}.{key}"])
            values = ", ".join(SOURCES) if key == "dataset" else allowed(schema)
            row = (f"{group}.{key}", default, values, schema["description"])
            table.add_row(*map(escape, row))
    console().print(table)


def as_yaml(value: Any) -> str:
    """A value as YAML has it: null, [2, 2], true, words."""
    return value if isinstance(value, str) else json.dumps(value)


def allowed(schema: Mapping[str, Any]) -> str:
    """Allowed values in words, from their JSON schema."""
    if "anyOf" in schema:
        return " or ".join(allowed(part) for part in schema["anyOf"])
    if "const" in schema or "enum" in schema:
        return ", ".join(schema.get("enum", [schema.get("const")]))
    kind = {"string": "text", "array": "list of integers"}.get(schema["type"], schema["type"])
    bounds = {
        "minimum": "from {:,}",
        "exclusiveMinimum": "above {:,}",
        "maximum": "to {:,}",
        "exclusiveMaximum": "below {:,}",
    }
    limits = [text.format(schema[name]) for name, text in bounds.items() if name in schema]
    limits += ["all, or bits"] if "pattern" in schema else []
    return " ".join([kind, *limits])


def console() -> Console:
    """Standard output; files and pipes get whole lines, of whatever width."""
    output = Console()
    return output if output.is_terminal else Console(width=1000)
