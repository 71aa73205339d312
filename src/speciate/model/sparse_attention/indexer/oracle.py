"""Reference: the keys on which dense attention would put most, averaged over its heads. As dear as dense attention.

What any indexer could at best recall with so many keys, at the same weights.
"""

from typing import ClassVar

from torch import Tensor

from speciate.config.contracts.model import IndexerOptions
from speciate.model.sparse_attention import indexer_base
from speciate.model.sparse_attention.query_chunks import AttentionInputs
from speciate.model.token_batch import BuildContext


class Options(IndexerOptions):
    """None."""

    supports_adaptive_k: ClassVar[bool] = False
    """Whether its scores say anything of how many keys a query needs."""


class Indexer(indexer_base.Indexer):
    """Ranks by dense attention's weights."""

    def __init__(self, options: Options, place: BuildContext) -> None:
        super().__init__()
        self.num_heads = place.model.block_of(place.layer).mixer.num_heads  # type: ignore[attr-defined]
        self.head_width = place.model.width // self.num_heads

    def scores(self, view: AttentionInputs) -> Tensor:
        """Attention's mass; what is not visible has none."""
        return view.mass(view.visible())

    def probabilities(self, score_BTS: Tensor, k: int) -> Tensor:
        """The mass itself."""
        return score_BTS.clamp_min(0)

    def key_flops(self, length: int, k: int) -> float:
        """Dense attention's scores, without a backward pass: a third, since the caller triples."""
        return 2.0 * length * self.num_heads * self.head_width / 3
