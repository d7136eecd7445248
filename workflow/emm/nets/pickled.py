"""Weights of pickled networks, read without running anything that the pickle names.

EDM (Karras et al. 2022) and the codes built on it pickle whole modules: the source code of a class
beside the state of the object. Of all that only tensors, plain containers, and the attributes of
modules are read; the classes become inert stand-ins.
"""

import io
import pickle
import re
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
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


class Recorded:
    """Stand-in for an object: the name of its class and its attributes. It does nothing."""

    kind = ""
    attributes: Mapping[str, Any] = MappingProxyType({})

    def __new__(cls, *_: Any, **__: Any) -> "Recorded":
        """Whatever the file makes the object from is dropped."""
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        self.attributes = state if isinstance(state, dict) else {}

    def tensors(self, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
        """Parameters and buffers by name, as `state_dict` of a module has them."""
        transient = self.attributes.get("_non_persistent_buffers_set", ())
        for group in ("_parameters", "_buffers"):
            for name, tensor in self.attributes.get(group, {}).items():
                if isinstance(tensor, Tensor) and name not in transient:
                    yield f"{prefix}{name}", tensor
        for name, module in self.attributes.get("_modules", {}).items():
            if isinstance(module, Recorded):
                yield from module.tensors(f"{prefix}{name}.")


def read_pickle(path: Path) -> Any:
    """Content of a pickle: tensors, plain containers, and a `Recorded` for each module.

    UserError for a damaged file, and for one that names anything else: nothing of it is run.
    """
    with path.open("rb") as stream:
        try:
            return _Reader(stream, path).load()
        except UserError:
            raise
        except Exception as error:  # bytes that are no pickle fail in many ways
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UserError(f"{path}: damaged, or no pickle of a network ({reason})") from error


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
            return type(name, (Recorded,), {"kind": name})
        raise UserError(
            f"{self._path}: refused: it names {full}, which is no tensor, plain container or "
            "module of torch; nothing of the file was run"
        )


def _persistent(meta: Mapping[str, Any]) -> Recorded:
    """An object of a class whose source code the pickle holds (EDM's torch_utils.persistence)."""
    made = type(str(meta["class_name"]), (Recorded,), {"kind": str(meta["class_name"])})()
    made.__setstate__(meta["state"])
    return made


def _storage(content: bytes) -> Tensor:
    """A storage, as the one-dimensional tensor that fills it."""
    storage = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return torch.empty(0, dtype=storage.dtype).set_(storage)


def _tensor(storage: Tensor, offset: int, size: Any, stride: Any, *_: Any) -> Tensor:
    return torch.as_strided(storage, size, stride, offset)  # an error beyond the storage's end


def _parameter(tensor: Tensor, *_: Any) -> Tensor:
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
