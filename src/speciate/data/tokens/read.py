"""Read an encoded split (`data/tokens/encoded.py`) and check that its files belong together."""

import pathlib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from speciate.data.arrays.npy import read_array
from speciate.data.tokens.encoded import FINGERPRINT_KEY, SCHEMA, EncodedSplit
from speciate.data.tokens.manifest import TokenizerManifest


def read_encoded(
    folder: pathlib.Path, split: str, tokenizer: TokenizerManifest, columns: Sequence[str] = tuple(SCHEMA.names)
) -> EncodedSplit:
    """Read a split that `encode` wrote into `folder`.

    Args:
        folder: the folder that `encode` wrote for one shard.
        split: the split's name.
        tokenizer: the tokenizer that the split must have been encoded with.
        columns: the columns of the documents table to read; must include start and stop.

    Raises:
        ValueError: the split was encoded with another tokenizer, or its files are damaged or do not belong together.
    """
    file = folder / f"{split}.documents.parquet"
    try:
        schema = pq.read_schema(file)
        available = [name for name in columns if name in schema.names]
        documents = pq.read_table(file, columns=available, page_checksum_verification=True)
    except (pa.ArrowInvalid, OSError) as error:
        reason = str(error).splitlines()[0] if file.is_file() else "there is no such file"
        raise ValueError(f"{file}: cannot be read: {reason}") from None
    if (schema.metadata or {}).get(FINGERPRINT_KEY) != tokenizer.fingerprint.encode():
        raise ValueError(f"{file}: was encoded with another tokenizer than {tokenizer.fingerprint[:10]}")
    if not schema.equals(SCHEMA):
        raise ValueError(
            f"{file}: does not have the columns and types of an encoded split: {SCHEMA.names}, but {schema.names}"
        )
    tokens_N = read_array(folder / f"{split}.tokens.npy", ndim=1)
    expected = documents["stop"][-1].as_py() if len(documents) else 0
    if (len(tokens_N), tokens_N.dtype) != (expected, tokenizer.dtype):
        raise ValueError(
            f"{folder / f'{split}.tokens.npy'}: has {len(tokens_N)} tokens of type {tokens_N.dtype}, but {file.name} "
            f"describes {expected} of type {tokenizer.dtype}"
        )
    starts_D, stops_D = documents["start"].to_numpy(), documents["stop"].to_numpy()
    if (starts_D != np.append(0, stops_D)[: len(starts_D)]).any() or (stops_D < starts_D).any():
        raise ValueError(f"{file}: its documents do not follow one another without gaps")
    return EncodedSplit(tokens_N, documents)
