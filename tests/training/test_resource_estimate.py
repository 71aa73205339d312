"""Test the resource estimate of a run against models that are really built and trained for a step."""

from typing import Any

import pytest
import torch

from speciate.config.components import component_module
from speciate.config.run import RunSpec
from speciate.model.transformer import count_parameters
from speciate.training import resource_estimate
from speciate.training.build_model import build_model

VOCABULARY = 60
MOE = {"kind": "moe", "num_experts": 4, "top_k": 2, "hidden": 40, "router": "learned", "balance": "none"}
DENSE = {"kind": "dense", "hidden": 64}
DEPTHS: dict[str, Any] = {
    "every": "every",
    "mod": {"kind": "mod", "capacity": 0.25},
    "mod_published": {"kind": "mod_published", "capacity": 0.75},
}


def run_of(ffn: dict[str, Any] = DENSE, depth: Any = "every", optimizer: Any = "adamw", **training: Any) -> RunSpec:
    block = {"mixer": {"kind": "attention", "num_heads": 2}, "ffn": ffn, "depth": depth}
    return RunSpec.model_validate(
        {
            "ablation": "arm",
            "seed": 0,
            "model": {"width": 32, "num_layers": 3, "context": 16, "tied_head": False, "block": block},
            "objective": "causal",
            "optimizer": optimizer,
            "schedule": "constant",
            "training": {"num_steps": 10, "blocks_per_step": 8, **training},
        }
    )


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("ffn", [DENSE, MOE], ids=["dense", "moe"])
def test_every_parameter_is_in_one_part(ffn: dict[str, Any], depth: str) -> None:
    run = run_of(ffn, DEPTHS[depth])
    estimate = resource_estimate.estimate_resources(run, VOCABULARY, 16)
    total, active = count_parameters(build_model(run, VOCABULARY))
    assert sum(part.total for part in estimate.parts) == total
    # `count_parameters` rounds per block
    assert sum(part.active for part in estimate.parts) == pytest.approx(active, abs=6)
    assert {part.name for part in estimate.parts} >= {"token embedding", "unembedding", "norm", "mixer attention"}


@pytest.mark.parametrize("optimizer", ["adamw", "muon", {"kind": "muon", "iteration": "float32"}, "muon_published"])
def test_the_optimizers_state_is_what_it_really_keeps(optimizer: Any) -> None:
    run = run_of(MOE, optimizer=optimizer)
    model = build_model(run, VOCABULARY)
    optimizer_used: torch.optim.Optimizer = component_module(run.optimizer).build(run.optimizer, model)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer_used.step()
    kept = [value for state in optimizer_used.state.values() for value in state.values() if value.ndim]
    memory = resource_estimate.estimate_resources(run, VOCABULARY, 16).memory
    assert memory["optimizer state"] == 4 * sum(value.numel() for value in kept)
    assert memory["weights"] == memory["gradients"] == 4 * count_parameters(model)[0]


def test_an_average_is_one_more_copy() -> None:
    assert "average" not in resource_estimate.estimate_resources(run_of(), VOCABULARY, 16).memory
    memory = resource_estimate.estimate_resources(run_of(ema=0.9), VOCABULARY, 16).memory
    assert memory["average"] == memory["weights"]


def test_activations_are_counted_by_hand() -> None:
    # attention 32 -> 96 and 32 -> 32, feed-forward 32 -> 64 -> 32; three layers; 8 blocks of 16 tokens
    block = (32 + 96) + (32 + 32) + (32 + 64) + (64 + 32)
    memory = resource_estimate.estimate_resources(run_of(), VOCABULARY, 16).memory
    assert memory["activations"] == 8 * 16 * 4 * 3 * block
    memory = resource_estimate.estimate_resources(
        run_of(grad_accumulation=2, precision="bfloat16"), VOCABULARY, 16
    ).memory
    assert memory["activations"] == 4 * 16 * 2 * 3 * block
    memory = resource_estimate.estimate_resources(run_of(activation_checkpointing=True), VOCABULARY, 16).memory
    assert memory["activations"] == 8 * 16 * 4 * (3 * 32 + block)
    # two of four experts; the router 32 -> 4
    moe = (32 + 96) + (32 + 32) + (32 + 4) + 2 * ((32 + 40) + (40 + 32))
    assert (
        resource_estimate.estimate_resources(run_of(MOE), VOCABULARY, 16).memory["activations"] == 8 * 16 * 4 * 3 * moe
    )
    # a quarter of the tokens; the router 32 -> 1, its predictor 32 -> 64 -> 1
    mod = 0.25 * block + 33 + 96 + 65
    assert (
        resource_estimate.estimate_resources(run_of(depth=DEPTHS["mod"]), VOCABULARY, 16).memory["activations"]
        == 8 * 16 * 4 * 3 * mod
    )


def test_the_estimate_of_activations_is_near_what_autograd_keeps() -> None:
    run = run_of()
    model = build_model(run, VOCABULARY)
    weights = {parameter.data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() not in weights:
            kept[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        x_BTD = model.hidden(torch.randint(VOCABULARY, (8, 16)))
    assert x_BTD.requires_grad
    estimate = resource_estimate.estimate_resources(run, VOCABULARY, 16).memory["activations"]
    assert 0.5 < estimate / sum(kept.values()) < 2


def test_time_is_work_over_speed() -> None:
    estimate = resource_estimate.estimate_resources(run_of(), VOCABULARY, 16)
    assert estimate.tokens == 10 * 8 * 16
    assert estimate.device_seconds(1e9, 0.5) == pytest.approx(estimate.tokens * estimate.flops_per_token / 5e8)
