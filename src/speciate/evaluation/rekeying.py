"""Attend once more, to other keys: what the interventions on an indexer of sparse attention share.

Each query keeps as many keys as it chose, and the keys' bias, if the indexer adds one, stays the indexer's.

B blocks of T queries, C queries at once, S keys, k chosen keys.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from speciate.evaluation.overrides import Call
from speciate.model.sparse_attention.attention import AttentionOutput, KeyChoice, SparseAttention, attend_to_chosen
from speciate.model.sparse_attention.query_chunks import AttentionInputs
from speciate.model.sparse_attention.stable_top_k import stable_top_k


def attend_by(call: Call, scores: Callable[[AttentionInputs], Tensor]) -> AttentionOutput:
    """Return attention to the keys that score highest among those that each query sees.

    Args:
        call: the call of the selector.
        scores: gives the scores of some queries' keys, (B, C, S); -inf: this key must not be chosen. A query for which
            no other key is left keeps its own.
    """
    selector, (inputs, value_BSKh, tokens, *_), output = call.selector, call.args, call.output
    assert isinstance(selector, SparseAttention)
    before: KeyChoice = output.choice
    most = before.index_BTk.shape[-1]
    count_BT1 = before.valid_BTk.sum(-1, keepdim=True)
    parts: list[tuple[Tensor, Tensor]] = []
    for columns, part in inputs.parts(selector.indexer.num_heads):
        score_BCS = part.mask_unseen(scores(part))
        width = min(most, score_BCS.shape[-1])
        index_BCk = stable_top_k(score_BCS, width)
        rank_k = torch.arange(width, device=index_BCk.device)
        valid_BCk = (score_BCS.gather(2, index_BCk) > -torch.inf) & (rank_k < count_BT1[:, columns])
        own_C1 = torch.arange(columns.start, columns.stop, device=index_BCk.device)[:, None] + inputs.first
        nothing_BC1 = ~valid_BCk.any(-1, keepdim=True)
        index_BCk = torch.where(valid_BCk, index_BCk, own_C1)
        valid_BCk = valid_BCk | (nothing_BC1 & (rank_k == 0))
        index_BCk = torch.cat((index_BCk, own_C1.expand(len(index_BCk), -1, most - width)), dim=2)
        parts.append((index_BCk, torch.nn.functional.pad(valid_BCk, (0, most - width))))
    index_BTk, valid_BTk = (torch.cat(tensors, dim=1) for tensors in zip(*parts, strict=True))
    choice = KeyChoice(index_BTk, valid_BTk, before.after)
    score_BTk = selector.indexer.chosen_scores(inputs, index_BTk)
    bias_BTk = None if score_BTk is None else selector.indexer.bias(score_BTk)
    mixed_BTNh, mass_BTk = attend_to_chosen(inputs, value_BSKh, choice, bias_BTk)
    loss = mixed_BTNh.new_zeros((), dtype=torch.float32)
    return AttentionOutput(mixed_BTNh, choice, mass_BTk, lambda: selector.selection(inputs, choice, tokens, loss))
