"""Watch the routers of a model while anybody trains it: three lines in any PyTorch loop, or a callback of the Trainer.

    from speciate.watch import Watch

    watch = Watch(model, probe=held_out_batch, every=50, steps=10_000, on_alarm="stop")
    with watch:
        for step in range(1, 10_001):
            ...
            watch.step(step)

docs/watch.md explains what is logged, what the alarm promises, and what it needs. Importing this module imports torch,
and transformers only where `WatchCallback` is asked for.
"""

from typing import TYPE_CHECKING, Any

from speciate.watching.collapse_alarm import Alarm
from speciate.watching.json_lines import JsonLines
from speciate.watching.watcher import CollapseWarning, RoutingCollapsed, Watch

if TYPE_CHECKING:
    from speciate.watching.trainer_callback import WatchCallback

__all__ = ["Alarm", "CollapseWarning", "JsonLines", "RoutingCollapsed", "Watch", "WatchCallback"]


def __getattr__(name: str) -> Any:
    """Return WatchCallback, which alone needs transformers."""
    if name != "WatchCallback":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from speciate.watching.trainer_callback import WatchCallback

    return WatchCallback
