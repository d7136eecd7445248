"""Training of a discrete process as Yoon et al. 2023 do it, against a loop written plainly."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch

from emm.data.sources import load_source
from emm.data.stage import build_subset
from emm.errors import Interrupted
from emm.seeds import derive
from emm.spec import Recipe, nested
from emm.train import loop
from emm.train.device import as_tensors, build_denoiser
from emm.train.loop import Plan
from emm.train.order import DataOrder
from emm.train.schedules import LOG_SNAPSHOTS, annealed, snapshot_steps

CPU = torch.device("cpu")
SETTINGS = {
    "data.dataset": "mondrian",
    "data.size": 10,
    "data.resolution": 8,
    "data.cross_margin": 1,
    "model.arch": "iddpm",
    "model.channels": 8,
    "model.channel_mult": [1, 2],
    "model.num_blocks": 1,
    "model.attention_levels": [2],
    "model.heads": 2,
    "model.groups": 4,
    "model.dropout": 0.0,
    "model.precond": "cosine",
    "train.lr": 1e-3,
    "train.batch_size": 4,
    "train.warmup_epochs": 0.0,
    "train.order": "shuffled",
    "train.ema": 0.99,
    "train.ema_ramp": "none",
    "train.device": "cpu",
}


@pytest.fixture(scope="module")
def subset():
    source = load_source("mondrian", size=10, resolution=8, margin=1)
    dummies = load_source("gaussian_mixture", size=3, resolution=8)
    return build_subset(source, dummies=dummies, dummy_size=3, label_kind="true")


def trained(subset, folder, steps=8, stop_at=None, **settings) -> loop.State:
    recipe = Recipe.model_validate(nested(SETTINGS | settings))
    plan = Plan("same", recipe.train, len(subset), (recipe.train.ema,), (steps,))
    denoiser = build_denoiser(recipe, subset, CPU)

    def report(step: int, _text: str) -> None:
        if step == stop_at:
            raise KeyboardInterrupt

    images, labels = as_tensors(subset, CPU)
    return loop.train(denoiser, images, labels, plan, folder, report)


def plainly(subset, steps: int):
    """Weights and their average, by torch's own AdamW and the formulas of the paper."""
    recipe = Recipe.model_validate(nested(SETTINGS))
    denoiser = build_denoiser(recipe, subset, CPU)
    network, process = denoiser.network, denoiser.process
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.0)
    average = [p.detach().clone() for p in network.parameters()]
    images = torch.from_numpy(subset.images).permute(0, 3, 1, 2).float() / 127.5 - 1
    labels = torch.from_numpy(subset.labels)
    batches = []
    while len(batches) < steps:  # of 13 images three whole batches of 4
        order = np.arange(13)
        epoch = len(batches) // 3
        np.random.RandomState(derive(1024, "order", epoch) % 2**32).shuffle(order)
        batches += [order[start : start + 4] for start in (0, 4, 8)]
    generator = torch.Generator()
    for step, batch in enumerate(batches[:steps]):
        generator.manual_seed(derive(1024, "noise", step))
        level = torch.randint(4000, (4,), generator=generator)
        noise = torch.randn(4, 3, 8, 8, generator=generator)
        bar = torch.from_numpy(process.alpha_bar)[level].view(-1, 1, 1, 1)
        noisy = bar.sqrt().float() * images[batch] + (1 - bar).sqrt().float() * noise
        noisy = noisy.contiguous(memory_format=torch.channels_last)
        output = network(noisy, level * 0.25, labels[batch])
        loss = process.loss(output, images[batch], noise, level).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        for mean, parameter in zip(average, network.parameters(), strict=True):
            mean.mul_(0.99).add_(parameter.detach(), alpha=0.01)
    return network, average


def test_training_equals_the_plain_loop(subset, tmp_path):
    state = trained(subset, tmp_path)
    network, average = plainly(subset, 8)
    weights = torch.cat([p.detach().flatten() for p in network.parameters()])
    expected = torch.cat([mean.flatten() for mean in average])
    for found, plain in [(state.flat.values, weights), (state.averages[0.99], expected)]:
        off = (found - plain).abs()
        # Biases before a norm have no gradient but rounding, which Adam turns into steps.
        assert (off > 1e-5).float().mean() < 0.01
        assert off.max() < 8 * 1e-3


def test_a_killed_training_goes_on_to_the_same_weights(subset, tmp_path):
    whole = trained(subset, tmp_path / "whole")
    with pytest.raises((KeyboardInterrupt, Interrupted)):
        trained(subset, tmp_path / "cut", stop_at=5)
    resumed = trained(subset, tmp_path / "cut")
    assert torch.equal(resumed.flat.values, whole.flat.values)
    assert torch.equal(resumed.averages[0.99], whole.averages[0.99])


def test_each_epoch_has_an_order_of_its_own_and_drops_what_is_left(subset):
    order = DataOrder(13, 4, 1024, CPU, shuffled=True)
    batches = [order.batch(step).tolist() for step in range(6)]
    assert all(len(set(batch)) == 4 for batch in batches)
    epochs = [np.concatenate(part).tolist() for part in (batches[:3], batches[3:])]
    assert [len(set(epoch)) for epoch in epochs] == [12, 12]
    assert epochs[0] != epochs[1]
    assert order.batch(1).tolist() == batches[1]  # going back changes nothing


def test_ema_ramps():
    def decay(ramp: str, step: int) -> float:
        train = Recipe.model_validate(nested(SETTINGS | {"train.ema_ramp": ramp})).train
        return Plan("", train, 13, (), (1,)).ema_decay(0.9999, step)

    assert [decay("none", step) for step in (0, 10**6)] == [0.9999, 0.9999]
    assert [decay("steps", step) for step in (0, 8, 10**6)] == [0.0, 0.5, 0.9999]


def test_learning_rates():
    train = Recipe.model_validate(nested(SETTINGS)).train
    plan = Plan("", train, 13, (), (100,))
    assert [plan.learning_rate(step) for step in (0, 99)] == [1e-3, 1e-3]
    ramped = dataclasses.replace(plan, settings=train.model_copy(update={"warmup_steps": 10}))
    assert [ramped.learning_rate(step) for step in (0, 5, 10)] == pytest.approx([0, 5e-4, 1e-3])
    assert [annealed("linear", step, 4) for step in range(4)] == [1, 0.75, 0.5, 0.25]
    assert annealed("cosine", 50, 100) == pytest.approx(0.5)
    assert annealed("cosine", 100, 100) == pytest.approx(0)


def test_log_snapshots_halve_every_second_time():
    steps = snapshot_steps("log", 3200, 8000, 256)
    assert len(steps) == LOG_SNAPSHOTS
    assert {100_000, 50_000, 25_000, 12_500} <= set(steps)
    ratios = [later / earlier for earlier, later in itertools.pairwise(steps)]
    assert ratios == pytest.approx([math.sqrt(2)] * (LOG_SNAPSHOTS - 1), rel=1e-3)
    assert snapshot_steps("log", 1, 4, 2) == [1, 2]
    more = snapshot_steps("log18", 3200, 8000, 256)
    assert (len(more), more[0], more[-LOG_SNAPSHOTS:]) == (18, 277, steps)
