"""Fine-tuning against diffusers' own tools, and trainings that are stopped."""

import dataclasses
import json
import shutil
import signal
from pathlib import Path

import pytest
import torch

from emm.errors import Interrupted, UserError
from emm.sd import finetune
from emm.sd.base import encode_images, load_base
from emm.sd.finetune import Step, autocast, clip, encode_subset, fine_tune
from emm.seeds import derive
from emm.train import checkpoint
from emm.train.loop import checkpoint_path
from emm.train.state import Plan, State, initial_state

CPU = torch.device("cpu")


@pytest.fixture
def tune(folder, digits, recipe_of):
    """Fine-tune the tiny model: tune(path, steps, size=..., train__lr=...)."""

    def run(
        path: Path, *snapshots: int, size: int = 10, report=lambda *_: None, **changed
    ) -> State:
        recipe = recipe_of(**{"model__base": str(folder), **changed})
        padded = -(size // -recipe.train.batch_size) * recipe.train.batch_size
        plan = Plan("tests", recipe.train, padded, (recipe.train.ema,), snapshots)
        return fine_tune(recipe, digits(size), plan, path, CPU, report)[0]

    return run


def plain_training(folder, subset, recipe, steps: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights and EMA weights of a training as the script of diffusers does it."""
    from diffusers import DDPMScheduler
    from diffusers.optimization import get_scheduler
    from diffusers.training_utils import EMAModel

    base, settings = load_base(folder, CPU), recipe.train
    mean, std = encode_images(base, subset.images)
    states = encode_subset(base, subset, recipe.model.caption).prompts[torch.tensor(subset.classes)]
    unet, noising = base.unet.train(), DDPMScheduler.from_config(base.schedule)
    adam = torch.optim.AdamW(
        unet.parameters(), lr=settings.lr, weight_decay=settings.weight_decay, eps=1e-8
    )
    rates = get_scheduler(
        "cosine", adam, num_warmup_steps=settings.warmup_steps, num_training_steps=steps
    )
    average = EMAModel(unet.parameters(), decay=settings.ema)
    order = Step(base, encode_subset(base, subset, "plain"), Plan("", settings, 1, (), (1,)), 10)
    for step in range(steps):
        draws = torch.Generator().manual_seed(derive(settings.seed, "noise", step))
        batch, part = order.order.batch(step), settings.batch_size // settings.accumulation
        for first in range(0, len(batch), part):
            chosen = batch[first : first + part]
            clean = mean[chosen] + std[chosen] * torch.randn(mean[chosen].shape, generator=draws)
            noise = torch.randn(clean.shape, generator=draws)
            times = torch.randint(0, 1000, (len(chosen),), generator=draws)
            found = unet(noising.add_noise(clean, noise, times), times, states[chosen]).sample
            loss = ((found - noise) ** 2).mean() / settings.accumulation
            loss.backward()
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        adam.step()
        rates.step()
        adam.zero_grad()
        average.step(unet.parameters())
    return flat(unet.parameters()), flat(average.shadow_params)


def flat(parameters) -> torch.Tensor:
    return torch.cat([parameter.detach().reshape(-1) for parameter in parameters])


def test_equals_the_training_of_diffusers(tmp_path, tune, folder, digits, recipe_of):
    """Two updates an epoch, of two parts and of one: 10 images are 3 batches of 4, 4 and 2."""
    changed = {"model__caption": "class", "train__weight_decay": 0.1}
    start = flat(load_base(folder, CPU).unet.parameters())
    state = tune(tmp_path, 8, **changed)
    expected, average = plain_training(folder, digits(10), recipe_of(**changed), 8)
    moved = (expected - start).square().mean().sqrt()
    assert moved > 1e-3
    for found, plain in ((state.flat.values, expected), (state.averages[0.9999], average)):
        assert (found - plain).square().mean().sqrt() < 3e-3 * moved


def test_rates_and_averages_are_those_of_diffusers(recipe_of):
    from diffusers.optimization import get_cosine_schedule_with_warmup
    from diffusers.training_utils import EMAModel

    adam = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1e-4)
    rates = get_cosine_schedule_with_warmup(adam, 500, 20_000)
    average = EMAModel([torch.zeros(1)], decay=0.9999)
    settings = recipe_of(train__lr=1e-4, train__warmup_steps=500).train
    plan = Plan("", settings, 128, (), (20_000,))
    for step in (0, 1, 250, 500, 501, 10_000, 19_999):
        assert plan.learning_rate(step) == pytest.approx(rates.lr_lambdas[0](step) * 1e-4)
        assert plan.ema_decay(0.9999, step) == average.get_decay(step + 1)
    assert plan.ema_decay(0.9999, 80_000) == pytest.approx(0.99989, abs=1e-5)


def test_after_one_update_the_average_is_the_weights(tmp_path, tune):
    state = tune(tmp_path, 1, train__warmup_steps=0, train__warmup_epochs=0.0)
    assert torch.equal(state.averages[0.9999], state.flat.values)


def test_the_loss_falls(folder, digits, recipe_of):
    """Of the same noise before and after."""
    settings = recipe_of(train__lr=1e-2, train__batch_size=16, train__accumulation=1).train
    base, subset = load_base(folder, CPU), digits(4)
    plan = Plan("", settings, 16, (0.9999,), (40,))
    step = Step(base, encode_subset(base, subset, "plain"), plan, 4)
    state = initial_state(base.unet, plan, decoupled=True)

    def loss() -> float:
        step.generator.manual_seed(0)
        with torch.no_grad():
            return step._loss(torch.arange(32) % 4).item()

    before = loss()
    for _ in range(25):
        step(state)
    assert loss() < 0.85 * before


def test_an_update_is_an_epoch_of_fewer_images_than_a_batch(tmp_path, tune):
    state = tune(tmp_path, 3, size=3)
    assert [row[:2] for row in state.metrics] == [[1, 1.0], [2, 2.0], [3, 3.0]]


def test_checkpoints_hold_the_unet_alone(tmp_path, tune, folder):
    state = tune(tmp_path, 2)
    tensors, metadata = checkpoint.load(checkpoint_path(tmp_path, 2))
    base = load_base(folder, CPU)
    assert set(tensors) == {f"ema-0.9999.{name}" for name in base.unet.state_dict()}
    assert (metadata["step"], metadata["ema"]) == (2, [0.9999])
    named = state.flat.named(state.averages[0.9999])
    assert all(torch.equal(tensors[f"ema-0.9999.{name}"], part) for name, part in named.items())


def test_only_the_unet_changes(folder, digits, recipe_of):
    base, subset, settings = load_base(folder, CPU), digits(4), recipe_of().train
    before = {
        part: [tensor.clone() for tensor in getattr(base, part).state_dict().values()]
        for part in ("vae", "text_encoder", "unet")
    }
    plan = Plan("", settings, 4, (0.9999,), (3,))
    step = Step(base, encode_subset(base, subset, "plain"), plan, 4)
    state = initial_state(base.unet, plan, decoupled=True)
    for _ in range(3):
        step(state)
    same = {
        part: all(map(torch.equal, tensors, getattr(base, part).state_dict().values()))
        for part, tensors in before.items()
    }
    assert same == {"vae": True, "text_encoder": True, "unet": False}


def test_the_posterior_is_drawn_anew_at_each_exposure(folder, digits, recipe_of, monkeypatch):
    base, plan = load_base(folder, CPU), Plan("", recipe_of().train, 4, (), (3,))
    latents = encode_subset(base, digits(4), "plain")
    wide = dataclasses.replace(latents, std=torch.ones_like(latents.std))
    step = Step(base, wide, plan, 4)
    seen = []
    noised = step.process.add_noise
    monkeypatch.setattr(
        step.process, "add_noise", lambda clean, *more: seen.append(clean) or noised(clean, *more)
    )
    for seed in (0, 1):
        step.generator.manual_seed(seed)
        step._loss(torch.arange(4))
    spread = (seen[0] - latents.mean).std()
    assert 0.8 < spread < 1.2
    assert not torch.equal(*seen)


def test_stopped_and_resumed_bit_for_bit(tmp_path, tune, capfd):
    whole = tune(tmp_path / "whole", 3, 7)

    def stop(step: int, text: str) -> None:
        if step == 4:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Interrupted, match="stopped at step 5 of 7, state saved"):
        tune(tmp_path / "stopped", 3, 7, report=stop)
    resumed = tune(tmp_path / "stopped", 3, 7)
    assert "resumed at step 5 of 7" in capfd.readouterr().err
    assert torch.equal(resumed.flat.values, whole.flat.values)
    for step in (3, 7):
        files = [checkpoint_path(tmp_path / name, step) for name in ("whole", "stopped")]
        assert files[0].read_bytes() == files[1].read_bytes()


def test_a_training_does_not_go_on_with_another_base(tmp_path, tune, folder, capfd):
    tune(tmp_path / "run", 3)
    other = Path(shutil.copytree(folder, tmp_path / "other"))
    tune(tmp_path / "run", 7, model__base=str(other))
    assert "resumed at step 3 of 7" in capfd.readouterr().err
    config = other / "vae" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"scaling_factor": 1.0}))
    tune(tmp_path / "run", 9, model__base=str(other))
    assert "not resumed from it" in capfd.readouterr().err


def test_a_loss_that_is_not_finite_stops_the_training(tmp_path, tune, digits, monkeypatch):
    encode = finetune.encode_subset

    def broken(*args):
        latents = encode(*args)
        return dataclasses.replace(latents, mean=latents.mean * float("nan"))

    monkeypatch.setattr(finetune, "encode_subset", broken)
    with pytest.raises(UserError, match="loss is not finite in steps 1 to 1"):
        tune(tmp_path, 2)


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_gradients_are_clipped(value):
    gradient = torch.tensor([3.0, -4.0])
    clip(gradient)
    torch.testing.assert_close(gradient, torch.tensor([0.6, -0.8]), rtol=1e-5, atol=0)
    clip(short := torch.tensor([0.3, 0.4]))
    assert short.tolist() == pytest.approx([0.3, 0.4])
    clip(broken := torch.tensor([1.0, value]))
    assert broken.tolist() == [0.0, 0.0]


def test_precision_is_that_of_the_network_alone():
    weight, x = torch.ones(4, 4), torch.ones(2, 4)
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        with autocast(CPU, precision):
            assert (x @ weight).dtype == dtype
    assert weight.dtype == torch.float32
