"""Content-addressed names: which settings decide a source, a subset, a run and an evaluation."""

from collections.abc import Mapping
from typing import Any

from emm.data.catalogue import source_info
from emm.documents import Config
from emm.limits import NETWORKS
from emm.sd import STABLE_DIFFUSION
from emm.spec import DEFAULTS, RECIPE_VERSION, Train, differing, digest

CROSS = ("data.cross_width", "data.cross_position", "data.cross_margin")
SOURCE_KEYS = ("data.dataset", "data.path", "data.seed", *CROSS)
RECORDED = tuple(f"train.{name}" for name in sorted(Train.recorded))
UNSCHEDULED = tuple(key for key in RECORDED if key != "train.epochs")
EVALUATION_KEYS = ("eval", "train.epochs", "train.iterations", "train.ema")


def source_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that decide a source and differ from their defaults."""
    keys = [key for key in SOURCE_KEYS if key != "data.seed" or _is_generated(settings)]
    return differing(settings, (*keys, *_reduced_to(settings)))


def _is_generated(settings: Mapping[str, Any]) -> bool:
    return source_info(settings["data.dataset"]).generated


def _reduced_to(settings: Mapping[str, Any]) -> list[str]:
    """The resolution, where images are reduced to it while they are read."""
    return ["data.resolution"] if source_info(settings["data.dataset"]).reduced else []


def features_id(settings: Mapping[str, Any]) -> str:
    """Readable slug and hash of the features that a source's images are compared by.

    They belong to a resolution, where the source has another.
    """
    resolution = None if _reduced_to(settings) else settings["data.resolution"]
    return "-".join(filter(None, [source_id(settings), f"{resolution}px" if resolution else ""]))


def measure_name(measure: str, config: Config) -> str:
    """Name of the table of a measure; of quality with the features, and their weights' path."""
    if measure != "quality":
        return measure
    weights = [digest(config.feature_weights)] if config.feature_weights else []
    return "-".join([measure, config.features, *weights])


def dummy_settings(settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """The settings of the source of a run's dummies; None without dummies."""
    if not settings["data.dummy_size"]:
        return None
    defaults = {key: DEFAULTS[key] for key in ("data.path", *CROSS)}
    return {**settings, **defaults, "data.dataset": settings["data.dummy"]}


def subset_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that decide a training set and differ from their defaults."""
    return differing(settings, ("data", "labels"))


def evaluation_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that decide an evaluation of a run and differ from their defaults."""
    return differing(settings, EVALUATION_KEYS)


def identity(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that decide a training's trajectory and differ from their defaults.

    Its length belongs to them where the learning rate depends on it.
    """
    groups = ("data", "labels", "model", "train")
    recorded = RECORDED if settings["train.lr_schedule"] == "constant" else UNSCHEDULED
    return {k: v for k, v in differing(settings, groups).items() if k not in recorded}


def run_id(settings: Mapping[str, Any]) -> str:
    """Readable slug and hash of a run."""
    s = {**DEFAULTS, **settings}  # records of older runs lack newer settings
    blocks = f"d{s['model.depth']}" if s["model.arch"] == "dit" else f"b{s['model.num_blocks']}"
    network = f"c{s['model.channels']}{blocks}" if is_ours(s) else ""
    given = "weights" if s["model.weights"] else ""
    network = s["model.caption"] if s["model.arch"] == STABLE_DIFFUSION else network
    parts = [_subset_slug(s), s["model.arch"].replace("_", "-"), network, given]
    return "-".join([*filter(None, parts), digest([RECIPE_VERSION, identity(s)])])


def is_ours(settings: Mapping[str, Any]) -> bool:
    """Whether a run's network is one of ours, with channels and blocks."""
    return settings["model.arch"] in NETWORKS


def _subset_slug(s: Mapping[str, Any]) -> str:
    resolution = f"{s['data.resolution']}px" if s["data.resolution"] else ""
    labels = {"none": "", "random": f"random{s['labels.num_classes']}"}
    kind = labels.get(s["labels.kind"], s["labels.kind"])
    alpha = s.get("data.alpha")
    blend = "" if alpha is None else f"a{alpha:g}"
    dummies = f"dummies{s['data.dummy_size']}" if s["data.dummy_size"] else ""
    copies = f"copies{s['data.copies']}" if s["data.copies"] > 1 else ""
    only = (s["data.only_class"] or "").replace(" ", "-").replace("/", "-")
    size = f"n{s['data.size']}"
    part = f"part{s['data.part']}" if s["data.part"] > 1 else ""
    parts = [s["data.dataset"], only, resolution, size, part, blend, copies, dummies, kind]
    return "-".join(filter(None, parts))


def subset_id(settings: Mapping[str, Any]) -> str:
    """Readable slug and hash of a training set."""
    return f"{_subset_slug({**DEFAULTS, **settings})}-{digest(subset_settings(settings))}"


def source_id(settings: Mapping[str, Any]) -> str:
    """Readable slug and hash of a data source."""
    resolution = [f"{settings[key]}px" for key in _reduced_to(settings)]
    name = "-".join([settings["data.dataset"], *resolution])
    return f"{name}-{digest(source_settings(settings))}"
