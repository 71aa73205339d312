"""The adaptive budget as released with Gated Sparse Attention (arXiv 2601.15305, code at b23ccad).

    k_t = k (1/2 + 1 / (1 + temperature v_t / mean v)), kept in [k_min, k_max],   v_t = variance of I_t over all S keys

A key after the query counts as a score of 0, and the mean is over every query of every block. So a token's number of
keys depends on later tokens and on the other blocks of its batch. A loss measured with it is not a likelihood, and a
decoder, which has not read those tokens, chooses otherwise. Hence it must be requested (`non_causal`). Metric `leak`
records how many queries that changes. running.py repairs it.
"""

from typing import Any, ClassVar

from torch import Tensor

from speciate.model.sparse_attention import indexer_base
from speciate.model.sparse_attention.budget_options import AdaptiveBudgetOptions


class Options(AdaptiveBudgetOptions):
    """Numbers of keys, and permission to look ahead."""

    non_causal: bool = False
    """Allow this component to look at later tokens; the loss of such an arm is not a likelihood."""

    breaks_causality: ClassVar[str] = "the number of keys is normalised over the whole batch, later tokens included"
    """How it looks at later tokens, for messages."""

    def looks_ahead(self) -> bool:
        """Return whether the config allows it to look ahead."""
        return self.non_causal

    def check(self, model: Any) -> None:
        """Refuse more keys than the context has, and looking ahead without permission."""
        super().check(model)
        if not self.non_causal:
            raise ValueError(f"non_causal: {self.breaks_causality}; `non_causal: true` allows it, `running` repairs it")


class Budget(indexer_base.Budget):
    """Adapts k to the variance, normalised over the batch."""

    adaptive = True

    def __init__(self, options: Options) -> None:
        super().__init__(options.k_max)
        self.options = options

    def dispersion(self, score_BTS: Tensor, visible_BTS: Tensor, num_keys: int) -> Tensor:
        """Return the variance over all keys of the block, with zeros for keys that are not visible."""
        score_BTS = score_BTS.masked_fill(~visible_BTS, 0.0)
        return score_BTS.square().sum(-1) / num_keys - (score_BTS.sum(-1) / num_keys).square()

    def counts(
        self, dispersion_BT: Tensor, document_BT: Tensor | None, before: tuple[Tensor, ...]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return the numbers of keys by the equation, rounded, and no state."""
        ratio_BT = dispersion_BT / (dispersion_BT.mean() + 1e-12)
        return indexer_base.keys_by_ratio(ratio_BT, self.options), ()
