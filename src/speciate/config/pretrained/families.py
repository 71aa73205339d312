"""The shapes of published checkpoints: what a transformers config.json means in keys of a ModelSpec.

Planning a study needs them, so nothing here needs torch. The weights are converted in model/hf.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Config = Mapping[str, Any]
"""Content of a transformers folder's config.json."""
ACTIVATIONS = {"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu": "gelu"}
"""GPT-2's name of an activation -> ours."""


@dataclass(frozen=True)
class Shape:
    """The shape of a checkpoint."""

    model: Mapping[str, Any]
    """Settings of a ModelSpec."""
    origin: str
    """Where it was read, for messages."""
    window: int | None = None
    """Number of latest tokens that a position attends to, itself included; None: all of them."""


def require_known_values(config: Config, known: Mapping[str, tuple[Any, ...]]) -> None:
    """Raise ValueError if `config` has a value that `known` does not allow; the first allowed one is the default."""
    for key, values in known.items():
        if config.get(key, values[0]) not in values:
            raise ValueError(f"{key}: {config[key]!r} is not supported; only {' or '.join(map(repr, values))} is")


def gpt2_settings(config: Config) -> dict[str, Any]:
    """Return the shape that a config of GPT-2 describes, as settings of a ModelSpec."""
    activation = config.get("activation_function", "gelu_new")
    require_known_values(config, {"scale_attn_weights": (True,), "scale_attn_by_inverse_layer_idx": (False,)})
    require_known_values(config, {"activation_function": tuple(ACTIVATIONS), "add_cross_attention": (False,)})
    ffn = {"kind": "dense", "hidden": config.get("n_inner") or 4 * config["n_embd"]}
    ffn["activation"] = ACTIVATIONS[activation]
    mixer = {"kind": "attention", "num_heads": config["n_head"], "num_kv_heads": config["n_head"]}
    mixer |= {**_head_width(config["n_embd"], config["n_head"]), "qkv_bias": True, "qk_norm": False}
    return {
        "width": config["n_embd"],
        "num_layers": config["n_layer"],
        "context": config["n_positions"],
        "norm": "layer",
        "norm_epsilon": config.get("layer_norm_epsilon", 1e-5),
        "position": "learned",
        "biases": True,
        "tied_head": config.get("tie_word_embeddings", True),
        "embedding_scale": 1.0,
        "block": {"mixer": mixer, "ffn": ffn, "depth": "every"},
    }


def llama_settings(config: Config) -> dict[str, Any]:
    """Return the shape that a config of Llama or Mistral describes, as settings of a ModelSpec."""
    require_known_values(config, {"hidden_act": ("silu",), "attention_bias": (False,), "mlp_bias": (False,)})
    mixer = {"qkv_bias": False, "qk_norm": False}
    return _rotary_settings(config, mixer, activation="swiglu", embedding_scale=1.0)


def qwen2_settings(config: Config) -> dict[str, Any]:
    """Return the shape that a config of Qwen2 or Qwen2.5 describes: Llama's, with biases on q, k and v."""
    require_known_values(config, {"hidden_act": ("silu",)})
    mixer = {"qkv_bias": True, "qk_norm": False}
    return _rotary_settings(config, mixer, activation="swiglu", embedding_scale=1.0)


def qwen3_settings(config: Config) -> dict[str, Any]:
    """Return the shape that a config of Qwen3 describes: Llama's, with norms of each head's queries and keys."""
    require_known_values(config, {"hidden_act": ("silu",), "attention_bias": (False,)})
    mixer = {"qkv_bias": False, "qk_norm": True}
    return _rotary_settings({"head_dim": 128, **config}, mixer, activation="swiglu", embedding_scale=1.0)


def gemma_settings(config: Config) -> dict[str, Any]:
    """Return the shape that a config of Gemma describes: Llama's, with wide heads, GeGLU and scaled embeddings.

    In the first releases `hidden_act` is `gelu` and means the approximation by tanh, as transformers reads it.
    """
    require_known_values(config, {"hidden_act": ("gelu_pytorch_tanh", "gelu"), "attention_bias": (False,)})
    require_known_values(config, {"hidden_activation": ("gelu_pytorch_tanh", None)})
    require_known_values(config, {"use_bidirectional_attention": (None, False)})
    defaults = {"head_dim": 256, "tie_word_embeddings": True}
    mixer = {"qkv_bias": False, "qk_norm": False}
    scale = float(config["hidden_size"] ** 0.5)
    return _rotary_settings({**defaults, **config}, mixer, activation="geglu_tanh", embedding_scale=scale)


def _rotary_settings(
    config: Config, mixer: Mapping[str, Any], *, activation: str, embedding_scale: float
) -> dict[str, Any]:
    """Return what the families with RMS norms, rotary positions and gated units have in common, and these options."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    heads, window = config["num_attention_heads"], window_of(config)
    width, context = config["hidden_size"], config["max_position_embeddings"]
    return {
        "width": width,
        "num_layers": config["num_hidden_layers"],
        "context": context if window is None else min(context, window),
        "norm": "rms",
        "norm_epsilon": config.get("rms_norm_eps", 1e-6),
        "position": "rotary",
        "rotary_base": float(rope.get("rope_theta") or config.get("rope_theta") or 10000.0),
        **_rotary_scaling(rope),
        "biases": False,
        "tied_head": config.get("tie_word_embeddings", False),
        "embedding_scale": embedding_scale,
        "block": {
            "mixer": {
                "kind": "attention",
                "num_heads": heads,
                "num_kv_heads": config.get("num_key_value_heads") or heads,
                **({"head_width": config["head_dim"]} if config.get("head_dim") else _head_width(width, heads)),
                **mixer,
            },
            "ffn": {"kind": "dense", "hidden": config["intermediate_size"], "activation": activation},
            "depth": "every",
        },
    }


def _head_width(width: int, heads: int) -> dict[str, int]:
    """Return the setting `head_width` of heads that divide a width, or nothing: a ModelSpec then refuses them."""
    return {} if width % heads else {"head_width": width // heads}


def _rotary_scaling(rope: Config) -> dict[str, Any]:
    """Return the setting `rotary_scaling`, or nothing where the rotary encoding is not stretched."""
    kind = rope.get("rope_type", rope.get("type", "default"))
    require_known_values({"rope_type": kind}, {"rope_type": ("default", "linear", "llama3")})
    require_known_values(rope, {"partial_rotary_factor": (1.0,)})
    if kind == "default":
        return {}
    scaling: dict[str, Any] = {"kind": kind, "factor": float(rope["factor"])}
    if kind == "llama3":
        scaling["low_frequency"] = float(rope["low_freq_factor"])
        scaling["high_frequency"] = float(rope["high_freq_factor"])
        scaling["original_context"] = rope["original_max_position_embeddings"]
    return {"rotary_scaling": scaling}


def window_of(config: Config) -> int | None:
    """Return how many of the latest tokens, itself included, some layer's positions attend to; None: all of them.

    Within so many tokens a window hides nothing, so such a model computes what one without a window does.
    """
    family = config.get("model_type")
    if family == "mistral" or (family in ("qwen2", "qwen3") and config.get("use_sliding_window")):
        window = config.get("sliding_window", 4096)
    else:
        return None
    return None if window is None else int(window)


SETTINGS: dict[str, Callable[[Config], dict[str, Any]]] = {
    "gpt2": gpt2_settings,
    "llama": llama_settings,
    "mistral": llama_settings,
    "qwen2": qwen2_settings,
    "qwen3": qwen3_settings,
    "gemma": gemma_settings,
}
"""The `model_type` of a config.json -> what gives its shape."""
UNSUPPORTED = {
    "gemma2": "caps attention scores and logits, and norms each sublayer's output",
    "gemma3": "reads images, norms each sublayer's output, and has windows in some layers",
    "gemma3_text": "norms each sublayer's output and has windows in some layers",
    "mixtral": "has experts, and only dense checkpoints are read",
    "qwen2_moe": "has experts, and only dense checkpoints are read",
    "qwen3_moe": "has experts, and only dense checkpoints are read",
    "olmo2": "norms all heads together, and each sublayer's output",
    "phi3": "stores its projections joined and may stretch its positions by longrope",
}
"""The `model_type` of families that somebody may try -> what the decoder has not."""


def shape_of_config(config: Config, origin: str) -> Shape:
    """Return the shape that a config.json describes.

    Args:
        config: its content.
        origin: where it was read, for messages.

    Raises:
        ValueError: the family is unknown, a key is missing, or a setting is not supported; names the key.
    """
    family = str(config.get("model_type"))
    if family not in SETTINGS:
        why = f"; it {UNSUPPORTED[family]}" if family in UNSUPPORTED else ""
        raise ValueError(f"model_type: {config.get('model_type')!r} is none of {', '.join(SETTINGS)}{why}")
    try:
        return Shape(SETTINGS[family](config), origin, window_of(config))
    except KeyError as error:
        raise ValueError(f"{error.args[0]}: is missing") from None
