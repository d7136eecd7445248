"""The command `emm` in a process of its own: it sets threads, signals and the environment."""

import subprocess
import sys
from collections.abc import Callable

import pytest


@pytest.fixture
def run_emm() -> Callable[..., tuple[int, str, str]]:
    """Exit code, standard output and standard error of a command."""

    def run(*words: object) -> tuple[int, str, str]:
        command = [sys.executable, "-m", "emm.cli", *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True)
        return done.returncode, done.stdout, done.stderr

    return run
