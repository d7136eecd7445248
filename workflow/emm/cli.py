"""The command `emm`: one command per stage of the workflow, and those that people use alone.

Heavy libraries are imported by the commands that need them: planning needs neither torch nor
pandas.
"""

import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from emm.arguments import config_from, rate_from, record_from, settings_from
from emm.errors import Interrupted, UserError, ending_in_a_line
from emm.processes import is_member, rank

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Effective model memorization of diffusion models.",
)

CORES = os.cpu_count() or 1
SCORE_KEYS = (  # what `emm score` prints first
    *("n_samples", "n_training", "n_memorized"),
    *("memorization_ratio", "knn_distance", "duplicates"),
)
Set = Annotated[
    list[str],
    typer.Option("--set", metavar="KEY=VALUE", help="A setting that differs from its default."),
]
Threads = Annotated[int, typer.Option(min=1, help="CPU threads.")]
Output = Annotated[Path, typer.Option(help="File or folder to write.")]
Subset = Annotated[Path, typer.Option(help="Training set, as `emm subset` writes it.")]
Attempts = Annotated[
    Path | None, typer.Option(help="Log to append to: what this attempt takes, for `emm usage`.")
]
ConfigFile = Annotated[
    str, typer.Option("--config", metavar="FILE|JSON", help="A config file, or its content.")
]


@app.command()
def data(
    set: Set = [],  # noqa: B006
    cache: Annotated[Path, typer.Option(help="Downloaded and supplied data.")] = Path("data"),
    output: Annotated[Path | None, typer.Option(help="File to write.")] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Only look through the files that are there.")
    ] = False,
    threads: Annotated[int, typer.Option(min=1, help="Readers of large images.")] = min(4, CORES),
) -> None:
    """Fetch or generate a data source and write it in the one internal form."""
    s = settings_from(set)
    if check:
        _check_data(s, cache, threads)
        return
    if output is None:
        raise UserError("--output: name the file to write, or --check what is there")
    from emm.data.sources import load_source
    from emm.data.stage import write_source

    source = load_source(
        s["data.dataset"],
        path=s["data.path"],
        cache=cache,
        resolution=s["data.resolution"],
        threads=threads,
        seed=s["data.seed"],
        cross_width=s["data.cross_width"],
        cross_position=s["data.cross_position"],
        margin=s["data.cross_margin"],
    )
    write_source(output, source)


def _check_data(settings: dict[str, Any], cache: Path, threads: int) -> None:
    from emm.data.check import check_source
    from emm.data.sources import Place

    path, resolution = settings["data.path"], settings["data.resolution"]
    place = Place(None if path is None else Path(path), cache, resolution, threads)
    for line in check_source(settings["data.dataset"], place):
        print(line)


@app.command()
def subset(
    source: Path,
    set: Set = [],  # noqa: B006
    *,
    dummies: Annotated[Path | None, typer.Option(help="Source of data.dummy.")] = None,
    output: Output,
) -> None:
    """Choose the training set of a run from a source: images, resolution, labels, dummies."""
    from emm.data.stage import build_subset, read_source, write_subset

    s = settings_from(set)
    chosen = build_subset(
        read_source(source),
        size=s["data.size"],
        num_classes=None if s["data.only_class"] else s["data.num_classes"],
        only_class=s["data.only_class"],
        alpha=s["data.alpha"],
        selection=s["data.selection"],
        selection_seed=s["data.seed"],
        resolution=s["data.resolution"],
        label_kind=s["labels.kind"],
        label_classes=s["labels.num_classes"] or None,
        label_seed=s["labels.seed"],
        dummies=None if dummies is None else read_source(dummies),
        dummy_size=s["data.dummy_size"],
    )
    write_subset(output, chosen)


@app.command()
def train(
    subset: Subset,
    output: Output,
    record: Annotated[
        list[str],
        typer.Option(metavar="EPOCHS:SNAPSHOTS", help="Length, and checkpoints to keep."),
    ],
    set: Set = [],  # noqa: B006
    ema: Annotated[list[float], typer.Option(help="EMA rates to track.")] = [],  # noqa: B006
    threads: Threads = 1,
    save_every: Annotated[float, typer.Option(help="Seconds between saved states.")] = 300.0,
    processes: Annotated[int, typer.Option(min=0, help="One for each GPU to share; 0 as 1.")] = 1,
    attempts: Attempts = None,
) -> None:
    """Train a run. The same command resumes; the record of the run is written last."""
    threads = max(1, threads // max(1, processes))
    _limit_threads(threads)
    if processes > 1 and not is_member():
        from emm.train.team import launch

        launch(processes, sys.argv[1:])
        return
    from emm.attempts import recorded

    with recorded(None if rank() else attempts):
        from emm.train.stage import train_run

        settings = settings_from(set)
        pairs = [record_from(text) for text in record]
        rates = [rate_from(rate) for rate in ema] or [settings["train.ema"]]
        train_run(settings, subset, pairs, rates, output, threads=threads, save_seconds=save_every)


@app.command()
def import_weights(
    file: Annotated[Path, typer.Argument(help="A .pkl of EDM's code, .pt, or .safetensors.")],
    to: Annotated[Path, typer.Option(help="Folder of the run that is made.")],
    subset: Subset,
    recipe: Annotated[str, typer.Option(help="The network: a name in recipes.yaml.")] = "edm",
    set: Set = [],  # noqa: B006
) -> None:
    """Make a run of a network that others trained, for `emm sample`. No code of theirs is run."""
    _limit_threads(1)
    from emm.listing import recipe_settings
    from emm.train.given import import_run

    settings = recipe_settings(recipe, set, settings_from)
    named = {pair.partition("=")[0] for pair in set}
    content = import_run(file, settings, named, subset, to)
    print(f"{content['run']}: {content['parameters']:,} parameters")


@app.command()
def sample(
    run: Annotated[Path, typer.Option(help="Record of a run, as `emm train` writes it.")],
    subset: Subset,
    output: Output,
    set: Set = [],  # noqa: B006
    name: Annotated[str, typer.Option(help="Id of the evaluation.")] = "",
    threads: Threads = 1,
    batch_size: Annotated[int, typer.Option(min=1, help="Images at a time.")] = 256,
    attempts: Attempts = None,
) -> None:
    """Sample the checkpoints of a run into a folder."""
    _limit_threads(threads)
    from emm.attempts import recorded

    with recorded(attempts):
        from emm.diffusion.sampling import sample_run
        from emm.ids import EVALUATION_KEYS
        from emm.spec import among

        chosen = among(settings_from(set), EVALUATION_KEYS)
        sample_run(run, subset, chosen, output, name=name, threads=threads, batch_size=batch_size)


@app.command()
def score(
    samples: Annotated[Path, typer.Option(help="Array, folder of images, or `emm sample`'s.")],
    training: Annotated[Path, typer.Option(help="Array, folder of images, or `emm subset`'s.")],
    output: Output,
    summary: Annotated[Path | None, typer.Option(help="Summary of a run's checkpoints.")] = None,
    gallery: Annotated[Path | None, typer.Option(help="Pictures of a run's checkpoints.")] = None,
    gallery_size: Annotated[int, typer.Option(min=1, help="Samples in the gallery.")] = 64,
    duplicates: Annotated[
        Literal["distinct", "published"],
        typer.Option(help="Whether repeated training images count once, or as published."),
    ] = "distinct",
    device: Annotated[
        Literal["auto", "cpu", "cuda"], typer.Option(help="auto takes the GPU if there is one.")
    ] = "auto",
    threads: Threads = CORES,
    attempts: Attempts = None,
) -> None:
    """Find the two nearest training images of each sample, exactly, and count the copies."""
    _limit_threads(threads)
    if output.suffix != ".parquet":
        raise UserError(f"--output {output}: the scores are a Parquet file; end it with .parquet")
    from emm.attempts import recorded

    with recorded(attempts):
        from emm.score.runs import is_run, score_run

        if not is_run(samples):
            _score_images(samples, training, output, duplicates, device)
            return
        score_run(
            samples,
            training,
            output,
            summary=summary or output.with_name("summary.parquet"),
            pictures=gallery or output.with_name("gallery.npz"),
            picture_count=gallery_size,
            duplicates=duplicates,
            device=device,
        )


def _score_images(
    samples: Path, training: Path, output: Path, duplicates: str, device: str
) -> None:
    """Score images that are not of a run, and print what was found."""
    from emm.score.nearest import array_module
    from emm.score.stage import (
        ScoreTable,
        file_names,
        load_images,
        same_channels,
        score_arrays,
        summary_rows,
        write_scores,
    )

    images = same_channels(load_images(samples), load_images(training))
    result = score_arrays(*images, duplicates, array_module(device))
    files = {"sample_files": file_names(samples), "training_files": file_names(training)}
    table = ScoreTable(0.0, 0, 0.0, result, **files)
    write_scores(output, [table], run="", evaluation="")
    row = summary_rows([table])[0]
    row["duplicates"] = row.pop("n_duplicates")
    keys = [*SCORE_KEYS, *(k for k in row if k not in (*SCORE_KEYS, "epoch", "step", "ema"))]
    print(json.dumps({key: row[key] for key in keys}, indent=1))


@app.command()
def tables(
    memorization: Annotated[Path, typer.Option(help="Table to write: a row per checkpoint.")],
    emm: Annotated[Path, typer.Option(help="Table to write: a row per series.")],
    config: ConfigFile = "config.yaml",
) -> None:
    """Gather the summaries of all runs into the memorization and EMM tables."""
    from emm.analyse.stage import write_tables

    write_tables(config_from(config), memorization, emm)


@app.command()
def figure(
    name: str,
    memorization: Annotated[Path, typer.Option(help="The memorization table.")],
    emm: Annotated[Path, typer.Option(help="The EMM table.")],
    output: Annotated[Path, typer.Option(help="Path without suffix.")],
    config: ConfigFile = "config.yaml",
) -> None:
    """Draw one figure or table as svg, pdf, png and csv."""
    from emm.figures.stage import draw_figure

    draw_figure(config_from(config), name, memorization, emm, output)


@app.command()
def replicate(
    memorization: Annotated[Path, typer.Option(help="The memorization table.")],
    output: Annotated[Path, typer.Option(help="Table to write; .csv and .md go beside it.")],
    config: ConfigFile = "config.yaml",
) -> None:
    """Set published values and the papers' claims beside the results."""
    from emm.analyse.replication import write_replication

    write_replication(config_from(config), memorization, output)


@app.command()
def pages(
    figures: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FIGURE.csv]...", help="A caption (.rst) goes beside each."),
    ] = None,
    config: ConfigFile = "config.yaml",
    *,
    replication: Annotated[Path, typer.Option(help="The replication table.")],
    output: Annotated[Path, typer.Option(help="Page to write (.html); a summary goes beside it.")],
) -> None:
    """Write the replication table as a web page, and what was found as captions of figures."""
    from emm.report.stage import write_pages

    write_pages(config_from(config), replication, figures or [], output)


@app.command()
def gallery(
    output: Output,
    pictures: Annotated[Path, typer.Option(help="Folder for the pictures.")],
    title: Annotated[str, typer.Option(help="Heading of the page.")] = "Figures and tables",
    config: ConfigFile = "config.yaml",
    scale: str | None = None,
    experiments: str | None = None,
) -> None:
    """Write all figures and tables, with what was found, as one page of Markdown."""
    from emm.report.gallery import write_gallery

    catalog = config_from(config, scale, experiments)
    table = catalog.root / "tables" / "replication.parquet"
    write_gallery(catalog, table, output, pictures, title)


@app.command()
def summary(
    config: ConfigFile = "config.yaml",
    scale: str | None = None,
    experiments: str | None = None,
) -> None:
    """Print the memorization ratios and the EMM of every series, and where the figures are."""
    from emm.analyse.summary import experiment_tables, print_summary
    from emm.listing import console

    catalog = config_from(config, scale, experiments)
    names = ("memorization", "emm")
    print_summary(*(experiment_tables(catalog, name) for name in names), console())
    for name in catalog.figures:
        path = catalog.root / "figures" / f"{name}.png"
        if path.exists():
            print(f"{name:24s} {path}")
    report = catalog.root / "report.zip"
    if report.exists():
        print(f"{'report':24s} {report} (unpack it and open report/report.html)")


@app.command()
def runs(
    more: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", hidden=True)] = None,
    config: ConfigFile = "config.yaml",
    scale: str | None = None,
    experiments: Annotated[
        str | None, typer.Option(metavar="all|NAME...", help="Instead of the config's.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
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
    experiments: Annotated[
        str | None, typer.Option(metavar="all|NAME...", help="Instead of the config's.")
    ] = None,
    gpu: Annotated[str | None, typer.Option(help="Instead of the config's plan.gpu.")] = None,
    gpus: Annotated[int | None, typer.Option(min=1, help="GPUs held at a time.")] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder; by default plan/ at the scale.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
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
    device: Annotated[
        Literal["auto", "cpu", "cuda"], typer.Option(help="auto takes the GPU if there is one.")
    ] = "auto",
    set: Set = [],  # noqa: B006
    seconds: Annotated[float, typer.Option(min=0, help="For the measurements, about.")] = 30.0,
    config: ConfigFile = "config.yaml",
) -> None:
    """Measure the speeds of this machine's GPU, or of a core, for `emm plan`."""
    _limit_threads(1)
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
    experiments: Annotated[
        str | None, typer.Option(metavar="all|NAME...", help="Instead of the config's.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder; by default plan/ at the scale.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
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
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
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


def _limit_threads(threads: int) -> None:
    """Bound the thread pools of numerical libraries; has to come before they are imported."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(threads)


def _on_signal(number: int, _frame: Any) -> None:
    name = signal.Signals(number).name
    raise Interrupted(f"stopped by {name}; run the same command again to go on")


def main() -> None:
    """Entry point: exit code 0 done, 1 bug, 2 bad input, 75 interrupted and resumable."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _on_signal)
    with ending_in_a_line():
        app()


if __name__ == "__main__":
    main()
