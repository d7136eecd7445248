"""The speeds of this machine, measured with the project's own training step, for plans.

Training steps of one network at three sizes of images give what a GPU does of its arithmetic, and
what a step takes beyond it (`emm.plan.gpus.Gpu`).
"""

import contextlib
import datetime
import json
import math
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from emm.catalog import Catalog
from emm.data.stage import Subset, write_subset
from emm.errors import Interrupted, UserError
from emm.files import write_text
from emm.limits import NETWORKS
from emm.plan.cost import (
    BATCH,
    pass_seconds,
    passes,
    relative_layers,
    step_operations,
    step_seconds,
)
from emm.plan.gpus import Gpu, find_gpu
from emm.plan.jobs import all_jobs
from emm.spec import DEFAULTS, parse_recipe
from emm.texts import option
from emm.train.progress import Progress

if TYPE_CHECKING:
    import torch

RECIPES = {"cuda": "ddpmpp", "cpu": "small"}  # that are timed, by kind of device
RESOLUTIONS = {"cuda": 32, "cpu": 16}  # the largest, where the settings leave it open
HALVINGS = 3  # resolutions that are timed: all of the images, a half, a quarter
BLOCK = 0.05  # seconds of the steps that are timed together, at least
WARM_UP = 2  # steps before the clock starts
IMAGES = 1024  # that a timed training draws its batches from
ENDLESS = 10**9  # steps
LEAST_SHARE = 0.01  # of a step's time that is due to its operations, for their speed to be told


class TimeUpError(Exception):
    """The time for a measurement is up."""


@dataclass(frozen=True)
class Timing:
    """Seconds of a training step, or of a network's pass in sampling, at complete settings.

    images: of a step or a pass.
    """

    settings: Mapping[str, Any]
    images: int
    seconds: float
    is_training: bool = True

    @property
    def precision(self) -> str:
        """Of the network."""
        return self.settings["train.precision"]

    def planned(self, gpu: Gpu) -> float:
        """Seconds that a plan assumes of it."""
        if self.is_training:
            return step_seconds(self.settings, gpu)
        return pass_seconds(self.settings, self.images, gpu)


@dataclass
class Stopwatch:
    """Times the steps that are reported to it, in blocks; TimeUpError when the time is up."""

    seconds: float
    synchronize: Callable[[], None]
    block: int = 1
    first: float = 0.0
    start: float = 0.0
    steps: int = 0

    def __post_init__(self) -> None:
        self.times: list[float] = []

    def __call__(self, step: int, _text: str = "") -> None:
        """After each step, counted from 1; the first ones are not timed."""
        if step < WARM_UP or (step > WARM_UP and step < self.steps + self.block):
            return
        self.synchronize()
        now = time.perf_counter()
        if step == WARM_UP:
            self.first = now
        else:
            self.times.append((now - self.start) / self.block)
            self.block = max(1, math.ceil(BLOCK / self.times[-1]))
        self.start, self.steps = now, step
        if self.times and now - self.first > self.seconds:
            raise TimeUpError

    @property
    def median(self) -> float:
        """Seconds of a step."""
        return statistics.median(self.times)


def resolved_device(wanted: str) -> "torch.device":
    """The device that is measured, with as many threads as a job of the workflow has."""
    import torch

    from emm.train.device import choose_device

    torch.set_num_threads(1)
    return choose_device(wanted)


def calibrate(
    settings: Mapping[str, Any], device: "torch.device", seconds: float, output: Path
) -> tuple[Gpu, list[Timing]]:
    """Measure a device with the network of a recipe, and write what a plan's `gpu` can name.

    seconds: for the measurements; the start of a job and the last steps come on top. Returns what
    a plan reads in the file, and the measurements. UserError for a file that is no .yaml.
    """
    if output.suffix != ".yaml":
        raise UserError(f"--output {output}: plan.gpu takes a file that ends with .yaml")
    chosen = timed_settings(settings, device.type)
    start = start_seconds(chosen[-1] | {"train.device": device.type})
    timings: list[Timing] = []
    with Progress("measurement", len(precisions(device)) * (len(chosen) + 1)) as report:
        for timing in measure(chosen, device, seconds):
            timings.append(timing)
            report(len(timings), timing.precision)
    return write_gpu(output, fitted_gpu(timings, device, start)), timings


def timed_settings(settings: Mapping[str, Any], kind: str) -> list[dict[str, Any]]:
    """Settings at each resolution that is timed, from those of a recipe.

    kind: of device. UserError for a network that is not trained here.
    """
    if settings["model.arch"] not in NETWORKS or settings["model.weights"] is not None:
        raise UserError(
            "--set: what is timed is the training of a U-Net or a DiT, model.arch ddpmpp"
        )
    largest = settings["data.resolution"] or RESOLUTIONS[kind]
    smallest = 2 ** (HALVINGS - 1 + len(settings["model.channel_mult"]) - 1)
    if largest % smallest:
        raise UserError(
            f"--set data.resolution={largest}: images of a half and a quarter of it are timed "
            f"too; use a multiple of {smallest}"
        )
    source = {"data.dataset": DEFAULTS["data.dataset"], "data.path": None, "labels.kind": "none"}
    return [
        {**settings, **source, "data.resolution": largest >> halving} for halving in range(HALVINGS)
    ]


def precisions(device: "torch.device") -> list[str]:
    """Values of train.precision that a device computes itself."""
    import torch

    if device.type == "cpu":
        return ["fp32"]
    has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    return ["fp32", *(["bf16"] if has_bf16 else []), "fp16"]


def measure(
    settings: Sequence[Mapping[str, Any]], device: "torch.device", seconds: float
) -> Iterator[Timing]:
    """Training steps at all settings, and passes of sampling at the first, in each precision.

    seconds: for all together, about; a step that takes longer than its share is done anyway.
    """
    found = precisions(device)
    share = seconds / len(found) / (len(settings) + 1)
    for precision in found:
        at = [{**chosen, "train.precision": precision} for chosen in settings]
        for chosen in at:
            yield time_training(chosen, device, share)
        yield time_sampling(at[0], device, share)


def time_training(settings: Mapping[str, Any], device: "torch.device", seconds: float) -> Timing:
    """Steps of the training loop, which computes a batch in parts where memory is short."""
    return Timing(settings, settings["train.batch_size"], _step_seconds(settings, device, seconds))


def time_sampling(settings: Mapping[str, Any], device: "torch.device", seconds: float) -> Timing:
    """Passes of the sampler, with as many images as a plan assumes if memory suffices."""

    def timed(images: int) -> Timing:
        taken = _pass_seconds(settings, images, device, seconds)
        return Timing(settings, images, taken, is_training=False)

    return _as_memory_allows(timed, BATCH)


def _as_memory_allows(timed: Callable[[int], Timing], images: int) -> Timing:
    """What is timed with so many images, or with a half, a quarter, ... of them."""
    import torch

    while images:
        with contextlib.suppress(torch.OutOfMemoryError):
            return timed(images)
        torch.cuda.empty_cache()
        images //= 2
    raise UserError("--device: its memory is too small for a single image; is it in use?")


def _step_seconds(settings: Mapping[str, Any], device: "torch.device", seconds: float) -> float:
    from emm.train.device import as_tensors, build_denoiser
    from emm.train.loop import Plan, train

    recipe, subset = parse_recipe(settings, "--set"), _noise(settings, IMAGES)
    plan = Plan("", recipe.train, len(subset), (recipe.train.ema,), (ENDLESS,), math.inf)
    watch = Stopwatch(seconds, _synchronize(device))
    denoiser = build_denoiser(recipe, subset, device)
    try:
        with tempfile.TemporaryDirectory() as folder, contextlib.suppress(TimeUpError):
            train(denoiser, *as_tensors(subset, device), plan, Path(folder), watch)
    except Interrupted as error:
        raise Interrupted("stopped; nothing is written: run the same command again") from error
    return watch.median


def _pass_seconds(
    settings: Mapping[str, Any], images: int, device: "torch.device", seconds: float
) -> float:
    from emm.diffusion.sampling import draw_inputs, sample
    from emm.train.device import build_denoiser

    few = {**settings, "eval.steps": 2, "eval.num_samples": images}
    recipe, subset = parse_recipe(few, "--set"), _noise(settings, 2)
    denoiser = build_denoiser(recipe, subset, device).eval()
    watch = Stopwatch(seconds, _synchronize(device))
    noise, labels = draw_inputs(recipe, subset)
    with contextlib.suppress(TimeUpError):
        for step in range(1, ENDLESS):
            sample(denoiser, noise, labels, recipe, device, images)
            watch(step)
    return watch.median / passes(few)


def _noise(settings: Mapping[str, Any], size: int) -> Subset:
    """A training set of noise: what images show does not matter to speed."""
    side, nothing = settings["data.resolution"], np.full(size, -1)
    images = np.random.default_rng(0).integers(0, 256, (size, side, side, 3), np.uint8)
    return Subset(images, nothing, nothing, np.arange(size), 0)


def _synchronize(device: "torch.device") -> Callable[[], None]:
    import torch

    return torch.cuda.synchronize if device.type == "cuda" else lambda: None


def start_seconds(settings: Mapping[str, Any]) -> float:
    """Seconds that `emm train` takes for a training of one step, in a process of its own."""
    size = max(2, settings["train.batch_size"])
    changed = {k: v for k, v in settings.items() if v != DEFAULTS[k]} | {"data.size": size}
    with tempfile.TemporaryDirectory() as folder:
        subset, record = Path(folder) / "subset.npz", Path(folder) / "run.yaml"
        write_subset(subset, _noise(settings, size))
        command = [sys.executable, "-m", "emm.cli", "train", f"--subset={subset}"]
        command += [f"--output={record}", "--record=1:1"]
        command += [option(key, value) for key, value in changed.items()]
        start = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True)
        taken = time.perf_counter() - start
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"emm train fails here: {last}")
    return taken


def fit(timings: Sequence[Timing]) -> tuple[dict[str, float], float]:
    """Operations per second by precision, and seconds of a step of the basic network beyond them.

    Those with which a plan comes nearest to training steps: least squares of the relative errors,
    none negative. UserError where the timings do not tell.
    """
    from scipy.optimize import nnls

    timings = [timing for timing in timings if timing.is_training]
    names = list(dict.fromkeys(timing.precision for timing in timings))
    shares = np.zeros((len(timings), len(names) + 1))
    for row, timing in zip(shares, timings, strict=True):
        row[names.index(timing.precision)] = step_operations(timing.settings) / timing.seconds
        row[-1] = relative_layers(timing.settings) / timing.seconds
    scales = shares.max(axis=0)
    found, _ = nnls(shares / scales, np.ones(len(timings)))
    if found[:-1].min() < LEAST_SHARE:
        raise UserError("--set: steps take as long however large; use a larger train.batch_size")
    *per_operation, step = found / scales
    speeds = {name: float(1 / each) for name, each in zip(names, per_operation, strict=True)}
    return speeds, float(step)


def fitted_gpu(timings: Sequence[Timing], device: "torch.device", start: float) -> Gpu:
    """The device as plans know it. start: seconds until a job computes."""
    import torch

    operations, step = fit(timings)
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    return Gpu(
        title=_title(device),
        source=f"measured by emm calibrate, torch {torch.__version__}, {today}",
        operations=operations,
        step_seconds=step,
        start_seconds=start,
        gpu=device.type == "cuda",
    )


def _title(device: "torch.device") -> str:
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"one core of {_processor()}"


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name" and value.strip():
                return value.strip()
    return platform.processor() or platform.machine() or "a CPU"


def write_gpu(path: Path, gpu: Gpu) -> Gpu:
    """Write a file that plan.gpu can name; returns what a plan reads there."""
    speeds = ", ".join(f"{name}: {speed:.3e}" for name, speed in gpu.operations.items())
    lines = [
        "# Written by `emm calibrate`; workflow/gpus.yaml says what the keys are.",
        f"title: {json.dumps(gpu.title)}",
        f"source: {json.dumps(gpu.source)}",
        f"operations: {{{speeds}}}",
        f"step_seconds: {gpu.step_seconds:.3g}",
        f"start_seconds: {gpu.start_seconds:.3g}",
        f"gpu: {json.dumps(gpu.gpu)}",
    ]
    write_text(path, "\n".join(lines) + "\n")
    find_gpu.cache_clear()
    return find_gpu(str(path))


def compared(catalog: Catalog, path: Path) -> str:
    """What a config costs at the speeds of a file, and at those of its plan.gpu, in a line."""
    named = catalog.config.plan.gpu
    here, there = (_cost(catalog, name) for name in (str(path), named))
    return f"this config: {here}; with plan.gpu {named}, {there}"


def _cost(catalog: Catalog, gpu: str) -> str:
    """Hours of the trainings, samples and scores of a config on a GPU; or why it has no plan."""
    plan = catalog.config.plan.model_copy(update={"gpu": gpu})
    config = catalog.config.model_copy(update={"plan": plan})
    try:
        jobs, title = all_jobs(replace(catalog, config=config)), find_gpu(gpu).title
    except UserError as error:
        return f"no plan ({error})"
    return f"{sum(job.seconds for job in jobs if job.run) / 3600:,.2f} hours on {title}"
