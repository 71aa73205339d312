"""Reference: a sliding window over the latest keys (Beltagy et al. 2020), without any learned choice."""

from typing import ClassVar

import torch
from torch import Tensor

from speciate.config.contracts.model import IndexerOptions
from speciate.model.sparse_attention import indexer_base
from speciate.model.sparse_attention.query_chunks import AttentionInputs
from speciate.model.token_batch import BuildContext


class Options(IndexerOptions):
    """No options; the window's size is the budget's k."""

    supports_adaptive_k: ClassVar[bool] = False


class Indexer(indexer_base.Indexer):
    """Ranks keys by recency."""

    def __init__(self, options: Options, context: BuildContext) -> None:
        super().__init__()

    def scores(self, inputs: AttentionInputs) -> Tensor:
        """Return minus the distance of each key from its query."""
        device, (length, num_keys) = inputs.key_BSKh.device, (inputs.query_BTNh.shape[1], inputs.key_BSKh.shape[1])
        own_T1 = torch.arange(inputs.first, inputs.first + length, device=device)[:, None]
        distance_TS = own_T1 - torch.arange(num_keys, device=device)
        return -distance_TS.float().repeat(len(inputs.key_BSKh), 1, 1)

    def probabilities(self, score_BTS: Tensor, k: int) -> Tensor:
        """Return the uniform distribution over the window."""
        inside_BTS = (score_BTS > -k).to(score_BTS.dtype)
        return inside_BTS / inside_BTS.sum(-1, keepdim=True)
