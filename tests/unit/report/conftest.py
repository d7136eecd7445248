"""A replication table with a row of each kind and verdict."""

import math

import pandas as pd
import pytest

from emm.report.verdicts import COLUMNS

NAN = math.nan
BLANK = dict.fromkeys(COLUMNS, "") | {
    **{"source": "gu2023", "experiment": "conditioning", "metric": "memorization_ratio"},
    **dict.fromkeys(("published", "published_low", "published_high"), NAN),
    **dict.fromkeys(("ours", "ours_low", "ours_high", "support"), NAN),
    **{"n_runs": 0, "comparable": True},
}
ROWS = (
    {"id": "v10", "figure": "fig10", "kind": "value", "verdict": "not measured",
     "statement": "Ratio at 500 images", "published": 50.0, "provenance": "paper-table"},
    {"id": "v5", "figure": "fig5a", "kind": "value", "verdict": "within", "n_runs": 1,
     "statement": "Ratio at 1000 images", "provenance": "paper-table",
     "published": 92.09, "published_low": 92.09, "published_high": 92.09,
     "ours": 92.4, "ours_low": 91.9, "ours_high": 92.9},
    {"id": "emm5", "figure": "fig5a", "kind": "value", "verdict": "outside", "n_runs": 4,
     "statement": "EMM", "metric": "emm", "provenance": "digitised",
     "published": 1000.0, "published_low": 900.0, "published_high": 1300.0,
     "ours": NAN, "ours_low": 2000.0, "ours_high": math.inf},
    {"id": "v2", "figure": "fig2", "kind": "value", "verdict": "outside", "n_runs": 3,
     "statement": "Ratio at <b>16x16</b> & *more*", "provenance": "paper-text",
     "published": 90.0, "published_low": 90.0, "published_high": 100.0,
     "ours": 98.6, "ours_low": 97.1, "ours_high": 99.2},
    {"id": "c5", "figure": "fig5a", "kind": "claim", "verdict": "supported", "n_runs": 6,
     "statement": "True labels raise the |D| of memorization_", "section": "6", "support": 0.97},
    {"id": "c2", "figure": "fig2", "kind": "claim", "verdict": "contradicted", "n_runs": 4,
     "statement": "It falls with resolution.", "section": "3.1", "support": 0.999,
     "ours": 4.8, "ours_low": 3.2, "ours_high": 6.4, "provenance": "interpreted",
     "note": "largest rise 4.8 points"},
    {"id": "c5x", "figure": "fig5", "kind": "claim", "verdict": "not measured",
     "statement": "Of all panels.", "section": "C.3", "provenance": "paper-text"},
)  # fmt: skip


@pytest.fixture
def replication() -> pd.DataFrame:
    """Seven rows: four values and three claims."""
    return pd.DataFrame([BLANK | row for row in ROWS])
