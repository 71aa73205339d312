"""What a page of error rates is made of: topics, tables, and rates that know how many draws they rest on."""

from collections.abc import Callable
from dataclasses import dataclass

from scipy import stats

LEVEL = 0.05
"""The nominal size of every test on the page."""
LIMIT = 0.065
"""Largest upper bound of a size that is not marked."""
NOMINAL_COVERAGE = 0.95


@dataclass(frozen=True)
class Rate:
    """How often something happened in independent draws, with its Clopper-Pearson interval (1934) of 95 %."""

    events: int
    draws: int

    @property
    def share(self) -> float:
        return self.events / self.draws

    @property
    def low(self) -> float:
        return 0.0 if self.events == 0 else float(stats.beta.ppf(0.025, self.events, self.draws - self.events + 1))

    @property
    def high(self) -> float:
        if self.events == self.draws:
            return 1.0
        return float(stats.beta.ppf(0.975, self.events + 1, self.draws - self.events))

    def __str__(self) -> str:
        return f"{self.share:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class Size(Rate):
    """How often a test of level `LEVEL` rejects what is true. Marked where its upper bound exceeds `LIMIT`."""

    def __str__(self) -> str:
        return f"**{super().__str__()}**" if self.high > LIMIT else super().__str__()


@dataclass(frozen=True)
class Coverage(Rate):
    """How often an interval of 95 % holds the true value. Marked where even its upper bound is below that."""

    def __str__(self) -> str:
        return f"**{super().__str__()}**" if self.high < NOMINAL_COVERAGE else super().__str__()


Cell = str | float | Rate


@dataclass(frozen=True)
class Table:
    """One table of the page."""

    caption: str
    """A sentence about what was drawn, and how often."""
    columns: tuple[str, ...]
    """Headings; the first column names the setting."""
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True)
class Topic:
    """One section of the page: the tests or intervals of one kind."""

    name: str
    """The name of its file in this folder, by which the command line calls it."""
    title: str
    text: str
    """What stands above its tables: what is tested, in which settings, and what to conclude."""
    tables: Callable[[float], list[Table]]
    """Simulate. The argument is the effort: 1.0 for the page; a test asks for a small part of the draws.

    Every draw comes from a generator with a fixed seed, so the same effort gives the same page.
    """


def num_draws(usual: int, effort: float) -> int:
    """Return the number of draws for an effort, at least 20."""
    return max(20, round(usual * effort))
