"""Conversion of Qwen2 and Qwen2.5 (Yang et al. 2024, 2407.10671) and Qwen3 (Yang et al. 2025, 2505.09388).

Both are Llama's shape. Qwen2 adds biases to queries, keys and values; Qwen3 has none, and norms each head's queries and
keys. Within its sliding window, where a config has one, a model computes the same without it.

Shown equal to Qwen2ForCausalLM and Qwen3ForCausalLM, gradients included (tests/model/hf/test_converted_families.py).
"""

import dataclasses
from typing import Any

from speciate.config.run import ModelSpec
from speciate.model.hf import llama
from speciate.model.hf.convert import attention_options


def _qwen2_config(model: ModelSpec) -> dict[str, Any] | None:
    config = llama.rotary_config(model, activation="swiglu", qkv_bias=True)
    if config is None or "head_dim" in config:
        return None
    return {"model_type": "qwen2", **config, "hidden_act": "silu", "use_sliding_window": False}


def _qwen3_config(model: ModelSpec) -> dict[str, Any] | None:
    config = llama.rotary_config(model, activation="swiglu", qk_norm=True)
    if config is None:
        return None
    config["head_dim"] = attention_options(model)["head_width"]
    return {"model_type": "qwen3", **config, "hidden_act": "silu", "use_sliding_window": False}


QWEN2 = dataclasses.replace(llama.FAMILY, architecture="Qwen2ForCausalLM", config=_qwen2_config)
QWEN3 = dataclasses.replace(llama.FAMILY, architecture="Qwen3ForCausalLM", config=_qwen3_config)
