"""Conversion of GPT-2 (Radford et al. 2019): learned positions, layer norms, biases, transposed weights.

Shown equal to GPT2LMHeadModel, gradients included (tests/model/test_transformer.py).
"""

from typing import Any

from speciate.config.pretrained.families import ACTIVATIONS
from speciate.config.run import ModelSpec
from speciate.model.hf.convert import Family, Rule, dense_options

PARTS = {
    "mixer_norm": "ln_1",
    "mixer.query_key_value": "attn.c_attn",
    "mixer.out": "attn.c_proj",
    "ffn_norm": "ln_2",
    "ffn.up": "mlp.c_fc",
    "ffn.out": "mlp.c_proj",
}


def _rules(model: ModelSpec) -> list[Rule]:
    rules = [Rule("token_embedding.weight", ("transformer.wte.weight",))]
    rules.append(Rule("position_embedding.weight", ("transformer.wpe.weight",)))
    names = {"norm": "transformer.ln_f"}
    for layer in range(model.num_layers):
        names |= {f"blocks.{layer}.{name}": f"transformer.h.{layer}.{hf_name}" for name, hf_name in PARTS.items()}
    for name, hf_name in names.items():
        rules.append(Rule(f"{name}.weight", (f"{hf_name}.weight",), transposed=".c_" in hf_name))
        rules.append(Rule(f"{name}.bias", (f"{hf_name}.bias",)))
    return rules if model.tied_head else [*rules, Rule("unembedding.weight", ("lm_head.weight",))]


def _config(model: ModelSpec) -> dict[str, Any] | None:
    options: Any = dense_options(model)
    if options is None or (model.norm, model.position, model.biases) != ("layer", "learned", True):
        return None
    joint = (options["num_kv_heads"] * options["head_width"], options["qkv_bias"], options["qk_norm"])
    if joint != (model.width, True, False) or options["num_kv_heads"] != options["num_heads"]:
        return None
    if options["activation"] not in ACTIVATIONS.values() or model.embedding_scale != 1:
        return None
    return {
        "model_type": "gpt2",
        "n_embd": model.width,
        "n_layer": model.num_layers,
        "n_positions": model.context,
        "n_head": options["num_heads"],
        "n_inner": options["hidden"],
        "activation_function": {name: hf_name for hf_name, name in ACTIVATIONS.items()}[options["activation"]],
        "layer_norm_epsilon": model.norm_epsilon,
        "tie_word_embeddings": model.tied_head,
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
    }


FAMILY = Family(
    architecture="GPT2LMHeadModel",
    prefix="transformer.",
    rules=_rules,
    config=_config,
    buffers=(".attn.bias", ".attn.masked_bias"),
)
