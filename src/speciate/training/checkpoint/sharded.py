"""Save, load and gather the state of a run whose tensors are sharded over its processes (FSDP2).

The files are those of torch.distributed.checkpoint: each process writes its own shards, and any number of processes
reads them, also a single one.
"""

import contextlib
import pathlib
import shutil
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from speciate.config.run import RunSpec
from speciate.training.build_model import build_model
from speciate.training.checkpoint.state import State
from speciate.training.distributed.ranks import Ranks, full_tensor


def gather_tensors(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the full tensors, gathered from all processes, on the CPU; a collective call."""
    return {name: full_tensor(tensor).detach().cpu() for name, tensor in tensors.items()}


def named_tensors(state: State) -> dict[str, Tensor]:
    """Return all tensors of a run's state by name.

    The names are `model.<name>`, `optimizer.<parameter>.<key>` and `average.<parameter>`.
    """
    tensors = {f"model.{name}": tensor for name, tensor in state.model.state_dict().items()}
    for name, parameter in state.model.named_parameters():
        for key, value in state.optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer.{name}.{key}"] = value
    ema_weights = {} if state.ema is None else state.ema.weights
    return tensors | {f"average.{name}": tensor for name, tensor in ema_weights.items()}


def save_sharded(folder: pathlib.Path, tensors: dict[str, Tensor], ranks: Ranks) -> None:
    """Write each process's shards of `tensors` into `folder`, which is made anew; a collective call."""
    from torch.distributed import checkpoint

    if ranks.is_main:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    ranks.barrier()
    writer = checkpoint.filesystem.FileSystemWriter(folder)
    with _without_warning():
        checkpoint.state_dict_saver.save(tensors, storage_writer=writer, no_dist=ranks.world == 1)


def load_sharded(folder: pathlib.Path, state: State, ranks: Ranks) -> None:
    """Load what `save_sharded` wrote into a run's state, whatever number of processes wrote it; a collective call.

    Raises:
        ValueError: the folder holds other tensors than the run has.
    """
    from torch.distributed import checkpoint

    reader = checkpoint.filesystem.FileSystemReader(folder)
    saved: dict[str, Any] = reader.read_metadata().state_dict_metadata
    for name, parameter in state.model.named_parameters():
        prefix = f"optimizer.{name}."
        for key in [full_key.removeprefix(prefix) for full_key in saved if full_key.startswith(prefix)]:
            like = saved[prefix + key]
            same = like.size == parameter.shape
            empty = torch.zeros_like(parameter) if same else torch.zeros(like.size, dtype=like.properties.dtype)
            state.optimizer.state[parameter][key] = empty.detach()
    tensors = named_tensors(state)
    if tensors.keys() != saved.keys():
        different = ", ".join(sorted(tensors.keys() ^ saved.keys())[:5])
        raise ValueError(f"{folder}: holds another run's tensors; they differ in {different}")
    with _without_warning():
        checkpoint.state_dict_loader.load(tensors, storage_reader=reader, no_dist=ranks.world == 1)


@contextlib.contextmanager
def _without_warning() -> Iterator[None]:
    """Silence torch's warning that a single process saves or loads without torch.distributed."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled, unavailable or uninitialized")
        yield


def gather_shards(state: State, spec: RunSpec, vocabulary: int) -> None:
    """Replace a sharded run's model and average by full ones; each process calls it."""
    weights = gather_tensors(state.model.state_dict())
    state.model = build_model(spec, vocabulary)
    state.model.load_state_dict(weights, assign=True)
    if state.ema is not None:
        state.ema.weights = gather_tensors(state.ema.weights)
