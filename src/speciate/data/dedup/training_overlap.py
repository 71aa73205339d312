"""Find the documents of a held-out text that the training text holds too, whole or in part.

A document counts as held in whole if a training document has the same words in the same order, and in part if some of
its runs of 13 words occur in the training text. Thirteen is the length in GPT-3's rule (Brown et al. 2020, appendix C),
and `data/dedup/shingles.py` says what a word is; case and punctuation do not count. The held-out text lies in memory,
8 bytes a word; the training text streams past it. Paraphrases and translations are not found.
"""

import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from speciate.data.dedup.shingles import batch_shingle_hashes

NGRAM = 13
"""Words of a run."""
WHOLE = 1 << 30
"""More words than a document has: its only run of that length is all of it."""


def word_keys(texts: Sequence[str]) -> npt.NDArray[np.uint64]:
    """Return a hash of all words of each text in order, (D,): equal for texts that differ in other signs alone.

    A text without words has a hash of its characters.
    """
    hashes, counts_D = batch_shingle_hashes(texts, WHOLE)
    keys_D = np.zeros(len(texts), np.uint64)
    keys_D[counts_D > 0] = hashes
    for index in np.flatnonzero(counts_D == 0).tolist():
        keys_D[index] = int.from_bytes(hashlib.blake2b(texts[index].encode(), digest_size=8).digest(), "big")
    return keys_D


@dataclasses.dataclass(frozen=True)
class Overlap:
    """What the training text holds of each document."""

    whole_D: npt.NDArray[np.bool_]
    """Whether a training document has the same words."""
    share_D: npt.NDArray[np.float64]
    """Share of the document's runs that occur in the training text."""
    num_runs_D: npt.NDArray[np.int64]


class TrainingOverlap:
    """Compare D documents with a training text that is added batch by batch."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._keys_D = word_keys(texts)
        runs, self._num_runs_D = batch_shingle_hashes(texts, NGRAM)
        self._distinct_E, self._index = np.unique(runs, return_inverse=True)
        self._found_E = np.zeros(len(self._distinct_E), np.bool_)
        self._whole_D = np.zeros(len(texts), np.bool_)

    def add(self, texts: Sequence[str]) -> None:
        """Take in some training documents."""
        self._whole_D |= np.isin(self._keys_D, word_keys(texts))
        if len(self._distinct_E):
            runs = batch_shingle_hashes(texts, NGRAM)[0]
            place = np.searchsorted(self._distinct_E, runs)
            place[place == len(self._distinct_E)] = 0
            self._found_E[place[self._distinct_E[place] == runs]] = True

    def result(self) -> Overlap:
        """Return what the training text, as far as it was added, holds of each document."""
        document = np.repeat(np.arange(len(self._num_runs_D)), self._num_runs_D)
        num_found_D = np.bincount(document[self._found_E[self._index]], minlength=len(self._num_runs_D))
        return Overlap(self._whole_D, num_found_D / np.maximum(self._num_runs_D, 1), self._num_runs_D)
