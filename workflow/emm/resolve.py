"""Complete settings of a run: what follows from others is filled in, contradictions refused."""

from collections.abc import Mapping
from typing import Any

from emm.data.catalogue import (
    SOURCES,
    SourceInfo,
    check_subset,
    class_number,
    repeated_images,
    source_info,
)
from emm.errors import UserError
from emm.given import check_given, is_trained, unheeded
from emm.limits import NETWORKS, UNETS, check_dit, check_iddpm, check_network
from emm.sd import STABLE_DIFFUSION
from emm.sd import limits as fine_tuning
from emm.spec import DEFAULTS
from emm.train.schedules import check_ema, epoch_size, respaced, stored_size, training_size

SAMPLERS = {"iddpm": ("ancestral", "ddim"), STABLE_DIFFUSION: ("ddim",)}  # others: heun


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
            num_classes=settings["data.num_classes"] if _only(settings) is None else None,
            only_class=_only(settings),
            alpha=settings["data.alpha"],
            selection=settings["data.selection"],
            resolution=settings["data.resolution"],
            label_kind=settings["labels.kind"],
        )
        _check_part(settings)
        _check_path(settings, info)
        _check_dummies(settings)
        _check_copies(settings)
        check_given(settings)
        fine_tuning.check(settings, info)
        resolution = settings["data.resolution"] or info.resolution
        _check_network(settings, resolution)
        _check_shift(settings, resolution)
        check_sampling(settings)
        _check_drawn(settings)
        settings["labels.num_classes"] = label_classes(settings)
        _fix_length(settings)
        return _canonical(settings)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


def fill(settings: dict[str, Any]) -> SourceInfo:
    """Fill in the size and the number of classes of the source as far as it is known."""
    info, only = source_info(settings["data.dataset"]), _only(settings)
    if only is not None:
        if settings["data.num_classes"] not in (None, 1):
            raise UserError("data.num_classes: data.only_class takes one class; leave it out")
        settings["data.num_classes"] = 1
    if settings["data.size"] is None and only is not None and info.class_counts:
        settings["data.size"] = info.class_counts[class_number(only, info.class_names)]
    elif settings["data.size"] is None and not info.blends:
        settings["data.size"] = info.size
    if settings["data.num_classes"] is None and info.classes:
        settings["data.num_classes"] = info.classes
    return info


def _only(settings: Mapping[str, Any]) -> str | None:
    return settings["data.only_class"]


def _check_alpha(settings: Mapping[str, Any], info: SourceInfo) -> None:
    dataset, alpha = settings["data.dataset"], settings["data.alpha"]
    if _only(settings) is not None and alpha is not None:
        raise UserError("data.alpha: data.only_class takes one class; leave out one of them")
    if info.blends and alpha is None and _only(settings) is None:
        raise UserError(
            f"data.alpha: needed for {dataset}: the share from 0 to 1 of its second kind"
        )
    if not info.blends and alpha is not None:
        blends = " or ".join(name for name, other in SOURCES.items() if other.blends)
        raise UserError(f"data.alpha: goes with data.dataset {blends}; null for {dataset}")


def _check_part(settings: Mapping[str, Any]) -> None:
    """As far as it shows before the images are there: classes may be too small for two parts."""
    size, available = settings["data.size"], source_info(settings["data.dataset"]).size
    if settings["data.part"] > 1 and available and 2 * size > available:
        raise UserError(
            f"data.part 2: two disjoint subsets of data.size {size} need {2 * size} images; "
            f"{settings['data.dataset']} has {available}"
        )


def _check_path(settings: Mapping[str, Any], info: SourceInfo) -> None:
    dataset, path = settings["data.dataset"], settings["data.path"]
    if dataset == "folder" and path is None:
        raise UserError("data.path: goes with data.dataset folder; set it to the folder")
    if path is not None and not info.takes_path:
        takers = " or ".join(sorted(name for name, other in SOURCES.items() if other.takes_path))
        raise UserError(f"data.path: goes with data.dataset {takers}; null for {dataset}")


def _check_dummies(settings: Mapping[str, Any]) -> None:
    dummy, size = settings["data.dummy"], settings["data.dummy_size"]
    if not size:
        return
    if dummy is None:
        raise UserError(f"data.dummy_size {size}: name the source of the dummies in data.dummy")
    info = source_info(dummy)
    if not info.generated:
        generated = ", ".join(name for name, other in SOURCES.items() if other.generated)
        raise UserError(f"data.dummy: {dummy} is not generated; allowed: {generated}")
    if size > info.size:
        raise UserError(f"data.dummy_size {size}: {dummy} has {info.size} images")
    if dummy == settings["data.dataset"]:
        raise UserError(f"data.dummy {dummy}: is the data itself; take a larger data.size instead")
    if settings["data.resolution"] is None:
        raise UserError("data.resolution: needed with data.dummy, which is generated at it")
    if settings["data.alpha"] is not None:
        raise UserError("data.dummy: a blend takes none; leave out data.alpha or data.dummy")


def _check_copies(settings: Mapping[str, Any]) -> None:
    share, size = settings["data.duplicated"], settings["data.size"]
    if not _repeats(settings):
        return
    if repeated_images(size, share) in (0, size):
        which = "none" if share < 0.5 else "all"
        raise UserError(
            f"data.duplicated {share:g}: would repeat {which} of {size} images; choose a share "
            "that repeats at least one and leaves at least one"
        )


def _repeats(settings: Mapping[str, Any]) -> bool:
    return settings["data.copies"] > 1 and settings["data.duplicated"] > 0


def _check_network(settings: Mapping[str, Any], resolution: int | None) -> None:
    arch = settings["model.arch"]
    if (arch == "iddpm") != (settings["model.precond"] == "cosine") and arch in NETWORKS:
        raise UserError(
            f"model.precond {settings['model.precond']}: model.arch iddpm goes with cosine, and "
            "cosine with iddpm"
        )
    common = ("channels", "channel_mult", "num_blocks", "attention_levels")
    check, own = check_network, ["skip_mask"]
    if arch == "iddpm":
        check, own = check_iddpm, ["heads", "groups"]
    if arch in UNETS:
        check(resolution=resolution, **{key: settings[f"model.{key}"] for key in (*common, *own)})
    if arch == "dit":
        own = ("channels", "heads", "patch", "window")
        check_dit(resolution=resolution, **{key: settings[f"model.{key}"] for key in own})
    _check_objective(settings)


def _check_objective(settings: Mapping[str, Any]) -> None:
    """The discrete process and Stable Diffusion have objectives of their own."""
    if settings["model.arch"] not in ("iddpm", STABLE_DIFFUSION):
        return
    for key in ("model.prediction", "train.weighting"):
        if settings[key] != DEFAULTS[key]:
            raise UserError(
                f"{key} {settings[key]}: goes with model.precond vp, ve or edm; leave it out for "
                f"{settings['model.arch']}"
            )


def _check_shift(settings: Mapping[str, Any], resolution: int | None) -> None:
    shift = settings["train.shift"]
    if "shift" in settings["train.augment"] and resolution is not None and shift >= resolution:
        raise UserError(f"train.shift {shift}: leaves nothing of images of {resolution} pixels")


def check_sampling(settings: Mapping[str, Any]) -> None:
    """UserError for a sampler that is not of the network, or labels that are not of the subset."""
    sampler, arch, steps = (settings[k] for k in ("eval.sampler", "model.arch", "eval.steps"))
    allowed = SAMPLERS.get(arch, ("heun",))
    if sampler not in allowed:
        raise UserError(f"eval.sampler {sampler}: {arch} is sampled by {' or '.join(allowed)}")
    if arch == "iddpm":
        respaced(settings["model.diffusion_steps"], f"{'ddim' * (sampler == 'ddim')}{steps}")
    _check_label(settings)


def _check_label(settings: Mapping[str, Any]) -> None:
    label, kind, arch = (settings[k] for k in ("eval.label", "labels.kind", "model.arch"))
    if label in ("data", "dummy") and kind != "true":
        raise UserError(f"eval.label {label}: goes with labels.kind true; else use drawn")
    if label == "dummy" and not settings["data.dummy_size"]:
        raise UserError("eval.label dummy: the training set has no dummies")
    if label not in ("drawn", "data", "dummy") and kind == "none":
        raise UserError(f"eval.label {label}: labels.kind none has no labels; use drawn")
    if label in ("mixed", "mean", "unseen") and arch not in UNETS:
        raise UserError(f"eval.label {label}: goes with model.arch {' or '.join(UNETS)}")
    if label == "mixed" and kind == "constant":
        raise UserError("eval.label mixed: needs two labels; labels.kind constant has one")


def with_epochs(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings with the train.epochs that train.iterations make, where a run counts in steps."""
    if settings["train.iterations"] is None or settings["data.size"] is None:
        return settings
    images = settings["train.iterations"] * settings["train.batch_size"]
    return settings | {"train.epochs": images / epoch_size(settings)}


def _fix_length(settings: dict[str, Any]) -> None:
    """Fill in the epochs; whole batches need a whole batch, and the EMA a rate below 1."""
    settings |= with_epochs(settings)
    size, batch = training_size(settings), settings["train.batch_size"]
    stored = stored_size(settings)
    if settings["train.order"] == "shuffled" and batch > stored and is_trained(settings):
        raise UserError(
            f"train.batch_size {batch}: train.order shuffled takes whole batches, of {stored} "
            "images there is none; use a smaller batch, or order fixed"
        )
    if settings["train.ema_ramp"] == "epochs":
        rate, warmup = settings["train.ema"], settings["train.warmup_epochs"]
        check_ema(rate, size, batch, warmup)


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
    if kind == "true":
        return _true_classes(settings, given)
    each = size and training_size(settings)
    implied = {"none": 0, "constant": 1, "unique": each, "vectors": each}[kind]
    if given not in (0, implied):
        raise UserError(f"labels.num_classes {given}: {kind} labels have {implied}")
    return implied or 0


def _check_drawn(settings: Mapping[str, Any]) -> None:
    """Labels are drawn among those of the label input: all of them have to be trained."""
    given, classes = settings["labels.num_classes"], _present_classes(settings)
    drawn = settings["eval.label"] == "drawn" and settings["labels.kind"] == "true"
    if drawn and classes and given > classes:
        raise UserError(
            f"labels.num_classes {given}: most of these labels have no images, and samples would "
            "draw them; set eval.label to data or dummy, or leave out labels.num_classes"
        )


def _present_classes(settings: Mapping[str, Any]) -> int | None:
    """Classes of the training set, its dummies included; None or 0 if they are not known."""
    classes = settings["data.num_classes"]
    return classes and classes + bool(settings["data.dummy_size"])


def _true_classes(settings: Mapping[str, Any], given: int) -> int:
    """Width of the label input; a wider one than there are classes has rows that nothing trains."""
    needed = _present_classes(settings)
    if not needed:
        return given
    if given and given < needed:
        raise UserError(f"labels.num_classes {given}: the training set has {needed} classes")
    return given or needed


def _canonical(settings: dict[str, Any]) -> dict[str, Any]:
    """Equal settings for equal runs: what has no effect goes back to its default."""
    if not is_trained(settings):
        settings |= unheeded(settings)
    if settings["model.arch"] == STABLE_DIFFUSION:
        settings |= fine_tuning.unheeded(settings)
    if not settings["data.dummy_size"]:
        settings["data.dummy"] = None
    if not _repeats(settings):
        settings |= {key: DEFAULTS[key] for key in ("data.copies", "data.duplicated")}
    for key, has_effect in _optional(settings).items():
        settings[key] = settings[key] if has_effect else DEFAULTS[key]
    settings |= _plain_objective(settings)
    levels = len(settings["model.channel_mult"])
    if settings["model.skip_mask"] == "1" * (levels * (settings["model.num_blocks"] + 1)):
        settings["model.skip_mask"] = "all"
    return settings


def _plain_objective(settings: Mapping[str, Any]) -> dict[str, str]:
    """One name for objectives that are the same: VP predicts the noise, each weight of F is 1."""
    precond, prediction, weighting = (
        settings[key] for key in ("model.precond", "model.prediction", "train.weighting")
    )
    if (precond, prediction) == ("vp", "noise"):
        prediction = "preconditioned"
    own_weight = precond == weighting or (prediction == "preconditioned" and weighting == "uniform")
    weighting = "published" if own_weight else weighting
    return {"model.prediction": prediction, "train.weighting": weighting}


def _optional(settings: Mapping[str, Any]) -> dict[str, bool]:
    """Settings that only some runs heed, and whether this one does."""
    mondrian = settings["data.dataset"] == "mondrian"
    sources = {settings["data.dataset"], settings["data.dummy"]} - {None}
    generated = any(source_info(name).generated for name in sources)
    iddpm, dit = (settings["model.arch"] == arch for arch in ("iddpm", "dit"))
    diffusers = settings["model.arch"] == STABLE_DIFFUSION
    vectors = settings["labels.kind"] == "vectors" and settings["model.arch"] in UNETS
    return {
        "data.seed": generated or settings["data.selection"] == "random" or _repeats(settings),
        "data.cross_width": mondrian,
        "data.cross_position": mondrian,
        "data.cross_margin": mondrian and settings["data.cross_position"] == "random",
        "labels.seed": settings["labels.kind"] == "random" or vectors,
        "labels.dim": vectors,
        "model.fourier_scale": settings["model.time_embedding"] == "fourier" and not iddpm,
        "model.time_embedding": not iddpm,
        "model.skip_mask": not iddpm and not dit,
        "model.channel_mult": not dit,
        "model.num_blocks": not dit,
        "model.attention_levels": not dit,
        "model.depth": dit,
        "model.patch": dit,
        "model.window": dit,
        "model.heads": iddpm or dit,
        "model.groups": iddpm,
        "model.diffusion_steps": iddpm,
        "model.caption": diffusers,
        "train.accumulation": diffusers,
        "train.shift": "shift" in settings["train.augment"],
        "train.warmup_epochs": settings["train.ema_ramp"] == "epochs"
        or not settings["train.warmup_steps"],
        "eval.rounding": iddpm,
        "eval.guidance": diffusers,
        "eval.sigma_max": not iddpm,
        "eval.sigma_min": not iddpm,
        "eval.rho": not iddpm,
    }
