"""Complete settings of a run: what follows from others is filled in, contradictions refused."""

from collections.abc import Mapping
from typing import Any

from emm.data.catalogue import SOURCES, SourceInfo, check_subset, source_info
from emm.errors import UserError
from emm.limits import check_network
from emm.spec import DEFAULTS


def resolve(settings: dict[str, Any], where: str) -> dict[str, Any]:
    """Settings with sizes and class counts filled in; UserError for what cannot be trained."""
    try:
        info = fill(settings)
        _check_alpha(settings, info)
        if settings["data.size"] is None:
            reason = "that blends" if info.blends else "whose size is not known beforehand"
            raise UserError(f"data.size: needed for a source {reason}")
        check_subset(
            settings["data.dataset"],
            size=settings["data.size"],
            num_classes=settings["data.num_classes"],
            alpha=settings["data.alpha"],
            selection=settings["data.selection"],
            resolution=settings["data.resolution"],
            label_kind=settings["labels.kind"],
        )
        _check_path(settings, info)
        if settings["model.arch"] != "optimum":
            _check_network(settings, settings["data.resolution"] or info.resolution)
        settings["labels.num_classes"] = label_classes(settings)
        return _canonical(settings)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


def fill(settings: dict[str, Any]) -> SourceInfo:
    """Fill in the size and the number of classes of the source as far as it is known."""
    info = source_info(settings["data.dataset"])
    if settings["data.size"] is None and not info.blends:
        settings["data.size"] = info.size
    if settings["data.num_classes"] is None and info.classes:
        settings["data.num_classes"] = info.classes
    return info


def _check_alpha(settings: Mapping[str, Any], info: SourceInfo) -> None:
    dataset, alpha = settings["data.dataset"], settings["data.alpha"]
    if info.blends and alpha is None:
        raise UserError(
            f"data.alpha: needed for {dataset}: the share from 0 to 1 of its second kind"
        )
    if not info.blends and alpha is not None:
        blends = " or ".join(name for name, other in SOURCES.items() if other.blends)
        raise UserError(f"data.alpha: goes with data.dataset {blends}; null for {dataset}")


def _check_path(settings: Mapping[str, Any], info: SourceInfo) -> None:
    dataset, path = settings["data.dataset"], settings["data.path"]
    if dataset == "folder" and path is None:
        raise UserError("data.path: goes with data.dataset folder; set it to the folder")
    if path is not None and not info.takes_path:
        takers = " or ".join(sorted(name for name, other in SOURCES.items() if other.takes_path))
        raise UserError(f"data.path: goes with data.dataset {takers}; null for {dataset}")


def _check_network(settings: Mapping[str, Any], resolution: int | None) -> None:
    keys = ("channels", "channel_mult", "num_blocks", "attention_levels", "skip_mask")
    model = {key: settings[f"model.{key}"] for key in keys}
    check_network(resolution=resolution, **model)


def label_classes(settings: Mapping[str, Any]) -> int:
    """labels.num_classes, which only random labels choose freely; UserError if it cannot be."""
    kind, given, size = (
        settings[key] for key in ("labels.kind", "labels.num_classes", "data.size")
    )
    if kind == "random":
        if not 1 <= given <= (size or given):
            raise UserError(
                f"labels.num_classes {given}: random labels have from 1 to data.size = {size}"
            )
        return given
    implied = {"none": 0, "unique": size, "true": settings["data.num_classes"] or given}[kind]
    if given not in (0, implied):
        raise UserError(f"labels.num_classes {given}: {kind} labels have {implied}")
    return implied or 0


def _canonical(settings: dict[str, Any]) -> dict[str, Any]:
    """Equal settings for equal runs: what has no effect goes back to its default."""
    if settings["model.arch"] == "optimum":
        training = (key for key in DEFAULTS if key.startswith(("model.", "train.")))
        settings |= {key: DEFAULTS[key] for key in training if key != "model.arch"}
        settings |= {"eval.snapshots": DEFAULTS["eval.snapshots"]}
    for key, has_effect in _optional(settings).items():
        settings[key] = settings[key] if has_effect else DEFAULTS[key]
    levels = len(settings["model.channel_mult"])
    if settings["model.skip_mask"] == "1" * (levels * (settings["model.num_blocks"] + 1)):
        settings["model.skip_mask"] = "all"
    return settings


def _optional(settings: Mapping[str, Any]) -> dict[str, bool]:
    """Settings that only some runs heed, and whether this one does."""
    mondrian = settings["data.dataset"] == "mondrian"
    generated = source_info(settings["data.dataset"]).generated
    return {
        "data.seed": generated or settings["data.selection"] == "random",
        "data.cross_width": mondrian,
        "data.cross_position": mondrian,
        "data.cross_margin": mondrian and settings["data.cross_position"] == "random",
        "labels.seed": settings["labels.kind"] == "random",
        "model.fourier_scale": settings["model.time_embedding"] == "fourier",
    }
