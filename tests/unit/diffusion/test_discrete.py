"""Discrete diffusion with learned variance: published values, respacing, samplers, gradients."""

import math

import numpy as np
import pytest
import torch

from emm.diffusion.discrete import DiscreteDiffusion, cosine_betas, grey_levels
from emm.errors import UserError
from emm.train.schedules import respaced

PUBLISHED = DiscreteDiffusion.cosine(4000)
# eps_hat = 0.1, v = 0.2, x0 = 0.3, eps = 0.7 everywhere: step, x_t, bound x 4, loss, and, with
# clipping, x0_hat, mean, log variance and DDIM's x_{t-1}.
GOLDEN = [
    (0, 0.30219722, 1.6291217, 1.9891216, 0.30188462, 0.30188462, -11.797675, 0.30188462),
    (1, 0.30313024, 0.92730528, 1.2873052, 0.30268568, 0.30290461, -11.77949, 0.30299872),
    (10, 0.30781421, 0.11779819, 0.4777981, 0.30671439, 0.30770087, -11.301625, 0.30775687),
    (1000, 0.55010068, 0.00225011, 0.36225003, 0.55527294, 0.55010718, -8.0128164, 0.55014944),
    (2000, 0.70894319, 0.00161999, 0.36161992, 0.90790737, 0.70911211, -7.145134, 0.7091676),
    (3000, 0.76148385, 0.00230656, 0.36230648, 1.0, 0.76135975, -6.2675939, 0.76178324),
    (3999, 0.70000368, 1037.702, 1038.062, 1.0, 0.02252528, -0.00100056, 0.70038098),
]


def full(value: float, channels: int = 3) -> torch.Tensor:
    return torch.full((2, channels, 4, 4), value)


def test_published_schedule():
    betas, bar = cosine_betas(4000), PUBLISHED.alpha_bar
    assert betas[:2] == pytest.approx([9.865818813681315e-06, 1.01694148842979e-05], rel=1e-9)
    assert betas[2000] == pytest.approx(7.889355e-4, rel=1e-6)
    assert betas[-3:] == pytest.approx([0.55555544, 0.74999996, 0.999], abs=1e-8)
    assert (betas == 0.999).sum() == 1
    places = [0, 1000, 2000, 3000]
    expected = [0.99999013, 0.84673143, 0.49345398, 0.14399841]
    assert bar[places] == pytest.approx(expected, abs=1e-8)
    assert bar[3999] == pytest.approx(1.518e-10, rel=1e-3)
    assert PUBLISHED.posterior_variance[:2] == pytest.approx([5.007683e-06] * 2, rel=1e-6)
    assert np.log(PUBLISHED.posterior_variance[0]) == pytest.approx(-12.2045371, abs=1e-7)
    assert list(PUBLISHED.times[[0, 1, -1]]) == [0.0, 0.25, 999.75]


@pytest.mark.parametrize("row", GOLDEN, ids=lambda row: f"t{row[0]}")
def test_published_values(row):
    index, x_t, bound, loss, clean_hat, mean, log_variance, ddim = row
    step, output = torch.full((2,), index), torch.cat([full(0.1), full(0.2)], dim=1)
    x = PUBLISHED.noised(full(0.3), full(0.7), step)
    found = PUBLISHED.predict(output, x, step)
    near = {"rel": 2e-6, "abs": 2e-7}
    assert x.mean().item() == pytest.approx(x_t, **near)
    assert found.clean.mean().item() == pytest.approx(clean_hat, **near)
    assert found.mean.mean().item() == pytest.approx(mean, rel=2e-6, abs=1e-6)
    assert found.log_variance.mean().item() == pytest.approx(log_variance, rel=2e-6, abs=1e-6)
    stepped = PUBLISHED.ddim_step(found.clean, x, index)
    assert stepped.mean().item() == pytest.approx(ddim, rel=2e-6)
    found_bound = 4 * PUBLISHED.bound(output, full(0.3), full(0.7), step)
    assert found_bound[0].item() == pytest.approx(bound, rel=1e-4)
    found_loss = PUBLISHED.loss(output, full(0.3), full(0.7), step)
    assert found_loss.shape == (2,)
    assert found_loss[0].item() == pytest.approx(loss, rel=1e-5)


def test_respacing():
    assert respaced(4000, "250")[:4] == [0, 16, 32, 48]
    assert respaced(4000, "250")[-3:] == [3967, 3983, 3999]
    assert respaced(4000, "100")[:4] == [0, 40, 81, 121]
    assert respaced(4000, "ddim50") == list(range(0, 4000, 80))
    spaced = PUBLISHED.keep(respaced(4000, "250"))
    assert spaced.betas[1] == pytest.approx(1.9912585e-4, rel=1e-6)
    assert spaced.betas[-1] == pytest.approx(0.99999609, abs=1e-8)
    ddim = PUBLISHED.keep(respaced(4000, "ddim50"))
    assert ddim.betas[1] == pytest.approx(1.771776e-3, rel=1e-6)
    assert ddim.betas[-1] == pytest.approx(0.75289682, abs=1e-8)
    assert list(ddim.times[:2]) == [0.0, 20.0]
    assert spaced.alpha_bar == pytest.approx(PUBLISHED.alpha_bar[respaced(4000, "250")], rel=1e-9)
    assert PUBLISHED.keep(range(4000)).betas == pytest.approx(PUBLISHED.betas, rel=1e-9)
    assert respaced(10, "1") == [0]


@pytest.mark.parametrize("spacing", ["ddim300", "0", "4001", "ddim", "many", "-5"])
def test_impossible_spacings(spacing):
    with pytest.raises(UserError, match="spacing"):
        respaced(4000, spacing)


def test_the_bound_moves_only_the_variance():
    output = torch.randn(2, 6, 4, 4, requires_grad=True)
    PUBLISHED.bound(output, full(0.3), full(0.7), torch.tensor([0, 900])).sum().backward()
    noise, variance = output.grad.chunk(2, dim=1)
    assert not noise.any()
    assert variance.abs().amax(dim=(1, 2, 3)).min() > 0


def test_grey_level_probabilities_sum_to_one():
    """Over all 256 levels, as the likelihood of the first step sees them."""
    levels = (torch.arange(256) / 127.5 - 1).view(-1, 1, 1, 1)
    step = torch.zeros(256, dtype=torch.int64)
    output = torch.cat([torch.full_like(levels, 2.0), torch.zeros_like(levels)], dim=1)
    x = torch.full_like(levels, 0.2)
    noise = (x - math.sqrt(PUBLISHED.alpha_bar[0]) * levels) / math.sqrt(1 - PUBLISHED.alpha_bar[0])
    bits = PUBLISHED.bound(output, levels, noise, step)
    assert (2.0 ** -bits.double()).sum().item() == pytest.approx(1.0, abs=1e-4)


def ideal(point: torch.Tensor, process: DiscreteDiffusion):
    """Network that knows that all images are `point`, with the lower bound of the variance."""

    def network(x, time, labels):
        index = int(np.flatnonzero(process.times == time[0].item())[0])
        bar = process.alpha_bar[index]
        noise = (x - math.sqrt(bar) * point) / math.sqrt(1 - bar)
        return torch.cat([noise, -torch.ones_like(noise)], dim=1)

    return network


@pytest.mark.parametrize("spacing", ["30", "ddim25"])
def test_samplers_find_the_only_image(spacing):
    process = PUBLISHED.keep(respaced(4000, spacing))
    point = torch.rand(1, 3, 4, 4) * 1.6 - 0.8
    latents = torch.randn(5, 3, 4, 4)
    network = ideal(point, process)
    noises = (torch.randn_like(latents) for _ in range(len(process)))
    for found in (
        process.ancestral(network, latents, None, noises),
        process.ddim(network, latents, None),
    ):
        torch.testing.assert_close(found, point.expand_as(found), atol=1e-4, rtol=0)


def test_ancestral_samples_have_the_variance_of_the_data():
    """For data N(0, 0.25) the ideal network is known; a long chain gives that spread back."""
    process, variance = PUBLISHED.keep(respaced(4000, "400")), 0.25

    def network(x, time, labels):
        index = int(np.flatnonzero(process.times == time[0].item())[0])
        bar = process.alpha_bar[index]
        noise = math.sqrt(1 - bar) * x / (bar * variance + 1 - bar)
        return torch.cat([noise, -torch.ones_like(noise)], dim=1)

    generator = torch.Generator().manual_seed(3)
    latents = torch.randn(4000, 1, 2, 2, generator=generator)
    noises = (torch.randn(latents.shape, generator=generator) for _ in range(400))
    found = process.ancestral(network, latents, None, noises)
    assert found.std().item() == pytest.approx(0.5, abs=0.03)
    deterministic = process.ddim(network, latents, None)
    assert deterministic.std().item() == pytest.approx(0.5, abs=0.03)


def test_grey_levels():
    exact = torch.arange(256) / 127.5 - 1
    assert torch.equal(grey_levels(exact, "round"), torch.arange(256, dtype=torch.uint8))
    low = torch.arange(256, dtype=torch.int64) - grey_levels(exact).long()
    assert set(low.tolist()) == {0, 1}
    assert low.sum() == 63
    assert grey_levels(torch.tensor([-3.0, 3.0])).tolist() == [0, 255]
