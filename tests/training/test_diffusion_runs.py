"""Test complete runs of masked diffusion: every arm trains, and one stopped inside a stage resumes bit-identically."""

import json
import pathlib
from collections.abc import Callable
from typing import Any

import pytest
import safetensors.torch
import torch
from tests.training.test_run_options import StopAfter, digests, trained

from speciate.config.run import RunSpec, canonical_json
from speciate.stages import train as verb

MakeRun = Callable[..., RunSpec]
LEARNED = {"kind": "learned", "width": 8, "num_heads": 2}
ARMS: dict[str, dict[str, Any]] = {
    "mdlm": {},
    "cosine": {"noise": "cosine", "time_conditioning": True},
    "learned": {"importance": LEARNED, "masking": "importance", "curriculum": "default"},
    "uniform_target": {"importance": LEARNED, "masking": "inverse", "target": "uniform", "curriculum": "late"},
    "frequency": {"importance": "frequency", "masking": "balanced", "curriculum": "early"},
    "learned_frequency": {"importance": {**LEARNED, "kind": "learned_frequency"}, "masking": "importance"},
    "random": {"importance": "random", "masking": "importance"},
    "as_published": {
        "importance": {**LEARNED, "kind": "learned_frequency"},
        "masking": "importance",
        "curriculum": "default",
        "mode": "as_published",
    },
}


def arm(run_spec: MakeRun, name: str) -> RunSpec:
    """Make the spec of the small run with experts, as this arm."""
    objective = {"kind": "masked_diffusion", "eval_draws": 4, **ARMS[name]}
    return run_spec(model={"causal": False}, objective=objective, training={"num_steps": 6, "ema": 0.9})


@pytest.mark.parametrize("name", ARMS)
def test_every_arm_trains_and_is_seen(
    mixture: pathlib.Path, tmp_path: pathlib.Path, run_spec: MakeRun, name: str
) -> None:
    spec = arm(run_spec, name)
    assert trained(spec, mixture, tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = [line["validation"] for line in lines if "validation" in line]
    assert all(0 < loss < 10 for each in losses for loss in each.values())
    seen = {key.rsplit("/", 1)[0] for key in safetensors.torch.load_file(tmp_path / "run" / "telemetry.safetensors")}
    assert ("parts.importance" in seen) == ("importance" in ARMS[name])
    assert "blocks.1.ffn.router" in seen


@pytest.mark.parametrize("name", ["learned", "as_published"])
def test_stopped_in_the_middle_of_a_stage_it_has_the_same_bits(
    mixture: pathlib.Path, tmp_path: pathlib.Path, run_spec: MakeRun, name: str
) -> None:
    spec = arm(run_spec, name)
    assert trained(spec, mixture, tmp_path / "whole")
    assert not trained(spec, mixture, tmp_path / "parts", 3)
    assert trained(spec, mixture, tmp_path / "parts")
    assert digests(tmp_path / "whole") == digests(tmp_path / "parts")
    weights = safetensors.torch.load_file(tmp_path / "whole" / "model.safetensors")
    assert int(weights["parts.importance.stage"]) == 2  # the last of 6 steps began at 5/6
    assert weights["parts.importance.count_V"].sum() == 6 * 4 * 16
    assert torch.equal(weights["parts.importance.seen_V"], torch.zeros(65, dtype=torch.float64))


def dense(run_spec: MakeRun, **changes: Any) -> RunSpec:
    """Make the spec of a run without experts."""
    ffn = {"kind": "dense", "hidden": 16}
    model = {"block": {"ffn": ffn}} | changes.pop("model", {})
    return run_spec(model=model, training={"num_steps": 6}, **changes)


def test_an_oracle_has_the_weights_of_the_causal_run_and_keeps_them(
    mixture: pathlib.Path, tmp_path: pathlib.Path, run_spec: MakeRun
) -> None:
    teacher = dense(run_spec, ablation="causal")
    assert trained(teacher, mixture, tmp_path / "causal")
    (tmp_path / "causal/spec.json").write_text(canonical_json(teacher))
    spec = dense(
        run_spec,
        model={"causal": False},
        objective={"kind": "masked_diffusion", "importance": "oracle", "masking": "importance"},
        start={"kind": "oracle_model", "origin": {"kind": "run", "ablation": "causal"}},
    )
    weights = tmp_path / "causal/model.safetensors"
    assert verb.train(spec, mixture, tmp_path / "run", tmp_path / "checkpoints", stop=StopAfter(10**9), start=weights)
    taught = safetensors.torch.load_file(tmp_path / "run/model.safetensors")
    prefix = "parts.importance.estimator.teacher."
    for name, weight in safetensors.torch.load_file(weights).items():
        assert torch.equal(taught[prefix + name], weight)
