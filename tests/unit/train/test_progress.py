"""Progress in a log: a line a minute, however often it is told."""

import re

import pytest

from emm.train import progress
from emm.train.progress import Progress


class Clock:
    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress.time, "monotonic", clock.monotonic)
    return clock


def test_a_line_a_minute(clock, capsys):
    with Progress("step", 400) as bar:
        for step in range(1, 401):
            clock.now += 0.5
            bar(step, "loss 0.5" if step > 200 else "")
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "step 121 of 400, 0:02:20 left",
        "step 242 of 400, loss 0.5, 0:01:19 left",
        "step 363 of 400, loss 0.5, 0:00:18 left",
    ]


def test_a_bar_in_a_terminal(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    with Progress("image", 30) as bar:
        assert bar.bar is not None
        for done in range(1, 31):
            bar(done, "half a minute")
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().err)
    assert "image 30/30" in shown
    assert "half a minute" in shown
