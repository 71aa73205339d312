"""Trackio: a local database of runs; `trackio show` opens its page."""

import os
import pathlib
from collections.abc import Mapping
from typing import Any

from pydantic import Field

from speciate.config.contracts.training import SinkOptions
from speciate.training.logs.sinks import import_client


class Options(SinkOptions):
    """Where Trackio keeps the metrics."""

    project: str = Field("speciate", min_length=1)
    """Name of the Trackio project."""


class Sink:
    """A run of the project. Its database is in the sink's folder unless TRACKIO_DIR is set."""

    def __init__(
        self, options: Options, *, label: str, folder: pathlib.Path, config: dict[str, Any], first_step: int
    ) -> None:
        os.environ.setdefault("TRACKIO_DIR", str(folder.resolve()))  # read when it is imported
        self.trackio: Any = import_client("trackio", "trackio", options.kind)
        self.trackio.init(project=options.project, name=label, config=config, resume="allow", embed=False)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Log the values at their step."""
        self.trackio.log(dict(values), step=step)

    def close(self) -> None:
        self.trackio.finish()
