"""A model's weights and buffers as a safetensors file, and back."""

import contextlib
import os
import pathlib
import re
from collections.abc import Iterator

import safetensors
import safetensors.torch
import torch
from torch import nn

from speciate.training.checkpoint.ema import WeightAverage


def save_weights(model: nn.Module, file: pathlib.Path, average: WeightAverage | None = None) -> None:
    """Writes a model's weights and buffers as safetensors; a tensor that two names share is written once.

    With an average of its parameters, that stands in their place; buffers stay the model's own.
    """
    save_tensors(tensors_of(model) | (average.weights if average else {}), file)


def load_weights(model: nn.Module, file: pathlib.Path) -> None:
    """Loads what `save_weights` wrote. Raises ValueError where the file is not of this model, naming the tensors."""
    try:
        weights = safetensors.torch.load_file(file)
    except (OSError, safetensors.SafetensorError) as error:
        raise ValueError(f"{file}: is no weights file: {error}") from None
    expected = tensors_of(model)
    odd = sorted(set(weights) ^ set(expected)) or sorted(
        name for name in expected if weights[name].shape != expected[name].shape
    )
    if odd:
        raise ValueError(f"{file}: does not hold this model's weights; they differ in {', '.join(odd[:5])}")
    model.load_state_dict(weights, strict=False)


def tensors_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """The state dict without names that share another's memory (a tied head)."""
    seen: set[int] = set()
    weights: dict[str, torch.Tensor] = {}
    for name, tensor in model.state_dict().items():
        if tensor.data_ptr() not in seen or tensor.numel() == 0:
            seen.add(tensor.data_ptr())
            weights[name] = tensor.contiguous()
    return weights


@contextlib.contextmanager
def full_disk(place: pathlib.Path) -> Iterator[None]:
    """An error of the system that safetensors tells in words is raised as what it is."""
    try:
        yield
    except safetensors.SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(place)) from None


def save_tensors(tensors: dict[str, torch.Tensor], file: pathlib.Path) -> None:
    """Writes them as safetensors. Raises OSError where it cannot be written: the disk is full."""
    with full_disk(file.parent):
        safetensors.torch.save_file(tensors, file)
