"""Effective model memorization (EMM) of diffusion models: library and command line."""

__version__ = "0.1.0"
