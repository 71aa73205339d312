"""List every model that a config can name: all kinds of all slots, and each value of their options with few values.

A new component is listed without being written here, unless it needs a number that no other has; `SIZES` then says so.
"""

import functools
import hashlib
import itertools
import types
import typing
from collections.abc import Iterator
from typing import Any

import pydantic

from speciate.config.components import ComponentOptions, OneOf, kinds_in, options_of
from speciate.config.run import ModelSpec

Settings = dict[str, Any]
WIDTH, CONTEXT, VOCABULARY = 24, 16, 50

SIZES: Settings = {
    "num_heads": 4,
    "num_experts": 4,
    "hidden": 20,
    "heads": 2,
    "width": 8,
    "points": [[0.0, 0.0], [0.5, 0.75], [1.0, 1.0]],
    "state": 3,
    "step_rank": 2,
    "k": 4,
    "k_min": 2,
    "k_max": 8,
    "window": 3,
    "domains": 2,
    "num_future": 2,
}
"""Small values of options that need a value, or whose own is too large for a test."""
OTHERS: Settings = {
    "capacity_factor": 0.5,
    "num_kv_heads": 2,
    "head_width": 10,
    "qkv_bias": False,
    "num_shared": 1,
    "top_k": 2,
    "noise_std": 0.5,
    "capacity": 0.25,
    "warmup": 0.5,
    "z_weight": 0.0,
}
"""A second value of options that are numbers, or may be null."""


def slots_of(options: type[ComponentOptions]) -> dict[str, str]:
    """Return the folder of each of the slots that a component has itself, by the slot's name."""
    marks = {name: field.metadata for name, field in options.model_fields.items()}
    return {name: mark.folder for name, metadata in marks.items() for mark in metadata if isinstance(mark, OneOf)}


def values_of(name: str, field: Any) -> list[Any]:
    """Return the values of an option that differ from its default and that a test can name."""
    annotation = field.annotation
    if typing.get_origin(annotation) is typing.Literal:
        return [value for value in typing.get_args(annotation) if value != field.default]
    if annotation is bool:
        return [not field.default]
    is_number = annotation in (int, float) or isinstance(annotation, types.UnionType)
    return [OTHERS[name]] if is_number and name in OTHERS else []


@functools.cache
def settings_in(folder: str) -> dict[str, Settings]:
    """Return all settings of a slot by name: each kind with each kind of its own slots, and each option's values."""
    found: dict[str, Settings] = {}
    for kind in kinds_in(folder):
        options = options_of(folder, kind)
        plain: Settings = {"kind": kind} | {name: SIZES[name] for name in options.model_fields if name in SIZES}
        slots = slots_of(options)
        inner = [settings_in(slots[slot]).items() for slot in slots]
        for choice in itertools.product(*inner):
            label = ",".join(name for name, _ in choice)
            found[f"{kind}({label})" if label else kind] = plain | dict(
                zip(slots, (settings for _, settings in choice), strict=True)
            )
        plainest = {slot: first_plain(folder_of_slot) for slot, folder_of_slot in slots.items()}
        for name, field in options.model_fields.items():
            for value in values_of(name, field) if name not in slots else ():
                found[f"{kind}[{name}={value}]"] = plain | plainest | {name: value}
    return found


def first_plain(folder: str) -> Settings:
    """Return the plainest settings of a slot: `learned`, `token` or `none` where there is one, otherwise the first."""
    kinds = kinds_in(folder)
    kind = next((kind for kind in ("learned", "token", "none", "kl", "fixed") if kind in kinds), kinds[0])
    return settings_in(folder)[kind]


def model_settings(**changes: Any) -> Settings:
    """Return the settings of a small model; `mixer`, `ffn` and `depth` change its block, other keys the model."""
    block = {
        "mixer": {"kind": "attention", "num_heads": 4},
        "ffn": {"kind": "dense", "hidden": 20},
        "depth": {"kind": "every"},
    }
    block |= {slot: changes.pop(slot) for slot in tuple(block) if slot in changes}
    sizes = {"width": WIDTH, "num_layers": 2, "context": CONTEXT, "init_std": 0.3, "embedding_std": 0.3}
    return {**sizes, "position": "rotary", "block": block, **changes}


def allowed(settings: Settings) -> ModelSpec | None:
    """Return the model, or None if its config is refused."""
    try:
        return ModelSpec.model_validate(settings)
    except pydantic.ValidationError:
        return None


@functools.cache
def allowed_in(slot: str) -> dict[str, Settings]:
    """Return those settings of `mixer`, `ffn` or `depth` with which a model of that slot alone is allowed."""
    return {
        name: settings
        for name, settings in settings_in(f"model/{slot}").items()
        if allowed(model_settings(**{slot: settings})) is not None
    }


def without_balance(settings: dict[str, Settings]) -> dict[str, Settings]:
    """Return one of all settings that differ only in how load is balanced, which no evaluation reads."""
    seen: dict[str, tuple[str, Settings]] = {}
    for name, setting in settings.items():
        rest = {key: value for key, value in setting.items() if key != "balance"}
        seen.setdefault(repr(rest), (name, setting))
    return dict(seen.values())


def crossings() -> Iterator[tuple[str, Settings]]:
    """Yield every allowed model: mixer x feed-forward layer x depth, inner slots included, by name."""
    parts = [without_balance(allowed_in(slot)).items() for slot in ("mixer", "ffn", "depth")]
    for (mixer, mixer_settings), (ffn, ffn_settings), (depth, depth_settings) in itertools.product(*parts):
        settings = model_settings(mixer=mixer_settings, ffn=ffn_settings, depth=depth_settings)
        yield f"{mixer}-{ffn}-{depth}", settings


def is_sampled(name: str, one_in: int) -> bool:
    """Tell whether a name is one of about 1 in `one_in`, always the same ones."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") % one_in == 0
