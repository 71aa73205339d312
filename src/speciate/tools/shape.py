"""Print the shape of a checkpoint, in the keys of a study's `model`.

Planning a study fills `model` from the checkpoint that a run starts from. Where planning cannot reach the checkpoint,
the study holds what this prints, under `start.origin.shape`. The checkpoint is a folder with a config.json or one GGUF
file, such a file itself, or a model on the hub as OWNER/NAME@COMMIT. No weight is read.

Example:
    speciate shape models/gpt2 > studies/parts/models/mine.yaml
"""

import argparse
import pathlib
import re

import yaml

from speciate.config.pretrained.families import Shape
from speciate.config.pretrained.read import config_file_shape, folder_shape, hub_shape


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", help="a folder, a config.json, a GGUF file, or OWNER/NAME@COMMIT of the hub")


def main(arguments: argparse.Namespace) -> None:
    """Print the shape as YAML. Raises ValueError where the checkpoint cannot be read, or is not supported."""
    shape = _shape_of(arguments.checkpoint)
    print(f"# {shape.origin}")
    print(yaml.safe_dump(dict(shape.model), sort_keys=False), end="")


def _shape_of(checkpoint: str) -> Shape:
    path = pathlib.Path(checkpoint)
    if path.name == "config.json" and path.is_file():
        return config_file_shape(path, checkpoint)
    if path.exists():
        return folder_shape(path)
    pinned = re.fullmatch(r"([\w.-]+(?:/[\w.-]+)?)@([0-9a-f]{40})", checkpoint)
    if pinned is None:
        raise ValueError(f"{checkpoint}: is neither a file or folder here nor OWNER/NAME@COMMIT, 40 hex digits")
    return hub_shape(pinned[1], pinned[2])
