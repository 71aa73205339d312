"""Summarise the documents of one split of one shard for the data card; summaries add up over shards."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from speciate.data.card.sketch import GrowingSketch
from speciate.data.clean.dropped import sampling_rank
from speciate.data.dedup.shingles import batch_shingle_hashes

NGRAM = 13
"""Words in an n-gram: the length that contamination checks count as the same text (Brown et al. 2020, appendix C).

`data/dedup/units.py` says what a word is, here, in decontamination and in the search for near-duplicates."""
NUM_SAMPLES = 5
"""Number of documents of a split that are kept as samples."""
EXCERPT = 600
"""Number of characters of a sample that are kept."""
_TEXT = [pa.field(name, pa.string(), nullable=False) for name in ("split", "id", "group", "excerpt")]
_NUMBER = [pa.field(name, pa.int64(), nullable=False) for name in ("characters", "bytes")]
SAMPLES = pa.schema([*_TEXT, *_NUMBER, pa.field("rank", pa.uint64(), nullable=False)])
"""`rank` is a hash of the id; the samples of a split are the documents of lowest rank."""


@dataclass
class SplitSummary:
    """Sketch of word n-grams, sizes, lengths and samples."""

    runs: GrowingSketch = field(default_factory=GrowingSketch)
    documents: int = 0
    bytes: int = 0
    characters: int = 0
    by_octave: list[int] = field(default_factory=list)
    """Entry b counts documents of 2^b to 2^(b+1) - 1 characters."""
    samples: list[dict[str, Any]] = field(default_factory=list)

    def add(self, table: pa.Table) -> None:
        """Add the documents of a table with columns id, group and text."""
        texts, ids, groups = (table[name].to_pylist() for name in ("text", "id", "group"))
        lengths, sizes = [len(text) for text in texts], [len(text.encode()) for text in texts]
        self.runs.add(batch_shingle_hashes(texts, NGRAM)[0])
        self.documents += len(texts)
        self.bytes += sum(sizes)
        self.characters += sum(lengths)
        self.by_octave = add_counts(self.by_octave, octave_counts(np.array(lengths, np.int64)))
        ranks = [sampling_rank(name) for name in ids]
        for row in sorted(range(len(ids)), key=ranks.__getitem__)[:NUM_SAMPLES]:
            sample = {"id": ids[row], "group": groups[row], "excerpt": texts[row][:EXCERPT], "rank": ranks[row]}
            self.samples.append({**sample, "characters": lengths[row], "bytes": sizes[row]})
        self.samples = sorted(self.samples, key=lambda sample: (sample["rank"], sample["id"]))[:NUM_SAMPLES]

    def as_json(self) -> dict[str, Any]:
        """Return the counts by name, without the sketch and the samples."""
        return {
            "documents": self.documents,
            "bytes": self.bytes,
            "characters": self.characters,
            "by_octave": self.by_octave,
        }


def octave_counts(lengths_D: "np.ndarray[Any, np.dtype[np.int64]]") -> list[int]:
    """Count lengths by octave: entry b counts lengths of 2^b to 2^(b+1) - 1; a length of 0 counts as 1."""
    _, exponents = np.frexp(np.maximum(lengths_D, 1).astype(np.float64))
    counts: list[int] = np.bincount(exponents - 1).tolist()
    return counts


def add_counts(first: list[int], second: list[int]) -> list[int]:
    """Add two lists of counts entry by entry; the shorter one is padded with zeros."""
    longest = max(len(first), len(second))
    padded = (counts + [0] * (longest - len(counts)) for counts in (first, second))
    return [sum(pair) for pair in zip(*padded, strict=True)]
