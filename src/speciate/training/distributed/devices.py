"""The device that a process computes on: the CPU, or a GPU that no other process of this node uses.

A scheduler that assigns GPUs to a job says so by CUDA_VISIBLE_DEVICES (Slurm does). They are then the job's own, and
its process k takes the k-th. Otherwise each process takes a free GPU (gpu_slots.py).
"""

import contextlib
import os
from collections.abc import Callable, Iterator

import torch

from speciate.config.run import TrainingSpec
from speciate.training.distributed.gpu_slots import free_gpu

SCHEDULER_VARIABLES = ("CUDA_VISIBLE_DEVICES", "SLURM_JOB_GPUS")
"""Set if this job's GPUs have been assigned to it already."""


def device_type(settings: TrainingSpec) -> str:
    """Return cuda or cpu, as the run asks. Raises ValueError if it asks for a GPU and torch finds none."""
    if settings.device == "cpu" or (settings.device == "auto" and not torch.cuda.is_available()):
        return "cpu"
    if not torch.cuda.is_available():
        raise ValueError("training.device: is cuda, but torch finds no GPU; set it to auto or cpu")
    return "cuda"


@contextlib.contextmanager
def acquire_device(
    settings: TrainingSpec, local_rank: int = 0, wait: Callable[[], object] | None = None
) -> Iterator[torch.device]:
    """Yield the device of this process, which has it to itself until the block ends.

    Args:
        settings: the run's.
        local_rank: which of the run's processes on this node this one is, from 0.
        wait: wait for a free GPU until this is true; None: do not wait.

    Raises:
        ValueError: there is no GPU, or none is free.
    """
    if device_type(settings) == "cpu":
        yield torch.device("cpu")
        return
    count = torch.cuda.device_count()
    with contextlib.ExitStack() as stack:
        if any(os.environ.get(variable) for variable in SCHEDULER_VARIABLES):
            index = local_rank
            if index >= count:
                raise ValueError(f"training.processes: process {index} of this node has no GPU; torch finds {count}")
        else:
            index = stack.enter_context(free_gpu(count, wait))
        torch.cuda.set_device(index)
        yield torch.device("cuda", index)
