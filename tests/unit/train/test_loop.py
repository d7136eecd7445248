"""The training loop against a plain one, and every way to stop and go on."""

import copy
import errno
import math
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from emm.diffusion.precondition import Denoiser
from emm.errors import Interrupted, UserError
from emm.seeds import derive
from emm.train import checkpoint, loop
from emm.train.device import as_tensors, build_denoiser
from emm.train.flat import Adam
from emm.train.loop import checkpoint_path
from emm.train.schedules import ema_rate
from emm.train.step import Step

CPU = torch.device("cpu")
LOSS = 2  # column of the metrics
STATE = "state.safetensors"


def kept(folder: Path) -> dict[str, bytes]:
    """Checkpoints of a folder by name."""
    return {path.name: path.read_bytes() for path in (folder / "checkpoints").iterdir()}


def losses(state: loop.State) -> list[float]:
    return [row[LOSS] for row in state.metrics]


def assert_same(found: loop.State, expected: loop.State) -> None:
    """Bit-identical weights, moments, averages and losses."""
    assert found.step == expected.step
    assert torch.equal(found.flat.values, expected.flat.values)
    assert torch.equal(found.optimizer.exp_avg, expected.optimizer.exp_avg)
    assert torch.equal(found.optimizer.exp_avg_sq, expected.optimizer.exp_avg_sq)
    assert found.averages.keys() == expected.averages.keys()
    for rate, average in expected.averages.items():
        assert torch.equal(found.averages[rate], average)
    timeless = [[row[:4] for row in state.metrics] for state in (found, expected)]
    assert timeless[0] == timeless[1]


@pytest.fixture
def four_rows(monkeypatch) -> None:
    """Few rows of metrics, so that short trainings have steps between them."""
    monkeypatch.setattr(loop, "METRIC_ROWS", 4)


LAYOUT = {"memory_format": torch.channels_last}


def plain_loss(network, name: str, images, labels, noise, sigma):
    """lambda(sigma) (D - y)^2 as published, through the denoiser.

    In the layout of ours: Adam turns the rounding of tiny gradients into steps.
    """
    level = sigma.view(-1, 1, 1, 1)
    noisy = images + level * noise
    if name == "edm":
        root = (level**2 + 0.25).sqrt()
        raw = network((noisy / root).to(**LAYOUT), sigma.log() / 4, labels)
        denoised = 0.25 / root**2 * noisy + 0.5 * level / root * raw
        weight = (level**2 + 0.25) / (0.5 * level) ** 2
    else:
        time = ((0.01 + 39.8 * (1 + sigma**2).log()).sqrt() - 0.1) / 19.9
        scaled = (noisy / (1 + level**2).sqrt()).to(**LAYOUT)
        denoised = noisy - level * network(scaled, 999 * time, labels)
        weight = 1 / level**2
    return (weight * (denoised - images) ** 2).sum() / len(images)


def plain_training(case, name: str, steps: int) -> tuple[nn.Module, nn.Module, list[float]]:
    """Weights, EMA weights and losses of a training as any PyTorch user would write it."""
    settings, size = case.recipe.train, len(case.subset)
    network = build_denoiser(case.recipe, case.subset, CPU).network
    average = copy.deepcopy(network)
    images, labels = as_tensors(case.subset, CPU)
    adam = torch.optim.Adam(
        network.parameters(), lr=settings.lr, weight_decay=settings.weight_decay
    )
    order = np.random.RandomState(settings.seed).permutation(size)
    network.train()
    found = []
    for step in range(steps):
        seen = step * settings.batch_size
        batch = torch.tensor([order[(seen + i) % size] for i in range(settings.batch_size)])
        clean = images[batch].float() / 127.5 - 1
        draws = torch.Generator().manual_seed(derive(settings.seed, "noise", step))
        torch.manual_seed(derive(settings.seed, "dropout", step))
        sigma = torch.rand(len(batch), generator=draws) if name == "vp" else None
        if name == "vp":
            time = (1 + sigma * (1e-5 - 1)).double()
            sigma = ((9.95 * time**2 + 0.1 * time).exp() - 1).sqrt().float()
        else:
            sigma = (torch.randn(len(batch), generator=draws) * 1.2 - 1.2).exp()
        noise = torch.randn(clean.shape, generator=draws)
        chosen = None if labels is None else labels[batch]
        loss = plain_loss(network, name, clean, chosen, noise, sigma)
        adam.zero_grad()
        loss.backward()
        ramp = settings.warmup_epochs * 5 * (size // 5)
        adam.param_groups[0]["lr"] = settings.lr * min(seen / ramp, 1)
        adam.step()
        half_life = min(1000 * (size // 100), 0.05 * seen * 200 / settings.warmup_epochs)
        half_life *= 50000 / size
        beta = 0.9 / 0.99929 * 0.5 ** (settings.batch_size / half_life) if seen else 0
        with torch.no_grad():
            for ours, theirs in zip(average.parameters(), network.parameters(), strict=True):
                ours.mul_(beta).add_(theirs, alpha=1 - beta)
        found.append(loss.item())
    return network, average, found


def flat(network: nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().reshape(-1) for parameter in network.parameters()])


@pytest.mark.parametrize(
    ("name", "labels", "decay"), [("edm", "true", 0.0), ("vp", "none", 0.01), ("edm", "none", 0.1)]
)
def test_equals_a_plain_training(tmp_path, case, name, labels, decay):
    tiny = case(
        12, size=100, labels=labels, model__precond=name, train__weight_decay=decay,
        model__channels=8, model__channel_mult=[1, 2], train__warmup_epochs=0.2,
    )  # fmt: skip
    start = flat(build_denoiser(tiny.recipe, tiny.subset, CPU).network)
    state = tiny.run(tmp_path)
    network, average, expected = plain_training(tiny, name, 12)
    moved = (flat(network) - start).square().mean().sqrt()
    assert moved > 0.001
    np.testing.assert_allclose(losses(state), expected, rtol=1e-4)
    for found, plain in ((state.flat.values, network), (state.averages[0.9], average)):
        assert (found - flat(plain)).square().mean().sqrt() < 3e-3 * moved


def test_the_first_step_has_learning_rate_zero(tmp_path, case):
    tiny = case(1, ema=(0.99929, 0.5), train__weight_decay=0.1)
    state = tiny.run(tmp_path)
    start = flat(build_denoiser(tiny.recipe, tiny.subset, CPU))
    assert torch.equal(state.flat.values, start)
    assert state.metrics[0][:2] == [1, 0.4]
    assert state.metrics[0][3] == 0
    assert state.optimizer.exp_avg.abs().max() > 0


def test_learning_rate_of_every_step(tmp_path, case):
    rates = [row[3] for row in case(8).run(tmp_path).metrics]
    assert rates == pytest.approx([2e-3 * min(4 * step / 20, 1) for step in range(8)])


def test_several_ema_rates_equal_each_alone(tmp_path, case):
    rates = (0.0, 0.5, 0.9, 0.99929)
    together = case(4, 9, ema=rates, size=100).run(tmp_path / "all")
    assert torch.equal(together.averages[0.0], together.flat.values)
    for rate in rates:
        alone = case(4, 9, ema=(rate,), size=100).run(tmp_path / str(rate))
        assert torch.equal(alone.flat.values, together.flat.values)
        assert torch.equal(alone.averages[rate], together.averages[rate])
        for step in (4, 9):
            tensors, _ = checkpoint.load(checkpoint_path(tmp_path / "all", step))
            for name, tensor in checkpoint.load(checkpoint_path(tmp_path / str(rate), step))[
                0
            ].items():
                assert torch.equal(tensors[name], tensor)


def test_ema_follows_the_weights(tmp_path, case):
    """The average after each step, from the weights after each step."""
    rates = (0.9, 0.99929)
    tiny = case(*range(1, 11), ema=(0.0, *rates), train__batch_size=8)
    tiny.run(tmp_path)
    steps = [checkpoint.load(checkpoint_path(tmp_path, step))[0] for step in range(1, 11)]
    for rate in rates:
        expected = 0
        for step, tensors in enumerate(steps):
            beta = ema_rate(rate, 8 * step, 10, 8, 2.0)
            expected = beta * expected + (1 - beta) * tensors["ema-0.0.stem.weight"].double()
            found = tensors[f"ema-{rate}.stem.weight"].double()
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("labels", ["none", "unique"])
def test_a_shorter_training_is_a_prefix_of_a_longer_one(tmp_path, case, labels):
    case(5, labels=labels).run(tmp_path / "short")
    case(3, 5, 11, labels=labels).run(tmp_path / "long")
    long = kept(tmp_path / "long")
    assert len(long) == 3
    assert kept(tmp_path / "short").items() <= long.items()


def test_the_same_training_twice(tmp_path, case):
    torch.manual_seed(0)
    first = case(6, train__precision="bf16").run(tmp_path / "first")
    torch.manual_seed(1)
    second = case(6, train__precision="bf16").run(tmp_path / "second")
    assert_same(second, first)


def test_an_extended_training_equals_a_long_one(tmp_path, case, capfd):
    case(50).run(tmp_path / "extended")
    extended = case(50, 75, 100).run(tmp_path / "extended")
    assert "resumed at step 50 of 100" in capfd.readouterr().err
    assert_same(extended, case(50, 75, 100).run(tmp_path / "at once"))
    assert kept(tmp_path / "extended") == kept(tmp_path / "at once")


def test_a_finished_training_is_left_alone(tmp_path, case):
    first = case(4).run(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("state*")}
    assert_same(case(4).run(tmp_path), first)
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("state*")}


def test_less_may_be_asked_for_than_was_trained(tmp_path, case, four_rows):
    """Also when the longer training wrote its metrics more rarely than that."""
    case(3, 40).run(tmp_path)
    state = case(3).run(tmp_path)
    assert state.step == 40
    assert [row[0] for row in state.metrics if row[0] <= 3] == [3]


def test_a_snapshot_where_a_training_was_stopped(tmp_path, case, four_rows):
    """An earlier plan had no checkpoint at that step; the state has what it takes."""
    stopped_at(case(40), tmp_path, 5)
    state = case(5).run(tmp_path)
    assert (state.step, state.metrics[-1][0]) == (5, 5)
    case(5).run(tmp_path / "fresh")
    assert kept(tmp_path) == kept(tmp_path / "fresh")


def stopped_at(tiny, folder: Path, step: int, number: int = signal.SIGTERM) -> str:
    """Train until a signal arrives in a step; the message."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Step, "__call__", signalling(Step.__call__, step, number))
        with pytest.raises(Interrupted) as caught:
            tiny.run(folder)
    assert caught.value.exit_code == 75
    return str(caught.value)


def signalling(original, step: int, number: int):
    def wrapped(self, state):
        if state.step == step - 1:
            os.kill(os.getpid(), number)
        original(self, state)

    return wrapped


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("step", [1, 2, 6, 7])
def test_signals_save_the_state(tmp_path, case, four_rows, step, number):
    """Before anything is logged, at a snapshot, at a row of metrics, between two of them."""
    handlers = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)]
    tiny = case(2, 11, 12)
    message = stopped_at(tiny, tmp_path / "stopped", step, number)
    assert f"stopped at step {step} of 12, state saved; run the same command again" in message
    assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)] == handlers
    assert_same(tiny.run(tmp_path / "stopped"), tiny.run(tmp_path / "undisturbed"))
    assert kept(tmp_path / "stopped") == kept(tmp_path / "undisturbed")


def test_a_signal_between_steps_is_heeded_after_the_next(tmp_path, case, monkeypatch):
    def log(state, plan):
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(loop, "_log", log)
    monkeypatch.setattr(loop, "METRIC_ROWS", 3)
    with pytest.raises(Interrupted, match="stopped at step 5 of 12, state saved"):
        case(12).run(tmp_path)
    assert (tmp_path / STATE).exists()


def test_a_signal_in_the_last_step_comes_too_late(tmp_path, case, monkeypatch):
    monkeypatch.setattr(Step, "__call__", signalling(Step.__call__, 4, signal.SIGTERM))
    assert case(4).run(tmp_path).step == 4


class Poison:
    """A loss that turns into NaN at some step."""

    def __init__(self, monkeypatch, step: int):
        self.calls, self.step, self.loss = 0, step, Denoiser.loss
        monkeypatch.setattr(Denoiser, "loss", lambda *args: self(*args))

    def __call__(self, *args):
        self.calls += 1
        return self.loss(*args) * (math.nan if self.calls == self.step else 1)


@pytest.mark.parametrize("step", [8, 10, 12])
def test_a_loss_that_is_not_finite(tmp_path, case, monkeypatch, step):
    """The state before it is kept and can be gone on from."""
    tiny = case(10, 500, train__lr=0.125)
    with monkeypatch.context() as patch:
        Poison(patch, step)
        with pytest.raises(UserError) as caught:
            tiny.run(tmp_path, save_seconds=0.0)
    message = str(caught.value)
    assert "loss is not finite in steps " in message
    first, last = (int(word) for word in message.split("steps ")[1].split(" (")[0].split(" to "))
    assert first <= step <= last
    assert "train.lr=0.125" in message
    assert "a state saved before them is kept" in message
    _, metadata = checkpoint.load(tmp_path / STATE)
    assert metadata["step"] == step - 1
    assert len(list(tmp_path.glob("checkpoints/*"))) == (step > 10)
    resumed = tiny.run(tmp_path, snapshots=(10, 20))
    assert_same_weights(resumed, case(10, 20, train__lr=0.125).run(tmp_path / "undisturbed"))


def assert_same_weights(found: loop.State, expected: loop.State) -> None:
    assert torch.equal(found.flat.values, expected.flat.values)
    assert all(torch.equal(found.averages[r], a) for r, a in expected.averages.items())


def test_an_absurd_learning_rate(tmp_path, case):
    with pytest.raises(UserError, match=r"not finite in steps .*train.lr=1e\+30.*lower train.lr"):
        case(20, train__lr=1e30).run(tmp_path)
    assert not list(tmp_path.rglob("*.safetensors"))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_bad_gradients_are_replaced_as_published(tmp_path, case, monkeypatch, bad):
    seen, step = [], Adam.step

    def spied(self, gradient, lr):
        seen.append(gradient.clone())
        step(self, gradient, lr)

    monkeypatch.setattr(Adam, "step", spied)
    tiny = case(1)
    denoiser = build_denoiser(tiny.recipe, tiny.subset, CPU)
    denoiser.network.stem.bias.register_hook(lambda gradient: torch.full_like(gradient, bad))
    loop.train(denoiser, *as_tensors(tiny.subset, CPU), tiny.plan, tmp_path)
    start = denoiser.network.stem.weight.numel()
    names = [name for name, _ in denoiser.network.named_parameters()]
    offset = names.index("stem.bias")
    start = sum(p.numel() for p in list(denoiser.network.parameters())[:offset])
    part = seen[0][start : start + 4]
    assert part.tolist() == [0.0 if math.isnan(bad) else math.copysign(1e5, bad)] * 4


def test_a_damaged_state_is_not_read(tmp_path, case, capfd):
    tiny = case(3, 8)
    stopped_at(tiny, tmp_path, 5)
    content = (tmp_path / STATE).read_bytes()
    (tmp_path / STATE).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    resumed = tiny.run(tmp_path)
    assert "damaged (checksum differs): not resumed from it" in capfd.readouterr().err
    assert_same(resumed, tiny.run(tmp_path / "undisturbed"))


def test_the_state_before_a_damaged_one_is_used(tmp_path, case, capfd):
    tiny = case(3, 8)
    stopped_at(tiny, tmp_path, 5)
    (tmp_path / STATE).rename(tmp_path / "state.previous.safetensors")
    (tmp_path / STATE).write_bytes(b"\0" * 5000)
    resumed = tiny.run(tmp_path)
    said = capfd.readouterr().err
    assert "state.safetensors: damaged" in said
    assert "resumed at step 5 of 8" in said
    assert_same(resumed, tiny.run(tmp_path / "undisturbed"))


def test_a_state_of_other_settings_is_not_used(tmp_path, case, capfd):
    case(4).run(tmp_path)
    state = case(4, train__lr=0.5).run(tmp_path, identity="other")
    assert "belongs to other settings or images: not resumed from it" in capfd.readouterr().err
    assert_same(state, case(4, train__lr=0.5).run(tmp_path / "fresh"))


def test_a_rate_that_was_not_tracked(tmp_path, case, capfd):
    case(4, ema=(0.9, 0.5)).run(tmp_path)
    assert_same_weights(case(4, ema=(0.9,)).run(tmp_path), case(4).run(tmp_path / "one"))
    capfd.readouterr()
    state = case(4, ema=(0.9, 0.8)).run(tmp_path)
    assert "lacks an EMA rate that is asked for: not resumed from it" in capfd.readouterr().err
    assert_same(state, case(4, ema=(0.9, 0.8)).run(tmp_path / "fresh"))


@pytest.mark.parametrize("how", ["never written", "removed", "damaged", "of fewer rates"])
def test_a_checkpoint_that_is_missing(tmp_path, case, capfd, how):
    rates = (0.9, 0.5)
    case(*([8] if how == "never written" else [3, 8]), ema=rates).run(tmp_path)
    path = checkpoint_path(tmp_path, 3)
    if how == "removed":
        path.unlink()
    elif how == "damaged":
        path.write_bytes(path.read_bytes()[:-5])
    elif how == "of fewer rates":
        case(3).run(tmp_path / "one rate")
        path.write_bytes(checkpoint_path(tmp_path / "one rate", 3).read_bytes())
    capfd.readouterr()
    state = case(3, 8, ema=rates).run(tmp_path)
    assert "is past step 3, whose checkpoint is missing" in capfd.readouterr().err
    assert_same(state, case(3, 8, ema=rates).run(tmp_path / "fresh"))
    assert kept(tmp_path) == kept(tmp_path / "fresh")


@pytest.mark.parametrize("write", [1, 2, 3, 4, 5])
def test_a_full_disk(tmp_path, case, monkeypatch, write):
    """Wherever it happens, the old state stays, and training goes on from it."""
    tiny, folder = case(2, 5), tmp_path / "full"
    before, writes, original = [], [], Path.write_bytes

    def full(self, content):
        writes.append(self)
        if len(writes) == write:
            before.extend(whole_states(folder))
            original(self, content[: len(content) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return original(self, content)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(Interrupted, match="No space left on device; free some space") as caught:
            tiny.run(folder, save_seconds=0.0)
    assert caught.value.exit_code == 75
    assert whole_states(folder) == before
    assert not list(folder.rglob(".*.tmp"))
    assert_same(tiny.run(folder), tiny.run(tmp_path / "undisturbed"))
    assert kept(folder) == kept(tmp_path / "undisturbed")


def whole_states(folder: Path) -> list[int]:
    """Steps of the states that a folder has, each of which can be read."""
    return [checkpoint.load(path)[1]["step"] for path in sorted(folder.glob("state*"))]


def test_half_written_files_of_killed_processes_are_removed(tmp_path, case):
    left = [tmp_path / ".state.safetensors.1.tmp", tmp_path / "checkpoints" / ".step-3.2.tmp"]
    for path in left:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"half")
    case(2).run(tmp_path)
    assert not any(path.exists() for path in left)


def test_the_state_is_saved_by_the_clock(tmp_path, case, monkeypatch):
    saved, original = [], loop._save_state

    def spied(state, plan, folder):
        saved.append(state.step)
        original(state, plan, folder)

    monkeypatch.setattr(loop, "_save_state", spied)
    case(4).run(tmp_path / "often", save_seconds=0.0)
    case(4).run(tmp_path / "rarely")
    assert saved == [1, 2, 3, 4, 4]
    assert {path.name for path in (tmp_path / "often").iterdir()} == {STATE, "checkpoints"}


def test_metrics(tmp_path, case, four_rows):
    state = case(3, 21).run(tmp_path)
    rows = np.array(state.metrics)
    assert rows[:, 0].tolist() == [3, 5, 10, 15, 20, 21]
    np.testing.assert_allclose(rows[:, 1], rows[:, 0] * 4 / 10)
    assert np.isfinite(rows).all()
    assert (np.diff(rows[:, 4]) > 0).all()
    steps = np.diff(rows[:, 0], prepend=0)
    np.testing.assert_allclose(rows[:, 5], 4 * steps / np.diff(rows[:, 4], prepend=0), rtol=1e-6)


def test_losses_are_means_over_the_steps_between_rows(tmp_path, case, monkeypatch):
    every = losses(case(12).run(tmp_path / "every"))
    monkeypatch.setattr(loop, "METRIC_ROWS", 4)
    found = losses(case(12).run(tmp_path / "third"))
    np.testing.assert_allclose(found, np.reshape(every, (4, 3)).mean(1), rtol=1e-12)


def test_progress_is_reported_after_every_step(tmp_path, case, four_rows):
    tiny, seen = case(8), []
    images, labels = as_tensors(tiny.subset, CPU)
    denoiser = build_denoiser(tiny.recipe, tiny.subset, CPU)
    loop.train(denoiser, images, labels, tiny.plan, tmp_path, lambda *args: seen.append(args))
    assert [step for step, _ in seen] == list(range(1, 9))
    assert seen[0][1] == ""
    assert seen[-1][1].startswith("epoch 3, loss ")


def test_loss_falls(tmp_path, case):
    tiny = case(150, size=40, model__channels=8, train__batch_size=16, model__dropout=0.0)
    found = losses(tiny.run(tmp_path))
    assert np.mean(found[-30:]) < 0.8 * np.mean(found[:10])


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_low_precision_is_near_full_precision(tmp_path, case, precision):
    runs = {}
    for name in ("fp32", precision):
        tiny = case(30, size=40, train__precision=name, train__batch_size=8, model__dropout=0.0)
        runs[name] = tiny.run(tmp_path / name)
    found, expected = np.array(losses(runs[precision])), np.array(losses(runs["fp32"]))
    assert np.isfinite(found).all()
    assert (found != expected).any()
    np.testing.assert_allclose(found, expected, rtol=0.03)
    assert runs[precision].flat.values.dtype == torch.float32


def test_fp16_scales_the_loss_for_the_backward_pass_alone(tmp_path, case, monkeypatch):
    """Small gradients survive in fp16; the optimiser sees them unscaled."""
    inside, flat, outside = [], [], []
    monkeypatch.setattr(Adam, "step", lambda self, gradient, lr: flat.append(gradient))
    for precision in ("fp32", "fp16"):
        tiny = case(1, train__precision=precision)
        denoiser = build_denoiser(tiny.recipe, tiny.subset, CPU)
        denoiser.network.head_conv.register_full_backward_hook(
            lambda layer, given, gradient: inside.append(gradient[0].float())
        )
        images, labels = as_tensors(tiny.subset, CPU)
        state = loop.train(denoiser, images, labels, tiny.plan, tmp_path / precision)
        named = state.flat.named(flat[-1])
        outside.append(torch.cat([tensor.reshape(-1) for tensor in named.values()]))
    torch.testing.assert_close(inside[1], 100 * inside[0], rtol=0.01, atol=0.01)
    assert (outside[1] - outside[0]).norm() < 0.01 * outside[0].norm()


def test_networks_with_fixed_buffers_keep_them(tmp_path, case):
    tiny = case(2, model__time_embedding="fourier")
    tiny.run(tmp_path)
    tensors, metadata = checkpoint.load(checkpoint_path(tmp_path, 2))
    network = build_denoiser(tiny.recipe, tiny.subset, CPU).network
    assert torch.equal(tensors["buffer.mapping.frequencies"], network.mapping.frequencies)
    assert metadata == {"identity": "tiny", "step": 2, "ema": [0.9]}
    assert {name.partition(".")[0] for name in tensors} == {"buffer", "ema-0"}
