"""One encoded split on disk: the tokens of all its documents end to end, and where each document starts and stops.

N tokens, D documents. No end-of-text token is inside; packing adds it. `data/tokens/write.py` writes what is read here.
"""

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from speciate.data.arrays.npy import read_array
from speciate.data.tokens.manifest import TokenizerManifest

# The parquet files' own key for the tokenizer that the tokens belong to.
FINGERPRINT = b"speciate.tokenizer"
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
class Encoded:
    """One split of one domain, as token ids."""

    tokens_N: npt.NDArray[np.unsignedinteger]
    """Memory-mapped."""
    documents: pa.Table
    """One row a document: id, group, start, stop (where its tokens are), bytes (its length in UTF-8), surface (the
    bytes that its tokens stand for: the same number where the tokenizer is lossless)."""

    @property
    def starts_D(self) -> npt.NDArray[np.int64]:
        """Where each document's tokens start."""
        return self.documents["start"].to_numpy()  # type: ignore[no-any-return]

    @property
    def lengths_D(self) -> npt.NDArray[np.int64]:
        """Tokens of each document, without the end-of-text token."""
        return self.documents["stop"].to_numpy() - self.starts_D  # type: ignore[no-any-return]


def read_encoded(
    folder: pathlib.Path, split: str, tokenizer: TokenizerManifest, columns: Sequence[str] = tuple(SCHEMA.names)
) -> Encoded:
    """A split that `encode` wrote into `folder`; of its documents these `columns`, start and stop among them.

    Raises:
        ValueError: made with another tokenizer than `tokenizer`, or files that are damaged or do not belong together.
    """
    file = folder / f"{split}.documents.parquet"
    try:
        schema = pq.read_schema(file)
        known = [name for name in columns if name in schema.names]
        documents = pq.read_table(file, columns=known, page_checksum_verification=True)
    except (pa.ArrowInvalid, OSError) as error:
        why = str(error).splitlines()[0] if file.is_file() else "there is no such file"
        raise ValueError(f"{file}: cannot be read: {why}") from None
    if (schema.metadata or {}).get(FINGERPRINT) != tokenizer.fingerprint.encode():
        raise ValueError(f"{file}: was encoded with another tokenizer than {tokenizer.fingerprint[:10]}")
    if not schema.equals(SCHEMA):
        raise ValueError(f"{file}: has columns {schema.names}, not {SCHEMA.names}, or of other types")
    tokens_N = read_array(folder / f"{split}.tokens.npy", ndim=1)
    expected = documents["stop"][-1].as_py() if len(documents) else 0
    if (len(tokens_N), tokens_N.dtype) != (expected, tokenizer.dtype):
        raise ValueError(
            f"{folder / f'{split}.tokens.npy'}: has {len(tokens_N)} tokens of type {tokens_N.dtype}, but {file.name} "
            f"tells of {expected} of type {tokenizer.dtype}"
        )
    starts_D, stops_D = documents["start"].to_numpy(), documents["stop"].to_numpy()
    if (starts_D != np.append(0, stops_D)[: len(starts_D)]).any() or (stops_D < starts_D).any():
        raise ValueError(f"{file}: its documents do not follow each other")
    return Encoded(tokens_N, documents)
