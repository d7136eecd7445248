"""Metrics that tables, figures and claims have: names, units, limits, and which end is worse."""

import re
from dataclasses import dataclass

from emm.analyse.names import TIMES
from emm.measure import PERCENTS


@dataclass(frozen=True)
class Metric:
    """A column of the memorization table as it is drawn.

    factor: drawn value / stored value. limits: of the axis, in drawn units. best: "high" or "low",
    the end that means more memorization and is bold in tables. decimals: in tables.
    """

    name: str
    unit: str = ""
    factor: float = 1.0
    limits: tuple[float, float] | None = None
    best: str = "high"
    decimals: int = 2

    @property
    def label(self) -> str:
        """Name and unit, as on an axis."""
        return f"{self.name} ({self.unit})" if self.unit else self.name


SCORES = {
    "memorization_ratio": Metric("Memorization ratio", "%", 100.0, (0, 100)),
    "memorization_ratio_reconstructed": Metric(
        "Memorization ratio, reconstructed images", "%", 100.0, (0, 100)
    ),
    "memorization_ratio_originals": Metric("Copies of unmoved images", "%", 100.0, (0, 100)),
    "memorization_ratio_sd": Metric("Standard deviation of the ratio", "points", 100.0, best="low"),
    "knn_distance": Metric("KNN distance", "grey levels", best="low"),
    "distinct_copied": Metric("Distinct images copied", "images", decimals=0),
    "coverage": Metric("Training images copied", "%", 100.0, (0, 100)),
    "coverage_ceiling": Metric("Training images copied, at most", "%", 100.0, (0, 100)),
    "label_hit_ratio": Metric("Copies that have the label told", "%", 100.0, (0, 100)),
    "label_hit_chance": Metric("Copies that would have it by chance", "%", 100.0, (0, 100)),
    "n_label_hits": Metric("Copies that have the label told", "samples", decimals=0),
    "n_memorized": Metric("Memorized samples", "samples", decimals=0),
    "n_memorized_published": Metric("Memorized samples, published rule", "samples", decimals=0),
    "n_memorized_reconstructed": Metric("Copies of reconstructed images", "samples", decimals=0),
    "n_memorized_originals": Metric("Copies of unmoved images", "samples", decimals=0),
    "n_repeated": Metric("Repeated training images", "images", decimals=0),
    "n_single": Metric("Training images that stand once", "images", decimals=0),
    "n_memorized_repeated": Metric("Copies of repeated images", "samples", decimals=0),
    "n_memorized_single": Metric("Copies of images that stand once", "samples", decimals=0),
    "repeated_ratio": Metric("Samples that copy repeated images", "%", 100.0, (0, 100)),
    "single_ratio": Metric("Samples that copy images standing once", "%", 100.0, (0, 100)),
    "repeated_rate": Metric("Copies per repeated image", "in 1,000 samples"),
    "single_rate": Metric("Copies per image that stands once", "in 1,000 samples"),
    "relative_rate": Metric("Copy rate over that of other images"),
    "coverage_repeated": Metric("Repeated images copied", "%", 100.0, (0, 100)),
    "coverage_single": Metric("Images standing once copied", "%", 100.0, (0, 100)),
    "n_duplicates": Metric("Duplicates in the training set", "images", decimals=0),
    "n_training": Metric("Training set size", "images", decimals=0),
    "n_samples": Metric("Generated samples", "samples", decimals=0),
    "n_mondrian": Metric("Mondrian samples", "samples", decimals=0),
    "n_memorized_mondrian": Metric("Memorized Mondrian samples", "samples", decimals=0),
    "mondrian_ratio": Metric("Mondrian samples", "%", 100.0, (0, 100)),
    "mondrian_memorization_ratio": Metric("Memorized Mondrian samples", "%", 100.0, (0, 100)),
    "layout_copy_ratio": Metric("Copies of a layout", "%", 100.0, (0, 100)),
    "quadrant_sd_q50": Metric("Standard deviation in quadrants, median", "grey levels", best="low"),
    "colour_ks": Metric("Quadrant colours from uniform (KS)", decimals=3),
    "cross_ks": Metric("Cross pixels from uniform (KS)", decimals=3),
    "cross_correlation": Metric("Correlation of cross pixels", decimals=3),
    "position_p": Metric("p of even cross positions", decimals=3),
}
OF_MEASURE = {  # what each measure adds, where an experiment has it
    "ideals": {
        "kappa": Metric(r"$\kappa$ at held-out images", decimals=3),
        "kappa_training": Metric(r"$\kappa$ at training images", decimals=3),
        "off_axis": Metric(
            "Beside the line of the ideals, held-out images", best="low", decimals=3
        ),
        "off_axis_training": Metric(
            "Beside the line of the ideals, training images", best="low", decimals=3
        ),
        "e_true": Metric("Squared distance to the true ideal, held-out images", decimals=4),
        "e_true_training": Metric(
            "Squared distance to the true ideal, training images", decimals=4
        ),
        "e_emp": Metric("Squared distance to the memorizing ideal, held-out images", decimals=4),
        "e_emp_training": Metric(
            "Squared distance to the memorizing ideal, training images", decimals=4
        ),
        "e_gauss": Metric("Squared distance to the Gaussian ideal, held-out images", decimals=4),
        "e_gauss_training": Metric(
            "Squared distance to the Gaussian ideal, training images", decimals=4
        ),
        "e_clean": Metric("Denoising error, held-out images", best="low", decimals=4),
        "e_clean_training": Metric("Denoising error, training images", best="low", decimals=4),
        "separation": Metric("Squared distance of the ideals, held-out images", decimals=4),
        "separation_training": Metric(
            "Squared distance of the ideals, training images", decimals=4
        ),
    },
    "twins": {
        "twin_similarity": Metric("Similarity of twins", decimals=3),
        "twin_similarity_unpaired": Metric("Similarity, different noise", decimals=3),
        "twin_similarity_nearest": Metric("Similarity to training images", decimals=3),
        "twin_distance": Metric("Distance of twins", "grey levels"),
        "twin_distance_unpaired": Metric("Distance, different noise", "grey levels"),
        "twin_closer": Metric("Twins nearer than the data", "%", 100.0, (0, 100)),
        "twin_reproduced": Metric("Twins of similarity above 0.6", "%", 100.0, (0, 100)),
        "n_shared": Metric("Training images equal to one of the twin's", "images", decimals=0),
    },
    "quality": {
        "fid": Metric("FID to held-out images"),
        "fid_training": Metric("FID to the training set", best="low"),
        "fid_gap": Metric("FID to held-out images beyond that to the training set"),
        "fid_copier": Metric("FID of copies of training images"),
        "fid_floor": Metric("FID of other held-out images"),
        "kid": Metric("KID to held-out images", decimals=4),
        "precision": Metric("Precision", "%", 100.0, (0, 100)),
        "recall": Metric("Recall of held-out images", "%", 100.0, (0, 100), best="low"),
        "density": Metric("Density"),
        "coverage_held_out": Metric(
            "Coverage of held-out images", "%", 100.0, (0, 100), best="low"
        ),
        "n_quality": Metric("Samples and held-out images compared", "images", decimals=0),
    },
    "criteria": {
        "memorization_ratio_held_out": Metric(
            "Memorization ratio of held-out images", "%", 100.0, (0, 100)
        ),
        "carlini_share": Metric("Relative distance below 1", "%", 100.0, (0, 100)),
        "carlini_share_held_out": Metric(
            "Relative distance below 1, held-out images", "%", 100.0, (0, 100)
        ),
        "carlini_q50": Metric("Relative distance, median", best="low"),
        "carlini_neighbours": Metric("Neighbours of the relative distance", "images", decimals=0),
        "near_share": Metric("Nearer than 95 % of held-out images", "%", 100.0, (0, 100)),
        "near_distance": Metric("Distance that 95 % of held-out images exceed", "grey levels"),
        "authentic_share": Metric("AuthPct", "%", 100.0, (0, 100), best="low"),
        "authentic_share_held_out": Metric("AuthPct of held-out images", "%", 100.0, (0, 100)),
        "n_held_out": Metric("Held-out images", "images", decimals=0),
        "hit_gini": Metric("Gini coefficient of copies per image"),
        "hit_gini_even": Metric("Gini coefficient if copies fell evenly"),
        "chao1_unseen": Metric(
            "Images copied but not seen, at least (Chao1)", "images", decimals=1
        ),
        "chao1_total": Metric(
            "Images that would be copied, at least (Chao1)", "images", decimals=1
        ),
        "chao1_share": Metric(
            "Training images that would be copied, at least (Chao1)", "%", 100.0, (0, 100)
        ),
        "spurious_share": Metric("Spurious samples", "%", 100.0, (0, 100)),
        "novel_share": Metric("Novel samples", "%", 100.0, (0, 100)),
        "clustered_share": Metric(
            "Samples that cluster off the training set", "%", 100.0, (0, 100)
        ),
    }
    | {
        f"ratio_share_{percent}{end}": Metric(
            f"Distance ratio below {percent / 100:g}{words}", "%", 100.0, (0, 100)
        )
        for percent in PERCENTS
        for end, words in (("", ""), ("_held_out", ", held-out images"))
    },
}
METRICS = SCORES | {name: found for of in OF_MEASURE.values() for name, found in of.items()}
OF_FEATURES = OF_MEASURE["quality"].keys() - {"n_quality"}  # depend on what images are compared by
CHANCE = {"label_hit_ratio": "label_hit_chance"}  # what a metric would be by chance
CAPACITIES = {  # of a series: of its best and of its last checkpoints
    "emm": Metric("EMM", "images", decimals=0),
    "memorization_capacity": Metric("Memorization capacity", "images", decimals=0),
}
OTHERS = {  # what else is published or claimed
    "parameters_million": Metric("Network parameters", "million"),
    "parameters_difference_percent": Metric("Parameters that labels add", "%"),
    "factor": Metric("Factor"),
}


ONSETS = {  # by metric: of which time, and the ratio that is passed
    f"onset_{time}_{percent}": (time, percent / 100)
    for time in TIMES
    for percent in (1, 10, 50, 90)
}
OTHERS |= {
    name: Metric(f"Onset of memorization ({level:.0%})".replace("%", " %"), f"{time}s", best="low")
    for name, (time, level) in ONSETS.items()
}
KNOWN = METRICS | CAPACITIES | OTHERS


def is_metric(column: str) -> bool:
    """Whether the memorization table has such a column of numbers."""
    return column in METRICS or re.fullmatch(r"(d1|ratio)_q(05|25|50|75|95)", column) is not None


def measure_of(column: str) -> str | None:
    """The measure that adds a column; None where scores have it, or nothing has."""
    return next((measure for measure, of in OF_MEASURE.items() if column in of), None)


def metric(column: str) -> Metric:
    """How a column is drawn; quantile columns (d1_q05, ratio_q50) get their name from it."""
    if column in KNOWN:
        return KNOWN[column]
    if found := re.fullmatch(r"(d1|ratio)_q(\d+)", column):
        kind, percent = found[1], int(found[2])
        if kind == "d1":
            return Metric(f"KNN distance, {percent} % quantile", "grey levels", best="low")
        return Metric(f"Distance ratio $d_1/d_2$, {percent} % quantile", best="low")
    return Metric(column.replace("_", " ").capitalize())
