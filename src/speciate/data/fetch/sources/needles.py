"""Short texts in which needles are told and asked for, so that a small model can learn what the task `needle` asks.

    num_needles sentences that give a word its number, then as many questions with their answers, in random order

Words and numbers are drawn anew for each text, so an answer can only come from the text itself. There is no haystack.
"""

import json
import pathlib
from collections.abc import Iterator

import numpy as np
from pydantic import Field

from speciate.config.contracts.data import SourceOptions
from speciate.data.needle_sentences import MADE_UP, NUMBERS, ask_number, code_of
from speciate.data.passage import Passage
from speciate.data.reading_errors import explain_errors
from speciate.data.shard import Shard


class Options(SourceOptions):
    """Options of the texts: how many there are, and how many needles each holds."""

    num_needles: int = Field(4, ge=1, le=1000)
    """Number of sentences of a text that give a word its number; each is asked for once."""
    num_texts: int = Field(4000, ge=1)
    """Number of texts."""
    seed: int = Field(0, ge=0)
    """Seed of the texts."""


def fetch(options: Options, name: str, target: pathlib.Path, shard: Shard) -> None:
    """Draw the texts of source `name`, and write them as one JSON string a line."""
    draw = np.random.Generator(np.random.Philox([options.seed, options.num_needles]))
    with target.open("w", encoding="utf-8") as lines:
        for _ in range(options.num_texts):
            keys, numbers = (
                [pool[index] for index in draw.choice(len(pool), options.num_needles, replace=False)]
                for pool in (MADE_UP, NUMBERS)
            )
            told = [code_of(key, number) for key, number in zip(keys, numbers, strict=True)]
            order = draw.permutation(options.num_needles)
            asked = [f"{ask_number(keys[index])} {numbers[index]}." for index in order]
            lines.write(json.dumps("".join((*told, *asked)).strip()) + "\n")


def read(options: Options, name: str, archive: pathlib.Path) -> Iterator[Passage]:
    """Yield the texts, each its own group."""
    with explain_errors(f"source {name}: {archive}"), archive.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines):
            yield Passage(f"text{number}", None, json.loads(line))
