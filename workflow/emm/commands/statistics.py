"""Commands that plan measurements and read advice off the results."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from emm.arguments import config_from, settings_from
from emm.commands import AsJson, ConfigFile, Memorization, Selected, Set, app
from emm.errors import UserError


@app.command()
def power(
    ratios: Annotated[
        tuple[float, float] | None, typer.Option(metavar="P Q", help="Two true ratios in %.")
    ] = None,
    emm_factor: Annotated[
        float | None, typer.Option(min=0, help="Or one true EMM as a multiple of the other.")
    ] = None,
    steepness: Annotated[
        float, typer.Option(min=0, help="Points that a ratio falls per doubling at the EMM.")
    ] = 20.0,
    samples: Annotated[int, typer.Option(min=1, help="Per run.")] = 10_000,
    seeds: Annotated[int, typer.Option(min=1, help="Runs per side.")] = 1,
    run_sd: Annotated[
        float | None,
        typer.Option(min=0, help="Sd of a ratio of 50 % over runs, in points; else the scale's."),
    ] = None,
    scale: Annotated[str, typer.Option(help="Whose spread over runs is taken.")] = "paper",
    wanted: Annotated[float, typer.Option(min=0, max=100, help="Power in %.")] = 80.0,
    as_json: AsJson = False,
) -> None:
    """Say how surely a claim would come out as supported, and what samples or seeds it takes."""
    from emm.analyse import power as planned
    from emm.expansion import load_scale

    if (ratios is None) == (emm_factor is None):
        raise UserError("emm power: give --ratios P Q, or --emm-factor F")
    sd = load_scale(scale).run_sd if run_sd is None else run_sd
    if ratios is not None:
        pair = planned.checked_ratios(ratios)
        what = f"{ratios[0]:g} % against {ratios[1]:g} %"

        def chance(effort: planned.Effort) -> float:
            return planned.power_of_ratios(*pair, effort, sd)
    else:
        if not emm_factor or emm_factor == 1 or not steepness:
            raise UserError("emm power: --emm-factor is above 0 and not 1, --steepness above 0")
        what = f"EMMs by a factor of {emm_factor:g}, {steepness:g} points per doubling"

        def chance(effort: planned.Effort) -> float:
            return planned.power_of_emm(emm_factor, steepness, effort, sd)

    effort = planned.Effort(samples, seeds)
    facts = {"power": chance(effort), "samples": samples, "seeds": seeds, "run_sd": sd}
    facts |= {"wanted": wanted / 100, "needed": planned.needed(chance, effort, wanted / 100)}
    print(json.dumps(facts, indent=1) if as_json else _in_words(what, facts))


def _in_words(what: str, facts: dict[str, Any]) -> str:
    """What `emm power` prints."""
    samples, seeds, needed = facts["samples"], facts["seeds"], facts["needed"]
    own = f"{samples:,} samples, {_seeds(seeds)} per side, {facts['run_sd']:g} points between runs"
    more = "no number of samples" if needed["samples"] is None else f"{needed['samples']:,} samples"
    runs = "no number of seeds" if needed["seeds"] is None else _seeds(needed["seeds"])
    return (
        f"{what}: {own}\npower {100 * facts['power']:.0f} %\n"
        f"for {100 * facts['wanted']:g} %: {more} with {_seeds(seeds)}, "
        f"or {runs} with {samples:,} samples"
    )


def _seeds(number: int) -> str:
    return f"{number:,} seed{'s' * (number != 1)}"


@app.command()
def advice(
    size: Annotated[int | None, typer.Option(min=2, help="Images of the training set.")] = None,
    set: Set = [],  # noqa: B006
    config: ConfigFile = "config.yaml",
    scale: str | None = None,
    experiments: Selected = None,
    memorization: Memorization = None,
    output: Annotated[Path | None, typer.Option(help="File to write (.md), not to print.")] = None,
    picture: Annotated[
        Path | None, typer.Option(help="Draw what moves the EMM: PICTURE.svg, .pdf, .png, .csv.")
    ] = None,
) -> None:
    """Say where the EMM lies by the results at hand, and what moves it, with intervals."""
    from emm.analyse.advice import distinct_effects, families
    from emm.analyse.simulate import Measurements
    from emm.analyse.summary import memorization_table
    from emm.files import write_text
    from emm.report.advice import advice_page

    catalog, chosen = config_from(config, scale, experiments), settings_from(set)
    named = {pair.partition("=")[0] for pair in set}
    rows = memorization_table(catalog, memorization)
    found = families(catalog, Measurements(rows, catalog.scale.run_sd))
    page = advice_page(catalog, found, size, {key: chosen[key] for key in sorted(named)})
    if picture is not None:
        from emm.figures.advice import draw_effects

        draw_effects(distinct_effects(found), picture)
    if output is None:
        print(page, end="")
    else:
        write_text(output, page)


@app.command()
def onset(
    config: ConfigFile = "config.yaml",
    scale: str | None = None,
    experiments: Selected = None,
    memorization: Memorization = None,
    as_json: AsJson = False,
) -> None:
    """Say when in training memorization sets in, and how that grows with the training set."""
    from emm.analyse.summary import memorization_table
    from emm.listing import console, without_infinities
    from emm.report.onset import onset_facts, print_onsets

    catalog = config_from(config, scale, experiments)
    rows = memorization_table(catalog, memorization)
    facts = onset_facts(rows)
    if as_json:
        print(json.dumps(without_infinities(facts), indent=1))
    else:
        print_onsets(facts, console())
