"""Measures: what else is measured of an evaluation's checkpoints or samples, beside its scores."""

AFTER = {"ideals": "train", "criteria": "sample"}  # by measure: the stage whose output it takes
MEASURES = tuple(AFTER)
LEVELS = 14  # of noise, at which denoisers are compared
PROBES = 128  # noisy images of each kind and level
PROBE_BATCH = 64
HELD_OUT = 10_000  # images at most that calibrate criteria of copies
NEAREST = 50  # training images of a relative distance (Carlini et al. 2023, Section 5.1)
