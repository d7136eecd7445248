"""Twins of known likeness: copies, strangers and mixtures, by brute force; and what is refused."""

import json

import numpy as np
import pytest
from scipy.stats import binomtest

from emm import catalog
from emm.data.sources import Source
from emm.data.stage import build_subset, write_subset
from emm.diffusion import SAMPLE_INDEX
from emm.errors import UserError
from emm.files import write_arrays
from emm.measure.columns import whole as columns
from emm.measure.twins import Side, compare, measure_twins
from emm.plan.jobs import all_jobs

SHAPE = (4, 4, 3)


def images(count, seed):
    return np.random.default_rng(seed).integers(0, 256, (count, *SHAPE), np.uint8)


TRAINING = [images(30, 1), images(30, 2)]


def test_the_same_images():
    found = compare([images(40, 3), images(40, 3)], TRAINING)
    assert found["twin_similarity"] == pytest.approx(1, abs=1e-6)
    assert found["twin_similarity_low"] == pytest.approx(1, abs=1e-6)
    assert found["twin_distance"] == 0
    assert found["twin_closer"] == found["twin_reproduced"] == 1
    assert found["n_pairs"] == 40


def test_copies_of_different_training_images():
    """Each network replays its own: unlike, and each exactly like its nearest."""
    found = compare([TRAINING[0], TRAINING[1]], TRAINING)
    assert found["twin_similarity_nearest"] == pytest.approx(1, abs=1e-6)
    assert found["twin_closer"] == found["twin_reproduced"] == 0
    assert found["twin_similarity"] == pytest.approx(0, abs=0.1)
    assert found["twin_distance"] == pytest.approx(found["twin_distance_unpaired"], rel=0.1)


def brute_force(pair, training):
    """All numbers one pair at a time, in double precision."""
    mean = np.concatenate(training).astype(float).mean(axis=0)

    def cosine(a, b):
        a, b = (image.astype(float) - mean for image in (a, b))
        return (a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum())

    def distance(a, b):
        return np.sqrt(((a.astype(float) - b) ** 2).mean())

    rows, count = [], len(pair[0])
    for i, (a, b) in enumerate(zip(*pair, strict=True)):
        other = pair[1][(i - count // 2) % count]
        sides = list(zip((a, b), training, strict=True))
        near = [min(distance(x, y) for y in known) for x, known in sides]
        like = [max(cosine(x, y) for y in known) for x, known in sides]
        rows.append(
            {
                "twin_similarity": cosine(a, b),
                "twin_similarity_unpaired": cosine(a, other),
                "twin_similarity_nearest": np.mean(like),
                "twin_distance": distance(a, b),
                "twin_distance_unpaired": distance(a, other),
                "twin_closer": distance(a, b) < min(near),
                "twin_reproduced": cosine(a, b) > 0.6,
            }
        )
    return {name: np.array([row[name] for row in rows], float) for name in rows[0]}


def mixed(share, count=24):
    """Twins that have a share of each image in common."""
    first, second = images(count, 5), images(count, 6)
    return [first, np.round(share * first + (1 - share) * second).astype(np.uint8)]


@pytest.mark.parametrize("share", [0.0, 0.4, 0.55, 0.9])
def test_against_brute_force(share):
    pair = mixed(share)
    found, expected = compare(pair, TRAINING), brute_force(pair, TRAINING)
    for name, values in expected.items():
        assert found[name] == pytest.approx(values.mean(), abs=1e-5), name
        assert found[f"{name}_low"] <= found[name] <= found[f"{name}_high"]
    closer = binomtest(int(expected["twin_closer"].sum()), 24).proportion_ci(method="wilson")
    assert found["twin_closer_low"] == pytest.approx(closer.low, abs=1e-9)


def test_intervals_are_those_of_a_mean():
    """The bootstrap's are about 1.96 standard errors wide to each side."""
    pair = mixed(0.5, 400)
    found, values = compare(pair, TRAINING), brute_force(pair, TRAINING)["twin_similarity"]
    error = values.std() / np.sqrt(len(values))
    width = found["twin_similarity_high"] - found["twin_similarity_low"]
    assert width == pytest.approx(2 * 1.96 * error, rel=0.12)


def test_an_image_without_direction():
    grey = np.full((2, *SHAPE), 100, np.uint8)
    found = compare([grey, grey], [grey, grey])
    assert found["twin_similarity"] == 0
    assert found["twin_closer"] == 0


SOURCE = Source(images(60, 0), np.arange(60) % 3, ("a", "b", "c"))


def side(folder, part, steps=(5, 10), **changed):
    """The samples of a run that has learnt nothing, and its training set."""
    settings = {
        "data.part": part,
        "eval.seed": 0,
        "eval.sampler": "heun",
        "train.augment": "none",
        "train.lr": 1.0,
    } | changed
    checkpoints = [{"step": s, "epoch": s / 10, "file": f"{s}.npz"} for s in steps]
    index = {"run": f"r{part}", "evaluation": "e", "settings": settings}
    samples = folder / f"samples{part}"
    samples.mkdir(exist_ok=True)
    (samples / SAMPLE_INDEX).write_text(json.dumps({**index, "checkpoints": checkpoints}))
    for step in steps:
        write_arrays(samples / f"{step}.npz", {"images": images(6, step + part)})
    subset = build_subset(SOURCE, size=12, selection="random", part=changed.get("data.part", part))
    write_subset(folder / f"subset{part}.npz", subset)
    return Side(samples, folder / f"subset{part}.npz")


def test_a_row_per_checkpoint(tmp_path):
    own, other = side(tmp_path, 2), side(tmp_path, 1)
    frame = measure_twins(own, other, tmp_path / "twins.parquet", device="cpu")
    assert list(frame["step"]) == [5, 10]
    assert set(frame["twin"]) == {"r1"}
    training = [build_subset(SOURCE, size=12, selection="random", part=p).images for p in (2, 1)]
    expected = brute_force([images(6, 12), images(6, 11)], training)["twin_similarity"].mean()
    assert frame["twin_similarity"].iloc[1] == pytest.approx(expected, abs=1e-5)
    added = columns(frame)
    assert {"step", "twin_similarity", "twin_closer_low"} <= set(added)
    assert not {"run", "evaluation", "epoch"} & set(added)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"train.lr": 2.0}, r"differ in train\.lr"),
        ({"eval.seed": 1}, r"differ in eval\.seed"),
        ({"steps": (5,)}, "has other checkpoints than"),
    ],
)
def test_no_twins(tmp_path, changed, message):
    with pytest.raises(UserError, match=message):
        measure_twins(side(tmp_path, 2), side(tmp_path, 1, **changed), tmp_path / "t.parquet")


def test_samplers_that_add_noise_and_shared_images(tmp_path):
    noisy = {"eval.sampler": "ancestral"}
    both = side(tmp_path, 2, **noisy), side(tmp_path, 1, **noisy)
    with pytest.raises(UserError, match="use heun or ddim"):
        measure_twins(*both, tmp_path / "t.parquet")
    own, other = side(tmp_path, 2), side(tmp_path, 1)
    with pytest.raises(UserError, match="12 training images are in both"):
        measure_twins(own, Side(other.samples, own.subset), tmp_path / "t.parquet")
    moved = {"train.augment": "flip"}
    both = side(tmp_path, 2, **moved), side(tmp_path, 1, **moved)
    with pytest.raises(UserError, match="augment flip: images that were moved"):
        measure_twins(*both, tmp_path / "t.parquet")


def test_equal_images_of_both_halves_are_counted():
    """A source may have an image twice, at places of which each half has one."""
    pair, (first, second) = mixed(0.4), TRAINING
    assert compare(pair, [first, second])["n_shared"] == 0
    assert compare(pair, [np.concatenate([first, second[:3]]), second])["n_shared"] == 3


EXPERIMENT = """
title: Twins
measures: [twins]
set: {{data.selection: random, {settings}}}
runs: [{{data.size: [500, 1000], data.part: {parts}}}]
"""


def planned(tmp_path, parts="[1, 2]", settings="train.epochs: 100"):
    path = tmp_path / "own.yaml"
    path.write_text(EXPERIMENT.format(parts=parts, settings=settings))
    return catalog.load({"scale": "paper", "experiments": str(path)})


def test_the_second_of_both_is_measured_after_both_samplings(tmp_path):
    found = planned(tmp_path)
    measured = found.measured("twins")
    assert [found.runs[run].settings["data.part"] for run, _ in measured] == [2, 2]
    jobs = {job.key: job for job in all_jobs(found)}
    for run, evaluation in measured:
        twin, same = found.twin(run, evaluation)
        differing = {
            key
            for key, value in found.runs[run].settings.items()
            if found.runs[twin].settings[key] != value
        }
        assert (differing, same) == ({"data.part"}, evaluation)
        needs = jobs["twins", f"{run}/{evaluation}"].needs
        assert set(needs) == {("sample", f"{name}/{evaluation}") for name in (run, twin)}
        assert jobs["twins", f"{run}/{evaluation}"].seconds > 0
    (tables,) = (job for job in jobs.values() if job.rule == "experiment_tables")
    assert sum(rule == "twins" for rule, _ in tables.needs) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"parts": "2"}, r"its twin .* is not among the runs"),
        ({"parts": "1"}, r"no run has data\.part 2"),
    ],
)
def test_half_a_pair(tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        planned(tmp_path, **options)


def test_a_sampler_that_adds_noise_is_refused_before_anything_runs(tmp_path):
    path = tmp_path / "own.yaml"
    text = EXPERIMENT.format(parts="[1, 2]", settings="eval.sampler: ancestral")
    path.write_text(text.replace("measures:", "recipe: iddpm\nmeasures:"))
    with pytest.raises(UserError, match="adds noise at every step"):
        catalog.load({"scale": "paper", "experiments": str(path)})
