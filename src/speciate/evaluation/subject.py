"""A finished run as the tasks of an evaluation see it."""

import dataclasses
import functools
import pathlib

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer

from speciate.config.contracts.evaluation import SCORES as SCORES
from speciate.config.run import RunSpec
from speciate.data.blocks import BlockSet, read_block_set
from speciate.model.transformer import Transformer
from speciate.training.objective_base import Objective


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
