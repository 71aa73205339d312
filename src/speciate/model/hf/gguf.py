"""Read a GGUF file (llama.cpp's format) of Llama's architecture as transformers' config and named weights.

Tensors are renamed and quantised blocks decoded. Queries and keys are reordered: GGUF interleaves the two halves of a
head, since llama.cpp rotates neighbouring dimensions where Llama's own weights pair (i, i + h/2).

N heads of h dimensions, D width.
"""

import pathlib
from typing import Any

import torch
from torch import Tensor

from speciate.config.pretrained.gguf_header import config_of_fields

MODEL_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
"""Name of a tensor in the file -> in transformers; of those outside the layers."""
LAYER_NAMES = {
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
"""Name of a layer's tensor in the file -> in transformers."""


def read_gguf(file: pathlib.Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return Llama's config and weights, float32, under transformers' names.

    Raises:
        ValueError: it is no GGUF file, of another architecture, or has a tensor that Llama has not; names the file.
    """
    import gguf
    from gguf.quants import dequantize

    try:
        reader = gguf.GGUFReader(file)
    except (OSError, ValueError, IndexError) as error:
        raise ValueError(f"{file}: is no GGUF file, or is truncated: {error}") from None
    fields = {name: field.contents() for name, field in reader.fields.items()}
    try:
        config = config_of_fields(fields, {tensor.name for tensor in reader.tensors})
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    weights = {}
    for tensor in reader.tensors:
        weight = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).copy()).float()
        part = tensor.name.removesuffix(".weight").rpartition(".")[2]
        weights[_rename(tensor.name, file)] = _uninterleave(weight, heads[part]) if part in heads else weight
    return config, weights


def _rename(name: str, file: pathlib.Path) -> str:
    words = name.split(".")
    if words[-1] == "weight" and len(words) == 2 and words[0] in MODEL_NAMES:
        return f"{MODEL_NAMES[words[0]]}.weight"
    if words[0] == "blk" and words[-1] == "weight" and len(words) == 4 and words[2] in LAYER_NAMES:
        return f"model.layers.{words[1]}.{LAYER_NAMES[words[2]]}.weight"
    raise ValueError(f"{file}: tensor {name}: Llama has no such tensor")


def _uninterleave(weight_OD: Tensor, num_heads: int) -> Tensor:
    """Move the rows (2i, 2i + 1) of each head to (i, i + h/2)."""
    height, width = weight_OD.shape
    return weight_OD.view(num_heads, -1, 2, width).transpose(1, 2).reshape(height, width)
