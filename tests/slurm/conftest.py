"""A SLURM that the tests start, and the faults that they let loose on it, several at a time."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from cluster import Cluster, missing
from faults import FAULTS
from project import Project, check_out

AT_A_TIME = 4  # most of them wait for SLURM most of the time


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A running cluster; skips, with the reason, where there can be none."""
    if reason := missing():
        pytest.skip(reason)
    cluster = Cluster(tmp_path_factory.mktemp("slurm"))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The same runs, computed on this machine without SLURM."""
    project = check_out(tmp_path_factory.mktemp("local") / "project", None)
    project.run_here()
    return project


@pytest.fixture(scope="session")
def outcomes(
    request: pytest.FixtureRequest,
    slurm: Cluster,
    undisturbed: Project,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[dict[str, Future]]:
    """The table after each of the faults that are tested in this session, when it is there."""
    parameters = [getattr(item, "callspec", None) for item in request.session.items]
    wanted = [each.params["fault"] for each in parameters if each and "fault" in each.params]
    folders = {name: tmp_path_factory.mktemp(name) / "project" for name in wanted}
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        yield {
            name: pool.submit(FAULTS[name], slurm, folder, undisturbed)
            for name, folder in folders.items()
        }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a checkout goes."""
    return tmp_path / "project"
