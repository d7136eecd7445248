"""What a measure adds to the memorization table: columns, a row per checkpoint."""

import pandas as pd

IDEALS = {"held out": "", "training": "_training"}  # kinds of probes, and the ends of their columns
OF_IDEALS = (
    *("e_true", "e_emp", "e_gauss", "e_clean", "separation"),
    *("kappa", "kappa_low", "kappa_high", "off_axis"),
)


def ideals(rows: pd.DataFrame) -> pd.DataFrame:
    """Comparisons over all levels of noise together.

    Those at training images have names of their own, with the ends of intervals last:
    kappa_training_low.
    """
    together = rows[rows["sigma"].isna()]
    parts = []
    for kind, end in IDEALS.items():
        part = together[together["probes"] == kind].set_index("step")[list(OF_IDEALS)]
        parts.append(part.rename(columns=lambda name, end=end: _named(name, end)))
    return pd.concat(parts, axis=1).reset_index()


def _named(name: str, end: str) -> str:
    for last in ("_low", "_high"):
        if name.endswith(last):
            return f"{name.removesuffix(last)}{end}{last}"
    return f"{name}{end}"


def whole(rows: pd.DataFrame) -> pd.DataFrame:
    """All that is measured of a checkpoint, which has one row."""
    return rows.drop(columns=["run", "evaluation", "twin", "epoch"], errors="ignore")


COLUMNS = {"ideals": ideals, "criteria": whole, "quality": whole, "twins": whole}
