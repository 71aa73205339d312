"""Contracts of the data components: the options of each slot, and what its module must define.

A component subclasses its slot's options and sets only what differs from the defaults here. Its module defines the
functions of the slot's Protocol; `options.component()` loads that module.
"""

import glob
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, cast

from speciate.config.components import ComponentOptions, component_module

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd
    import tokenizers

    from speciate.data.clean.pipeline import Filter
    from speciate.data.passage import Passage
    from speciate.data.shard import Shard


def matching_paths(pattern: str) -> list[str]:
    """Return the files and folders that a glob matches, sorted; a path that exists as it is written is itself."""
    return [pattern] if os.path.exists(pattern) else sorted(glob.glob(pattern, recursive=True))


class SourceModule(Protocol):
    """A kind of source: `data/fetch/sources/<kind>.py`."""

    def fetch(self, options: Any, name: str, target: pathlib.Path, shard: "Shard") -> None:
        """Write what `options` pin, or one shard of it, to the file `target`."""

    def read(self, options: Any, name: str, archive: pathlib.Path) -> "Iterator[Passage]":
        """Yield the passages of a fetched archive, in a fixed order."""


class SourceOptions(ComponentOptions):
    """Options of a source of text or of model files."""

    @property
    def sharded(self) -> bool:
        """Whether each shard fetches a part of the source; otherwise it is fetched once and every shard reads it."""
        return False

    def local_globs(self) -> tuple[str, ...]:
        """Return the globs of the user's own files that this source reads."""
        return ()

    def model_on_hub(self) -> tuple[str, str] | None:
        """Return the repository and the commit of the model on a hub that it fetches; None: it fetches none."""
        return None

    def component(self) -> SourceModule:
        return cast(SourceModule, component_module(self))


class ReaderModule(Protocol):
    """A kind of reader: `data/fetch/readers/<kind>.py`."""

    def read(self, options: Any, member: str, data: bytes, where: str) -> "Iterator[Passage]":
        """Yield the passages of one archive member; `where` names it in messages."""


class ReaderOptions(ComponentOptions):
    """Options of a reader of archive members."""

    def component(self) -> ReaderModule:
        return cast(ReaderModule, component_module(self))


class FilterModule(Protocol):
    """A kind of filter: `data/clean/filters/<kind>.py`."""

    def Filter(self, options: Any, archives: Mapping[str, pathlib.Path], /) -> "Filter":
        """Build the filter; `archives` are the fetched files of the sources that its options name."""


class FilterOptions(ComponentOptions):
    """Options of a filter of documents."""

    def compared_sources(self) -> Mapping[str, SourceOptions]:
        """Return the sources, by name, that the filter compares documents with."""
        return {}

    def component(self) -> FilterModule:
        return cast(FilterModule, component_module(self))


class TokenizerModule(Protocol):
    """A kind of tokenizer: `data/tokens/tokenizer/<kind>.py`."""

    def build(self, options: Any, texts: Iterable[str], archive: pathlib.Path | None) -> "tokenizers.Tokenizer":
        """Fit the tokenizer to `texts`, or assemble it from a published `archive`."""

    def end_of_text(self, options: Any, tokenizer: "tokenizers.Tokenizer", archive: pathlib.Path | None) -> str:
        """Return the token that ends a document."""


class TokenizerOptions(ComponentOptions):
    """Options of a tokenizer."""

    def published_archive(self) -> SourceOptions | None:
        """Return the source of a published tokenizer; None where it is fitted to the study's text."""
        return None

    def max_fitting_bytes(self) -> int | None:
        """Return how many bytes of training text the tokenizer is fitted to at most; None: all of them."""
        return None

    def component(self) -> TokenizerModule:
        return cast(TokenizerModule, component_module(self))


class PackingModule(Protocol):
    """A kind of packing: `data/packing/<kind>.py`."""

    def plan(
        self, options: Any, lengths_D: "npt.NDArray[np.int64]", block_length: int
    ) -> "Iterator[npt.NDArray[np.int64]]":
        """Yield segments: which tokens of which document go where in which block."""


class PackingOptions(ComponentOptions):
    """Options of a packing of documents into blocks."""

    def component(self) -> PackingModule:
        return cast(PackingModule, component_module(self))


class MixtureModule(Protocol):
    """A kind of mixture: `data/mixture/<kind>.py`."""

    def mix(self, options: Any, num_blocks: Mapping[str, int]) -> "tuple[npt.NDArray[np.int32], list[str]]":
        """Return (domain, block) of every training block in order, (N, 2), and warnings for the data card."""

    def relabel(self, options: Any, documents: "pd.DataFrame", name: str) -> "pd.DataFrame":
        """Return held-out documents with other domain labels; called only where `relabels` is true."""


class MixtureOptions(ComponentOptions):
    """Options of a mixture of the domains' training blocks."""

    relabels: ClassVar[bool] = False
    """Whether held-out documents get other domain labels than their own (a negative control)."""

    def labels(self, domains: tuple[str, ...]) -> tuple[str, ...]:
        """Return what the domains are called after mixing."""
        return domains

    def component(self) -> MixtureModule:
        return cast(MixtureModule, component_module(self))
