"""Tell whether a tokenizer is byte-level, so that its tokens keep every byte of a text, and if not, why.

A byte-level tokenizer (Radford et al. 2019) writes each byte as one symbol; a token then stands for as many bytes as it
has symbols. What counts is the effect of its steps together, however they are arranged: the bytes are written exactly
once, and no other step changes or drops a character. So the sequences of Llama 3, Qwen, GPT-NeoX, Falcon, StarCoder,
SmolLM2 and DeepSeek are all byte-level. Normalisation to Unicode's NFC is allowed, since cleaned text is already in
NFC.

A vocabulary that was trained without an initial alphabet lacks the bytes that its training text lacked (SmolLM2's lacks
21 of 256: some control characters, and bytes of no assigned character). It is still byte-level: a text without these
bytes keeps every byte. `data/tokens/loss.py` counts the texts that have them.
"""

from collections.abc import Iterator
from typing import Any

from tokenizers import pre_tokenizers

ALPHABET = frozenset(pre_tokenizers.ByteLevel.alphabet())
CUTS = ("Split", "Digits", "Punctuation", "UnicodeScripts", "FixedLength")
"""Pre-tokenizers that only cut a text, unless their behavior is to remove what they match."""
_PRINTED = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_OTHERS = [byte for byte in range(256) if byte not in _PRINTED]
BYTE_OF_SYMBOL = {chr(byte): byte for byte in _PRINTED} | {chr(256 + n): byte for n, byte in enumerate(_OTHERS)}
"""Symbol -> byte, as GPT-2 defined it: printable characters stand for themselves, the others follow from U+0100 on."""


def flatten_steps(step: dict[str, Any] | None) -> Iterator[dict[str, Any]]:
    """Yield the steps of a normalizer or a pre-tokenizer, with nested sequences flattened."""
    if step is not None and step["type"] == "Sequence":
        for inner in step["pretokenizers" if "pretokenizers" in step else "normalizers"]:
            yield from flatten_steps(inner)
    elif step is not None:
        yield step


def writes_bytes(description: dict[str, Any]) -> bool:
    """Return whether a tokenizer, given its parsed tokenizer.json, writes each byte as one symbol."""
    return any(step["type"] == "ByteLevel" for step in _all_steps(description))


def why_not_lossless(description: dict[str, Any]) -> str | None:
    """Return why a tokenizer, given its parsed tokenizer.json, is not byte-level; None if it is."""
    model = description["model"]
    if model["type"] != "BPE":
        return f"its model is {model['type']}"
    times = sum(step["type"] == "ByteLevel" for step in _all_steps(description))
    if times != 1:
        return f"its steps write bytes as symbols {times} times instead of once"
    for key in ("continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(key):
            return f"its model has the {key} {model[key]!r}"
    if model.get("byte_fallback") and missing_bytes(description):
        return "its model spells missing symbols by byte fallback"
    for step in flatten_steps(description["normalizer"]):
        if step["type"] not in ("NFC", "ByteLevel"):
            return f"its normalizer {step['type']} may change the text"
    for step in flatten_steps(description["pre_tokenizer"]):
        if step.get("add_prefix_space"):
            return f"its pre-tokenizer {step['type']} adds a space before the text"
        if step["type"] not in (*CUTS, "ByteLevel") or step.get("behavior") == "Removed":
            return f"its pre-tokenizer {step['type']} may change the text"
    for token in description["added_tokens"]:
        if not token["special"] and (token["lstrip"] or token["rstrip"]):
            return f"its added token {token['content']!r} takes in the white space around it"
    return None


def missing_bytes(description: dict[str, Any]) -> frozenset[int]:
    """Return the bytes that the vocabulary of a byte-level tokenizer has no symbol for."""
    return frozenset(BYTE_OF_SYMBOL[symbol] for symbol in ALPHABET - description["model"]["vocab"].keys())


def _all_steps(description: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from flatten_steps(description["normalizer"])
    yield from flatten_steps(description["pre_tokenizer"])
