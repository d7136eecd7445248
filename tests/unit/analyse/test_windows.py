"""Windows of known curves: one FID is good for all sizes, bounds beyond the training, intervals."""

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from emm.analyse.onset import runs_of
from emm.analyse.windows import window_table
from emm.errors import UserError
from emm.report.onset import onset_facts, print_onsets

STEPS = np.unique(np.ceil(4000 * 2.0 ** (-np.arange(16) / 2))).astype(int)


def rows(fids, hits=0.0, reach=None, steps=STEPS, samples=1000):
    """Runs of sizes with FIDs (K,) and ratios, as of a memorization table."""
    found = []
    for size, fid in fids.items():
        counted = np.round(samples * np.broadcast_to(hits, len(steps))).astype(int)
        about = {"run": f"n{size}", "evaluation": f"n{size}/e", "data.size": size, "train.seed": 0}
        about |= {"step": steps, "epoch": steps * 10 / size, "horizon": steps[-1] * 10 / size}
        about |= {"n_samples": samples, "n_memorized": counted}
        about |= {"memorization_ratio": counted / samples, "fid": fid, "experiments": "x"}
        ends = {} if reach is None else {"fid_low": fid - reach, "fid_high": fid + reach}
        found.append(pd.DataFrame({**about, **ends}))
    return pd.concat(found, ignore_index=True)


def power(at):
    """An FID of 10 at a step, that falls as its inverse."""
    return 10 * at / STEPS


def windows(table, level=0.01):
    return window_table(runs_of(table), level).set_index("data.size")


def test_good_is_the_same_for_all_sizes():
    """A copier's FID, lowest when training has hardly begun, is not good by being its own best."""
    few = 100 + np.arange(len(STEPS))
    found = windows(rows({10: few, 100: np.maximum(power(400), 4), 1000: power(400)}))
    assert found["limit"].unique() == pytest.approx(2.0)  # twice 10 * 400 / 4000
    assert found["tau_gen"].tolist()[:2] == [np.inf, np.inf]
    assert found["tau_gen"][1000] == pytest.approx(2000, rel=0.05)
    both = windows(rows({100: np.maximum(power(400), 1.9), 1000: power(400)}))
    assert both["tau_gen"][100] == pytest.approx(both["tau_gen"][1000], rel=0.02)


def test_a_minimum_at_the_end_is_censored():
    """FID still falls: a longer training would find a lower one, and good steps later."""
    found = windows(rows({1000: power(400)}))
    assert found[["fid_falls", "limit_falls"]].all(axis=None)
    short = STEPS <= 1000
    shorter = windows(rows({1000: power(400)[short]}, steps=STEPS[short]))
    assert shorter["tau_gen"].item() < found["tau_gen"].item()
    turned = np.append(power(400)[:-1], 3.0)
    assert not windows(rows({1000: turned}))["limit_falls"].any()


def test_good_from_the_first_checkpoint_on():
    """Better ones follow: the step is before; none follow: training made it only worse."""
    nearly = np.linspace(1.5, 1, len(STEPS))
    assert windows(rows({50: nearly}))["tau_gen"].item() == 0
    assert windows(rows({50: nearly[::-1]}))["tau_gen"].item() == np.inf
    assert windows(rows({50: np.full(len(STEPS), 5.0)}))["tau_gen"].item() == np.inf


def test_copies_before_or_after():
    memorized = 1 / (1 + (500 / STEPS) ** 4.0)
    found = windows(rows({1000: np.maximum(power(100), 2)}, memorized), 0.1)
    assert found["tau_gen"].item() == pytest.approx(250, rel=0.1)
    assert found["tau_mem"].item() == pytest.approx(500 / 9**0.25, rel=0.02)
    assert found["window"].item() > 0.95
    late = windows(rows({1000: np.maximum(power(800), 2)}, memorized), 0.1)
    assert late["tau_gen"].item() > late["tau_mem"].item()
    assert late["window"].item() < 0.05
    assert windows(rows({1000: power(100)}))["tau_mem"].item() == np.inf


def test_intervals_cover_the_truth():
    """FIDs drawn anew with the error that their intervals tell."""
    rng, inside = np.random.default_rng(0), []
    truth = np.maximum(power(200), 2)  # 4, twice the lowest, at step 500
    for _ in range(60):
        runs = runs_of(rows({400: truth + 0.5 * rng.standard_normal(len(STEPS))}, reach=0.98), 300)
        row = window_table(runs).iloc[0]
        inside.append(row["tau_gen_low"] <= 500 <= row["tau_gen_high"])
        assert row["tau_gen_low"] < row["tau_gen"] < row["tau_gen_high"]
    assert np.mean(inside) > 0.88


def test_without_fids():
    with pytest.raises(UserError, match="no column 'fid'"):
        windows(rows({50: power(400)}).drop(columns="fid"))


def test_printed(capsys):
    few = 100 + np.arange(len(STEPS))
    memorized = 1 / (1 + (3000 / STEPS) ** 4.0)
    facts = onset_facts(rows({10: few, 1000: power(400)}, memorized))
    print_onsets(facts, Console(width=300))
    printed = capsys.readouterr().out
    assert (
        "good: an FID of at most 2, for the lowest is 1 (1,000 images, step 4,000); it" in printed
    )
    assert "10 images: never good (its lowest FID is 100)" in printed
    assert "copies come first (good first in 0 % of draws)" in printed
