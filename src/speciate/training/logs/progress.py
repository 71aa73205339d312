"""Progress lines of a training run: step, loss, tokens per second, time left."""

import time
from typing import Self

from speciate.cli import log
from speciate.config.run import RunSpec
from speciate.model.profiling.flops import flops_per_token, peak_flops
from speciate.model.transformer import Transformer
from speciate.training.checkpoint.state import State
from speciate.training.distributed.ranks import Ranks
from speciate.training.numerics import loss_monitor
from speciate.training.numerics.precision import computed_in

SECONDS_BETWEEN_LINES = 5.0


class Progress:
    """Prints a progress line every few seconds. workflow/live_progress.py reads these lines from the run's log."""

    def __init__(
        self, label: str, num_steps: int, first_step: int, tokens_a_step: int, *, flops: float, peak: float | None
    ) -> None:
        """Start the clock. `flops`: operations per token; `peak`: the devices' peak per second, None if unknown."""
        self.label, self.num_steps = label, num_steps
        self.first_step, self.tokens_a_step = first_step, tokens_a_step
        self.flops, self.peak = flops, peak
        self.started = self.last = time.monotonic()

    @classmethod
    def of(cls, spec: RunSpec, state: State, block_length: int, ranks: Ranks) -> Self:
        """Return the progress of a run that starts or resumes with `state`, on blocks of `block_length` tokens."""
        settings = spec.training
        assert isinstance(state.model, Transformer)
        flops = flops_per_token(state.model, block_length)
        peak = peak_flops(ranks.device, computed_in(settings, ranks.device))
        label = f"{spec.ablation} seed {spec.seed}"
        tokens = settings.blocks_per_step * block_length
        return cls(
            label, settings.num_steps, state.step, tokens, flops=flops, peak=peak * ranks.world if peak else None
        )

    def tokens_per_second(self, step: int) -> float:
        """Return the mean number of tokens per second since this process began to train."""
        return (step - self.first_step) * self.tokens_a_step / max(time.monotonic() - self.started, 1e-9)

    def mfu(self, step: int) -> float | None:
        """Return the model FLOPs utilisation: operations per second, as a share of the devices' peak."""
        return None if self.peak is None else self.flops * self.tokens_per_second(step) / self.peak

    def __call__(self, state: State, metrics: dict[str, float]) -> None:
        """Print a line if the last one is old enough or the run ends, and at once for a skipped step or a spike."""
        now, num_steps = time.monotonic(), self.num_steps
        if "skipped" in metrics:
            log(f"{self.label}: step {state.step - 1}: not finite; no update was made, the step is skipped")
            return
        if "spike" in metrics:
            jump = f"{metrics['spike']:.1f} standard deviations above the {loss_monitor.WINDOW} before"
            log(f"{self.label}: step {state.step - 1}: the loss jumped to {metrics['loss']:.3f}, {jump}")
        if now - self.last < SECONDS_BETWEEN_LINES and state.step < num_steps:
            return
        self.last = now
        tokens = self.tokens_per_second(state.step)
        left = (num_steps - state.step) * self.tokens_a_step / tokens
        mfu = self.mfu(state.step)
        used = "" if mfu is None else f" ({mfu:.1%} of peak)"
        log(
            f"{self.label}: step {state.step}/{num_steps}, loss {metrics['loss']:.3f}, "
            f"{tokens:,.0f} tokens/s{used}, {left // 60:.0f}:{left % 60:02.0f} left"
        )
