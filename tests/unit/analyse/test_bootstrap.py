"""The ratio as fewer samples would have given it."""

import numpy as np
import pandas as pd

from emm.analyse.bootstrap import bootstrapped

ROWS = pd.DataFrame(
    {"run": ["a", "b", "c"], "n_samples": 5000, "memorization_ratio": [0.9, 0.5, 0.0]}
)


def test_means_and_deviations_are_those_of_a_binomial():
    made = bootstrapped(ROWS, [100, 400], draws=4000)
    assert list(made["run"]) == ["a", "b", "c"] * 2
    assert list(made["eval.num_samples"]) == list(made["n_samples"]) == [100] * 3 + [400] * 3
    share = np.tile(ROWS["memorization_ratio"], 2)
    sd = np.sqrt(share * (1 - share) / made["n_samples"])
    np.testing.assert_allclose(made["memorization_ratio"], share, atol=4 * sd.max() / 60)
    np.testing.assert_allclose(made["memorization_ratio_sd"], sd, rtol=0.06, atol=1e-12)
    assert (made["memorization_ratio_low"] <= made["memorization_ratio"]).all()
    assert (made["memorization_ratio_high"] >= made["memorization_ratio"]).all()


def test_nothing_memorized_stays_nothing():
    made = bootstrapped(ROWS[ROWS["run"] == "c"], [10])
    assert made["memorization_ratio"].item() == made["memorization_ratio_sd"].item() == 0


def test_same_seed_same_numbers():
    again = bootstrapped(ROWS, [100, 400])
    pd.testing.assert_frame_equal(bootstrapped(ROWS, [100, 400]), again)
    other = bootstrapped(ROWS, [100, 400], seed=1)["memorization_ratio"]
    assert not other.equals(again["memorization_ratio"])
