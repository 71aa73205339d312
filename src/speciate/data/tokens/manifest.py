"""What a fitted tokenizer says about itself: all that the stages after encoding need of it."""

import pathlib
from typing import Any, Self

import numpy as np
import pydantic

from speciate.config.components import Strict
from speciate.config.run import read_spec

END_OF_TEXT = "<|endoftext|>"
"""The special token that ends a document, where a tokenizer has no other of its own."""


class TokenizerManifest(Strict):
    """`tokenizer_manifest.json`."""

    kind: str
    vocabulary: int
    """Number of ids, the special one included."""
    end_of_text: int
    """The id that ends a document."""
    end_token: str = END_OF_TEXT
    """That token's own spelling."""
    lossless: bool = True
    """Whether the bytes of a document's tokens add up to the document's, so that each byte belongs to one token."""
    fingerprint: str
    """sha256 of `tokenizer.json`."""

    @pydantic.model_validator(mode="after")
    def _within(self) -> Self:
        if not 0 <= self.end_of_text < self.vocabulary:
            raise ValueError(f"end_of_text: {self.end_of_text} is no id of a vocabulary of {self.vocabulary}")
        return self

    @property
    def dtype(self) -> "np.dtype[Any]":
        """The smallest unsigned type, of 16 or 32 bits, that holds every id."""
        return np.dtype(np.uint16 if self.vocabulary <= 2**16 else np.uint32)


def read_manifest(folder: pathlib.Path) -> TokenizerManifest:
    """The manifest of the fitted tokenizer in `folder`. Raises ValueError naming the file."""
    return read_spec(TokenizerManifest, folder / "tokenizer_manifest.json")
