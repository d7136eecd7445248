"""The commands of `emm`: one per stage of the workflow, and those that people use alone.

Heavy libraries are imported by the commands that need them: planning needs neither torch nor
pandas.
"""

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Effective model memorization of diffusion models.",
)

CORES = os.cpu_count() or 1
Set = Annotated[
    list[str],
    typer.Option("--set", metavar="KEY=VALUE", help="A setting that differs from its default."),
]
Threads = Annotated[int, typer.Option(min=1, help="CPU threads.")]
Device = Annotated[
    Literal["auto", "cpu", "cuda"], typer.Option(help="auto takes the GPU if there is one.")
]
Output = Annotated[Path, typer.Option(help="File or folder to write.")]
Subset = Annotated[Path, typer.Option(help="Training set, as `emm subset` writes it.")]
Attempts = Annotated[
    Path | None, typer.Option(help="Log to append to: what this attempt takes, for `emm usage`.")
]
ConfigFile = Annotated[
    str, typer.Option("--config", metavar="FILE|JSON", help="A config file, or its content.")
]
Selected = Annotated[
    str | None,
    typer.Option("--experiments", metavar="all|NAME...", help="Instead of the config's."),
]
Memorization = Annotated[
    Path | None, typer.Option(help="The memorization table; by default the config's.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
PlanFolder = Annotated[Path | None, typer.Option(help="Folder; by default plan/ at the scale.")]


def limit_threads(threads: int) -> None:
    """Bound the thread pools of numerical libraries; has to come before they are imported."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(threads)
