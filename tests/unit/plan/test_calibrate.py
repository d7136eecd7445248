"""Speeds that are measured: the fit, the clock, and the command on a tiny network."""

import json
import math

import pytest
import torch

from emm import catalog
from emm.errors import UserError
from emm.plan import calibrate
from emm.plan.calibrate import Stopwatch, TimeUpError, Timing, compared, fit, timed_settings
from emm.plan.cost import pass_seconds, step_seconds
from emm.plan.gpus import Gpu, find_gpu
from emm.spec import DEFAULTS

KNOWN = Gpu(
    title='a "GPU": of tests',
    source="made up",
    operations={"fp32": 3.1e13, "bf16": 1.7e14},
    step_seconds=0.0123,
    start_seconds=21.5,
)
TINY = {"model.channels": 4, "model.channel_mult": (1,), "model.attention_levels": ()}
OPTIONS = ["--device=cpu", "--seconds=0.1", "--set=data.resolution=16", "--set=model.channels=8"]


def timings(gpu: Gpu, **changed: float) -> list[Timing]:
    """What a device takes that behaves as a plan assumes; changed: factors by precision."""
    found = []
    for precision in gpu.operations:
        for pixels in (32, 16, 8):
            settings = DEFAULTS | {"data.resolution": pixels, "train.precision": precision}
            seconds = step_seconds(settings, gpu) * changed.get(precision, 1.0)
            found.append(Timing(settings, 512, seconds))
        sampled = 7 * pass_seconds(settings, 256, gpu)
        found.append(Timing(settings, 256, sampled, is_training=False))
    return found


def test_fit_finds_the_speeds():
    operations, step = fit(timings(KNOWN))
    assert operations == pytest.approx(KNOWN.operations)
    assert step == pytest.approx(KNOWN.step_seconds)


def test_fit_weighs_relative_errors():
    """A precision that is twice as slow at all sizes is that, and the other stays near."""
    operations, _ = fit(timings(KNOWN, fp32=2.0))
    assert operations["fp32"] == pytest.approx(KNOWN.rate("fp32") / 2, rel=0.05)
    assert operations["bf16"] == pytest.approx(KNOWN.rate("bf16"), rel=0.2)


def test_nothing_is_negative():
    """Small images are faster per operation here: no step takes less than nothing beyond them."""
    free = KNOWN.model_copy(update={"step_seconds": 0.0, "operations": {"fp32": 3e13}})
    small, *others = sorted(timings(free)[:3], key=lambda timing: timing.seconds)
    faster = Timing(small.settings, small.images, small.seconds / 2)
    operations, step = fit([faster, *others])
    assert step == 0
    assert 3e13 < operations["fp32"] < 6e13


def test_times_that_tell_nothing():
    same = [Timing(timing.settings, 512, 0.01) for timing in timings(KNOWN)]
    with pytest.raises(UserError, match=r"--set: steps take as long .* larger train.batch_size"):
        fit(same)


def test_a_file_holds_what_was_measured(tmp_path):
    path = tmp_path / "mine.yaml"
    assert calibrate.write_gpu(path, KNOWN) == find_gpu(str(path)) == KNOWN
    slower = KNOWN.model_copy(update={"start_seconds": 60.0, "gpu": False})
    assert calibrate.write_gpu(path, slower) == slower  # not what was read before


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    """A clock that shows the number in a list."""
    now = [100.0]
    monkeypatch.setattr(calibrate.time, "perf_counter", lambda: now[0])
    return now


def run_out(watch: Stopwatch, clock: list[float], durations: list[float]) -> int:
    """Steps that are reported until the time is up."""
    for step, seconds in enumerate(durations, 1):
        clock[0] += seconds
        try:
            watch(step, "")
        except TimeUpError:
            return step
    raise AssertionError("the time is never up")


def test_stopwatch(clock):
    """The first steps warm up; short steps are timed together, and the median is theirs."""
    synchronized, watch = [], Stopwatch(1.0, lambda: synchronized.append(clock[0]))
    durations = [9.0, 9.0] + [0.02] * 100
    durations[20] = 0.5  # something else ran
    step = run_out(watch, clock, durations)
    assert watch.median == pytest.approx(0.02)
    assert sum(durations[2:step]) == pytest.approx(1.0, abs=0.1)
    assert len(synchronized) < step / 2


def test_a_step_that_takes_longer_than_there_is_time(clock):
    watch = Stopwatch(0.0, lambda: None)
    assert run_out(watch, clock, [5.0] * 10) == calibrate.WARM_UP + 1
    assert watch.median == 5.0


def test_memory_that_does_not_suffice(monkeypatch):
    tried = []

    def timed(images: int) -> Timing:
        tried.append(images)
        if images > 100:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return Timing(DEFAULTS, images, 1.0)

    assert calibrate._as_memory_allows(timed, 512).images == 64
    assert tried == [512, 256, 128, 64]
    with pytest.raises(UserError, match="too small for a single image"):
        calibrate._as_memory_allows(lambda images: timed(images + 100), 512)


def test_what_is_timed():
    found = timed_settings(DEFAULTS | {"labels.kind": "true"}, "cuda")
    assert [at["data.resolution"] for at in found] == [32, 16, 8]
    assert {(at["labels.kind"], at["train.batch_size"]) for at in found} == {("none", 512)}
    own = timed_settings(DEFAULTS | TINY | {"data.resolution": None}, "cpu")
    assert [at["data.resolution"] for at in own] == [16, 8, 4]
    with pytest.raises(UserError, match=r"data.resolution=24: .* use a multiple of 16"):
        timed_settings(DEFAULTS | {"data.resolution": 24}, "cuda")
    with pytest.raises(UserError, match="the training of a U-Net"):
        timed_settings(DEFAULTS | {"model.arch": "optimum"}, "cuda")


def test_precisions(monkeypatch):
    assert calibrate.precisions(torch.device("cpu")) == ["fp32"]
    has_bf16 = []
    supported = lambda including_emulation=True: bool(has_bf16) or including_emulation  # noqa: E731
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert calibrate.precisions(torch.device("cuda")) == ["fp32", "fp16"]
    has_bf16.append(True)
    assert calibrate.precisions(torch.device("cuda")) == ["fp32", "bf16", "fp16"]


def test_a_training_that_fails(monkeypatch):
    with pytest.raises(UserError, match=r"emm train fails here: error: .*model.num_blocks"):
        calibrate.start_seconds(DEFAULTS | TINY | {"model.num_blocks": 0, "train.batch_size": 2})


def test_plans_beside_each_other(tmp_path):
    found = catalog.load({"experiments": "conditioning"})
    path = tmp_path / "mine.yaml"
    calibrate.write_gpu(path, KNOWN)
    line = compared(found, path)
    assert 'hours on a "GPU": of tests; with plan.gpu a100, ' in line
    hours = [float(word) for word in line.split() if word[0].isdigit()]
    assert 0 < hours[0] < hours[1]  # it starts faster
    half = catalog.load({"experiments": "conditioning", "set": {"train.precision": "fp16"}})
    assert 'no plan (plan.gpu: a "GPU": of tests has no speed at fp16' in compared(half, path)


@pytest.mark.slow
def test_command(tmp_path, run_emm):
    """A file that a plan takes, whose speeds are those of a plan's own arithmetic."""
    config = json.dumps({"experiments": "conditioning"})
    path = tmp_path / "core.yaml"
    code, out, err = run_emm("calibrate", "--output", path, "--config", config, *OPTIONS)
    assert code == 0, err
    gpu = find_gpu(str(path))
    assert list(gpu.operations) == ["fp32"]
    assert 1e8 < gpu.rate("fp32") < 1e12
    assert gpu.start_seconds > 0.5
    assert not gpu.gpu
    assert gpu.title.startswith("one core of ")
    assert f"measured by emm calibrate, torch {torch.__version__}, 20" in gpu.source
    rows = [line.split() for line in out.splitlines() if "x" in line and "fp32" in line]
    assert [row[-5] for row in rows[:4]] == ["16x16", "8x8", "4x4", "16x16"]
    assert [math.isfinite(float(row[-1])) for row in rows[:4]] == [True] * 4
    assert f"hours on {gpu.title}; with plan.gpu a100" in out
    given = ["--config", config, "--gpu", path, "--output", tmp_path / "plan", "--json"]
    code, out, err = run_emm("plan", *given)
    assert code == 0, err
    assert json.loads(out)["gpu"] == gpu.title


def test_a_file_that_no_plan_takes(tmp_path):
    with pytest.raises(UserError, match=r"gpu.json: plan.gpu takes a file that ends with .yaml"):
        calibrate.calibrate(DEFAULTS, torch.device("cpu"), 1.0, tmp_path / "gpu.json")
