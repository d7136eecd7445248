"""Makes the workflow's commands use its own checkout, whatever else is installed."""

import os
import sys
from pathlib import Path


def use_checkout() -> None:
    """Put this library and this interpreter's `emm` first for all processes that are started."""
    _put_first("PYTHONPATH", Path(__file__).resolve().parent.parent)
    _put_first("PATH", Path(sys.executable).parent)


def _put_first(variable: str, folder: Path) -> None:
    parts = [str(folder), os.environ.get(variable, "")]
    os.environ[variable] = os.pathsep.join(filter(None, parts))
