"""Content-addressed names: which settings decide a source, a subset, a run and an evaluation."""

from collections.abc import Mapping
from typing import Any

from emm.data.catalogue import source_info
from emm.spec import RECIPE_VERSION, Train, differing, digest

GENERATED = ("data.seed", "data.cross_width", "data.cross_position", "data.cross_margin")
SOURCE_KEYS = ("data.dataset", "data.path", *GENERATED)
RECORDED = tuple(f"train.{name}" for name in sorted(Train.recorded))
EVALUATION_KEYS = ("eval", "train.epochs", "train.ema")


def source_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that decide a source and differ from their defaults."""
    return differing(settings, (*SOURCE_KEYS, *_reduced_to(settings)))


def _reduced_to(settings: Mapping[str, Any]) -> list[str]:
    """The resolution, where images are reduced to it while they are read."""
    return ["data.resolution"] if source_info(settings["data.dataset"]).reduced else []


def subset_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that decide a training set and differ from their defaults."""
    return differing(settings, ("data", "labels"))


def evaluation_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that decide an evaluation of a run and differ from their defaults."""
    return differing(settings, EVALUATION_KEYS)


def identity(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that decide a training's trajectory and differ from their defaults."""
    groups = ("data", "labels", "model", "train")
    return {k: v for k, v in differing(settings, groups).items() if k not in RECORDED}


def run_id(settings: Mapping[str, Any]) -> str:
    """Readable slug and hash of a run."""
    s = settings
    network = f"c{s['model.channels']}b{s['model.num_blocks']}"
    parts = [_subset_slug(s), s["model.arch"], "" if s["model.arch"] == "optimum" else network]
    return "-".join([*filter(None, parts), digest([RECIPE_VERSION, identity(s)])])


def _subset_slug(s: Mapping[str, Any]) -> str:
    resolution = f"{s['data.resolution']}px" if s["data.resolution"] else ""
    labels = {"none": "", "random": f"random{s['labels.num_classes']}"}
    kind = labels.get(s["labels.kind"], s["labels.kind"])
    alpha = s.get("data.alpha")
    blend = "" if alpha is None else f"a{alpha:g}"
    parts = [s["data.dataset"], resolution, f"n{s['data.size']}", blend, kind]
    return "-".join(filter(None, parts))


def subset_id(settings: Mapping[str, Any]) -> str:
    """Readable slug and hash of a training set."""
    return f"{_subset_slug(settings)}-{digest(subset_settings(settings))}"


def source_id(settings: Mapping[str, Any]) -> str:
    """Readable slug and hash of a data source."""
    resolution = [f"{settings[key]}px" for key in _reduced_to(settings)]
    name = "-".join([settings["data.dataset"], *resolution])
    return f"{name}-{digest(source_settings(settings))}"
