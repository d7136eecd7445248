"""Made-up results that the tests of figures draw, and what makes a picture legible."""

import itertools

import numpy as np
import pandas as pd
from matplotlib.text import Text
from scipy.stats import binomtest

CAPACITY = {"none": 45, "true": 60, "random": 64, "unique": 5000}
SIZES = (16, 32, 64, 128, 256)


def made_up(capacity=CAPACITY, sizes=SIZES, epochs=(500.0, 1000.0, 2000.0), seeds=(0,), **other):
    """A memorization table in which a kind of labels memorizes about `capacity` images."""
    rng, rows = np.random.default_rng(0), []
    for kind, size, seed, epoch in itertools.product(capacity, sizes, seeds, epochs):
        learnt = 1 - np.exp(-4 * epoch / max(epochs))
        hits = int(rng.binomial(1000, learnt / (1 + (size / capacity[kind]) ** 1.6 / 9)))
        interval = binomtest(hits, 1000).proportion_ci(method="wilson")
        run = f"digits-n{size}-{kind}-{seed}-{sorted(other.items())}"
        rows.append(
            {
                "run": run,
                "evaluation": f"{run}-e",
                "experiments": "labels",
                "data.size": size,
                "labels.kind": kind,
                "labels.num_classes": {"none": 0, "unique": size}.get(kind, 10),
                "model.channel_mult": [2, 2],
                "train.epochs": max(epochs),
                "train.seed": seed,
                "epoch": epoch,
                "step": int(10 * epoch),
                "horizon": max(epochs),
                "n_samples": 1000,
                "n_training": size,
                "n_memorized": hits,
                "memorization_ratio": hits / 1000,
                "memorization_ratio_low": interval.low,
                "memorization_ratio_high": interval.high,
                "knn_distance": 25 - hits / 50,
                **other,
            }
        )
    return pd.DataFrame(rows)


def galleries(memorization, count=16, channels=1):
    """Copies and non-copies of made-up training images, a gallery per evaluation."""
    rng, found = np.random.default_rng(0), {}
    for evaluation in memorization["evaluation"].unique():
        nearest = rng.integers(0, 200, (count, 8, 8, channels), np.uint8)
        memorized = np.arange(count) % 3 == 0
        samples = nearest + np.where(memorized, 1, 50).astype(np.uint8)[:, None, None, None]
        d1 = ((samples.astype(int) - nearest) ** 2).sum(axis=(1, 2, 3))
        found[evaluation] = {
            "samples": samples,
            "nearest": nearest,
            "d1_squared": d1,
            "d2_squared": np.where(memorized, 10 * d1, 2 * d1),
            "memorized": memorized,
            "labels": np.zeros(count, int),
            "epoch": np.array(2000.0),
        }
    return found


def visible_texts(picture):
    """Boxes of all texts that are drawn, by their text."""
    picture.draw_without_rendering()
    shown = [text for text in picture.findobj(Text) if text.get_visible() and text.get_text()]
    for axes in picture.axes:
        for axis in (axes.xaxis, axes.yaxis):
            drawn = {id(tick) for tick in axis._update_ticks()}
            hidden = {id(t.label1) for t in axis.get_major_ticks() if id(t) not in drawn}
            shown = [text for text in shown if id(text) not in hidden]
    return [(text.get_text(), text.get_window_extent()) for text in shown]


def assert_legible(picture):
    boxes = visible_texts(picture)
    for (one, box), (other, against) in itertools.combinations(boxes, 2):
        assert not box.overlaps(against), f"{one!r} overlaps {other!r}"
    for text, box in boxes:
        inside = picture.bbox.padded(0.5)
        assert inside.contains(box.x0, box.y0), text
        assert inside.contains(box.x1, box.y1), text
