"""Settings as texts: values that are written on a command line, and read back."""

import json
from typing import Any

from emm.spec import TEXTS


def from_text(key: str, value: Any) -> Any:
    """The value of a setting that is written as text: JSON, or a plain word; others as they are."""
    if not isinstance(value, str):
        return value
    try:
        read = json.loads(value)
    except json.JSONDecodeError:
        return value
    return value if key in TEXTS and type(read) in (int, float) else read  # skip_mask=101


def option(key: str, value: Any) -> str:
    """A setting as a command-line option that `emm` reads back: --set=data.size=1000."""
    text = value if isinstance(value, str) and not _is_json(value) else json.dumps(value)
    return f"--set={key}={text}"


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except json.JSONDecodeError:
        return False
    return True
