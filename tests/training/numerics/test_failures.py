"""Test runs that become non-finite, diverge or run out of memory: what they write, and how the study reports them."""

import json
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from speciate.analysis import tables
from speciate.cli import execute
from speciate.config.components import component_module
from speciate.config.run import RunSpec, canonical_json
from speciate.config.stage_specs import COMPARED, Arm, CompareSpec, MeasureSpec
from speciate.io import sha256
from speciate.model.transformer import Transformer
from speciate.reporting import findings
from speciate.stages import compare, evaluate, measure
from speciate.stages import train as verb
from speciate.training import loop
from speciate.training.checkpoint import store
from speciate.training.checkpoint.state import State
from speciate.training.context import TrainContext
from speciate.training.distributed.signals import StopRequest
from speciate.training.logs import run_files
from speciate.training.numerics import loss_monitor, nonfinite, oom
from speciate.training.numerics.loss_monitor import FailedRun
from speciate.training.objective_base import Objective
from speciate.training.prepare import initial_model

MakeRun = Callable[..., RunSpec]


class Never(StopRequest):
    def __init__(self) -> None:
        self.received = None


def trained(spec: RunSpec, mixture: pathlib.Path, folder: pathlib.Path, start: pathlib.Path | None = None) -> bool:
    return verb.train(spec, mixture, folder, folder.parent / f"{folder.name}-checkpoints", stop=Never(), start=start)


def read_run_json(folder: pathlib.Path) -> dict[str, Any]:
    return json.loads((folder / "run.json").read_text())


class Spoiled(Objective):
    """Use the causal objective, but make the first block's output infinite at chosen calls in training."""

    def __init__(self, spec: RunSpec, calls: set[int]) -> None:
        super().__init__()
        self.inner = component_module(spec.objective).Objective(spec.objective)
        self.calls, self.count = calls, 0

    def loss_mask(self, *batch: Any) -> Tensor:
        return self.inner.loss_mask(*batch)

    def token_nll(self, *batch: Any) -> Tensor:
        return self.inner.token_nll(*batch)

    def forward(self, model: Transformer, *batch: Any) -> Tensor:
        self.count += 1
        if self.count - 1 not in self.calls:
            return self.inner(model, *batch)
        handle = model.blocks[0].ffn.register_forward_hook(lambda module, args, output: output * float("inf"))
        try:
            return self.inner(model, *batch)
        finally:
            handle.remove()


@pytest.fixture
def spoil(monkeypatch: pytest.MonkeyPatch) -> Callable[[RunSpec, set[int]], None]:
    def apply(spec: RunSpec, calls: set[int]) -> None:
        monkeypatch.setattr(component_module(spec.objective), "Objective", Replaced(spec, calls))

    class Replaced:
        def __init__(self, spec: RunSpec, calls: set[int]) -> None:
            self.one = Spoiled(spec, calls)

        def __call__(self, options: Any) -> Spoiled:
            return self.one

    return apply


BIAS = {"block": {"ffn": {"balance": {"kind": "bias", "rate": 0.01}}}}
# a learning rate at which the loss stays finite and keeps growing
LOST = {
    "model": {"block": {"ffn": {"kind": "dense", "hidden": 16}}},
    "optimizer": {"lr": 3.0},
    "schedule": "constant",
}


def test_a_step_that_is_not_finite_is_reported_with_its_place(
    mixture: pathlib.Path, tmp_path: pathlib.Path, run_spec: MakeRun, spoil: Any
) -> None:
    # an undisturbed run that ends at the step where this one fails
    short = run_spec(model=BIAS, training={"num_steps": 12, "grad_accumulation": 2, "on_failure": "report"})
    spoil(short, {2 * 7 + 1, 2 * 7 + 2, 2 * 7 + 3})
    assert trained(short, mixture, tmp_path / "run")
    run_json = read_run_json(tmp_path / "run")
    assert (run_json["state"], run_json["step"]) == ("failed", 7)
    failure = json.loads((tmp_path / "run/failure.json").read_text())
    assert failure["step"] == 7
    assert len(failure["blocks"]) == 4
    assert failure["module"].startswith("blocks.0") or failure["module"].startswith("blocks.1")
    assert failure["gradients_not_finite"]
    assert failure["weights_not_finite"] == []
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == list(range(7))


def test_it_is_an_error_where_the_run_says_so_and_the_weights_are_those_before(run_spec: MakeRun, spoil: Any) -> None:
    spec = run_spec(model=BIAS, training={"on_failure": "stop"})
    objective = Spoiled(spec, {1, 2})
    context, state = alone(spec, objective)
    loop.train_step(context, state)
    before = {name: value.clone() for name, value in state.model.state_dict().items()}
    with pytest.raises(FailedRun, match=r"run small, seed 0: step 0: loss nan.*; no update was made"):
        loop.train_step(context, state)
    for name, value in state.model.state_dict().items():
        assert torch.equal(value, before[name]), name


def alone(spec: RunSpec, objective: Objective | None = None) -> tuple[TrainContext, State]:
    torch.manual_seed(0)
    built = initial_model(spec, 64)
    token_BT = torch.randint(0, 64, (4, 16))
    context = TrainContext(
        spec=spec,
        objective=objective or component_module(spec.objective).Objective(spec.objective),
        lr_factor=lambda step: 1.0,
        tokens=lambda step: token_BT,
        observer=None,  # type: ignore[arg-type]
    )
    return context, State(0, built, component_module(spec.optimizer).build(spec.optimizer, built), [], {})


def test_skipped_steps_are_counted_and_change_nothing(
    mixture: pathlib.Path, tmp_path: pathlib.Path, run_spec: MakeRun, spoil: Any
) -> None:
    spec = run_spec(model=BIAS, training={"on_nonfinite": "skip"})
    spoil(spec, {3, 4})
    assert trained(spec, mixture, tmp_path / "run")
    run_json = read_run_json(tmp_path / "run")
    assert (run_json["state"], run_json["skipped"]) == ("finished", 2)
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "skipped" in row] == [3, 4]
    assert not (tmp_path / "run/failure.json").exists()


def test_too_many_skipped_in_a_row_end_the_run(
    mixture: pathlib.Path, tmp_path: pathlib.Path, run_spec: MakeRun, spoil: Any
) -> None:
    spec = run_spec(training={"on_nonfinite": "skip", "num_steps": 30})
    spoil(spec, set(range(2, 100)))
    assert trained(spec, mixture, tmp_path / "run")
    assert read_run_json(tmp_path / "run")["step"] == 2 + nonfinite.MAX_SKIPPED
    assert "after 10 skipped steps in a row" in read_run_json(tmp_path / "run")["reason"]


def test_a_spike_is_a_loss_far_above_those_before() -> None:
    draw = np.random.default_rng(0)
    losses = list(3 + 0.1 * draw.normal(size=80))
    losses[60] = 3 + 0.1 * 8
    lines = [json.dumps({"step": step, "loss": loss}) for step, loss in enumerate(losses)]
    (spike,) = loss_monitor.spikes(lines)
    before = losses[10:60]
    assert spike["step"] == 60
    assert spike["z"] == pytest.approx((losses[60] - np.mean(before)) / np.std(before, ddof=1))
    assert loss_monitor.spikes(lines[55:]) == []  # five losses before it are too few to judge


class Small(Objective):
    """Use the causal objective on a machine that holds only so many blocks at once; it draws some before it fails."""

    def __init__(self, spec: RunSpec, blocks: int, error: type[BaseException]) -> None:
        super().__init__()
        self.inner = component_module(spec.objective).Objective(spec.objective)
        self.blocks, self.error = blocks, error

    def loss_mask(self, *batch: Any) -> Tensor:
        return self.inner.loss_mask(*batch)

    def token_nll(self, *batch: Any) -> Tensor:
        return self.inner.token_nll(*batch)

    def forward(self, model: Transformer, token_BT: Tensor, *documents: Any) -> Tensor:
        loss = self.inner(model, token_BT, *documents)
        if len(token_BT) > self.blocks:
            raise self.error("out of memory")
        return loss


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, MemoryError, RuntimeError])
def test_out_of_memory_the_step_is_tried_in_smaller_portions(run_spec: MakeRun, error: type[BaseException]) -> None:
    settings = {"oom_retry": True}
    context, state = alone(run_spec(model=BIAS, training=settings), None)
    context = TrainContext(**{**vars(context), "objective": Small(context.spec, 1, error)})
    expected_context, expected_state = alone(run_spec(model=BIAS, training={"grad_accumulation": 4}))
    for _ in range(2):
        torch.manual_seed(5)  # the seed of the noise, the same for both runs
        step_metrics = loop.train_step(context, state)
        torch.manual_seed(5)
        assert step_metrics == loop.train_step(expected_context, expected_state)
    assert state.grad_accumulation == 4
    assert [json.loads(line)["grad_accumulation"] for line in state.metrics] == [2, 4]
    for name, value in state.model.state_dict().items():
        assert torch.equal(value, expected_state.model.state_dict()[name]), name


def test_out_of_memory_says_what_to_lower(run_spec: MakeRun) -> None:
    context, state = alone(run_spec())
    context = TrainContext(**{**vars(context), "objective": Small(context.spec, 1, MemoryError)})
    with pytest.raises(
        MemoryError, match=r"step 0: out of memory .*: raise training.grad_accumulation from 1 to 2 \(the same step"
    ):
        loop.train_step(context, state)
    assert oom.next_accumulation(6, 2) == 6
    assert oom.next_accumulation(4, 4) is None


def planted(*losses: float) -> list[str]:
    return [json.dumps({"step": step, "loss": loss}) for step, loss in enumerate(losses)]


@pytest.mark.parametrize(
    ("losses", "num_steps", "median"),
    [
        ([11.0] * 19, 100, None),  # too few losses to judge
        ([11.0] * 20, 100, 11.0),
        ([2.0] * 30 + [11.0] * 10, 100, None),  # half of the last 20: (2 + 11) / 2
        ([2.0] * 30 + [11.0] * 11, 100, 11.0),
        ([11.0] * 20 + [2.0] * 11, 100, None),  # the loss recovered
        ([10.0] * 20, 100, None),  # a median at the limit is not above it
        ([11.0] * 4, 4, 11.0),  # a short run is judged by all its losses
        ([11.0] * 3, 4, None),
    ],
)
def test_it_has_diverged_once_the_median_of_its_last_20_losses_is_above_the_limit(
    losses: list[float], num_steps: int, median: float | None
) -> None:
    # a resumed run starts with the earlier losses
    monitor = loss_monitor.LossMonitor(planted(*losses), 10.0, num_steps)
    assert monitor.diverged() == median
    from_start = loss_monitor.LossMonitor([], 10.0, num_steps)
    for loss in losses:
        from_start.update(loss)
    assert from_start.diverged() == median
    assert loss_monitor.LossMonitor(planted(*losses), None, num_steps).diverged() is None


@pytest.mark.parametrize("stop", [None, 13])
def test_a_diverged_run_ends_at_that_step_also_where_it_was_stopped_before(
    mixture: pathlib.Path, tmp_path: pathlib.Path, run_spec: MakeRun, stop: int | None
) -> None:
    spec = run_spec(**LOST, training={"num_steps": 40})
    if stop is not None:
        asked = iter([False] * (stop - 1) + [True, True])
        stopping = type("Stopping", (Never,), {"__bool__": lambda self: next(asked)})()
        assert not verb.train(spec, mixture, tmp_path / "run", tmp_path / "run-checkpoints", stop=stopping)
    assert trained(spec, mixture, tmp_path / "run")
    run_json = read_run_json(tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if "loss" in row]
    limit = 10 * np.log(64)
    # no earlier step qualifies: each earlier median of 20 is within the limit
    ends = [end for end in range(20, len(losses) + 1) if np.median(losses[end - 20 : end]) > limit]
    assert ends == [len(losses)] == [run_json["step"]]
    median = f"{np.median(losses[-20:]):.4g}"
    reason = f"step {len(losses)}: diverged: the median loss of the last steps is {median}, above the limit of 41.59"
    assert (run_json["state"], run_json["reason"]) == ("failed", reason)
    failure = json.loads((tmp_path / "run/failure.json").read_text())
    assert failure["median_loss"] == pytest.approx(np.median(losses[-20:]))
    assert trained(run_spec(**LOST, training={"num_steps": 40, "diverged_at": 1e6}), mixture, tmp_path / "other")
    assert read_run_json(tmp_path / "other")["state"] == "finished"


def test_a_run_that_fails_is_shown_and_counted_nowhere(
    mixture: pathlib.Path, tmp_path: pathlib.Path, run_spec: MakeRun
) -> None:
    def call(module: Any, *arguments: object) -> None:
        execute([module.__name__.rpartition(".")[2], *map(str, arguments)])

    bytes_file = tmp_path / "token_bytes.npy"
    np.save(bytes_file, np.ones(64, dtype=np.int32))
    for arm, rate in (("good", 0.01), ("wild", 1e6), ("lost", 3.0)):
        change = {} if arm == "good" else {**LOST, "optimizer": {"lr": rate}}
        spec = run_spec(ablation=arm, **change, training={"num_steps": 30})
        folder = tmp_path / arm
        assert trained(spec, mixture, folder)
        (folder / "spec.json").write_text(canonical_json(spec))
        call(
            *(evaluate, "--spec", folder / "spec.json", "--model", folder / "model.safetensors"),
            *("--mixture-folder", mixture, "--token-bytes", bytes_file),
            *("--likelihood", folder / "likelihood.parquet", "--probe", folder / "probe.safetensors"),
        )
        measure_spec = MeasureSpec(
            ablation=arm,
            seed=0,
            num_steps=30,
            languages=(),
            permutations=19,
            resamples=19,
            confidence=0.95,
            armed_after=0.1,
            draw_seed=0,
        )
        (tmp_path / "measure.json").write_text(canonical_json(measure_spec))
        arguments = ("--spec", tmp_path / "measure.json", "--run-folder", folder, "--mixture-folder", mixture)
        call(measure, *arguments, "--output-folder", tmp_path / "measures" / arm)
    assert read_run_json(tmp_path / "good")["state"] == "finished"
    reasons = []
    for arm, words in (("wild", "no update was made"), ("lost", "diverged: the median loss")):
        run_json = read_run_json(tmp_path / arm)
        assert run_json["state"] == "failed"
        assert words in run_json["reason"]
        reasons.append(run_json["reason"])
    arms = tuple(Arm(name=arm, about=arm) for arm in ("good", "wild", "lost"))
    of_study = CompareSpec(
        domains=("code", "prose"),
        arms=arms,
        seeds=(0,),
        reference="good",
        controls=(),
        confidence=0.95,
        hypotheses=(),
    )
    compared = compare.compare(
        of_study, compare.read_measures(of_study, [tmp_path / "measures" / arm.name for arm in arms])
    )
    assert compared["runs"]["ablation"].tolist() == ["good"]
    assert compared["missing"][["ablation", "reason"]].to_numpy().tolist() == [
        ["wild", reasons[0]],
        ["lost", reasons[1]],
    ]
    counted = compared["comparisons"].query("statistic == 'loss'")[["num_seeds", "missing"]]
    assert counted.to_numpy().tolist() == [[0, 1], [0, 1]]
    assert findings.missing_runs(compared, of_study) == [("wild", 0, reasons[0]), ("lost", 0, reasons[1])]
    for name in COMPARED:
        pd.testing.assert_frame_equal(compared[name], tables.conform(name, compared[name]))


def test_what_starts_from_a_failed_run_fails_too(
    mixture: pathlib.Path, tmp_path: pathlib.Path, run_spec: MakeRun
) -> None:
    parent = tmp_path / "run.json"
    parent.write_text(json.dumps({"state": "failed", "ablation": "dense", "seed": 0, "reason": "diverged"}))
    with pytest.raises(FailedRun, match="the run starts from dense, seed 0, which failed: diverged"):
        run_files.check_start(tmp_path / "model.safetensors")


def changed_identity(mixture: pathlib.Path, spec: RunSpec, **vocabulary: Any) -> dict[str, Any]:
    identity = verb.run_identity(spec, mixture)
    return identity | {"vocabulary": identity["vocabulary"] | vocabulary}


def test_a_checkpoint_of_another_run_is_refused_naming_what_changed(
    mixture: pathlib.Path, tmp_path: pathlib.Path, run_spec: MakeRun
) -> None:
    spec = run_spec()
    _, state = alone(spec)
    store.save(tmp_path, state, verb.run_identity(spec, mixture))
    for change, words in (
        ({"training": {"num_steps": 13}}, "spec: training.num_steps is 13, was 12"),
        ({"optimizer": {"lr": 0.02}}, "spec: optimizer.lr is 0.02, was 0.01"),
        ({"seed": 1}, "spec: seed is 1, was 0"),
    ):
        other = verb.run_identity(run_spec(**change), mixture)
        with pytest.raises(ValueError, match=words):
            store.restore(tmp_path, state, identity=other)
    with pytest.raises(ValueError, match="vocabulary: tokens is 65, was 64"):
        store.restore(tmp_path, state, identity=changed_identity(mixture, spec, tokens=65))
    other = verb.run_identity(spec, mixture)
    other["data"]["train.npy"] = "0" * 64
    with pytest.raises(ValueError, match=r"data: train\.npy has other content"):
        store.restore(tmp_path, state, identity=other)
    free = run_spec(training={"checkpoint_every": 1, "keep_last": 3, "oom_retry": True})
    assert store.restore(tmp_path, state, identity=verb.run_identity(free, mixture))


def test_a_damaged_one_falls_back_and_says_so(tmp_path: pathlib.Path, run_spec: MakeRun) -> None:
    _, state = alone(run_spec())
    for step in (1, 2):
        state.step = step
        store.save(tmp_path, state)
    file = tmp_path / "step2" / "manifest.json"
    file.write_text(file.read_text().replace('"step": 2', '"step": 3'))
    messages: list[str] = []
    assert store.restore(tmp_path, state, log=messages.append)
    assert state.step == 1
    assert messages == [f"{tmp_path}: damaged checkpoint (step2: manifest.json changed); falling back to step1"]


def test_the_best_and_chosen_weights_stay(mixture: pathlib.Path, tmp_path: pathlib.Path, run_spec: MakeRun) -> None:
    spec = run_spec(training={"keep_best": True, "keep_steps": [4, 12]}, telemetry={"validation_every": 4})
    assert trained(spec, mixture, tmp_path / "run")
    folder = tmp_path / "run"
    assert sorted(file.name for file in (folder / "snapshots").iterdir()) == ["step12.safetensors", "step4.safetensors"]
    assert sha256(folder / "snapshots/step12.safetensors") == sha256(folder / "model.safetensors")
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    loss = {row["step"]: np.mean(list(row["validation"].values())) for row in rows if "validation" in row}
    assert min((4, 8, 12), key=loss.__getitem__) == 12
    assert sha256(folder / "best.safetensors") == sha256(folder / "model.safetensors")
