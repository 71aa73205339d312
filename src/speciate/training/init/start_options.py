"""Options that the starts from a trained model share."""

from typing import Annotated, Any

from pydantic import Field

from speciate.config.components import OneOf, options_within
from speciate.config.contracts.model import DepthOptions, IndexerOptions, RouterOptions
from speciate.config.contracts.training import OriginOptions, StartOptions


class TrainedStartOptions(StartOptions):
    """Options of a start from a model that was trained before."""

    origin: Annotated[OriginOptions, OneOf("training/init/origin")]
    """Where the trained model comes from: a run of this study, a folder of yours, or a pinned archive."""

    def origin_options(self) -> OriginOptions:
        """Return where the weights come from."""
        return self.origin


class CopiedStartOptions(TrainedStartOptions):
    """Options of a start whose weights become the run's own, some of which may stay as they are."""

    frozen_layers: int = Field(0, ge=0)
    """Number of lowest blocks that keep the weights they start with, and the embeddings with them. Their output for
    each block of text is computed once and kept in results/frozen_layers, for all runs that share them. No selector
    may be among them. With `model.tied_head` the output layer is frozen too. With `tied_head: false` it starts as a
    copy of the embedding, and learns."""

    def num_frozen_layers(self) -> int:
        """Return how many of the lowest blocks keep the weights they start with."""
        return self.frozen_layers

    def check_run(self, run: Any) -> None:
        """Refuse frozen layers that the model lacks, that hold a selector, or whose outputs could not be kept."""
        if not self.frozen_layers:
            return
        where = f"start.frozen_layers: {self.frozen_layers}"
        if self.frozen_layers >= run.model.num_layers:
            raise ValueError(f"{where} of {run.model.num_layers} layers leave none that learns")
        if not run.model.causal:
            raise ValueError(f"{where}: {run.objective.kind} reads other tokens at each step, so no output can be kept")
        if run.training.parallel == "fsdp":
            raise ValueError(f"{where}: training.parallel: fsdp splits weights that these layers need whole")
        for layer in range(self.frozen_layers):
            for options in options_within(run.model.block_of(layer)):
                skips = isinstance(options, DepthOptions) and options.share_running() < 1
                if skips or isinstance(options, RouterOptions | IndexerOptions):
                    raise ValueError(f"{where}: layer {layer} has a selector ({options.kind}), which could not learn")
