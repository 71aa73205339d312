"""Read an encoded split (`data/tokens/encoded.py`), of one shard or of a whole domain, and check that its files belong
together.
"""

import pathlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from speciate.data.arrays.npy import chunks, read_array
from speciate.data.arrays.scratch import ScratchArray
from speciate.data.tokens.encoded import FINGERPRINT_KEY, SCHEMA, EncodedSplit
from speciate.data.tokens.manifest import TokenizerManifest

COPIED_TOKENS = 1 << 20
"""Number of tokens that are copied at a time."""


def read_encoded_shards(
    folders: Sequence[pathlib.Path],
    split: str,
    tokenizer: TokenizerManifest,
    columns: Sequence[str] = tuple(SCHEMA.names),
) -> EncodedSplit:
    """Read a split of a whole domain: the documents of its shards, one shard after the other.

    The tokens of several shards are copied end to end into a file on disk (data/arrays/scratch.py).

    Args:
        folders: what `encode` wrote for each shard, in order.
        split: the split's name.
        tokenizer: the tokenizer that the split must have been encoded with.
        columns: the columns of the documents table to read; must include start and stop.

    Raises:
        ValueError: as `read_encoded` does.
    """
    shards = [read_encoded(folder, split, tokenizer, columns) for folder in folders]
    if len(shards) == 1:
        return shards[0]
    tokens, tables = ScratchArray(tokenizer.dtype), []
    for shard in shards:
        table = shard.documents
        for name in ("start", "stop"):
            moved = pc.add(table[name], len(tokens))
            table = table.set_column(table.schema.get_field_index(name), table.schema.field(name), moved)
        tables.append(table)
        for _, part in chunks(shard.tokens_N, COPIED_TOKENS):
            tokens.append(part)
    return EncodedSplit(tokens.memory_map((len(tokens),)), pa.concat_tables(tables).combine_chunks())


def read_types(folders: Sequence[pathlib.Path], count: int) -> npt.NDArray[np.uint8]:
    """Read the lexical types of the probe's `count` tokens of a whole domain, uint8 (N,), shard after shard.

    Raises:
        ValueError: the files hold the types of another number of tokens; names the first.
    """
    files = [folder / "probe.types.npy" for folder in folders]
    arrays = [read_array(file, np.uint8, 1) for file in files]
    if sum(map(len, arrays)) != count:
        raise ValueError(f"{files[0]}: has {sum(map(len, arrays))} types for {count} tokens")
    if len(arrays) == 1:
        return arrays[0]
    types = ScratchArray(np.uint8)
    for array in arrays:
        for _, part in chunks(array, COPIED_TOKENS):
            types.append(part)
    return types.memory_map((len(types),))


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
