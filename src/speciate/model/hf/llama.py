"""Conversion of Llama (Touvron et al. 2023): rotary positions, RMS norms, gated units, grouped queries.

Mistral's weights (Jiang et al. 2023) have the same names and mean the same within its sliding window. Such models are
read alone: what is written is Llama's. qwen.py, gemma.py and mixtral.py share the rules.

Shown equal to transformers' classes, gradients included (tests/model/test_transformer.py, tests/model/hf).
"""

import dataclasses
from typing import Any

from speciate.config.run import ModelSpec
from speciate.model.hf.convert import Family, Rule, attention_options, dense_options


def attention_rules(model: ModelSpec, norm_offset: float = 0.0) -> list[Rule]:
    """Return the rules of everything but the feed-forward layers; `norm_offset` is added to the gains of norms."""
    rules = [
        Rule("token_embedding.weight", ("model.embed_tokens.weight",)),
        Rule("norm.weight", ("model.norm.weight",), offset=norm_offset),
    ]
    if not model.tied_head:
        rules.append(Rule("unembedding.weight", ("lm_head.weight",)))
    options = attention_options(model)
    heads = (options["num_heads"], options["num_kv_heads"], options["num_kv_heads"])
    joint = tuple(count * options["head_width"] for count in heads)
    for layer in range(model.num_layers):
        block, hf_layer = f"blocks.{layer}", f"model.layers.{layer}"
        mixer, hf_mixer = f"{block}.mixer", f"{hf_layer}.self_attn"
        for kind in ("weight", "bias") if options["qkv_bias"] else ("weight",):
            projections = tuple(f"{hf_mixer}.{part}_proj.{kind}" for part in "qkv")
            rules.append(Rule(f"{mixer}.query_key_value.{kind}", projections, joint))
        if options["qk_norm"]:
            rules.append(Rule(f"{mixer}.query_norm.weight", (f"{hf_mixer}.q_norm.weight",)))
            rules.append(Rule(f"{mixer}.key_norm.weight", (f"{hf_mixer}.k_norm.weight",)))
        rules += [
            Rule(f"{block}.mixer_norm.weight", (f"{hf_layer}.input_layernorm.weight",), offset=norm_offset),
            Rule(f"{mixer}.out.weight", (f"{hf_mixer}.o_proj.weight",)),
            Rule(f"{block}.ffn_norm.weight", (f"{hf_layer}.post_attention_layernorm.weight",), offset=norm_offset),
        ]
    return rules


def attention_config(model: ModelSpec) -> dict[str, Any]:
    """Return the keys of transformers' config about everything but the feed-forward layers."""
    options = attention_options(model)
    config = {
        "hidden_size": model.width,
        "num_hidden_layers": model.num_layers,
        "max_position_embeddings": model.context,
        "num_attention_heads": options["num_heads"],
        "num_key_value_heads": options["num_kv_heads"],
        "rms_norm_eps": model.norm_epsilon,
        "rope_parameters": _rope_parameters(model),
        "tie_word_embeddings": model.tied_head,
    }
    if options["head_width"] * options["num_heads"] != model.width:
        config["head_dim"] = options["head_width"]
    return config


def _rope_parameters(model: ModelSpec) -> dict[str, Any]:
    scaling = model.rotary_scaling
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": model.rotary_base}
    if scaling is not None:
        rope |= {"rope_type": scaling.kind, "factor": scaling.factor}
    if scaling is not None and scaling.kind == "llama3":
        rope |= {"low_freq_factor": scaling.low_frequency, "high_freq_factor": scaling.high_frequency}
        rope["original_max_position_embeddings"] = scaling.original_context
    return rope


def rotary_rules(model: ModelSpec, norm_offset: float = 0.0) -> list[Rule]:
    """Return the rules of a model with dense gated layers; `norm_offset` is added to the gains of norms."""
    rules = attention_rules(model, norm_offset)
    for layer in range(model.num_layers):
        ffn: Any = model.block.ffn
        block, hf_layer = f"blocks.{layer}", f"model.layers.{layer}"
        gated = tuple(f"{hf_layer}.mlp.{part}_proj.weight" for part in ("gate", "up"))
        rules += [
            Rule(f"{block}.ffn.up.weight", gated, (ffn.hidden, ffn.hidden)),
            Rule(f"{block}.ffn.out.weight", (f"{hf_layer}.mlp.down_proj.weight",)),
        ]
    return rules


def rotary_config(
    model: ModelSpec, *, activation: str, qkv_bias: bool = False, qk_norm: bool = False, embedding_scale: float = 1.0
) -> dict[str, Any] | None:
    """Return what transformers' configs of such a family have in common; None where the model is not of the family.

    Args:
        model: the shape.
        activation: the family's activation.
        qkv_bias: whether its queries, keys and values have biases.
        qk_norm: whether it norms each head's queries and keys.
        embedding_scale: its factor of the embeddings.
    """
    options = dense_options(model)
    if options is None or (model.norm, model.position, model.biases) != ("rms", "rotary", False):
        return None
    if (options["activation"], options["qkv_bias"], options["qk_norm"]) != (activation, qkv_bias, qk_norm):
        return None
    if model.embedding_scale != embedding_scale:
        return None
    return {**attention_config(model), "intermediate_size": options["hidden"]}


def _config(model: ModelSpec) -> dict[str, Any] | None:
    config = rotary_config(model, activation="swiglu")
    return config and {"model_type": "llama", **config, "hidden_act": "silu"}


FAMILY = Family(
    architecture="LlamaForCausalLM",
    prefix="model.",
    rules=rotary_rules,
    config=_config,
    buffers=(".rotary_emb.inv_freq",),
)
MISTRAL = dataclasses.replace(FAMILY, architecture="MistralForCausalLM", config=lambda model: None)
