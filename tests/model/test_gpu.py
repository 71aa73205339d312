"""Test the model on a GPU: loss and gradients against double precision on a CPU."""

import pytest
import torch

from speciate.config.components import component_module
from speciate.config.run import RunSpec
from speciate.model.transformer import Transformer


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("top_k", [1, 2])
def test_a_mixture_of_experts_on_the_device_equals_the_reference(device: str, top_k: int) -> None:
    ffn = {"kind": "moe", "num_experts": 4, "top_k": top_k, "hidden": 32, "router": "learned", "balance": "none"}
    block = {"mixer": {"kind": "attention", "num_heads": 4}, "ffn": ffn, "depth": "every"}
    shape = {"width": 32, "num_layers": 2, "context": 24, "init_std": 0.3, "embedding_std": 1.0, "block": block}
    spec = RunSpec.model_validate(
        {
            "ablation": "gpu",
            "seed": 0,
            "model": shape,
            "objective": "causal",
            "optimizer": "adamw",
            "schedule": "cosine",
        }
    )
    objective = component_module(spec.objective).Objective(spec.objective)
    torch.manual_seed(3)
    reference = Transformer(spec.model, 64).double()
    model = Transformer(spec.model, 64)
    model.load_state_dict(reference.state_dict())
    model.to(device)
    token_BT = torch.randint(0, 64, (3, 24))
    expected, actual = objective(reference, token_BT), objective(model, token_BT.to(device))
    torch.testing.assert_close(actual.cpu().double(), expected, rtol=1e-5, atol=1e-5)
    expected.backward()
    actual.backward()
    for (name, ours), theirs in zip(model.named_parameters(), reference.parameters(), strict=True):
        if theirs.grad is None:
            assert ours.grad is None, name
            continue
        torch.testing.assert_close(ours.grad.cpu().double(), theirs.grad, rtol=1e-3, atol=1e-5, msg=name)
