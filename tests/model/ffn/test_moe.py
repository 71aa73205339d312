"""The whole layer: against Mixtral, against a dense layer, under the language-modelling loss; and what is refused."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import MixtralConfig
from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock

from speciate.kinds import component, options_of
from speciate.model.tokens import Tokens
from speciate.model.transformer import Transformer

Build = Callable[..., Transformer]
Options = Callable[..., dict[str, Any]]
WIDTH, HIDDEN, VOCABULARY = 24, 20, 50


@pytest.mark.parametrize("k", [2, 3])
def test_equals_mixtral(transformer: Build, moe: Options, k: int) -> None:
    config = MixtralConfig(
        hidden_size=WIDTH, intermediate_size=HIDDEN, num_local_experts=4, num_experts_per_tok=k, hidden_act="silu"
    )
    config._experts_implementation = "eager"
    theirs = MixtralSparseMoeBlock(config)
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    ours = transformer(ffn=moe(hidden=HIDDEN, top_k=k, activation="swiglu"), biases=False).blocks[0].ffn
    pairs = {
        "router.scorer.weight": (theirs.gate.weight, False),
        "experts.in_weight": (theirs.experts.gate_up_proj, True),
        "experts.out_weight": (theirs.experts.down_proj, True),
    }
    ours.load_state_dict({name: w.mT if transposed else w for name, (w, transposed) in pairs.items()})
    x_BTD = torch.randn(3, 11, WIDTH)
    ours_x_BTD, theirs_x_BTD = x_BTD.clone().requires_grad_(), x_BTD.clone().requires_grad_()
    ours_y_BTD, theirs_y_BTD = ours(ours_x_BTD, Tokens.of(torch.zeros(3, 11))), theirs(theirs_x_BTD)
    torch.testing.assert_close(ours_y_BTD, theirs_y_BTD, rtol=1e-5, atol=1e-5)
    gradient_BTD = torch.randn_like(x_BTD)
    ours_y_BTD.backward(gradient_BTD)
    theirs_y_BTD.backward(gradient_BTD)
    torch.testing.assert_close(ours_x_BTD.grad, theirs_x_BTD.grad, rtol=1e-4, atol=1e-5)
    for name, parameter in ours.named_parameters():
        their, transposed = pairs[name]
        torch.testing.assert_close(parameter.grad, their.grad.mT if transposed else their.grad, rtol=1e-4, atol=1e-5)


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
    x_BTD, tokens = torch.randn(2, 7, WIDTH), Tokens.of(torch.zeros(2, 7))
    torch.testing.assert_close(one(x_BTD, tokens), dense(x_BTD, tokens))


@pytest.mark.parametrize("k", [1, 2])
def test_the_language_modelling_loss_alone_teaches_the_router(transformer: Build, moe: Options, k: int) -> None:
    model = transformer(ffn=moe(top_k=k))
    options = options_of("training/objective", "causal")(kind="causal")
    component(options).Objective(options)(model, torch.randint(VOCABULARY, (4, 16))).backward()
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
        ({"router": "oracle"}, "'oracle' is no kind of model/router; there are: frozen, hash, learned"),
        ({"balance": {"kind": "auxiliary", "weight": 0.0}}, "balance.weight"),
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
    "changes", [{"router": "frozen", "balance": "bias"}, {"router": "hash"}, {"router": "frozen", "top_k": 2}]
)
def test_possible_ones_run(transformer: Build, moe: Options, changes: dict[str, Any]) -> None:
    token_BT = torch.randint(VOCABULARY, (2, 16))
    assert transformer(ffn=moe(**changes))(token_BT).isfinite().all()
