"""Measures as stages: checkpoints or samples of an evaluation in, a table of rows out."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from emm.analyse.parquet import write_table
from emm.data.sources import Source
from emm.data.stage import Subset, read_source, read_subset
from emm.diffusion.optimum import Optimum
from emm.diffusion.precondition import to_unit
from emm.diffusion.sampling import denoisers_of
from emm.errors import UserError
from emm.measure import PROBES, unmeasurable
from emm.measure.exact import Gaussian, true_ideal
from emm.measure.heldout import drawn_from, held_out
from emm.measure.ideals import Ideals, Probes, compare, ideals_at, levels_of
from emm.seeds import derive
from emm.spec import Recipe, flatten, nested, parse
from emm.train.device import as_tensors, choose_device
from emm.train.schedules import epoch_at
from emm.train.stage import read_run, require_fit


def measure_ideals(
    run_path: Path,
    subset_path: Path,
    source_path: Path,
    evaluation: Mapping[str, Any],
    output: Path,
    *,
    name: str = "",
    threads: int = 1,
) -> pd.DataFrame:
    """Compare all checkpoints of an evaluation with the ideal denoisers, and write the table.

    Rows by checkpoint, kind of probes (training or held-out images) and noise level; columns as
    in emm.measure.ideals. UserError for a network that is no denoiser of images, or where no image
    is held out.
    """
    torch.set_num_threads(threads)
    content, settings = read_run(run_path)
    settings = settings | evaluation
    recipe = parse(Recipe, nested(settings), str(run_path))
    if reason := unmeasurable("ideals", flatten(recipe)):
        raise UserError(f"{run_path}: {reason}")
    subset, source = read_subset(subset_path), read_source(source_path)
    require_fit(subset, settings, subset_path)
    device = choose_device(recipe.train.device)
    rows, ideals = [], None
    for step, denoiser in denoisers_of(recipe, settings, content, run_path, subset, device):
        ideals = ideals or all_ideals(recipe, subset, source, device, levels_of(denoiser))
        about = {"run": content["run"], "evaluation": f"{content['run']}/{name}"}
        about |= {"step": step, "epoch": epoch_at(step, settings)}
        rows += [about | row for row in compare(denoiser, ideals)]
    frame = pd.DataFrame(rows)
    write_table(output, frame)
    return frame


def all_ideals(
    recipe: Recipe, subset: Subset, source: Source, device: torch.device, levels: list[float]
) -> dict[str, list[Ideals]]:
    """What the ideals make of both kinds of probes, at all levels."""
    images, labels = as_tensors(subset, device)
    images = to_unit(images)
    data = torch.from_numpy(~subset.is_dummy).to(device)
    empirical, gaussian = Optimum(images, labels), Gaussian(images[data])
    true = true_ideal(flatten(recipe), images.shape[-1])
    probes = make_probes(recipe, subset, source, images, labels)
    with torch.inference_mode():
        return {
            kind: [ideals_at(of_kind, sigma, empirical, true, gaussian) for sigma in levels]
            for kind, of_kind in probes.items()
        }


def make_probes(
    recipe: Recipe, subset: Subset, source: Source, images: Tensor, labels: Tensor | None
) -> dict[str, Probes]:
    """Training images, repeated where there are few, and held-out ones, under the same noise."""
    generator = torch.Generator().manual_seed(derive(recipe.eval.seed, "ideals"))
    noise = torch.randn(PROBES, *images.shape[1:], generator=generator).to(images.device)
    own = len(subset) - subset.n_dummy
    drawn = torch.randperm(own, generator=generator)
    chosen = drawn[torch.arange(PROBES) % own].to(images.device)
    pool = drawn_from(source, flatten(recipe))
    new, classes = held_out(source, subset, PROBES, recipe.eval.seed, pool)
    others = to_unit(torch.from_numpy(new).permute(0, 3, 1, 2).to(images.device))
    told = None if labels is None else _labels_of(classes, recipe, labels, generator)
    return {
        "training": Probes(
            "training",
            images[chosen],
            None if labels is None else labels[chosen],
            noise,
            chosen.cpu().numpy(),
        ),
        "held out": Probes("held out", others, told, noise[: len(others)], np.arange(len(others))),
    }


def _labels_of(
    classes: np.ndarray, recipe: Recipe, labels: Tensor, generator: torch.Generator
) -> Tensor:
    """Labels of held-out images: their classes, or where labels mean nothing, any in use."""
    if recipe.labels.kind == "true":
        return torch.from_numpy(classes).to(labels.device)
    drawn = torch.randint(len(labels), (len(classes),), generator=generator)
    return labels[drawn.to(labels.device)]
