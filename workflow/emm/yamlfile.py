"""YAML files whose content is keys and values."""

from pathlib import Path
from typing import Any

from emm.errors import UserError


def load_yaml(path: Path) -> dict[str, Any]:
    """Content of a YAML file, {} if it is empty; missing and malformed files are UserErrors."""
    import yaml

    try:
        content = _load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a text file in UTF-8") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise UserError(f"{path}{line}: not valid YAML ({problem})") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds no keys and values, but {content!r}")
    return content


def _load(text: str) -> Any:
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(text)
    node = loader.get_single_node()
    if node is None:
        return {}
    _refuse_repeated_keys(node, set())
    content = loader.construct_document(node)
    return {} if content is None else content


def _refuse_repeated_keys(node: Any, seen: set[int]) -> None:
    """A YAML error for a mapping in which a key stands twice: the first would be lost."""
    import yaml

    if isinstance(node, yaml.ScalarNode) or id(node) in seen:
        return
    seen.add(id(node))
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    keys = set()
    for key, _ in pairs:
        if (key.tag, str(key.value)) in keys:
            problem = f"the key {key.value!r} stands twice"
            raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
        keys.add((key.tag, str(key.value)))
    for part in [value for _, value in pairs] or node.value:
        _refuse_repeated_keys(part, seen)
