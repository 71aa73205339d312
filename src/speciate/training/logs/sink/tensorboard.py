"""TensorBoard event files, a folder for each run; `tensorboard --logdir FOLDER` shows them.

tensorboardX writes them, which needs neither TensorBoard nor TensorFlow.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

from speciate.config.contracts.training import SinkOptions
from speciate.training.logs.sinks import import_client


class Options(SinkOptions):
    """TensorBoard has no options."""


class Sink:
    """An event file. When a run resumes, TensorBoard drops what an earlier file holds beyond that step."""

    def __init__(
        self, options: Options, *, label: str, folder: pathlib.Path, config: dict[str, Any], first_step: int
    ) -> None:
        writer = import_client("tensorboardX", "tensorboardX", options.kind).SummaryWriter
        self.writer: Any = writer(str(folder / label), purge_step=first_step or None)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Add the values as scalars."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush and close the event file."""
        self.writer.close()
