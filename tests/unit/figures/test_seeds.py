"""Figures of measures with every run made three times, as `seeds: 3` in config.yaml asks for."""

import numpy as np
import pandas as pd
import pytest
from made_up import galleries

from emm import catalog
from emm.analyse.metrics import METRICS
from emm.analyse.tables import emm_table
from emm.figures.draw import draw
from emm.figures.metrics import THRESHOLDS

MEASURED = ["onset", "halves", "quality", "criteria"]
BY = (("low", -0.05), ("high", 0.05))  # ends of all intervals
SHARES = [f"{name}{end}" for name in THRESHOLDS.values() for end in ("", "_held_out")]


@pytest.fixture(scope="module")
def planned() -> catalog.Catalog:
    return catalog.load({"experiments": MEASURED, "seeds": 3})


def memorization(found: catalog.Catalog, experiment: str) -> pd.DataFrame:
    """A table with any number in each column of a measure."""
    rng, rows = np.random.default_rng(0), []
    names = [*dict.fromkeys([*METRICS, *SHARES])]
    for row in (row for row in found.rows if row.experiment == experiment):
        for step in found.evaluations[row.run_id, row.evaluation_id].steps:
            hits = int(rng.integers(1, 399))
            epoch = step * row.settings["train.batch_size"] / row.settings["data.size"]
            about = {**row.settings, "run": row.run_id, "evaluation": row.key, "step": step}
            about |= {"epoch": epoch, "horizon": 1e9, "experiments": experiment, "n_samples": 400}
            values = dict(zip(names, rng.uniform(0.1, 0.9, len(names)), strict=True))
            ends = {f"{k}_{end}": v + by for k, v in values.items() for end, by in BY}
            counted = {"n_memorized": hits, "memorization_ratio": hits / 400, "n_training": 6}
            rows.append({**values, **ends, **about, **counted})
    return pd.DataFrame(rows)


@pytest.mark.parametrize("experiment", MEASURED)
def test_every_figure(planned, experiment, tmp_path):
    table = memorization(planned, experiment)
    assert table["train.seed"].nunique() == 3
    emms, pictures = emm_table(table), galleries(table)
    own = [figure for figure in planned.figures.values() if figure.experiment == experiment]
    assert own
    for figure in own:
        keys = {row.key for row in figure.rows}
        rows = table[table["evaluation"].isin(keys)]
        scaled = figure.figure.model_copy(update={"where": {}})
        draw(scaled, rows, emms, pictures, tmp_path / figure.name)
        assert (tmp_path / f"{figure.name}.png").exists()
