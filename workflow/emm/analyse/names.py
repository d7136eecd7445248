"""Names, units and order of settings and their values, as figures and tables show them."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

SIZE = "data.size"
PER_IMAGE = ("unique", "vectors")  # kinds of labels of which each image has its own
TIMES = ("epoch", "step")  # what an x axis may show besides settings
SETTINGS = {
    "data.alpha": r"Share of the other source $\alpha$",
    "data.copies": "Copies of each repeated image $k$",
    "data.dataset": "Data set",
    "data.dummy": "Dummies",
    "data.dummy_size": "Dummies (images)",
    "data.duplicated": "Share of repeated images",
    "data.only_class": "Image class",
    "data.num_classes": "Number of image classes",
    "data.part": "Half of the data",
    "data.resolution": "Resolution (pixels)",
    "data.seed": "Draw of the data",
    "data.size": r"Training set size $|\mathcal{D}|$ (images)",
    "epoch": "Training epochs",
    "eval.guidance": "Guidance",
    "eval.label": "Label of the samples",
    "eval.num_samples": "Samples per checkpoint",
    "eval.sampler": "Sampler",
    "eval.seed": "Sampling seed",
    "eval.steps": "Sampling steps",
    "horizon": "Run length (epochs)",
    "labels.dim": "Length of the label vectors",
    "labels.kind": "Labels",
    "labels.num_classes": "Number of label classes $C$",
    "model.arch": "Network",
    "model.base": "Base model",
    "model.caption": "Captions",
    "model.channels": "Channel width",
    "model.depth": "Transformer blocks",
    "model.num_blocks": "Residual blocks per level",
    "model.fourier_scale": "Fourier scale",
    "model.patch": "Patch (pixels)",
    "model.precond": "Preconditioning",
    "model.prediction": "Prediction",
    "model.skip_count": "Skip connections kept",
    "model.skip_deleted": "Skip connections deleted",
    "model.skip_index": "Index of the only skip connection",
    "model.skip_mask": "Skip mask",
    "model.skip_resolution": "Resolution of the skip connections",
    "model.time_embedding": "Time embedding",
    "model.window": "Attention window (tokens)",
    "n_training": r"Training set size $|\mathcal{D}|$ (images)",
    "step": "Training steps",
    "train.augment": "Augmentation",
    "train.batch_size": "Batch size (images)",
    "train.ema": "EMA rate",
    "train.epochs": "Run length (epochs)",
    "train.iterations": "Run length (steps)",
    "train.lr": "Learning rate",
    "train.precision": "Precision",
    "train.seed": "Training seed",
    "train.shift": "Largest shift (pixels)",
    "train.warmup_epochs": "Warm-up (epochs)",
    "train.weighting": "Loss weighting",
}
SHORT = {
    "data.alpha": r"$\alpha$",
    "data.copies": "$k$",
    "data.dummy_size": "dummies",
    "data.num_classes": "image classes",
    "data.size": r"$|\mathcal{D}|$",
    "labels.num_classes": "$C$",
    "model.channels": "width",
    "model.num_blocks": "blocks",
    "model.skip_count": "kept",
    "model.skip_deleted": "deleted",
    "n_training": r"$|\mathcal{D}|$",
}
THOUSANDS = {
    "data.dummy_size",
    "data.size",
    "epoch",
    "eval.num_samples",
    "horizon",
    "n_samples",
    "n_training",
    "step",
    "train.epochs",
    "train.iterations",
}
VALUES = {
    "labels.kind": {
        "none": "unconditional",
        "constant": "one constant label",
        "true": "true labels",
        "random": "random labels",
        "unique": "unique labels",
        "vectors": "random vectors",
    },
    "data.selection": {"balanced_prefix": "the first images", "random": "random images"},
    "eval.label": {
        "drawn": "drawn labels",
        "trained": "labels of drawn images",
        "mixed": "means of two labels",
        "mean": "mean of all labels",
        "unseen": "labels never trained",
        "data": "label of the data",
        "dummy": "label of the dummies",
    },
    "eval.sampler": {"heun": "Heun", "ancestral": "ancestral", "ddim": "DDIM"},
    "model.arch": {
        "ddpmpp": "DDPM++",
        "ncsnpp": "NCSN++",
        "iddpm": "IDDPM",
        "dit": "DiT",
        "stable_diffusion": "Stable Diffusion",
        "optimum": "optimum",
    },
    "model.caption": {"plain": "plain captions", "class": "class captions"},
    "model.skip_mask": {"all": "all skips"},
    "model.precond": {"vp": "VP", "ve": "VE", "edm": "EDM", "cosine": "cosine schedule"},
    "model.prediction": {
        "preconditioned": "as published",
        "noise": "noise",
        "image": "image",
        "velocity": "velocity",
    },
    "train.weighting": {
        "published": "as published",
        "uniform": "uniform",
        "truncated_snr": "max(SNR, 1)",
        "min_snr": "min(SNR, 5)",
        "edm": "EDM's weight",
        "sigmoid": "sigmoid",
    },
    "model.window": {None: "no window"},
    "train.augment": {
        "none": "no augmentation",
        "flip": "flips",
        "shift": "shifts",
        "flip_shift": "flips and shifts",
    },
    "model.time_embedding": {"positional": "positional", "fourier": "Fourier"},
    "data.dataset": {
        "cifar10": "CIFAR-10",
        "cifar100": "CIFAR-100",
        "svhn": "SVHN",
        "cifar10_imagenet_dog": "dogs of CIFAR-10 and ImageNet",
        "ffhq": "FFHQ",
        "artbench10": "ArtBench-10",
        "digits": "handwritten digits",
        "digits_blend": "one and other handwritten digits",
        "digits_rgb": "enlarged handwritten digits",
        "flat": "flat grey",
        "folder": "own images",
        "mondrian": "Mondrian",
        "gaussian_mixture": "Gaussian mixture",
        "random_ink": "random ink",
    },
}
VALUES["data.dummy"] = {None: "no dummies"} | {
    name: f"{words} dummies" for name, words in VALUES["data.dataset"].items()
}


def setting_name(setting: str) -> str:
    """Name and unit of a setting, as on an axis; unknown ones from their dotted name."""
    return SETTINGS.get(setting) or setting.split(".")[-1].replace("_", " ").capitalize()


def short_name(setting: str) -> str:
    """Symbol or short name of a setting, without its unit, to stand inside a label."""
    name = re.sub(r" \([^)]*\)$", "", setting_name(setting))
    return SHORT.get(setting) or (name if name[:2].isupper() else name[:1].lower() + name[1:])


def value_name(setting: str, value: Any) -> str:
    """A value as a legend, tick or cell shows it: "true labels", "1.5k", "1e-05", "all"."""
    if value is None or value != value:
        return VALUES.get(setting, {}).get(None, "-")
    if isinstance(value, tuple):
        return "-".join(value_name("", part) for part in value)
    if isinstance(value, bool | str):
        return VALUES.get(setting, {}).get(value, str(value))
    if setting.endswith(".seed"):
        return str(value)
    if setting == "model.skip_resolution":
        return f"{value}×{value}"  # noqa: RUF001
    if setting in THOUSANDS and value >= 1000 and value % 10 == 0:
        return f"{value / 1000:g}k"
    return f"{value:,.0f}" if value == int(value) and abs(value) < 1e6 else f"{value:g}"


def labelled(setting: str, value: Any) -> str:
    """A value that can stand alone: "unconditional", "width 128", "$C$ = 10"."""
    if isinstance(value, str) and setting in VALUES:
        return value_name(setting, value)
    name = short_name(setting)
    return f"{name}{' = ' if '$' in name else ' '}{value_name(setting, value)}"


def series_label(settings: Mapping[str, Any]) -> str:
    """Label of a series from the settings that tell it from others; absent labels go unsaid."""
    said = {
        name: value
        for name, value in settings.items()
        if value is not None and (name, value) != ("labels.num_classes", 0)
    }
    return ", ".join(labelled(name, value) for name, value in said.items())


def plain_text(label: str) -> str:
    """A label without mathematics, for terminals and Markdown."""
    return label.replace(r"|\mathcal{D}|", "|D|").replace(r"\alpha", "alpha").replace("$", "")


def ordered(setting: str, values: Iterable[Any]) -> list[Any]:
    """Distinct values: numbers ascending, known words in their usual order, others as they come."""
    distinct = list(dict.fromkeys(values))
    known = list(VALUES.get(setting, {}))
    if setting == "model.skip_resolution":  # in encoder order
        return sorted(distinct, key=lambda v: -(v or 0))
    if all(isinstance(v, int | float) for v in distinct if v is not None):
        return sorted(distinct, key=lambda v: (v is None, v or 0))
    return sorted(distinct, key=lambda v: known.index(v) if v in known else len(known))


def rounded(value: float) -> str:
    """An estimated number of images, to three digits or to one image: 9.31, 47.0, 1,048."""
    return f"{value:,.0f}" if abs(value) >= 99.95 else f"{value:#.3g}"
