"""Compute how many bytes of text each token id stands for, and whether these add up to the text.

A byte-level vocabulary (Radford et al. 2019) writes each byte as one symbol, so a token stands for as many bytes as it
has symbols. If no earlier step changes the text either, the bytes of a document's tokens sum to the document's bytes.
Such a tokenizer is *lossless*; `data/tokens/lossless.py` tells which are.

Other tokenizers (SentencePiece's unigram and BPE, WordPiece, a prefix space) may fold characters, drop white space, or
write several characters as one unknown token. For them a token's bytes are those of its spelling, including the white
space that it implies. This measures the token's share of a document, whose true length is known from the text itself.

V ids.
"""

import json
import re
from typing import Any

import numpy as np
import numpy.typing as npt
import tokenizers

from speciate.data.tokens.lossless import ALPHABET, why_not_lossless, writes_bytes

BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")
META_SPACE = "▁"


def special_tokens(tokenizer: tokenizers.Tokenizer) -> list[str]:
    """Return the special tokens, in the order of their ids."""
    added = sorted(tokenizer.get_added_tokens_decoder().items())
    return [token.content for _, token in added if token.special]


def token_bytes(tokenizer: tokenizers.Tokenizer) -> tuple[npt.NDArray[np.int32], bool]:
    """Return the bytes of each id, int32 (V,), 0 for special tokens; and whether the tokenizer is lossless.

    Raises:
        ValueError: the ids have gaps, or an entry of a lossless vocabulary stands for no bytes.
    """
    description = json.loads(tokenizer.to_str())
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    if sorted(vocabulary.values()) != list(range(len(vocabulary))):
        raise ValueError(f"tokenizer: its {len(vocabulary)} ids must run from 0 without gaps")
    lossless, symbols = why_not_lossless(description) is None, writes_bytes(description)
    unknown = unknown_token(description["model"])
    added = {token["content"]: token["special"] for token in description["added_tokens"]}
    sizes = np.zeros(len(vocabulary), np.int32)
    for token, index in vocabulary.items():
        if token == unknown and added.get(token, True):
            sizes[index] = 1  # it stands for at least one byte of text that the vocabulary cannot spell
        elif token in added:
            sizes[index] = 0 if added[token] else len(token.encode())  # no text becomes a special token
        elif lossless and not (token and ALPHABET.issuperset(token)):
            raise ValueError(f"tokenizer: id {index} ({token!r}) is not a byte-level token")
        else:
            sizes[index] = len(token) if symbols else _spelling_bytes(token, description)
    return sizes, lossless


def unknown_token(model: dict[str, Any]) -> str | None:
    """Return the token for text that the vocabulary cannot spell."""
    if model["type"] == "Unigram":
        return None if model["unk_id"] is None else str(model["vocab"][model["unk_id"]][0])
    return model.get("unk_token")


def _spelling_bytes(token: str, description: dict[str, Any]) -> int:
    """Return the bytes of a token's spelling: `▁the` is ` the`, `<0x0A>` is one byte, WordPiece's `##ing` is `ing`."""
    model = description["model"]
    if model.get("byte_fallback") and BYTE_TOKEN.fullmatch(token):
        return 1
    suffix = model.get("end_of_word_suffix")
    if suffix and token.endswith(suffix):
        token = token.removesuffix(suffix) + " "
    prefix = model.get("continuing_subword_prefix")
    if prefix:
        token = token.removeprefix(prefix) if token.startswith(prefix) else " " + token
    return len(token.replace(META_SPACE, " ").encode())
