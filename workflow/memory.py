"""Let a job ask for more memory only after it was killed for lack of memory.

A rule, or `set-resources` in the profile, says what its jobs usually need. Another attempt asks for the same, whether a
time limit, a preemption or a bug ended the one before. A job that was killed because it took too much asks for twice as
much. `resources: mem_mb` in the profile is the memory of the largest node; no job asks for more.
"""

import collections
from collections.abc import Mapping
from typing import Any

Job = tuple[str, tuple[tuple[str, str], ...]]


class Memory:
    """Counts how often each job was killed for lack of memory."""

    def __init__(self) -> None:
        self.kills: collections.Counter[Job] = collections.Counter()

    def note_kill(self, rule: str, wildcards: Mapping[str, str]) -> None:
        """Let the next attempts at a job ask for twice as much."""
        self.kills[rule, tuple(sorted(wildcards.items()))] += 1

    def grown(self, rule: str, wildcards: Mapping[str, str], asked: int, limit: int | None) -> int:
        """Return the megabytes that a job asks for now, of those that it asked for at first."""
        megabytes = asked << self.kills[rule, tuple(sorted(wildcards.items()))]
        return megabytes if limit is None else min(megabytes, limit)


def limit_of(workflow: Any) -> int | None:
    """Return the megabytes for which a job may ask at most."""
    limit = workflow.global_resources.get("mem_mb")
    return limit.value if limit is not None and isinstance(limit.value, int) else None


def let_grow(workflow: Any, memory: Memory) -> None:
    """Let every job of a workflow ask for what `memory` says."""
    from snakemake.iocontainers import ResourceList
    from snakemake.rules import Rule

    expand = Rule.expand_resources

    def expand_resources(self: Any, wildcards: Any, *rest: Any, **named: Any) -> Any:
        resources = expand(self, wildcards, *rest, **named)
        asked = resources.get("mem_mb")
        # Snakemake passes a dictionary or its own container
        names = dict(wildcards.items())
        if isinstance(asked, int) and memory.kills:
            grown = memory.grown(self.name, names, asked, limit_of(workflow))
            return ResourceList(fromdict={**dict(resources.items()), "mem_mb": grown})
        return resources

    Rule.expand_resources = expand_resources
