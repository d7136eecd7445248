"""Progress of long work: a bar in a terminal, a line a minute in a log."""

import math
import sys
import time
from datetime import timedelta
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar


class Progress:
    """Context that is told how many of `total` units are done, as often as one likes.

    told: whether anybody is.
    """

    def __init__(self, unit: str, total: int, every_seconds: float = 60.0, told: bool = True):
        self.unit, self.total = unit, total
        self.every = every_seconds if told else math.inf
        self.console = Console(stderr=True)
        self.last = self.started = time.monotonic()
        self.first: int | None = None
        columns = (
            TextColumn(unit),
            MofNCompleteColumn(),
            BarColumn(),
            TextColumn("{task.description}"),
            TimeRemainingColumn(),
        )
        shown = told and self.console.is_terminal
        self.bar = Bar(*columns, console=self.console) if shown else None

    def __enter__(self) -> "Progress":
        if self.bar:
            self.task = self.bar.add_task("", total=self.total)
            self.bar.start()
        return self

    def __exit__(self, *_: Any) -> None:
        if self.bar:
            self.bar.stop()

    def __call__(self, done: int, text: str = "") -> None:
        """Show how far the work is, with some words on it."""
        self.first = done - 1 if self.first is None else self.first
        if self.bar:
            self.bar.update(self.task, completed=done, description=text)
        elif time.monotonic() - self.last > self.every:
            self.last = time.monotonic()
            parts = [f"{self.unit} {done} of {self.total}", text, self._left(done)]
            print(", ".join(filter(None, parts)), file=sys.stderr, flush=True)

    def _left(self, done: int) -> str:
        """Time left at the rate so far."""
        rate = (done - self.first) / (time.monotonic() - self.started)
        return f"{timedelta(seconds=round((self.total - done) / rate))} left"
