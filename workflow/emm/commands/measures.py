"""Commands that measure more of a run's checkpoints and samples than copies."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from emm.arguments import config_from, settings_from
from emm.commands import Attempts, ConfigFile, Output, Set, Subset, Threads, app, limit_threads


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
def twins(
    samples: Annotated[Path, typer.Option(help="Samples of a run, as `emm sample` writes them.")],
    subset: Subset,
    twin: Annotated[Path, typer.Option(help="Samples of the run on the other half of the data.")],
    twin_subset: Annotated[Path, typer.Option(help="Training set of that run.")],
    output: Output,
    device: Annotated[
        Literal["auto", "cpu", "cuda"], typer.Option(help="auto takes the GPU if there is one.")
    ] = "auto",
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
    from emm.errors import UserError
    from emm.measure import MEASURES
    from emm.spec import suggestion

    if measure not in MEASURES:
        raise UserError(f"no measure {measure!r}{suggestion(measure, MEASURES)}")
    gather_measure(config_from(config), measure, output)
