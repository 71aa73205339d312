"""Test that code outside a stage's digest writes no byte that a later stage reads."""

import json
import pathlib
from collections.abc import Callable

import pandas as pd
import pytest
from tests.analysis.conftest import Size, measure_spec, write_mixture, write_run
from tests.stages.test_train import trained

from speciate.config.definitions import PACKAGE
from speciate.config.run import RunSpec
from speciate.graph.provenance import closure, is_outside
from speciate.io import sha256
from speciate.stages import measure, train
from speciate.training.logs import progress
from speciate.training.logs.run_metadata import environment

SIZE = Size(documents=2, num_steps=20, steps=(0, 10), permutations=19, resamples=19)


class Silent(progress.Progress):
    """Report nothing about a run, and a false speed."""

    def __call__(self, *words: object) -> None:
        return None

    def tokens_per_second(self, step: int) -> float:
        return 1.0


def test_a_run_has_the_same_files_whatever_is_said_of_it(
    mixture: pathlib.Path,
    tmp_path: pathlib.Path,
    run_spec: Callable[..., RunSpec],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec = run_spec()
    assert trained(spec, mixture, tmp_path / "as it is")
    monkeypatch.setattr(train, "Progress", Silent)
    monkeypatch.setattr(train, "environment", lambda *given: {})
    monkeypatch.setattr(train, "timing", lambda *arguments: {"wall_seconds": 0.0, "tokens_per_second": 1.0})
    monkeypatch.setattr(train, "log", lambda text: None)
    assert trained(spec, mixture, tmp_path / "silent")
    for name in ("model.safetensors", "metrics.jsonl", "telemetry.safetensors"):
        assert sha256(tmp_path / "as it is" / name) == sha256(tmp_path / "silent" / name)
    told, silent = (json.loads((tmp_path / name / "run.json").read_text()) for name in ("as it is", "silent"))
    assert {key: value for key, value in told.items() if key in silent} == silent
    assert set(told) - set(silent) == {"processor", "threads", "processes", "device", "versions", "job"}


def test_measure_reads_nothing_of_the_environment(tmp_path: pathlib.Path) -> None:
    write_mixture(tmp_path / "mixture", SIZE)
    write_run(tmp_path / "run", tmp_path / "mixture", "auxiliary", 0, size=SIZE)
    before = measure.measure(measure_spec("auxiliary", 0, size=SIZE), tmp_path / "run", tmp_path / "mixture")
    file = tmp_path / "run" / "run.json"
    facts = json.loads(file.read_text())
    outside = {
        "processor": "an abacus",
        "threads": 99,
        "processes": 99,
        "device": "an abacus",
        "versions": {"torch": "none"},
        "job": {"slurm_job": "7"},
    }
    file.write_text(json.dumps(facts | outside))
    after = measure.measure(measure_spec("auxiliary", 0, size=SIZE), tmp_path / "run", tmp_path / "mixture")
    assert set(outside) == set(environment(train.ALONE))
    for name, rows in before.items():
        pd.testing.assert_frame_equal(rows, after[name])


def test_no_stage_depends_on_the_name_of_the_processor() -> None:
    assert is_outside("speciate.machine")
    for file in (PACKAGE / "stages").glob("[a-z]*.py"):
        assert "speciate.machine" not in closure([f"speciate.stages.{file.stem}"])
