"""Weights of a run that stay beside its finished ones: after chosen steps, and of the best validation loss.

    best.safetensors               lowest mean over the domains' validation losses, of the steps from 1 on
    snapshots/step<n>.safetensors  after each step of training.keep_steps

What the best so far is, is told by the metrics alone, so that a continued run ends with the same files.
"""

import json
import pathlib
import shutil
import statistics

from speciate.config.run import TrainingSpec
from speciate.io import atomic_write
from speciate.training.checkpoint.store import State
from speciate.training.checkpoint.weights import save_weights
from speciate.training.distributed.ranks import ALONE, Ranks

BEST = "best.safetensors"
SNAPSHOTS = "snapshots"


def validations(lines: list[str]) -> list[tuple[int, float]]:
    """(step, mean validation loss over domains) of the lines of metrics.jsonl that have one."""
    rows = (json.loads(line) for line in lines)
    return [(row["step"], statistics.fmean(row["validation"].values())) for row in rows if "validation" in row]


class Snapshots:
    """Writes them while a run goes on."""

    def __init__(self, folder: pathlib.Path, settings: TrainingSpec, ranks: Ranks = ALONE) -> None:
        self.folder, self.settings, self.ranks = folder, settings, ranks
        if ranks.sharded and (settings.keep_steps or settings.keep_best):
            raise ValueError(
                "training.keep_steps, keep_best: of an fsdp run only checkpoints and the last weights are kept"
            )
        self.best = float("inf")

    def begin(self, state: State) -> None:
        """Removes those of an earlier run, or finds what was the best before the run was stopped."""
        if state.step == 0 and self.ranks.first:
            (self.folder / BEST).unlink(missing_ok=True)
            shutil.rmtree(self.folder / SNAPSHOTS, ignore_errors=True)
        self.best = min((loss for step, loss in validations(state.metrics) if step > 0), default=float("inf"))

    def follow(self, state: State) -> None:
        """Writes what is due after `state.step` updates."""
        if not self.ranks.first:
            return
        if state.step in self.settings.keep_steps:
            self._write(state, self.folder / SNAPSHOTS / f"step{state.step}.safetensors")
        if not self.settings.keep_best:
            return
        for step, loss in validations(state.metrics[-1:]):
            if step == state.step and loss < self.best:
                self.best = loss
                self._write(state, self.folder / BEST)

    def _write(self, state: State, file: pathlib.Path) -> None:
        with atomic_write(file) as temp_path:
            save_weights(state.model, temp_path)
