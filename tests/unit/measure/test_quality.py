"""Quality as a stage: copies are found out against held-out images, and bad input is one line."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from emm import catalog
from emm.analyse.parquet import write_table
from emm.analyse.stage import gather_measure
from emm.cli import main
from emm.data.sources import Source, load_source
from emm.data.stage import build_subset, write_source, write_subset
from emm.errors import UserError
from emm.files import write_arrays
from emm.measure import quality
from emm.measure.columns import COLUMNS
from emm.measure.frechet import fid
from emm.measure.heldout import held_out
from emm.measure.quality import compare_images, measure_quality
from emm.spec import DEFAULTS

COUNT = 120
MEASURED = (
    *("fid", "fid_training", "fid_gap", "fid_floor", "fid_copier", "kid"),
    *("precision", "recall", "density", "coverage_held_out"),
)


@pytest.fixture(scope="module")
def source():
    return load_source("digits")


@pytest.fixture(scope="module")
def subset(source):
    return build_subset(source, size=20, selection="random")


@pytest.fixture
def files(tmp_path, source, subset):
    paths = tmp_path / "subset.npz", tmp_path / "source.npz"
    write_subset(paths[0], subset)
    write_source(paths[1], source)
    return paths


def sampled(folder, *checkpoints: np.ndarray, **settings):
    """A folder of samples as `emm sample` leaves it."""
    folder.mkdir()
    entries = []
    for step, images in enumerate(checkpoints, 1):
        write_arrays(folder / f"{step}.npz", {"images": images})
        entries.append({"step": step, "epoch": step / 2, "file": f"{step}.npz"})
    about = DEFAULTS | {"eval.num_samples": len(checkpoints[0]), **settings}
    index = {"run": "r", "evaluation": "e", "settings": about, "checkpoints": entries}
    (folder / "samples.json").write_text(json.dumps(index))
    return folder


def others(source: Source, subset, count: int) -> np.ndarray:
    """New images of the source, but not those that are compared with."""
    known, _ = held_out(source, subset, count, pool=np.arange(len(source)))
    taken = {image.tobytes() for image in (*known, *subset.images)}
    shuffled = np.random.default_rng(0).permutation(source.images)
    return np.stack([image for image in shuffled if image.tobytes() not in taken][:count])


def copies(subset, count: int) -> np.ndarray:
    return subset.images[np.arange(count) % len(subset)]


def test_a_copier_and_a_network_that_generalizes(tmp_path, files, source, subset):
    checkpoints = copies(subset, COUNT), others(source, subset, COUNT)
    samples = sampled(tmp_path / "s", *checkpoints, **{"data.selection": "random"})
    frame = measure_quality(samples, *files, tmp_path / "q.parquet", kind="pixels")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "q.parquet"), frame)
    assert frame["evaluation"].tolist() == ["r/e"] * 2
    assert (frame["n_quality"] == COUNT).all()
    assert (frame["quality_features"] == "pixels").all()
    copier, general = (row for _, row in frame.iterrows())
    assert copier["fid_training"] < 0.05 * copier["fid"]
    assert copier["fid"] == pytest.approx(copier["fid_copier"], rel=0.1)
    assert copier["fid_gap_low"] > 0
    assert general["fid"] < copier["fid"] < general["fid_training"] + copier["fid"]
    assert copier["recall_high"] < general["recall_low"]
    assert copier["coverage_held_out_high"] < general["coverage_held_out_low"]
    assert general["kid_low"] < 0 < general["kid_high"] < copier["kid"]
    for name in MEASURED:
        for _, row in frame.iterrows():
            assert row[f"{name}_low"] <= row[name] <= row[f"{name}_high"], name
    for _, row in frame.iterrows():
        assert row["fid_gap"] == pytest.approx(row["fid"] - row["fid_training"])


def test_a_copier_is_that_of_as_many_draws(tmp_path, files, source, subset):
    """Networks that replay training images at random have the FID that `fid_copier` tells."""
    rng, known = np.random.default_rng(0), {"data.selection": "random"}
    replayed = [subset.images[rng.integers(len(subset), size=COUNT)] for _ in range(12)]
    samples = sampled(tmp_path / "s", *replayed, **known)
    frame = measure_quality(samples, *files, tmp_path / "q.parquet", kind="pixels")
    assert frame["fid_copier"].nunique() == 1
    first = frame.iloc[0]
    assert first["fid_copier_low"] < frame["fid"].mean() < first["fid_copier_high"]
    spread = (first["fid_copier_high"] - first["fid_copier_low"]) / 4
    assert abs(first["fid_copier"] - frame["fid"].mean()) < 2 * spread
    samples = sampled(tmp_path / "again", replayed[0], **known | {"eval.seed": 1})
    again = measure_quality(samples, *files, tmp_path / "q.parquet", kind="pixels")
    assert again["fid_copier"].item() != first["fid_copier"]


def test_the_floor_is_that_of_other_held_out_images(tmp_path, files, source, subset):
    """A perfect network, whose samples are as new images, is no nearer than that."""
    samples = sampled(tmp_path / "s", copies(subset, COUNT), **{"data.selection": "random"})
    frame = measure_quality(samples, *files, tmp_path / "q.parquet", kind="pixels")
    pool = np.arange(len(source))
    both, _ = held_out(source, subset, 2 * COUNT, pool=pool)
    parts = (images.reshape(COUNT, -1) / 127.5 - 1.0 for images in (both[:COUNT], both[COUNT:]))
    expected = fid(*(torch.from_numpy(part) for part in parts)).value
    row = frame.iloc[0]
    assert row["fid_floor"] == pytest.approx(expected)
    assert 0 < row["fid_floor_low"] < row["fid_floor"] < row["fid_floor_high"] < row["fid"]
    found = compare_images(source.images[:40], source.images[100:180])
    assert found["fid_floor_low"] <= found["fid_floor"]
    assert "fid_floor" not in compare_images(source.images[:40], source.images[100:179])


def test_columns_of_the_memorization_table(tmp_path, files, subset):
    samples = sampled(tmp_path / "s", copies(subset, 30))
    frame = measure_quality(samples, *files, tmp_path / "q.parquet", kind="pixels")
    added = COLUMNS["quality"](frame)
    assert added["step"].tolist() == [1]
    assert {*MEASURED, "n_quality", "quality_features"} < set(added)
    assert not {"run", "evaluation", "epoch", "coverage", "memorization_ratio"} & set(added)


def test_as_many_samples_as_are_held_out(tmp_path, source):
    few = Source(source.images[:50], source.labels[:50], source.class_names)
    subset = build_subset(few, size=20)
    paths = tmp_path / "subset.npz", tmp_path / "source.npz"
    write_subset(paths[0], subset)
    write_source(paths[1], few)
    samples = sampled(tmp_path / "s", source.images[100:200])
    frame = measure_quality(samples, *paths, tmp_path / "q.parquet", kind="pixels")
    left = 50 - 20
    assert 20 < frame["n_quality"].item() <= left
    samples = sampled(tmp_path / "few", source.images[100:113])
    with pytest.raises(UserError, match=r"eval\.num_samples 13: it takes 14"):
        measure_quality(samples, *paths, tmp_path / "q.parquet", kind="pixels")
    write_source(paths[1], Source(few.images[:33], few.labels[:33], few.class_names))
    samples = sampled(tmp_path / "enough", source.images[100:140])
    with pytest.raises(UserError, match=r"quality: \d+ held-out images: it takes 14"):
        measure_quality(samples, *paths, tmp_path / "q.parquet", kind="pixels")


def test_held_out_images_are_of_what_the_training_set_was_drawn_from(tmp_path, source):
    """Few images miss classes, which a network that copies them misses too."""
    subset = build_subset(source, size=8, selection="random")
    paths = tmp_path / "subset.npz", tmp_path / "source.npz"
    write_subset(paths[0], subset)
    write_source(paths[1], source)
    distances = {}
    for selection in ("random", "balanced_prefix"):
        images = copies(subset, COUNT)
        samples = sampled(tmp_path / selection, images, **{"data.selection": selection})
        frame = measure_quality(samples, *paths, tmp_path / "q.parquet", kind="pixels")
        distances[selection] = frame["fid"].item()
    assert distances["random"] > 1.1 * distances["balanced_prefix"]
    one = build_subset(source, size=8, selection="random", only_class="7")
    write_subset(paths[0], one)
    about = {"data.selection": "random", "data.only_class": "7"}
    samples = sampled(tmp_path / "sevens", source.images[source.labels == 7][-60:], **about)
    frame = measure_quality(samples, *paths, tmp_path / "q.parquet", kind="pixels")
    assert frame["recall"].item() > 0.5


def test_samples_of_dummies(tmp_path, source):
    dummies = Source(np.full((9, 8, 8, 1), 128, np.uint8), np.zeros(9, np.int64), ("flat",))
    subset = build_subset(source, size=20, dummies=dummies, dummy_size=5)
    paths = tmp_path / "subset.npz", tmp_path / "source.npz"
    write_subset(paths[0], subset)
    write_source(paths[1], source)
    images = source.images[100:130]
    samples = sampled(tmp_path / "s", images, **{"data.dummy_size": 5})
    with pytest.raises(UserError, match=r"take eval\.label: data"):
        measure_quality(samples, *paths, tmp_path / "q.parquet", kind="pixels")
    samples = sampled(tmp_path / "d", images, **{"data.dummy_size": 5, "eval.label": "data"})
    frame = measure_quality(samples, *paths, tmp_path / "q.parquet", kind="pixels")
    alone = compare_images(images, source.images[300:330], subset.images[:20])
    assert frame["fid_training"].item() == pytest.approx(alone["fid_training"])


def test_own_images_in_any_order(source, subset):
    others = np.setdiff1d(np.arange(500, 1000), subset.index)
    images, real = source.images[others[:60]], source.images[others[60:160]]
    found = compare_images(images, real, subset.images)
    assert found["n_quality"] == 60
    assert found == compare_images(images, real, subset.images)
    assert found["fid"] != compare_images(images, real, subset.images, seed=1)["fid"]
    alone = compare_images(images, real)
    assert set(found) - set(alone) == {
        f"{name}{end}"
        for name in ("fid_training", "fid_gap", "fid_copier")
        for end in ("", "_low", "_high")
    }
    assert alone["fid"] == found["fid"]


def test_own_images_that_do_not_fit(source):
    with pytest.raises(UserError, match=r"samples of shape \(8, 8, 1\), others of \(4, 4, 1\)"):
        compare_images(source.images[:20], source.images[:20, :4, :4])
    with pytest.raises(UserError, match="13 samples, 20 others; it takes 14 of each"):
        compare_images(source.images[:13], source.images[:20])


def test_the_command_prints_a_table(tmp_path, source, capsys, monkeypatch):
    for name, rows in (("s", slice(0, 40)), ("r", slice(100, 150)), ("t", slice(40, 60))):
        np.save(tmp_path / f"{name}.npy", source.images[rows])
    options = [f"--{name}={tmp_path / name[0]}.npy" for name in ("samples", "reference")]
    monkeypatch.setattr("sys.argv", ["emm", "quality", *options, f"--training={tmp_path}/t.npy"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code in (0, None)
    lines = capsys.readouterr().out.splitlines()
    found = {line.split()[0]: line.split()[1:] for line in lines if line.split()[1:]}
    assert " ".join(found["n_quality"]) == "Samples and held-out images compared (images) 40"
    assert {*MEASURED} - {"fid_floor"} < set(found)
    monkeypatch.setattr("sys.argv", ["emm", "quality", *options, "--json"])
    with pytest.raises(SystemExit):
        main()
    assert json.loads(capsys.readouterr().out)["n_quality"] == 40
    value, low, _, high = found["recall"][-4:]
    assert 1 < float(low) <= float(value) <= float(high) <= 100


def test_a_run_needs_its_training_set_and_an_output(tmp_path, files, subset, monkeypatch, capsys):
    samples = sampled(tmp_path / "s", copies(subset, 30))
    options = [f"--samples={samples}", f"--reference={files[1]}"]
    monkeypatch.setattr("sys.argv", ["emm", "quality", *options])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert "--training, --output: the samples of a run need both" in capsys.readouterr().err
    monkeypatch.setattr("sys.argv", ["emm", "quality", *options, "--json"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert "--json: is for images" in capsys.readouterr().err


def test_features_that_are_not_equal_differ(tmp_path, files, source, subset, monkeypatch):
    """Twice the features are four times the distance: it is of features, not of pixels."""
    images = source.images[100:160]
    single = compare_images(images, source.images[300:360])
    known = quality.load_features

    def doubled(*arguments):
        features = known(*arguments)
        return lambda images: 2 * features(images)

    monkeypatch.setattr(quality, "load_features", doubled)
    double = compare_images(images, source.images[300:360])
    assert double["fid"] == pytest.approx(4 * single["fid"])
    assert double["recall"] == single["recall"]


def test_one_table_has_one_kind_of_features(tmp_path, files, subset):
    """What another config left at the same place is refused."""
    text = "title: x\nmeasures: [quality]\nruns: [{data.size: 20}]\n"
    (tmp_path / "mine.yaml").write_text(text)
    config = {"experiments": str(tmp_path / "mine.yaml"), "results": str(tmp_path / "results")}
    found = catalog.load(config | {"features": "pixels"})
    (key,) = found.measured("quality")
    path = found.measure_file("quality", *key)
    path.parent.mkdir(parents=True)
    samples = sampled(tmp_path / "s", copies(subset, 30))
    frame = measure_quality(samples, *files, path, kind="pixels")
    assert len(gather_measure(found, "quality", tmp_path / "all.parquet")) == 1
    write_table(path, frame.assign(quality_features="classifier"))
    with pytest.raises(UserError, match="by the features classifier, where the config has pixels"):
        gather_measure(found, "quality", tmp_path / "all.parquet")


def test_what_would_not_be_heeded_is_refused(tmp_path, source, monkeypatch, capsys):
    """A table is of a run's checkpoints, and pixels need no weights."""
    np.save(tmp_path / "s.npy", source.images[:40])
    words = ["emm", "quality", *(f"--{name}={tmp_path}/s.npy" for name in ("samples", "reference"))]
    for option, message in (
        (f"--output={tmp_path}/q.parquet", "--output is for samples of a run"),
        (f"--weights={tmp_path}/none.pt", "features pixels: take no weights"),
    ):
        monkeypatch.setattr("sys.argv", [*words, option])
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code == 2
        assert message in capsys.readouterr().err
