"""The description of a data stage: its unit of work, the files that it reads and writes, and its spec.

Each file of `stages/` that prepares data declares a class `Spec` and a constant `STAGE`. From these rows the graph
derives folders, specs, the inputs of rules, logs and benchmarks; nothing else names the stages one by one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from speciate.config.components import Strict

SPLITS = ("train", "validation", "test", "probe")
SIGNED = ("digests.npy", "bytes.npy", "bands.npy", "shingles.npy", "ends.npy", "ids.parquet")
"""The files that `sign` writes for each shard, which the stages that compare documents read."""


@dataclass(frozen=True)
class Stage:
    """One row of the table of data stages."""

    per: Literal["source", "domain", "scope", "study", "text"]
    """What gets its own folder: a source, a domain, a scope (the domains that are compared with each other when
    duplicates are looked for), the whole study, or a text outside training (`evaluation.texts`)."""
    reads: Mapping[str, tuple[str, ...]]
    """Earlier stage -> the files of it that are read; relative to a shard's folder where that stage is sharded."""
    writes: tuple[str, ...]
    """The files that it writes; relative to a shard's folder where it is sharded."""
    spec: Callable[[Any, str], Strict]
    """(the study's DataGraph, the name of the source, domain or scope) -> the spec that the stage reads."""
    sharded: bool = True
    """Whether each shard is a job; otherwise one job gathers all shards."""
    gathers: tuple[str, ...] = ()
    """Earlier stages of which every shard's job reads all shards, not only its own."""
    runs_for: Callable[[Any, str], bool] = lambda graph, name: True
    """(the study's DataGraph, a name) -> whether the stage runs for it."""
    missing: Callable[[Any, str], str] = lambda graph, name: ""
    """(the study's DataGraph, a name) -> why the files that are there lack what they should hold, so that the workflow
    makes them again at its next start; empty where they do not."""
    name: str = ""
    """What its one folder is called, for a stage of the whole study."""
