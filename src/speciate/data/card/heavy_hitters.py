"""The commonest texts of a long stream, in bounded memory and mergeable over shards.

Misra and Gries 1982 ("Finding repeated elements"): at most `size` counters; a text that finds none free takes one off
every counter. After n texts a count is at most n / (size + 1) below the truth, never above, and summaries of shards add
up to one of the whole (Agarwal et al. 2012, "Mergeable summaries"). Up to `size` different texts, counts are exact.
"""

from dataclasses import dataclass, field
from typing import Any, Self

SIZE = 1024
"""Counters held."""
SHOWN = 16
"""Counters written out."""


@dataclass
class HeavyHitters:
    """Counts of keys, and the longest beginning that all texts counted under a key have in common."""

    counts: dict[str, int] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    below: int = 0
    """How far below the truth any count may be."""

    def add(self, key: str, text: str) -> None:
        """Counts `text` under `key`."""
        if key in self.counts:
            self.counts[key] += 1
            common = self.texts[key]
            if not text.startswith(common):
                self.texts[key] = shared(common, text)
            return
        self.counts[key] = 1
        self.texts[key] = text
        if len(self.counts) > SIZE:
            self._lower(1)

    def _lower(self, by: int) -> None:
        self.below += by
        self.counts = {key: count - by for key, count in self.counts.items() if count > by}
        self.texts = {key: self.texts[key] for key in self.counts}

    def __add__(self, other: Self) -> Self:
        sum_ = type(self)(dict(self.counts), dict(self.texts), self.below + other.below)
        for key, count in other.counts.items():
            sum_.counts[key] = sum_.counts.get(key, 0) + count
            sum_.texts[key] = shared(sum_.texts.get(key, other.texts[key]), other.texts[key])
        if len(sum_.counts) > SIZE:
            sum_._lower(sorted(sum_.counts.values(), reverse=True)[SIZE])
        return sum_

    def as_json(self) -> dict[str, Any]:
        """The commonest few, most frequent first, as [key, text, count]; `below` covers those left out."""
        ranked = sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))
        rest = ranked[SHOWN][1] if len(ranked) > SHOWN else 0
        return {"below": self.below + rest, "top": [[key, self.texts[key], count] for key, count in ranked[:SHOWN]]}

    @classmethod
    def from_json(cls, written: dict[str, Any]) -> Self:
        """What `as_json` wrote."""
        top = written["top"]
        return cls({key: count for key, _, count in top}, {key: text for key, text, _ in top}, written["below"])


def shared(one: str, two: str) -> str:
    """The longest beginning that two texts have in common."""
    differs = (place for place, (a, b) in enumerate(zip(one, two, strict=False)) if a != b)
    return one[: next(differs, min(len(one), len(two)))]
