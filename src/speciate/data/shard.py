"""`Shard`: which part of a domain, or which bucket of signature bands, one job works on."""

from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Shard:
    """Part `index` (from 0) of `count` equal parts, written `index-of-count`."""

    index: int = 0
    count: int = 1

    def __str__(self) -> str:
        return f"{self.index}-of-{self.count}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the shard that `text` names. Raise ValueError if it names none."""
        index, _, count = text.partition("-of-")
        if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
            raise ValueError(f"--shard: {text!r} is not a shard; the first of eight is 0-of-8")
        return cls(int(index), int(count))
