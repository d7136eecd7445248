"""Progress of long work: a bar in a terminal, a line a minute in a log."""

import sys
import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar


class Progress:
    """Context that is told how many of `total` units are done, as often as one likes."""

    def __init__(self, unit: str, total: int, every_seconds: float = 60.0):
        self.unit, self.total = unit, total
        self.every = every_seconds
        self.console = Console(stderr=True)
        self.last = time.monotonic()
        columns = (
            TextColumn(unit),
            MofNCompleteColumn(),
            BarColumn(),
            TextColumn("{task.description}"),
            TimeRemainingColumn(),
        )
        self.bar = Bar(*columns, console=self.console) if self.console.is_terminal else None

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
        if self.bar:
            self.bar.update(self.task, completed=done, description=text)
        elif time.monotonic() - self.last > self.every:
            self.last = time.monotonic()
            line = f"{self.unit} {done} of {self.total}"
            print(f"{line}, {text}" if text else line, file=sys.stderr, flush=True)
