"""A denoiser of the user's own: any Python callable, from a file or an installed module."""

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from emm.diffusion.samplers import DenoiserFunction
from emm.errors import UserError
from emm.given import split_name


class Checked:
    """A callable (x, sigma, labels) -> denoised images, whose output is looked at each time.

    UserError if it is not shaped like x, or not finite. What the callable itself raises comes
    through as it is.
    """

    def __init__(self, call: DenoiserFunction, name: str) -> None:
        self.call, self.name = call, name

    def __call__(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        """Denoised images like x: (B, C, H, W), sigma (B,), labels (B,) int64 or None."""
        output = self.call(x, sigma, labels)
        if not isinstance(output, Tensor) or output.shape != x.shape:
            shape = tuple(getattr(output, "shape", ()))
            found = f"of shape {shape}" if isinstance(output, Tensor) else type(output).__name__
            raise UserError(
                f"model.denoiser {self.name}: returned {found} for x of shape {tuple(x.shape)}; "
                "return the denoised images as a tensor of that shape"
            )
        if not bool(torch.isfinite(output).all()):
            raise UserError(
                f"model.denoiser {self.name}: returned values that are not finite at sigma "
                f"{float(sigma[0]):.4g}"
            )
        return output.to(x)


def find_denoiser(reference: str) -> Any:
    """What file.py:name or package.module:name names; UserError if it is missing or no callable.

    Importing runs the user's code, and what that raises comes through as it is.
    """
    place, name = split_name(reference)
    module = _from_file(Path(place)) if place.endswith(".py") else _from_module(place, reference)
    if not hasattr(module, name):
        raise UserError(f"model.denoiser {reference}: {place} has no {name}")
    found = getattr(module, name)
    if not callable(found):
        raise UserError(
            f"model.denoiser {reference}: is {type(found).__name__}, not a callable "
            "(x, sigma, labels)"
        )
    return found


def make_denoiser(reference: str, images: Tensor, labels: Tensor | None) -> Checked:
    """The denoiser that file.py:name or package.module:name stands for.

    A class is made once with the training set: images (N, C, H, W) in [-1, 1], labels (N,) int64 or
    None. Anything else is called as it is. An nn.Module goes to their device, its dropout off.
    """
    found = find_denoiser(reference)
    if isinstance(found, type):
        found = found(images, labels)
    if isinstance(found, nn.Module):
        found = found.to(images.device).eval()
    if not callable(found):
        raise UserError(
            f"model.denoiser {reference}: its instances cannot be called; give the class a "
            "__call__(self, x, sigma, labels)"
        )
    return Checked(found, reference)


def _from_file(path: Path) -> ModuleType:
    """A module from a file; it may import what lies beside it."""
    if not path.is_file():
        raise UserError(f"model.denoiser: {path}: no such file")
    name = f"_emm_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look their module up
    code = compile(path.read_bytes(), path, "exec")  # cached bytecode may be of an older edit
    with _importable(path.resolve().parent):
        exec(code, module.__dict__)
    return module


def _from_module(name: str, reference: str) -> ModuleType:
    with _importable(Path.cwd()):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name and f"{name}.".startswith(f"{error.name}."):
                raise UserError(
                    f"model.denoiser {reference}: no module {error.name}; install it, or run in "
                    "the folder that has it"
                ) from error
            raise


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
