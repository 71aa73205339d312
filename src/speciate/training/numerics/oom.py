"""Out of memory: retry a step in smaller micro-batches, and say what to lower.

More accumulation gives the same mean over the same predictions, added up in another order: equal up to rounding.
"""

from speciate.config.run import TrainingSpec


def next_accumulation(blocks_per_step: int, accumulation: int) -> int | None:
    """Return the number of micro-batches to try next: the smallest possible from twice as many on; None if none."""
    larger = (count for count in range(2 * accumulation, blocks_per_step + 1) if blocks_per_step % count == 0)
    return next(larger, None)


def advice(settings: TrainingSpec, accumulation: int) -> str:
    """Return what to change, the cheapest first."""
    remedies: list[str] = []
    larger = next_accumulation(settings.blocks_per_step, accumulation)
    if larger is not None:
        remedies.append(
            f"raise training.grad_accumulation from {accumulation} to {larger} (the same step in smaller micro-batches)"
        )
        if not settings.oom_retry:
            remedies.append("or set training.oom_retry, which does so by itself")
    if not settings.activation_checkpointing:
        remedies.append("set training.activation_checkpointing (the same bits, slower)")
    remedies.append(f"lower training.blocks_per_step from {settings.blocks_per_step} (a different run)")
    return "; ".join(remedies)
