"""A GGUF file (llama.cpp's format) of Llama's architecture, as transformers would have it: config and named weights.

Its names differ, its quantised blocks are decoded, and its queries and keys have the two halves of a head interleaved,
since llama.cpp turns neighbouring dimensions where Llama's own weights pair (i, i + h/2); they are put back.

N heads of h dimensions, D width.
"""

import pathlib
from typing import Any

import torch
from torch import Tensor

KEYS = {
    "hidden_size": "embedding_length",
    "num_hidden_layers": "block_count",
    "max_position_embeddings": "context_length",
    "intermediate_size": "feed_forward_length",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
    "rope_theta": "rope.freq_base",
}
"""Llama's config key -> the file's, without the architecture before it."""
WHOLE = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
OF_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def read(file: pathlib.Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Llama's config and weights, float32, under transformers' names.

    Raises:
        ValueError: no GGUF file, another architecture, or a tensor that Llama has not; names the file.
    """
    import gguf
    from gguf.quants import dequantize

    try:
        reader = gguf.GGUFReader(file)
    except (OSError, ValueError, IndexError) as error:
        raise ValueError(f"{file}: is no GGUF file, or is cut off: {error}") from None
    fields = {name: field.contents() for name, field in reader.fields.items()}
    architecture = fields.get("general.architecture")
    if architecture != "llama":
        raise ValueError(f"{file}: general.architecture: {architecture!r} is not supported; only llama is")
    missing = [key for key in KEYS.values() if f"llama.{key}" not in fields]
    if missing:
        raise ValueError(f"{file}: llama.{missing[0]}: is missing")
    config: dict[str, Any] = {ours: fields[f"llama.{theirs}"] for ours, theirs in KEYS.items()}
    config["model_type"] = "llama"
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    weights = {}
    for tensor in reader.tensors:
        weight = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).copy()).float()
        part = tensor.name.removesuffix(".weight").rpartition(".")[2]
        weights[_renamed(tensor.name, file)] = _uninterleaved(weight, heads[part]) if part in heads else weight
    config["tie_word_embeddings"] = "lm_head.weight" not in weights
    return config, weights


def _renamed(name: str, file: pathlib.Path) -> str:
    words = name.split(".")
    if words[-1] == "weight" and len(words) == 2 and words[0] in WHOLE:
        return f"{WHOLE[words[0]]}.weight"
    if words[0] == "blk" and words[-1] == "weight" and len(words) == 4 and words[2] in OF_LAYER:
        return f"model.layers.{words[1]}.{OF_LAYER[words[2]]}.weight"
    raise ValueError(f"{file}: tensor {name}: Llama has no such")


def _uninterleaved(weight_OD: Tensor, num_heads: int) -> Tensor:
    """Rows (i, i + h/2) of each head from neighbours (2i, 2i + 1)."""
    height, width = weight_OD.shape
    return weight_OD.view(num_heads, -1, 2, width).transpose(1, 2).reshape(height, width)
