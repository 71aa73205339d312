"""Reference: choose the keys with the largest dense attention, mean over heads; as expensive as dense attention.

Its recall is the best that any indexer can reach with the same number of keys and the same weights.
"""

from typing import ClassVar

from torch import Tensor

from speciate.config.contracts.model import IndexerOptions
from speciate.model.attention_options import AttentionHeadsOptions
from speciate.model.sparse_attention import indexer_base
from speciate.model.sparse_attention.query_chunks import AttentionInputs
from speciate.model.token_batch import BuildContext


class Options(IndexerOptions):
    """No options."""

    supports_adaptive_k: ClassVar[bool] = False


class Indexer(indexer_base.Indexer):
    """Ranks keys by dense attention's weights."""

    def __init__(self, options: Options, context: BuildContext) -> None:
        super().__init__()
        mixer = context.model.block_of(context.layer).mixer
        assert isinstance(mixer, AttentionHeadsOptions), "an indexer belongs to an attention mixer"
        self.num_heads = mixer.num_heads
        self.head_width = mixer.width_of_head(context.model.width)

    def scores(self, inputs: AttentionInputs) -> Tensor:
        """Return dense attention on each key; it is 0 for keys that are not visible."""
        return inputs.mass(inputs.visible())

    def probabilities(self, score_BTS: Tensor, k: int) -> Tensor:
        """Return dense attention itself."""
        return score_BTS.clamp_min(0)

    def key_flops(self, length: float, k: float) -> float:
        """Return the FLOPs of dense scores; they have no backward pass, so a third, which the caller triples."""
        return 2.0 * length * self.num_heads * self.head_width / 3
