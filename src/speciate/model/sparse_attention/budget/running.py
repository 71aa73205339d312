"""The causal adaptive budget: normalised by the running mean of the context so far, without later tokens.

    k_t = k (1/2 + 1 / (1 + temperature v_t / v'_t)), kept in [k_min, k_max]
    v_t = variance of I_t over the keys that t sees,   v'_t = mean of v_u, u <= t in t's context

A block's numbers depend on that block alone, and a decoder that keeps the sum and the count gets the same numbers.

B blocks of T queries, S keys.
"""

import torch
from torch import Tensor

from speciate.model.sparse_attention import indexer_base
from speciate.model.sparse_attention.budget_options import AdaptiveBudgetOptions
from speciate.model.token_batch import PADDING


class Options(AdaptiveBudgetOptions):
    """Numbers of keys."""


class Budget(indexer_base.Budget):
    """Adapts k to the variance, normalised over the context so far."""

    adaptive = True

    def __init__(self, options: Options) -> None:
        super().__init__(options.k_max)
        self.options = options

    def dispersion(self, score_BTS: Tensor, visible_BTS: Tensor, num_keys: int) -> Tensor:
        """Return the variance over the visible keys."""
        score_BTS, count_BT = score_BTS.masked_fill(~visible_BTS, 0.0), visible_BTS.sum(-1)
        mean_BT1 = (score_BTS.sum(-1) / count_BT).unsqueeze(-1)
        return (score_BTS - mean_BT1).masked_fill_(~visible_BTS, 0.0).square().sum(-1) / count_BT

    def counts(
        self, dispersion_BT: Tensor, document_BT: Tensor | None, before: tuple[Tensor, ...]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return the numbers of keys by the equation, rounded; the state is a context's sum, count and document.

        Padding stands at a row's end, with document -1, and is no part of the state: a row of padding alone keeps the
        state that it had.
        """
        if document_BT is None:
            document_BT = torch.zeros_like(dispersion_BT, dtype=torch.long)
        dispersion_BT = dispersion_BT.double()
        sum_B, count_B, document_B = before or (dispersion_BT[:, 0] * 0, document_BT[:, 0] * 0, document_BT[:, 0])
        columns_BT = torch.arange(dispersion_BT.shape[1], device=dispersion_BT.device).expand_as(dispersion_BT)
        starts_BT = torch.diff(document_BT, dim=1, prepend=document_B[:, None]) != 0
        # the column at which each query's context begins; -1: before these tokens
        first_BT = torch.where(starts_BT, columns_BT, -1).cummax(1).values
        continued_BT = first_BT < 0
        before_BT = torch.nn.functional.pad(dispersion_BT.cumsum(1), (1, 0)).gather(1, first_BT.clamp_min(0))
        total_BT = dispersion_BT.cumsum(1) - before_BT + continued_BT * sum_B[:, None]
        number_BT = columns_BT - first_BT.clamp_min(0) + 1 + continued_BT * count_B[:, None]
        ratio_BT = dispersion_BT / (total_BT / number_BT + 1e-12)
        return indexer_base.keys_by_ratio(ratio_BT, self.options), (
            last_real(total_BT, document_BT, sum_B),
            last_real(number_BT, document_BT, count_B),
            last_real(document_BT, document_BT, document_B),
        )


def last_real(value_BT: Tensor, document_BT: Tensor, before_B: Tensor) -> Tensor:
    """Return each row's value at its last token that is no padding, (B); `before_B` if it has none."""
    column_BT = torch.arange(document_BT.shape[1], device=document_BT.device).expand_as(document_BT)
    last_B = column_BT.where(document_BT != PADDING, -1).amax(1)
    last_value_B = value_BT.gather(1, last_B.clamp_min(0).unsqueeze(1)).squeeze(1)
    return torch.where(last_B < 0, before_B, last_value_B)
