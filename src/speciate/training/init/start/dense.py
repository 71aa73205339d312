"""Weights of a dense model that was trained before; a feed-forward part that is no dense one starts from the seed."""

import pathlib
from typing import Annotated

from speciate.config.components import ComponentOptions, OneOf
from speciate.config.run import RunSpec
from speciate.model.transformer import Transformer
from speciate.training.init.transfer import copy_weights, other_layers, pretrained


class Options(ComponentOptions):
    """What it starts from."""

    origin: Annotated[ComponentOptions, OneOf("training/init/origin")]
    """Whose weights: a run of this study, a folder of yours, a pinned archive."""


def begin(options: Options, model: Transformer, run: RunSpec, path: pathlib.Path | None) -> None:
    """Copies the weights into `model`. Raises ValueError where they do not fit, naming the first that does not."""
    copy_weights(model, pretrained(options.origin, run, path), other_layers(run))
