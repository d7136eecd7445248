"""Complete settings of a run, and runs that cannot be."""

import pytest

from emm.errors import UserError
from emm.ids import run_id
from emm.resolve import fill, label_classes, resolve
from emm.spec import DEFAULTS
from emm.train.schedules import epoch_size, evaluated_steps, stored_size, training_size

DOGS = {"data.dataset": "cifar10_imagenet_dog", "data.alpha": 0.2}
FACES = {"data.dataset": "ffhq", "data.resolution": 64}


def resolved(settings: dict) -> dict:
    return resolve(DEFAULTS | {"data.size": 1000} | settings, "mine.yaml: runs item 1")


def test_what_follows_is_filled_in():
    settings = resolved({"data.size": None})
    assert settings["data.size"] == 50000
    assert settings["data.num_classes"] == 10
    assert settings["labels.num_classes"] == 0
    assert resolved({"data.num_classes": 5})["data.num_classes"] == 5


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"labels.kind": "none"}, 0),
        ({"labels.kind": "true"}, 10),
        ({"labels.kind": "true", "labels.num_classes": 10}, 10),
        ({"labels.kind": "true", "data.num_classes": 5}, 5),
        ({"labels.kind": "unique"}, 1000),
        ({"labels.kind": "unique", "labels.num_classes": 1000}, 1000),
        ({"labels.kind": "random", "labels.num_classes": 1}, 1),
        ({"labels.kind": "random", "labels.num_classes": 1000}, 1000),
    ],
)
def test_label_classes(settings, expected):
    assert resolved(settings)["labels.num_classes"] == expected


def test_a_folder_has_as_many_classes_as_it_has():
    settings = {"data.dataset": "folder", "labels.kind": "true", "data.size": 10}
    assert label_classes(DEFAULTS | settings) == 0
    assert label_classes(DEFAULTS | settings | {"labels.num_classes": 3}) == 3


def test_blends_and_faces():
    blend = resolved(DOGS | {"labels.kind": "true"})
    assert (blend["data.num_classes"], blend["labels.num_classes"]) == (2, 2)
    assert (blend["data.alpha"], blend["data.size"]) == (0.2, 1000)
    assert resolved(FACES | {"data.size": None})["data.size"] == 10_000
    for settings in (DOGS, FACES):
        assert resolved(settings | {"data.path": "elsewhere"})["data.path"] == "elsewhere"
        assert resolved(settings)["data.path"] is None


def test_filling_leaves_what_only_the_files_tell():
    settings = DEFAULTS | {"data.dataset": "folder"}
    fill(settings)
    assert settings["data.size"] is None
    assert settings["data.num_classes"] is None


@pytest.mark.parametrize(
    ("settings", "same"),
    [
        ({"model.skip_mask": "111111111"}, {}),
        (
            {"model.skip_mask": "1111", "model.channel_mult": (1, 2), "model.num_blocks": 1},
            {"model.channel_mult": (1, 2), "model.num_blocks": 1},
        ),
        ({"data.num_classes": 10}, {}),
        ({"data.size": None}, {"data.size": 50000}),
        ({"data.copies": 5}, {}),
        ({"data.duplicated": 0.5}, {"data.duplicated": 0.1}),
        ({"train.shift": 1, "train.augment": "flip"}, {"train.augment": "flip"}),
        ({"data.seed": 3}, {}),
    ],
)
def test_equal_runs_have_equal_settings(settings, same):
    assert resolved(settings) == resolved(same)


def test_the_optimum_has_no_training():
    plain = resolved({"model.arch": "optimum"})
    training = {"model.channels": 64, "model.skip_mask": "1", "train.lr": 1.0, "train.epochs": 5.0}
    assert resolved({"model.arch": "optimum", "eval.snapshots": 3, **training}) == plain
    assert resolved({"model.arch": "optimum", "eval.num_samples": 5}) != plain


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"data.dataset": "cifar"},
            "data.dataset: no source 'cifar'; allowed: cifar10, cifar100, svhn",
        ),
        ({"data.size": 50001}, "data.size 50001: the source has only 50000 such images"),
        ({"data.size": 20010, "data.num_classes": 2}, "the source has only 10000 such images"),
        (
            {"data.dataset": "digits", "data.size": 1790, "data.resolution": 8},
            "class 0, which has 178; at most 1740 images are balanced, null takes all 1797",
        ),
        ({"data.num_classes": 11}, "data.num_classes 11: the source has 10 classes"),
        ({"data.resolution": 64}, "data.resolution 64: the images have 32 pixels"),
        ({"data.resolution": 30}, "data.resolution: 30 px cannot be halved 2 times"),
        ({"data.resolution": 2}, "2 px cannot be halved 2 times"),
        (
            {"data.path": "x"},
            "data.path: goes with data.dataset artbench10 or cifar100 or cifar10_imagenet_dog or ",
        ),
        ({"data.dataset": "folder"}, "data.path: goes with data.dataset folder; set it"),
        (
            {"data.alpha": 0.5},
            "data.alpha: goes with data.dataset digits_blend or cifar10_imagenet_dog; null for cif",
        ),
        ({"data.dataset": "folder", "data.path": "x", "data.alpha": 0.0}, "null for folder"),
        ({"data.dataset": "digits_blend"}, "data.alpha: needed for digits_blend: the share from"),
        ({**DOGS, "data.alpha": None}, "data.alpha: needed for cifar10_imagenet_dog"),
        ({**DOGS, "data.size": 2001}, "data.size 2001: a blend of this source has at most 2000"),
        ({**DOGS, "data.size": None}, "data.size: needed for a source that blends"),
        ({**DOGS, "data.num_classes": 1}, "data.num_classes 1: a blend has two"),
        ({**DOGS, "data.selection": "random"}, "data.selection random: a blend takes the first"),
        ({**FACES, "data.resolution": None}, "data.resolution: needed for ffhq"),
        ({**FACES, "data.size": 10001}, "data.size 10001: the source has only 10000 such images"),
        ({**FACES, "labels.kind": "true"}, "ffhq has no classes"),
        ({"data.dataset": "folder", "data.path": "x", "data.size": None}, "data.size: needed"),
        ({"labels.num_classes": 3}, "labels.num_classes 3: none labels have 0"),
        ({"labels.kind": "unique", "labels.num_classes": 3}, "3: unique labels have 1000"),
        ({"labels.kind": "true", "labels.num_classes": 3}, "3: the training set has 10 classes"),
        ({"labels.kind": "random"}, "labels.num_classes 0: random labels have from 1 to"),
        ({"labels.kind": "random", "labels.num_classes": 1001}, "from 1 to data.size = 1000"),
        ({"data.duplicated": 0.0004, "data.copies": 2}, "0.0004: would repeat none of 1000 images"),
        ({"data.duplicated": 0.9996, "data.copies": 2}, "would repeat all of 1000 images"),
        ({"train.augment": "shift", "train.shift": 32}, "train.shift 32: leaves nothing of images"),
        ({"model.skip_mask": "101"}, "'101' is not 9 characters 0 or 1, one per skip of 3 levels"),
        ({"model.channels": 129}, "model.channels: 129 is not an even number of at least 4"),
        ({"model.attention_levels": (4,)}, "level 4 does not exist; model.channel_mult has levels"),
    ],
)
def test_runs_that_cannot_be(settings, message):
    with pytest.raises(UserError) as caught:
        resolved(settings)
    assert str(caught.value).startswith("mine.yaml: runs item 1: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_labels_of_one_kind_and_of_vectors():
    assert resolved({"labels.kind": "constant"})["labels.num_classes"] == 1
    assert resolved({"labels.kind": "vectors"})["labels.num_classes"] == 1000
    vectors = {"labels.kind": "vectors"}
    assert resolved(vectors | {"labels.dim": 64}) != resolved(vectors)
    assert resolved(vectors | {"labels.seed": 7}) != resolved(vectors)
    unique = {"labels.kind": "unique"}
    assert resolved(unique | {"labels.dim": 64, "labels.seed": 7}) == resolved(unique)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"eval.label": "trained"}, "eval.label trained: labels.kind none has no labels"),
        ({"eval.label": "unseen"}, "eval.label unseen: labels.kind none has no labels"),
        (
            {"eval.label": "mixed", "labels.kind": "constant"},
            "eval.label mixed: needs two labels; labels.kind constant has one",
        ),
        (
            {"eval.label": "unseen", "labels.kind": "unique", "model.arch": "optimum"},
            "eval.label unseen: goes with model.arch ddpmpp or ",
        ),
        ({"labels.kind": "constant", "labels.num_classes": 2}, "constant labels have 1"),
        ({"labels.kind": "vectors", "labels.num_classes": 2}, "vectors labels have 1000"),
    ],
)
def test_labels_that_do_not_fit(settings, message):
    with pytest.raises(UserError) as caught:
        resolved(settings)
    assert message in str(caught.value)


DISCRETE = {"model.arch": "iddpm", "model.precond": "cosine", "eval.sampler": "ancestral"}
SMALL = {"data.dataset": "mondrian", "data.size": 2000}
MIXED = SMALL | {"data.dummy": "gaussian_mixture", "data.dummy_size": 6000}


def test_iterations_decide_the_epochs():
    run = DISCRETE | MIXED | {"train.iterations": 100_000, "train.batch_size": 256}
    settings = resolved(run)
    assert settings["train.epochs"] == 3200
    assert evaluated_steps(settings | {"eval.snapshots": 1}) == [100_000]
    for size in (300, 777, 4_999):  # whatever rounding the epochs take
        settings = resolved(run | {"data.size": size})
        assert evaluated_steps(settings | {"eval.snapshots": 1}) == [100_000]


def test_dummies_add_a_class():
    assert resolved(MIXED | {"labels.kind": "true"})["labels.num_classes"] == 2
    wide = MIXED | {"labels.kind": "true", "labels.num_classes": 1000, "eval.label": "data"}
    assert resolved(wide)["labels.num_classes"] == 1000
    assert resolved(MIXED | {"labels.kind": "unique"})["labels.num_classes"] == 8000
    cars = {"data.only_class": "automobile", "labels.kind": "true"}
    assert resolved(cars)["labels.num_classes"] == 1
    assert resolved(cars | {"data.size": None})["data.size"] == 5000
    varied = {"data.dataset": "digits_blend", "data.only_class": "other digits"}
    assert resolved(varied | {"data.resolution": 8, "data.size": None})["data.size"] == 1614


def test_what_iddpm_does_not_heed_makes_no_other_run():
    heeded = resolved(DISCRETE | SMALL)
    assert heeded == resolved(DISCRETE | SMALL | {"model.time_embedding": "fourier"})
    assert heeded == resolved(DISCRETE | SMALL | {"eval.sigma_max": 50.0, "data.dummy": "flat"})
    assert heeded != resolved(DISCRETE | SMALL | {"model.heads": 2})
    assert resolved({"model.heads": 2}) == resolved({})
    steps = DISCRETE | {"train.warmup_steps": 10, "train.ema_ramp": "steps"}
    assert resolved(steps | {"train.warmup_epochs": 7}) == resolved(steps)
    assert resolved(DISCRETE | {"train.warmup_epochs": 7}) != resolved(DISCRETE)


DIT = {"model.arch": "dit", "model.channels": 384, "model.heads": 6}


def test_what_only_some_networks_heed_makes_no_other_run():
    blocks = {"model.depth": 3, "model.patch": 4, "model.window": 5}
    assert resolved(blocks) == resolved({})
    levels = {"model.num_blocks": 4, "model.channel_mult": (1, 2), "model.attention_levels": (1,)}
    assert resolved(DIT | levels | {"model.skip_mask": "1" * 10}) == resolved(DIT)
    for key, value in blocks.items():
        assert resolved(DIT | {key: value}) != resolved(DIT)


@pytest.mark.parametrize(
    ("settings", "same"),
    [
        ({"model.prediction": "noise"}, {}),
        ({"train.weighting": "uniform"}, {}),
        ({"model.prediction": "noise", "train.weighting": "uniform"}, {}),
        (
            {"model.precond": "edm", "model.prediction": "image", "train.weighting": "edm"},
            {"model.precond": "edm", "model.prediction": "image"},
        ),
        ({"model.arch": "optimum", "train.weighting": "edm"}, {"model.arch": "optimum"}),
    ],
)
def test_equal_objectives_make_one_run(settings, same):
    assert resolved(settings) == resolved(same)


def test_other_objectives_make_other_runs():
    image = {"model.prediction": "image"}
    others = [{}, image, image | {"train.weighting": "uniform"}, {"train.weighting": "min_snr"}]
    others += [{"model.precond": "edm"}, {"model.precond": "edm", "model.prediction": "noise"}]
    assert len({run_id(resolved(settings)) for settings in others}) == len(others)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (DIT | {"model.precond": "cosine"}, "model.arch iddpm goes with cosine"),
        (DIT | {"model.heads": 5}, "make it a multiple of model.heads 5 and of 4"),
        (DIT | {"model.patch": 3}, "model.patch 3: does not divide data.resolution 32"),
        (DIT | {"model.window": 4}, "model.window 4: use an odd number of tokens"),
        (DIT | {"model.weights": "net.pkl"}, "model.weights: goes with model.arch ddpmpp or nc"),
        (DISCRETE | {"model.prediction": "image"}, "goes with model.precond vp, ve or edm"),
        (DISCRETE | {"train.weighting": "edm"}, "train.weighting edm: goes with model.precond vp"),
    ],
)
def test_networks_and_objectives_that_do_not_go_together(settings, message):
    with pytest.raises(UserError, match=message):
        resolved(settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"data.dummy_size": 10}, "name the source of the dummies in data.dummy"),
        ({"data.dummy": "cifar10", "data.dummy_size": 10}, "cifar10 is not generated; allowed: "),
        ({"data.dummy": "flat", "data.dummy_size": 30_000}, "flat has 20000 images"),
        ({"data.only_class": "car"}, "no class 'car'; the source has airplane, automobile"),
        ({"data.only_class": "cat", "data.size": 6000}, "the source has only 5000 such images"),
        ({"data.only_class": "cat", "data.num_classes": 2}, "data.only_class takes one class"),
        (DOGS | {"data.only_class": "imagenet"}, "data.only_class takes one class; leave out one"),
        ({"model.arch": "iddpm"}, "model.precond vp: model.arch iddpm goes with cosine"),
        ({"model.precond": "cosine"}, "model.arch iddpm goes with cosine"),
        ({"eval.sampler": "ddim"}, "eval.sampler ddim: ddpmpp is sampled by heun"),
        (DISCRETE | {"eval.sampler": "heun"}, "iddpm is sampled by ancestral or ddim"),
        (DISCRETE | {"eval.sampler": "ddim", "eval.steps": 300}, "no stride keeps 300 of 4000"),
        (DISCRETE | {"model.heads": 3}, "does not divide into 3 heads"),
        ({"eval.label": "data"}, "eval.label data: goes with labels.kind true"),
        ({"eval.label": "dummy", "labels.kind": "true"}, "the training set has no dummies"),
        ({"train.order": "shuffled", "train.batch_size": 1001}, "of 1000 images there is none"),
        (MIXED | {"labels.kind": "true", "labels.num_classes": 1}, "training set has 2 classes"),
        (MIXED | {"data.resolution": None}, "data.resolution: needed"),
        (SMALL | {"data.dummy": "mondrian", "data.dummy_size": 10}, "is the data itself"),
        (MIXED | {"labels.kind": "true", "labels.num_classes": 9}, "samples would draw them"),
        (DISCRETE | {"model.groups": 24}, "model.groups 24: does not divide 128 channels"),
        (DISCRETE | {"train.ema": 0.9999, "train.batch_size": 128}, "would end at 1.0004"),
    ],
)
def test_what_the_discrete_process_and_dummies_refuse(settings, message):
    with pytest.raises(UserError, match=message):
        resolved(settings)


COPIES = {"data.duplicated": 0.1, "data.copies": 10}


def test_copies_are_stored_but_do_not_lengthen_an_epoch():
    plain, repeated = resolved({}), resolved(COPIES)
    assert (training_size(repeated), stored_size(repeated)) == (1000, 1000 + 900)
    assert epoch_size(repeated) == epoch_size(plain) == stored_size(plain)
    assert evaluated_steps(repeated) == evaluated_steps(plain)
    assert resolved({**COPIES, "labels.kind": "unique"})["labels.num_classes"] == 1000


def test_the_seed_decides_which_images_are_repeated():
    assert resolved({**COPIES, "data.seed": 3}) != resolved(COPIES)


def test_whole_batches_are_of_stored_images():
    batches = {"train.order": "shuffled", "train.batch_size": 1500}
    assert resolved(batches | COPIES)["train.batch_size"] == 1500
    with pytest.raises(UserError, match="of 1000 images there is none"):
        resolved(batches)


def test_a_shift_that_counts_is_kept():
    assert resolved({"train.augment": "shift", "train.shift": 1})["train.shift"] == 1


def test_nothing_is_augmented_where_nothing_is_trained():
    moved = {"train.augment": "flip", "model.arch": "optimum"}
    assert resolved(moved) == resolved({"model.arch": "optimum"})
    diffusion = {"model.arch": "stable_diffusion", "model.base": "tiny", "eval.sampler": "ddim"}
    with pytest.raises(UserError, match=r"train\.augment flip: Stable Diffusion is tuned"):
        resolved({**diffusion, "train.augment": "flip"})


def test_two_parts_need_twice_the_images():
    assert resolved({"data.part": 2, "data.size": 25_000})["data.part"] == 2
    with pytest.raises(UserError, match=r"data\.size 26000 need 52000 images; cifar10 has 50000"):
        resolved({"data.part": 2, "data.size": 26_000})
