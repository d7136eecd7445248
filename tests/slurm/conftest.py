"""A SLURM that the tests start, and the scenarios that are played on it, several at a time."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from cluster import Cluster, missing

pytest.register_assert_rewrite("scenarios", "project", "stress")

from project import Project, check_out  # noqa: E402
from scenarios import SCENARIOS  # noqa: E402

AT_A_TIME = 5  # most of them wait for SLURM most of the time


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
    """What becomes of the scenarios that are tested in this session."""
    parameters = [getattr(item, "callspec", None) for item in request.session.items]
    asked = {each.params["scenario"] for each in parameters if each and "scenario" in each.params}
    folders = {name: tmp_path_factory.mktemp(name) / "project" for name in SCENARIOS}
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        yield {
            name: pool.submit(play, slurm, folders[name], undisturbed)
            for name, play in SCENARIOS.items()
            if name in asked
        }
