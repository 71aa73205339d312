"""A finished run as the tasks of an evaluation see it, and the columns of the scores that they return."""

import dataclasses
import functools
import pathlib

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer

from speciate.config.run import RunSpec
from speciate.data.blocks import BlockSet, read_block_set
from speciate.model.transformer import Transformer
from speciate.training.objective_base import Objective

SCORES = {
    "metric": "str",
    "part": "str",
    "item": "str",
    "group": "str",
    "length": "int64",
    "depth": "float64",
    "value": "float64",
    "weight": "float64",
    "chance": "float64",
}
"""Columns of a task's scores, a row for each question and metric, and their types.

    metric  what is scored: `accuracy`, `nats_per_token`, `bits_per_byte`, ...
    part    a part of the task that has a row of its own in tables: a domain, a subtask, a text; "" if there is one part
    item    the question
    group   questions of one group are not independent (one document); resampling draws groups
    length  tokens of the question's context; -1 where the task does not vary it
    depth   place of the answer in the context, 0 (first) to 1 (last); NaN where the task does not vary it
    value   the question's score
    weight  its weight in the mean of a part: 1, or a number of tokens or bytes
    chance  expected score of guessing; NaN where there is none
"""


@dataclasses.dataclass(frozen=True)
class Subject:
    """A finished run, loaded."""

    run: RunSpec
    folder: pathlib.Path
    """The run's folder: spec.json, model.safetensors, tokenizer/."""
    model: Transformer
    """In evaluation mode, on `device`."""
    objective: Objective
    tokenizer: Tokenizer
    token_bytes_V: npt.NDArray[np.int32]
    """Bytes that each token id stands for."""
    mixture: pathlib.Path
    """The folder of the study's mixture."""
    texts: dict[str, pathlib.Path]
    """Name in `evaluation.texts` -> the folder with its cleaned documents."""
    device: torch.device

    @functools.cached_property
    def test(self) -> BlockSet:
        """The study's own test set."""
        return read_block_set(self.mixture, "test")
