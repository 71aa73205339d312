"""Recency: each query attends to the latest keys that it sees, as many as it chose."""

import torch
from torch import Tensor

from speciate.evaluation.overrides import Call, Intervention
from speciate.evaluation.rekeying import attend_by
from speciate.model.sparse_attention.attention import AttentionOutput, SparseAttention
from speciate.model.sparse_attention.query_chunks import AttentionInputs


def latest_keys(call: Call) -> AttentionOutput:
    """Attend to the keys by their place, the latest first."""

    def scores(part: AttentionInputs) -> Tensor:
        column_S = torch.arange(part.key_BSKh.shape[1], dtype=torch.float32, device=part.key_BSKh.device)
        return column_S.repeat(len(part.query_BTNh), part.query_BTNh.shape[1], 1)

    return attend_by(call, scores)


INTERVENTION = Intervention(changes={SparseAttention: latest_keys})
