"""How many bytes of text each token id stands for, and whether that adds up.

A byte-level vocabulary (Radford et al. 2019) writes each byte as one symbol, so a token stands for as many bytes as it
has symbols. Where nothing before it changes the text either, the bytes of a document's tokens sum to the document's:
such a tokenizer is *lossless*. Unicode's NFC is let pass, since cleaning leaves only text that it does not change.

Any other (SentencePiece's unigram and BPE, WordPiece, a prefix space) may fold characters, drop white space, or write
several as one unknown. There a token's bytes are those of its own spelling, with the white space that it implies: a
measure of its share of a document, whose true bytes are known from the text itself.

V ids.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import tokenizers
from tokenizers import pre_tokenizers

ALPHABET = frozenset(pre_tokenizers.ByteLevel.alphabet())
BYTE = re.compile(r"<0x[0-9A-F]{2}>")
META_SPACE = "▁"


def specials(tokenizer: tokenizers.Tokenizer) -> list[str]:
    """The special tokens, in the order of their ids."""
    added = sorted(tokenizer.get_added_tokens_decoder().items())
    return [token.content for _, token in added if token.special]


def is_lossless(description: dict[str, Any]) -> bool:
    """Whether a tokenizer, as its tokenizer.json describes it, keeps every byte of a text in Unicode's NFC."""
    model = description["model"]
    steps = list(_steps(description["pre_tokenizer"]))
    return (
        model["type"] == "BPE"
        and model["vocab"].keys() >= ALPHABET
        and not (model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"))
        and (description["normalizer"] or {"type": "NFC"})["type"] == "NFC"
        and any(step["type"] == "ByteLevel" for step in steps)
        and all(_keeps(step) for step in steps)
        and not any(token["lstrip"] or token["rstrip"] for token in description["added_tokens"] if not token["special"])
    )


def token_bytes(tokenizer: tokenizers.Tokenizer) -> tuple[npt.NDArray[np.int32], bool]:
    """The bytes that each id stands for, int32 (V,), 0 for special tokens; and whether the tokenizer is lossless.

    Raises:
        ValueError: ids with gaps between them, or an entry of a lossless vocabulary that stands for no bytes.
    """
    description = json.loads(tokenizer.to_str())
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    if sorted(vocabulary.values()) != list(range(len(vocabulary))):
        raise ValueError(f"tokenizer: its {len(vocabulary)} ids must run from 0 without gaps")
    lossless = is_lossless(description)
    unknown = _unknown(description["model"])
    added = {token["content"]: token["special"] for token in description["added_tokens"]}
    sizes = np.zeros(len(vocabulary), np.int32)
    for token, index in vocabulary.items():
        if token in added:
            # a special token comes out of no text, but the unknown one, which stands for a character at least
            sizes[index] = (token == unknown) if added[token] else len(token.encode())
        elif lossless and not (token and ALPHABET.issuperset(token)):
            raise ValueError(f"tokenizer: id {index} ({token!r}) is no byte-level token")
        else:
            sizes[index] = len(token) if _byte_level(description) else _spelt(token, description)
    return sizes, lossless


def _steps(step: dict[str, Any] | None) -> Iterator[dict[str, Any]]:
    """The pre-tokenizer's steps, its sequences laid flat."""
    if step is not None and step["type"] == "Sequence":
        for inner in step["pretokenizers"]:
            yield from _steps(inner)
    elif step is not None:
        yield step


def _keeps(step: dict[str, Any]) -> bool:
    if step["type"] == "ByteLevel":
        return not step["add_prefix_space"]
    return step["type"] in ("Split", "Digits", "Punctuation") and step.get("behavior") != "Removed"


def _byte_level(description: dict[str, Any]) -> bool:
    return any(step["type"] == "ByteLevel" for step in _steps(description["pre_tokenizer"]))


def _unknown(model: dict[str, Any]) -> str | None:
    """The token of what the vocabulary cannot spell."""
    if model["type"] == "Unigram":
        return None if model["unk_id"] is None else str(model["vocab"][model["unk_id"]][0])
    return model.get("unk_token")


def _spelt(token: str, description: dict[str, Any]) -> int:
    """The bytes of a token's spelling: `▁the` is ` the`, `<0x0A>` one byte, WordPiece's `##ing` is `ing`."""
    model = description["model"]
    if model.get("byte_fallback") and BYTE.fullmatch(token):
        return 1
    suffix = model.get("end_of_word_suffix")
    if suffix and token.endswith(suffix):
        token = token.removesuffix(suffix) + " "
    prefix = model.get("continuing_subword_prefix")
    if prefix:
        token = token.removeprefix(prefix) if token.startswith(prefix) else " " + token
    return len(token.replace(META_SPACE, " ").encode())
