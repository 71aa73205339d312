"""Encode one split: read its documents, write the files of `data/tokens/encoded.py` and the tokens' lexical types.

The file is read one row group at a time, so memory does not grow with its length. Counts and checks run on arrays over
a whole row group; only the lexical types are computed text by text.

D documents in a row group, N tokens in it.
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

from speciate.data.arrays.npy_writers import GrowingArray
from speciate.data.documents import read_tables
from speciate.data.tokens import lexical
from speciate.data.tokens.encoded import FINGERPRINT_KEY, SCHEMA
from speciate.data.tokens.encoder import Encoder
from speciate.data.tokens.fitted import FittedTokenizer

Ints = npt.NDArray[np.int64]
Tokens = npt.NDArray[np.unsignedinteger]


@dataclasses.dataclass(frozen=True)
class Targets:
    """The files to write: tokens, documents, and the lexical types of the tokens (None: not written)."""

    tokens: pathlib.Path
    documents: pathlib.Path
    types: pathlib.Path | None = None


def write_encoded(
    documents: pathlib.Path, encoder: Encoder, targets: Targets, language: str | None, *, max_tokens: int | None = None
) -> dict[str, Any]:
    """Encode a documents file into `targets`.

    Args:
        documents: the documents file.
        encoder: the encoder of the study's tokenizer.
        targets: the files to write.
        language: the programming language of the texts, or None.
        max_tokens: stop after the document that reaches this many tokens; None encodes all documents.

    Returns:
        Counts: documents, documents_left_out (beyond `max_tokens`), tokens, bytes, by_octave (entry b counts documents
        of 2^b to 2^(b+1) - 1 tokens; empty documents count as one token). If types are written, also tokens_by_type and
        documents_refused (with a language: the documents that are not entirely code in that language).

    Raises:
        ValueError: the encoder gets a document wrong, or a document's tokens do not add up to its text (both name the
            document); or lexical types are requested from a tokenizer that is not lossless.
    """
    fitted = encoder.fitted
    schema = SCHEMA.with_metadata({FINGERPRINT_KEY: fitted.manifest.fingerprint.encode()})
    counts = {"documents": 0, "documents_left_out": 0, "tokens": 0, "bytes": 0}
    by_octave = np.zeros(64, np.int64)
    types = None
    with contextlib.ExitStack() as stack:
        tokens = stack.enter_context(GrowingArray(targets.tokens, fitted.manifest.dtype))
        rows = stack.enter_context(pq.ParquetWriter(targets.documents, schema, write_page_checksum=True))
        if targets.types:
            types = _TypeWriter(stack.enter_context(GrowingArray(targets.types, np.uint8)), fitted, language)
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
            surface_D = _token_bytes_of_documents(fitted, table, ids, lengths_D, bytes_D=bytes_D)
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


def _token_bytes_of_documents(
    fitted: FittedTokenizer, table: pa.Table, ids: Tokens, lengths_D: Ints, *, bytes_D: Ints
) -> Ints:
    """Return the bytes that each document's tokens stand for, int64 (D,), after checking them against its text."""
    end_positions = np.flatnonzero(ids == fitted.manifest.end_of_text)
    if len(end_positions):
        name = table["id"][int(np.searchsorted(np.cumsum(lengths_D), end_positions[0], side="right"))]
        raise ValueError(
            f"document {name}: its text is encoded with {fitted.manifest.end_token}, the token that ends a document"
        )
    total_N = np.cumsum(fitted.token_bytes[ids], dtype=np.int64)
    total_D = np.append(total_N, 0)[np.cumsum(lengths_D) - 1]  # empty documents at the start index the 0 at the end
    surface_D = np.diff(total_D, prepend=0)
    if fitted.manifest.lossless and not np.array_equal(surface_D, bytes_D):
        first = int(np.argmax(surface_D != bytes_D))
        raise ValueError(
            f"document {table['id'][first]}: its tokens stand for {surface_D[first]} bytes, but it has {bytes_D[first]}"
        )
    return surface_D


class _TypeWriter:
    """Write the lexical type of each token, and count tokens by type."""

    def __init__(self, array: GrowingArray, fitted: FittedTokenizer, language: str | None) -> None:
        if language is not None and not fitted.manifest.lossless:
            raise ValueError(
                f"language: lexical types of {language} need a tokenizer whose tokens keep every byte of the text; "
                f"this one, of kind {fitted.manifest.kind}, does not"
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
                types_N[start:stop], accepted = lexical.token_types(text, bytes_N[start:stop])
                self.refused += not accepted
        self.by_type += np.bincount(types_N, minlength=len(lexical.TYPES))
        self.array.append(types_N)

    def counts(self) -> dict[str, Any]:
        by_type = dict(zip(lexical.TYPES, self.by_type.tolist(), strict=True))
        return {"tokens_by_type": by_type, "documents_refused": self.refused}
