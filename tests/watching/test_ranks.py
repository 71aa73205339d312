"""Test that two processes watch what one process would: the documents of both, and a common probe only once."""

import json
import pathlib
import warnings
from typing import Any

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from tests.watching.ranks import STEPS, batch, work
from tests.watching.tiny import ids, mixtral

from speciate.watch import Watch


def alone(probe_kind: str) -> dict[str, Any]:
    """Return what one process sees, whose batches are those of both."""
    model = mixtral().train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    probe = None if probe_kind == "none" else {"input_ids": ids(8, seed=50)}
    watch = Watch(model, probe, every=1, steps=STEPS, armed_after=0)
    for step in range(1, STEPS + 1):
        parts = [batch(step, rank, 2) for rank in range(2)]
        for part in parts:
            (model(input_ids=part, labels=part).loss / 2).backward()
        optimizer.step()
        optimizer.zero_grad()
        watch.step(step)
    return {"total": watch.total, "log_wealth": watch.alarm.log_wealth_L.tolist()}


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Run both processes; return the folder of what they wrote."""
    folder = tmp_path_factory.mktemp("ranks")
    mp.start_processes(work, (str(folder),), nprocs=2, start_method="spawn")
    return folder


@pytest.mark.parametrize("probe_kind", ["none", "same", "shared out"])
def test_two_processes_watch_the_documents_of_both(two: pathlib.Path, probe_kind: str) -> None:
    first, second = (json.loads((two / f"{probe_kind}-{rank}.json").read_text()) for rank in range(2))
    assert first["total"] == second["total"] and first["log_wealth"] == second["log_wealth"]
    # the first rank alone logs
    assert (first["logged"], second["logged"]) == (list(range(1, STEPS + 1)), [])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = alone(probe_kind)
    for path, counts in expected["total"].items():
        np.testing.assert_array_equal(first["total"][path], counts)
    np.testing.assert_allclose(first["log_wealth"], expected["log_wealth"], rtol=1e-9)
