"""Text of a Markov chain with known entropy: the lowest loss that a model of it can reach.

    p(c' | c) = softmax over c' of contrast N(0, 1),   drawn once from the seed;   the first letter is stationary

A text consists of letters alone. So each letter costs `entropy_rate` nats given those before it, and the first one
somewhat more, however a tokenizer divides them.
"""

import json
import math
import pathlib
import string
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from pydantic import Field

from speciate.config.contracts.data import SourceOptions
from speciate.data.passage import Passage
from speciate.data.reading_errors import explain_errors
from speciate.data.shard import Shard

Matrix = npt.NDArray[np.float64]


class Options(SourceOptions):
    """The chain and its texts."""

    num_letters: int = Field(16, ge=2, le=26)
    """Number of letters in the alphabet."""
    contrast: float = Field(1.5, gt=0)
    """Scale of the transitions' random logits; 0 would make all equally likely, and entropy falls as it grows."""
    num_texts: int = Field(4000, ge=1)
    """Number of texts."""
    length: int = Field(400, ge=2)
    """Length of a text in letters."""
    seed: int = Field(0, ge=0)
    """Seed of the transitions and of the texts."""


def transition_matrix(options: Options) -> Matrix:
    """Return the probability of each letter after each letter, float64 (S, S) for S letters."""
    draw = np.random.Generator(np.random.Philox([options.seed, 0]))
    logits = options.contrast * draw.standard_normal((options.num_letters, options.num_letters))
    next_SS: Matrix = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return next_SS


def stationary_distribution(next_SS: Matrix) -> Matrix:
    """Return the long-run frequency of each letter, float64 (S,): pi = pi P, sum pi = 1."""
    size = len(next_SS)
    equations = np.vstack([next_SS.T - np.eye(size), np.ones(size)])
    frequencies_S: Matrix = np.linalg.lstsq(equations, np.append(np.zeros(size), 1.0), rcond=None)[0]
    return frequencies_S


def entropy_rate(options: Options) -> float:
    """Return the nats of a letter given those before it: -sum_c pi_c sum_c' p(c' | c) log p(c' | c)."""
    next_SS = transition_matrix(options)
    return float(-(stationary_distribution(next_SS)[:, None] * next_SS * np.log(next_SS)).sum())


def fetch(options: Options, name: str, target: pathlib.Path, shard: Shard) -> None:
    """Draw the texts of source `name`, and write them as one JSON string a line."""
    next_SS = transition_matrix(options)
    draw = np.random.Generator(np.random.Philox([options.seed, 1]))
    edges_SS = next_SS.cumsum(axis=1)
    letter_N = np.searchsorted(stationary_distribution(next_SS).cumsum(), draw.random(options.num_texts))
    columns = [letter_N]
    for _ in range(options.length - 1):
        above_N = (draw.random(options.num_texts)[:, None] > edges_SS[columns[-1]]).sum(axis=1)
        columns.append(np.minimum(above_N, options.num_letters - 1))
    letters = np.array(list(string.ascii_lowercase))[np.minimum(np.stack(columns, axis=1), options.num_letters - 1)]
    target.write_text("".join(json.dumps("".join(text)) + "\n" for text in letters), encoding="utf-8")


def read(options: Options, name: str, archive: pathlib.Path) -> Iterator[Passage]:
    """Yield the texts, each its own group."""
    with explain_errors(f"source {name}: {archive}"), archive.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines):
            yield Passage(f"text{number}", None, json.loads(line))


def bits_per_byte(options: Options) -> float:
    """Return `entropy_rate` in the unit of the report, bits per byte; a letter is a byte."""
    return entropy_rate(options) / math.log(2)
