"""Sampling as a stage: the checkpoints of a run in, uint8 images out."""

import itertools
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Set
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from emm.data.stage import Subset, read_subset
from emm.diffusion import SAMPLE_INDEX, shards
from emm.diffusion.callables import make_denoiser
from emm.diffusion.discrete import DiscreteDenoiser, grey_levels
from emm.diffusion.optimum import Optimum
from emm.diffusion.precondition import PRECONDITIONINGS, Denoiser, karras_sigmas, to_uint8, to_unit
from emm.diffusion.samplers import DenoiserFunction, heun
from emm.errors import UserError
from emm.files import write_text
from emm.given import OPTIMUM, OWN
from emm.graphs import Replayed
from emm.nets.labels import label_input
from emm.owner import exclusive
from emm.resolve import check_sampling
from emm.sd import STABLE_DIFFUSION
from emm.seeds import derive
from emm.spec import Recipe, digest, nested, parse
from emm.train import checkpoint
from emm.train.device import as_tensors, build_denoiser, choose_device
from emm.train.given import check_code
from emm.train.schedules import epoch_at, evaluated_steps, respaced
from emm.train.stage import read_run, require_fit

NOISE_BLOCK = 64


def sample_run(
    run_path: Path,
    subset_path: Path,
    evaluation: Mapping[str, Any],
    output: Path,
    *,
    name: str = "",
    threads: int = 1,
    batch_size: int = 256,
) -> None:
    """Sample all checkpoints of a run that an evaluation asks for into the folder `output`.

    evaluation: dotted settings eval.*, train.epochs and train.ema. The folder gets a file of
    images per checkpoint and an index, and appears only when it is complete; an interrupted call
    goes on with the checkpoint that it was at.
    """
    torch.set_num_threads(threads)
    content, settings = read_run(run_path)
    settings = settings | evaluation
    check_sampling(settings)
    recipe = parse(Recipe, nested(settings), str(run_path))
    subset = read_subset(subset_path)
    require_fit(subset, settings, subset_path)
    device = choose_device(recipe.train.device)
    unfinished = output.with_name(f"{output.name}.partial")
    token = digest([content["run"], content["made"]["date"], dict(evaluation)])
    others = {}
    with exclusive(output.parent, output.name):
        if recipe.model.arch == STABLE_DIFFUSION:
            from emm.sd.sample import write_samples

            files = _checkpoint_files(run_path, content, settings)
            about = (token, device, batch_size, content.get("base"))
            others = write_samples(recipe, subset, files, unfinished, *about)
            steps = list(files)
        else:
            denoisers = denoisers_of(recipe, settings, content, run_path, subset, device)
            steps = _write_samples(denoisers, recipe, subset, unfinished, token, device, batch_size)
        index = {"run": content["run"], "evaluation": name, "settings": settings, **others}
        index["checkpoints"] = [
            {"step": step, "epoch": epoch_at(step, settings), "file": sample_file(step)}
            for step in steps
        ]
        write_text(unfinished / SAMPLE_INDEX, json.dumps(index, indent=1))
        _publish(unfinished, output, {SAMPLE_INDEX, *map(sample_file, steps), *others.values()})


def _write_samples(
    denoisers: Iterator[tuple[int, DenoiserFunction]],
    recipe: Recipe,
    subset: Subset,
    folder: Path,
    token: str,
    device: torch.device,
    batch_size: int,
) -> list[int]:
    """Sample each denoiser into its file, unless that is done; returns the steps."""
    noise, labels = draw_inputs(recipe, subset)
    steps = []
    for step, denoiser in denoisers:
        shards.write_samples(
            folder / sample_file(step),
            len(noise),
            partial(sample, denoiser, noise, labels, recipe, device, batch_size),
            token=token,
            batch_size=batch_size,
            labels=None if labels is None else labels.numpy(),
        )
        steps.append(step)
    return steps


def sample_file(step: int) -> str:
    """Name of the file with the samples of a checkpoint."""
    return f"step-{step:08d}.npz"


def _publish(folder: Path, output: Path, names: Set[str]) -> None:
    """Make `folder` the output, without what an older or a killed call left in it."""
    for path in list(folder.iterdir()):
        if path.name not in names:
            path.unlink()
    shutil.rmtree(output, ignore_errors=True)
    folder.replace(output)


def draw_inputs(recipe: Recipe, subset: Subset) -> tuple[Tensor, Tensor | None]:
    """Latents (N, C, H, W) and labels (N,) or None: image i has a CPU generator of its own.

    As published: the latent first, then a label uniform over label_dim, used or not. eval.label
    asks for others; the latents stay the same. trained: that of a training image, drawn uniformly.
    mixed: two of those that training images have, (N, 2). mean, unseen: label_dim and label_dim +
    i, which `_tell` adds. data, dummy: that of all images of the data, or of the dummies.
    """
    _, height, width, channels = subset.images.shape
    count = recipe.eval.num_samples
    noise = torch.empty(count, channels, height, width)
    labels, draw = [], _label_drawing(recipe.eval.label, subset)
    generator = torch.Generator()
    for index in range(count):
        generator.manual_seed(recipe.eval.seed + index)
        torch.randn(channels, height, width, generator=generator, out=noise[index])
        labels.append(draw(index, generator))
    return noise, torch.tensor(labels) if subset.label_dim else None


def _label_drawing(which: str, subset: Subset) -> Callable[[int, torch.Generator], Any]:
    """The label of a sample, or its two, from its position and its generator."""
    if not subset.label_dim:
        return lambda index, generator: None
    if which == "drawn":
        return lambda index, generator: _drawn(subset.label_dim, generator)
    if which == "trained":
        return lambda index, generator: int(subset.labels[_drawn(len(subset), generator)])
    if which in ("mean", "unseen"):
        step = int(which == "unseen")
        return lambda index, generator: subset.label_dim + step * index
    if which == "mixed":
        return partial(_two_labels, np.unique(subset.labels))
    only = _only_label(subset, which)
    return lambda index, generator: only


def _drawn(count: int, generator: torch.Generator) -> int:
    return int(torch.randint(count, (), generator=generator))


def _two_labels(known: np.ndarray, index: int, generator: torch.Generator) -> list[int]:
    """Two different labels, all pairs alike; UserError if there is one alone."""
    if len(known) < 2:
        raise UserError("eval.label mixed: needs two labels; the training images have one")
    first = _drawn(len(known), generator)
    second = (first + 1 + _drawn(len(known) - 1, generator)) % len(known)
    return [int(known[first]), int(known[second])]


def _only_label(subset: Subset, which: str) -> int:
    """The label of all images of the data, or of the dummies; UserError if they have several."""
    found = np.unique(subset.labels[subset.is_dummy == (which == "dummy")])
    if len(found) != 1:
        raise UserError(f"eval.label {which}: these training images have {len(found)} labels")
    return int(found[0])


def denoisers_of(
    recipe: Recipe,
    settings: Mapping[str, Any],
    content: Mapping[str, Any],
    run_path: Path,
    subset: Subset,
    device: torch.device,
) -> Iterator[tuple[int, DenoiserFunction]]:
    """Checkpoints of a run that settings ask for: steps and denoisers, one at a time."""
    if recipe.model.arch in (OPTIMUM, OWN):
        check_code(content, settings, run_path)
        images, labels = as_tensors(subset, device)
        images, own = to_unit(images), recipe.model.denoiser
        yield 0, make_denoiser(own, images, labels) if own else Optimum(images, labels)
        return
    denoiser = build_denoiser(recipe, subset, device).eval()
    imported = content.get("weights", {}).get("sha256")
    for step, file in _checkpoint_files(run_path, content, settings).items():
        load_average(denoiser.network, file, recipe.train.ema, imported)
        _tell(denoiser.network, recipe, subset)
        yield step, denoiser


def _tell(network: torch.nn.Module, recipe: Recipe, subset: Subset) -> None:
    """Add the labels that an evaluation asks for and no training image has."""
    if recipe.eval.label == "mean":
        label_input(network).average(torch.from_numpy(subset.labels))
    elif recipe.eval.label == "unseen":
        seeds = range(recipe.eval.seed, recipe.eval.seed + recipe.eval.num_samples)
        label_input(network).invent(derive(seed, "unseen label") for seed in seeds)


def _checkpoint_files(
    run_path: Path, content: Mapping[str, Any], settings: Mapping[str, Any]
) -> dict[int, Path]:
    """Steps that an evaluation asks for, with their files; UserError for one that is not there."""
    files = {entry["step"]: run_path.parent / entry["file"] for entry in content["checkpoints"]}
    steps = evaluated_steps(settings)
    for step in steps:
        if step not in files:
            known = ", ".join(map(str, files))
            raise UserError(f"{run_path}: has no checkpoint at step {step}; there are {known}")
    return {step: files[step] for step in steps}


def load_average(
    network: torch.nn.Module, path: Path, ema: float, imported: str | None = None
) -> None:
    """Load the EMA weights of one rate, and the fixed buffers, into a network.

    imported: sha256 of the file that the run's record says they are from, if from one.
    """
    tensors, metadata = checkpoint.load(path)
    if imported not in (None, metadata["identity"]):
        raise UserError(
            f"{path}: holds other weights than the record of the run; run emm import-weights "
            "again, or in a workflow emm train"
        )
    if ema not in metadata["ema"]:
        raise UserError(f"{path}: has EMA rates {metadata['ema']}, not {ema}; train the run again")
    prefixes = (f"ema-{ema}.", "buffer.")
    state = {k.removeprefix(p): t for p in prefixes for k, t in tensors.items() if k.startswith(p)}
    network.load_state_dict(state)


@torch.inference_mode()
def sample(
    denoiser: DenoiserFunction,
    noise: Tensor,
    labels: Tensor | None,
    recipe: Recipe,
    device: torch.device,
    batch_size: int,
    start: int = 0,
    stop: int | None = None,
) -> np.ndarray:
    """Images (N, H, W, C) uint8 from latents, by the recipe's sampler; or those from start to stop.

    denoiser: D(x, sigma, labels), or a DiscreteDenoiser for the samplers of a discrete process.
    The last batch is filled up with repetitions: kernels round differently for batches of another
    size, so image i would depend on how many images are asked for. Another `batch_size` moves few
    components, by one grey level.
    """
    stop = len(noise) if stop is None else stop
    draw = _sampler(denoiser, recipe)
    parts = []
    for first in range(start, stop, batch_size):
        part = torch.arange(first, first + batch_size).clamp(max=len(noise) - 1)
        chosen = None if labels is None else labels[part].to(device)
        images = draw(noise[part].to(device), chosen, part)
        parts.append(images.permute(0, 2, 3, 1).cpu().numpy())
    return np.concatenate(parts)[: stop - start]


Sampler = Callable[[Tensor, Tensor | None, Tensor], Tensor]


def _sampler(denoiser: DenoiserFunction, recipe: Recipe) -> Sampler:
    """Latents (B, C, H, W), labels and positions (B,) of images to uint8 images."""
    settings = recipe.eval
    network = (
        Replayed.of(denoiser) if isinstance(denoiser, (Denoiser, DiscreteDenoiser)) else denoiser
    )
    if settings.sampler == "heun":
        low = settings.sigma_min or PRECONDITIONINGS[recipe.model.precond].sigma_min
        sigmas = karras_sigmas(settings.steps, low, settings.sigma_max, settings.rho)
        return lambda noise, labels, part: to_uint8(heun(network, noise, sigmas, labels))
    spacing = f"{'ddim' if settings.sampler == 'ddim' else ''}{settings.steps}"
    process = denoiser.process.keep(respaced(len(denoiser.process), spacing))

    def discrete(noise: Tensor, labels: Tensor | None, part: Tensor) -> Tensor:
        if settings.sampler == "ddim":
            images = process.ddim(network, noise, labels)
        else:
            images = process.ancestral(network, noise, labels, _noises(settings.seed, part, noise))
        return grey_levels(images, settings.rounding)

    return discrete


def _noises(seed: int, part: Tensor, like: Tensor) -> Iterator[Tensor]:
    """Noise of each further step for the images at positions `part`, whatever their batch.

    Blocks of NOISE_BLOCK images share a generator on the device of `like`: one for each image
    would take longer than the network.
    """
    generator = torch.Generator(like.device)
    blocks, place = torch.unique(part // NOISE_BLOCK, return_inverse=True)
    rows = (place * NOISE_BLOCK + part % NOISE_BLOCK).to(like.device)
    shape = (NOISE_BLOCK, *like.shape[1:])
    for step in itertools.count():
        drawn = []
        for block in blocks.tolist():
            generator.manual_seed(derive(derive(seed, "sampling", block), "sampling", step))
            drawn.append(torch.randn(shape, generator=generator, device=like.device))
        yield torch.cat(drawn)[rows]
