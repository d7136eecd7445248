"""Preconditioning: published outputs, an independent float64 form, and what training draws."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from scipy import stats
from torch import nn

from emm import nets
from emm.diffusion.precondition import (
    PRECONDITIONINGS,
    VP,
    Denoiser,
    karras_sigmas,
    to_uint8,
    to_unit,
)
from emm.nets.published import from_edm_state_dict

GOLDEN = Path(__file__).parents[2] / "golden"
FILES = sorted(path.stem for path in GOLDEN.glob("*_*.safetensors") if "iddpm" not in path.stem)
LEVELS = [80, 57.586, 40.786, 28.375, 19.352, 12.910, 8.401, 5.315, 3.257]
LEVELS += [1.923, 1.088, 0.5853, 0.2964, 0.1395, 0.0599, 0.0229, 0.00753, 0.002]


def golden(name: str) -> tuple[Denoiser, dict[str, torch.Tensor]]:
    """The denoiser of a golden file, and the file's tensors."""
    with safe_open(GOLDEN / f"{name}.safetensors", "pt") as archive:
        config = json.loads(archive.metadata()["config"])
        tensors = {key: archive.get_tensor(key) for key in archive.keys()}  # noqa: SIM118
    model = SimpleNamespace(
        arch="ncsnpp" if config["encoder_type"] == "residual" else "ddpmpp",
        channels=config["channels"],
        channel_mult=config["channel_mult"],
        num_blocks=config["num_blocks"],
        attention_levels=(config["attention_level"],),
        time_embedding=config["embedding_type"],
        fourier_scale=16.0,
        dropout=0.13,
        skip_mask=config["skip_mask"],
    )
    size, label_dim = config["img_resolution"], config["label_dim"]
    network = nets.build(model, resolution=size, image_channels=3, label_dim=label_dim)
    weights = {k.partition(".")[2]: t for k, t in tensors.items() if k[:5] in ("param", "buffe")}
    network.load_state_dict(from_edm_state_dict(weights, network))
    return Denoiser(network, config["precond"]).eval(), tensors


def table(name: str, sigma: np.ndarray) -> dict[str, np.ndarray]:
    """Gu et al. 2023 and Karras et al. 2022, Table 1, written down again in float64."""
    one = np.ones_like(sigma)
    time = (np.sqrt(0.01 + 39.8 * np.log1p(sigma**2)) - 0.1) / 19.9
    rows = {
        "vp": (one, -sigma, 1 / np.sqrt(1 + sigma**2), 999 * time, sigma**-2),
        "ve": (one, sigma, one, np.log(sigma / 2), sigma**-2),
        "edm": (
            0.25 / (sigma**2 + 0.25),
            0.5 * sigma / np.sqrt(sigma**2 + 0.25),
            1 / np.sqrt(sigma**2 + 0.25),
            np.log(sigma) / 4,
            (sigma**2 + 0.25) / (0.5 * sigma) ** 2,
        ),
    }
    return dict(zip(("c_skip", "c_out", "c_in", "c_noise", "weight"), rows[name], strict=True))


@pytest.mark.parametrize("name", FILES)
def test_denoised_images_equal_the_published_ones(name):
    denoiser, tensors = golden(name)
    sigma = tensors["input.sigma"]
    with torch.no_grad():
        output = denoiser(tensors["input.x"], sigma, tensors.get("input.labels"))
    expected = tensors["output.denoised"]
    assert (output - expected).abs().max() < 1e-5 * expected.abs().max()
    found = denoiser.precond.coefficients(sigma).c_noise
    torch.testing.assert_close(found, tensors["network.c_noise"], rtol=1e-6, atol=0)


def test_all_published_denoisers_are_compared():
    assert len(FILES) == 6


@pytest.mark.parametrize("name", PRECONDITIONINGS)
def test_coefficients_and_weight(name):
    sigma = torch.logspace(-3, 2, 41, dtype=torch.float64)
    found = PRECONDITIONINGS[name].coefficients(sigma)._asdict()
    found["weight"] = PRECONDITIONINGS[name].weight(sigma)
    for key, expected in table(name, sigma.numpy()).items():
        np.testing.assert_allclose(found[key].numpy(), expected, rtol=1e-9, atol=1e-15, err_msg=key)


class Nonlinear(nn.Module):
    """A network that depends on all its inputs, in float64."""

    def forward(self, x, c_noise, labels):
        shift = torch.cos(c_noise + (0 if labels is None else labels)).view(-1, 1, 1, 1)
        return torch.sin(3 * x + shift) + 0.2 * x.roll(1, dims=-1)


@pytest.mark.parametrize("labels", [None, torch.arange(40) % 3])
@pytest.mark.parametrize("name", PRECONDITIONINGS)
def test_loss_is_the_weighted_squared_error_of_the_denoiser(name, labels):
    generator = torch.Generator().manual_seed(3)
    denoiser = Denoiser(Nonlinear(), name)
    images, noise = torch.randn(2, 40, 3, 4, 4, dtype=torch.float64, generator=generator)
    sigma = torch.logspace(-2.7, 2, 40, dtype=torch.float64)
    row = {key: torch.from_numpy(v) for key, v in table(name, sigma.numpy()).items()}
    noisy = images + sigma.view(-1, 1, 1, 1) * noise
    denoised = denoiser(noisy, sigma, labels)
    by_hand = row["c_skip"].view(-1, 1, 1, 1) * noisy + row["c_out"].view(-1, 1, 1, 1) * (
        Nonlinear()(row["c_in"].view(-1, 1, 1, 1) * noisy, row["c_noise"], labels)
    )
    torch.testing.assert_close(denoised, by_hand, rtol=1e-9, atol=1e-9)
    expected = (row["weight"] * (denoised - images).square().sum((1, 2, 3))).mean()
    torch.testing.assert_close(
        denoiser.loss(images, labels, noise, sigma), expected, rtol=1e-8, atol=0
    )


@pytest.mark.parametrize("name", PRECONDITIONINGS)
def test_the_target_gives_back_the_clean_images(name):
    precond = PRECONDITIONINGS[name]
    images, noise = torch.randn(2, 5, 1, 2, 2, dtype=torch.float64)
    sigma = torch.logspace(-2, 2, 5, dtype=torch.float64).view(-1, 1, 1, 1)
    c_skip, c_out, _, _ = precond.coefficients(sigma)
    clean = c_skip * (images + sigma * noise) + c_out * precond.target(images, noise, sigma)
    torch.testing.assert_close(clean, images, rtol=0, atol=1e-12)


def test_vp_time_is_the_inverse_of_sigma():
    time = torch.linspace(1e-5, 1, 1001, dtype=torch.float64)
    torch.testing.assert_close(VP().time(VP().sigma_at(time)), time, rtol=1e-9, atol=1e-12)


def test_vp_range_and_time_features():
    ends = VP().sigma_at(torch.tensor([1e-5, 1.0]))
    np.testing.assert_allclose(ends, [0.0010005, 152.167], rtol=1e-5)
    c_noise = VP().coefficients(torch.tensor([80, 0.002], dtype=torch.float64)).c_noise
    np.testing.assert_allclose(c_noise, [932.58, 0.0398], rtol=1e-4)


def drawn(name: str, count: int = 50_000) -> np.ndarray:
    generator = torch.Generator().manual_seed(11)
    return PRECONDITIONINGS[name].draw_sigma(count, generator).double().numpy()


def test_vp_trains_on_uniform_times():
    time = VP().time(torch.from_numpy(drawn("vp"))).numpy()
    assert stats.kstest(time, stats.uniform(1e-5, 1 - 1e-5).cdf).pvalue > 0.01
    assert 0.001 < drawn("vp").min() <= drawn("vp").max() < 152.168


def test_ve_trains_on_log_uniform_levels():
    low, high = np.log([0.02, 100])
    assert stats.kstest(np.log(drawn("ve")), stats.uniform(low, high - low).cdf).pvalue > 0.01
    assert 0.02 <= drawn("ve").min() <= drawn("ve").max() <= 100


def test_edm_trains_on_log_normal_levels():
    assert stats.kstest(np.log(drawn("edm")), stats.norm(-1.2, 1.2).cdf).pvalue > 0.01


@pytest.mark.parametrize("name", PRECONDITIONINGS)
def test_draws_follow_the_generator_alone(name):
    torch.manual_seed(0)
    first = drawn(name, 5)
    torch.manual_seed(1)
    np.testing.assert_array_equal(drawn(name, 5), first)


@pytest.mark.parametrize(("precision", "tolerance"), [("bf16", 0.03), ("fp16", 0.004)])
@pytest.mark.parametrize("name", ["ddpmpp_vp", "ncsnpp_ve", "ddpmpp_edm_labels10"])
def test_low_precision_is_near_the_published_output(name, precision, tolerance):
    full, tensors = golden(name)
    denoiser = Denoiser(full.network, name.split("_")[1], precision).eval()
    seen = []
    full.network.stem.register_forward_hook(lambda *args: seen.append(args[2].dtype))
    arguments = tensors["input.x"], tensors["input.sigma"], tensors.get("input.labels")
    with torch.no_grad():
        output = denoiser.raw(*arguments)
        assert denoiser(*arguments).dtype == output.dtype == torch.float32
    assert set(seen) == {denoiser.dtype}
    expected = tensors["network.output"]
    assert (output - expected).square().mean().sqrt() < tolerance * expected.std()


def test_every_grey_level_comes_back():
    levels = torch.arange(256, dtype=torch.uint8)
    assert to_unit(levels).dtype == torch.float32
    assert torch.equal(to_uint8(to_unit(levels)), levels)
    assert torch.equal(to_uint8(levels.double() / 127.5 - 1), levels)


def test_grey_levels_are_truncated_and_clipped():
    x = torch.tensor([-9.0, -1.0, 1.0, 9.0, 0.0, 0.9 / 127.5, 0.1, -0.1], dtype=torch.float64)
    assert to_uint8(x).tolist() == [0, 0, 255, 255, 128, 128, 140, 115]


def test_noise_levels_of_the_sampler():
    np.testing.assert_allclose(karras_sigmas(18, 0.002, 80, 7), LEVELS, rtol=2e-3)
    ends = karras_sigmas(18, 0.02, 80, 7)
    assert (len(ends), ends[0], ends[-1]) == (18, pytest.approx(80), pytest.approx(0.02))
    exact = (80 ** (1 / 7) + 5 / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    assert karras_sigmas(18, 0.002, 80, 7)[5] == pytest.approx(exact, rel=1e-12)


def test_last_noise_level_is_that_of_the_preconditioning():
    lowest = {name: precond.sigma_min for name, precond in PRECONDITIONINGS.items()}
    assert lowest == {"vp": 0.002, "ve": 0.02, "edm": 0.002}
