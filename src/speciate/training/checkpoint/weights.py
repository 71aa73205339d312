"""A model's weights and buffers as a safetensors file, and back."""

import contextlib
import os
import pathlib
import re
from collections.abc import Iterator, Mapping

import safetensors
import safetensors.torch
import torch
from torch import nn


def save_weights(model: nn.Module, file: pathlib.Path, replaced: Mapping[str, torch.Tensor] | None = None) -> None:
    """Write a model's weights and buffers as safetensors; a tensor that has two names is written once.

    Args:
        model: the model.
        file: the file to write.
        replaced: tensors to write in place of the model's own, by name, such as a moving average of its parameters.
    """
    save_tensors(unique_tensors(model) | dict(replaced or {}), file)


def load_weights(model: nn.Module, file: pathlib.Path) -> None:
    """Load what `save_weights` wrote. Raises ValueError if the file is of another model, naming the tensors."""
    try:
        weights = safetensors.torch.load_file(file)
    except (OSError, safetensors.SafetensorError) as error:
        raise ValueError(f"{file}: cannot be read as weights: {error}") from None
    expected = unique_tensors(model)
    different = sorted(set(weights) ^ set(expected)) or sorted(
        name for name in expected if weights[name].shape != expected[name].shape
    )
    if different:
        raise ValueError(f"{file}: holds another model's weights; they differ in {', '.join(different[:5])}")
    model.load_state_dict(weights, strict=False)


def unique_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return the state dict without names that share another's memory (a tied head)."""
    addresses: set[int] = set()
    weights: dict[str, torch.Tensor] = {}
    for name, tensor in model.state_dict().items():
        if tensor.data_ptr() not in addresses or tensor.numel() == 0:
            addresses.add(tensor.data_ptr())
            weights[name] = tensor.contiguous()
    return weights


@contextlib.contextmanager
def disk_errors(folder: pathlib.Path) -> Iterator[None]:
    """Turn safetensors' textual report of a system error back into the OSError that it was, about `folder`."""
    try:
        yield
    except safetensors.SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(folder)) from None


def save_tensors(tensors: dict[str, torch.Tensor], file: pathlib.Path) -> None:
    """Write tensors as safetensors. Raises OSError if they cannot be written, for example on a full disk."""
    with disk_errors(file.parent):
        safetensors.torch.save_file(tensors, file)
