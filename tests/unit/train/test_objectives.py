"""Trainings of other objectives and of the transformer: losses fall, parts of a batch agree."""

import pytest
import torch
from torch import nn

from emm.nets.dit import DiT
from emm.train.device import as_tensors, build_denoiser
from emm.train.gradients import Gradients
from emm.train.state import initial_state
from emm.train.step import Step, begin

CPU = torch.device("cpu")
DIT = {"model__arch": "dit", "model__channels": 8, "model__depth": 1, "model__heads": 2}
CASES = {
    "image": {"model__prediction": "image", "train__weighting": "min_snr"},
    "velocity": {"model__precond": "vp", "model__prediction": "velocity"},
    "sigmoid": {"train__weighting": "sigmoid"},
    "transformer": DIT | {"model__window": 1, "labels": "true", "train__lr": 0.01},
}


def test_settings_reach_the_denoiser(case):
    tiny = case(1, model__prediction="velocity", train__weighting="edm", **DIT)
    denoiser = build_denoiser(tiny.recipe, tiny.subset, CPU)
    assert type(denoiser.prediction).__name__ == "Velocity"
    assert denoiser.weight(torch.tensor(0.5)) == 8
    assert not denoiser.plain
    assert isinstance(denoiser.network, DiT)
    assert len(denoiser.network.blocks) == 1


@pytest.mark.parametrize("name", CASES)
def test_losses_fall(case, name):
    tiny = case(80, **CASES[name])
    denoiser = build_denoiser(tiny.recipe, tiny.subset, CPU)
    state, step = begin(denoiser, *as_tensors(tiny.subset, CPU), tiny.plan)

    def loss() -> float:
        with torch.no_grad():
            return sum(denoiser.loss(*vars(step.batch(n)).values()).item() for n in range(20))

    before = loss()
    for _ in range(80):
        step(state)
    assert loss() < 0.85 * before


@pytest.mark.parametrize("name", CASES)
def test_parts_of_a_batch_have_the_gradient_of_the_whole(case, name):
    tiny = case(1, **CASES[name] | {"train__batch_size": 6, "model__dropout": 0.3})
    denoiser = build_denoiser(tiny.recipe, tiny.subset, CPU)
    state = initial_state(denoiser.network, tiny.plan)
    batch = Step(denoiser, *as_tensors(tiny.subset, CPU), tiny.plan, state).batch(3)
    denoiser.train()
    nn.init.normal_(state.flat.values, std=0.1, generator=torch.Generator().manual_seed(1))
    found = []
    for parts in (1, 3):
        gradients = Gradients(denoiser, state.flat, 6, slice(0, 6))
        gradients.parts = parts
        loss, gradient = gradients(batch, 5)
        found.append((loss.clone(), gradient.clone()))
    torch.testing.assert_close(found[1][0], found[0][0], rtol=1e-5, atol=0)
    torch.testing.assert_close(found[1][1], found[0][1], rtol=1e-4, atol=1e-5)
