"""Weights that somebody trained: a folder that transformers wrote (GPT-2 or Llama), or a GGUF file (Llama).

Both are read in float32 and come out under our own names, with the shape that their own config describes, so that a
run that starts from them can be held against it.
"""

import json
import pathlib
from dataclasses import dataclass
from typing import Any

import pydantic
import safetensors
import safetensors.torch
from torch import Tensor

from speciate.config.components import config_errors
from speciate.config.run import ModelSpec
from speciate.model.hf import gguf, gpt2, llama
from speciate.model.hf.convert import Config, Family, clean, to_ours

FAMILIES = {"gpt2": gpt2.FAMILY, "llama": llama.FAMILY}
"""By the `model_type` of a config.json."""


@dataclass(frozen=True)
class Pretrained:
    """A dense model's shape and weights."""

    model: ModelSpec
    weights: dict[str, Tensor]
    """Under our names, float32."""
    origin: str
    """Where it was read, for messages."""


def family_of(model: ModelSpec) -> Family | None:
    """The family that has models of this shape, or None."""
    return next((family for family in FAMILIES.values() if family.config(model) is not None), None)


def shape_of(config: Config) -> tuple[Family, ModelSpec]:
    """The family and the shape that a config.json describes.

    Raises:
        ValueError: of no family that we know, or with something in it that we do not have; names the key.
    """
    family = FAMILIES.get(str(config.get("model_type")))
    if family is None:
        raise ValueError(f"model_type: {config.get('model_type')!r} is none of {', '.join(FAMILIES)}")
    try:
        return family, ModelSpec.model_validate(family.settings(config))
    except KeyError as error:
        raise ValueError(f"{error.args[0]}: is missing") from None
    except pydantic.ValidationError as error:
        raise ValueError("; ".join(f"{path}: {why}" for path, why in config_errors(error))) from None


def read_pretrained(path: pathlib.Path) -> Pretrained:
    """What is in a transformers folder, in a folder that holds one GGUF file, or in that file.

    Raises:
        ValueError: neither is there, a file is damaged, or what it describes is not supported; names the file.
    """
    files = [path] if path.suffix == ".gguf" else sorted(path.glob("*.gguf"))
    if len(files) == 1 and not (path / "config.json").exists():
        source, (config, theirs) = files[0], gguf.read(files[0])
    else:
        source, (config, theirs) = path / "config.json", (_config(path), _weights(path))
    try:
        family, model = shape_of(config)
        ours = to_ours(clean(theirs, family, model.tied_head), family.rules(model))
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None
    return Pretrained(model, {name: weight.float() for name, weight in ours.items()}, str(path))


def _config(folder: pathlib.Path) -> dict[str, Any]:
    file = folder / "config.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{file}: cannot be read: {error}") from None
    if not isinstance(config, dict):
        raise ValueError(f"{file}: must hold an object")
    return config


def _weights(folder: pathlib.Path) -> dict[str, Tensor]:
    """The tensors of every safetensors file in `folder`, as they are."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ValueError(f"{folder}: holds no .safetensors file; weights in pickles (.bin, .pt) are not read")
    theirs: dict[str, Tensor] = {}
    for file in files:
        try:
            part = safetensors.torch.load_file(file)
        except (OSError, safetensors.SafetensorError) as error:
            raise ValueError(f"{file}: is no weights file: {error}") from None
        doubled = sorted(set(part) & set(theirs))
        if doubled:
            raise ValueError(f"{file}: holds {doubled[0]}, which another file of the folder holds too")
        theirs |= part
    return theirs
