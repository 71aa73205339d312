"""Weights & Biases, offline by default: nothing leaves the machine until `wandb sync FOLDER`."""

import pathlib
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from speciate.config.contracts.training import SinkOptions
from speciate.training.logs.sinks import import_client


class Options(SinkOptions):
    """Where Weights & Biases keeps the metrics."""

    project: str = Field("speciate", min_length=1)
    """Name of the Weights & Biases project."""
    mode: Literal["offline", "online"] = "offline"
    """`offline` writes files only; `online` sends them and needs `wandb login`."""


class Sink:
    """A run of the project."""

    def __init__(
        self, options: Options, *, label: str, folder: pathlib.Path, config: dict[str, Any], first_step: int
    ) -> None:
        wandb: Any = import_client("wandb", "wandb", options.kind)
        settings = wandb.Settings(console="off", silent=True)
        self.run: Any = wandb.init(
            project=options.project, name=label, dir=str(folder), mode=options.mode, config=config, settings=settings
        )
        # a resumed run may repeat steps, which wandb's own counter would refuse
        self.run.define_metric("step")
        self.run.define_metric("*", step_metric="step")

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Log the values at their step."""
        self.run.log({**values, "step": step})

    def close(self) -> None:
        self.run.finish()
