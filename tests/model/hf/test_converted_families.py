"""Test each family that is read against its class in transformers: logits, gradients, cache, export, upcycling."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.every_kind import model_settings
from tests.model.hf.families import build
from transformers import (
    AutoModelForCausalLM,
    GemmaConfig,
    GemmaForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from speciate.config.extends import merge
from speciate.config.pretrained.families import SETTINGS, shape_of_config
from speciate.config.run import ModelSpec, RunSpec
from speciate.model.cache import Cache
from speciate.model.hf.convert import export_weights, import_weights
from speciate.model.hf.pretrained import FAMILIES, Pretrained, read_pretrained, shape_of
from speciate.model.hf.written import family_of
from speciate.model.token_batch import TokenBatch
from speciate.model.transformer import Transformer
from speciate.training.init.transfer import load_pretrained
from speciate.training.prepare import initial_model

VOCABULARY, CONTEXT, WIDTH = 50, 32, 24
ENDS = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    **ENDS,
}
LLAMA3: dict[str, Any] = {"rope_type": "llama3", "rope_theta": 500.0, "factor": 4.0, "low_freq_factor": 1.0}
LLAMA3 |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 16}
LINEAR = {"rope_type": "linear", "rope_theta": 1e4, "factor": 3.0}
MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "gpt2": lambda: GPT2LMHeadModel(
        GPT2Config(vocab_size=VOCABULARY, n_positions=CONTEXT, n_embd=WIDTH, n_layer=2, n_head=4, **ENDS)
    ),
    "llama, wide heads": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, head_dim=10)),
    "llama, stretched": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, rope_parameters=LLAMA3)),
    "llama, linear": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, rope_parameters=LINEAR)),
    "mistral": lambda: MistralForCausalLM(MistralConfig(**SIZES, sliding_window=CONTEXT, head_dim=8)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SIZES)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SIZES, head_dim=8)),
    "gemma": lambda: GemmaForCausalLM(GemmaConfig(**{**SIZES, "tie_word_embeddings": True}, head_dim=8)),
}
WRITTEN = {"mistral": "LlamaForCausalLM"}
"""Models that are written as another class than they were read from."""
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def theirs_of(name: str) -> PreTrainedModel:
    """Return a model of transformers in float64, with random weights large enough to matter."""
    torch.manual_seed(0)
    model = MODELS[name]().double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.3)
    return model


def weights_of(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    return {name: weight.detach() for name, weight in model.named_parameters()}


def ours_of(theirs: PreTrainedModel) -> Transformer:
    family, spec = shape_of(theirs.config.to_dict())
    ours = Transformer(spec, VOCABULARY).double().eval()
    ours.load_state_dict(import_weights(weights_of(theirs), family.rules(spec)))
    return ours


def tokens(length: int = CONTEXT - 3) -> torch.Tensor:
    return torch.randint(VOCABULARY, (3, length), generator=torch.Generator().manual_seed(1))


def test_every_family_that_is_read_is_tested() -> None:
    assert set(FAMILIES) == set(SETTINGS) == {MODELS[name]().config.model_type for name in MODELS}


@pytest.mark.parametrize("name", MODELS)
def test_logits_and_gradients_are_those_of_transformers(name: str) -> None:
    theirs, token_BT = theirs_of(name), tokens()
    ours = ours_of(theirs)
    result = theirs(input_ids=token_BT)
    torch.testing.assert_close(ours(token_BT), result.logits, **CLOSE)
    weight_BTV = torch.randn(result.logits.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    (ours(token_BT) * weight_BTV).sum().backward()
    (result.logits * weight_BTV).sum().backward()
    family, spec = shape_of(theirs.config.to_dict())
    rules = [dataclasses.replace(rule, offset=0.0) for rule in family.rules(spec)]  # a sum has no part in a gradient
    expected = import_weights({key: weight.grad for key, weight in theirs.named_parameters()}, rules)
    for key, parameter in ours.named_parameters():
        assert expected[key].abs().max() > 1e-3
        torch.testing.assert_close(parameter.grad, expected[key], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_decoding_with_a_cache_is_one_pass(name: str) -> None:
    ours, token_BT = ours_of(theirs_of(name)), tokens(11)
    full = ours(token_BT)
    for lengths in ([1] * 11, [4, 1, 6]):
        cache = Cache()
        parts = [ours.head(ours.read(TokenBatch.of(part, cache=cache))) for part in token_BT.split(lengths, dim=1)]
        torch.testing.assert_close(torch.cat(parts, dim=1), full, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", MODELS)
def test_what_is_written_gives_transformers_the_same_logits(name: str, tmp_path: pathlib.Path) -> None:
    """Read a saved folder, write it as the export does, and read that again."""
    theirs, token_BT = theirs_of(name), tokens()
    theirs.save_pretrained(tmp_path / "theirs")
    pretrained = read_pretrained(tmp_path / "theirs")
    family = family_of(pretrained.model)
    assert family is not None and family.architecture == WRITTEN.get(name, type(theirs).__name__)
    settings: Any = dict(family.config(pretrained.model) or {})
    weights = export_weights(pretrained.weights, family.rules(pretrained.model))
    config_class = type(MODELS["llama, linear"]().config) if name in WRITTEN else type(theirs.config)
    again = AutoModelForCausalLM.from_config(config_class(vocab_size=VOCABULARY, **ENDS, **settings)).eval()
    missing = again.load_state_dict(weights, strict=False)
    assert not missing.unexpected_keys and set(missing.missing_keys) <= {"lm_head.weight"}
    again.tie_weights()
    with torch.no_grad():
        expected = theirs.float()(input_ids=token_BT).logits
        torch.testing.assert_close(again(input_ids=token_BT).logits, expected, rtol=1e-4, atol=1e-4)
    spec_again = shape_of(again.config.to_dict())[1]
    assert spec_again.difference(pretrained.model) == "" and spec_again == pretrained.model


@pytest.mark.parametrize("name", MODELS)
def test_experts_filled_from_it_compute_the_dense_function_at_step_0(name: str, tmp_path: pathlib.Path) -> None:
    theirs, token_BT = theirs_of(name).float(), tokens()
    theirs.save_pretrained(tmp_path)
    shape = shape_of_config(theirs.config.to_dict(), name)
    moe = {"kind": "moe", "num_experts": 3, "top_k": 2, "router": "learned", "balance": "none"}
    sizes = {key: shape.model["block"]["ffn"][key] for key in ("hidden", "activation")}
    start = {"kind": "upcycle", "noise": 0.0, "origin": {"kind": "folder", "path": str(tmp_path)}}
    run = RunSpec.model_validate(
        {
            "ablation": "arm",
            "seed": 0,
            "model": merge(shape.model, {"block": {"ffn": {**moe, **sizes}}}),
            "objective": "causal",
            "optimizer": "adamw",
            "schedule": "cosine",
            "start": start,
        }
    )
    model = initial_model(run, VOCABULARY, tmp_path).eval()
    with torch.no_grad():
        torch.testing.assert_close(model(token_BT), theirs(input_ids=token_BT).logits, rtol=1e-4, atol=2e-4)


def run_of(model: ModelSpec, origin: Any) -> RunSpec:
    rest = {"objective": "causal", "optimizer": "adamw", "schedule": "cosine"}
    start = {"kind": "dense", "origin": origin}
    return RunSpec.model_validate({"ablation": "arm", "seed": 0, "model": model.model_dump(), "start": start, **rest})


def test_a_context_beyond_the_sliding_window_is_refused(tmp_path: pathlib.Path) -> None:
    """A window of 8 hides nothing from a context of 8, and something from one of 9."""
    torch.manual_seed(0)
    theirs = MistralForCausalLM(MistralConfig(**SIZES, sliding_window=8)).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_(0.0, 0.3)
    theirs.save_pretrained(tmp_path)
    pretrained: Pretrained = read_pretrained(tmp_path)
    assert (pretrained.model.context, pretrained.window) == (8, 8)
    ours = Transformer(pretrained.model.model_copy(update={"context": 9}), VOCABULARY).eval()
    ours.load_state_dict(pretrained.weights)
    token_BT = tokens(9)
    with torch.no_grad():
        got, expected = ours(token_BT), theirs(input_ids=token_BT).logits
    torch.testing.assert_close(got[:, :8], expected[:, :8], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(got[:, 8], expected[:, 8], atol=1e-2)
    run = run_of(pretrained.model.model_copy(update={"context": 9}), {"kind": "folder", "path": str(tmp_path)})
    origin = run.start.origin_options()
    assert origin is not None
    with pytest.raises(ValueError, match=r"arm: model\.context is 9, and .* attends to the 8 latest tokens alone"):
        load_pretrained(origin, run, tmp_path)


BAD: dict[str, tuple[str, dict[str, Any], str]] = {
    "yarn": (
        "llama, linear",
        {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}},
        "rope_type: 'yarn' is",
    ),
    "part": (
        "llama, linear",
        {"rope_parameters": {**LINEAR, "partial_rotary_factor": 0.5}},
        "partial_rotary_factor: 0.5 is not supported; only 1.0 is",
    ),
    "activation": ("gemma", {"hidden_act": "relu"}, "hidden_act: 'relu' is not supported"),
    "both ways": ("gemma", {"use_bidirectional_attention": True}, "use_bidirectional_attention: True is not supported"),
    "biases": ("qwen3", {"attention_bias": True}, "attention_bias: True is not supported"),
    "gemma2": ("gemma", {"model_type": "gemma2"}, "model_type: 'gemma2' is none of gpt2, .*gemma; it caps attention"),
    "gemma3": (
        "gemma",
        {"model_type": "gemma3_text"},
        "model_type: 'gemma3_text' is none of .*; it norms each sub",
    ),
    "experts": ("qwen2", {"model_type": "qwen2_moe"}, "it has experts, and only dense checkpoints are read"),
    "odd head": ("qwen3", {"head_dim": 7}, "head_width: rotary positions turn pairs of dimensions, and a head has 7"),
    "factor": ("llama, linear", {"rope_parameters": {"rope_type": "linear"}}, "factor: is missing"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_the_decoder_cannot_compute_is_refused_by_name(case: str) -> None:
    name, change, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        shape_of({**MODELS[name]().config.to_dict(), **change})


def test_the_windows_of_configs() -> None:
    qwen = {**SIZES, "model_type": "qwen2", "sliding_window": 16}
    assert shape_of_config(qwen, "").window is None
    windowed = shape_of_config({**qwen, "use_sliding_window": True}, "")
    assert (windowed.window, windowed.model["context"]) == (16, 16)
    # in Mistral's first release the window is the class's default
    assert shape_of_config({**SIZES, "model_type": "mistral"}, "").window == 4096
    assert shape_of_config({**SIZES, "model_type": "mistral", "sliding_window": None}, "").window is None


def test_the_first_releases_of_gemma_name_their_activation_otherwise() -> None:
    config = MODELS["gemma"]().config.to_dict()
    assert shape_of({**config, "hidden_act": "gelu"}) == shape_of(config)
    assert GemmaConfig(hidden_act="gelu").hidden_act == "gelu_pytorch_tanh"


def test_scaled_embeddings_stay_scaled_where_transformers_looks_them_up_or_resizes_them() -> None:
    model, token_BT = build(model_settings(embedding_scale=3.0)), tokens(12)
    with torch.no_grad():
        before = model(input_ids=token_BT).logits
        looked_up = model(inputs_embeds=model.get_input_embeddings()(token_BT)).logits
        torch.testing.assert_close(looked_up, before, rtol=1e-12, atol=1e-12)
        plain = build(model_settings())
        plain.load_state_dict(model.state_dict())
        assert not torch.allclose(plain(input_ids=token_BT).logits, before, atol=1e-2)
        model.resize_token_embeddings(VOCABULARY + 10)
        torch.testing.assert_close(model(input_ids=token_BT).logits[..., :VOCABULARY], before, rtol=1e-9, atol=1e-9)
