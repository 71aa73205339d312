"""Test that whole runs are bit-identical each time, if stopped and resumed at any step, with or without an observer."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch

from speciate.cli import execute
from speciate.config.components import component_module
from speciate.config.run import RunSpec, canonical_json
from speciate.data.blocks import TrainBlocks
from speciate.data.sampler import block_rows
from speciate.io import sha256
from speciate.stages import train as verb
from speciate.training.checkpoint.state import State
from speciate.training.logs.progress import Progress
from speciate.training.prepare import initial_model

RESULTS = ("model.safetensors", "metrics.jsonl", "telemetry.safetensors")
MakeRun = Callable[..., RunSpec]


class StopAt:
    """Ask to stop once a run has asked this many times; a run asks twice a step."""

    def __init__(self, step: int) -> None:
        self.left = step
        self.received = signal.SIGTERM

    def __bool__(self) -> bool:
        self.left -= 1
        return self.left < 0


def digests(folder: pathlib.Path) -> dict[str, str]:
    return {name: sha256(folder / name) for name in RESULTS}


def trained(spec: RunSpec, mixture: pathlib.Path, folder: pathlib.Path, stop: StopAt | None = None) -> bool:
    """Train into `folder`, with checkpoints next to it."""
    checkpoints = folder.parent / f"{folder.name}-checkpoints"
    stop = StopAt(10**9) if stop is None else stop
    return verb.train(spec, mixture, folder, checkpoints, stop=stop)


@pytest.mark.parametrize("balance", [{"kind": "auxiliary", "weight": 0.01}, {"kind": "bias", "rate": 0.01}])
def test_the_same_run_has_the_same_bits(
    mixture: pathlib.Path, tmp_path: pathlib.Path, run_spec: MakeRun, balance: dict[str, object]
) -> None:
    spec = run_spec(model={"block": {"ffn": {"balance": balance}}})
    assert trained(spec, mixture, tmp_path / "first")
    assert trained(spec, mixture, tmp_path / "second")
    assert digests(tmp_path / "first") == digests(tmp_path / "second")
    assert trained(run_spec(seed=1), mixture, tmp_path / "other")
    assert digests(tmp_path / "first")["model.safetensors"] != digests(tmp_path / "other")["model.safetensors"]


@pytest.fixture(scope="module")
def whole(mixture: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[RunSpec], pathlib.Path]:
    """Return the folder of a run that never stopped; it is made once for all tests."""
    made: dict[str, pathlib.Path] = {}

    def folder_of(spec: RunSpec) -> pathlib.Path:
        text = canonical_json(spec)
        if text not in made:
            made[text] = tmp_path_factory.mktemp("whole") / "run"
            assert trained(spec, mixture, made[text])
        return made[text]

    return folder_of


@pytest.mark.parametrize("balance", [{"kind": "auxiliary", "weight": 0.01}, {"kind": "bias", "rate": 0.01}])
@pytest.mark.parametrize("step", range(1, 12))
def test_a_run_stopped_after_any_step_continues_with_the_same_bits(
    mixture: pathlib.Path,
    tmp_path: pathlib.Path,
    run_spec: MakeRun,
    whole: Callable[[RunSpec], pathlib.Path],
    balance: dict[str, object],
    step: int,
) -> None:
    # noise until half of the run, accumulation, and an epoch that ends inside a step (48 blocks, 5 per step)
    spec = run_spec(
        model={"block": {"ffn": {"balance": balance}}},
        training={"blocks_per_step": 5, "grad_accumulation": 5, "checkpoint_every": 100},
    )
    assert not trained(spec, mixture, tmp_path / "parts", StopAt(step - 1))
    assert not (tmp_path / "parts").exists()
    (checkpoint,) = (tmp_path / "parts-checkpoints").glob("step*")
    assert checkpoint.name == f"step{step}"
    assert trained(spec, mixture, tmp_path / "parts")
    assert digests(whole(spec)) == digests(tmp_path / "parts")


def test_documents_are_kept_apart_in_training(mixture: pathlib.Path, tmp_path: pathlib.Path, run_spec: MakeRun) -> None:
    quiet = {"block": {"ffn": {"router": {"noise_std": 0.0}}}}
    spec = run_spec(model={"separate_documents": True, **quiet}, training={"grad_accumulation": 2})
    assert trained(spec, mixture, tmp_path / "run")
    lines = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    first = next(line for line in lines if "loss" in line)
    blocks = TrainBlocks(mixture)
    rows = block_rows(spec.seed, 0, 4, len(blocks))
    model, objective = (
        initial_model(spec, blocks.vocabulary),
        component_module(spec.objective).Objective(spec.objective),
    )
    parts = [
        torch.from_numpy(token_T[part][None])
        for token_T in blocks.tokens(rows)
        for part in (slice(0, 5), slice(5, 16))  # the two documents of each block
    ]
    nats = torch.cat([objective.token_nll(model.eval(), part).flatten() for part in parts])
    assert len(nats) == 4 * 14
    assert first["step"] == 0
    assert first["loss"] == pytest.approx(float(nats.mean()), abs=1e-5)
    whole = objective.token_nll(model, torch.from_numpy(blocks.tokens(rows)))
    assert abs(first["loss"] - float(whole.mean())) > 1e-4


def test_the_observer_changes_no_bit_of_the_weights(
    mixture: pathlib.Path, tmp_path: pathlib.Path, run_spec: MakeRun
) -> None:
    often = {"every": 1, "validation_every": 1}
    rarely = {"every": 100, "early_every": 100, "validation_every": 100}
    assert trained(run_spec(telemetry=often), mixture, tmp_path / "often")
    assert trained(run_spec(telemetry=rarely), mixture, tmp_path / "rarely")
    assert sha256(tmp_path / "often/model.safetensors") == sha256(tmp_path / "rarely/model.safetensors")


def test_telemetry_is_at_its_cadence_and_counts_every_probe_token(
    mixture: pathlib.Path, tmp_path: pathlib.Path, run_spec: MakeRun
) -> None:
    assert trained(run_spec(), mixture, tmp_path / "run")
    seen = safetensors.numpy.load_file(tmp_path / "run/telemetry.safetensors")
    assert seen["steps"].tolist() == [0, 2, 4, 8, 12]
    for layer in range(2):
        path = f"blocks.{layer}.ffn.router"
        decisions_KG = seen[f"{path}/decisions_G"]
        # 2 blocks of each of 2 domains, each with a document of 9 tokens and one of 7; the other documents are not read
        assert decisions_KG.shape == (5, 16)
        assert decisions_KG[:, :8].tolist() == [[9, 7] * 4] * 5
        assert not decisions_KG[:, 8:].any()
        np.testing.assert_allclose(seen[f"{path}/probs_GS"].sum(-1), decisions_KG)
        np.testing.assert_allclose(seen[f"{path}/chosen_GS"].sum(-1), decisions_KG)
        choice_KPS = np.unpackbits(seen[f"{path}/choice"], axis=2, count=seen[f"{path}/chosen_GS"].shape[2])
        assert choice_KPS.shape[:2] == (5, 2 * 2 * 16)
        slots_K11 = choice_KPS.sum(2).max(1)[:, None, None]
        by_document = [(choice_KPS[:, start : start + 9] / slots_K11).sum(1) for start in (0, 16, 32, 48)]
        np.testing.assert_allclose(np.stack(by_document, 1), seen[f"{path}/chosen_GS"][:, 0:8:2], atol=1e-6)


def test_metrics_have_a_row_a_step_and_the_validation_loss_by_domain(
    mixture: pathlib.Path, tmp_path: pathlib.Path, run_spec: MakeRun
) -> None:
    assert trained(run_spec(), mixture, tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    steps = [row for row in rows if "loss" in row]
    assert [row["step"] for row in steps] == list(range(12))
    assert steps[0]["loss"] == pytest.approx(np.log(64), abs=0.1)  # an untrained model predicts 64 tokens uniformly
    assert steps[-1]["loss"] < steps[0]["loss"]
    assert all(0 < row["auxiliary"] < 0.1 for row in steps)
    validation = [row for row in rows if "validation" in row]
    assert [row["step"] for row in validation] == [0, 6, 12]
    assert set(validation[0]["validation"]) == {"code", "prose"}


def test_a_dense_run_has_no_telemetry_and_no_auxiliary_loss(
    mixture: pathlib.Path, tmp_path: pathlib.Path, run_spec: MakeRun
) -> None:
    model = run_spec().model.model_dump()
    model["block"]["ffn"] = {"kind": "dense", "hidden": 16}
    spec = run_spec().model_copy(update={"model": type(run_spec().model).model_validate(model)})
    assert trained(spec, mixture, tmp_path / "run")
    assert list(safetensors.numpy.load_file(tmp_path / "run/telemetry.safetensors")) == ["steps"]
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert {row["auxiliary"] for row in rows if "loss" in row} == {0.0}


def test_a_run_says_what_computed_it(mixture: pathlib.Path, tmp_path: pathlib.Path, run_spec: MakeRun) -> None:
    assert trained(run_spec(), mixture, tmp_path / "run")
    run_json = json.loads((tmp_path / "run/run.json").read_text())
    assert run_json["threads"] == 1
    assert run_json["train_tokens"] == 12 * 4 * 16
    assert {"python", "torch", "numpy"} <= set(run_json["versions"])
    timing = json.loads((tmp_path / "run/timing.json").read_text())
    assert set(timing["cpu_seconds_by_part"]) >= {"update", "observe", "validate"}


def test_a_mixture_too_small_for_a_step_is_refused(
    mixture: pathlib.Path, tmp_path: pathlib.Path, run_spec: MakeRun
) -> None:
    with pytest.raises(ValueError, match="run small seed 0: the mixture has 48 blocks, but a step needs 64"):
        trained(run_spec(training={"blocks_per_step": 64}), mixture, tmp_path / "run")


def test_sigterm_saves_and_the_same_command_continues(
    mixture: pathlib.Path,
    tmp_path: pathlib.Path,
    run_spec: MakeRun,
    whole: Callable[[RunSpec], pathlib.Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    spec = run_spec(training={"num_steps": 200, "checkpoint_every": 2}, telemetry={"every": 100})
    (tmp_path / "spec.json").write_text(canonical_json(spec))
    command = ["-m", "speciate", "train", "--spec", str(tmp_path / "spec.json"), "--mixture-folder", str(mixture)]
    command += ["--checkpoint-folder", str(tmp_path / "checkpoints"), "--output-folder", str(tmp_path / "run")]
    environment = {**os.environ, "PYTHONPATH": str(pathlib.Path(verb.__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, *command], env=environment, stderr=subprocess.PIPE, text=True)
    while not list((tmp_path / "checkpoints").glob("*/*/step*")):
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.001)
    process.send_signal(signal.SIGSTOP)  # it is suspended after some steps, while a second training starts
    with pytest.raises(ValueError, match="another process is training this run"):
        execute(command[2:])
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGCONT)
    _, errors = process.communicate()
    assert process.returncode == 75, errors
    assert "SIGTERM received; saved, and the same command resumes the run" in errors
    # the interval between saves may change meanwhile
    spec = run_spec(training={"num_steps": 200, "checkpoint_every": 1000}, telemetry={"every": 100})
    (tmp_path / "spec.json").write_text(canonical_json(spec))
    execute(command[2:])
    assert "resumes at step" in capsys.readouterr().err
    assert not list((tmp_path / "checkpoints").iterdir())
    assert digests(tmp_path / "run") == digests(whole(spec))


def test_what_fails_while_it_tells_of_a_step_fails_after_the_save_and_a_snapshot_before_it(
    mixture: pathlib.Path, tmp_path: pathlib.Path, run_spec: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot, save, snapshot_existed = tmp_path / "run/snapshots/step3.safetensors", verb.save_checkpoint, []

    def saving(*arguments: Any, **keywords: Any) -> None:
        snapshot_existed.append(snapshot.exists())
        save(*arguments, **keywords)

    def fail_at_step_3(progress: Progress, state: State, step_metrics: dict[str, float]) -> None:
        if state.step == 3:
            raise BrokenPipeError

    monkeypatch.setattr(verb, "save_checkpoint", saving)
    monkeypatch.setattr(Progress, "__call__", fail_at_step_3)
    with pytest.raises(BrokenPipeError):
        trained(run_spec(training={"keep_steps": [3]}), mixture, tmp_path / "run", StopAt(2))
    assert [kept.name for kept in (tmp_path / "run-checkpoints").glob("step*")] == ["step3"]
    assert snapshot_existed == [True]


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Undo what a training in this process does to signals."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
