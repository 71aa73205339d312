"""The metadata in run.json about the environment of a run; only the study's manifest repeats it."""

import os
import platform
from typing import Any

import numpy as np
import safetensors
import torch

from speciate.machine import processor
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


def job() -> dict[str, Any]:
    """Return the image in which this process runs, and its job of Slurm and how often that was requeued, if any."""
    names = {"image": "APPTAINER_CONTAINER", "slurm_job": "SLURM_JOB_ID", "requeued": "SLURM_RESTART_COUNT"}
    return {key: os.environ[name] for key, name in names.items() if name in os.environ}


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
