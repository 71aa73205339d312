"""Train, observe and evaluate every arm of the mixture of experts; test that domains reach the oracle."""

import json
import pathlib
import signal
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from speciate.config.components import component_module
from speciate.config.run import RunSpec
from speciate.data.blocks import read_block_set
from speciate.evaluation.likelihood import nll_by_document
from speciate.model.token_batch import TokenBatch
from speciate.stages import evaluate
from speciate.stages import train as verb
from speciate.training.checkpoint.load_run import load_run

MakeRun = Callable[..., RunSpec]
LEARNED: dict[str, Any] = {"kind": "learned", "noise_std": 0.0}
ARMS: dict[str, dict[str, Any]] = {
    "mlp": {"router": LEARNED | {"shape": "mlp", "hidden": 8}},
    "sigmoid": {"router": LEARNED | {"gate": "sigmoid"}, "balance": {"kind": "bias", "rate": 0.01}, "top_k": 2},
    "learned noise": {"router": LEARNED | {"noise": "learned"}},
    "oracle": {"router": {"kind": "oracle", "domains": 2}, "balance": "none"},
    "uniform_random": {"router": "uniform_random", "balance": "none", "top_k": 2},
    "expert choice": {"choice": {"kind": "expert", "non_causal": True}, "balance": "none", "top_k": 2},
    "capacity": {"choice": {"kind": "token", "capacity_factor": 1.0}},
    "raw weights": {"choice": {"kind": "token", "renormalise": False}},
    "shared": {"num_shared": 1, "num_experts": 8, "hidden": 8, "top_k": 2},
    "sequence": {"balance": {"kind": "auxiliary", "scope": "sequence"}},
    "global": {"balance": {"kind": "auxiliary", "scope": "global_batch"}},
    "orthogonal": {"balance": "orthogonal"},
    "switched": {"balance": {"kind": "bias", "rate": 0.01}, "balance_until": 0.5},
    "paused": {"balance": {"kind": "bias", "rate": 0.01}, "balance_off": [0.25, 0.75]},
    "paused loss": {"balance": {"kind": "auxiliary", "scope": "global_batch"}, "balance_off": [0.25, 0.75]},
}


class StopAfter:
    """Ask to stop after a number of steps; a run asks twice a step."""

    def __init__(self, step: int) -> None:
        self.left, self.received = step - 1, signal.SIGTERM

    def __bool__(self) -> bool:
        self.left -= 1
        return self.left < 0


def trained(spec: RunSpec, mixture: pathlib.Path, folder: pathlib.Path, steps: int = 10**9) -> bool:
    folder.mkdir(exist_ok=True)
    (folder / "spec.json").write_text(spec.model_dump_json())
    return verb.train(spec, mixture, folder, folder.parent / f"{folder.name}-kept", stop=StopAfter(steps))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ARMS)
def test_it_trains_and_is_evaluated(
    mixture: pathlib.Path, tmp_path: pathlib.Path, run_spec: MakeRun, name: str
) -> None:
    training = {"num_steps": 4, "grad_accumulation": 2, "activation_checkpointing": True}
    spec = run_spec(model={"block": {"ffn": ARMS[name]}}, training=training)
    assert trained(spec, mixture, tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert all(np.isfinite(row["loss"]) for row in rows if "loss" in row)
    _, model = load_run(tmp_path / "run", 64)
    objective = component_module(spec.objective).Objective(spec.objective)
    test = nll_by_document(model, objective, read_block_set(mixture, "test"), np.ones(64, dtype=np.int32))
    assert np.isfinite(test["nats"]).all()
    arrays, measured = evaluate.probe_selectors(model, objective, read_block_set(mixture, "probe"))
    choice_PS = arrays["blocks.0.ffn.router/choice"]
    assert choice_PS.sum() > 0
    recorded = {(path, what) for path, what, *_ in measured}
    for arm, what in {"capacity": "dropped_share", "expert choice": "untaken_share"}.items():
        assert (("blocks.1.ffn.router.choice", what) in recorded) == (arm == name)


def test_the_oracle_is_told_each_blocks_domain(
    mixture: pathlib.Path, tmp_path: pathlib.Path, run_spec: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Check training, observation, validation and evaluation; each domain has its own half of the vocabulary."""
    spec = run_spec(model={"block": {"ffn": ARMS["oracle"]}}, training={"num_steps": 4, "grad_accumulation": 2})
    router = component_module(spec.model.block.ffn.router).Router  # type: ignore[attr-defined]
    forward, seen = router.forward, set()

    def watched(self: Any, x_ND: torch.Tensor, tokens: TokenBatch) -> Any:
        assert torch.equal(tokens.domain_BT, tokens.id_BT // 32)
        seen.add((self.training, len(tokens.id_BT)))
        return forward(self, x_ND, tokens)

    monkeypatch.setattr(router, "forward", watched)
    assert trained(spec, mixture, tmp_path / "run")
    # micro-batches, the probe's prefix, and each pack's validation set
    assert seen == {(True, 2), (False, 4), (False, 2)}
    _, model = load_run(tmp_path / "run", 64)
    objective, probe = component_module(spec.objective).Objective(spec.objective), read_block_set(mixture, "probe")
    nll_by_document(model, objective, read_block_set(mixture, "test"), np.ones(64, dtype=np.int32))
    arrays, _ = evaluate.probe_selectors(model, objective, probe)
    for layer in range(2):
        choice_BTS = arrays[f"blocks.{layer}.ffn.router/choice"].reshape(*probe.tokens.shape, 4)
        assert (choice_BTS.argmax(-1) % 2 == probe.domain[:, None]).all()


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("global", 6),
        ("switched", 6),
        ("uniform_random", 6),
        # paused in steps 2 to 5: stopped before, within and after the pause
        ("paused", 2),
        ("paused", 5),
        ("paused", 8),
        ("paused loss", 5),
    ],
)
def test_stopped_and_continued_it_has_the_same_bits(
    mixture: pathlib.Path, tmp_path: pathlib.Path, run_spec: MakeRun, name: str, asked: int
) -> None:
    spec = run_spec(model={"block": {"ffn": ARMS[name]}}, training={"num_steps": 8, "grad_accumulation": 2})
    assert trained(spec, mixture, tmp_path / "whole")
    assert not trained(spec, mixture, tmp_path / "parts", asked)
    assert trained(spec, mixture, tmp_path / "parts")
    for file in ("model.safetensors", "metrics.jsonl", "telemetry.safetensors"):
        assert (tmp_path / "whole" / file).read_bytes() == (tmp_path / "parts" / file).read_bytes(), file
