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
    return {
        "width": config["n_embd"],
        "num_layers": config["n_layer"],
        "context": config["n_positions"],
        "norm": "layer",
        "norm_epsilon": config.get("layer_norm_epsilon", 1e-5),
        "position": "learned",
        "biases": True,
        "tied_head": config.get("tie_word_embeddings", True),
        "block": {
            "mixer": {"kind": "attention", "num_heads": config["n_head"], "num_kv_heads": config["n_head"]},
            "ffn": ffn,
            "depth": "every",
        },
    }


def llama_settings(config: Config) -> dict[str, Any]:
    """Return the shape that a config of Llama describes, as settings of a ModelSpec."""
    require_known_values(config, {"hidden_act": ("silu",), "attention_bias": (False,), "mlp_bias": (False,)})
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    require_known_values({"rope_type": rope.get("rope_type", rope.get("type", "default"))}, {"rope_type": ("default",)})
    require_known_values(config, {"head_dim": (config["hidden_size"] // config["num_attention_heads"], None)})
    mixer = {"kind": "attention", "num_heads": config["num_attention_heads"]}
    mixer["num_kv_heads"] = config.get("num_key_value_heads") or config["num_attention_heads"]
    return {
        "width": config["hidden_size"],
        "num_layers": config["num_hidden_layers"],
        "context": config["max_position_embeddings"],
        "norm": "rms",
        "norm_epsilon": config.get("rms_norm_eps", 1e-6),
        "position": "rotary",
        "rotary_base": float(rope.get("rope_theta") or config.get("rope_theta") or 10000.0),
        "biases": False,
        "tied_head": config.get("tie_word_embeddings", False),
        "block": {
            "mixer": mixer,
            "ffn": {"kind": "dense", "hidden": config["intermediate_size"], "activation": "swiglu"},
            "depth": "every",
        },
    }


SETTINGS: dict[str, Callable[[Config], dict[str, Any]]] = {"gpt2": gpt2_settings, "llama": llama_settings}
"""The `model_type` of a config.json -> what gives its shape."""


def shape_of_config(config: Config, origin: str) -> Shape:
    """Return the shape that a config.json describes.

    Args:
        config: its content.
        origin: where it was read, for messages.

    Raises:
        ValueError: the family is unknown, a key is missing, or a setting is not supported; names the key.
    """
    settings = SETTINGS.get(str(config.get("model_type")))
    if settings is None:
        raise ValueError(f"model_type: {config.get('model_type')!r} is none of {', '.join(SETTINGS)}")
    try:
        return Shape(settings(config), origin)
    except KeyError as error:
        raise ValueError(f"{error.args[0]}: is missing") from None
