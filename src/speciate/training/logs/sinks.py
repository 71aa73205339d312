"""Where a run's metrics go besides metrics.jsonl, for a person who watches: kinds of training/logs/sink.

A sink gets the lines of metrics.jsonl, no more and no less, as they come. It is asked for on the command line
(`--sink tensorboard`) or by SPECIATE_SINKS=tensorboard,wandb, never in a spec: it changes neither a run's bits nor its
files, so it must make no run stale. One that fails while the run goes on is dropped with a message; the run goes on.

    sink/<kind>.py   Sink(options, label, folder, config, first_step)   write(step, values), close()
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
from speciate.training.checkpoint.store import State

VARIABLE = "SPECIATE_SINKS"
CHOICE: pydantic.TypeAdapter[SinkOptions] = pydantic.TypeAdapter(Annotated[SinkOptions, OneOf("training/logs/sink")])


class Sink(Protocol):
    """What every kind's class is."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Takes the numbers of one line; `step` counts updates."""

    def close(self) -> None:
        """Called once the run ends or stops."""


def from_environment() -> list[str]:
    """The sinks that SPECIATE_SINKS names."""
    return [name.strip() for name in os.environ.get(VARIABLE, "").split(",") if name.strip()]


def parse(text: str) -> SinkOptions:
    """The options of `wandb`, or of `{"kind": "wandb", "project": "mine"}`. Raises ValueError where it is none."""
    try:
        return CHOICE.validate_python(json.loads(text) if text.startswith("{") else text)
    except json.JSONDecodeError as error:
        raise ValueError(f"--sink {text}: is not JSON: {error}") from None
    except pydantic.ValidationError as error:
        found = (f"{path}: {why}" if path else why for path, why in config_errors(error))
        raise ValueError(f"--sink {text}: {'; '.join(found)}") from None


def needed(module: str, package: str, kind: str) -> ModuleType:
    """The module that a sink writes with. Raises ValueError that names its package where it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ValueError(f"--sink {kind}: needs a package: pip install {package} ({error})") from None


def flat(line: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """The numbers of a line of metrics.jsonl but its step: `{"validation": {"code": 1.5}}` gives `validation/code`."""
    values: dict[str, float] = {}
    for key, value in line.items():
        if isinstance(value, Mapping):
            values |= flat(value, f"{prefix}{key}/")
        elif isinstance(value, int | float) and not isinstance(value, bool) and key != "step":
            values[f"{prefix}{key}"] = float(value)
    return values


def _write(sink: Sink, line: Mapping[str, Any]) -> None:
    sink.write(line["step"], flat(line))


class Sinks:
    """All sinks of one run; follows its state."""

    def __init__(
        self, kinds: Sequence[SinkOptions], folder: pathlib.Path, run: RunSpec, say: Callable[[str], None]
    ) -> None:
        self.kinds, self.folder, self.run, self.say = kinds, folder, run, say
        self.open: dict[str, Sink] = {}
        self.sent = 0

    @contextlib.contextmanager
    def opened(self, state: State) -> Iterator[None]:
        """Opens the sinks where the run begins or goes on, and closes them where it ends.

        Raises:
            ValueError: a sink's package is not installed, or it cannot be opened.
        """
        self.sent = len(state.metrics)
        try:
            for options in self.kinds:
                self.open[options.kind] = self._opened(options, state.step)
            yield
        finally:
            self._each(lambda sink: sink.close())
            self.open.clear()

    def _opened(self, options: SinkOptions, step: int) -> Sink:
        label, config = f"{self.run.ablation}-seed{self.run.seed}", self.run.model_dump(mode="json")
        folder = self.folder / options.kind
        folder.mkdir(parents=True, exist_ok=True)
        try:
            sink: Sink = options.component().Sink(options, label, folder, config, step)
        except (ValueError, OSError):
            raise
        except Exception as error:  # whatever a foreign library raises
            why = " ".join(str(error).split())[:300]
            raise ValueError(f"--sink {options.kind}: cannot be opened: {type(error).__name__}: {why}") from None
        return sink

    def follow(self, state: State) -> None:
        """Passes on the lines that are new."""
        lines = [json.loads(line) for line in state.metrics[self.sent :]]
        self.sent = len(state.metrics)
        for line in lines:
            self._each(functools.partial(_write, line=line))

    def _each(self, call: Callable[[Sink], None]) -> None:
        for kind, sink in list(self.open.items()):
            try:
                call(sink)
            except Exception as error:  # whatever a foreign library raises, the run is worth more
                del self.open[kind]
                self.say(f"--sink {kind}: is dropped, the run goes on: {type(error).__name__}: {error}")
