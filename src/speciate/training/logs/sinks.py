"""Where a run's metrics go besides metrics.jsonl, for a person who watches it: the kinds of training/logs/sink.

A sink gets exactly the lines of metrics.jsonl, as they come. It is asked for on the command line (`--sink tensorboard`)
or by SPECIATE_SINKS=tensorboard,wandb, and never in a spec: it changes neither a run's bits nor its files, so it must
make no run stale. A sink that fails while the run goes on is dropped with a message, and the run goes on.

    sink/<kind>.py   Sink(options, *, label, folder, config, first_step)   write(step, values), close()
"""

import contextlib
import functools
import importlib
import json
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Annotated, Any, Protocol

import pydantic

from speciate.config.components import OneOf, config_errors
from speciate.config.contracts.training import SinkOptions
from speciate.config.run import RunSpec
from speciate.training.checkpoint.state import State

VARIABLE = "SPECIATE_SINKS"
CHOICE: pydantic.TypeAdapter[SinkOptions] = pydantic.TypeAdapter(Annotated[SinkOptions, OneOf("training/logs/sink")])


class Sink(Protocol):
    """What the class of every kind offers."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Write the numbers of one line; `step` counts updates."""

    def close(self) -> None:
        """Close the sink once the run ends or stops."""


def from_environment() -> list[str]:
    """Return the sinks that SPECIATE_SINKS names."""
    return [name.strip() for name in os.environ.get(VARIABLE, "").split(",") if name.strip()]


def parse(text: str) -> SinkOptions:
    """Return the options of `wandb`, or of `{"kind": "wandb", "project": "mine"}`. Raises ValueError if invalid."""
    try:
        return CHOICE.validate_python(json.loads(text) if text.startswith("{") else text)
    except json.JSONDecodeError as error:
        raise ValueError(f"--sink {text}: is not JSON: {error}") from None
    except pydantic.ValidationError as error:
        problems = (f"{path}: {why}" if path else why for path, why in config_errors(error))
        raise ValueError(f"--sink {text}: {'; '.join(problems)}") from None


def import_client(module: str, package: str, kind: str) -> ModuleType:
    """Import the module that a sink writes with. Raises ValueError that names its package if it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ValueError(f"--sink {kind}: needs a package: pip install {package} ({error})") from None


def flatten(line: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Return a metrics line's numbers, without its step: `{"validation": {"code": 1.5}}` gives `validation/code`."""
    values: dict[str, float] = {}
    for key, value in line.items():
        if isinstance(value, Mapping):
            values |= flatten(value, f"{prefix}{key}/")
        elif isinstance(value, int | float) and not isinstance(value, bool) and key != "step":
            values[f"{prefix}{key}"] = float(value)
    return values


def _write(sink: Sink, line: Mapping[str, Any]) -> None:
    sink.write(line["step"], flatten(line))


class Sinks:
    """All sinks of one run."""

    def __init__(
        self, kinds: Sequence[SinkOptions], folder: pathlib.Path, run: RunSpec, log: Callable[[str], None]
    ) -> None:
        self.kinds, self.folder, self.run, self.log = kinds, folder, run, log
        self.sinks: dict[str, Sink] = {}
        self.num_sent = 0

    @contextlib.contextmanager
    def open(self, state: State) -> Iterator[None]:
        """Open the sinks where the run begins or resumes, and close them at the end of the block.

        Raises:
            ValueError: a sink's package is not installed, or the sink cannot be opened.
        """
        self.num_sent = len(state.metrics)
        try:
            for options in self.kinds:
                self.sinks[options.kind] = self._open_sink(options, state.step)
            yield
        finally:
            self._for_each(lambda sink: sink.close())
            self.sinks.clear()

    def _open_sink(self, options: SinkOptions, step: int) -> Sink:
        label, config = f"{self.run.ablation}-seed{self.run.seed}", self.run.model_dump(mode="json")
        folder = self.folder / options.kind
        folder.mkdir(parents=True, exist_ok=True)
        try:
            sink: Sink = options.component().Sink(options, label=label, folder=folder, config=config, first_step=step)
        except (ValueError, OSError):
            raise
        except Exception as error:  # a foreign library may raise anything
            reason = " ".join(str(error).split())[:300]
            raise ValueError(f"--sink {options.kind}: cannot be opened: {type(error).__name__}: {reason}") from None
        return sink

    def send(self, state: State) -> None:
        """Send the metrics lines that are new."""
        lines = [json.loads(line) for line in state.metrics[self.num_sent :]]
        self.num_sent = len(state.metrics)
        for line in lines:
            self._for_each(functools.partial(_write, line=line))

    def _for_each(self, call: Callable[[Sink], None]) -> None:
        for kind, sink in list(self.sinks.items()):
            try:
                call(sink)
            except Exception as error:  # a foreign library may raise anything, and the run is worth more
                del self.sinks[kind]
                self.log(f"--sink {kind}: failed and is dropped; the run goes on: {type(error).__name__}: {error}")
