"""Keep one of several equal parts of the documents, by a hash of their group: one source can feed several domains.

The parts of one source are disjoint, and groups stay whole. A document that nothing groups is a group of its own: the
hash is of its text before any filter edits it, so the name of its file does not matter. The control without domains to
find uses the filter: one text split into three domains at random.
"""

import hashlib
import pathlib
from collections.abc import Mapping
from typing import Self

from pydantic import Field, model_validator

from speciate.config.contracts.data import FilterOptions
from speciate.data.clean.pipeline import Drop
from speciate.data.documents import Document


class Options(FilterOptions):
    """Keep one of several equal parts."""

    index: int = Field(ge=0)
    """Index of the part to keep, from 0."""
    of: int = Field(ge=2)
    """Number of parts."""
    seed: int = Field(0, ge=0, lt=2**64)
    """Seed of the hash; another seed gives other parts."""

    @model_validator(mode="after")
    def _check_index(self) -> Self:
        if self.index >= self.of:
            raise ValueError(f"index: {self.index} of {self.of} parts; the last is {self.of - 1}")
        return self


class Filter:
    """Judge each document by itself."""

    def __init__(self, options: Options, archives: Mapping[str, pathlib.Path]) -> None:
        self.options = options
        # not the hash of the split: with it, one part would not be spread over all splits
        self._hash = hashlib.blake2b(digest_size=8, key=options.seed.to_bytes(8, "big"), person=b"part")

    def apply(self, document: Document) -> Document | Drop:
        """Return `document`, or why it is dropped (other_part)."""
        hasher = self._hash.copy()
        hasher.update(document.group.encode())
        part = int.from_bytes(hasher.digest(), "big") % self.options.of
        return document if part == self.options.index else Drop("other_part", f"part {part}")
