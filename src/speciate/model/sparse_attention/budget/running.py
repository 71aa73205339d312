"""The adaptive number of keys repaired: normalised by the running mean of the context so far, nothing after it.

    k_t = k (1/2 + 1 / (1 + temperature v_t / v'_t)), kept in [k_min, k_max]
    v_t = variance of I_t over the keys that t sees,   v'_t = mean of v_u, u <= t in t's context

A block's numbers depend on that block alone, and a decoder that keeps the sum and the count has the same ones.

B blocks of T queries, S keys.
"""

from typing import Any, ClassVar, Self

import torch
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

    adaptive: ClassVar[bool] = True
    """Whether it depends on an indexer's scores."""

    @model_validator(mode="after")
    def _order(self) -> Self:
        if not self.k_min <= self.k <= self.k_max:
            raise ValueError(f"k_min: needs k_min <= k <= k_max, not {self.k_min}, {self.k}, {self.k_max}")
        return self

    def check(self, model: Any) -> None:
        """Refuses more keys than there can be."""
        if self.k_max > model.context:
            raise ValueError(f"k_max: {self.k_max} keys of a context of {model.context}")


class Budget(indexer_base.Budget):
    """k by the variance, normalised over what came before."""

    adaptive = True

    def __init__(self, options: Options) -> None:
        super().__init__(options.k_max)
        self.options = options

    def spread(self, score_BTS: Tensor, visible_BTS: Tensor, num_keys: int) -> Tensor:
        """The variance over the visible keys."""
        score_BTS, count_BT = score_BTS.masked_fill(~visible_BTS, 0.0), visible_BTS.sum(-1)
        mean_BT1 = (score_BTS.sum(-1) / count_BT).unsqueeze(-1)
        return (score_BTS - mean_BT1).masked_fill_(~visible_BTS, 0.0).square().sum(-1) / count_BT

    def counts(
        self, spread_BT: Tensor, document_BT: Tensor | None, before: tuple[Tensor, ...]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """By the equation, rounded; before and after: a context's sum and count so far, and its document."""
        if document_BT is None:
            document_BT = torch.zeros_like(spread_BT, dtype=torch.long)
        spread_BT = spread_BT.double()
        sum_B, count_B, document_B = before or (spread_BT[:, 0] * 0, document_BT[:, 0] * 0, document_BT[:, 0])
        columns_BT = torch.arange(spread_BT.shape[1], device=spread_BT.device).expand_as(spread_BT)
        starts_BT = torch.diff(document_BT, dim=1, prepend=document_B[:, None]) != 0
        # of each query, the column at which its context begins; -1: before these tokens
        first_BT = torch.where(starts_BT, columns_BT, -1).cummax(1).values
        goes_on_BT = first_BT < 0
        before_BT = torch.nn.functional.pad(spread_BT.cumsum(1), (1, 0)).gather(1, first_BT.clamp_min(0))
        total_BT = spread_BT.cumsum(1) - before_BT + goes_on_BT * sum_B[:, None]
        number_BT = columns_BT - first_BT.clamp_min(0) + 1 + goes_on_BT * count_B[:, None]
        ratio_BT = spread_BT / (total_BT / number_BT + 1e-12)
        after = (total_BT[:, -1], number_BT[:, -1], document_BT[:, -1])
        return indexer_base.keys_by_ratio(ratio_BT, self.options), after
