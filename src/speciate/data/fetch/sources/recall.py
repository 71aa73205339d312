"""Texts of associative recall (MQAR, Arora et al. 2023), which separates mixers: data/recall_texts.py has the format.

A character is a symbol, so a tokenizer without merges (`{kind: bpe, entries: 257}`) has one token for each.
"""

import json
import pathlib
from collections.abc import Iterator
from typing import Self

import numpy as np
import pydantic
from pydantic import Field

from speciate.config.contracts.data import SourceOptions
from speciate.data.passage import Passage
from speciate.data.reading_errors import explain_errors
from speciate.data.recall_options import RecallOptions, check_sizes
from speciate.data.recall_texts import draw_texts
from speciate.data.shard import Shard


class Options(RecallOptions, SourceOptions):
    """Options of the texts: their pairs, symbols and gaps, and how many there are."""

    num_pairs: int = Field(8, ge=1)
    """Number of pairs of a key and a value in a text, each asked once."""
    num_texts: int = Field(4000, ge=1)
    """Number of texts."""
    length: int = Field(63, ge=4)
    """Length of a text in symbols. With the token that ends a text, 63 fill a block of 64."""
    seed: int = Field(0, ge=0)
    """Seed of the texts."""

    @pydantic.model_validator(mode="after")
    def _check_sizes(self) -> Self:
        check_sizes(self, self.num_pairs, self.length)
        return self


def fetch(options: Options, name: str, target: pathlib.Path, shard: Shard) -> None:
    """Draw the texts of source `name`, and write them as one JSON string a line."""
    draw = np.random.Generator(np.random.Philox([options.seed, options.num_pairs]))
    texts, _ = draw_texts(options, options.num_pairs, options.length, options.num_texts, draw=draw)
    target.write_text("".join(json.dumps(text) + "\n" for text in texts), encoding="utf-8")


def read(options: Options, name: str, archive: pathlib.Path) -> Iterator[Passage]:
    """Yield the texts, each its own group."""
    with explain_errors(f"source {name}: {archive}"), archive.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines):
            yield Passage(f"text{number}", None, json.loads(line))
