"""Records of runs whose network is given: weights that others trained, or a user's denoiser."""

import sys
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from emm.data.stage import Subset, read_subset
from emm.diffusion.callables import find_denoiser
from emm.errors import UserError
from emm.files import checked, sha256
from emm.given import check_given, given_files, unheeded
from emm.nets.cost import parameters
from emm.nets.weights import Weights, load_published, read_weights
from emm.spec import DEFAULTS, Recipe, flatten
from emm.train import checkpoint
from emm.train.device import build_denoiser
from emm.train.loop import checkpoint_path
from emm.train.stage import read_run, train_run, unique_labels

RECORD = "run.yaml"

PRECONDITIONINGS = {  # classes of EDM's code: ours, and the constants that we have fixed
    "VPPrecond": ("vp", {"beta_d": 19.9, "beta_min": 0.1}),
    "VEPrecond": ("ve", {}),
    "EDMPrecond": ("edm", {"sigma_data": 0.5}),
}


def import_weights(
    recipe: Recipe, subset: Subset, rates: Sequence[float], folder: Path
) -> dict[str, Any]:
    """Write the network of model.weights as checkpoint 0 of a run; returns what the record says.

    The weights stand for those of every EMA rate in `rates`. UserError for files that are refused,
    and for networks that are not the one of the settings.
    """
    path = Path(recipe.model.weights)
    origin = {"file": str(path), "sha256": checked(path, sha256)}
    weights = read_weights(path)
    try:
        _check_kind(weights, recipe.model.precond, recipe.model.prediction)
        network = build_denoiser(recipe, subset, torch.device("cpu")).network
        ignored = load_published(network, weights.tensors)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    if ignored:
        print(
            f"{path}: left out {', '.join(ignored)}: augmentations, which sampling does without",
            file=sys.stderr,
        )
    if sha256(path) != origin["sha256"]:
        raise UserError(f"{path}: changed while it was read; run the same command again")
    _save(network, rates, origin["sha256"], checkpoint_path(folder, 0))
    return {"parameters": parameters(network), "weights": origin | {"left_out": ignored}}


def _check_kind(weights: Weights, precond: str, prediction: str) -> None:
    """Refuse weights that the file itself says were trained under another preconditioning."""
    if not weights.kind.endswith("Precond"):
        return
    if weights.kind not in PRECONDITIONINGS:
        known = ", ".join(PRECONDITIONINGS)
        raise UserError(f"a network under {weights.kind}, which is not known; known: {known}")
    expected, constants = PRECONDITIONINGS[weights.kind]
    if precond != expected:
        raise UserError(
            f"a network under {weights.kind}: set model.precond to {expected}, not {precond}"
        )
    if prediction != DEFAULTS["model.prediction"]:
        raise UserError(
            f"a network under {weights.kind}, which predicts as it says: leave out "
            f"model.prediction {prediction}"
        )
    for name, value in constants.items():
        if weights.constants.get(name, value) != value:
            raise UserError(
                f"{weights.kind} with {name} {weights.constants[name]:g}; only {value:g} is known"
            )


def _save(network: nn.Module, rates: Sequence[float], identity: str, path: Path) -> None:
    """A checkpoint as the training writes them."""
    trained, tensors = dict(network.named_parameters()), {}
    for name, tensor in network.state_dict().items():
        prefixes = [f"ema-{rate}." for rate in rates] if name in trained else ["buffer."]
        tensors |= {f"{prefix}{name}": tensor.clone() for prefix in prefixes}
    checkpoint.save(path, tensors, {"identity": identity, "step": 0, "ema": list(rates)})


def import_run(
    file: Path, settings: Mapping[str, Any], named: Set[str], subset_path: Path, to: Path
) -> dict[str, Any]:
    """Make a run of a file of weights in the folder `to`; returns its record.

    settings: dotted ones of the network. What the training set decides (its size and resolution,
    and the kind of its labels) is filled in, unless it is `named`. UserErrors are those of
    `import_weights`; also for a folder with a run of another kind.
    """
    output = (to.parent if to.name == RECORD else to) / RECORD
    if output.exists() and "weights" not in read_run(output)[0]:
        raise UserError(f"{output}: is the record of a training; choose another folder")
    found = _of_subset(read_subset(subset_path))
    settings = {**settings, **{k: v for k, v in found.items() if k not in named}}
    settings["model.weights"] = str(file)
    check_given(settings)
    settings |= unheeded(settings)
    length = settings["train.epochs"], settings["eval.snapshots"]
    return train_run(settings, subset_path, [length], [settings["train.ema"]], output)


def _of_subset(subset: Subset) -> dict[str, Any]:
    """The settings that a training set itself tells."""
    labels = subset.labels
    kind = "true" if np.array_equal(labels, subset.classes) else "random"
    kind = "unique" if np.array_equal(labels, unique_labels(subset)) else kind
    return {
        "data.size": subset.size,
        "data.dummy_size": subset.n_dummy,
        "data.duplicated": float((subset.multiplicity[: subset.size] > 1).mean()),
        "data.copies": int(subset.multiplicity.max()),
        "data.resolution": subset.images.shape[1],
        "labels.kind": kind if subset.label_dim else "none",
        "labels.num_classes": subset.label_dim,
    }


def describe_denoiser(recipe: Recipe) -> dict[str, Any]:
    """What the record says of model.denoiser; UserError if there is no such callable.

    The hash is of its file alone: not of modules that the file imports, nor of installed ones.
    """
    found = find_denoiser(recipe.model.denoiser)
    count = parameters(found) if isinstance(found, nn.Module) else 0
    files = {name: sha256(name) for name in given_files(flatten(recipe))}
    return {"parameters": count, "denoiser": {"name": recipe.model.denoiser, "sha256": files}}


def check_code(content: Mapping[str, Any], settings: Mapping[str, Any], record: Path) -> None:
    """UserError if the file of model.denoiser is not the one that the run was made with.

    content and settings: of the run's record, the file `record`.
    """
    known = content.get("denoiser", {}).get("sha256", {})
    for name in given_files(settings):
        if checked(name, sha256) != known.get(name):
            raise UserError(
                f"model.denoiser: {name} has changed since {record} was written (another sha256); "
                f"delete {record} and run the same snakemake command again, or emm train"
            )
