"""Build a tiny random model of each family of transformers that has routed experts."""

import dataclasses
import functools
import importlib
import inspect
import pathlib
from typing import Any

import torch
import transformers
from transformers import PreTrainedModel

MODELS = pathlib.Path(transformers.__file__).parent / "models"
NUM_EXPERTS, NUM_CHOSEN = 8, 3
SMALL: dict[str, Any] = {
    **dict.fromkeys(("vocab_size", "unpadded_vocab_size"), 64),
    **dict.fromkeys(("hidden_size", "d_model", "n_embd"), 32),
    **dict.fromkeys(("intermediate_size", "ffn_hidden_size", "d_ff", "encoder_ffn_dim", "decoder_ffn_dim"), 24),
    **dict.fromkeys(("moe_intermediate_size", "expert_ffn_hidden_size", "shared_expert_intermediate_size"), 16),
    **dict.fromkeys(("shared_intermediate_size", "moe_hidden_size", "shared_experts_intermediate_size"), 16),
    **dict.fromkeys(("moe_shared_expert_intermediate_size", "share_expert_dim"), 16),
    **dict.fromkeys(("num_hidden_layers", "num_layers", "n_layers", "num_decoder_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "num_heads", "n_heads", "linear_num_heads", "swa_num_attention_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "swa_num_key_value_heads"), 2),
    **dict.fromkeys(("head_dim", "d_kv", "kv_channels", "swa_head_dim", "linear_head_dim"), 8),
    **dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim", "mamba_head_dim"), 8),
    **dict.fromkeys(("linear_num_key_heads", "linear_num_value_heads", "mamba_num_heads"), 4),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), NUM_EXPERTS),
    **dict.fromkeys(("num_experts_per_tok", "moe_topk", "moe_k", "moe_top_k", "top_k_experts"), NUM_CHOSEN),
    **dict.fromkeys(("n_shared_experts", "num_shared_experts", "moe_num_shared_experts"), 1),
    **dict.fromkeys(("n_group", "topk_group", "n_groups"), 1),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank", "o_lora_rank"), 16),
    **dict.fromkeys(("qk_rope_head_dim", "qk_nope_head_dim", "d_rel", "hc_lowrank"), 4),
    **dict.fromkeys(("v_head_dim", "index_head_dim", "router_hidden_size"), 8),
    **dict.fromkeys(("rel_extent", "sliding_window", "sliding_window_size"), 16),
    **dict.fromkeys(("mamba_d_state", "ssm_state_size", "mamba_n_heads"), 8),
    "num_dense_layers": 1,
    "first_k_dense_replace": 1,
    "max_position_embeddings": 128,
    "index_topk": 4,
    "index_n_heads": 2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "attention_dropout": 0.0,
    "mlp_layer_types": ["dense", "sparse"],
}
"""Setting -> its value in a tiny model, in every family that has it."""
HYBRID = {"layer_types": ["linear_attention", "full_attention"]}
EVERY_HEAD = {"num_key_value_heads": 4}
OWN: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("axk1", "axk2", "deepseek_v2", "deepseek_v3", "mistral4"), EVERY_HEAD),
    "bailing_hybrid": {"layer_group_size": 2, **EVERY_HEAD},
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "rope_theta": 1e4, "clip_qkv": 8.0},
        "ffn_config": {
            "hidden_size": 32,
            "ffn_hidden_size": 24,
            "moe_num_experts": NUM_EXPERTS,
            "moe_top_k": NUM_CHOSEN,
        },
    },
    "deepseek_ocr2": EVERY_HEAD,
    "deepseek_v32": EVERY_HEAD,
    "deepseek_v4": {
        "mlp_layer_types": ["hash_moe", "moe"],
        "layer_types": ["sliding_attention", "compressed_sparse_attention"],
        "compress_rates": {"compressed_sparse_attention": 2, "heavily_compressed_attention": 4},
        "index_topk": 2,
    },
    "doge": {"is_moe": True, "num_experts": 16},
    "dots3_note": EVERY_HEAD,
    "ernie4_5_vl_moe": {
        "moe_intermediate_size": [16, 16],
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]},
    },
    "flint": {"mlp_only_layers": [0]},
    "gemma4": {
        "enable_moe_block": True,
        "vocab_size_per_layer_input": 64,
        "hidden_size_per_layer_input": 8,
        "layer_types": ["sliding_attention", "full_attention"],
    },
    "glm4_moe_lite": EVERY_HEAD,
    "glm4v_moe": {
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 1e4,
            "mrope_section": [2, 1, 1],
            "partial_rotary_factor": 1.0,
        }
    },
    "glm5_next": {
        "layer_types": ["linear_attention", "indexed_attention"],
        "index_kpool": 2,
        "qk_rope_head_dim": 0,
        "head_dim": 0,
        "hc_mult": 2,
        **EVERY_HEAD,
    },
    "glm_moe_dsa": EVERY_HEAD,
    "granitemoehybrid": HYBRID,
    "jamba": {
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "expert_layer_offset": 1,
        "expert_layer_period": 2,
        "use_mamba_kernels": False,
    },
    "kimi_linear": {**HYBRID, **EVERY_HEAD},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "longcat_flash": {**EVERY_HEAD, "zero_expert_num": 4, "head_dim": 4},
    "minimax_m3_vl": {
        "layer_types": ["full_attention", "minimax_m3_sparse"],
        "index_block_size": 2,
        "index_topk_blocks": 2,
        "index_local_blocks": 1,
        "dense_intermediate_size": 24,
    },
    "mistral_large4": EVERY_HEAD,
    "phimoe": {"num_experts_per_tok": 2},
    "nemotron_h": {"layers_block_type": ["linear_attention", "moe", "full_attention"]},
    "qwen3_5_moe": HYBRID,
    "qwen3_next": HYBRID,
    "qwen4_exp": {
        "layer_types": ["linear_attention", "indexed_attention"],
        "hc_count": 2,
        "indexer_n_heads": 2,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 8,
        "indexer_budget": 4,
        "indexer_compress_ratio": 2,
    },
    "switch_transformers": {
        "num_sparse_encoder_layers": 1,
        "num_sparse_decoder_layers": 1,
        "decoder_start_token_id": 0,
    },
    "zaya": {"num_experts_per_tok": 1},
}
"""Family -> what its tiny model has besides."""
ROUTER_WEIGHTS = tuple(
    f"{name}.weight" for name in ("gate", "router", "router.layer", "wg", "router.proj", "router.classifier")
)
SUFFIXES = ("ForCausalLM", "TextModel", "ForTokenClassification", "ForConditionalGeneration", "Model")


def model_class(family: str) -> type[PreTrainedModel]:
    """Return the class of a family's language model, with a head if it has one."""
    (file,) = (file for file in (MODELS / family).glob("modeling_*.py"))
    module = importlib.import_module(f"transformers.models.{family}.{file.stem}")
    classes = {
        name: value
        for name, value in vars(module).items()
        if inspect.isclass(value) and issubclass(value, PreTrainedModel) and value.__module__ == module.__name__
        if value.config_class is not None and not any(word in name for word in ("PreTrained", "Vision", "Code"))
    }
    return next(value for suffix in SUFFIXES for name, value in classes.items() if name.endswith(suffix))


def tiny_config(family: str, **settings: Any) -> Any:
    """Return the config of a tiny model."""
    config_class = model_class(family).config_class
    known = {field.name for field in dataclasses.fields(config_class)} | set(config_class.attribute_map)
    small = {name: value for name, value in SMALL.items() if name in known}
    return config_class(**{**small, **OWN.get(family, {}), **settings})


@functools.cache
def tiny_model(family: str) -> PreTrainedModel:
    """Return a tiny model with random weights, in evaluation mode; each process builds it once."""
    torch.manual_seed(0)
    model = model_class(family)(tiny_config(family))
    spread_weights(model)
    return model.eval()


@torch.no_grad()
def spread_weights(model: torch.nn.Module) -> None:
    """Give a model weights so large that its routers prefer something, and biases that change choices."""
    draw = torch.Generator().manual_seed(1)
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        if ("bias" in name and "correction" in name) or "expert_bias" in name or "balancing_bias" in name:
            value.copy_(torch.randn(value.shape, generator=draw).to(value.dtype) * 0.1)
        elif "router_mlp" in name and value.dim() == 2:
            value.copy_(torch.randn(value.shape, generator=draw).to(value.dtype))
        elif name.endswith(ROUTER_WEIGHTS):
            value.copy_(torch.randn(value.shape, generator=draw).to(value.dtype) * 0.5)
        elif name.endswith("tid2eid"):
            value.copy_(torch.rand(len(value), NUM_EXPERTS, generator=draw).argsort(1)[:, :NUM_CHOSEN])
