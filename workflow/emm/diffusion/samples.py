"""A folder of samples as `emm sample` writes it: what made them, and a file per checkpoint."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from emm.diffusion import SAMPLE_INDEX
from emm.files import checked, read_arrays


@dataclass(frozen=True)
class Samples:
    """Samples of an evaluation; read with `read_samples`."""

    folder: Path
    index: Mapping[str, Any]

    @property
    def settings(self) -> Mapping[str, Any]:
        """All settings of the run and of the evaluation, dotted."""
        return self.index["settings"]

    @property
    def steps(self) -> list[int]:
        """Steps of the checkpoints."""
        return [entry["step"] for entry in self.index["checkpoints"]]

    @property
    def about(self) -> dict[str, str]:
        """Run and evaluation, as tables name them."""
        run = self.index["run"]
        return {"run": run, "evaluation": f"{run}/{self.index['evaluation']}"}

    def checkpoints(self) -> Iterator[tuple[dict[str, Any], NDArray[Any]]]:
        """What tells a checkpoint in a table, and its images uint8 (N, H, W, C)."""
        for entry in self.index["checkpoints"]:
            about = {**self.about, "step": entry["step"], "epoch": entry["epoch"]}
            yield about, self.arrays(entry["file"])["images"]

    def arrays(self, file: str) -> dict[str, NDArray[Any]]:
        """The arrays of one of its files."""
        return read_arrays(self.folder / file)


def is_samples(folder: Path) -> bool:
    """Whether a folder holds the samples of a run, as `emm sample` writes them."""
    return (folder / SAMPLE_INDEX).is_file()


def read_samples(folder: Path) -> Samples:
    """The samples in a folder; UserError where they are missing or damaged."""
    return Samples(
        folder, checked(folder / SAMPLE_INDEX, lambda path: json.loads(path.read_text()))
    )
