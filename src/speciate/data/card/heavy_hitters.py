"""Find the most common texts of a long stream, in bounded memory and mergeable over shards.

Misra and Gries 1982 ("Finding repeated elements"): there are at most `SIZE` counters; a text that finds none free
lowers every counter by one. After n texts a count is at most n / (SIZE + 1) below the truth, and never above it.
Summaries of shards add up to one of the whole (Agarwal et al. 2012, "Mergeable summaries"). Up to `SIZE` distinct
texts, the counts are exact.
"""

from dataclasses import dataclass, field
from typing import Any, Self

SIZE = 1024
"""Number of counters."""
SHOWN = 16
"""Number of counters written to JSON."""


@dataclass
class HeavyHitters:
    """Counts of keys, and the longest common prefix of all texts counted under a key."""

    counts: dict[str, int] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    undercount: int = 0
    """The most by which any count may be below the truth."""

    def add(self, key: str, text: str) -> None:
        """Count `text` under `key`."""
        if key in self.counts:
            self.counts[key] += 1
            prefix = self.texts[key]
            if not text.startswith(prefix):
                self.texts[key] = common_prefix(prefix, text)
            return
        self.counts[key] = 1
        self.texts[key] = text
        if len(self.counts) > SIZE:
            self._lower(1)

    def _lower(self, by: int) -> None:
        self.undercount += by
        self.counts = {key: count - by for key, count in self.counts.items() if count > by}
        self.texts = {key: self.texts[key] for key in self.counts}

    def __add__(self, other: Self) -> Self:
        total = type(self)(dict(self.counts), dict(self.texts), self.undercount + other.undercount)
        for key, count in other.counts.items():
            total.counts[key] = total.counts.get(key, 0) + count
            total.texts[key] = common_prefix(total.texts.get(key, other.texts[key]), other.texts[key])
        if len(total.counts) > SIZE:
            total._lower(sorted(total.counts.values(), reverse=True)[SIZE])
        return total

    def as_json(self) -> dict[str, Any]:
        """Return the `SHOWN` most common as [key, text, count], most frequent first; `below` also covers the others."""
        ranked = sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))
        rest = ranked[SHOWN][1] if len(ranked) > SHOWN else 0
        return {
            "below": self.undercount + rest,
            "top": [[key, self.texts[key], count] for key, count in ranked[:SHOWN]],
        }

    @classmethod
    def from_json(cls, written: dict[str, Any]) -> Self:
        """Read what `as_json` returned."""
        top = written["top"]
        return cls({key: count for key, _, count in top}, {key: text for key, text, _ in top}, written["below"])


def common_prefix(first: str, second: str) -> str:
    """Return the longest common prefix of two texts."""
    differs = (index for index, (a, b) in enumerate(zip(first, second, strict=False)) if a != b)
    return first[: next(differs, min(len(first), len(second)))]
