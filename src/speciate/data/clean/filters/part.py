"""Keeps one part of the documents, by a hash of the document's group: one source can feed several domains.

The parts of one source are disjoint, and groups stay whole. The control that has no domains to find is made with it:
one text split into three domains by chance.
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
    """Keeps one of several equal parts."""

    index: int = Field(ge=0)
    """Which part, from 0."""
    of: int = Field(ge=2)
    """How many there are."""
    seed: int = Field(0, ge=0, lt=2**64)
    """Of the hash; another seed, other parts."""

    @model_validator(mode="after")
    def _check_index(self) -> Self:
        if self.index >= self.of:
            raise ValueError(f"index: {self.index} of {self.of} parts; the last is {self.of - 1}")
        return self


class Filter:
    """Looks at one document by itself."""

    def __init__(self, options: Options, archives: Mapping[str, pathlib.Path]) -> None:
        self.options = options
        # another hash than the split's, whose shares would otherwise be those of one part only
        self._hash = hashlib.blake2b(digest_size=8, key=options.seed.to_bytes(8, "big"), person=b"part")

    def apply(self, document: Document) -> Document | Drop:
        """`document`, or why it is dropped (other_part)."""
        hasher = self._hash.copy()
        hasher.update(document.group.partition("/")[2].encode())  # a source may have another name in each domain
        part = int.from_bytes(hasher.digest(), "big") % self.options.of
        return document if part == self.options.index else Drop("other_part", f"part {part}")
