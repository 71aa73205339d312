"""LogName: a name under which a framework logs a measure of routing, and how it becomes one of ours.

A file of `training_logs/framework` is a framework: SOURCE says where its names were read, NAMES holds them.
"""

import importlib
import pathlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from types import ModuleType
from typing import Literal

METRICS = {
    "max_vio": "MaxVio: E times the largest share of the choices, minus 1; 0 if even, E/k - 1 if all choose the same",
    "effective_share": "effective experts over E: exp of the entropy of the shares, over E; 1 if even, k/E at collapse",
    "cv": "coefficient of variation of the shares: standard deviation (over E, not E - 1) over mean; 0 if even",
    "dead_share": "share of the experts that no token chose",
    "unevenness": "how near the load is to the limits of collapse, by the nearer of the two; above 1 it is beyond them",
}
"""The one definition of each measure that logs are converted to."""

Relation = Literal["=", "<=", ">="]
"""Whether the measure is the converted value, at most it, or at least it."""

PREFIX = r"(?:data/)?(?:(?P<phase>train|eval|val|validation|test|rollout|actor)[/_])?"
"""What loggers put before a framework's own name: the phase, or the field of verl's file logger."""
OVER = {"avg": "mean"}
"""Other words for what is taken over layers."""


def as_it_is(value: float, experts: int) -> float:
    """Return the value: it is ours already."""
    return value


def minus_one(value: float, experts: int) -> float:
    """Return MaxVio of the largest load over the mean load."""
    return value - 1


@dataclass(frozen=True)
class LogName:
    """A name, or a family of names, of one framework."""

    shown: str
    """The name as a page shows it: `moe/layer_{i}/cv`."""
    pattern: str
    """Regular expression of the whole name after PREFIX. Its groups: `layer`; `over`, what is taken over layers."""
    metric: str
    """The measure of METRICS that it becomes; empty: none."""
    formula: str
    """How the measure follows from the logged value x (and E), in words of a page; or why it does not."""
    convert: Callable[[float, int], float] = as_it_is
    """The measure, from x and E."""
    needs_experts: bool = False
    """Whether E enters."""
    relation: Relation = "="
    over: str = ""
    """What is taken over the layers where the name does not say; empty: nothing, it is of one layer."""
    zero_is_absent: bool = False
    """Whether a value of 0 stands for a layer without experts."""

    @cached_property
    def matcher(self) -> re.Pattern[str]:
        return re.compile(PREFIX + self.pattern)


@dataclass(frozen=True)
class Framework:
    """One framework's names."""

    name: str
    title: str
    source: str
    names: tuple[LogName, ...]
    phase: str
    """The phase where a name does not say it."""
    notes: tuple[str, ...] = ()
    """What a reader of its logs must know."""


@dataclass(frozen=True)
class Match:
    """A name that a framework is known to log."""

    framework: Framework
    name: LogName
    phase: str
    layer: int
    """Number of the layer as the framework counts; -1 for a summary of the layers."""
    over: str
    """What is taken over the layers: mean, max, min, median; empty for one layer."""
    groups: dict[str, str] = field(default_factory=dict)


def framework_names() -> list[str]:
    """Return the frameworks whose logs are read: the files of `training_logs/framework`."""
    return sorted(file.stem for file in (pathlib.Path(__file__).parent / "framework").glob("[a-z]*.py"))


def frameworks() -> list[Framework]:
    """Return every framework whose logs are read."""
    return [
        _framework(importlib.import_module(f"speciate.training_logs.framework.{name}")) for name in framework_names()
    ]


def _framework(module: ModuleType) -> Framework:
    return Framework(
        name=module.__name__.rpartition(".")[2],
        title=module.TITLE,
        source=module.SOURCE,
        names=module.NAMES,
        phase=module.PHASE,
        notes=module.NOTES,
    )


def match(key: str, known: list[Framework]) -> Match | None:
    """Return what a logged name is; None where no framework is known to log it."""
    for framework in known:
        for name in framework.names:
            found = name.matcher.fullmatch(key)
            if found is None:
                continue
            groups = {group: text for group, text in found.groupdict().items() if text is not None}
            layer = int(groups["layer"]) if "layer" in groups else -1
            over = groups.get("over", "" if layer >= 0 else name.over)
            phase = groups.get("phase", framework.phase)
            return Match(framework, name, phase, layer, OVER.get(over, over), groups)
    return None
