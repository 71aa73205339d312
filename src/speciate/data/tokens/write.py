"""Encoding one split: its documents in, the files of `data/tokens/read.py` out, and the lexical types beside them.

Row group by row group, so that memory does not grow with a file's length. What is counted and checked is counted and
checked in arrays over a whole row group: nothing here is done text by text but what the lexical types need.

D documents of a row group, N tokens of it.
"""

import contextlib
import dataclasses
import pathlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from speciate.data.arrays.npy import GrowingArray
from speciate.data.documents import read_tables
from speciate.data.tokens import lexical
from speciate.data.tokens.encoder import Encoder
from speciate.data.tokens.fitted import FittedTokenizer
from speciate.data.tokens.read import FINGERPRINT, SCHEMA

Ints = npt.NDArray[np.int64]
Tokens = npt.NDArray[np.unsignedinteger]


@dataclasses.dataclass(frozen=True)
class Targets:
    """The files to write: tokens, documents, and the lexical types of the tokens (None: not wanted)."""

    tokens: pathlib.Path
    documents: pathlib.Path
    types: pathlib.Path | None = None


def write_encoded(
    documents: pathlib.Path, encoder: Encoder, targets: Targets, language: str | None, max_tokens: int | None = None
) -> dict[str, Any]:
    """Encodes a documents file into `targets`.

    Args:
        documents: the file.
        encoder: of the study's tokenizer.
        targets: what to write.
        language: of the texts, or None.
        max_tokens: the document with which so many tokens are reached is the last; None: all are taken.

    Returns:
        counts: documents, documents_left_out (beyond `max_tokens`), tokens, bytes, by_octave (place b: documents of 2^b
        to 2^(b+1) - 1 tokens; empty ones count as of one); and where types were wanted, tokens_by_type and
        documents_refused (of a text with a language: those that are not wholly code in it).

    Raises:
        ValueError: naming the document: one that the encoder gets wrong, or that does not come back from its tokens; or
            lexical types of a tokenizer that is not lossless.
    """
    fitted = encoder.fitted
    schema = SCHEMA.with_metadata({FINGERPRINT: fitted.manifest.fingerprint.encode()})
    counts = {"documents": 0, "documents_left_out": 0, "tokens": 0, "bytes": 0}
    by_octave = np.zeros(64, np.int64)
    types = None
    with contextlib.ExitStack() as stack:
        tokens = stack.enter_context(GrowingArray(targets.tokens, fitted.manifest.dtype))
        rows = stack.enter_context(pq.ParquetWriter(targets.documents, schema, write_page_checksum=True))
        if targets.types:
            types = _Types(stack.enter_context(GrowingArray(targets.types, np.uint8)), fitted, language)
        for table in read_tables(documents, ["id", "group", "text"]):
            if max_tokens is not None and counts["tokens"] >= max_tokens:
                counts["documents_left_out"] += len(table)
                continue
            texts = table["text"].to_pylist()
            ids, lengths_D = encoder.encode(texts, table["id"])
            if max_tokens is not None:
                kept = int(np.searchsorted(np.cumsum(lengths_D) - lengths_D, max_tokens - counts["tokens"]))
                counts["documents_left_out"] += len(table) - kept
                table, texts, lengths_D = table[:kept], texts[:kept], lengths_D[:kept]
                ids = ids[: lengths_D.sum()]
            bytes_D = pc.binary_length(table["text"]).cast(pa.int64()).to_numpy()
            surface_D = _checked_surface(fitted, table, ids, lengths_D, bytes_D)
            stops_D = counts["tokens"] + np.cumsum(lengths_D)
            columns = [table["id"], table["group"], stops_D - lengths_D, stops_D, bytes_D, surface_D]
            rows.write_table(pa.table(columns, schema=schema))
            tokens.append(ids)
            if types:
                types.append(texts, ids, lengths_D)
            counts["documents"] += len(lengths_D)
            counts["tokens"] += len(ids)
            counts["bytes"] += int(bytes_D.sum())
            by_octave += np.bincount(np.frexp(np.maximum(lengths_D, 1))[1] - 1, minlength=len(by_octave))
    octaves = np.trim_zeros(by_octave, "b").tolist()
    return counts | {"by_octave": octaves} | (types.counts() if types else {})


def _checked_surface(fitted: FittedTokenizer, table: pa.Table, ids: Tokens, lengths_D: Ints, bytes_D: Ints) -> Ints:
    """The bytes that each document's tokens stand for, int64 (D,), once they are known to be that document's."""
    places = np.flatnonzero(ids == fitted.manifest.end_of_text)
    if len(places):
        name = table["id"][int(np.searchsorted(np.cumsum(lengths_D), places[0], side="right"))]
        raise ValueError(f"document {name}: its text becomes the token {fitted.manifest.end_token}, which ends one")
    total_N = np.cumsum(fitted.token_bytes[ids], dtype=np.int64)
    total_D = np.append(total_N, 0)[np.cumsum(lengths_D) - 1]  # the last, 0, for what is empty at the start
    surface_D = np.diff(total_D, prepend=0)
    if fitted.manifest.lossless and not np.array_equal(surface_D, bytes_D):
        wrong = int(np.argmax(surface_D != bytes_D))
        raise ValueError(
            f"document {table['id'][wrong]}: its tokens stand for {surface_D[wrong]} bytes, not its {bytes_D[wrong]}"
        )
    return surface_D


class _Types:
    """Writes the lexical type of each token beside the tokens."""

    def __init__(self, array: GrowingArray, fitted: FittedTokenizer, language: str | None) -> None:
        if language is not None and not fitted.manifest.lossless:
            raise ValueError(
                f"language: lexical types of {language} need a tokenizer whose tokens keep every byte of their text, "
                f"and this one, of kind {fitted.manifest.kind}, does not"
            )
        self.array = array
        self.token_bytes = fitted.token_bytes
        self.language = language
        self.by_type = np.zeros(len(lexical.TYPES), np.int64)
        self.refused = 0

    def append(self, texts: list[str], ids: Tokens, lengths_D: Ints) -> None:
        types_N = np.zeros(len(ids), np.uint8)
        if self.language is not None:
            bytes_N = self.token_bytes[ids]
            stops_D = np.cumsum(lengths_D)
            for text, start, stop in zip(texts, stops_D - lengths_D, stops_D, strict=True):
                types_N[start:stop], whole = lexical.token_types(text, bytes_N[start:stop])
                self.refused += not whole
        self.by_type += np.bincount(types_N, minlength=len(lexical.TYPES))
        self.array.append(types_N)

    def counts(self) -> dict[str, Any]:
        by_type = dict(zip(lexical.TYPES, self.by_type.tolist(), strict=True))
        return {"tokens_by_type": by_type, "documents_refused": self.refused}
