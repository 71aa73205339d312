"""What a run says while it goes on."""

import time

from speciate.training import health
from speciate.training.checkpoint import State
from speciate.verb import say

SECONDS_BETWEEN_LINES = 5.0


class Progress:
    """A line every few seconds: step, loss, tokens a second, time left."""

    def __init__(
        self, label: str, num_steps: int, first_step: int, tokens_a_step: int, peak_seconds: float | None = None
    ) -> None:
        """`peak_seconds`: what a token would take at the devices' peak; None where that is not known."""
        self.label, self.num_steps = label, num_steps
        self.first_step, self.tokens_a_step = first_step, tokens_a_step
        self.peak_seconds = peak_seconds
        self.started = self.last = time.monotonic()

    def tokens_per_second(self, step: int) -> float:
        """Mean since this process began to train."""
        return (step - self.first_step) * self.tokens_a_step / max(time.monotonic() - self.started, 1e-9)

    def mfu(self, step: int) -> float | None:
        """Share of the devices' peak that the model's own operations had."""
        return None if self.peak_seconds is None else self.peak_seconds * self.tokens_per_second(step)

    def __call__(self, state: State, happened: dict[str, float]) -> None:
        """Prints a line if the last one is old enough, or the run ends."""
        now, num_steps = time.monotonic(), self.num_steps
        if "skipped" in happened:
            say(f"{self.label}: step {state.step - 1}: not finite; no update was made, the step is skipped")
            return
        if "spike" in happened:
            jump = f"{happened['spike']:.1f} standard deviations above the {health.WINDOW} before"
            say(f"{self.label}: step {state.step - 1}: the loss jumped to {happened['loss']:.3f}, {jump}")
        if now - self.last < SECONDS_BETWEEN_LINES and state.step < num_steps:
            return
        self.last = now
        tokens = self.tokens_per_second(state.step)
        left = (num_steps - state.step) * self.tokens_a_step / tokens
        mfu = self.mfu(state.step)
        used = "" if mfu is None else f" ({mfu:.1%} of peak)"
        say(
            f"{self.label}: step {state.step}/{num_steps}, loss {happened['loss']:.3f}, "
            f"{tokens:,.0f} tokens/s{used}, {left // 60:.0f}:{left % 60:02.0f} left"
        )
