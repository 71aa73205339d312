"""Out of memory: how it is recognised, what is said, and how a step is tried again in smaller portions.

More accumulation gives the same mean over the same predictions, added up in another order: equal up to rounding.
"""

import torch

from speciate.config.run import TrainingSpec

SAID = ("out of memory", "not enough memory", "can't allocate memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there is no memory left; torch's own allocator on the CPU raises RuntimeError."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in SAID)


def more(blocks_per_step: int, accumulation: int) -> int | None:
    """The number of micro-batches to try next: the smallest that is twice as many or more; None where there is none."""
    larger = (count for count in range(2 * accumulation, blocks_per_step + 1) if blocks_per_step % count == 0)
    return next(larger, None)


def advice(settings: TrainingSpec, accumulation: int) -> str:
    """What to change, in the order of what it costs."""
    words: list[str] = []
    next_one = more(settings.blocks_per_step, accumulation)
    if next_one is not None:
        words.append(
            f"raise training.grad_accumulation ({accumulation} now, {next_one} next; same step, smaller portions)"
        )
        if not settings.oom_retry:
            words.append("or set training.oom_retry, which does so by itself")
    if not settings.activation_checkpointing:
        words.append("set training.activation_checkpointing (same bits, more time)")
    words.append(f"lower training.blocks_per_step ({settings.blocks_per_step} now), another run")
    return "; ".join(words)
