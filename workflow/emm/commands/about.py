"""Commands that say what there is, what it costs, and what it took."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from emm.arguments import config_from, settings_from
from emm.commands import AsJson, ConfigFile, Device, PlanFolder, Selected, Set, app, limit_threads


@app.command()
def runs(
    more: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", hidden=True)] = None,
    config: ConfigFile = "config.yaml",
    scale: str | None = None,
    experiments: Selected = None,
    as_json: AsJson = False,
) -> None:
    """List the distinct runs of a config, their state and results."""
    from emm.listing import print_runs, run_rows

    names = ",".join([*([experiments] if experiments else []), *(more or [])])
    rows = run_rows(config_from(config, scale, names))
    if as_json:
        print(json.dumps(rows, indent=1))
    else:
        print_runs(rows)


@app.command()
def plan(
    config: ConfigFile = "config.yaml",
    scale: str | None = None,
    experiments: Selected = None,
    gpu: Annotated[
        str | None, typer.Option(help="Instead of the config's plan.gpu: a100, cpu, ... or a file.")
    ] = None,
    gpus: Annotated[
        int | None, typer.Option(min=1, help="GPUs held at a time; of the cpu, cores.")
    ] = None,
    output: PlanFolder = None,
    as_json: AsJson = False,
) -> None:
    """Say what everything costs before it runs: jobs, GPU-hours, time, disk; and draw the graph."""
    from emm.listing import print_plan
    from emm.plan.stage import write_plan

    changed = {"gpu": gpu, "gpus": gpus}
    catalog = config_from(config, scale, experiments)
    assumed = catalog.config.plan.model_copy(update={k: v for k, v in changed.items() if v})
    catalog = replace(catalog, config=catalog.config.model_copy(update={"plan": assumed}))
    folder = output or catalog.root / "plan"
    facts = write_plan(catalog, folder)
    if as_json:
        print(json.dumps(facts, indent=1))
    else:
        print_plan(facts, folder)


@app.command()
def calibrate(
    output: Annotated[Path, typer.Option(help="File to write (.yaml), for plan.gpu.")],
    device: Device = "auto",
    set: Set = [],  # noqa: B006
    seconds: Annotated[float, typer.Option(min=0, help="For the measurements, about.")] = 30.0,
    config: ConfigFile = "config.yaml",
) -> None:
    """Measure the speeds of this machine's GPU, or of a core, for `emm plan`."""
    limit_threads(1)
    from emm.listing import print_calibration, recipe_settings
    from emm.plan import calibrate as measured

    catalog, chosen = config_from(config), measured.resolved_device(device)
    settings = recipe_settings(measured.RECIPES[chosen.type], set, settings_from)
    gpu, timings = measured.calibrate(settings, chosen, seconds, output)
    print_calibration(gpu, timings)
    print(measured.compared(catalog, output))


@app.command()
def usage(
    config: ConfigFile = "config.yaml",
    scale: str | None = None,
    experiments: Selected = None,
    output: PlanFolder = None,
    as_json: AsJson = False,
) -> None:
    """Say what everything cost that ran: hours, GPU-hours, memory, against what was asked for."""
    from emm.listing import print_usage
    from emm.usage.stage import write_usage

    catalog = config_from(config, scale, experiments)
    folder = output or catalog.root / "plan"
    facts = write_usage(catalog, folder)
    if as_json:
        print(json.dumps(facts, indent=1))
    else:
        print_usage(facts, folder)


@app.command()
def network(
    recipe: Annotated[str, typer.Option(help="A name in workflow/recipes.yaml.")] = "ddpmpp",
    set: Set = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """Size and cost of a recipe's network: parameters, GFLOP per image, layers."""
    from emm.listing import network_facts, print_network

    facts = network_facts(recipe, set, settings_from)
    if as_json:
        print(json.dumps(facts, indent=1))
    else:
        print_network(facts)


@app.command()
def settings() -> None:
    """Explain every setting: name, default and meaning."""
    from emm.listing import print_settings

    print_settings()


@app.command()
def schema(folder: Annotated[Path, typer.Option(help="Where to write.")] = Path("schemas")) -> None:
    """Write the JSON schemas of config, experiments, recipes and scales, for editors."""
    from emm.schema import write_schemas

    for path in write_schemas(folder):
        print(path)
