import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emm.data.labels import make_labels
from emm.errors import UserError

NONE = np.full(20, -1)


def test_none():
    labels, label_dim = make_labels("none", classes=np.arange(20) % 3)
    assert (labels.tolist(), labels.dtype, label_dim) == ([-1] * 20, np.int64, 0)


def test_true_is_the_class():
    classes = np.repeat([0, 1, 4], 3)
    for num_classes, label_dim in ((None, 5), (0, 5), (5, 5), (10, 10)):
        labels, found = make_labels("true", classes=classes, num_classes=num_classes)
        np.testing.assert_array_equal(labels, classes)
        assert found == label_dim


@pytest.mark.parametrize(
    ("num_classes", "start"),
    [(10, [0, 7, 6, 5, 8, 1, 7, 8, 5, 5]), (1000, [816, 19, 495, 870, 398]), (1, [0] * 20)],
)
def test_random_starts_as_published(num_classes, start):
    labels, _ = make_labels("random", classes=NONE, num_classes=num_classes)
    assert labels[: len(start)].tolist() == start


@pytest.mark.parametrize(
    ("size", "num_classes", "label_dim", "empty"),
    [(5000, 1000, 1000, 4), (2000, 400, 400, 4), (2000, 2000, 1999, 747), (100, 1, 1, 0)],
)
def test_random_leaves_the_published_labels_empty(size, num_classes, label_dim, empty):
    labels, found = make_labels("random", classes=np.full(size, -1), num_classes=num_classes)
    assert (found, found - len(np.unique(labels))) == (label_dim, empty)


@settings(max_examples=30, deadline=None)
@given(size=st.integers(1, 300), num_classes=st.integers(1, 50), seed=st.integers(0, 2**40))
def test_random_is_seeded_and_in_range(size, num_classes, seed):
    state = random.getstate()
    labels, label_dim = make_labels(
        "random", classes=np.full(300, -1), num_classes=num_classes, size=size, seed=seed
    )
    longer, _ = make_labels("random", classes=np.full(300, -1), num_classes=num_classes, seed=seed)
    assert random.getstate() == state
    np.testing.assert_array_equal(labels, longer[:size])
    assert 0 <= labels.min() <= labels.max() == label_dim - 1 < num_classes


def test_unique():
    labels, label_dim = make_labels("unique", classes=NONE, num_classes=20)
    assert (labels.tolist(), label_dim) == (list(range(20)), 20)
    assert make_labels("unique", classes=NONE)[1] == 20


@pytest.mark.parametrize(
    ("kind", "classes", "num_classes", "message"),
    [
        ("true", NONE, None, "without a class"),
        ("true", np.arange(5), 3, "has class 4"),
        ("random", NONE, None, "set labels.num_classes"),
        ("random", NONE, -1, "set labels.num_classes"),
        ("unique", NONE, 10, "20 labels"),
        ("wrong", NONE, None, "allowed: none, constant, true, random, unique, vectors"),
    ],
)
def test_bad_settings_are_user_errors(kind, classes, num_classes, message):
    with pytest.raises(UserError, match=message):
        make_labels(kind, classes=classes, num_classes=num_classes)


def test_one_label_for_all_images():
    labels, label_dim = make_labels("constant", classes=np.arange(20))
    assert (labels.tolist(), labels.dtype, label_dim) == ([0] * 20, np.int64, 1)


def test_vectors_are_told_apart_as_unique_labels_are():
    for first, second in zip(
        make_labels("vectors", classes=NONE), make_labels("unique", classes=NONE), strict=True
    ):
        np.testing.assert_array_equal(first, second)
