"""Denoisers of one's own: what a name may stand for, and output that is refused."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from emm.diffusion.callables import find_denoiser, make_denoiser
from emm.diffusion.optimum import Optimum
from emm.errors import UserError

IMAGES, LABELS = torch.rand(6, 1, 4, 4) * 2 - 1, torch.arange(6) % 3
X, SIGMA = torch.randn(5, 1, 4, 4), torch.full((5,), 0.5)
CODE = """
import torch
from torch import nn


def shrink(x, sigma, labels):
    return x / (1 + sigma.view(-1, 1, 1, 1) ** 2)


class Shrink:
    def __init__(self, factor):
        self.factor = factor

    def __call__(self, x, sigma, labels):
        return self.factor * x


half = Shrink(0.5)


class Mean:
    def __init__(self, images, labels):
        self.mean = images.mean(0)
        self.told = None if labels is None else labels.tolist()

    def __call__(self, x, sigma, labels):
        return self.mean.expand_as(x)


class Network(nn.Module):
    def __init__(self, images=None, labels=None):
        super().__init__()
        self.layer = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.Dropout(0.9))

    def forward(self, x, sigma, labels):
        return self.layer(x)


network = Network()
number = 3
flat = lambda x, sigma, labels: x.flatten(1)
nothing = lambda x, sigma, labels: None
infinite = lambda x, sigma, labels: x / 0
double = lambda x, sigma, labels: x.double()


class NotCallable:
    def __init__(self, images, labels):
        pass


def fails(x, sigma, labels):
    raise RuntimeError("of my own")
"""


@pytest.fixture
def code(tmp_path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(CODE)
    return path


def made(code: Path, name: str, labels: torch.Tensor | None = None):
    return make_denoiser(f"{code}:{name}", IMAGES, labels)


def test_a_function_is_called_as_it_is(code):
    assert torch.equal(made(code, "shrink")(X, SIGMA), X / 1.25)


def test_an_instance_is_called_as_it_is(code):
    assert torch.equal(made(code, "half")(X, SIGMA, None), X / 2)


@pytest.mark.parametrize("labels", [None, LABELS])
def test_a_class_is_made_with_the_training_set(code, labels):
    denoiser = made(code, "Mean", labels)
    assert torch.equal(denoiser(X, SIGMA, labels), IMAGES.mean(0).expand_as(X))
    assert denoiser.call.told == (None if labels is None else labels.tolist())


@pytest.mark.parametrize("name", ["network", "Network"])
def test_a_module_has_its_dropout_off(code, name):
    denoiser = made(code, name)
    assert torch.equal(denoiser(X, SIGMA), denoiser(X, SIGMA))
    assert torch.equal(denoiser(X, SIGMA), denoiser.call.layer[0](X))


def test_output_has_the_precision_of_the_input(code):
    assert made(code, "double")(X, SIGMA).dtype == torch.float32


def test_a_name_in_an_installed_module():
    denoiser = make_denoiser("emm.diffusion.optimum:Optimum", IMAGES, LABELS)
    expected = Optimum(IMAGES, LABELS)(X, SIGMA, LABELS[:5])
    assert torch.equal(denoiser(X, SIGMA, LABELS[:5]), expected)


def test_a_module_in_the_working_directory(code, tmp_path, monkeypatch):
    (tmp_path / "package_of_mine").mkdir()
    code.rename(tmp_path / "package_of_mine" / "code.py")
    monkeypatch.chdir(tmp_path)
    try:
        denoiser = make_denoiser("package_of_mine.code:half", IMAGES, None)
    finally:
        for name in [name for name in sys.modules if name.startswith("package_of_mine")]:
            del sys.modules[name]
    assert torch.equal(denoiser(X, SIGMA), X / 2)
    assert str(tmp_path) not in sys.path


def test_a_file_imports_what_lies_beside_it(tmp_path):
    (tmp_path / "beside_mine.py").write_text("FACTOR = 3")
    (tmp_path / "a file.py").write_text(
        "from beside_mine import FACTOR\ntriple = lambda x, sigma, labels: FACTOR * x"
    )
    assert torch.equal(made(tmp_path / "a file.py", "triple")(X, SIGMA), 3 * X)
    del sys.modules["beside_mine"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing", r"mine.py:missing: .*mine.py has no missing"),
        ("number", r"mine.py:number: is int, not a callable \(x, sigma, labels\)"),
        ("NotCallable", r"mine.py:NotCallable: its instances cannot be called; give the class a"),
    ],
)
def test_names_that_are_no_denoiser(code, name, message):
    with pytest.raises(UserError, match=f"^model.denoiser .*{message}"):
        made(code, name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("flat", r"returned of shape \(5, 16\) for x of shape \(5, 1, 4, 4\); return the denoised"),
        ("nothing", r"returned NoneType for x of shape \(5, 1, 4, 4\)"),
        ("infinite", r"returned values that are not finite at sigma 0.5"),
    ],
)
def test_output_that_is_refused(code, name, message):
    with pytest.raises(UserError, match=f"^model.denoiser .*mine.py:{name}: {message}"):
        made(code, name)(X, SIGMA)


def test_a_file_that_does_not_exist(tmp_path):
    with pytest.raises(UserError, match=r"^model.denoiser: .*none.py: no such file"):
        find_denoiser(f"{tmp_path}/none.py:k")


@pytest.mark.parametrize("name", ["no_such_package", "no_such_package.module", "emm.no_such"])
def test_a_module_that_does_not_exist(name):
    with pytest.raises(UserError, match=rf"^model.denoiser {name}:k: no module "):
        find_denoiser(f"{name}:k")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("import no_such_package", ModuleNotFoundError),
        ("1 +", SyntaxError),
        ("1 / 0", ArithmeticError),
    ],
)
def test_errors_of_the_users_code_come_through(tmp_path, text, error):
    (tmp_path / "broken.py").write_text(text)
    with pytest.raises(error):
        find_denoiser(f"{tmp_path}/broken.py:k")


def test_an_error_in_a_call_comes_through(code):
    with pytest.raises(RuntimeError, match="of my own"):
        made(code, "fails")(X, SIGMA)


def test_finding_a_name_in_plain_python_needs_no_instance(code):
    """A class that takes long to make is made when it is sampled, not when it is looked up."""
    assert isinstance(find_denoiser(f"{code}:Mean"), type)
    line = "from emm.given import split_name; import sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", line], check=True)


def test_an_edit_within_a_second_is_seen(tmp_path):
    path = tmp_path / "own.py"
    for number in (1, 2):
        path.write_text(f"def shrink(x, sigma, labels):\n    return x * {number}\n")
        os.utime(path, (10**9, 10**9))
        made = make_denoiser(f"{path}:shrink", torch.zeros(1), None)
        assert made(torch.ones(1, 1), torch.ones(1)).item() == number
    assert [entry.name for entry in tmp_path.iterdir()] == ["own.py"]
