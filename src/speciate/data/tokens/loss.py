"""Count the text that a tokenizer loses: characters that no token spells.

A model without an unknown token drops what its vocabulary cannot spell; with one, it writes that token instead.
Normalizers and pre-tokenizers drop characters too (BERT's drops control characters, T5's zero-width ones). All of it is
lost: nothing that is trained on the tokens can know of it. White space does not count, since most tokenizers that drop
it imply it. Nor does a mark that a normalizer composes with the character before it, or a change of case.

The places of the tokens in the text come from `tokenizers`. Where a tokenizer is byte-level, a character is lost if the
vocabulary lacks one of its bytes; that needs no second encoding.
"""

import dataclasses
import json
import pathlib
import unicodedata
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import tokenizers

from speciate.config.stage import SPLITS
from speciate.data.tokens.lossless import CUTS, flatten_steps

KEEPING_NORMALIZERS = ("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "Prepend", "ByteLevel")
KEEPING_PRE_TOKENIZERS = (*CUTS, "ByteLevel", "Metaspace", "Whitespace", "WhitespaceSplit", "BertPreTokenizer")
"""Steps that drop nothing but white space."""
BYTE_TOKENS = [f"<0x{byte:02X}>" for byte in range(256)]


@dataclasses.dataclass(frozen=True)
class Loss:
    """How much of some documents was lost. Losses add up."""

    documents: int = 0
    bytes: int = 0
    """Bytes of these documents."""
    documents_with_loss: int = 0
    lost_characters: int = 0
    lost_bytes: int = 0
    """Bytes of the lost characters."""

    def __add__(self, other: Self) -> Self:
        return type(self)(*(a + b for a, b in zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)))

    @classmethod
    def from_counts(cls, counts: Mapping[str, Any]) -> Self:
        """Read the counts of one split, as `encode` writes them. Raises KeyError if one is missing."""
        return cls(**{field.name: counts[field.name] for field in dataclasses.fields(cls)})

    @property
    def most(self) -> bool:
        """Whether more than half of the bytes are lost."""
        return 2 * self.lost_bytes > self.bytes

    def describe(self) -> str:
        """Say how much is lost."""
        share = f"{self.lost_bytes:,} of {self.bytes:,} bytes, {self.lost_bytes / max(1, self.bytes):.2%}"
        of = f"{self.documents_with_loss:,} of {self.documents:,} documents"
        return f"the tokenizer loses {self.lost_characters:,} characters ({share}) in {of}"


def read_loss(folder: pathlib.Path) -> Loss:
    """Read how much one shard lost over all splits, from what `encode` counted. Raises ValueError naming the file."""
    file = folder / "counts.json"
    try:
        splits = json.loads(file.read_text(encoding="utf-8"))["splits"]
        return sum((Loss.from_counts(splits[split]) for split in SPLITS), Loss())
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file}: does not hold the counts of encoding: {error!r}") from None


def loses_only_unknown(description: Mapping[str, Any]) -> bool:
    """Return whether all text that a tokenizer loses shows as unknown tokens, given its parsed tokenizer.json."""
    model = description["model"]
    for step in flatten_steps(description["normalizer"]):
        spaces = step["type"] == "Replace" and not str(step["pattern"].get("String", "x")).strip()
        if step["type"] not in KEEPING_NORMALIZERS and not spaces:
            return False
    for step in flatten_steps(description["pre_tokenizer"]):
        if step["type"] not in KEEPING_PRE_TOKENIZERS or step.get("behavior") == "Removed":
            return False
    # the other models fail where they have no unknown token; BPE drops the character
    falls_back = model.get("byte_fallback") and all(token in model["vocab"] for token in BYTE_TOKENS)
    return bool(model["type"] != "BPE" or falls_back or model["unk_token"])


def lost_characters(tokenizer: tokenizers.Tokenizer, text: str, unknown: int | None) -> str:
    """Return the characters of `text` that no token spells; `unknown` is the id of the unknown token."""
    encoding = tokenizer.encode(text, add_special_tokens=False)
    spans = np.array(encoding.offsets, np.int64).reshape(-1, 2)
    spelled = spans[np.array(encoding.ids, np.int64) != (-1 if unknown is None else unknown)]
    steps = [np.bincount(spelled[:, end], minlength=len(text) + 1) for end in (0, 1)]
    covered = np.cumsum(steps[0] - steps[1])[: len(text)] > 0
    lost, start = [], -1  # start: the spelled character that the marks after it may be composed with
    for index in np.flatnonzero(~covered).tolist():
        if index and covered[index - 1]:
            start = index - 1
        if text[index].isspace():
            start = -1
        elif start < 0 or _length(text[start : index + 1]) > _length(text[start:index]):
            lost.append(text[index])
            start = -1
    return "".join(lost)


def _length(text: str) -> int:
    return len(unicodedata.normalize("NFKC", text))


def characters_with(text: str, missing: frozenset[int]) -> str:
    """Return the characters of `text` that have one of the bytes `missing`."""
    return "".join(character for character in text if not missing.isdisjoint(character.encode()))
