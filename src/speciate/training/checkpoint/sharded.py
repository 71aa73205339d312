"""The state of a run whose tensors are spread over its processes: saved in parts, loaded in others, made whole.

Files are those of torch.distributed.checkpoint: each process writes its own parts, and any number of processes reads
them, one included.
"""

import contextlib
import pathlib
import shutil
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from speciate.training.distributed.ranks import Ranks, full


def whole(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, gathered from all processes; a collective call. On the CPU."""
    return {name: full(tensor).detach().cpu() for name, tensor in tensors.items()}


def parts(model: nn.Module, optimizer: torch.optim.Optimizer, average: dict[str, Tensor] | None) -> dict[str, Tensor]:
    """All tensors of a run's state by name: `model.<name>`, `optimizer.<parameter>.<key>`, `average.<parameter>`."""
    found = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            found[f"optimizer.{name}.{key}"] = value
    return found | {f"average.{name}": tensor for name, tensor in (average or {}).items()}


def save_parts(folder: pathlib.Path, tensors: dict[str, Tensor], ranks: Ranks) -> None:
    """Each process writes its parts of `tensors` into `folder`, which is made anew; torch.distributed.checkpoint."""
    from torch.distributed import checkpoint

    if ranks.first:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    ranks.wait()
    writer = checkpoint.filesystem.FileSystemWriter(folder)
    with _quietly():
        checkpoint.state_dict_saver.save(tensors, storage_writer=writer, no_dist=ranks.world == 1)


def load_parts(
    folder: pathlib.Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: dict[str, Tensor] | None,
    ranks: Ranks,
) -> None:
    """Reads what `save_parts` wrote into a run's state, whatever number of processes wrote it, and now reads.

    Raises:
        ValueError: the folder holds other tensors than the run has.
    """
    from torch.distributed import checkpoint

    reader = checkpoint.filesystem.FileSystemReader(folder)
    there: dict[str, Any] = reader.read_metadata().state_dict_metadata
    for name, parameter in model.named_parameters():
        prefix = f"optimizer.{name}."
        for key in [known.removeprefix(prefix) for known in there if known.startswith(prefix)]:
            like = there[prefix + key]
            same = like.size == parameter.shape
            empty = torch.zeros_like(parameter) if same else torch.zeros(like.size, dtype=like.properties.dtype)
            optimizer.state[parameter][key] = empty.detach()
    wanted = parts(model, optimizer, average)
    if wanted.keys() != there.keys():
        odd = ", ".join(sorted(wanted.keys() ^ there.keys())[:5])
        raise ValueError(f"{folder}: does not hold this run's tensors; they differ in {odd}")
    with _quietly():
        checkpoint.state_dict_loader.load(wanted, storage_reader=reader, no_dist=ranks.world == 1)


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without torch's warning that a process which is alone saves or loads alone."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled, unavailable or uninitialized")
        yield
