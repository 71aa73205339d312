"""Expand layer groups, a study file's short form for layers whose block differs from the model's.

`model.layer_groups` maps a name to the layers of the group and to what their block has different from `model.block`. A
spec holds `model.exceptions` instead, a list of layers with whole blocks (`speciate.config.run.ModelSpec`). Groups have
names, so an ablation can change one key of one group.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pydantic

from speciate.config.components import ConfigErrors, config_errors
from speciate.config.extends import merge
from speciate.config.run import BlockSpec, LayerGroup, ModelSpec


def expand_layer_groups(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return a study's plain data with `exceptions` in the place of `layer_groups`, in its base and its ablations.

    An ablation whose merge with the base changes the groups gets its own exceptions. What does not have the shape of a
    study is left for the study's own validation to refuse.

    Raises:
        ConfigErrors: a group is wrong; each error names the ablation (or the base), the group and the field.
    """
    base, ablations = settings.get("base"), settings.get("ablations")
    if not isinstance(base, Mapping) or not isinstance(ablations, Mapping):
        return dict(settings)
    base_exceptions = _exceptions(base, "base")
    expanded = dict(ablations)
    for name, ablation in ablations.items():
        change = ablation.get("change", {}) if isinstance(ablation, Mapping) else None
        if not isinstance(change, Mapping):
            continue
        exceptions = _exceptions(merge(base, change), f"ablations.{name}")
        if (exceptions or []) != (base_exceptions or []):
            expanded[name] = {**ablation, "change": _replace_groups(change, exceptions or [])}
        elif _groups_of(change) is not None:
            expanded[name] = {**ablation, "change": _replace_groups(change, None)}
    return {**settings, "base": _replace_groups(base, base_exceptions), "ablations": expanded}


def _groups_of(run: Mapping[str, Any]) -> Any:
    """Return the layer groups of a run's or a change's plain data, or None where it has none."""
    model = run.get("model")
    return model.get("layer_groups") if isinstance(model, Mapping) else None


def _replace_groups(run: Mapping[str, Any], exceptions: list[dict[str, Any]] | None) -> dict[str, Any]:
    """Return a run's or a change's plain data without layer groups, and with `exceptions` where these are not None."""
    model = run.get("model", {})
    if not isinstance(model, Mapping) or (exceptions is None and "layer_groups" not in model):
        return dict(run)
    rest = {key: value for key, value in model.items() if key != "layer_groups"}
    return {**run, "model": rest if exceptions is None else {**rest, "exceptions": exceptions}}


def _exceptions(run: Mapping[str, Any], where: str) -> list[dict[str, Any]] | None:
    """Return the exceptions that the layer groups of a run's plain data stand for, or None where it has no groups."""
    groups = _groups_of(run)
    if groups is None:
        return None
    where = f"{where}.model.layer_groups"
    if not isinstance(groups, Mapping):
        raise ConfigErrors([(where, f"must be a mapping of names to groups, not {groups!r}")])
    model = run["model"]
    if model.get("exceptions"):
        raise ConfigErrors([(where, "cannot be combined with exceptions; give one or the other")])
    block = model.get("block")
    errors = _group_errors(groups, block, model.get("num_layers", ModelSpec.model_fields["num_layers"].default))
    if errors:
        raise ConfigErrors([(f"{where}.{path}", why) for path, why in errors])
    return [
        {"layers": group["layers"], "block": merge(block if isinstance(block, Mapping) else {}, group.get("block", {}))}
        for group in groups.values()
    ]


def _group_errors(groups: Mapping[str, Any], block: Any, num_layers: Any) -> list[tuple[str, str]]:
    """Return what is wrong with layer groups, each as (dotted path within the groups, why)."""
    errors: list[tuple[str, str]] = []
    taken: Counter[int] = Counter()
    for name, group in groups.items():
        problems = _errors_of(LayerGroup, group)
        if not problems:
            beyond = [layer for layer in group["layers"] if isinstance(num_layers, int) and layer >= num_layers]
            twice = [layer for layer in group["layers"] if taken[layer]]
            taken.update(group["layers"])
            if beyond:
                problems.append(("layers", f"layers {beyond} do not exist in a model of {num_layers}"))
            if twice:
                problems.append(("layers", f"layers {twice} are also in another group"))
            # where the model's own block is wrong, the error belongs to that block
            if isinstance(block, Mapping) and not _errors_of(BlockSpec, block):
                problems += [
                    (f"block.{path}" if path else "block", why)
                    for path, why in _errors_of(BlockSpec, merge(block, group.get("block", {})))
                ]
        errors += [(f"{name}.{path}" if path else str(name), why) for path, why in problems]
    return errors


def _errors_of(cls: type[pydantic.BaseModel], value: Any) -> list[tuple[str, str]]:
    """Return what `cls` refuses in `value`."""
    try:
        cls.model_validate(value)
    except pydantic.ValidationError as error:
        return config_errors(error)
    return []
