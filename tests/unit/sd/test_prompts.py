"""Prompts: their grammar, and which image has which."""

import dataclasses

import numpy as np
import pytest

from emm.data.catalogue import SOURCES
from emm.errors import UserError
from emm.sd.prompts import class_prompt, prompts_of, sample_prompts, training_prompts


@pytest.mark.parametrize(
    ("name", "prompt"),
    [
        ("art_nouveau", "an art nouveau painting"),  # the paper's examples
        ("realism", "a realism painting"),
        ("post_impressionism", "a post impressionism painting"),
        ("ukiyo_e", "an ukiyo e painting"),
        ("Ukiyo_e ", "an ukiyo e painting"),
        ("zero", "a zero painting"),
        ("eight", "an eight painting"),
    ],
)
def test_grammar(name, prompt):
    assert class_prompt(name) == prompt


def test_prompts_of_all_styles():
    styles = SOURCES["artbench10"].class_names
    assert prompts_of("plain", styles) == ("a painting",)
    prompts = prompts_of("class", styles)
    assert len(set(prompts)) == 10
    assert prompts[styles.index("surrealism")] == "a surrealism painting"


def test_class_captions_need_classes_that_differ(digits):
    with pytest.raises(UserError, match="no names of classes; use plain"):
        prompts_of("class", ())
    with pytest.raises(UserError, match="share a prompt: a b painting, a b painting"):
        prompts_of("class", ("b", "B"))
    classless = dataclasses.replace(digits(4), classes=np.array([0, 1, -1, 2]))
    with pytest.raises(UserError, match="images without a class"):
        training_prompts("class", classless)
    assert training_prompts("plain", classless).tolist() == [0] * 4


def test_each_image_has_the_prompt_of_its_class(digits):
    subset = digits(20)
    assert training_prompts("class", subset).tolist() == [c for c in range(10) for _ in range(2)]


def test_samples_have_each_class_equally_often(digits):
    drawn = sample_prompts("class", digits(20), 10_000)
    assert np.bincount(drawn).tolist() == [1000] * 10
    np.testing.assert_array_equal(sample_prompts("class", digits(20), 25), drawn[:25])
    assert sample_prompts("plain", digits(20), 7).tolist() == [0] * 7


def test_samples_have_the_classes_of_the_subset_alone(digits):
    subset = digits(8, num_classes=4)
    assert sorted(set(sample_prompts("class", subset, 20))) == [0, 1, 2, 3]
    assert subset.class_names == ("zero", "one", "two", "three")
