"""The adaptive number of keys as released with Gated Sparse Attention (arXiv 2601.15305, code at b23ccad).

    k_t = k (1/2 + 1 / (1 + temperature v_t / mean v)), kept in [k_min, k_max],   v_t = variance of I_t over all S keys

A key after the query counts as a score of 0, and the mean is over every query of every block: how many keys a token
gets depends on tokens after it and on the blocks that happen to stand beside it. So a loss measured with it is no
likelihood, a decoder, which has not read those tokens, disagrees with it, and it must be asked for (`non_causal`). How
many queries that changes is measured as `leak`. Repaired in running.py.
"""

from typing import Any, ClassVar, Self

from pydantic import Field, model_validator
from torch import Tensor

from speciate.config.contracts.model import BudgetOptions
from speciate.model.sparse_attention import indexer_base


class Options(BudgetOptions):
    """Numbers."""

    k: int = Field(32, ge=1)
    """Keys of a query of average variance."""
    k_min: int = Field(8, ge=1)
    """Fewest."""
    k_max: int = Field(64, ge=1)
    """Most; at most the context."""
    temperature: float = Field(1.0, gt=0)
    """How much the variance tells."""
    non_causal: bool = False
    """Allow this component to look at later tokens; such an arm's loss is no likelihood."""

    adaptive: ClassVar[bool] = True
    """Whether it depends on an indexer's scores."""
    breaks_causality: ClassVar[str] = "the number of keys is normalised over the whole batch, later tokens included"
    """Why."""

    @model_validator(mode="after")
    def _order(self) -> Self:
        if not self.k_min <= self.k <= self.k_max:
            raise ValueError(f"k_min: needs k_min <= k <= k_max, not {self.k_min}, {self.k}, {self.k_max}")
        return self

    def looks_ahead(self) -> bool:
        """Return whether the config allows it to look ahead."""
        return self.non_causal

    def check(self, model: Any) -> None:
        """Refuses more keys than there can be, and a look ahead that nobody asked for."""
        if self.k_max > model.context:
            raise ValueError(f"k_max: {self.k_max} keys of a context of {model.context}")
        if not self.non_causal:
            raise ValueError(f"non_causal: {self.breaks_causality}; `non_causal: true` allows it, `running` repairs it")


class Budget(indexer_base.Budget):
    """k by the variance, normalised over the batch."""

    adaptive = True

    def __init__(self, options: Options) -> None:
        super().__init__(options.k_max)
        self.options = options

    def spread(self, score_BTS: Tensor, visible_BTS: Tensor, num_keys: int) -> Tensor:
        """The variance over all keys of the block, those not visible as zeros."""
        score_BTS = score_BTS.masked_fill(~visible_BTS, 0.0)
        return score_BTS.square().sum(-1) / num_keys - (score_BTS.sum(-1) / num_keys).square()

    def counts(
        self, spread_BT: Tensor, document_BT: Tensor | None, before: tuple[Tensor, ...]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """By the equation, rounded."""
        ratio_BT = spread_BT / (spread_BT.mean() + 1e-12)
        return indexer_base.keys_by_ratio(ratio_BT, self.options), ()
