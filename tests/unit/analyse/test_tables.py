"""Tables from memorization tables, their files, and the closing summary."""

import contextlib
import io
import math

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from scipy.stats import binomtest

from emm.analyse.metrics import metric
from emm.analyse.names import ordered, plain_text, rounded, series_label, value_name
from emm.analyse.parquet import read_rows, read_table, write_table
from emm.analyse.series import effective, plain, series_of, telling
from emm.analyse.summary import print_summary
from emm.analyse.tables import best_and_last, emm_table
from emm.errors import UserError

GU = {
    "none": [9209, 6093, 3460, 1712, 900],
    "true": [9659, 7946, 5562, 3759, 2300],
    "unique": [10000, 9988, 9989, 9957, 9966],
}


def row(kind="none", size=1000, hits=9209, epoch=40000.0, seed=1024, **other):
    run = f"n{size}-{kind}-{seed}-{sorted(other.items())}"
    interval = binomtest(hits, 10000).proportion_ci(method="wilson")
    return {
        "run": run,
        "evaluation": f"{run}-e",
        "experiments": "labels",
        "data.size": size,
        "labels.kind": kind,
        "labels.num_classes": {"none": 0, "unique": size}.get(kind, 10),
        "model.channel_mult": [2, 2, 2],
        "train.epochs": 40000.0,
        "train.seed": seed,
        "epoch": epoch,
        "step": int(epoch * 2),
        "horizon": 40000.0,
        "n_samples": 10000,
        "n_training": size,
        "n_memorized": hits,
        "memorization_ratio": hits / 10000,
        "memorization_ratio_low": interval.low,
        "memorization_ratio_high": interval.high,
        **other,
    }


@pytest.fixture
def table3():
    """Gu et al. 2023, Table 3: the best checkpoint, then one with 1000 copies less."""
    rows = []
    for kind, counts in GU.items():
        for size, hits in zip(range(1000, 6000, 1000), counts, strict=True):
            rows.append(row(kind, size, hits, 36000.0))
            rows.append(row(kind, size, max(hits - 1000, 0)))
    return pd.DataFrame(rows)


def at(table, kind, epsilon=0.1):
    """The row of one series and epsilon."""
    return table[(table["labels.kind"] == kind) & (table["epsilon"] == epsilon)].iloc[0]


def test_best_is_the_last_of_equals_and_last_the_longest():
    epochs = {4000.0: 10, 1000.0: 5, 2000.0: 90, 3000.0: 90}
    rows = pd.DataFrame([row(hits=hits, epoch=epoch) for epoch, hits in epochs.items()])
    chosen = best_and_last(rows).set_index("checkpoint")
    assert chosen["epoch"].to_dict() == {"best": 3000, "last": 4000}
    assert len(best_and_last(pd.concat([rows, rows.assign(horizon=4000.0)]))) == 4


def test_emm_of_the_published_table(table3):
    table = emm_table(table3)
    assert list(table["labels.kind"].unique()) == ["none", "true", "unique"]
    assert len(table) == 3 * 4
    none, true, unique = (at(table, kind) for kind in GU)
    assert none["emm"] == pytest.approx(1047.6, abs=0.05)
    assert none["emm_linear"] == pytest.approx(1067.1, abs=0.05)
    assert none["emm_low"] < none["emm"] < none["emm_high"]
    assert true["emm"] == pytest.approx(1305.6, abs=0.05)
    assert (none["status_last"], none["bound_last"]) == ("below", 1000)
    assert none["sizes"] == [1000, 2000, 3000, 4000, 5000]
    assert none["ratios"] == pytest.approx([0.9209, 0.6093, 0.3460, 0.1712, 0.09])
    assert none["method"] == "isotonic-log"
    assert (unique["status"], unique["bound"], unique["emm_high"]) == ("above", 5000, math.inf)


def test_unique_labels_are_one_series(table3):
    table = emm_table(table3)
    assert "data.size" not in table
    assert "model.channel_mult" not in table
    assert math.isnan(at(table, "unique")["labels.num_classes"])


def test_so_are_vectors(table3):
    unique = table3["labels.kind"] == "unique"
    vectors = emm_table(table3[unique].assign(**{"labels.kind": "vectors"}))
    assert list(vectors["sizes"]) == [at(emm_table(table3), "unique")["sizes"]] * len(vectors)


def test_seeds_pool_and_settings_split():
    rows = [row(size=s, hits=h, seed=k) for s, h in ((10, 9800), (20, 5000)) for k in (0, 1)]
    wide = [{**r, "run": r["run"] + "w", "model.channel_mult": [1, 2]} for r in rows]
    alone = emm_table(pd.DataFrame(rows))
    assert list(alone["n_seeds"]) == [2] * 4
    table = emm_table(pd.DataFrame(rows + wide))
    assert set(table["model.channel_mult"]) == {(2, 2, 2), (1, 2)}
    merged = emm_table(pd.DataFrame(rows + wide), ["labels.kind"])
    assert len(merged) == 4


def test_experiments_of_a_series_are_joined():
    rows = [row(size=10, experiments="b,a"), row(size=20, experiments="c")]
    assert set(emm_table(pd.DataFrame(rows))["experiments"]) == {"a,b,c"}


def test_prefix_of_a_longer_run_is_its_own_series():
    rows = [row(epoch=4000.0), row(epoch=4000.0, horizon=4000.0)]
    assert set(emm_table(pd.DataFrame(rows))["train.epochs"]) == {4000, 40000}


def test_order_of_rows_does_not_matter(table3):
    shuffled = table3.sample(frac=1, random_state=1)
    pd.testing.assert_frame_equal(emm_table(shuffled), emm_table(table3))


def test_open_size_is_the_number_of_images_used():
    rows = effective(pd.DataFrame([row(size=10), {**row(size=50), "data.size": None}]))
    assert list(rows["data.size"]) == [10, 50]


def test_tables_round_trip(tmp_path, table3):
    table = emm_table(table3)
    write_table(tmp_path / "deep" / "emm.parquet", table)
    back = read_table(tmp_path / "deep" / "emm.parquet")
    assert list(back.columns) == list(table.columns)
    for name in table:
        assert [plain(v) for v in back[name]] == [plain(v) for v in table[name]]
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["emm.parquet"]


def test_damaged_tables_are_told(tmp_path):
    path = tmp_path / "t.parquet"
    frame = pd.DataFrame({"run": ["a", "b"] * 20, "ratio": np.linspace(0, 1, 40)})
    write_table(path, frame)
    whole = path.read_bytes()
    for position in range(0, len(whole), 7):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        try:
            pd.testing.assert_frame_equal(read_table(path), frame)
            assert read_rows(path) == frame.to_dict("records")
        except UserError as error:
            assert "damaged" in str(error)  # noqa: PT017 - either whole or told, never altered
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="damaged"):
        read_table(path)
    with pytest.raises(UserError, match="no such file"):
        read_table(tmp_path / "none.parquet")


def test_summary_tells_ratios_and_emm(table3):
    stream = io.StringIO()
    print_summary(table3, emm_table(table3), Console(file=stream, width=100, no_color=True))
    text = stream.getvalue()
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "unconditional 1,000 92.1 % 91.5 to 92.6" in lines
    assert any(line.startswith("EMM (90 %) 1,048 between 1,000 and 2,000 1,0") for line in lines)
    assert "EMM (90 %) ≥ 5,000" in lines
    assert max(map(len, text.splitlines())) <= 100


def test_fewest_settings_tell_series(table3):
    keys = [key for key, _ in series_of(effective(table3))]
    assert list(keys[0]) == ["labels.kind", "labels.num_classes"]
    assert telling(keys) == ["labels.kind"]


def test_names():
    assert value_name("data.size", 1500) == "1.5k"
    assert value_name("data.size", 1024) == "1,024"
    assert value_name("train.lr", 1e-5) == "1e-05"
    assert value_name("model.channel_mult", (1, 2)) == "1-2"
    assert series_label({"labels.kind": "random", "labels.num_classes": 10}) == (
        "random labels, $C$ = 10"
    )
    assert series_label({"labels.kind": "none", "labels.num_classes": 0}) == "unconditional"
    assert plain_text(r"$|\mathcal{D}|$ = 1k") == "|D| = 1k"
    assert ordered("labels.kind", ["unique", "none", "true"]) == ["none", "true", "unique"]
    assert ordered("model.num_blocks", [12, 2, None, 4]) == [2, 4, 12, None]
    assert [rounded(v) for v in (9.312, 47.0, 1047.6)] == ["9.31", "47.0", "1,048"]
    assert metric("d1_q05").label == "KNN distance, 5 % quantile (grey levels)"


def test_a_damaged_type_is_told(tmp_path):
    """A word that comes back as bytes, or nothing as a number, would compare as another setting."""
    path, frame = tmp_path / "table.parquet", pd.DataFrame({"kind": ["none"], "base": [None]})
    write_table(path, frame)
    whole = path.read_bytes()
    for position in range(len(whole)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0xFF]) + whole[position + 1 :])
        with contextlib.suppress(UserError):
            assert read_table(path).to_dict("records") == [{"kind": "none", "base": None}], position
