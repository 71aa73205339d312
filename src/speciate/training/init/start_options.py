"""Options that the starts from a trained model share."""

from typing import Annotated

from speciate.config.components import OneOf
from speciate.config.contracts.training import OriginOptions, StartOptions


class TrainedStartOptions(StartOptions):
    """Options of a start from a model that was trained before."""

    origin: Annotated[OriginOptions, OneOf("training/init/origin")]
    """Where the trained model comes from: a run of this study, a folder of yours, or a pinned archive."""

    def origin_options(self) -> OriginOptions:
        """Return where the weights come from."""
        return self.origin
