"""Read pretrained weights: a folder that transformers wrote (one of FAMILIES), or a GGUF file (Llama).

Both are read in float32 and renamed to our names. The result includes the shape that their config describes, with which
the shape of a run that starts from them is compared.
"""

import pathlib
from dataclasses import dataclass

import pydantic
import safetensors
import safetensors.torch
from torch import Tensor

from speciate.config.components import config_errors
from speciate.config.pretrained.families import Config, shape_of_config, window_of
from speciate.config.pretrained.read import read_config
from speciate.config.run import ModelSpec
from speciate.model.hf import gemma, gguf, gpt2, llama, qwen
from speciate.model.hf.convert import Family, complete_names, import_weights

FAMILIES = {
    "gpt2": gpt2.FAMILY,
    "llama": llama.FAMILY,
    "mistral": llama.MISTRAL,
    "qwen2": qwen.QWEN2,
    "qwen3": qwen.QWEN3,
    "gemma": gemma.FAMILY,
}
"""Families that are read, by the `model_type` of a config.json."""


@dataclass(frozen=True)
class Pretrained:
    """Shape and weights of a dense model."""

    model: ModelSpec
    weights: dict[str, Tensor]
    """Weights under our names, float32."""
    origin: str
    """Where it was read from, for messages."""
    window: int | None = None
    """Number of latest tokens that a position of the published model attends to; None: all of them."""


def shape_of(config: Config) -> tuple[Family, ModelSpec]:
    """Return the family and the shape that a config.json describes.

    Raises:
        ValueError: the family is unknown, or a setting is not supported; names the key.
    """
    shape = shape_of_config(config, "")
    try:
        return FAMILIES[config["model_type"]], ModelSpec.model_validate(shape.model)
    except pydantic.ValidationError as error:
        raise ValueError("; ".join(f"{path}: {why}" for path, why in config_errors(error))) from None


def read_pretrained(path: pathlib.Path) -> Pretrained:
    """Read a transformers folder, a folder that holds one GGUF file, or that file.

    Raises:
        ValueError: there is neither, a file is damaged, or its model is not supported; names the file.
    """
    files = [path] if path.suffix == ".gguf" else sorted(path.glob("*.gguf"))
    if len(files) == 1 and not (path / "config.json").exists():
        source, (config, hf_weights) = files[0], gguf.read_gguf(files[0])
    else:
        source = path / "config.json"
        config, hf_weights = read_config(source), _weights(path)
    try:
        family, model = shape_of(config)
        weights = import_weights(complete_names(hf_weights, family, model.tied_head), family.rules(model))
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None
    return Pretrained(model, {name: weight.float() for name, weight in weights.items()}, str(path), window_of(config))


def _weights(folder: pathlib.Path) -> dict[str, Tensor]:
    """Read the tensors of every safetensors file in `folder`, unchanged."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ValueError(f"{folder}: holds no .safetensors file; weights in pickles (.bin, .pt) are not read")
    hf_weights: dict[str, Tensor] = {}
    for file in files:
        try:
            part = safetensors.torch.load_file(file)
        except (OSError, safetensors.SafetensorError) as error:
            raise ValueError(f"{file}: is no weights file: {error}") from None
        duplicates = sorted(set(part) & set(hf_weights))
        if duplicates:
            raise ValueError(f"{file}: holds {duplicates[0]}, which another file of the folder also holds")
        hf_weights |= part
    return hf_weights
