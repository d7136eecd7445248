"""Commands that make tables, figures and pages of the results of all runs."""

from pathlib import Path
from typing import Annotated

import typer

from emm.arguments import config_from
from emm.commands import CORES, ConfigFile, Output, Selected, Threads, app


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
    measure: Annotated[
        Path | None, typer.Option(help="The table of a measure, for figures of one.")
    ] = None,
    config: ConfigFile = "config.yaml",
) -> None:
    """Draw one figure or table as svg, pdf, png and csv."""
    from emm.figures.stage import draw_figure

    draw_figure(config_from(config), name, memorization, emm, output, measure)


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
def recount(
    scores: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FILE|FOLDER]...", help="Scores; by default those of the config."),
    ] = None,
    threshold: Annotated[
        list[str], typer.Option(metavar="FRACTION", help="Of d1/d2, below which is a copy.")
    ] = ["1/3"],  # noqa: B006
    output: Annotated[Path | None, typer.Option(help="Table to write (.csv).")] = None,
    config: ConfigFile = "config.yaml",
    scale: str | None = None,
    experiments: Selected = None,
    threads: Threads = CORES,
) -> None:
    """Count the copies again at other thresholds, from the scores of all samples."""
    from emm.files import write_text
    from emm.listing import print_counts
    from emm.score.recount import recount, score_files, threshold_from

    wanted = [threshold_from(text) for text in threshold]
    paths = score_files(scores) if scores else config_from(config, scale, experiments).score_files
    rows = recount(paths, wanted, threads)
    if output is not None:
        write_text(output, rows.to_csv(index=False))
    print_counts(rows)
