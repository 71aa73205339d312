"""Provide one Slurm, one undisturbed study and its clones for all tests of clusters. `make test-cluster` runs them."""

import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from tests.cluster.clone import CLONES, Clone
from tests.cluster.scenarios import SCENARIOS
from tests.cluster.slurm import Slurm

AT_ONCE = len(SCENARIOS)
"""Scenarios that run at the same time: they wait for Slurm more than they compute."""


@pytest.fixture(scope="session", autouse=True)
def brought() -> list[str]:
    """Return the parts that are there; fail every test at once where nobody has looked for them."""
    parts = os.environ.get("SPECIATE_CLUSTER")
    if parts is None:
        pytest.fail("these tests need Slurm and Apptainer, and `make test-cluster` brings them")
    return parts.split()


def part(name: str, brought: list[str]) -> None:
    """Skip a test whose part is missing."""
    if name not in brought:
        pytest.skip(f"{name} is missing, and --without-missing was given")


@pytest.fixture(scope="session")
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pathlib.Path]:
    """Return the folder with all clones."""
    yield tmp_path_factory.mktemp("clones")
    for clone in CLONES:
        clone.end()


@pytest.fixture(scope="session")
def slurm(brought: list[str], work: pathlib.Path) -> Iterator[Slurm]:
    """Run a Slurm; its logs are kept beside the clones."""
    part("slurm", brought)
    # a short path: Slurm's sockets are in it
    folder = pathlib.Path(tempfile.mkdtemp(prefix="slurm-"))
    running = Slurm(folder)
    try:
        running.start()
        yield running
    finally:
        running.stop()
        shutil.copytree(folder / "log", work / "slurm-logs")
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def apptainer(brought: list[str]) -> None:
    part("apptainer", brought)


@pytest.fixture(scope="session")
def tiny(work: pathlib.Path) -> Clone:
    """Run the tiny study whole on this machine, without Slurm, containers or disturbance."""
    clone = Clone.make(work / "undisturbed")
    clone.run("--cores", "2")
    return clone


@pytest.fixture(scope="session")
def expected(tiny: Clone) -> Mapping[str, str]:
    """Return file -> sha256 of the undisturbed tiny study."""
    return tiny.digests()


@pytest.fixture(scope="session")
def smoke_begun(request: pytest.FixtureRequest, work: pathlib.Path) -> Clone | None:
    """Start the smoke study on this machine, if a test that was selected wants it, and wait for nothing."""
    if not any("smoke" in getattr(item, "fixturenames", ()) for item in request.session.items):
        return None
    clone = Clone.make(work / "smoke", "studies/smoke.yaml")
    clone.start("--cores", "1")
    return clone


@pytest.fixture(scope="session")
def smoke(smoke_begun: Clone) -> Mapping[str, str]:
    """Return file -> sha256 of the undisturbed smoke study."""
    smoke_begun.finish(smoke_begun.processes[0])
    return smoke_begun.digests()


@pytest.fixture(scope="session")
def scenarios(
    request: pytest.FixtureRequest, slurm: Slurm, tiny: Clone, smoke_begun: Clone | None, work: pathlib.Path
) -> Iterator[Mapping[str, "Future[Clone]"]]:
    """Start the scenarios of all tests that were selected, several at once; give their clones."""
    wanted = [item.callspec.params.get("scenario") for item in request.session.items if hasattr(item, "callspec")]

    def play(name: str) -> Clone:
        clone = tiny.copy(work / name)
        SCENARIOS[name](clone, slurm)
        return clone

    with ThreadPoolExecutor(AT_ONCE) as pool:
        futures = {name: pool.submit(play, name) for name in SCENARIOS if name in wanted}
        yield futures
        for future in futures.values():
            future.cancel()
