"""Weights of pickled networks, read without running anything that the pickle names.

EDM (Karras et al. 2022) and the codes built on it pickle whole modules: the source code of a class
beside the state of the object. Of all that only tensors, plain containers, and the attributes of
modules are read; the classes become inert stand-ins.
"""

import io
import math
import pickle
import re
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from emm.errors import UserError

# Classes that are recorded, not made: modules of torch, and what their attributes are made of.
INERT = re.compile(
    r"torch\.nn\.modules\.\w+\.\w+|torch\.nn\.functional\.\w+"
    r"|torch\.(device|float16|float32|float64|int64)"
    r"|numpy\.(dtype|ndarray)|numpy\._?core\.multiarray\.(scalar|_reconstruct)"
)
REFUSED = re.compile(r"GLOBAL (\S+)")  # how torch says what it will not load
LONGEST = 160  # characters of a tensor's name, and of what a message shows of a file
MOST_DIMENSIONS = 8


def shown(text: str) -> str:
    """Text of a file as a message may show it: one line of ASCII without control characters."""
    plain = text[: LONGEST + 1].encode("unicode_escape").decode("ascii")
    return plain if len(plain) <= LONGEST else f"{plain[:LONGEST]}..."


def reason(error: Exception) -> str:
    """What a library says of a damaged file, as a message may show it."""
    if refused := REFUSED.search(str(error)):
        return f"it names {shown(refused[1])}"
    return shown(" ".join(str(error).split())) or type(error).__name__


class Held:
    """A tensor that a file can pass on but not call: its methods can allocate without bounds."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor

    def __setstate__(self, _: Any) -> None:
        """A state that the file gives the tensor afterwards is dropped."""


class Recorded:
    """Stand-in for an object: the name of its class and its attributes. It does nothing."""

    kind = ""
    attributes: Mapping[str, Any] = MappingProxyType({})

    def __new__(cls, *_: Any, **__: Any) -> "Recorded":
        """Whatever the file makes the object from is dropped."""
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        self.attributes = state if isinstance(state, dict) else {}

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Parameters and buffers by name, as `state_dict` of a module has them.

        A module that is there under several names has the first one alone.
        """
        seen, waiting = set(), [("", self)]
        while waiting:
            prefix, module = waiting.pop()
            if id(module) in seen:
                continue
            seen.add(id(module))
            yield from module._own_tensors(prefix)
            inner = module.attributes.get("_modules", {}).items()
            found = [(_joined(prefix, name), m) for name, m in inner if isinstance(m, Recorded)]
            waiting += reversed(found)

    def _own_tensors(self, prefix: str) -> Iterator[tuple[str, Tensor]]:
        transient = self.attributes.get("_non_persistent_buffers_set", ())
        for group in ("_parameters", "_buffers"):
            for name, held in self.attributes.get(group, {}).items():
                if isinstance(held, Held) and name not in transient:
                    yield _joined(prefix, name), held.tensor


def _joined(prefix: str, name: str) -> str:
    """Name of a member; ValueError where names add up to more than any network has."""
    if len(prefix) + len(name) > LONGEST:
        raise ValueError("the names of its modules are too long")
    return ".".join((prefix, name)) if prefix else name


def read_pickle(path: Path) -> Any:
    """Content of a pickle: plain containers, a `Held` for each tensor, a `Recorded` for a module.

    UserError for a damaged file, and for one that names anything else: nothing of it is run.
    """
    with path.open("rb") as stream:
        try:
            return _Reader(stream, path).load()
        except UserError:
            raise
        except Exception as error:  # bytes that are no pickle fail in many ways
            raise UserError(
                f"{path}: damaged, or no pickle of a network ({reason(error)})"
            ) from error


class _Reader(pickle.Unpickler):
    """Unpickler that gives stand-ins of its own for the names in a file, new ones in each file."""

    def __init__(self, stream: Any, path: Path) -> None:
        super().__init__(stream)
        self._path, self._found = path, {}

    def find_class(self, module: str, name: str) -> Any:
        """What stands for a global name; UserError for names that are not of networks."""
        full = f"{module}.{name}"
        if full not in self._found:
            self._found[full] = self._stand_in(full, name)
        return self._found[full]

    def _stand_in(self, full: str, name: str) -> Any:
        if full in CONTAINERS:
            return CONTAINERS[full]
        if full in CALLS:
            return lambda *given: CALLS[full](*given)
        if INERT.fullmatch(full):
            return type(name, (Recorded,), {"kind": shown(name)})
        raise UserError(
            f"{self._path}: refused: it names {shown(full)}, which is no tensor, plain container "
            "or module of torch; nothing of the file was run"
        )


def _persistent(meta: Mapping[str, Any]) -> Recorded:
    """An object of a class whose source code the pickle holds (EDM's torch_utils.persistence)."""
    made = Recorded()
    if not isinstance(meta["class_name"], str):
        raise TypeError("the name of a class is no text")
    made.kind = shown(meta["class_name"])
    made.__setstate__(meta["state"])
    return made


def _storage(content: bytes) -> Held:
    """A storage, as the one-dimensional tensor that fills it."""
    storage = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    if not isinstance(storage, torch.storage.TypedStorage):
        raise TypeError(f"a storage is a {type(storage).__name__}")
    return Held(torch.empty(0, dtype=storage.dtype).set_(storage))


def _tensor(storage: Held, offset: int, size: Any, stride: Any, *_: Any) -> Held:
    whole = storage.tensor
    available = whole.untyped_storage().nbytes() // whole.itemsize
    if not _fits(offset, size, stride, available):
        raise ValueError(f"a tensor is larger than its storage of {available} elements")
    return Held(torch.as_strided(whole, size, stride, offset))


def _fits(offset: int, size: Sequence[int], stride: Sequence[int], available: int) -> bool:
    """Whether a tensor lies in a storage of `available` elements, and has no more than these."""
    if len(size) != len(stride) or len(size) > MOST_DIMENSIONS:
        return False
    if any(type(n) is not int or n < 0 for n in (offset, *size, *stride)):
        return False
    if 0 in size:
        return offset <= available
    reach = sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    return math.prod(size) <= available and offset + reach < available


def _parameter(tensor: Held, *_: Any) -> Held:
    return tensor


CONTAINERS: dict[str, type] = {
    "builtins.set": set,
    "builtins.frozenset": frozenset,
    "collections.OrderedDict": OrderedDict,
    "dnnlib.util.EasyDict": dict,
    "torch.Size": tuple,
}
CALLS: dict[str, Callable[..., Any]] = {
    "torch_utils.persistence._reconstruct_persistent_obj": _persistent,
    "torch.storage._load_from_bytes": _storage,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
}
