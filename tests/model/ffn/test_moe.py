"""Test the MoE layer against Mixtral, DeepSeek-V3 and a dense layer, its training, and the options that it refuses."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import DeepseekV3Config, MixtralConfig
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3MoE
from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock

from speciate.config.components import component_module, options_of
from speciate.model.token_batch import TokenBatch
from speciate.model.transformer import Transformer

Build = Callable[..., Transformer]
Options = Callable[..., dict[str, Any]]
WIDTH, HIDDEN, VOCABULARY = 24, 20, 50
EXPERT = {"kind": "expert", "non_causal": True}


@pytest.mark.parametrize("k", [2, 3])
def test_equals_mixtral(transformer: Build, moe: Options, k: int) -> None:
    config = MixtralConfig(
        hidden_size=WIDTH, intermediate_size=HIDDEN, num_local_experts=4, num_experts_per_tok=k, hidden_act="silu"
    )
    config._experts_implementation = "eager"
    hf_layer = MixtralSparseMoeBlock(config)
    for parameter in hf_layer.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    ours = transformer(ffn=moe(hidden=HIDDEN, top_k=k, activation="swiglu"), biases=False).blocks[0].ffn
    pairs = {
        "router.scorer.weight": (hf_layer.gate.weight, False),
        "experts.in_weight": (hf_layer.experts.gate_up_proj, True),
        "experts.out_weight": (hf_layer.experts.down_proj, True),
    }
    ours.load_state_dict({name: w.mT if transposed else w for name, (w, transposed) in pairs.items()})
    x_BTD = torch.randn(3, 11, WIDTH)
    ours_x_BTD, hf_x_BTD = x_BTD.clone().requires_grad_(), x_BTD.clone().requires_grad_()
    ours_y_BTD, hf_y_BTD = ours(ours_x_BTD, TokenBatch.of(torch.zeros(3, 11))), hf_layer(hf_x_BTD)
    torch.testing.assert_close(ours_y_BTD, hf_y_BTD, rtol=1e-5, atol=1e-5)
    gradient_BTD = torch.randn_like(x_BTD)
    ours_y_BTD.backward(gradient_BTD)
    hf_y_BTD.backward(gradient_BTD)
    torch.testing.assert_close(ours_x_BTD.grad, hf_x_BTD.grad, rtol=1e-4, atol=1e-5)
    for name, parameter in ours.named_parameters():
        their, transposed = pairs[name]
        torch.testing.assert_close(parameter.grad, their.grad.mT if transposed else their.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("num_shared", [1, 3])
def test_equals_deepseek_v3(transformer: Build, moe: Options, num_shared: int) -> None:
    """Compare sigmoid gates, a bias that only the choice sees, and shared experts (theirs is one, as wide as ours)."""
    config = DeepseekV3Config(
        hidden_size=WIDTH, moe_intermediate_size=HIDDEN, n_routed_experts=4, num_experts_per_tok=2,
        n_shared_experts=num_shared, n_group=1, topk_group=1, routed_scaling_factor=1.0, norm_topk_prob=True,
    )  # fmt: skip
    config._experts_implementation = "eager"
    hf_layer = DeepseekV3MoE(config)
    for parameter in hf_layer.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    hf_layer.gate.e_score_correction_bias.normal_(std=0.2)
    options = moe(
        hidden=HIDDEN, top_k=2, activation="swiglu", num_shared=num_shared, balance="bias",
        router={"kind": "learned", "gate": "sigmoid"},
    )  # fmt: skip
    ours = transformer(ffn=options, biases=False).blocks[0].ffn
    shared = hf_layer.shared_experts
    gates_EDF, ups_EDF, outs_EFD = (
        weight.T.unflatten(dim, (num_shared, HIDDEN)).movedim(dim, 0)
        for weight, dim in ((shared.gate_proj.weight, 1), (shared.up_proj.weight, 1), (shared.down_proj.weight, 0))
    )
    ours.load_state_dict(
        {
            "router.scorer.weight": hf_layer.gate.weight,
            "router.balance.bias_S": hf_layer.gate.e_score_correction_bias,
            "router.balance.load_S": torch.zeros(4),
            "experts.in_weight": hf_layer.experts.gate_up_proj.mT,
            "experts.out_weight": hf_layer.experts.down_proj.mT,
            "shared.in_weight": torch.cat([gates_EDF, ups_EDF], dim=-1),
            "shared.out_weight": outs_EFD,
        }
    )
    x_BTD = torch.randn(3, 11, WIDTH)
    ours_x_BTD, hf_x_BTD = x_BTD.clone().requires_grad_(), x_BTD.clone().requires_grad_()
    ours_y_BTD, hf_y_BTD = ours(ours_x_BTD, TokenBatch.of(torch.zeros(3, 11))), hf_layer(hf_x_BTD)
    torch.testing.assert_close(ours_y_BTD, hf_y_BTD, rtol=1e-5, atol=1e-5)
    gradient_BTD = torch.randn_like(x_BTD)
    ours_y_BTD.backward(gradient_BTD)
    hf_y_BTD.backward(gradient_BTD)
    torch.testing.assert_close(ours_x_BTD.grad, hf_x_BTD.grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours.router.scorer.weight.grad, hf_layer.gate.weight.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("factor", "k"), [(0.5, 1), (1.0, 2)])
def test_what_has_no_room_adds_nothing(transformer: Build, moe: Options, factor: float, k: int) -> None:
    """Compare with a layer that has room for every token, and weight its experts' outputs by hand."""
    free = transformer(ffn=moe(top_k=k)).blocks[0].ffn
    full = transformer(ffn=moe(top_k=k, choice={"kind": "token", "capacity_factor": factor})).blocks[0].ffn
    full.load_state_dict(free.state_dict())
    x_BTD, tokens = torch.randn(3, 16, WIDTH, requires_grad=True), TokenBatch.of(torch.zeros(3, 16, dtype=torch.long))
    routing = full.router(x_BTD.flatten(0, 1), tokens)
    assert 0 < routing.kept_NK.sum() < routing.kept_NK.numel()
    weight_NK = routing.weight_NK * routing.kept_NK
    expected_BTD = free.experts(x_BTD.flatten(0, 1), routing.slot_NK, weight_NK).view_as(x_BTD)
    y_BTD = full(x_BTD, tokens)
    torch.testing.assert_close(y_BTD, expected_BTD)
    actual, by_hand = (
        torch.autograd.grad(y.square().sum(), x_BTD, retain_graph=True)[0] for y in (y_BTD, expected_BTD)
    )
    torch.testing.assert_close(actual, by_hand, rtol=1e-4, atol=1e-5)
    assert not y_BTD.flatten(0, 1)[~routing.kept_NK.any(-1)].any()


@pytest.mark.parametrize("activation", ["gelu", "swiglu"])
def test_one_expert_is_a_dense_layer(transformer: Build, moe: Options, activation: str) -> None:
    one = transformer(ffn=moe(num_experts=1, hidden=HIDDEN, activation=activation)).blocks[0].ffn
    dense = transformer(ffn={"kind": "dense", "hidden": HIDDEN, "activation": activation}).blocks[0].ffn
    for parameter in one.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    experts = one.experts
    dense.load_state_dict(
        {
            "up.weight": experts.in_weight[0].t(),
            "up.bias": experts.in_bias[0],
            "out.weight": experts.out_weight[0].t(),
            "out.bias": experts.out_bias[0],
        }
    )
    x_BTD, tokens = torch.randn(2, 7, WIDTH), TokenBatch.of(torch.zeros(2, 7))
    torch.testing.assert_close(one(x_BTD, tokens), dense(x_BTD, tokens))


@pytest.mark.parametrize("k", [1, 2])
def test_the_language_modelling_loss_alone_teaches_the_router(transformer: Build, moe: Options, k: int) -> None:
    model = transformer(ffn=moe(top_k=k))
    options = options_of("training/objective", "causal")(kind="causal")
    component_module(options).Objective(options)(model, torch.randint(VOCABULARY, (4, 16))).backward()
    for block in model.blocks:
        gradient = block.ffn.router.scorer.weight.grad
        assert gradient.isfinite().all()
        assert (gradient.abs().sum(-1) > 0).all()


def test_every_expert_is_reached(transformer: Build, moe: Options) -> None:
    model = transformer(ffn=moe())
    model(torch.randint(VOCABULARY, (16, 16))).logsumexp(-1).mean().backward()
    for block in model.blocks:
        assert (block.ffn.experts.in_weight.grad.abs().sum((1, 2)) > 0).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"top_k": 5}, "top_k: cannot choose 5 of 4 experts"),
        ({"router": "hash", "top_k": 2}, "router hash names one expert for each token"),
        ({"router": "hash", "balance": "auxiliary"}, "auxiliary acts by the gradient, which cannot move router hash"),
        ({"router": "hash", "balance": "bias"}, "bias acts by the choice, which cannot move router hash"),
        (
            {"router": "frozen", "balance": "auxiliary"},
            "auxiliary acts by the gradient, which cannot move router frozen",
        ),
        ({"router": "oracle"}, "router.domains: is missing"),
        ({"router": {"kind": "oracle", "domains": 5}}, "oracle gives each of 5 domains a slot, and there are 4"),
        ({"router": {"kind": "oracle", "domains": 3}, "top_k": 2}, "router oracle names one expert for each token"),
        ({"router": "uniform_random", "balance": "orthogonal"}, "orthogonal acts by the gradient, which cannot move"),
        ({"router": "frozen", "balance": "orthogonal"}, "orthogonal acts by the gradient, which cannot move"),
        ({"choice": {"kind": "token", "capacity_factor": 0.0}}, "choice.capacity_factor"),
        ({"choice": {**EXPERT, "capacity_factor": 0.0}}, "choice.capacity_factor"),
        ({"choice": EXPERT, "router": "hash"}, "choice: expert needs a router that ranks, and hash names one expert"),
        ({"choice": EXPERT, "balance": "auxiliary"}, "balance: choice expert fills every expert evenly"),
        ({"choice": EXPERT, "balance": "bias"}, "balance: choice expert fills every expert evenly"),
        ({"balance": "bias", "balance_from": 0.5, "balance_until": 0.5}, "0.5 is not before balance_until, 0.5"),
        ({"balance_until": 0.5}, "balance none has nothing to switch"),
        ({"balance_off": [0.3, 0.6]}, "balance none has nothing to switch"),
        ({"balance": "bias", "balance_off": [0.6, 0.3]}, "balance_off: [0.6, 0.3] must rise strictly between"),
        (
            {"balance": "bias", "balance_off": [0.3, 0.6], "balance_until": 0.5},
            "[0.3, 0.6] must rise strictly between balance_from 0 and balance_until 0.5",
        ),
        ({"balance": "bias", "balance_off": [0.3]}, "balance_off"),
        ({"num_shared": -1}, "num_shared"),
        ({"balance": {"kind": "auxiliary", "weight": -0.1}}, "balance.weight"),
        ({"num_experts": 0}, "num_experts"),
        ({"capacity": 1.25}, "capacity: unknown key"),
    ],
)
def test_impossible_crossings_are_refused_with_the_reason(
    model_spec: Callable[..., Any], moe: Options, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match="ffn") as caught:
        model_spec(ffn=moe(**changes))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"router": "frozen", "balance": "bias"},
        {"router": "hash"},
        {"router": "frozen", "top_k": 2},
        {"router": "uniform_random", "top_k": 2, "balance": "bias"},
        {"router": {"kind": "learned", "shape": "mlp", "gate": "sigmoid", "noise": "learned"}, "balance": "orthogonal"},
        {"choice": {**EXPERT, "capacity_factor": 1.25}, "num_shared": 1},
        {"choice": {"kind": "token", "capacity_factor": 1.25}, "balance": "auxiliary", "balance_from": 0.5},
        {"balance": "auxiliary", "balance_from": 0.2, "balance_off": [0.4, 0.6], "balance_until": 0.9},
    ],
)
def test_possible_ones_run(transformer: Build, moe: Options, changes: dict[str, Any]) -> None:
    token_BT = torch.randint(VOCABULARY, (2, 16))
    assert transformer(ffn=moe(**changes))(token_BT).isfinite().all()
