"""The settings of a study's texts: domains, duplicates, splits, held-out sets."""

from typing import Annotated, Literal, Self

import pydantic
from pydantic import Field

from speciate.config.components import OneOf, Strict
from speciate.config.contracts.data import FilterOptions, SourceOptions
from speciate.config.run import Name


class Domain(Strict):
    """One domain of text: where it comes from, and which documents are kept."""

    sources: dict[Name, Annotated[SourceOptions, OneOf("data/fetch/sources")]] = Field(min_length=1)
    """Name of a source -> where its documents come from."""
    licences: dict[Name, str] = {}
    """Name of a source -> the licence of its texts, for the data card."""
    filters: Annotated[tuple[Annotated[FilterOptions, OneOf("data/clean/filters")], ...], pydantic.Strict(False)] = ()
    """Filters, applied in this order. Every dropped document is counted under its filter's reason."""
    duplicates: Literal["keep", "exact", "near"] = "exact"
    """Which documents are dropped as duplicates of another: none (`keep`), those with an equal text (`exact`), or those
    with a similar text too (`near`)."""
    max_bytes: int | None = Field(None, ge=1)
    """Bytes of text, in UTF-8, that the domain keeps. Its documents are put in a fixed pseudo-random order that depends
    on their texts alone, and the first of them are kept, up to the one that reaches the limit. All sources are read
    whatever the limit. With null there is none."""
    max_tokens: int | None = Field(None, ge=1)
    """Tokens of training text, in the same order. Documents after the one that reaches the limit are left out; with
    null there is no limit."""
    probe_share: float | None = Field(None, gt=0, lt=0.5)
    """Share of the text on which selectors are observed, in place of split.probe: a domain of few groups (templates,
    long articles) needs a larger one, since the groups are what its tests can permute. With null it is split.probe."""
    shards: int = Field(1, ge=1)
    """Number of parts that most stages of this domain are spread over, one job each. It changes no result."""
    language: Literal["python"] | None = None
    """Programming language of the texts. With one, the probe's tokens are labelled by their lexical type."""


class Duplicates(Strict):
    """How duplicate documents are found. `domains.NAME.duplicates` says whose are dropped."""

    across_domains: bool = False
    """Whether the documents of all domains are compared with each other. With false each domain is compared with itself
    alone."""
    ngram: int = Field(5, ge=1)
    """Number of words in a shingle. Two letters of a script without spaces count as one word."""
    similarity: float = Field(0.8, gt=0, le=1)
    """Jaccard similarity of two documents' shingles from which they count as near-duplicates."""
    permutations: int = Field(120, ge=8)
    """Number of values in a document's MinHash signature."""
    bands: int = Field(20, ge=1)
    """Number of bands that the signature is cut into. Documents that agree on a whole band are compared. It must divide
    permutations."""
    buckets: int = Field(1, ge=1)
    """Number of jobs that the bands are spread over."""

    @pydantic.model_validator(mode="after")
    def _check_bands(self) -> Self:
        if self.permutations % self.bands:
            raise ValueError(f"bands: {self.bands} does not divide {self.permutations} permutations")
        if self.buckets > self.bands:
            raise ValueError(f"buckets: {self.buckets} jobs for {self.bands} bands")
        return self


class Split(Strict):
    """Shares of the text in each split. Groups of documents are ordered by a hash and the order is cut at the shares.
    Records with the same value in a source's `group` are a group, in whichever source of the domain they are. Without
    one, documents of the same text are a group. No group is in two splits of a domain. Names and the order of files,
    rows and shards change nothing.
    """

    validation: float = Field(0.05, gt=0, lt=0.5)
    """Share of the text for the validation loss, measured during training."""
    test: float = Field(0.1, gt=0, lt=0.5)
    """Share of the text for the reported loss."""
    probe: float = Field(0.1, gt=0, lt=0.5)
    """Share of the text on which selectors are observed."""
    seed: int = Field(0, ge=0)
    """Seed of the hash. Another seed gives another split."""


class HeldOut(Strict):
    """Sizes of the held-out sets: fixed numbers of blocks of each domain, the same for every run of the study."""

    validation_blocks: int = Field(24, ge=1)
    """Blocks of each domain for the validation loss, measured during training."""
    test_blocks: int = Field(192, ge=1)
    """Blocks of each domain on which the finished model is evaluated: its reported loss."""
    probe_blocks: int = Field(64, ge=1)
    """Blocks of each domain on which every selector of every run is observed."""
    seed: int = Field(0, ge=0)
    """Seed by which the blocks are drawn."""


class ComparedDomain(Strict):
    """One of the domains whose documents are compared with each other."""

    name: Name
    shards: int = Field(ge=1)
    duplicates: Literal["keep", "exact", "near"]


ComparedDomains = Annotated[tuple[ComparedDomain, ...], pydantic.Strict(False)]
"""In the order of the study file."""
