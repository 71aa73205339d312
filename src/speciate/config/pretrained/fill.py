"""Fill a study's models from the checkpoints that its runs start from.

A run that starts from a checkpoint must have its shape. So what a study does not write under `model` is taken from the
checkpoint, and what it writes otherwise is refused by name. This happens to a study's plain data, before it is checked
and frozen: jobs never read the checkpoint to plan.

    base.start            fills base.model, which every arm inherits
    an arm's own start    fills its `change.model`; a sweep's, the `change` of all its arms

An arm whose start is of another kind than the base's, and names no origin, has the base's origin: `start: upcycle`.

A layer of experts takes `hidden` and `activation` from the dense layer. A start that copies the dense layer into the
experts needs them to agree. Rotary positions have no weights, so a study may write a shorter context.
"""

import copy
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import pydantic

from speciate.config.components import OneOf, config_errors, kinds_in, options_of
from speciate.config.contracts.training import OriginOptions
from speciate.config.extends import merge
from speciate.config.pretrained.families import Shape
from speciate.config.sweeps import WHOLE

Path = tuple[str, ...]
"""The keys that lead to a value."""
Settings = dict[str, Any]
STARTS, FFN = "training/init/start", "model/ffn"
SLOTS = ("mixer", "ffn", "depth")
ORIGIN: pydantic.TypeAdapter[OriginOptions] = pydantic.TypeAdapter(
    Annotated[OriginOptions, OneOf("training/init/origin")]
)


@dataclass(frozen=True)
class FilledStudy:
    """A study's plain data after filling."""

    settings: Settings
    origins: Mapping[Path, str]
    """Path of each key that was filled -> what it comes from."""


@dataclass(frozen=True)
class _Start:
    """What a run starts from, as far as its model must follow it."""

    shape: Shape
    fills_experts: bool


class _Filler:
    """Fills one study; it reads each checkpoint once and collects all contradictions."""

    def __init__(self) -> None:
        self.errors: list[str] = []
        self._shapes: dict[str, Shape | None] = {}

    def start_of(self, run: Mapping[str, Any], where: str) -> _Start | None:
        """Return what a run's plain data start from; None where they name no checkpoint with a known shape."""
        start = run.get("start")
        kind = start.get("kind") if isinstance(start, Mapping) else None
        if not isinstance(start, Mapping) or not isinstance(kind, str) or kind not in kinds_in(STARTS):
            return None
        options: Any = options_of(STARTS, kind)
        if options.loads_oracle or "origin" not in start:
            return None
        key = repr(start["origin"])
        if key not in self._shapes:
            self._shapes[key] = self._read(start["origin"], where)
        shape = self._shapes[key]
        return None if shape is None else _Start(shape, options.fills_experts)

    def _read(self, origin: Any, where: str) -> Shape | None:
        at = f"{where}.start.origin"
        try:
            return ORIGIN.validate_python(origin).shape_of_model()
        except pydantic.ValidationError as error:
            self.errors += [f"{at}.{path}: {why}" if path else f"{at}: {why}" for path, why in config_errors(error)]
        except ValueError as error:
            self.errors.append(f"{at}: {error}")
        return None

    def fill(self, model: Any, start: _Start, where: str) -> Settings:
        """Return a model's plain data with what the checkpoint has beyond them."""
        filled = copy.deepcopy(dict(model)) if isinstance(model, Mapping) else {}
        shape = start.shape
        for key, value in shape.model.items():
            if key == "context":
                self._fill_context(filled, start, where)
            elif key != "block":
                self._fill_key(filled, (key, value), shape, where)
        block = filled["block"] = self._fill_block(filled.get("block"), start, f"{where}.block")
        if isinstance(groups := filled.get("layer_groups"), Mapping):
            for name, group in groups.items():
                if isinstance(group, dict) and isinstance(group.get("block"), dict) and "ffn" in group["block"]:
                    whole = merge(block, group["block"])
                    if whole["ffn"] != block["ffn"]:
                        at = f"{where}.layer_groups.{name}.block.ffn"
                        group["block"]["ffn"] = self._fill_ffn(whole["ffn"], start, at)
        if isinstance(exceptions := filled.get("exceptions"), list):
            for index, exception in enumerate(exceptions):
                if isinstance(exception, dict):
                    at = f"{where}.exceptions.{index}.block"
                    exception["block"] = self._fill_block(exception.get("block"), start, at)
        return filled

    def _fill_context(self, model: Settings, start: _Start, where: str) -> None:
        shape = start.shape
        if shape.model["position"] != "rotary":
            self._fill_key(model, ("context", shape.model["context"]), shape, where)
            return
        longest = shape.model["context"] if shape.window is None else min(shape.model["context"], shape.window)
        written = model.setdefault("context", longest)
        if isinstance(written, int) and written > longest:
            attends = "" if shape.window is None else f", which attends to the {shape.window} latest tokens alone,"
            self.errors.append(
                f"{where}.context: is {written}, and the checkpoint {shape.origin}{attends} has at most {longest}"
            )

    def _fill_block(self, block: Any, start: _Start, where: str) -> Settings:
        filled = dict(block) if isinstance(block, Mapping) else {}
        for slot in SLOTS:
            own = _with_kind(filled.get(slot))
            theirs = _with_kind(start.shape.model["block"][slot])
            if slot == "ffn" and own is not None:
                filled[slot] = self._fill_ffn(own, start, f"{where}.{slot}")
            else:
                filled[slot] = {} if own is None else own
                for item in theirs.items():
                    self._fill_key(filled[slot], item, start.shape, f"{where}.{slot}")
        return filled

    def _fill_ffn(self, ffn: Any, start: _Start, where: str) -> Any:
        """Return a feed-forward layer with the dense layer's sizes, as far as its kind has them."""
        own, dense = _with_kind(ffn), _with_kind(start.shape.model["block"]["ffn"])
        if own is None:
            return ffn
        kind = own.setdefault("kind", dense["kind"])
        fields = options_of(FFN, kind).model_fields if kind in kinds_in(FFN) else {}
        for key, value in dense.items():
            if key != "kind" and key in fields:
                if kind == dense["kind"] or start.fills_experts:
                    self._fill_key(own, (key, value), start.shape, where)
                else:
                    own.setdefault(key, value)
        return own

    def _fill_key(self, settings: Settings, item: tuple[str, Any], shape: Shape, where: str) -> None:
        key, value = item
        written = settings.setdefault(key, copy.deepcopy(value))
        # a head of its own may start as a copy of the embedding
        if not _agree(written, value) and not (key == "tied_head" and written is False):
            self.errors.append(f"{where}.{key}: is {written!r}, and the checkpoint {shape.origin} has {value!r}")


def fill_from_checkpoints(settings: Mapping[str, Any], file: str) -> FilledStudy:
    """Return a study's plain data with each model filled from the checkpoint that its run starts from.

    What does not have the shape of a study is left for the study's own validation to refuse.

    Args:
        settings: plain data, `extends` already resolved.
        file: the study file's name, for messages.

    Raises:
        ValueError: a checkpoint cannot be read, or a key contradicts it; one line a problem, each naming the key.
    """
    base = settings.get("base")
    if not isinstance(base, Mapping):
        return FilledStudy(dict(settings), {})
    filler = _Filler()
    origins: dict[Path, str] = {}
    start = filler.start_of(base, "base")
    filled_base = dict(base)
    if start is not None:
        filled_base["model"] = filler.fill(base.get("model"), start, "base.model")
        origins |= _filled_paths(
            base.get("model"), filled_base["model"], ("base", "model"), f"checkpoint {start.shape.origin}"
        )
    filled = {**settings, "base": filled_base}
    for section in ("ablations", "sweeps"):
        arms = settings.get(section)
        if filler.errors or not isinstance(arms, Mapping):
            continue
        filled[section] = dict(arms)
        for name, arm in arms.items():
            change = arm.get("change", {}) if isinstance(arm, Mapping) else None
            if not isinstance(change, Mapping):
                continue
            where, at = f"{section}.{name}", (section, str(name), "change")
            new = _with_origin(base, change)
            if new != change:
                filled[section][name] = {**arm, "change": new}
                origins |= _filled_paths(change.get("start"), new["start"], (*at, "start"), "base.start")
            run = merge(base, new)
            own = filler.start_of(run, where)
            if own is None:
                continue
            if start is not None and own.shape == start.shape:
                run = merge(filled_base, new)
            wanted = filler.fill(run.get("model"), own, f"{where}.model")
            new = _change_towards(wanted, filled_base, new)
            if new.get("model") != change.get("model"):
                filled[section][name] = {**arm, "change": new}
                origins |= _filled_paths(
                    change.get("model"), new["model"], (*at, "model"), f"checkpoint {own.shape.origin}"
                )
    if filler.errors:
        raise ValueError("\n".join(f"{file}: {error}" for error in dict.fromkeys(filler.errors)))
    return FilledStudy(filled, origins)


def _with_origin(base: Mapping[str, Any], change: Mapping[str, Any]) -> Settings:
    """Return `change`; where its start is of another kind than the base's and has no origin, with the base's origin."""
    theirs, own = _with_kind(base.get("start")), _with_kind(change.get("start"))
    if theirs is None or own is None or "origin" not in theirs or "origin" in own:
        return dict(change)
    kind = own.get("kind", theirs.get("kind"))
    if kind == theirs.get("kind") or kind not in kinds_in(STARTS):
        return dict(change)
    options: Any = options_of(STARTS, kind)
    if options.loads_oracle or "origin" not in options.model_fields:
        return dict(change)
    return {**change, "start": {**own, "origin": copy.deepcopy(theirs["origin"])}}


def _with_kind(value: Any) -> Any:
    """Return a component's settings as a new mapping: `every` is short for `{kind: every}`; None: there are none."""
    if isinstance(value, str):
        return {"kind": value}
    return dict(value) if isinstance(value, Mapping) else None


def _agree(written: Any, value: Any) -> bool:
    """Return whether a key that is written agrees with the checkpoint; a sweep's parameter is judged in the run."""
    if isinstance(written, str) and WHOLE.fullmatch(written):
        return True
    numbers = [isinstance(each, int | float) and not isinstance(each, bool) for each in (written, value)]
    if all(numbers):
        return math.isclose(written, value, rel_tol=1e-6)
    return type(written) is type(value) and bool(written == value)


def _change_towards(wanted: Settings, base: Mapping[str, Any], change: Mapping[str, Any]) -> Settings:
    """Return `change` with what it needs so that its merge with `base` has the model `wanted`."""
    changed = copy.deepcopy(dict(change))
    for path, value in _leaves(wanted, ("model",)):
        if _at(merge(base, changed), path) != value:
            _put(changed, path, value, base)
    merged = merge(base, changed).get("model")
    for path, _ in list(_leaves(merged, ("model",))):
        if _at({"model": wanted}, path) is None and _at({"model": wanted}, (*path[:-1], "kind")) != path[-1]:
            _put(changed, path, None, base)
    return changed


def _leaves(value: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    """Yield every value of plain data that is no mapping, with its path, kinds first."""
    if not isinstance(value, Mapping):
        yield path, value
        return
    for key in sorted(value, key=lambda key: key != "kind"):
        yield from _leaves(value[key], (*path, str(key)))


def _at(settings: Any, path: Path) -> Any:
    """Return the value at a path; None where there is none. A component's name stands for its kind."""
    for key in path:
        if isinstance(settings, str) and key == "kind":
            return settings
        settings = settings.get(key) if isinstance(settings, Mapping) else None
    return settings


def _put(settings: Settings, path: Path, value: Any, base: Mapping[str, Any]) -> None:
    """Set the value at a path; a component given by its name alone becomes a mapping."""
    *above, last = path
    for key in above:
        inner = settings.get(key)
        settings[key] = settings = {"kind": inner} if isinstance(inner, str) else dict(inner or {})
    settings[last] = value


def _filled_paths(before: Any, after: Any, path: Path, origin: str) -> dict[Path, str]:
    """Return the path of each value that `after` has beyond `before`, with where it comes from."""
    return {
        (*path, *inner): origin
        for inner, value in _leaves(after, ())
        if value is not None and _at(before, inner) is None
    }
