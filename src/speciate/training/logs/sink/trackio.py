"""Trackio: a local database of runs; `trackio show` opens its page."""

import os
import pathlib
from collections.abc import Mapping
from typing import Any

from pydantic import Field

from speciate.config.contracts.training import SinkOptions
from speciate.training.logs.sinks import import_client


class Options(SinkOptions):
    """Where it goes."""

    project: str = Field("speciate", min_length=1)
    """The project."""


class Sink:
    """One run of the project; its database is in the sink's folder unless TRACKIO_DIR is set."""

    def __init__(self, options: Options, label: str, folder: pathlib.Path, config: dict[str, Any], first: int) -> None:
        os.environ.setdefault("TRACKIO_DIR", str(folder.resolve()))  # read when it is imported
        self.trackio: Any = import_client("trackio", "trackio", options.kind)
        self.trackio.init(project=options.project, name=label, config=config, resume="allow", embed=False)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Logs the values under their step."""
        self.trackio.log(dict(values), step=step)

    def close(self) -> None:
        """Writes what is left."""
        self.trackio.finish()
