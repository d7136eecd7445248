"""Commands that measure more of a run's checkpoints and samples than copies."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from emm.arguments import config_from, settings_from
from emm.commands import (
    CORES,
    Attempts,
    ConfigFile,
    Output,
    Set,
    Subset,
    Threads,
    app,
    limit_threads,
)


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
    device: Annotated[
        Literal["auto", "cpu", "cuda"], typer.Option(help="auto takes the GPU if there is one.")
    ] = "auto",
    threads: Threads = CORES,
    attempts: Attempts = None,
) -> None:
    """Count copies by several criteria side by side, with their false positives."""
    limit_threads(threads)
    from emm.attempts import recorded
    from emm.errors import UserError

    with recorded(attempts):
        from emm.measure.sampled import compare_images, measure_criteria
        from emm.score.runs import is_run

        if not is_run(samples):
            if source or output:
                raise UserError(f"{samples}: --source and --output are for samples of a run")
            found = compare_images(samples, training, held_out, device)
            print(json.dumps({k: None if v != v else v for k, v in found.items()}, indent=1))
            return
        if not source or not output or held_out:
            raise UserError("a run's samples: give --source and --output, and no --held-out")
        measure_criteria(samples, training, source, output, device=device)


@app.command()
def gather(
    measure: str,
    output: Output,
    config: ConfigFile = "config.yaml",
) -> None:
    """Gather a measure of all evaluations that have it into one table."""
    from emm.analyse.stage import gather_measure
    from emm.errors import UserError
    from emm.measure import MEASURES
    from emm.spec import suggestion

    if measure not in MEASURES:
        raise UserError(f"no measure {measure!r}{suggestion(measure, MEASURES)}")
    gather_measure(config_from(config), measure, output)
