"""Commands that measure more of a run's checkpoints and samples than copies."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from emm.arguments import config_from, settings_from
from emm.commands import (
    CORES,
    AsJson,
    Attempts,
    ConfigFile,
    Device,
    Output,
    Set,
    Subset,
    Threads,
    app,
    limit_threads,
)
from emm.errors import UserError
from emm.measure import FEATURES

OF_IMAGES = "--json: is for images; what is measured of a run becomes the table --output"


@app.command()
def ideals(
    run: Annotated[Path, typer.Option(help="Record of a run, as `emm train` writes it.")],
    subset: Subset,
    source: Annotated[Path, typer.Option(help="Source of the training set, as `emm data` does.")],
    output: Output,
    set: Set = [],  # noqa: B006
    name: Annotated[str, typer.Option(help="Id of the evaluation.")] = "",
    threads: Threads = 1,
    attempts: Attempts = None,
) -> None:
    """Compare checkpoints with the ideal denoiser of the data and with the one that memorizes."""
    limit_threads(threads)
    from emm.attempts import recorded

    with recorded(attempts):
        from emm.ids import EVALUATION_KEYS
        from emm.measure.stage import measure_ideals
        from emm.spec import among

        chosen = among(settings_from(set), EVALUATION_KEYS)
        measure_ideals(run, subset, source, chosen, output, name=name, threads=threads)


@app.command()
def criteria(
    samples: Annotated[Path, typer.Option(help="Array, folder of images, or `emm sample`'s.")],
    training: Annotated[Path, typer.Option(help="Array, folder of images, or `emm subset`'s.")],
    source: Annotated[
        Path | None, typer.Option(help="Of a run's samples: source of its training set.")
    ] = None,
    held_out: Annotated[
        Path | None,
        typer.Option(help="Of other samples: images like the training images, but not of them."),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Table to write, of a run's samples.")] = None,
    as_json: AsJson = False,
    device: Device = "auto",
    threads: Threads = CORES,
    attempts: Attempts = None,
) -> None:
    """Count copies by several criteria side by side, with their false positives."""
    limit_threads(threads)
    from emm.attempts import recorded

    with recorded(attempts):
        from emm.diffusion.samples import is_samples
        from emm.measure.sampled import compare_images, measure_criteria

        if not is_samples(samples):
            if source or output:
                raise UserError(f"{samples}: --source and --output are for samples of a run")
            _print(compare_images(samples, training, held_out, device), as_json)
            return
        if as_json:
            raise UserError(OF_IMAGES)
        if not source or not output or held_out:
            raise UserError("a run's samples: give --source and --output, and no --held-out")
        measure_criteria(samples, training, source, output, device=device)


@app.command()
def twins(
    samples: Annotated[Path, typer.Option(help="Samples of a run, as `emm sample` writes them.")],
    subset: Subset,
    twin: Annotated[Path, typer.Option(help="Samples of the run on the other half of the data.")],
    twin_subset: Annotated[Path, typer.Option(help="Training set of that run.")],
    output: Output,
    device: Device = "auto",
    threads: Threads = 1,
    attempts: Attempts = None,
) -> None:
    """Compare what two networks, trained on disjoint images, make of the same noise."""
    limit_threads(threads)
    from emm.attempts import recorded

    with recorded(attempts):
        from emm.measure.twins import Side, measure_twins

        measure_twins(Side(samples, subset), Side(twin, twin_subset), output, device=device)


@app.command()
def gather(
    measure: str,
    output: Output,
    config: ConfigFile = "config.yaml",
) -> None:
    """Gather a measure of all evaluations that have it into one table."""
    from emm.analyse.stage import gather_measure
    from emm.measure import MEASURES
    from emm.spec import suggestion

    if measure not in MEASURES:
        raise UserError(f"no measure {measure!r}{suggestion(measure, MEASURES)}")
    gather_measure(config_from(config), measure, output)


@app.command()
def features(
    source: Annotated[Path, typer.Option(help="Source with classes, as `emm data` writes it.")],
    output: Output,
    resolution: Annotated[
        int | None, typer.Option(min=1, help="Of the images, where the source's are larger.")
    ] = None,
    device: Device = "auto",
    threads: Threads = 1,
    attempts: Attempts = None,
) -> None:
    """Train a small classifier on the labels of a source, whose features `emm quality` takes."""
    limit_threads(threads)
    from emm.attempts import recorded

    with recorded(attempts):
        import torch

        from emm.data.stage import read_source
        from emm.measure.features import write_classifier
        from emm.train.device import choose_device

        torch.set_num_threads(threads)
        place = choose_device(device)
        accuracy = write_classifier(output, read_source(source), resolution, place)
        print(f"{output}: held-out accuracy {100 * accuracy:.1f} %")


@app.command()
def quality(
    samples: Annotated[Path, typer.Option(help="Array, folder of images, or `emm sample`'s.")],
    reference: Annotated[
        Path, typer.Option(help="Held-out images; of a run's samples, the source they are of.")
    ],
    training: Annotated[
        Path | None, typer.Option(help="Array, folder of images, or `emm subset`'s.")
    ] = None,
    features: Annotated[
        Literal[FEATURES], typer.Option(help="What images are compared by.")
    ] = "pixels",
    weights: Annotated[Path | None, typer.Option(help="File of all features but pixels.")] = None,
    output: Annotated[Path | None, typer.Option(help="Table of a run's checkpoints.")] = None,
    as_json: AsJson = False,
    device: Device = "auto",
    threads: Threads = CORES,
    attempts: Attempts = None,
) -> None:
    """Compare samples with held-out images: FID, KID, precision, recall, density, coverage."""
    limit_threads(threads)
    from emm.attempts import recorded

    with recorded(attempts):
        from emm.diffusion.samples import is_samples

        if not is_samples(samples):
            if output is not None:
                raise UserError(f"{samples}: --output is for samples of a run")
            chosen = {"kind": features, "weights": weights, "device": device}
            _print(_quality_of(samples, reference, training, chosen), as_json)
            return
        if as_json:
            raise UserError(OF_IMAGES)
        if training is None or output is None:
            raise UserError("--training, --output: the samples of a run need both")
        from emm.measure.quality import measure_quality

        chosen = {"kind": features, "weights": weights, "device": device, "threads": threads}
        measure_quality(samples, training, reference, output, **chosen)


def _quality_of(
    samples: Path, reference: Path, training: Path | None, chosen: Mapping[str, Any]
) -> dict[str, float]:
    """Quality of images that are not of a run; chosen: features, weights and device."""
    from emm.measure.quality import compare_images
    from emm.score.stage import load_images, same_channels

    images, real = same_channels(load_images(samples), load_images(reference))
    own = None if training is None else same_channels(load_images(training), images)[0]
    return compare_images(images, real, own, **chosen)


def _print(found: Mapping[str, float], as_json: bool) -> None:
    """Print what was measured of images that are not of a run."""
    from emm.listing import print_measured, without_infinities

    if as_json:
        print(json.dumps(without_infinities(found), indent=1))
    else:
        print_measured(found)
