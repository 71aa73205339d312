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
from speciate.data.tokens.loss import Loss, characters_with, lost_characters

Ints = npt.NDArray[np.int64]
Tokens = npt.NDArray[np.unsignedinteger]


@dataclasses.dataclass(frozen=True)
class Targets:
    """The files to write: tokens, documents, and the lexical types of the tokens (None: not written)."""

    tokens: pathlib.Path
    documents: pathlib.Path
    types: pathlib.Path | None = None


def write_encoded(documents: pathlib.Path, encoder: Encoder, targets: Targets, language: str | None) -> dict[str, Any]:
    """Encode a documents file into `targets`.

    Args:
        documents: the documents file.
        encoder: the encoder of the study's tokenizer.
        targets: the files to write.
        language: the programming language of the texts, or None.

    Returns:
        Counts: documents, tokens, bytes, by_octave (entry b counts documents of 2^b to 2^(b+1) - 1 tokens; empty
        documents count as one token), and what `loss.Loss` counts. If types are written, also tokens_by_type and
        documents_refused (with a language: the documents that are not entirely code in that language, or that lost some
        of their text).

    Raises:
        ValueError: the encoder gets a document wrong, a document's tokens do not add up to its text, or none of its
            text is left (all name the document); or lexical types are requested from a tokenizer that is not lossless.
    """
    fitted = encoder.fitted
    schema = SCHEMA.with_metadata({FINGERPRINT_KEY: fitted.manifest.fingerprint.encode()})
    counts = {"tokens": 0}
    loss = Loss()
    by_octave = np.zeros(64, np.int64)
    types = None
    with contextlib.ExitStack() as stack:
        tokens = stack.enter_context(GrowingArray(targets.tokens, fitted.manifest.dtype))
        rows = stack.enter_context(pq.ParquetWriter(targets.documents, schema, write_page_checksum=True))
        if targets.types:
            types = _TypeWriter(stack.enter_context(GrowingArray(targets.types, np.uint8)), fitted, language)
        for table in read_tables(documents, ["id", "domain", "group", "text"]):
            texts = table["text"].to_pylist()
            ids, lengths_D = encoder.encode(texts, table["id"])
            bytes_D = pc.binary_length(table["text"]).cast(pa.int64()).to_numpy()
            surface_D = _token_bytes_of_documents(fitted, table, ids, lengths_D)
            loss += _count_loss(fitted, table, lengths_D, bytes_D, suspects=_suspects(fitted, ids, lengths_D, texts))
            _check_surface(fitted, table, bytes_D, surface_D)
            stops_D = counts["tokens"] + np.cumsum(lengths_D)
            columns = [table["id"], table["group"], stops_D - lengths_D, stops_D, bytes_D, surface_D]
            rows.write_table(pa.table(columns, schema=schema))
            tokens.append(ids)
            if types:
                types.append(texts, ids, lengths_D, complete_D=surface_D == bytes_D)
            counts["tokens"] += len(ids)
            by_octave += np.bincount(np.frexp(np.maximum(lengths_D, 1))[1] - 1, minlength=len(by_octave))
    octaves = np.trim_zeros(by_octave, "b").tolist()
    return dataclasses.asdict(loss) | counts | {"by_octave": octaves} | (types.counts() if types else {})


def check_language(fitted: FittedTokenizer, language: str | None, field: str = "language") -> None:
    """Raise ValueError, naming the `field`, if lexical types are wanted of a tokenizer that is not lossless."""
    if language is not None and fitted.why_not_lossless:
        raise ValueError(
            f"{field}: lexical types of {language} need a tokenizer whose tokens keep every byte of the text; this "
            f"one, of kind {fitted.manifest.kind}, does not, since {fitted.why_not_lossless}: write `language: null` "
            "for this domain, or choose a byte-level tokenizer"
        )


def _token_bytes_of_documents(fitted: FittedTokenizer, table: pa.Table, ids: Tokens, lengths_D: Ints) -> Ints:
    """Return the bytes that each document's tokens stand for, int64 (D,). Raises ValueError for a special token."""
    positions = np.flatnonzero(fitted.is_special_V[ids])
    if len(positions):
        name = table["id"][_document_of(lengths_D, positions[0])]
        token = fitted.tokenizer.id_to_token(int(ids[positions[0]]))
        what = "the token that ends a document" if token == fitted.manifest.end_token else "a special token"
        if ids[positions[0]] == fitted.unknown_id:
            what += ", and which the tokenizer writes for what it cannot spell"
        raise ValueError(f"document {name}: its text is encoded with {token}, {what}")
    total_N = np.cumsum(fitted.token_bytes[ids], dtype=np.int64)
    total_D = np.append(total_N, 0)[np.cumsum(lengths_D) - 1]  # empty documents at the start index the 0 at the end
    return np.diff(total_D, prepend=0)


def _document_of(lengths_D: Ints, position: int) -> int:
    """Return which document holds the token at `position`."""
    return int(np.searchsorted(np.cumsum(lengths_D), position, side="right"))


def _check_surface(fitted: FittedTokenizer, table: pa.Table, bytes_D: Ints, surface_D: Ints) -> None:
    """Check that the tokens of a lossless tokenizer stand for a document's bytes, less those that it cannot spell."""
    if not fitted.manifest.lossless:
        return
    for index in np.flatnonzero(surface_D != bytes_D).tolist():
        text = table["text"][index].as_py().encode()
        if not 0 <= bytes_D[index] - surface_D[index] <= sum(byte in fitted.missing_bytes for byte in text):
            raise ValueError(
                f"document {table['id'][index]}: its tokens stand for {surface_D[index]} bytes, but it has "
                f"{bytes_D[index]}"
            )


def _suspects(fitted: FittedTokenizer, ids: Tokens, lengths_D: Ints, texts: list[str]) -> list[int]:
    """Return the documents that may have lost some text."""
    if not fitted.loses_only_unknown:
        return [*range(len(texts))]
    if fitted.manifest.lossless:
        missing = bytes(sorted(fitted.missing_bytes))
        return [d for d, text in enumerate(texts) if missing and _has_any(text, missing)]
    if fitted.unknown_id is None:
        return []
    positions = np.flatnonzero(ids == fitted.unknown_id)
    return [int(d) for d in np.unique(np.searchsorted(np.cumsum(lengths_D), positions, side="right"))]


def _has_any(text: str, chosen: bytes) -> bool:
    raw = text.encode()
    return len(raw.translate(None, chosen)) != len(raw)


def _count_loss(
    fitted: FittedTokenizer, table: pa.Table, lengths_D: Ints, bytes_D: Ints, *, suspects: list[int]
) -> Loss:
    """Count what is lost of some documents. Raises ValueError if nothing is left of one."""
    loss = Loss(documents=len(lengths_D), bytes=int(bytes_D.sum()))
    for index in suspects:
        text = table["text"][index].as_py()
        if fitted.manifest.lossless:
            lost = characters_with(text, fitted.missing_bytes)
        else:
            lost = lost_characters(fitted.tokenizer, text, fitted.unknown_id)
        if lost and not lengths_D[index]:
            raise ValueError(
                f"domains.{table['domain'][index]}: document {table['id'][index]}: the tokenizer has no token for any "
                f"of its {len(lost):,} characters ({lost[:20]!r}): choose a tokenizer that can spell this text, or "
                "remove the document"
            )
        if lost:
            loss += Loss(documents_with_loss=1, lost_characters=len(lost), lost_bytes=len(lost.encode()))
    return loss


class _TypeWriter:
    """Write the lexical type of each token, and count tokens by type."""

    def __init__(self, array: GrowingArray, fitted: FittedTokenizer, language: str | None) -> None:
        check_language(fitted, language)
        self.array = array
        self.token_bytes = fitted.token_bytes
        self.language = language
        self.by_type = np.zeros(len(lexical.TYPES), np.int64)
        self.refused = 0

    def append(self, texts: list[str], ids: Tokens, lengths_D: Ints, complete_D: npt.NDArray[np.bool_]) -> None:
        types_N = np.zeros(len(ids), np.uint8)
        if self.language is not None:
            bytes_N = self.token_bytes[ids]
            stops_D = np.cumsum(lengths_D)
            for text, start, stop, complete in zip(texts, stops_D - lengths_D, stops_D, complete_D, strict=True):
                accepted = False
                if complete:  # else the tokens' bytes are not those of the text, and the types stay `other`
                    types_N[start:stop], accepted = lexical.token_types(text, bytes_N[start:stop])
                self.refused += not accepted
        self.by_type += np.bincount(types_N, minlength=len(lexical.TYPES))
        self.array.append(types_N)

    def counts(self) -> dict[str, Any]:
        by_type = dict(zip(lexical.TYPES, self.by_type.tolist(), strict=True))
        return {"tokens_by_type": by_type, "documents_refused": self.refused}
