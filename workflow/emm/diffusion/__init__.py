"""Preconditioning and losses, the deterministic sampler, and the closed-form optimum."""

SAMPLE_INDEX = "samples.json"  # in a folder of samples: run, settings, and a file per checkpoint
