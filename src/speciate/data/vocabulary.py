"""What a fitted tokenizer says about itself: all that the stages after encoding need of it."""

import pathlib
from typing import Any

import numpy as np

from speciate.kinds import Strict
from speciate.spec import read_spec

END_OF_TEXT = "<|endoftext|>"
"""The one special token, which ends a document."""


class TokenizerManifest(Strict):
    """`tokenizer_manifest.json`."""

    kind: str
    vocabulary: int
    """Number of ids, the special one included."""
    end_of_text: int
    """The id that ends a document."""
    fingerprint: str
    """sha256 of `tokenizer.json`."""

    @property
    def dtype(self) -> "np.dtype[Any]":
        """The smallest unsigned type, of 16 or 32 bits, that holds every id."""
        return np.dtype(np.uint16 if self.vocabulary <= 2**16 else np.uint32)


def read_manifest(folder: pathlib.Path) -> TokenizerManifest:
    """The manifest of the fitted tokenizer in `folder`. Raises ValueError naming the file."""
    return read_spec(TokenizerManifest, folder / "tokenizer_manifest.json")
