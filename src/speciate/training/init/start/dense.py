"""Start from the weights of a trained dense model; feed-forward layers that are not dense are drawn from the seed."""

import pathlib

from speciate.config.run import RunSpec
from speciate.model.transformer import Transformer
from speciate.training.init.start_options import CopiedStartOptions
from speciate.training.init.transfer import copy_weights, load_pretrained, non_dense_layers


class Options(CopiedStartOptions):
    """Options of the start from a dense model."""


def initialise(options: Options, model: Transformer, run: RunSpec, path: pathlib.Path | None) -> None:
    """Copy the weights into `model`. Raises ValueError naming the first weight that does not fit."""
    copy_weights(model, load_pretrained(options.origin, run, path), non_dense_layers(run))
