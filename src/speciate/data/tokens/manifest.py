"""The manifest of a fitted tokenizer: all that the stages after encoding need to know about it."""

import pathlib
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import pydantic

from speciate.config.components import Strict
from speciate.config.run import read_spec
from speciate.io import sha256

FILES = ("tokenizer.json", "token_bytes.npy", "tokenizer_manifest.json")
"""The files of a fitted tokenizer: those that `fit` writes, and that `train` copies into the run's folder."""
END_OF_TEXT = "<|endoftext|>"
"""The special token that ends a document, unless the tokenizer has its own."""


class TokenizerManifest(Strict):
    """`tokenizer_manifest.json`."""

    kind: str
    vocabulary: int
    """Number of ids, special tokens included."""
    end_of_text: int
    """Id of the token that ends a document."""
    end_token: str = END_OF_TEXT
    """Spelling of that token."""
    lossless: bool = True
    """Whether the bytes of a document's tokens sum to the document's bytes, so that each byte belongs to one token."""
    fingerprint: str
    """sha256 of `tokenizer.json`."""
    switched_off: list[str] = []
    """What the published tokenizer.json held that was switched off: dropout, truncation, padding, a post-processor."""

    @pydantic.model_validator(mode="after")
    def _within(self) -> Self:
        if not 0 <= self.end_of_text < self.vocabulary:
            raise ValueError(f"end_of_text: {self.end_of_text} is not an id in a vocabulary of {self.vocabulary}")
        return self

    @property
    def dtype(self) -> "np.dtype[Any]":
        """The smaller of uint16 and uint32 that can hold every id."""
        return np.dtype(np.uint16 if self.vocabulary <= 2**16 else np.uint32)


def read_manifest(folder: pathlib.Path) -> TokenizerManifest:
    """Read the manifest of the fitted tokenizer in `folder`. Raises ValueError naming the file."""
    return read_spec(TokenizerManifest, folder / "tokenizer_manifest.json")


def read_manifest_of(run: Mapping[str, Any], folder: pathlib.Path, option: str) -> TokenizerManifest:
    """Read the manifest of the tokenizer in `folder`, which must be a run's own.

    Args:
        run: what the run says of its vocabulary; empty if it says nothing, as of an earlier version.
        folder: the tokenizer's folder.
        option: the option of the command line that names the folder, for messages.

    Raises:
        ValueError: the folder holds no tokenizer, one that has changed, or another one than the run's.
    """
    absent = [name for name in FILES if name != "token_bytes.npy" and not (folder / name).is_file()]
    if absent:
        raise ValueError(f"{option}: {folder} holds no {absent[0]}; name the folder that `fit` wrote")
    manifest = read_manifest(folder)
    found, expected = manifest.fingerprint, run.get("tokenizer")
    if sha256(folder / "tokenizer.json") != found:
        raise ValueError(f"{option}: {folder / 'tokenizer.json'} has changed since `fit` wrote it")
    if expected is not None and found != expected:
        raise ValueError(
            f"{option}: {folder} is not the run's tokenizer: its fingerprint is {found[:10]}, not {expected[:10]}"
        )
    return manifest
