"""Test that a run that was disturbed on a cluster has the bits of the run that was not."""

from collections.abc import Mapping
from concurrent.futures import Future

import pytest
from tests.cluster.clone import Clone
from tests.cluster.scenarios import SCENARIOS

pytestmark = pytest.mark.cluster
RUN = "results/tiny/runs/"
UNBROKEN = ("snakemake_killed", "snakemake_killed_here")
"""Scenarios in which the training itself goes on."""


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_disturbed_run_has_the_bits_of_the_undisturbed_one(
    scenario: str, scenarios: Mapping[str, "Future[Clone]"], expected: Mapping[str, str]
) -> None:
    clone = scenarios[scenario].result()
    made = {file: digest for file, digest in clone.digests().items() if file.startswith(RUN)}
    assert len(made) >= 6
    assert made == {file: expected[file] for file in made}
    log = (clone.home / "logs/train/arm/seed0.log").read_text()
    assert ("resumes at step" in log) == (scenario not in UNBROKEN), log
