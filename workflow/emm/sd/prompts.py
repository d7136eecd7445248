"""Prompts of training images and of samples (Gu et al. 2023, Appendix F)."""

from collections.abc import Sequence

import numpy as np

from emm.data.stage import Subset
from emm.errors import UserError

PLAIN = "a painting"
UNCONDITIONAL = ""  # what guidance leads away from


def class_prompt(name: str) -> str:
    """Prompt of a class: "an art nouveau painting" for art_nouveau; "an" before a vowel letter."""
    words = " ".join(name.replace("_", " ").lower().split())
    return f"{'an' if words[:1] in tuple('aeiou') else 'a'} {words} painting"


def prompts_of(caption: str, class_names: Sequence[str]) -> tuple[str, ...]:
    """The distinct prompts of a training: one for all images, or one per class.

    UserError for class captions without class names, and for classes that share a prompt.
    """
    if caption == "plain":
        return (PLAIN,)
    if not class_names:
        raise UserError("model.caption class: the training set has no names of classes; use plain")
    prompts = tuple(map(class_prompt, class_names))
    if len(set(prompts)) < len(prompts):
        raise UserError(f"model.caption class: classes share a prompt: {', '.join(prompts)}")
    return prompts


def training_prompts(caption: str, subset: Subset) -> np.ndarray:
    """Number of the prompt of each training image, int64 (N,)."""
    if caption == "plain":
        return np.zeros(len(subset), np.int64)
    if subset.classes.min() < 0:
        raise UserError("model.caption class: the training set has images without a class")
    return subset.classes


def sample_prompts(caption: str, subset: Subset, count: int) -> np.ndarray:
    """Number of the prompt of each sample, int64 (count,): the classes of the subset in turn.

    So each class has equally many where their number divides the count (1,000 of 10,000 for each
    style, as published), and sample i does not depend on the count.
    """
    present = np.unique(training_prompts(caption, subset))
    return present[np.arange(count) % len(present)]
