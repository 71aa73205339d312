"""Conversion of Gemma (Gemini Team 2024, 2403.08295): Llama's shape with wide heads, GeGLU and scaled embeddings.

    x = sqrt(D) E[token];   norm(x) = x / rms(x) * (1 + w)

transformers stores w, and our norms have the gain 1 + w. Gemma 2 and 3 cap scores or norm each sublayer's output, which
the decoder has not (config/pretrained/families.py refuses them).

Shown equal to GemmaForCausalLM, gradients included (tests/model/hf/test_converted_families.py).
"""

import dataclasses
import functools
from typing import Any

from speciate.config.run import ModelSpec
from speciate.model.hf import llama
from speciate.model.hf.convert import attention_options


def _config(model: ModelSpec) -> dict[str, Any] | None:
    config = llama.rotary_config(model, activation="geglu_tanh", embedding_scale=float(model.width**0.5))
    if config is None:
        return None
    config["head_dim"] = attention_options(model)["head_width"]
    return {"model_type": "gemma", **config, "hidden_act": "gelu_pytorch_tanh"}


FAMILY = dataclasses.replace(
    llama.FAMILY,
    architecture="GemmaForCausalLM",
    rules=functools.partial(llama.rotary_rules, norm_offset=1.0),
    config=_config,
)
