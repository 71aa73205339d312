"""Drop documents that share runs of words with an evaluation set, so that no test item was trained on.

A shared run of 13 words, ignoring case and punctuation, is GPT-3's rule (Brown et al. 2020, appendix C). The evaluation
sets are sources like any other; one sorted array holds their shingles (data/dedup/shingles.py), 8 + 2 bytes each. In a
script without spaces, such as Chinese or Thai, two letters count as one word, so the run has 26 letters. The rule
misses paraphrases, translations, and items shorter than the run, unless a document consists of just their words. It
wrongly drops documents with set phrases or licences that an evaluation set also holds.
"""

import pathlib
from collections.abc import Mapping
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field

from speciate.config.components import OneOf
from speciate.config.contracts.data import FilterOptions, SourceOptions
from speciate.data.clean.pipeline import Drop, drop_if_too_large, normalise
from speciate.data.dedup.shingles import read_run, shingle_hashes
from speciate.data.documents import Document


class Options(FilterOptions):
    """Keep documents that share nothing with the evaluation sets."""

    sources: dict[
        Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], Annotated[SourceOptions, OneOf("data/fetch/sources")]
    ] = Field(min_length=1)
    """Name -> the source of an evaluation set."""
    ngram: int = Field(13, ge=1)
    """Number of words in a run. Two letters of a script without spaces count as one word."""
    max_share: float = Field(0, ge=0, lt=1)
    """Greatest share of a document's runs that may occur in a set; with 0, a single one drops the document."""

    def compared_sources(self) -> dict[str, SourceOptions]:
        """Return the evaluation sets, by name."""
        return dict(self.sources)


class Filter:
    """Compare each document with all evaluation sets."""

    def __init__(self, options: Options, archives: Mapping[str, pathlib.Path]) -> None:
        self.options = options
        self._names = list(options.sources)
        set_runs = [self._runs(name, archives[name]) for name in self._names]
        runs = np.concatenate(set_runs)
        owner = np.repeat(np.arange(len(set_runs), dtype=np.uint16), [len(set_run) for set_run in set_runs])
        self._runs_E, first = np.unique(runs, return_index=True)
        self._owner_E = owner[first]

    def _runs(self, name: str, archive: pathlib.Path) -> npt.NDArray[np.uint64]:
        """Return the shingles of one set, each once. Raise ValueError if it has none."""
        options = self.options.sources[name]
        batches, size = [np.empty(0, np.uint64)], 0
        for passage in options.component().read(options, name, archive):
            if passage.text is not None:
                batches.append(shingle_hashes(normalise(passage.text), self.options.ngram))
                size += len(batches[-1])
            if size > 1 << 20:
                batches, size = [np.unique(np.concatenate(batches))], 0
        distinct_runs = np.unique(np.concatenate(batches))
        if not len(distinct_runs):
            raise ValueError(f"decontamination: source {name} holds no words to compare with")
        return distinct_runs

    def apply(self, document: Document) -> Document | Drop:
        """Return `document`, or why it is dropped (contaminated); the note shows the set and the first shared run."""
        if drop := drop_if_too_large(document):
            return drop
        runs_S = shingle_hashes(document.text, self.options.ngram)
        place_S = np.searchsorted(self._runs_E, runs_S)
        place_S[place_S == len(self._runs_E)] = 0
        hits = np.flatnonzero(self._runs_E[place_S] == runs_S)
        if len(hits) <= self.options.max_share * len(runs_S):
            return document
        owner = self._names[self._owner_E[place_S[hits[0]]]]
        run = read_run(document.text, self.options.ngram, int(hits[0]))
        return Drop("contaminated", f"{owner}, {len(hits)} of {len(runs_S)} runs: {run}")
