"""The soft-gated indexer: it adds log I to attention's logits, so that the language model's gradient trains it.

    a_ts = softmax over the chosen s of (q_t . k_s / sqrt(h) + log I_ts) = exp(q_t . k_s / sqrt(h)) I_ts / sum

Training raises I of a chosen key that helps. A key that is not chosen gets no gradient; the top-k leaves to chance
whether it ever does. x is not detached. The activation is the sigmoid, since relu would give log 0.
"""

from torch import Tensor

from speciate.model.sparse_attention.indexer_base import LearnedIndexer
from speciate.model.sparse_attention.indexer_options import IndexerHeadsOptions
from speciate.model.token_batch import BuildContext


class Options(IndexerHeadsOptions):
    """Heads."""


class Indexer(LearnedIndexer):
    """An indexer whose scores also weight the chosen keys."""

    def __init__(self, options: Options, context: BuildContext) -> None:
        super().__init__(options, context, detached=False)

    def bias(self, score_BTk: Tensor) -> Tensor | None:
        """Return log I; I is clamped, so that an underflow gives a tiny weight instead of log 0."""
        return score_BTk.clamp_min(1e-20).log()
