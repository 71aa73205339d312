"""Reference: the latest keys, a sliding window (Beltagy et al. 2020), which no indexer chose."""

from typing import ClassVar

import torch
from torch import Tensor

from speciate.config.contracts.model import IndexerOptions
from speciate.model.sparse_attention import indexer_base
from speciate.model.sparse_attention.query_chunks import AttentionInputs
from speciate.model.token_batch import BuildContext


class Options(IndexerOptions):
    """None; the window is the budget's k."""

    supports_adaptive_k: ClassVar[bool] = False
    """Whether its scores say anything of how many keys a query needs."""


class Indexer(indexer_base.Indexer):
    """Ranks by recency."""

    def __init__(self, options: Options, place: BuildContext) -> None:
        super().__init__()

    def scores(self, view: AttentionInputs) -> Tensor:
        """How far before the query a key stands, negative."""
        device, (length, num_keys) = view.key_BSKh.device, (view.query_BTNh.shape[1], view.key_BSKh.shape[1])
        own_T1 = torch.arange(view.first, view.first + length, device=device)[:, None]
        distance_TS = own_T1 - torch.arange(num_keys, device=device)
        return -distance_TS.float().repeat(len(view.key_BSKh), 1, 1)

    def probabilities(self, score_BTS: Tensor, k: int) -> Tensor:
        """Uniform over the window."""
        inside_BTS = (score_BTS > -k).to(score_BTS.dtype)
        return inside_BTS / inside_BTS.sum(-1, keepdim=True)
