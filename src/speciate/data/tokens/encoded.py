"""The format of an encoded split: the concatenated tokens of its documents, and where each document starts and stops.

`data/tokens/write.py` writes the files and `data/tokens/read.py` reads them. They hold no end-of-text tokens; packing
adds those.

N tokens, D documents.
"""

import dataclasses

import numpy as np
import numpy.typing as npt
import pyarrow as pa

# Metadata key of the parquet file for the fingerprint of the tokenizer.
FINGERPRINT_KEY = b"speciate.tokenizer"
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("group", pa.string()),
        ("start", pa.int64()),
        ("stop", pa.int64()),
        ("bytes", pa.int64()),
        ("surface", pa.int64()),
    ]
)


@dataclasses.dataclass(frozen=True)
class EncodedSplit:
    """One split of one shard of a domain, as token ids."""

    tokens_N: npt.NDArray[np.unsignedinteger]
    """Memory-mapped."""
    documents: pa.Table
    """One row per document: id, group, start and stop (the range of its tokens), bytes (its length in UTF-8), surface
    (the sum of its tokens' bytes, which equals `bytes` if the tokenizer is lossless)."""

    @property
    def starts_D(self) -> npt.NDArray[np.int64]:
        """Index of each document's first token."""
        return self.documents["start"].to_numpy()  # type: ignore[no-any-return]

    @property
    def lengths_D(self) -> npt.NDArray[np.int64]:
        """Number of tokens of each document, without the end-of-text token."""
        return self.documents["stop"].to_numpy() - self.starts_D  # type: ignore[no-any-return]
