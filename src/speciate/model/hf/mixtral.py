"""Conversion to Mixtral (Jiang et al. 2024): Llama with experts, of which a softmax router picks each token's best.

The other mixture-of-experts families of transformers compute something else. Qwen2-MoE gates a shared expert by the
token, OLMoE and Qwen3-MoE normalise queries and keys, and Mamba has no feed-forward layers.

Only models whose logits and gradients Mixtral has are converted. With one expert a token its weights are the same, but
the straight-through gradient, by which the router learns, is not.
"""

from typing import Any

from speciate.config.run import ModelSpec
from speciate.model.hf.convert import Family, Rule, attention_options
from speciate.model.hf.llama import attention_config, attention_rules


def _rules(model: ModelSpec) -> list[Rule]:
    rules = attention_rules(model)
    for layer in range(model.num_layers):
        block, hf_layer = f"blocks.{layer}.ffn", f"model.layers.{layer}.mlp"
        rules += [
            Rule(f"{block}.router.scorer.weight", (f"{hf_layer}.gate.weight",)),
            Rule(f"{block}.experts.in_weight", (f"{hf_layer}.experts.gate_up_proj",), transposed=True),
            Rule(f"{block}.experts.out_weight", (f"{hf_layer}.experts.down_proj",), transposed=True),
        ]
    return rules


def _config(model: ModelSpec) -> dict[str, Any] | None:
    block = model.block
    kinds = (block.mixer.kind, block.ffn.kind, block.depth.kind)
    shape = (model.norm, model.position, model.biases, model.causal, model.exceptions)
    if kinds != ("attention", "moe", "every") or shape != ("rms", "rotary", False, True, ()):
        return None
    options = attention_options(model)
    if options["qkv_bias"] or options["qk_norm"] or model.embedding_scale != 1:
        return None
    ffn: Any = block.ffn
    router, choice = ffn.router, ffn.choice
    if (router.kind, choice.kind) != ("learned", "token") or ffn.balance.acts_by == "choice":
        return None
    if (router.shape, router.gate) != ("linear", "softmax") or router.noise == "learned":
        return None
    if not choice.renormalise or choice.capacity_factor is not None:
        return None
    if (ffn.activation, ffn.num_shared) != ("swiglu", 0) or ffn.top_k == 1:
        return None
    return {
        "model_type": "mixtral",
        **attention_config(model),
        "intermediate_size": ffn.hidden,
        "hidden_act": "silu",
        "num_local_experts": ffn.num_experts,
        "num_experts_per_tok": ffn.top_k,
        "sliding_window": None,
    }


FAMILY = Family(
    architecture="MixtralForCausalLM",
    prefix="model.",
    rules=_rules,
    config=_config,
    buffers=(".rotary_emb.inv_freq",),
)
