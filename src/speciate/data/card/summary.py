"""What the data card keeps of the documents of one split of one shard; all of it adds up over shards."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from speciate.data.card.sketch import Growing
from speciate.data.clean.dropped import rank
from speciate.data.dedup.shingles import batch

NGRAM = 13
"""Words in a run: what contamination checks count as the same text (Brown et al. 2020, appendix C)."""
NUM_SAMPLES = 5
EXCERPT = 600
"""Characters of a sample that are kept."""
_TEXT = [pa.field(name, pa.string(), nullable=False) for name in ("split", "id", "group", "excerpt")]
_NUMBER = [pa.field(name, pa.int64(), nullable=False) for name in ("characters", "bytes")]
SAMPLES = pa.schema([*_TEXT, *_NUMBER, pa.field("rank", pa.uint64(), nullable=False)])
"""`rank`: a hash of the id; the samples of a split are those of lowest rank."""


@dataclass
class Summary:
    """Sketch, sizes, lengths and samples."""

    runs: Growing = field(default_factory=Growing)
    documents: int = 0
    bytes: int = 0
    characters: int = 0
    by_octave: list[int] = field(default_factory=list)
    """Place b: documents of 2^b to 2^(b+1) - 1 characters."""
    samples: list[dict[str, Any]] = field(default_factory=list)

    def add(self, table: pa.Table) -> None:
        """Adds the documents of a table with columns id, group and text."""
        texts, ids, groups = (table[name].to_pylist() for name in ("text", "id", "group"))
        lengths, sizes = [len(text) for text in texts], [len(text.encode()) for text in texts]
        self.runs.add(batch(texts, NGRAM)[0])
        self.documents += len(texts)
        self.bytes += sum(sizes)
        self.characters += sum(lengths)
        self.by_octave = added(self.by_octave, octaves(np.array(lengths, np.int64)))
        ranks = [rank(name) for name in ids]
        for row in sorted(range(len(ids)), key=ranks.__getitem__)[:NUM_SAMPLES]:
            sample = {"id": ids[row], "group": groups[row], "excerpt": texts[row][:EXCERPT], "rank": ranks[row]}
            self.samples.append({**sample, "characters": lengths[row], "bytes": sizes[row]})
        self.samples = sorted(self.samples, key=lambda sample: (sample["rank"], sample["id"]))[:NUM_SAMPLES]

    def as_json(self) -> dict[str, Any]:
        """The numbers."""
        return {name: getattr(self, name) for name in ("documents", "bytes", "characters", "by_octave")}


def octaves(lengths_D: "np.ndarray[Any, np.dtype[np.int64]]") -> list[int]:
    """How many lengths are in each octave: place b counts those of 2^b to 2^(b+1) - 1; a length of 0 counts as 1."""
    _, exponents = np.frexp(np.maximum(lengths_D, 1).astype(np.float64))
    counts: list[int] = np.bincount(exponents - 1).tolist()
    return counts


def added(some: list[int], more: list[int]) -> list[int]:
    """Two lists of counts, place by place; the shorter ends in zeros."""
    longest = max(len(some), len(more))
    padded = (counts + [0] * (longest - len(counts)) for counts in (some, more))
    return [sum(pair) for pair in zip(*padded, strict=True)]
