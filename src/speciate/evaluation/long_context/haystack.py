"""The text in which needles are hidden: real text that no run has trained on, as tokens.

Special tokens, which tell a model that what came before does not matter, are left out. Where a context is longer than
the text, the text is repeated.
"""

import pathlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from speciate.data.blocks import BlockSet
from speciate.data.documents import read_documents

LEAST_TOKENS = 64
"""Number of tokens that a text must have to serve as a haystack."""

Tokens = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Haystack:
    """Text as tokens, document after document."""

    token_N: Tokens

    def take(self, count: int, draw: np.random.Generator) -> list[int]:
        """Return `count` tokens in a row from a drawn place; after the last token the first one follows."""
        start = int(draw.integers(len(self.token_N)))
        taken: list[int] = self.token_N[(start + np.arange(count)) % len(self.token_N)].tolist()
        return taken


def own_haystack(test: BlockSet, tokenizer: Tokenizer) -> Haystack:
    """Return the study's own test set, each document's tokens together. Raise ValueError if it is too short."""
    order_N = np.argsort(test.document.reshape(-1), kind="stable")
    return _haystack(test.tokens.reshape(-1)[order_N], tokenizer, "the study's test set")


def read_haystack(folder: pathlib.Path, tokenizer: Tokenizer) -> Haystack:
    """Return the documents below `folder`, in the files' order. Raise ValueError if there are too few."""
    files = sorted(folder.rglob("documents.parquet"))
    if not files:
        raise ValueError(f"{folder}: has no documents.parquet")
    texts = [document.text for file in files for document in read_documents(file)]
    encoded = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    return _haystack(np.array([token for text in encoded for token in text.ids], np.int64), tokenizer, str(folder))


def _haystack(token_N: Tokens, tokenizer: Tokenizer, name: str) -> Haystack:
    special = [index for index, token in tokenizer.get_added_tokens_decoder().items() if token.special]
    token_N = token_N[~np.isin(token_N, special)]
    if len(token_N) < LEAST_TOKENS:
        raise ValueError(f"{name}: has {len(token_N)} tokens of text, and a haystack needs {LEAST_TOKENS}")
    return Haystack(token_N)
