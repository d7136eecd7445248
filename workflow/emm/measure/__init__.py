"""Measures: what else is measured of an evaluation's checkpoints or samples, beside its scores."""

AFTER = {"ideals": "train"}  # by measure: the stage whose output it takes
MEASURES = tuple(AFTER)
LEVELS = 14  # of noise, at which denoisers are compared
PROBES = 128  # noisy images of each kind and level
PROBE_BATCH = 64
