"""What a run says while it goes on."""

import time
from typing import Self

from speciate.cli import log
from speciate.config.run import RunSpec
from speciate.model.profiling.flops import flops_per_token, peak_flops
from speciate.model.transformer import Transformer
from speciate.training.checkpoint.store import State
from speciate.training.distributed.ranks import Ranks
from speciate.training.numerics import loss_monitor

SECONDS_BETWEEN_LINES = 5.0


class Progress:
    """A line every few seconds: step, loss, tokens a second, time left."""

    def __init__(
        self, label: str, num_steps: int, first_step: int, tokens_a_step: int, flops: float, peak: float | None
    ) -> None:
        """`flops`: of a token; `peak`: the devices' operations a second, None where that is not known."""
        self.label, self.num_steps = label, num_steps
        self.first_step, self.tokens_a_step = first_step, tokens_a_step
        self.flops, self.peak = flops, peak
        self.started = self.last = time.monotonic()

    @classmethod
    def of(cls, spec: RunSpec, state: State, block_length: int, ranks: Ranks) -> Self:
        """Of a run that begins, or continues, with `state`, on blocks of so many tokens."""
        settings = spec.training
        assert isinstance(state.model, Transformer)
        flops, peak = flops_per_token(state.model, block_length), peak_flops(ranks.device, settings.precision)
        label = f"{spec.ablation} seed {spec.seed}"
        tokens = settings.blocks_per_step * block_length
        return cls(label, settings.num_steps, state.step, tokens, flops, peak * ranks.world if peak else None)

    def tokens_per_second(self, step: int) -> float:
        """Mean since this process began to train."""
        return (step - self.first_step) * self.tokens_a_step / max(time.monotonic() - self.started, 1e-9)

    def mfu(self, step: int) -> float | None:
        """Share of the devices' peak that the model's own operations had."""
        return None if self.peak is None else self.flops * self.tokens_per_second(step) / self.peak

    def __call__(self, state: State, happened: dict[str, float]) -> None:
        """Prints a line if the last one is old enough, or the run ends."""
        now, num_steps = time.monotonic(), self.num_steps
        if "skipped" in happened:
            log(f"{self.label}: step {state.step - 1}: not finite; no update was made, the step is skipped")
            return
        if "spike" in happened:
            jump = f"{happened['spike']:.1f} standard deviations above the {loss_monitor.WINDOW} before"
            log(f"{self.label}: step {state.step - 1}: the loss jumped to {happened['loss']:.3f}, {jump}")
        if now - self.last < SECONDS_BETWEEN_LINES and state.step < num_steps:
            return
        self.last = now
        tokens = self.tokens_per_second(state.step)
        left = (num_steps - state.step) * self.tokens_a_step / tokens
        mfu = self.mfu(state.step)
        used = "" if mfu is None else f" ({mfu:.1%} of peak)"
        log(
            f"{self.label}: step {state.step}/{num_steps}, loss {happened['loss']:.3f}, "
            f"{tokens:,.0f} tokens/s{used}, {left // 60:.0f}:{left % 60:02.0f} left"
        )
