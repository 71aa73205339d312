"""The metadata in run.json about the environment of a run; only the study's manifest repeats it."""

import platform
from typing import Any

import numpy as np
import safetensors
import torch

from speciate.machine import job, processor
from speciate.training.distributed.ranks import Ranks


def environment(ranks: Ranks, attempt: int = 1) -> dict[str, Any]:
    """Return the processor, threads, processes, device, versions and job of this run, and which attempt it is."""
    return {
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "processes": ranks.world,
        "device": torch.cuda.get_device_name(ranks.device) if ranks.device.type == "cuda" else "cpu",
        "versions": versions(),
        "job": job() | {"attempt": attempt},
    }


def versions() -> dict[str, str]:
    """Return the versions of what computed the run; torch's names its build, `cpu` is the instruction set it uses."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "safetensors": safetensors.__version__,
        "platform": platform.platform(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
    }
