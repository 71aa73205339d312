"""Weights of a dense model that was trained before; a feed-forward part that is no dense one starts from the seed."""

import pathlib
from typing import Annotated

from speciate.config.components import OneOf
from speciate.config.contracts.training import OriginOptions, StartOptions
from speciate.config.run import RunSpec
from speciate.model.transformer import Transformer
from speciate.training.init.transfer import copy_weights, other_layers, pretrained


class Options(StartOptions):
    """What it starts from."""

    origin: Annotated[OriginOptions, OneOf("training/init/origin")]
    """Whose weights: a run of this study, a folder of yours, a pinned archive."""

    def origin_options(self) -> OriginOptions:
        """Return where the weights come from."""
        return self.origin


def begin(options: Options, model: Transformer, run: RunSpec, path: pathlib.Path | None) -> None:
    """Copies the weights into `model`. Raises ValueError where they do not fit, naming the first that does not."""
    copy_weights(model, pretrained(options.origin, run, path), other_layers(run))
