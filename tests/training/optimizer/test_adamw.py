from typing import Any

import pytest
import torch

from speciate.config.components import component_module, options_of
from speciate.config.run import ModelSpec
from speciate.model.transformer import Transformer


def built(model: torch.nn.Module, **options: Any) -> torch.optim.Optimizer:
    given = options_of("training/optimizer", "adamw")(kind="adamw", **options)
    optimizer: torch.optim.Optimizer = component_module(given).build(given, model)
    return optimizer


@pytest.fixture
def model() -> Transformer:
    torch.manual_seed(0)
    ffn = {"kind": "moe", "num_experts": 2, "hidden": 8, "router": "learned", "balance": "none"}
    block = {"mixer": "attention", "ffn": ffn, "depth": "every"}
    return Transformer(ModelSpec.model_validate({"width": 16, "num_layers": 2, "context": 8, "block": block}), 20)


def names_of(model: torch.nn.Module, group: dict[str, Any]) -> set[str]:
    members = {id(parameter) for parameter in group["params"]}
    return {name for name, parameter in model.named_parameters() if id(parameter) in members}


def test_matrices_decay_and_nothing_else(model: Transformer) -> None:
    groups = built(model, weight_decay=0.1).param_groups
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    decaying, still = (next(group for group in groups if group["weight_decay"] == decay) for decay in (0.1, 0.0))
    assert {"token_embedding.weight", "blocks.0.ffn.experts.in_weight", "blocks.0.mixer.out.weight"} <= names_of(
        model, decaying
    )
    assert {"norm.weight", "blocks.0.ffn.experts.in_bias", "blocks.0.mixer.out.bias"} <= names_of(model, still)
    assert all(name.endswith("bias") or "norm" in name for name in names_of(model, still))


def test_a_pattern_makes_a_group_of_its_own(model: Transformer) -> None:
    groups = built(model, lr=0.003, lr_scales={"*.router.*": 10.0}).param_groups
    (fast,) = (group for group in groups if group["scale"] == 10.0)
    assert names_of(model, fast) == {f"blocks.{layer}.ffn.router.scorer.weight" for layer in range(2)}
    assert fast["peak"] == pytest.approx(0.03)
    assert all(group["peak"] == pytest.approx(0.003) for group in groups if group is not fast)
    members = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(members) == sorted(id(parameter) for parameter in model.parameters())


def test_patterns_that_fit_nothing_or_overlap_are_refused(model: Transformer) -> None:
    with pytest.raises(ValueError, match=r"lr_scales: \*\.ruoter\.\* matches no parameter"):
        built(model, lr_scales={"*.ruoter.*": 10.0})
    with pytest.raises(ValueError, match=r"both .* match blocks.0.ffn.router.scorer.weight"):
        built(model, lr_scales={"*.router.*": 10.0, "blocks.0.*": 2.0})


def test_a_factor_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="greater than 0"):
        options_of("training/optimizer", "adamw")(kind="adamw", lr_scales={"*": 0.0})


def test_a_frozen_parameter_is_in_no_group(model: Transformer) -> None:
    model.token_embedding.weight.requires_grad_(False)
    groups = built(model).param_groups
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters())) - 1


def test_one_step_by_hand() -> None:
    layer = torch.nn.Linear(1, 1)
    torch.nn.init.constant_(layer.weight, 2.0)
    torch.nn.init.constant_(layer.bias, 2.0)
    optimizer = built(layer, lr=0.1, weight_decay=0.5)
    layer.weight.grad, layer.bias.grad = torch.full((1, 1), 3.0), torch.full((1,), 3.0)
    optimizer.step()
    # Adam's first step is the gradient's sign; decay is 2 x .1 x .5
    assert layer.weight.item() == pytest.approx(2.0 - 0.1 - 0.1)
    assert layer.bias.item() == pytest.approx(2.0 - 0.1)
