"""Networks between the ideals: known networks get the kappa that they have to get."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from emm.data.sources import load_source
from emm.data.stage import build_subset, write_source, write_subset
from emm.diffusion.discrete import DiscreteDenoiser
from emm.errors import UserError
from emm.measure import LEVELS, PROBES, stage
from emm.measure.columns import ideals as columns
from emm.measure.ideals import SIGMAS, compare, levels_of
from emm.measure.stage import all_ideals, measure_ideals
from emm.spec import Recipe, flatten, nested
from emm.train.stage import train_run

CPU = torch.device("cpu")
SETTINGS = {
    "data.dataset": "random_ink",
    "data.resolution": 4,
    "data.size": 6,
    "data.selection": "random",
    "model.channels": 4,
    "model.channel_mult": [1],
    "model.num_blocks": 1,
    "model.attention_levels": [],
    "model.precond": "edm",
    "train.batch_size": 4,
    "train.epochs": 4.0,
    "train.device": "cpu",
    "eval.num_samples": 5,
    "eval.snapshots": 2,
}


def recipe_of(**changed) -> Recipe:
    settings = {name.replace("__", "."): value for name, value in changed.items()}
    return Recipe.model_validate(nested(SETTINGS | settings))


@pytest.fixture(scope="module")
def source():
    return load_source("random_ink", resolution=4, size=400)


@pytest.fixture(scope="module")
def subset(source):
    return build_subset(source, size=6, selection="random")


@pytest.fixture(scope="module")
def ideals(source, subset):
    return all_ideals(recipe_of(), subset, source, CPU, [0.3, 1.0, 3.0])


def mixed(ideals, share, beside=0.0):
    """A network that is some way from the true ideal to the empirical one, and beside the line."""
    found = {(at.probes.kind, at.sigma): at for of_kind in ideals.values() for at in of_kind}
    sizes = {kind: len(of_kind[0].probes.images) for kind, of_kind in ideals.items()}
    calls = iter(
        [(kind, at.sigma, start) for kind, of_kind in ideals.items() for at in of_kind
         for start in range(0, sizes[kind], 64)]
    )  # fmt: skip

    def network(x, sigma, labels=None):
        kind, level, start = next(calls)
        assert level == pytest.approx(float(sigma[0]))
        at = found[kind, level]
        rows = slice(start, start + len(x))
        true, empirical = at.true[rows], at.empirical[rows]
        apart = empirical - true
        off = torch.roll(apart, 1, dims=1)
        off = off - (off * apart).sum() / (apart * apart).sum() * apart
        size = apart.square().sum() / off.square().sum().clamp(min=1e-30)
        return true + share * apart + beside * off * size.sqrt()

    return network


@pytest.mark.parametrize("share", [0.0, 1.0, 0.3, -0.5])
def test_kappa_of_known_networks(ideals, share):
    for row in compare(mixed(ideals, share), ideals):
        if row["separation"] > 1e-6:
            assert row["kappa"] == pytest.approx(share, abs=1e-4)
            assert row["off_axis"] == pytest.approx(0, abs=2e-2)
            assert row["e_true"] == pytest.approx(share**2 * row["separation"], abs=1e-5)
            assert row["e_emp"] == pytest.approx((1 - share) ** 2 * row["separation"], abs=1e-5)


def test_distance_from_the_line(ideals):
    for row in compare(mixed(ideals, 0.4, beside=0.7), ideals):
        if row["separation"] > 1e-3:
            assert row["kappa"] == pytest.approx(0.4, abs=1e-3)
            assert row["off_axis"] == pytest.approx(0.7, abs=2e-2)


def test_levels_together_count_by_separation(ideals):
    rows = pd.DataFrame(compare(mixed(ideals, 0.3), ideals))
    for _, of_kind in rows.groupby("probes"):
        alone, together = of_kind[of_kind["sigma"].notna()], of_kind[of_kind["sigma"].isna()]
        assert len(alone) == 3
        for name in ("e_true", "e_emp", "e_clean", "separation"):
            assert together[name].item() == pytest.approx(alone[name].mean())


def test_intervals_cover(ideals):
    """Of networks whose share varies from image to image, with mean 0.5."""
    kind = {"held out": ideals["held out"]}
    generator, covered = torch.Generator().manual_seed(0), 0
    for _ in range(40):
        shares = 0.5 + 0.3 * torch.randn(PROBES, 1, 1, 1, generator=generator)

        def network(x, sigma, labels=None, shares=shares, at=[0]):  # noqa: B006
            level, start = divmod(at[0], -(-PROBES // 64))
            at[0] += 1
            rows = slice(64 * start, 64 * start + len(x))
            one = kind["held out"][level]
            return one.true[rows] + shares[rows] * (one.empirical - one.true)[rows]

        row = list(compare(network, kind))[-1]
        covered += row["kappa_low"] < 0.5 < row["kappa_high"]
    assert 33 <= covered <= 40


def test_the_oracle(ideals):
    """The true ideal denoises training and held-out images alike; the empirical one its own."""
    for kind, of_kind in ideals.items():
        for at in of_kind:
            true = (at.true - at.probes.images).square().mean()
            own = (at.empirical - at.probes.images).square().mean()
            assert (own < true + 1e-6) == (kind == "training")


def test_levels_of_a_discrete_process():
    assert levels_of(lambda x, sigma: x) == list(SIGMAS)
    assert len(SIGMAS) == LEVELS
    denoiser = DiscreteDenoiser(torch.nn.Identity(), 400)
    known = denoiser.process.tables["noise_to_signal"]
    found = levels_of(denoiser)
    assert len(found) > LEVELS - 3
    assert set(found) <= set(known.tolist())
    np.testing.assert_allclose(found, SIGMAS[: len(found)], rtol=0.2)


def test_a_discrete_network_that_knows_the_ideal(source, subset):
    """Told the noise that the true ideal would find, it has kappa 0."""
    recipe = recipe_of()
    denoiser = DiscreteDenoiser(torch.nn.Identity(), 400)
    sigmas = levels_of(denoiser)[4:10:2]
    ideals = all_ideals(recipe, subset, source, CPU, sigmas)
    process = denoiser.process

    class Oracle(torch.nn.Module):
        def forward(self, x, time, labels=None):
            step = int(torch.argmin((torch.from_numpy(process.times) - time[0]).abs()))
            signal, noise = (process.tables[name][step] for name in ("signal", "noise"))
            clean = (x / signal / (noise / signal) ** 2).tanh()  # of random ink
            found = (x - signal * clean) / noise
            return torch.cat([found, torch.zeros_like(found)], dim=1)

    denoiser.network = Oracle()
    for row in compare(denoiser, ideals):
        assert row["e_true"] < 1e-4
        assert row["e_true"] < 0.01 * row["separation"] or row["separation"] < 1e-2


def test_the_stage(source, subset, tmp_path):
    write_source(tmp_path / "source.npz", source)
    write_subset(tmp_path / "subset.npz", subset)
    recipe = recipe_of()
    run, output = tmp_path / "run.yaml", tmp_path / "ideals.parquet"
    train_run(flatten(recipe), tmp_path / "subset.npz", [(4.0, 2)], [recipe.train.ema], run)
    files = (tmp_path / "subset.npz", tmp_path / "source.npz")
    evaluation = {"eval.num_samples": 5, "eval.snapshots": 2, "train.epochs": 4.0}
    frame = measure_ideals(run, *files, evaluation, output, name="e")
    assert len(frame) == 2 * 2 * (LEVELS + 1)
    assert set(frame["probes"]) == {"training", "held out"}
    assert frame["evaluation"].str.endswith("/e").all()
    wide = columns(frame)
    assert wide["step"].tolist() == sorted(frame["step"].unique())
    together = frame[frame["sigma"].isna() & (frame["probes"] == "training")]
    assert wide["kappa_training_low"].tolist() == together["kappa_low"].tolist()
    again = measure_ideals(run, *files, evaluation, output, name="e")
    pd.testing.assert_frame_equal(frame, again)


def test_latents_have_no_ideals(monkeypatch):
    settings = flatten(recipe_of(model__base="tiny"))
    monkeypatch.setattr(stage, "read_run", lambda path: ({"run": "r"}, settings))
    with pytest.raises(UserError, match=r"run.yaml: ideals are those of pixels"):
        measure_ideals(Path("run.yaml"), Path("subset"), Path("source"), {}, Path("output"))
