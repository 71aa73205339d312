"""Write a byte-level tokenizer.json in the steps that `fastokens` knows.

Falcon cuts at punctuation with a step of its own, which `fastokens` lacks. Such a step is the same as a split at the
characters that it takes for punctuation. Which these are depends on the Unicode version of `tokenizers`, so it decides.
"""

import functools
import json
from typing import Any

from tokenizers import pre_tokenizers

from speciate.data.tokens.lossless import flatten_steps

CHARACTERS = 0x110000
SURROGATES = range(0xD800, 0xE000)


def fast_form(text: str) -> str:
    """Return a tokenizer.json that gives the same ids, with every Punctuation step written as a Split."""
    description = json.loads(text)
    steps = list(flatten_steps(description["pre_tokenizer"]))
    if not any(step["type"] == "Punctuation" for step in steps):
        return text
    steps = [_split_at_punctuation(step) if step["type"] == "Punctuation" else step for step in steps]
    return json.dumps(description | {"pre_tokenizer": {"type": "Sequence", "pretokenizers": steps}})


def _split_at_punctuation(step: dict[str, Any]) -> dict[str, Any]:
    pattern = {"Regex": _punctuation()}
    return {"type": "Split", "pattern": pattern, "behavior": step["behavior"], "invert": False}


@functools.cache
def _punctuation() -> str:
    """Return a regular expression for one character that `tokenizers` takes for punctuation (takes about a second)."""
    characters = "".join(chr(code) for code in range(CHARACTERS) if code not in SURROGATES)
    others = {char for part, _ in pre_tokenizers.Punctuation("removed").pre_tokenize_str(characters) for char in part}
    return "[" + "".join(f"\\x{{{ord(char):x}}}" for char in characters if char not in others) + "]"
