"""TensorBoard's event files, one folder a run; `tensorboard --logdir FOLDER` shows them.

Written by tensorboardX, which needs neither TensorBoard nor TensorFlow.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

from speciate.config.contracts.training import SinkOptions
from speciate.training.logs.sinks import import_client


class Options(SinkOptions):
    """None."""


class Sink:
    """An event file; of a run that goes on, TensorBoard forgets what came after the step where it does."""

    def __init__(self, options: Options, label: str, folder: pathlib.Path, config: dict[str, Any], first: int) -> None:
        writer = import_client("tensorboardX", "tensorboardX", options.kind).SummaryWriter
        self.writer: Any = writer(str(folder / label), purge_step=first or None)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Adds scalars."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Writes what is left."""
        self.writer.close()
