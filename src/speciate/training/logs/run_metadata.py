"""What run.json and timing.json say of a run: its size, what computed it, and how long that took."""

import platform
import resource
import time
from typing import Any

import numpy as np
import safetensors
import torch

from speciate.config.run import RunSpec
from speciate.data.blocks import TrainBlocks
from speciate.model.transformer import count_parameters
from speciate.training.checkpoint.store import State
from speciate.training.context import Clock
from speciate.training.distributed.ranks import Ranks
from speciate.training.logs.progress import Progress


def run_metadata(spec: RunSpec, state: State, blocks: TrainBlocks, ranks: Ranks) -> dict[str, Any]:
    """What run.json says of a run but how it ended and what its optimizer updates."""
    settings = spec.training
    total, active = count_parameters(state.model)
    return {
        "ablation": spec.ablation,
        "seed": spec.seed,
        "parameters_total": total,
        "parameters_active": active,
        "num_steps": settings.num_steps,
        "train_tokens": settings.num_steps * settings.blocks_per_step * blocks.block_length,
        "epochs": settings.num_steps * settings.blocks_per_step / len(blocks),
        "threads": torch.get_num_threads(),
        "processes": ranks.world,
        "device": torch.cuda.get_device_name(ranks.device) if ranks.device.type == "cuda" else "cpu",
        "versions": versions(),
    }


def timing(clock: Clock, progress: Progress, step: int) -> dict[str, Any]:
    """What timing.json says: of the process that ended the run, at its last step."""
    return {
        "wall_seconds": time.monotonic() - clock.wall,
        "cpu_seconds": time.process_time() - clock.cpu,
        "cpu_seconds_by_part": clock.seconds,
        "tokens_per_second": progress.tokens_per_second(step),
        # of matrix products alone, with all else that the training did in its time; null: of an unknown peak
        "flops_per_token": progress.flops,
        "mfu": progress.mfu(step),
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def versions() -> dict[str, str]:
    """What computed this run; the torch version names its build."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "safetensors": safetensors.__version__,
        "platform": platform.platform(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
    }
