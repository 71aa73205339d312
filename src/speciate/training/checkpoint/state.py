"""The state of a training run between two steps, and the names of the files that hold its weights."""

import pathlib
from dataclasses import dataclass

import torch

from speciate.model.transformer import Transformer
from speciate.training.checkpoint.ema import WeightAverage
from speciate.training.probe import Arrays

MODEL = "model.safetensors"
"""The weights in a checkpoint, and those of a finished run that are evaluated."""
EMA = "ema.safetensors"
"""The moving average of the weights, in a checkpoint, and next to a finished run's model if that is not the average."""


@dataclass
class State:
    """Everything that changes while a run trains."""

    step: int
    """The number of steps made so far."""
    model: Transformer
    optimizer: torch.optim.Optimizer
    metrics: list[str]
    """The lines of metrics.jsonl so far."""
    telemetry: Arrays
    """What the observer has recorded so far."""
    ema: WeightAverage | None = None
    """The moving average of the weights; None where the run keeps none."""
    rng_states: torch.Tensor | None = None
    """Random states of all processes, where several train and one saves; None: a checkpoint takes this process's."""
    shards: pathlib.Path | None = None
    """The folder of `save_sharded`, whose files a checkpoint takes in place of weights and optimizer state."""
    grad_accumulation: int | None = None
    """Micro-batches per step from here on, where memory forced more than the spec's."""
