"""Where a run's time went: the content of timing.json. No later stage reads it, since it never repeats."""

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from speciate.training.logs.progress import Progress


@dataclass
class PhaseTimer:
    """CPU seconds that this process spent in each phase of the training."""

    seconds: dict[str, float] = field(default_factory=dict)
    wall_start: float = field(default_factory=time.monotonic)
    cpu_start: float = field(default_factory=time.process_time)

    @contextmanager
    def measure(self, phase: str) -> Iterator[None]:
        """Add the block's CPU seconds to `phase`."""
        start = time.process_time()
        try:
            yield
        finally:
            self.seconds[phase] = self.seconds.get(phase, 0.0) + time.process_time() - start


def timing(timer: PhaseTimer, progress: Progress, step: int) -> dict[str, Any]:
    """Return the content of timing.json, about the process that ended the run at `step`."""
    return {
        "wall_seconds": time.monotonic() - timer.wall_start,
        "cpu_seconds": time.process_time() - timer.cpu_start,
        "cpu_seconds_by_part": timer.seconds,
        "tokens_per_second": progress.tokens_per_second(step),
        # matrix products alone, over the time that all of the training took; null if the device's peak is unknown
        "flops_per_token": progress.flops,
        "mfu": progress.mfu(step),
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
