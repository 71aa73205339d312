"""What a study says of its texts: domains, duplicates, splits, held-out sets."""

from typing import Annotated, Literal, Self

import pydantic
from pydantic import Field

from speciate.config.components import OneOf, Strict
from speciate.config.contracts.data import FilterOptions, SourceOptions
from speciate.config.run import Name


class Domain(Strict):
    """One domain of text: where it comes from and what is kept of it."""

    sources: dict[Name, Annotated[SourceOptions, OneOf("data/fetch/sources")]] = Field(min_length=1)
    """Source name -> where its documents come from."""
    licences: dict[Name, str] = {}
    """Source name -> the licence of its texts, for the data card."""
    filters: Annotated[tuple[Annotated[FilterOptions, OneOf("data/clean/filters")], ...], pydantic.Strict(False)] = ()
    """Applied in this order; every drop is counted under its filter's reason."""
    duplicates: Literal["keep", "exact", "near"] = "exact"
    """Which documents are dropped as another one's duplicate: none, equal texts, or similar ones too."""
    max_bytes: int | None = Field(None, ge=1)
    """Bytes of kept text, in UTF-8, after which no more is read; null: all there is."""
    max_tokens: int | None = Field(None, ge=1)
    """Tokens of training text; documents beyond them are left out. Null: all there are."""
    shards: int = Field(1, ge=1)
    """Parts that every stage of this domain is spread over, one job each."""
    language: Literal["python"] | None = None
    """Programming language; with one, the probe's tokens are labelled by their lexical type."""


class Duplicates(Strict):
    """How duplicate documents are found (`domains.NAME.duplicates` says whose are dropped)."""

    across_domains: bool = False
    """Compare the documents of all domains; false: each domain by itself."""
    ngram: int = Field(5, ge=1)
    """Words in a shingle."""
    similarity: float = Field(0.8, gt=0, le=1)
    """Jaccard similarity of two documents' shingles from which they are near-duplicates."""
    permutations: int = Field(120, ge=8)
    """Values in a document's MinHash signature."""
    bands: int = Field(20, ge=1)
    """Bands that the signature is cut into; documents that agree on a whole band are compared. Divides permutations."""
    buckets: int = Field(1, ge=1)
    """Jobs that the bands are spread over."""

    @pydantic.model_validator(mode="after")
    def _divides(self) -> Self:
        if self.permutations % self.bands:
            raise ValueError(f"bands: {self.bands} does not divide {self.permutations} permutations")
        if self.buckets > self.bands:
            raise ValueError(f"buckets: {self.buckets} jobs for {self.bands} bands")
        return self


class Split(Strict):
    """Shares of the documents, taken by a hash of each document (or of its group), so no document is in two splits."""

    validation: float = Field(0.05, gt=0, lt=0.5)
    """Seen while training."""
    test: float = Field(0.1, gt=0, lt=0.5)
    """For the reported loss."""
    probe: float = Field(0.1, gt=0, lt=0.5)
    """For observing selectors."""
    seed: int = Field(0, ge=0)
    """Of the hash: another seed, another split."""


class HeldOut(Strict):
    """Fixed, balanced sets of held-out blocks, the same for every run of the study: so many blocks of each domain."""

    validation_blocks: int = Field(24, ge=1)
    """Seen while training."""
    test_blocks: int = Field(192, ge=1)
    """Seen by the finished model: its reported loss."""
    probe_blocks: int = Field(64, ge=1)
    """Where every selector of every run is observed."""
    seed: int = Field(0, ge=0)
    """Of what is drawn here."""


class ComparedDomain(Strict):
    """One domain of those whose documents are compared."""

    name: Name
    shards: int = Field(ge=1)
    duplicates: Literal["keep", "exact", "near"]


ComparedDomains = Annotated[tuple[ComparedDomain, ...], pydantic.Strict(False)]
"""In the order of the study file."""
