"""Pickles as EDM and the codes built on it write them, for all unit tests."""

import pickle
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from emm.nets import UNet
from emm.nets.published import edm_names

SOURCE = "import os\nos.system('touch source_was_run')\n"


class Persistent(nn.Module):
    """A module that is pickled with the source of its class, through torch_utils.persistence."""

    def __init__(self, kind: str, **attributes: Any) -> None:
        super().__init__()
        self.kind = kind
        self._init_kwargs = {"init": {"scale": np.sqrt(0.2)}, "size": torch.Size([2])}
        for name, value in attributes.items():
            setattr(self, name, value)

    def __reduce__(self) -> tuple[Any, ...]:
        rebuild = sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj
        state = dict(self.__dict__)
        meta = {"type": "class", "version": 6, "module_src": SOURCE, "class_name": self.kind}
        return rebuild, (meta | {"state": state},), None


def modules_of(state: Mapping[str, Tensor]) -> Persistent:
    """Modules with the tensors of a state dict; enc and dec are torch's own dictionaries."""
    root = Persistent("SongUNet")
    for name, tensor in state.items():
        *path, last = name.split(".")
        module = root
        for part in path:
            if part not in module._modules:
                kind = nn.ModuleDict() if part in ("enc", "dec") else Persistent("Layer")
                module._modules[part] = kind
            module = module._modules[part]
        if last in ("freqs", "resample_filter"):
            module.register_buffer(last, tensor)
        else:
            module.register_parameter(last, nn.Parameter(tensor.clone(), requires_grad=False))
    root.register_buffer("scratch", torch.ones(3), persistent=False)
    return root


@pytest.fixture
def edm_pickle(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Writes a file like network-snapshot-*.pkl: edm_pickle(path, state, kind, extra, **constants).

    state: names and tensors of the network; kind: the class of its preconditioning; extra: other
    entries of the file. The modules that it names cannot be imported when the test reads it.
    """

    def write(path: Path, state: Mapping[str, Tensor], kind="EDMPrecond", extra=(), **constants):
        with foreign_modules(monkeypatch) as foreign:
            wrapped = Persistent(kind, img_resolution=32, **constants)
            wrapped._modules["model"] = modules_of(state)
            loss, options = Persistent("EDMLoss", P_mean=-1.2), foreign.EasyDict(path="cifar.zip")
            content = {"ema": wrapped, "loss_fn": loss, "augment_pipe": None, "options": options}
            path.write_bytes(pickle.dumps(content | dict(extra)))
        return path

    return write


@pytest.fixture(scope="session")
def edm_state() -> Callable[[UNet], dict[str, Tensor]]:
    """The state dict of one of our networks, with the names and the layout of EDM's code."""

    def converted(network: UNet) -> dict[str, Tensor]:
        own = network.state_dict()
        return {name: _layout(ours, own[ours]) for ours, name in edm_names(network).items()}

    return converted


def _layout(name: str, tensor: Tensor) -> Tensor:
    if ".attention.qkv." in name:  # q, k, v of one channel after the other
        return tensor.unflatten(0, (3, -1)).transpose(0, 1).flatten(0, 1)
    return tensor.t() if name == "mapping.labels.weight" else tensor


@contextmanager
def foreign_modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[types.ModuleType]:
    """The modules of EDM's code, as far as pickling needs them; gives the one with EasyDict."""
    persistence = types.ModuleType("torch_utils.persistence")
    exec("def _reconstruct_persistent_obj(meta): raise AssertionError", vars(persistence))
    util = types.ModuleType("dnnlib.util")
    exec("class EasyDict(dict): pass", vars(util))
    with monkeypatch.context() as patch:
        for module in (persistence, util):
            package = module.__name__.partition(".")[0]
            patch.setitem(sys.modules, package, types.ModuleType(package))
            patch.setitem(sys.modules, module.__name__, module)
        yield util
