"""The command `emm`."""

import os
import signal
from importlib import import_module
from typing import Any

from emm.commands import app
from emm.errors import Interrupted, ending_in_a_line

COMMANDS = ("stages", "measures", "results", "statistics", "about")  # as the help lists them
for name in COMMANDS:
    import_module(f"emm.commands.{name}")


def _on_signal(number: int, _frame: Any) -> None:
    name = signal.Signals(number).name
    raise Interrupted(f"stopped by {name}; run the same command again to go on")


def main() -> None:
    """Entry point: exit code 0 done, 1 bug, 2 bad input, 75 interrupted and resumable."""
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # it would ask every package
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _on_signal)
    with ending_in_a_line():
        app()


if __name__ == "__main__":
    main()
