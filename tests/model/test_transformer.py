"""Test the Transformer against transformers' GPT-2 and Llama on the same weights: logits, loss and every gradient."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from speciate.config.components import component_module, options_of
from speciate.config.run import ModelSpec
from speciate.model.hf.convert import export_weights, import_weights
from speciate.model.hf.pretrained import shape_of
from speciate.model.transformer import Transformer, count_parameters
from speciate.selection.selection import record_selections, selectors

Build = Callable[..., Transformer]
VOCABULARY, WIDTH, HIDDEN, LAYERS, CONTEXT = 50, 24, 40, 2, 16


def assert_equal_models(ours: Transformer, hf_model: PreTrainedModel, shape: ModelSpec) -> None:
    """Compare logits, loss and gradients to 1e-5, on random weights copied from theirs to ours and back."""
    family, described = shape_of(hf_model.config.to_dict())
    assert described.difference(shape) == "" and family.architecture == type(hf_model).__name__
    rules = family.rules(described)
    ours.double()
    hf_model.double()
    with torch.no_grad():
        for parameter in hf_model.parameters():
            parameter.normal_(0.0, 0.3)
    hf_weights = {name: weight.detach() for name, weight in hf_model.named_parameters()}
    ours.load_state_dict(import_weights(hf_weights, rules))
    back = export_weights({name: weight.detach() for name, weight in ours.named_parameters()}, rules)
    assert back.keys() == hf_weights.keys()
    assert all(torch.equal(back[name], hf_weights[name]) for name in hf_weights)
    token_BT = torch.randint(VOCABULARY, (3, 13))
    result = hf_model(input_ids=token_BT, labels=token_BT)
    torch.testing.assert_close(ours(token_BT), result.logits, rtol=1e-5, atol=1e-5)
    options = options_of("training/objective", "causal")(kind="causal", chunk=7)
    loss = component_module(options).Objective(options)(ours, token_BT)
    torch.testing.assert_close(loss.float(), result.loss, rtol=1e-5, atol=1e-5)  # theirs is computed in float32
    loss.backward()
    result.loss.backward()
    expected = import_weights({name: weight.grad for name, weight in hf_model.named_parameters()}, rules)
    for name, parameter in ours.named_parameters():
        assert expected[name].abs().max() > 1e-4
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-5, atol=1e-5)


def test_equals_gpt2(transformer: Build, model_spec: Callable[..., ModelSpec]) -> None:
    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_positions=CONTEXT,
        n_embd=WIDTH,
        n_inner=HIDDEN,
        n_layer=LAYERS,
        n_head=4,
        bos_token_id=None,
        eos_token_id=None,
    )
    changes = {"ffn": {"kind": "dense", "hidden": HIDDEN, "activation": "gelu_tanh"}}
    assert_equal_models(transformer(**changes), GPT2LMHeadModel(config).eval(), model_spec(**changes))


@pytest.mark.parametrize(("num_kv_heads", "tied"), [(4, False), (2, False), (1, True)])
def test_equals_llama(transformer: Build, model_spec: Callable[..., ModelSpec], num_kv_heads: int, tied: bool) -> None:
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=num_kv_heads,
        max_position_embeddings=CONTEXT,
        rms_norm_eps=1e-5,
        tie_word_embeddings=tied,
        bos_token_id=None,
        eos_token_id=None,
    )
    changes = {
        "ffn": {"kind": "dense", "hidden": HIDDEN, "activation": "swiglu"},
        "mixer": {"num_kv_heads": num_kv_heads},
        "norm": "rms",
        "position": "rotary",
        "biases": False,
        "tied_head": tied,
    }
    assert_equal_models(transformer(**changes), LlamaForCausalLM(config).eval(), model_spec(**changes))


@pytest.mark.parametrize("position", ["learned", "rotary"])
@pytest.mark.parametrize("router", [None, "learned", "frozen", "hash"])
def test_no_token_sees_a_later_one_or_another_block(
    transformer: Build, moe: Callable[..., Any], position: str, router: str | None
) -> None:
    model = transformer(ffn=moe(router=router) if router else None, position=position).double().eval()
    # an expert's product may round a row otherwise when other rows come with it, so only a dense model is bit-equal
    tolerance = 1e-12 if router else 0.0
    token_BT = torch.randint(VOCABULARY, (2, CONTEXT))
    before = model(token_BT)
    for changed in range(CONTEXT):
        other_BT = token_BT.clone()
        other_BT[0, changed] = (other_BT[0, changed] + 1) % VOCABULARY
        after = model(other_BT)
        torch.testing.assert_close(after[0, :changed], before[0, :changed], rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(after[1], before[1], rtol=tolerance, atol=tolerance)
        assert not torch.allclose(after[0, changed:], before[0, changed:])


def test_a_block_longer_than_the_context_is_refused(transformer: Build) -> None:
    with pytest.raises(ValueError, match="a block of 17 tokens is longer than the context, 16"):
        transformer()(torch.zeros((1, 17), dtype=torch.long))


def test_parameters_are_counted_as_by_hand(transformer: Build, moe: Callable[..., Any]) -> None:
    norm, attention = 2 * WIDTH, (WIDTH + 1) * 3 * WIDTH + (WIDTH + 1) * WIDTH
    dense = (WIDTH + 1) * HIDDEN + (HIDDEN + 1) * WIDTH
    outside = VOCABULARY * WIDTH + CONTEXT * WIDTH + norm
    total = outside + LAYERS * (2 * norm + attention + dense)
    assert count_parameters(transformer(ffn={"kind": "dense", "hidden": HIDDEN})) == (total, total)

    expert, router = (WIDTH + 1) * 20 + (20 + 1) * WIDTH, 4 * WIDTH
    others = outside + LAYERS * (2 * norm + attention + router)
    model = transformer(ffn=moe(num_experts=4, hidden=20, top_k=3))
    assert count_parameters(model) == (others + LAYERS * 4 * expert, others + LAYERS * 3 * expert)

    gated = LAYERS * (2 * WIDTH + 4 * WIDTH * WIDTH + 3 * WIDTH * HIDDEN) + WIDTH
    ffn = {"kind": "dense", "hidden": HIDDEN, "activation": "swiglu"}
    model = transformer(ffn=ffn, norm="rms", position="rotary", biases=False, tied_head=False)
    assert count_parameters(model) == (gated + 2 * VOCABULARY * WIDTH,) * 2


def test_a_layer_can_have_another_block(
    transformer: Build, model_spec: Callable[..., Any], moe: Callable[..., Any]
) -> None:
    block = model_spec(ffn=moe()).block.model_dump()
    model = transformer(exceptions=[{"layers": [1], "block": block}])
    assert list(selectors(model)) == ["blocks.1.ffn.router"]


def test_routers_are_recorded_under_their_paths(transformer: Build, moe: Callable[..., Any]) -> None:
    model = transformer(ffn=moe())
    token_BT = torch.randint(VOCABULARY, (2, 5))
    with record_selections(model) as record:
        model.hidden(token_BT)
    assert list(record) == ["blocks.0.ffn.router", "blocks.1.ffn.router"] == list(selectors(model))
    for selection in record.values():
        assert selection.probs_NS.shape == selection.chosen_NS.shape == (10, 4)
        assert torch.equal(selection.token_N, torch.arange(10))
