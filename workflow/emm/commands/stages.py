"""Commands of the stages that runs go through."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from emm.arguments import rate_from, record_from, settings_from
from emm.commands import CORES, Attempts, Device, Output, Set, Subset, Threads, app, limit_threads
from emm.data.catalogue import source_info
from emm.errors import UserError
from emm.processes import is_member, rank

if TYPE_CHECKING:
    from emm.data.sources import Source
    from emm.data.stage import Subset as Stored

SCORE_KEYS = (  # what `emm score` prints first
    *("n_samples", "n_training", "n_memorized"),
    *("memorization_ratio", "knn_distance", "duplicates"),
)


@app.command()
def data(
    set: Set = [],  # noqa: B006
    cache: Annotated[Path, typer.Option(help="Downloaded and supplied data.")] = Path("data"),
    output: Annotated[Path | None, typer.Option(help="File to write.")] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Only look through the files that are there.")
    ] = False,
    near_duplicates: Annotated[
        bool,
        typer.Option("--near-duplicates", help="--check: also compare all images of data.size."),
    ] = False,
    threads: Annotated[int, typer.Option(min=1, help="Readers of large images.")] = min(4, CORES),
) -> None:
    """Fetch or generate a data source and write it in the one internal form."""
    s = settings_from(set)
    if check:
        _check_data(s, cache, threads)
        if near_duplicates:
            _count_duplicates(s, cache, threads)
        return
    if near_duplicates:
        raise UserError("--near-duplicates: goes with --check")
    if output is None:
        raise UserError("--output: name the file to write, or --check what is there")
    from emm.data.stage import write_source

    write_source(output, _load(s, cache, threads))


def _load(settings: dict[str, Any], cache: Path, threads: int) -> "Source":
    from emm.data.sources import load_source

    s = settings
    return load_source(
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


def _check_data(settings: dict[str, Any], cache: Path, threads: int) -> None:
    from emm.data.check import check_source
    from emm.data.sources import Place

    path, resolution = settings["data.path"], settings["data.resolution"]
    place = Place(None if path is None else Path(path), cache, resolution, threads)
    for line in check_source(settings["data.dataset"], place):
        print(line)


def _count_duplicates(settings: dict[str, Any], cache: Path, threads: int) -> None:
    """Print how many images of the training set that settings describe repeat, or nearly do."""
    limit_threads(threads)
    from emm.score.near import count_duplicates

    native = source_info(settings["data.dataset"]).resolution
    wanted = [side for side in (settings["data.resolution"], native) if side]
    smaller = settings | {"data.resolution": min(wanted, default=None)}
    found = count_duplicates(_build(_load(smaller, cache, threads), smaller).images)
    print(
        f"{found.images:,} images: {found.repeated:,} repeat an earlier one, {found.near:,} others "
        "are less than a third as far from one image as from the next"
    )


@app.command()
def subset(
    source: Path,
    set: Set = [],  # noqa: B006
    *,
    dummies: Annotated[Path | None, typer.Option(help="Source of data.dummy.")] = None,
    output: Output,
) -> None:
    """Choose the training set of a run from a source: images, resolution, labels, dummies."""
    from emm.data.stage import read_source, write_subset

    added = None if dummies is None else read_source(dummies)
    write_subset(output, _build(read_source(source), settings_from(set), added))


def _build(source: "Source", settings: dict[str, Any], dummies: "Source | None" = None) -> "Stored":
    from emm.data.stage import build_subset

    s = settings
    return build_subset(
        source,
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
        dummies=dummies,
        dummy_size=s["data.dummy_size"],
        duplicated=s["data.duplicated"],
        copies=s["data.copies"],
        part=s["data.part"],
    )


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
    processes: Annotated[
        int, typer.Option(min=0, help="That share the training, with a GPU each.")
    ] = 1,
    attempts: Attempts = None,
) -> None:
    """Train a run. The same command resumes; the record of the run is written last."""
    threads = max(1, threads // max(1, processes))
    limit_threads(threads)
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
    limit_threads(1)
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
    limit_threads(threads)
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
    augment: Annotated[
        Literal["none", "flip", "shift", "flip_shift"],
        typer.Option(help="What became of the training images of samples that are not of a run."),
    ] = "none",
    shift: Annotated[int, typer.Option(min=1, help="Largest shift of --augment, pixels.")] = 2,
    device: Device = "auto",
    threads: Threads = CORES,
    attempts: Attempts = None,
) -> None:
    """Find the two nearest training images of each sample, exactly, and count the copies."""
    limit_threads(threads)
    if output.suffix != ".parquet":
        raise UserError(f"--output {output}: the scores are a Parquet file; end it with .parquet")
    from emm.attempts import recorded

    with recorded(attempts):
        from emm.diffusion.samples import is_samples
        from emm.score.runs import score_run

        if not is_samples(samples):
            _score_images(samples, training, output, duplicates, (augment, shift), device)
            return
        if augment != "none":
            raise UserError("--augment: a run's samples say themselves how it was trained")
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
    samples: Path,
    training: Path,
    output: Path,
    duplicates: str,
    augmentation: tuple[str, int],
    device: str,
) -> None:
    """Score images that are not of a run, and print what was found."""
    from emm.data.orbits import moves
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
    result = score_arrays(*images, duplicates, array_module(device), moves(*augmentation))
    files = {"sample_files": file_names(samples), "training_files": file_names(training)}
    table = ScoreTable(0.0, 0, 0.0, result, **files)
    write_scores(output, [table], run="", evaluation="")
    row = summary_rows([table])[0]
    row["duplicates"] = row.pop("n_duplicates")
    keys = [*SCORE_KEYS, *(k for k in row if k not in (*SCORE_KEYS, "epoch", "step", "ema"))]
    print(json.dumps({key: row[key] for key in keys}, indent=1))
