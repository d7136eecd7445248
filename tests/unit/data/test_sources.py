import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from emm.data.catalogue import SOURCES, check_subset
from emm.data.sources import GENERATORS, LOADERS, Source, load_source
from emm.data.stage import (
    Subset,
    build_subset,
    read_source,
    read_subset,
    write_source,
    write_subset,
)
from emm.data.subsets import select
from emm.errors import UserError

SUPPLIED = {
    *("artbench10", "cifar10", "cifar100", "cifar10_imagenet_dog", "ffhq", "folder", "svhn"),
}
LOADABLE = sorted(set(SOURCES) - SUPPLIED)


@pytest.mark.parametrize("dataset", LOADABLE)
def test_catalogue_agrees_with_the_data(dataset):
    info, source = SOURCES[dataset], load_source(dataset)
    counts = np.bincount(source.labels[source.labels >= 0]).tolist()
    pixels = info.resolution or 32  # of generated images, unless others are asked for
    assert source.images.shape == (info.size, pixels, pixels, info.channels)
    assert (source.class_names, tuple(counts)) == (info.class_names, info.class_counts)
    assert info.smallest_class == (min(counts) if counts else None)
    assert info.classes == source.num_classes


def test_catalogue_has_a_loader_for_every_source():
    assert set(SOURCES) == set(LOADERS) | set(GENERATORS)
    assert {name for name, info in SOURCES.items() if info.generated} == set(GENERATORS)


def test_catalogue_imports_only_the_standard_library():
    code = "import emm.data.catalogue, sys; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    assert not {b"numpy", b"torch", b"pandas", b"sklearn", b"PIL"} & set(modules.split())


@settings(max_examples=60, deadline=None)
@given(
    dataset=st.sampled_from(["digits", "mondrian"]),
    size=st.one_of(st.none(), st.integers(0, 1900), st.integers(9990, 10010)),
    num_classes=st.one_of(st.none(), st.integers(0, 11)),
    selection=st.sampled_from(["balanced_prefix", "random"]),
)
def test_check_subset_refuses_exactly_what_select_refuses(dataset, size, num_classes, selection):
    options = {"size": size, "num_classes": num_classes, "selection": selection}
    early = refusal(lambda: check_subset(dataset, resolution=8, **options))
    late = refusal(lambda: select(SOURCE_OF[dataset], **options))
    assert early == late
    assert early or size is None or len(select(SOURCE_OF[dataset], **options)) == size


def refusal(action: Callable) -> str:
    """Message of the UserError that an action ends in, or nothing."""
    try:
        action()
    except UserError as error:
        return str(error)
    return ""


SOURCE_OF = {name: load_source(name) for name in ("digits", "mondrian")}


@pytest.mark.parametrize(
    ("dataset", "options", "message"),
    [
        ("cifar", {}, "allowed: cifar10, cifar100, svhn, digits, "),
        ("ffhq", {"resolution": None}, "data.resolution: needed for ffhq"),
        ("ffhq", {"resolution": 2048}, "the images have 1024 pixels"),
        ("ffhq", {"resolution": 64, "size": 10_001}, "only 10000"),
        ("ffhq", {"resolution": 64, "label_kind": "true"}, "has no classes"),
        ("cifar10_imagenet_dog", {"size": 2001, "alpha": 0.5}, "has at most 2000"),
        ("digits", {"resolution": 16}, "the images have 8 pixels"),
        ("mondrian", {"resolution": None}, "data.resolution: needed for mondrian, which is gen"),
        ("mondrian", {"resolution": 64, "size": 14_000}, "only 10000"),
        ("cifar10", {"size": 50_001}, "only 50000"),
        ("cifar10", {"size": 5001, "num_classes": 1}, "only 5000"),
    ],
)
def test_check_subset_messages(dataset, options, message):
    with pytest.raises(UserError, match=message):
        check_subset(dataset, **{"size": None, **options})


def test_check_subset_leaves_the_unknown_to_the_stage():
    check_subset("folder", size=10**9, num_classes=7, resolution=512, label_kind="true")
    check_subset("cifar10", size=50_000, num_classes=10, resolution=8, label_kind="true")


def test_digits_are_stretched_to_eight_bits():
    from sklearn.datasets import load_digits

    source, shipped = load_source("digits"), load_digits()
    assert [round(v * 255 / 16) for v in shipped.images.ravel().tolist()] == list(
        source.images.ravel()
    )
    assert source.labels.tolist() == shipped.target.tolist()
    assert sorted(np.unique(source.images)) == [round(v * 255 / 16) for v in range(17)]


@pytest.mark.parametrize("dataset", sorted(GENERATORS))
def test_generated_sources(dataset):
    short, long = load_source(dataset, size=70, seed=3), load_source(dataset, size=90, seed=3)
    np.testing.assert_array_equal(short.images, long.images[:70])
    assert (short.labels == 0).all()
    assert short.class_names == (dataset,)
    other = load_source(dataset, size=70, seed=4).images
    assert np.array_equal(short.images, other) == (dataset == "flat")
    with pytest.raises(UserError, match="cannot generate 0 images"):
        load_source(dataset, size=0)


def test_cross_settings_reach_mondrian():
    centre = load_source("mondrian", size=5, cross_position="centre", cross_width=4, margin=2)
    assert (centre.images[:, 13, :13] == centre.images[:, :1, :1, :].squeeze(2)).all()


def test_unknown_source():
    with pytest.raises(UserError, match="allowed: cifar10"):
        load_source("mnist")


def test_folder_classes_are_sorted_sub_folders(tmp_path):
    for name, value in (("b/1.png", 10), ("a/2.png", 20), ("a/1.png", 30)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((4, 4, 3), value, np.uint8)).save(tmp_path / name)
    source = load_source("folder", path=tmp_path)
    assert source.class_names == ("a", "b")
    values = source.images[:, 0, 0, 0].tolist()
    assert dict(zip(values, source.labels.tolist(), strict=True)) == {10: 1, 20: 0, 30: 0}
    assert len(source.names) == 3


@pytest.mark.parametrize("name", ["x.npy", "images.npz", "arr_0.npz"])
@pytest.mark.parametrize("shape", [(5, 4, 4, 3), (5, 4, 4)])
def test_array_file_without_classes(tmp_path, name, shape):
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    if name.endswith(".npy"):
        np.save(tmp_path / name, images)
    else:
        np.savez(tmp_path / name, **{name.removesuffix(".npz"): images})
    source = load_source("folder", path=tmp_path / name)
    np.testing.assert_array_equal(source.images, images.reshape(5, 4, 4, -1))
    assert (source.labels.tolist(), source.class_names) == ([-1] * 5, ())


def test_array_file_with_classes(tmp_path):
    images = np.zeros((5, 4, 4, 1), np.uint8)
    np.savez(tmp_path / "a.npz", images=images, labels=np.array([7, 3, -1, 7, 12], np.int16))
    source = load_source("folder", path=tmp_path / "a.npz")
    assert source.labels.tolist() == [1, 0, -1, 1, 2]
    assert source.class_names == ("3", "7", "12")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": np.zeros((2, 4, 4, 3))}, "need uint8"),
        ({"images": np.zeros((2, 3, 4, 4), np.uint8)}, "need uint8"),
        ({"x": np.zeros(2), "y": np.zeros(2)}, "no array called images, but x, y"),
        ({"images": np.zeros((2, 4, 4), np.uint8), "labels": np.zeros(3, int)}, "need whole"),
        ({"images": np.zeros((2, 4, 4), np.uint8), "labels": np.zeros(2)}, "need whole"),
        ({"images": np.array([None, {}])}, "damaged"),
    ],
)
def test_unsuitable_array_files_are_user_errors(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(UserError, match=message):
        load_source("folder", path=tmp_path / "a.npz")


@pytest.mark.parametrize("content", [None, b"", b"no array"])
@pytest.mark.parametrize("name", ["a.npz", "a.npy"])
def test_unreadable_array_files_are_user_errors(tmp_path, name, content):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match="no such file" if content is None else "damaged"):
        load_source("folder", path=tmp_path / name)


def test_folder_needs_a_path():
    with pytest.raises(UserError, match=r"set data\.path"):
        load_source("folder")


@pytest.mark.parametrize(
    "options",
    [
        {"images": np.zeros((3, 4, 4, 1))},
        {"images": np.zeros((3, 4, 4), np.uint8)},
        {"labels": np.zeros(2, np.int64)},
        {"labels": np.zeros(3, np.int32)},
        {"labels": np.array([0, 1, 2])},
        {"labels": np.array([0, 1, -2])},
        {"names": ("only one",)},
    ],
)
def test_inconsistent_sources_are_refused(options):
    fields = {
        "images": np.zeros((3, 4, 4, 1), np.uint8),
        "labels": np.array([0, 1, -1]),
        "class_names": ("a", "b"),
    }
    Source(**fields)
    with pytest.raises(ValueError, match=r"images|labels|names"):
        Source(**{**fields, **options})


def test_source_survives_its_file(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (3, 4, 5, 3), np.uint8)
    names = ("ä/1.png", "b/2.png", "3.png")
    source = Source(images, np.array([0, 1, -1]), ("ä", "b"), names)
    write_source(tmp_path / "source.npz", source)
    back = read_source(tmp_path / "source.npz")
    np.testing.assert_array_equal(back.images, images)
    np.testing.assert_array_equal(back.labels, source.labels)
    assert (back.class_names, back.names) == (("ä", "b"), names)


def test_subset_survives_its_file(tmp_path):
    subset = build_subset(load_source("digits"), size=100, label_kind="true", resolution=4)
    write_subset(tmp_path / "subset.npz", subset)
    back = read_subset(tmp_path / "subset.npz")
    for name in ("images", "labels", "classes", "index"):
        found = getattr(back, name)
        np.testing.assert_array_equal(found, getattr(subset, name))
        assert found.dtype == (np.uint8 if name == "images" else np.int64)
    assert (type(back.label_dim), back.label_dim) == (int, 10)


@pytest.mark.parametrize("read", [read_source, read_subset])
def test_damaged_files_are_user_errors(tmp_path, read):
    path = tmp_path / "file.npz"
    with pytest.raises(UserError, match="no such file"):
        read(path)
    source = load_source("digits")
    if read is read_source:
        write_source(path, source)
    else:
        write_subset(path, build_subset(source, size=50))
    content = path.read_bytes()
    for broken in (b"", content[:100], content[:-30], content.replace(b"\0\xff", b"\1\xff")):
        path.write_bytes(broken)
        with pytest.raises(UserError, match="damaged"):
            read(path)


def test_a_source_is_no_subset(tmp_path):
    write_source(tmp_path / "source.npz", load_source("digits"))
    with pytest.raises(UserError, match="damaged"):
        read_subset(tmp_path / "source.npz")


def test_subset_points_back_to_its_source():
    source = load_source("digits")
    subset = build_subset(source, size=200, num_classes=5, selection="random", selection_seed=3)
    np.testing.assert_array_equal(subset.images, source.images[subset.index])
    np.testing.assert_array_equal(subset.classes, source.labels[subset.index])
    assert (set(subset.labels.tolist()), subset.label_dim) == ({-1}, 0)
    assert subset.classes.max() == 4


@pytest.mark.parametrize(
    ("options", "label_dim"),
    [
        ({}, 10),
        ({"size": 5}, 10),
        ({"num_classes": 2}, 2),
        ({"num_classes": 2, "label_classes": 10}, 10),
        ({"selection": "random", "size": 3}, 10),
    ],
)
def test_true_labels_are_as_wide_as_the_classes_drawn_from(options, label_dim):
    options = {"size": 100, "label_kind": "true", **options}
    subset = build_subset(load_source("digits"), **options)
    np.testing.assert_array_equal(subset.labels, subset.classes)
    assert subset.label_dim == label_dim


def test_label_settings_reach_the_labels():
    source = load_source("digits")
    drawn = build_subset(source, size=50, label_kind="random", label_classes=10)
    assert drawn.labels[:5].tolist() == [0, 7, 6, 5, 8]
    other = build_subset(source, size=50, label_kind="random", label_classes=10, label_seed=1)
    assert (drawn.labels != other.labels).any()
    assert build_subset(source, size=50, label_kind="unique").label_dim == 50


@pytest.mark.parametrize("count", [1, 4])
def test_subset_of_equal_images_is_refused(count):
    source = Source(np.ones((count, 4, 4, 1), np.uint8), np.full(count, -1))
    with pytest.raises(UserError, match="two images that differ"):
        build_subset(source)


@pytest.mark.parametrize(
    "options",
    [
        {"label_dim": 0},
        {"label_dim": 2},
        {"labels": np.array([0, 1, -1])},
        {"index": np.arange(2)},
        {"classes": np.zeros(3)},
        {"images": np.zeros((0, 4, 4, 1), np.uint8)},
    ],
)
def test_inconsistent_subsets_are_refused(options):
    fields = {
        "images": np.zeros((3, 4, 4, 1), np.uint8),
        "labels": np.arange(3),
        "classes": np.arange(3),
        "index": np.arange(3),
        "label_dim": 3,
    }
    Subset(**fields)
    with pytest.raises(ValueError, match=r"images|labels|classes|index"):
        Subset(**{**fields, **options})
