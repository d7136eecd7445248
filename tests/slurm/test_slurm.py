"""The workflow on a real SLURM: what it asks for, and what it survives."""

import pytest
from scenarios import SCENARIOS

pytestmark = pytest.mark.slurm


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_on_slurm(scenario, outcomes):
    outcomes[scenario].result()
