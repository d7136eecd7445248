"""Progress of long work: a bar in a terminal, a line a minute in a log."""

import sys
import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar


class Progress:
    """Context that is called with the training's state and shows loss, images/s, time left."""

    def __init__(self, total: int, every_seconds: float = 60.0):
        self.total = total
        self.every = every_seconds
        self.console = Console(stderr=True)
        self.last = time.monotonic()
        columns = (
            TextColumn("step"),
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

    def __call__(self, state: Any) -> None:
        """Show a state after it has logged a row of metrics."""
        _, epoch, loss, _, _, rate = state.metrics[-1]
        text = f"epoch {epoch:.0f}, loss {loss:.4g}, {rate:,.0f} images/s"
        if self.bar:
            self.bar.update(self.task, completed=state.step, description=text)
        elif time.monotonic() - self.last > self.every:
            self.last = time.monotonic()
            print(f"step {state.step} of {self.total}, {text}", file=sys.stderr, flush=True)
