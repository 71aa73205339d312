"""Test that separated documents of one block are computed as if each were alone, in value and gradient."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from speciate.config.components import component_module, options_of
from speciate.model.transformer import Transformer

Build = Callable[..., Transformer]
# a document of one token, a document that comes twice in a block, a document that fills a block
LENGTHS = [[5, 1, 7, 3], [4, 2, 10], [16]]
DOCUMENTS = torch.tensor(
    [[3] * 5 + [8] + [1] * 7 + [9] * 3, [6] * 4 + [2] * 2 + [6] * 10, [0] * 16],
)


def alone(block: int) -> list[slice]:
    """Return the columns of each context of a block."""
    stops = torch.tensor(LENGTHS[block]).cumsum(0).tolist()
    return [slice(stop - length, stop) for stop, length in zip(stops, LENGTHS[block], strict=True)]


@pytest.fixture
def token_BT() -> Tensor:
    return torch.randint(50, (3, 16))


@pytest.mark.parametrize("position", ["learned", "rotary"])
@pytest.mark.parametrize("num_kv_heads", [4, 2])
@pytest.mark.parametrize("router", [None, "learned", "hash"])
def test_a_documents_logits_in_a_pack_are_its_logits_alone(
    transformer: Build,
    moe: Callable[..., Any],
    token_BT: Tensor,
    position: str,
    num_kv_heads: int,
    router: str | None,
) -> None:
    ffn = moe(router=router, top_k=1 if router == "hash" else 2) if router else None
    settings = {"ffn": ffn, "mixer": {"num_kv_heads": num_kv_heads}, "position": position}
    model = transformer(separate_documents=True, **settings).double().eval()
    packed_BTV = model(token_BT, DOCUMENTS)
    for block in range(3):
        for part in alone(block):
            torch.testing.assert_close(
                packed_BTV[block, part], model(token_BT[block : block + 1, part])[0], rtol=0, atol=1e-12
            )
    # separating the documents changes the result
    whole_BTV = model(token_BT)
    assert not torch.allclose(whole_BTV[:2], packed_BTV[:2], atol=1e-3)
    assert torch.allclose(whole_BTV[2], packed_BTV[2], atol=1e-12)


@pytest.mark.parametrize("position", ["learned", "rotary"])
@pytest.mark.parametrize("router", [None, "learned"])
def test_no_gradient_crosses_a_border(
    transformer: Build, moe: Callable[..., Any], token_BT: Tensor, position: str, router: str | None
) -> None:
    ffn = moe(router=router) if router else None
    model = transformer(ffn=ffn, position=position, separate_documents=True).double()
    embedded: list[Tensor] = []
    model.token_embedding.register_forward_hook(lambda *call: embedded.append(call[2]) or call[2].retain_grad())
    for block in range(3):
        for part in alone(block):
            embedded.clear()
            last = part.stop - 1
            model(token_BT, DOCUMENTS)[block, last].square().sum().backward()
            gradient_BT = embedded[0].grad.abs().amax(-1)
            inside = torch.zeros(3, 16, dtype=torch.bool)
            inside[block, part] = True
            assert (gradient_BT[~inside] == 0).all()
            assert (gradient_BT[inside] > 0).all()


def test_a_model_that_does_not_separate_reads_no_documents(transformer: Build, token_BT: Tensor) -> None:
    model = transformer().eval()
    assert torch.equal(model(token_BT, DOCUMENTS), model(token_BT))


@pytest.mark.parametrize("shape", ["gpt2", "llama"])
def test_equals_transformers_on_each_document_alone(transformer: Build, token_BT: Tensor, shape: str) -> None:
    if shape == "gpt2":
        config = GPT2Config(
            vocab_size=50, n_positions=16, n_embd=24, n_inner=40, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=0
        )
        hf_model = GPT2LMHeadModel(config).double().eval()
        ours = transformer(ffn={"kind": "dense", "hidden": 40, "activation": "gelu_tanh"}, separate_documents=True)
    else:
        llama = LlamaConfig(
            vocab_size=50,
            hidden_size=24,
            intermediate_size=40,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=16,
            rms_norm_eps=1e-5,
            bos_token_id=0,
            eos_token_id=0,
        )
        hf_model = LlamaForCausalLM(llama).double().eval()
        ours = transformer(
            ffn={"kind": "dense", "hidden": 40, "activation": "swiglu"},
            mixer={"num_kv_heads": 2},
            norm="rms",
            position="rotary",
            biases=False,
            tied_head=False,
            separate_documents=True,
        )
    with torch.no_grad():
        for parameter in hf_model.parameters():
            parameter.normal_(0.0, 0.3)
    ours.double().eval().load_state_dict(renamed(shape, dict(hf_model.named_parameters())))
    packed_BTV = ours(token_BT, DOCUMENTS)
    for block in range(3):
        for part in alone(block):
            expected = hf_model(input_ids=token_BT[block : block + 1, part]).logits[0]
            torch.testing.assert_close(packed_BTV[block, part], expected, rtol=1e-5, atol=1e-5)


def renamed(shape: str, hf_weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return their weights under our names; GPT-2 stores the matrices of linear layers transposed."""
    weights = {name: value.detach() for name, value in hf_weights.items()}
    if shape == "gpt2":
        ours = {
            "token_embedding.weight": "transformer.wte.weight",
            "position_embedding.weight": "transformer.wpe.weight",
        }
        parts = {"mixer_norm": "ln_1", "ffn_norm": "ln_2", "mixer.query_key_value": "attn.c_attn"}
        parts |= {"mixer.out": "attn.c_proj", "ffn.up": "mlp.c_fc", "ffn.out": "mlp.c_proj"}
        names = {f"blocks.{i}.{our}": f"transformer.h.{i}.{their}" for i in range(2) for our, their in parts.items()}
        for our, their in {**names, "norm": "transformer.ln_f"}.items():
            ours |= {f"{our}.{kind}": f"{their}.{kind}" for kind in ("weight", "bias")}
        return {our: weights[their].t() if ".c_" in their else weights[their] for our, their in ours.items()}
    renamed_weights = {
        "token_embedding.weight": weights["model.embed_tokens.weight"],
        "norm.weight": weights["model.norm.weight"],
    }
    renamed_weights["unembedding.weight"] = weights["lm_head.weight"]
    joined = {
        "mixer.query_key_value": [f"self_attn.{part}_proj" for part in "qkv"],
        "mixer.out": ["self_attn.o_proj"],
        "ffn.up": ["mlp.gate_proj", "mlp.up_proj"],
        "ffn.out": ["mlp.down_proj"],
        "mixer_norm": ["input_layernorm"],
        "ffn_norm": ["post_attention_layernorm"],
    }
    for i in range(2):
        for our, parts_of in joined.items():
            renamed_weights[f"blocks.{i}.{our}.weight"] = torch.cat(
                [weights[f"model.layers.{i}.{one}.weight"] for one in parts_of]
            )
    return renamed_weights


def test_the_loss_is_that_of_the_documents_alone(transformer: Build, token_BT: Tensor) -> None:
    options = options_of("training/objective", "causal")(kind="causal", chunk=7)
    objective = component_module(options).Objective(options)
    model = transformer(separate_documents=True).double()
    loss = objective(model, token_BT, DOCUMENTS)
    loss.backward()
    packed = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    parts = [token_BT[block : block + 1, part] for block in range(3) for part in alone(block)]
    counts = [part.shape[1] - 1 for part in parts]
    assert sum(counts) == int(objective.loss_mask(model, token_BT, DOCUMENTS).sum()) == 3 * 16 - len(parts)
    pairs = zip(parts, counts, strict=True)
    expected = sum(objective(model, part) * (count / sum(counts)) for part, count in pairs if count)
    expected.backward()
    torch.testing.assert_close(loss, expected, rtol=0, atol=1e-12)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(packed[name], parameter.grad, rtol=0, atol=1e-12)


def test_a_loss_over_nothing_is_zero(transformer: Build, token_BT: Tensor) -> None:
    options = options_of("training/objective", "causal")(kind="causal")
    model = transformer(separate_documents=True)
    loss = component_module(options).Objective(options)(model, token_BT, torch.arange(48).view(3, 16))
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in model.parameters())
