"""What a step, a pass and a training cost: layers count beside operations."""

import pytest

from emm import catalog
from emm.plan.cost import (
    BASIC_LAYERS,
    SD_TINY,
    SD_TINY_DECODE,
    SELECTION,
    criteria_seconds,
    network,
    pass_seconds,
    relative_layers,
    scoring_seconds,
    step_operations,
    step_seconds,
    training_operations,
    training_seconds,
)
from emm.plan.gpus import find_gpu
from emm.spec import DEFAULTS


def test_the_basic_network_is_that_of_the_defaults():
    assert network(DEFAULTS).layers == BASIC_LAYERS
    deeper = DEFAULTS | {"model.num_blocks": 4}
    assert relative_layers(deeper) == pytest.approx(1.6, abs=0.1)


def test_a_step_and_a_pass():
    gpu = find_gpu("h100")
    work = 512 * network(DEFAULTS).operations / 3e13
    assert step_seconds(DEFAULTS, gpu) == pytest.approx(3 * work + 0.006)
    assert pass_seconds(DEFAULTS, 256, gpu) == pytest.approx(work / 2 + 0.002)


def test_a_training_is_its_steps():
    found = catalog.load({"experiments": "depth"})
    gpu = find_gpu("cpu")
    for run in found.runs.values():
        seconds = run.snapshots[-1] * step_seconds(run.settings, gpu)
        assert training_seconds(run, gpu) == pytest.approx(seconds)


def test_scores_against_orbits_compare_with_all_members():
    found = catalog.load({"scale": "paper", "experiments": "augmentation"})
    seconds = {}
    for evaluation in found.evaluations.values():
        if evaluation.settings["data.size"] == 1000:
            spent = scoring_seconds(evaluation, find_gpu("h100"))
            seconds[evaluation.settings["train.augment"]] = spent
    assert seconds["flip"] == pytest.approx(3 * seconds["none"])
    assert seconds["shift"] == pytest.approx(26 * seconds["none"])


def test_criteria_compare_samples_with_each_other_and_held_out_images_once():
    found = catalog.load({"scale": "paper", "experiments": "criteria"})
    gpu = find_gpu("h100")
    for evaluation in found.evaluations.values():
        size, checkpoints = evaluation.settings["data.size"], len(evaluation.steps)
        pairs = checkpoints * 10_000 * (10_000 + size) + size * (size + 10_000)
        seconds = pairs * 2 * (3072 + SELECTION) / 5e12
        assert criteria_seconds(evaluation, gpu) == pytest.approx(seconds)
        assert scoring_seconds(evaluation, gpu) < seconds


@pytest.mark.slow
def test_the_tiny_stable_diffusion():
    """Its cost is not that of the real one, whatever the size of the images."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from emm.sd import tiny

    latents, scale = torch.randn(1, 4, 8, 8), (64 / 256) ** 2
    unet, decoder = tiny._unet(), tiny._autoencoder()
    with FlopCounterMode(display=False) as passed, torch.no_grad():
        unet(latents, torch.tensor([3]), torch.randn(1, tiny.LENGTH, tiny.WIDTH))
    with FlopCounterMode(display=False) as decoded, torch.no_grad():
        decoder.decode(latents)
    assert passed.get_total_flops() == pytest.approx(SD_TINY.operations * scale, rel=0.05)
    assert decoded.get_total_flops() == pytest.approx(SD_TINY_DECODE * scale, rel=0.05)
    assert sum(weight.numel() for weight in unet.parameters()) == pytest.approx(
        SD_TINY.parameters, rel=0.01
    )


def test_steps_of_stable_diffusion_that_are_not_full():
    """10 images at batch 64 are one step of 10 images an epoch."""
    found = catalog.load({"experiments": "stable_diffusion"})
    for run in found.runs.values():
        size, steps = run.settings["data.size"], run.snapshots[-1]
        full = step_operations(run.settings)
        assert training_operations(run) == pytest.approx(steps * full * size / 64)
