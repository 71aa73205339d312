"""Byte-pair encoding fitted to the study's training text (Sennrich et al. 2016; on bytes: Radford et al. 2019).

Starting from the 256 bytes, the most frequent pair of neighbouring symbols becomes a new symbol, until there are
`entries`. Decision: the tokenizer is fitted to the train split of all domains together, so that no held-out text shapes
the vocabulary. The vocabulary is small (4,096), because at the default study's size the embedding would otherwise be
most of the model.

The trainer holds every distinct word of the text in memory; `max_bytes` bounds that for texts of many gigabytes.

The same text always gives the same ids. Ties between pairs go to the smaller ids, so the result depends neither on the
hash seed nor on the number of threads.
"""

import pathlib
from collections.abc import Iterable

from pydantic import Field
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from speciate.config.contracts.data import TokenizerOptions
from speciate.data.tokens.fitted import byte_level
from speciate.data.tokens.manifest import END_OF_TEXT


class Options(TokenizerOptions):
    """Options of a tokenizer that is fitted to the training text."""

    entries: int = Field(4096, ge=257)
    """Vocabulary size: the 256 bytes, the end-of-text token, and the merges."""
    max_bytes: int | None = Field(None, ge=1)
    """Approximate bytes of training text to fit to, shared evenly among the domains; null uses all of it."""

    def max_fitting_bytes(self) -> int | None:
        return self.max_bytes


def build(options: Options, texts: Iterable[str], archive: pathlib.Path | None) -> Tokenizer:
    """Fit the tokenizer to `texts`.

    Raises:
        ValueError: an archive was given, or the text has too few pairs for `entries`.
    """
    if archive is not None:
        raise ValueError("tokenizer: kind bpe is fitted to text and does not take an archive")
    tokenizer = byte_level(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=options.entries,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    if tokenizer.get_vocab_size() != options.entries:
        raise ValueError(
            f"tokenizer.entries: the training text gives only {tokenizer.get_vocab_size()} of {options.entries} entries"
        )
    return tokenizer


def end_of_text(options: Options, tokenizer: Tokenizer, archive: pathlib.Path | None) -> str:
    """Return the token that ends a document."""
    return END_OF_TEXT
