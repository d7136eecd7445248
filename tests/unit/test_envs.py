"""What a machine installs agrees with pyproject.toml: pins, conda, Apptainer, make."""

import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
SHARED = ("sd", "slurm", "bench", "dev")  # extras that are pinned with and without CUDA
CUDA_ONLY = re.compile(r"(cuda|cupy|nvidia|triton)\b")
Pins = dict[str, Version]


def pins(kind: str) -> Pins:
    """Versions by name that a file of constraints fixes; each once, and nothing else."""
    found: Pins = {}
    for line in (ROOT / f"envs/constraints-{kind}.txt").read_text().splitlines():
        name, version = re.fullmatch(r"([\w.-]+)==([\w.]+)", line).groups()
        assert canonicalize_name(name) not in found, line
        found[canonicalize_name(name)] = Version(version)
    return found


CPU, CUDA = pins("cpu"), pins("cuda")


def cuda_extra() -> str:
    """The extra for the CUDA that the pinned torch is built for: cuDNN's name has its number."""
    (number,) = {name.rpartition("-cu")[2] for name in CUDA if "cudnn" in name}
    return f"cuda{number}"


def required(*extras: str) -> list[Requirement]:
    """Direct dependencies of the project and of extras, without itself."""
    lines = PROJECT["dependencies"] + [line for extra in extras for line in EXTRAS[extra]]
    found = [Requirement(line) for line in lines]
    return [requirement for requirement in found if requirement.name != PROJECT["name"]]


@pytest.mark.parametrize(
    ("found", "extras"), [(CPU, SHARED), (CUDA, (*SHARED, cuda_extra()))], ids=["cpu", "cuda"]
)
def test_direct_dependencies_are_pinned(found, extras):
    for requirement in required(*extras):
        assert found[canonicalize_name(requirement.name)] in requirement.specifier, requirement


def test_both_pin_the_same_but_for_cuda():
    assert {name: CUDA.get(name) for name in CPU} == CPU
    assert all(CUDA_ONLY.match(name) for name in CUDA.keys() - CPU.keys())
    assert not any(CUDA_ONLY.match(name) for name in CPU)


def test_libraries_are_of_one_cuda():
    number = cuda_extra().removeprefix("cuda")
    assert f"cupy-cuda{number}x" in CUDA
    assert {name.rpartition("-cu")[2] for name in CUDA if re.search(r"-cu\d+$", name)} == {number}
    toolkit = CUDA["cuda-toolkit"].release[:2]
    assert toolkit[0] == int(number)
    own = ("cuda-bindings", "nvidia-cuda-nvrtc", "nvidia-cuda-runtime", "nvidia-nvjitlink")
    assert {CUDA[name].release[:2] for name in own} == {toolkit}


def installed(line: str, folder: Path) -> set[str]:
    """Extras of this project that a pip command installs with constraints that exist."""
    words = iter(shlex.split(line))
    options = {word: next(words) for word in words if word in ("--constraint", "--editable")}
    constraints = folder / options["--constraint"]
    assert constraints.read_text() == (ROOT / "envs/constraints-cuda.txt").read_text()
    path, extras = re.fullmatch(r"(.*)\[([\w,]+)\]", options["--editable"]).groups()
    assert (folder / path / "pyproject.toml").resolve().samefile(ROOT / "pyproject.toml")
    return set(extras.split(","))


def test_conda():
    """pip reads the paths from the folder of the file."""
    content = yaml.safe_load((ROOT / "envs/emm.yaml").read_text())
    assert content["channels"] == ["conda-forge"]
    *packages, by_pip = content["dependencies"]
    name, version = packages[0].split("=")
    assert (name, packages[1:]) == ("python", ["pip"])
    assert Version(version) in SpecifierSet(PROJECT["requires-python"])
    extras = installed(" ".join(by_pip["pip"]), ROOT / "envs")
    assert extras == {cuda_extra(), "sd", "slurm"}
    assert extras <= EXTRAS.keys()


def test_apptainer(tmp_path):
    """The image has the files that its pip command reads."""
    text = (ROOT / "envs/emm.def").read_text()
    (version,) = re.findall(r"^From: python:([\d.]+)-slim$", text, re.M)
    assert Version(version) in SpecifierSet(PROJECT["requires-python"])
    sections = dict(re.findall(r"^%(\w+)\n((?: +.*\n)+)", text, re.M))
    for line in sections["files"].splitlines():
        source, target = line.split()
        inside = tmp_path / target.removeprefix("/")
        inside.parent.mkdir(parents=True, exist_ok=True)
        inside.symlink_to(ROOT / source)
        assert inside.exists(), line
    (command,) = (line for line in sections["post"].splitlines() if "pip install" in line)
    extras = installed(command.replace("/opt/", f"{tmp_path}/opt/"), tmp_path)
    assert extras == {cuda_extra(), "sd", "slurm"}
    for needed in [*PROJECT["license-files"], PROJECT["readme"], "workflow/emm/cli.py"]:
        assert (tmp_path / "opt/emm" / needed).exists()


@pytest.mark.parametrize(
    ("number", "constraints", "extras"),
    [("", "cpu", "dev"), ("12", "cpu", "dev,cuda12"), (cuda_extra()[4:], "cuda", "dev,cuda13")],
)
def test_make(number, constraints, extras):
    command = ["make", "--always-make", "--dry-run", "setup", f"CUDA={number}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    lines = [line for line in done.stdout.splitlines() if " install " in line]
    files = [re.search(r"--constraint (\S+)", line)[1] for line in lines]
    assert files == [f"envs/constraints-{constraints}.txt"] * 2
    assert lines[-1].endswith(f"--editable '.[{extras}]'")
    assert set(extras.split(",")) <= EXTRAS.keys()
    checked = [line for line in done.stdout.splitlines() if "torch.version.cuda" in line]
    assert len(checked) == bool(number)
    assert all(f'!= "{number}"' in line for line in checked)
