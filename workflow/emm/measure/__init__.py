"""Measures: what else is measured of an evaluation's checkpoints or samples, beside its scores."""

MEASURES = ("ideals",)
LEVELS = 16  # of noise, at which denoisers are compared
PROBES = 256  # noisy images of each kind and level
PROBE_BATCH = 64
