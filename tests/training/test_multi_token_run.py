"""Test that a run with further heads adds up micro-batches, resumes bit-identically and can start another run."""

import json
import pathlib
from collections.abc import Callable
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from speciate.config.components import component_module
from speciate.config.run import RunSpec, canonical_json
from speciate.io import sha256
from speciate.stages import train as verb
from speciate.training import loop
from speciate.training.build_model import build_model
from speciate.training.checkpoint.state import State
from speciate.training.context import TrainContext
from speciate.training.prepare import initial_model

MakeRun = Callable[..., RunSpec]
MULTI: dict[str, Any] = {"kind": "multi_token", "heads": 4, "ffn": {"kind": "dense", "hidden": 16}}
QUIET = {"balance": "none", "z_weight": 0.0, "router": {"noise_std": 0.0}}


class Stop:
    """Ask to stop after a number of steps; a run asks twice a step."""

    received = None

    def __init__(self, asked: int) -> None:
        self.left = asked

    def __bool__(self) -> bool:
        self.left -= 1
        return self.left < 0


def step(spec: RunSpec, document_BT: Tensor) -> tuple[float, Tensor]:
    """Return the loss of one step of plain gradient descent in float64, and the weights after it."""
    torch.manual_seed(0)
    model = build_model(spec, 64).double()
    token_BT = torch.randint(64, document_BT.shape)
    context = TrainContext(
        spec=spec,
        objective=component_module(spec.objective).Objective(spec.objective),
        lr_factor=lambda step: 1.0,
        tokens=lambda step: token_BT,
        observer=None,  # type: ignore[arg-type]
        documents=lambda step: document_BT,
    )
    groups = [{"params": list(model.parameters()), "peak": 1.0, "scale": 1.0}]
    loss = loop.train_step(context, State(0, model, torch.optim.SGD(groups, lr=1.0), [], {}))["loss"]
    return loss, torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_micro_batches_add_up_where_heads_have_unequally_many_targets(run_spec: MakeRun) -> None:
    # documents of one token have no target; with two tokens only head 0 has one
    document_BT = torch.stack([torch.arange(16) // length for length in (16, 1, 2, 5, 3, 2, 1, 7)])
    results = {}
    for accumulation in (1, 2, 8):
        training = {"blocks_per_step": 8, "grad_accumulation": accumulation, "max_grad_norm": 1e9}
        model = {"separate_documents": True, "block": {"ffn": QUIET}}
        results[accumulation] = step(run_spec(objective=MULTI, model=model, training=training), document_BT)
    for accumulation in (2, 8):
        assert results[accumulation][0] == pytest.approx(results[1][0], abs=1e-12)
        torch.testing.assert_close(results[accumulation][1], results[1][1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("form", [MULTI, {"kind": "multi_token", "form": "linear", "weights": "published"}])
def test_a_stopped_run_continues_with_the_same_bits(
    mixture: pathlib.Path, tmp_path: pathlib.Path, run_spec: MakeRun, form: dict[str, Any]
) -> None:
    spec = run_spec(objective=form, training={"num_steps": 4, "grad_accumulation": 2})

    def trained(name: str, stop: Any) -> bool:
        return verb.train(spec, mixture, tmp_path / name, tmp_path / f"{name}-checkpoints", stop=stop)

    assert trained("whole", Stop(10**9))
    assert not trained("parts", Stop(1))
    assert [folder.name for folder in (tmp_path / "parts-checkpoints").glob("step*")] == ["step2"]
    assert trained("parts", Stop(10**9))
    for name in ("model.safetensors", "metrics.jsonl", "telemetry.safetensors"):
        assert sha256(tmp_path / "whole" / name) == sha256(tmp_path / "parts" / name)
    weights = safetensors.torch.load_file(tmp_path / "whole" / "model.safetensors")
    assert {name.split(".")[1] for name in weights if name.startswith("parts.")} == {"head1", "head2", "head3"}
    rows = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    heads = [[row[:3] for row in line["measured"] if row[1] == "head_nats"] for line in rows if "measured" in line]
    assert heads and heads[0] == [["objective", "head_nats", float(head)] for head in range(4)]


def test_it_starts_from_a_plain_run_and_a_plain_run_from_it(tmp_path: pathlib.Path, run_spec: MakeRun) -> None:
    dense = {"block": {"ffn": {"kind": "dense", "hidden": 16}}}
    origin = {"kind": "dense", "origin": {"kind": "run", "ablation": "older"}}
    for older, newer in (("causal", MULTI), (MULTI, "causal")):
        parent = run_spec(ablation="older", objective=older, model=dense, seed=5)
        parent_model = initial_model(parent, 64)
        (tmp_path / "spec.json").write_text(canonical_json(parent))
        safetensors.torch.save_file(parent_model.state_dict(), tmp_path / "model.safetensors")
        spec = run_spec(objective=newer, model=dense, start=origin)
        weights_at_start = initial_model(spec, 64, tmp_path / "model.safetensors").state_dict()
        fresh = fresh_model(spec).state_dict()
        for name, weight in weights_at_start.items():
            assert torch.equal(weight, fresh[name] if name.startswith("parts.") else parent_model.state_dict()[name]), (
                name
            )


def fresh_model(spec: RunSpec) -> torch.nn.Module:
    torch.manual_seed(spec.seed)
    return build_model(spec, 64)
