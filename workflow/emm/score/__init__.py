"""Scores: exact nearest training images, and what counts as memorized."""
