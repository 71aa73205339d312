"""Weights that are kept besides a run's final ones: after chosen steps, and those of the best validation loss.

    best.safetensors               lowest mean of the domains' validation losses, over the steps from 1 on
    snapshots/step<n>.safetensors  after each step of training.keep_steps

The best so far follows from the metrics alone, so a resumed run ends with the same files.
"""

import json
import pathlib
import shutil
import statistics

from speciate.config.run import TrainingSpec
from speciate.io import atomic_write
from speciate.training.checkpoint.state import State
from speciate.training.checkpoint.weights import save_weights
from speciate.training.distributed.ranks import ALONE, Ranks

BEST = "best.safetensors"
SNAPSHOTS = "snapshots"


def validation_losses(lines: list[str]) -> list[tuple[int, float]]:
    """Return (step, mean validation loss over domains) of the lines of metrics.jsonl that have one."""
    rows = (json.loads(line) for line in lines)
    return [(row["step"], statistics.fmean(row["validation"].values())) for row in rows if "validation" in row]


class Snapshots:
    """Saves weights into a run's folder while the run trains."""

    def __init__(self, folder: pathlib.Path, settings: TrainingSpec, ranks: Ranks = ALONE) -> None:
        self.folder, self.settings, self.ranks = folder, settings, ranks
        if ranks.sharded and (settings.keep_steps or settings.keep_best):
            raise ValueError(
                "training.keep_steps, keep_best: an fsdp run keeps only its checkpoints and its final weights"
            )
        self.best = float("inf")

    def start(self, state: State) -> None:
        """Remove an earlier run's snapshots, or find the best loss of the run that is resumed."""
        if state.step == 0 and self.ranks.is_main:
            (self.folder / BEST).unlink(missing_ok=True)
            shutil.rmtree(self.folder / SNAPSHOTS, ignore_errors=True)
        self.best = min((loss for step, loss in validation_losses(state.metrics) if step > 0), default=float("inf"))

    def save_if_due(self, state: State) -> None:
        """Save the weights if they are wanted after `state.step` updates."""
        if not self.ranks.is_main:
            return
        if state.step in self.settings.keep_steps:
            self._save(state, self.folder / SNAPSHOTS / f"step{state.step}.safetensors")
        if not self.settings.keep_best:
            return
        for step, loss in validation_losses(state.metrics[-1:]):
            if step == state.step and loss < self.best:
                self.best = loss
                self._save(state, self.folder / BEST)

    def _save(self, state: State, file: pathlib.Path) -> None:
        with atomic_write(file) as temp_path:
            save_weights(state.model, temp_path)
