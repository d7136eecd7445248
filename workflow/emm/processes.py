"""This process among those that share a training, by the variables that torchrun sets."""

import os


def is_member() -> bool:
    """Whether this process was started as one of several."""
    return "RANK" in os.environ and "LOCAL_RANK" in os.environ


def rank() -> int:
    """Its number among them, 0 where it is alone."""
    return int(os.environ["RANK"]) if is_member() else 0


def local_rank() -> int:
    """Its number among those of this machine."""
    return int(os.environ["LOCAL_RANK"]) if is_member() else 0
