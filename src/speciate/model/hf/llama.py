"""Conversion of Llama (Touvron et al. 2023): rotary positions, RMS norms, gated units, grouped queries.

Shown equal to LlamaForCausalLM, gradients included (tests/model/test_transformer.py).
"""

from typing import Any

from speciate.config.pretrained.families import llama_settings
from speciate.config.run import ModelSpec
from speciate.model.hf.convert import Family, Rule, dense_options


def attention_rules(model: ModelSpec) -> list[Rule]:
    """Return the rules of everything but the feed-forward layers."""
    rules = [
        Rule("token_embedding.weight", ("model.embed_tokens.weight",)),
        Rule("norm.weight", ("model.norm.weight",)),
    ]
    if not model.tied_head:
        rules.append(Rule("unembedding.weight", ("lm_head.weight",)))
    for layer in range(model.num_layers):
        block, hf_layer = f"blocks.{layer}", f"model.layers.{layer}"
        mixer: Any = model.block.mixer
        num_kv_heads = mixer.num_kv_heads or mixer.num_heads
        heads = (mixer.num_heads, num_kv_heads, num_kv_heads)
        joint = tuple(count * model.width // mixer.num_heads for count in heads)
        projections = tuple(f"{hf_layer}.self_attn.{part}_proj.weight" for part in "qkv")
        rules += [
            Rule(f"{block}.mixer_norm.weight", (f"{hf_layer}.input_layernorm.weight",)),
            Rule(f"{block}.mixer.query_key_value.weight", projections, joint),
            Rule(f"{block}.mixer.out.weight", (f"{hf_layer}.self_attn.o_proj.weight",)),
            Rule(f"{block}.ffn_norm.weight", (f"{hf_layer}.post_attention_layernorm.weight",)),
        ]
    return rules


def attention_config(model: ModelSpec) -> dict[str, Any]:
    """Return the keys of transformers' config about everything but the feed-forward layers."""
    mixer: Any = model.block.mixer
    return {
        "hidden_size": model.width,
        "num_hidden_layers": model.num_layers,
        "max_position_embeddings": model.context,
        "num_attention_heads": mixer.num_heads,
        "num_key_value_heads": mixer.num_kv_heads or mixer.num_heads,
        "rms_norm_eps": model.norm_epsilon,
        "rope_parameters": {"rope_type": "default", "rope_theta": model.rotary_base},
        "tie_word_embeddings": model.tied_head,
    }


def _rules(model: ModelSpec) -> list[Rule]:
    rules = attention_rules(model)
    for layer in range(model.num_layers):
        ffn: Any = model.block.ffn
        block, hf_layer = f"blocks.{layer}", f"model.layers.{layer}"
        gated = tuple(f"{hf_layer}.mlp.{part}_proj.weight" for part in ("gate", "up"))
        rules += [
            Rule(f"{block}.ffn.up.weight", gated, (ffn.hidden, ffn.hidden)),
            Rule(f"{block}.ffn.out.weight", (f"{hf_layer}.mlp.down_proj.weight",)),
        ]
    return rules


def _config(model: ModelSpec) -> dict[str, Any] | None:
    options: Any = dense_options(model)
    if options is None or (model.norm, model.position, model.biases) != ("rms", "rotary", False):
        return None
    if options["activation"] != "swiglu":
        return None
    return {
        "model_type": "llama",
        **attention_config(model),
        "intermediate_size": options["hidden"],
        "hidden_act": "silu",
    }


FAMILY = Family(
    architecture="LlamaForCausalLM",
    prefix="model.",
    rules=_rules,
    settings=llama_settings,
    config=_config,
    buffers=(".rotary_emb.inv_freq",),
)
