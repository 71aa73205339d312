"""Test which models are written as classes of transformers, and that Mixtral computes what such a model computes."""

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from speciate.config.components import component_module, options_of
from speciate.config.extends import merge
from speciate.config.run import ModelSpec
from speciate.model.hf.convert import export_weights, import_weights
from speciate.model.hf.written import family_of
from speciate.model.transformer import Transformer

VOCABULARY, CONTEXT = 50, 16
LEARNED = {"kind": "learned", "gate": "softmax", "shape": "linear", "noise": "annealed", "noise_std": 0.3}
MOE = {"kind": "moe", "num_experts": 5, "hidden": 20, "top_k": 2, "activation": "swiglu", "router": LEARNED}
BLOCK = {"mixer": {"kind": "attention", "num_heads": 4}, "ffn": {**MOE, "balance": "none"}, "depth": "every"}
SIZES = {"width": 24, "num_layers": 2, "context": CONTEXT, "norm": "rms", "position": "rotary", "biases": False}


def model_spec(changes: dict[str, Any]) -> ModelSpec:
    return ModelSpec.model_validate(merge({**SIZES, "block": BLOCK}, changes))


def ffn(**changes: Any) -> dict[str, Any]:
    return {"block": {"ffn": changes}}


MIXTRAL: dict[str, dict[str, Any]] = {
    "untied": {"tied_head": False, "norm_epsilon": 1e-6, "rotary_base": 500.0},
    "grouped": {"block": {"mixer": {"num_kv_heads": 2}}},
    "wide heads": {"block": {"mixer": {"head_width": 10}}},
    "stretched": {"rotary_scaling": {"kind": "llama3", "factor": 4.0, "original_context": 8}},
    "more experts": ffn(top_k=3, balance="auxiliary"),
}
OTHERS: dict[str, dict[str, Any]] = {
    "one expert": ffn(top_k=1),
    "shared": ffn(num_shared=1),
    "gelu": ffn(activation="gelu"),
    "sigmoid": ffn(router={"gate": "sigmoid"}),
    "network": ffn(router={"shape": "mlp"}),
    "learned noise": ffn(router={"noise": "learned", "noise_std": 0.0}),
    "frozen": ffn(router="frozen"),
    "bias": ffn(balance="bias"),
    "gates as they are": ffn(choice={"kind": "token", "renormalise": False}),
    "capacity": ffn(choice={"kind": "token", "capacity_factor": 1.0}),
    "layer norm": {"norm": "layer"},
    "learned positions": {"position": "learned"},
    "biases": {"biases": True},
    "not causal": {"causal": False},
    "norms of queries": {"block": {"mixer": {"qk_norm": True}}},
    "biases of queries": {"block": {"mixer": {"qkv_bias": True}}},
    "scaled embeddings": {"embedding_scale": 2.0},
    "exception": {"exceptions": [{"layers": [1], "block": {**BLOCK, "ffn": {"kind": "dense", "hidden": 20}}}]},
    "depth": {"block": {"depth": {"kind": "mod", "capacity": 0.5, "hidden": 8}}},
    "mixer": {"block": {"mixer": {"kind": "mamba", "state": 4}}},
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_model_that_mixtral_does_not_compute_is_not_written_as_mixtral(name: str) -> None:
    assert family_of(model_spec(OTHERS[name])) is None


@pytest.mark.parametrize("name", MIXTRAL)
def test_mixtral_has_the_logits_and_the_gradients(name: str) -> None:
    spec = model_spec(MIXTRAL[name])
    family = family_of(spec)
    assert family is not None and family.architecture == "MixtralForCausalLM"
    ours = Transformer(spec, VOCABULARY).double().eval()
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.normal_(0.0, 0.3)
    settings: dict[str, Any] = dict(family.config(spec) or {})
    config = AutoConfig.for_model(settings.pop("model_type"), vocab_size=VOCABULARY, **settings)
    theirs = AutoModelForCausalLM.from_config(config, experts_implementation="eager").double().eval()
    rules = family.rules(spec)
    weights = export_weights({name: weight.detach() for name, weight in ours.named_parameters()}, rules)
    assert weights.keys() == dict(theirs.named_parameters()).keys()
    theirs.load_state_dict(weights, strict=False)
    theirs.tie_weights()
    token_BT = torch.randint(VOCABULARY, (3, 13))
    result = theirs(input_ids=token_BT, labels=token_BT)
    # the library computes the router's probabilities in float32
    torch.testing.assert_close(ours(token_BT), result.logits, rtol=1e-5, atol=1e-5)
    options = options_of("training/objective", "causal")(kind="causal")
    component_module(options).Objective(options)(ours, token_BT).backward()
    result.loss.backward()
    expected = import_weights({name: weight.grad for name, weight in theirs.named_parameters()}, rules)
    for path, parameter in ours.named_parameters():
        assert expected[path].abs().max() > 1e-4
        torch.testing.assert_close(parameter.grad, expected[path], rtol=1e-4, atol=1e-5)
