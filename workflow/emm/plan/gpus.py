"""Speeds that a plan assumes: of GPUs known by name, or of a file that `emm calibrate` wrote."""

from functools import cache
from pathlib import Path

from pydantic import Field

from emm.errors import UserError
from emm.expansion import WORKFLOW
from emm.spec import Settings, parse, suggestion
from emm.yamlfile import load_yaml


class Gpu(Settings):
    """What a GPU, or a core of a CPU, does with this code."""

    title: str = Field(description="In words")
    source: str = Field(description="Where the numbers come from")
    operations: dict[str, float] = Field(
        description="Floating-point operations per second by precision"
    )
    step_seconds: float = Field(
        ge=0, description="Seconds of a training step of the basic network beyond them"
    )
    start_seconds: float = Field(ge=0, description="Seconds until a job computes")
    gpu: bool = Field(True, description="False for a core of a CPU")

    def rate(self, precision: str) -> float:
        """Operations per second at a precision; UserError for one that it does not have."""
        if precision not in self.operations:
            known = ", ".join(self.operations)
            raise UserError(f"plan.gpu: {self.title} has no speed at {precision}; it has {known}")
        return self.operations[precision]


@cache
def find_gpu(name: str) -> Gpu:
    """A GPU of workflow/gpus.yaml, or that of a calibration file; UserError if there is none."""
    known = load_yaml(WORKFLOW / "gpus.yaml")
    if name not in known and not name.endswith(".yaml"):
        raise UserError(f"plan.gpu: no GPU {name!r}{suggestion(name, known)}; or a .yaml file")
    content = known[name] if name in known else load_yaml(Path(name))
    return parse(Gpu, content, f"gpus.yaml: {name}" if name in known else name)
