"""Encoding one split: its documents in, the files of `data/encoded.py` out, and the lexical types beside them."""

import dataclasses
import pathlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from speciate.data import lexical
from speciate.data.arrays import GrowingArray
from speciate.data.documents import read_tables
from speciate.data.encoded import FINGERPRINT, SCHEMA
from speciate.data.tokens import FittedTokenizer


@dataclasses.dataclass(frozen=True)
class Targets:
    """The files to write: tokens, documents, and the lexical types of the tokens (None: not wanted)."""

    tokens: pathlib.Path
    documents: pathlib.Path
    types: pathlib.Path | None = None


def write_encoded(
    documents: pathlib.Path, tokenizer: FittedTokenizer, targets: Targets, language: str | None
) -> dict[str, Any]:
    """Encodes a documents file, row group by row group, into `targets`; memory does not grow with its length.

    Returns:
        counts: documents, tokens, bytes; and where types were wanted, tokens_by_type and documents_refused (of a text
        with a language: those that are not wholly code in it).
    """
    schema = SCHEMA.with_metadata({FINGERPRINT: tokenizer.manifest.fingerprint.encode()})
    counts = {"documents": 0, "tokens": 0, "bytes": 0}
    types = _Types(targets.types, tokenizer, language) if targets.types else None
    with (
        GrowingArray(targets.tokens, tokenizer.manifest.dtype) as tokens,
        pq.ParquetWriter(targets.documents, schema) as rows,
    ):
        for table in read_tables(documents, ["id", "group", "text"]):
            texts = table["text"].to_pylist()
            ids, lengths = tokenizer.encode(texts)
            stops = counts["tokens"] + np.cumsum(lengths)
            sizes = np.array([len(text.encode()) for text in texts], np.int64)
            assert int(tokenizer.token_bytes[ids].sum()) == int(sizes.sum()), "a byte-level tokenizer lost bytes"
            columns = [table["id"], table["group"], stops - lengths, stops, sizes]
            rows.write_table(pa.table(columns, schema=schema))
            tokens.append(ids)
            if types:
                types.append(texts, ids, lengths)
            counts["documents"] += len(lengths)
            counts["tokens"] += len(ids)
            counts["bytes"] += int(sizes.sum())
    return counts | (types.close() if types else {})


class _Types:
    """Writes the lexical type of each token beside the tokens."""

    def __init__(self, file: pathlib.Path, tokenizer: FittedTokenizer, language: str | None) -> None:
        self.array = GrowingArray(file, np.uint8)
        self.token_bytes = tokenizer.token_bytes
        self.language = language
        self.by_type = np.zeros(len(lexical.TYPES), np.int64)
        self.refused = 0

    def append(self, texts: list[str], ids: npt.NDArray[np.unsignedinteger], lengths: npt.NDArray[np.int64]) -> None:
        stops = np.cumsum(lengths)
        for text, start, stop in zip(texts, stops - lengths, stops, strict=True):
            types = np.zeros(int(stop - start), np.uint8)
            if self.language is not None:
                types, whole = lexical.token_types(text, self.token_bytes[ids[start:stop]])
                self.refused += not whole
            self.by_type += np.bincount(types, minlength=len(lexical.TYPES))
            self.array.append(types)

    def close(self) -> dict[str, Any]:
        self.array.__exit__(None, None, None)
        by_type = dict(zip(lexical.TYPES, self.by_type.tolist(), strict=True))
        return {"tokens_by_type": by_type, "documents_refused": self.refused}
