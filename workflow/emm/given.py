"""Runs that train nothing: the optimum, weights that others trained, a denoiser of one's own."""

from collections.abc import Mapping
from typing import Any

from emm.errors import UserError
from emm.limits import UNETS
from emm.spec import DEFAULTS

OPTIMUM, OWN = "optimum", "denoiser"  # values of model.arch
HEEDED = {  # what decides the samples of an untrained run, besides the data
    OPTIMUM: {"model.arch"},
    OWN: {"model.arch", "model.denoiser", "train.device"},
    "weights": {key for key in DEFAULTS if key.startswith("model.")}
    - {"model.dropout", "model.denoiser"}
    | {"train.device", "train.precision"},
}


def is_trained(settings: Mapping[str, Any]) -> bool:
    """Whether a run, given as dotted settings, trains a network; if not, it has step 0 alone."""
    return settings["model.arch"] not in (OPTIMUM, OWN) and settings["model.weights"] is None


def check_given(settings: Mapping[str, Any]) -> None:
    """UserError for weights and denoisers that the kind of network has no place for."""
    arch, weights, denoiser = (settings[f"model.{key}"] for key in ("arch", "weights", "denoiser"))
    if weights is not None and arch not in UNETS:
        raise UserError(f"model.weights: goes with model.arch {' or '.join(UNETS)}, not {arch}")
    if arch == OWN and denoiser is None:
        raise UserError(
            "model.denoiser: needed with model.arch denoiser; set it to file.py:name or module:name"
        )
    if arch != OWN and denoiser is not None:
        raise UserError(f"model.denoiser: goes with model.arch denoiser, not {arch}")
    if denoiser is not None:
        split_name(denoiser)


def split_name(denoiser: str) -> tuple[str, str]:
    """File or module, and name in it, of model.denoiser; UserError if it is not written so."""
    place, _, name = denoiser.rpartition(":")
    is_module = all(part.isidentifier() for part in place.split("."))
    if not (place.endswith(".py") or is_module) or not name.isidentifier():
        raise UserError(
            f"model.denoiser {denoiser}: write it as file.py:name or as package.module:name"
        )
    return place, name


def given_files(settings: Mapping[str, Any]) -> list[str]:
    """Files that a run takes its network from: where one changes, so does the network."""
    weights, denoiser = settings["model.weights"], settings["model.denoiser"]
    place = split_name(denoiser)[0] if denoiser else ""
    return [*filter(None, [weights]), *([place] if place.endswith(".py") else [])]


def unheeded(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Defaults of the settings that an untrained run does not heed."""
    heeded = HEEDED.get(settings["model.arch"], HEEDED["weights"])
    return {
        key: default
        for key, default in DEFAULTS.items()
        if key.startswith(("model.", "train.", "eval.snapshots")) and key not in heeded
    }
