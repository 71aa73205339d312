"""Test that checkpoints of other libraries are read as those libraries read them, and unsupported ones refused."""

import json
import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import gguf
import numpy as np
import pytest
import safetensors.torch
import torch
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from speciate.model.hf.pretrained import Pretrained, read_pretrained
from speciate.model.transformer import Transformer

VOCABULARY = 96
ENDS = {"bos_token_id": 0, "eos_token_id": 0}
GPT2 = {"vocab_size": VOCABULARY, "n_positions": 16, "n_embd": 32, "n_layer": 2, "n_head": 4, **ENDS}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2}
LLAMA = {"vocab_size": VOCABULARY, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, **HEADS, **ENDS}
LLAMA["max_position_embeddings"] = 16


def logits(pretrained: Pretrained, token_BT: torch.Tensor) -> torch.Tensor:
    model = Transformer(pretrained.model, VOCABULARY).eval()
    model.load_state_dict(pretrained.weights)
    with torch.no_grad():
        return model(token_BT)


def saved(model: Any, folder: pathlib.Path, **settings: Any) -> pathlib.Path:
    """Save a folder as transformers writes it, with random weights large enough to matter."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.2)
    model.save_pretrained(folder, **settings)
    return folder


MODELS: dict[str, Callable[[], Any]] = {
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(**GPT2)),
    "gpt2 untied": lambda: GPT2LMHeadModel(GPT2Config(**GPT2, tie_word_embeddings=False, n_inner=40)),
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**LLAMA, rms_norm_eps=1e-5)),
    "llama tied": lambda: LlamaForCausalLM(LlamaConfig(**LLAMA, tie_word_embeddings=True)),
    "llama base": lambda: LlamaForCausalLM(
        LlamaConfig(**LLAMA, rope_parameters={"rope_type": "default", "rope_theta": 100000.0})
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_folder_of_transformers_gives_its_logits(tmp_path: pathlib.Path, name: str) -> None:
    folder = saved(MODELS[name](), tmp_path / "model")
    theirs = AutoModelForCausalLM.from_pretrained(folder).eval()
    token_BT = torch.randint(VOCABULARY, (2, 13))
    with torch.no_grad():
        expected = theirs(token_BT).logits
    torch.testing.assert_close(logits(read_pretrained(folder), token_BT), expected, rtol=1e-5, atol=1e-5)


def test_shards_and_the_names_of_old_checkpoints_are_read(tmp_path: pathlib.Path) -> None:
    whole = saved(MODELS["gpt2"](), tmp_path / "whole")
    expected = read_pretrained(whole).weights
    theirs = safetensors.torch.load_file(whole / "model.safetensors")
    # the format of openai-community/gpt2: no prefix, one mask per layer, and two files
    old = {name.removeprefix("transformer."): weight for name, weight in theirs.items()}
    old["h.0.attn.bias"] = torch.ones((1, 1, 16, 16))
    (tmp_path / "old").mkdir()
    shutil.copy(whole / "config.json", tmp_path / "old")
    for index in range(2):
        part = dict(list(old.items())[index::2])
        safetensors.torch.save_file(part, tmp_path / "old" / f"model-{index + 1}-of-2.safetensors")
    got = read_pretrained(tmp_path / "old").weights
    assert got.keys() == expected.keys()
    assert all(torch.equal(got[name], expected[name]) for name in expected)


def write_gguf(model: Any, file: pathlib.Path, kind: gguf.GGMLQuantizationType) -> None:
    """Write the model as llama.cpp's converter does: with its names, interleaved heads and quantised matrices."""
    config, theirs = model.config, model.state_dict()
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(config.vocab_size)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, weight in theirs.items():
        array = weight.numpy()
        for part, heads in (("q_proj", config.num_attention_heads), ("k_proj", config.num_key_value_heads)):
            if part in name:  # the same as llama.cpp's own LlamaModel.permute
                array = array.reshape(heads, 2, -1, array.shape[1]).swapaxes(1, 2).reshape(array.shape)
        if array.ndim == 2:
            data = gguf.quants.quantize(np.ascontiguousarray(array), kind)
            writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), data, raw_dtype=kind)
        else:
            writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize(("kind", "tolerance"), [("F32", 1e-5), ("Q8_0", 0.2)])
def test_a_gguf_file_gives_the_logits_of_the_model_that_it_was_made_of(
    tmp_path: pathlib.Path, kind: str, tolerance: float
) -> None:
    theirs = MODELS["llama tied"]().eval()
    saved(theirs, tmp_path / "model")
    token_BT = torch.randint(VOCABULARY, (2, 13))
    with torch.no_grad():
        expected = theirs(token_BT).logits
    del theirs.lm_head  # the head is tied, so the file has none, like SmolLM2's
    write_gguf(theirs, tmp_path / "model.gguf", gguf.GGMLQuantizationType[kind])
    pretrained = read_pretrained(tmp_path / "model.gguf")
    assert pretrained.model.tied_head
    got = logits(pretrained, token_BT)
    assert (got - expected).abs().mean() <= tolerance * expected.abs().mean()


def broken(folder: pathlib.Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


BAD: dict[str, tuple[str, Callable[[pathlib.Path], object], str]] = {
    "no folder": ("gpt2", shutil.rmtree, "config.json: cannot be read"),
    "no json": ("gpt2", lambda at: (at / "config.json").write_text("{"), "config.json: cannot be read"),
    "no object": ("gpt2", lambda at: (at / "config.json").write_text("[]"), "must hold an object"),
    "family": ("gpt2", lambda at: broken(at, model_type="mamba"), "model_type: 'mamba' is none of gpt2, llama"),
    "activation": (
        "gpt2",
        lambda at: broken(at, activation_function="relu"),
        "activation_function: 'relu' is not supported; only 'gelu_new' or 'gelu_pytorch_tanh' or 'gelu' is",
    ),
    "heads": ("gpt2", lambda at: broken(at, n_head=5), "num_heads: 5 heads do not divide a width of 32"),
    "layers": ("gpt2", lambda at: broken(at, n_layer=1), "h.1.attn.c_attn.bias is no weight of this architecture"),
    "more layers": ("gpt2", lambda at: broken(at, n_layer=3), "h.2.attn.c_attn.bias is missing"),
    "rotary": (
        "llama",
        lambda at: broken(at, rope_parameters={"rope_type": "yarn", "rope_theta": 1e4}),
        "rope_type: 'yarn' is not supported; only 'default' or 'linear' or 'llama3' is",
    ),
    "biases": ("llama", lambda at: broken(at, attention_bias=True), "attention_bias: True is not supported"),
    "pickle": (
        "gpt2",
        lambda at: (at / "model.safetensors").rename(at / "pytorch_model.bin"),
        "holds no .safetensors file; weights in pickles",
    ),
    "cut off": (
        "gpt2",
        lambda at: (at / "model.safetensors").write_bytes((at / "model.safetensors").read_bytes()[:1000]),
        "model.safetensors: is no weights file",
    ),
    "twice": (
        "gpt2",
        lambda at: shutil.copy(at / "model.safetensors", at / "other.safetensors"),
        "other.safetensors: holds .* which another file of the folder also holds",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_a_start_is_refused(tmp_path: pathlib.Path, case: str) -> None:
    name, spoil, message = BAD[case]
    folder = saved(MODELS[name](), tmp_path / "model")
    spoil(folder)
    with pytest.raises(ValueError, match=message):
        read_pretrained(folder)


def test_a_gguf_file_that_is_none_is_refused(tmp_path: pathlib.Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF\x03")
    with pytest.raises(ValueError, match=r"model.gguf: is no GGUF file, or is truncated"):
        read_pretrained(tmp_path)
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "gpt2")
    writer.add_block_count(1)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ValueError, match=r"general\.architecture: 'gpt2' is not supported; only llama is"):
        read_pretrained(tmp_path)
