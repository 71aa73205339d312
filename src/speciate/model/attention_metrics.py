"""Metrics of every kind of attention, recorded while metrics are collected: attention sinks, large activations.

    first_token_share     share of a query's attention on its context's first token, mean over heads; for later queries
    largest_activation    largest absolute entry of what the mixer adds to the residual stream, in a batch

B blocks of T queries and S keys, C queries at once, N heads of h dimensions, K key heads of G query heads each.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from speciate.model.sparse_attention.query_chunks import AttentionInputs
from speciate.model.token_batch import TokenBatch
from speciate.selection.metrics import record_metric


def record_largest(mixer: nn.Module, out_BTD: Tensor) -> None:
    """Record `largest_activation`."""
    record_metric(mixer, "largest_activation", out_BTD.abs().amax())


@torch.no_grad()
def record_dense(
    mixer: nn.Module,
    query_BTNh: Tensor,
    key_BSKh: Tensor,
    tokens: TokenBatch,
    *,
    position_BS: Tensor,
    seen_BTS: Tensor | None,
) -> None:
    """Record `first_token_share` of dense attention.

    Args:
        mixer: the module that records.
        query_BTNh: queries, as the scores use them.
        key_BSKh: keys, as the scores use them.
        tokens: the queries' tokens.
        position_BS: position of each key in its context.
        seen_BTS: which keys each query sees; None: those up to its own, so that the context's first key comes first.
    """
    first = key_BSKh.shape[1] - query_BTNh.shape[1]
    inputs = AttentionInputs(query_BTNh, key_BSKh, (), (), tokens.position_BT, position_BS, None, None, first)
    if seen_BTS is None:
        share_BT = first_key_share(inputs) * (position_BS[:, :1] == 0)
        record_metric(mixer, "first_token_share", share_BT[follows_another_token(tokens)])
        return
    for columns, part in inputs.parts(query_BTNh.shape[2]):
        mass_BCS = replace(inputs, query_BTNh=part.query_BTNh).mass(seen_BTS[:, columns])
        share_BC = (mass_BCS * (position_BS == 0)[:, None]).sum(-1)
        record_metric(mixer, "first_token_share", share_BC[follows_another_token(tokens)[:, columns]])


def first_key_share(inputs: AttentionInputs) -> Tensor:
    """Return the share of each query's causal attention on the first key, the mean over heads; (B, T).

        softmax_s(q . k_s)_0 = 1 / sum_s exp(q . (k_s - k_0))

    This takes one exponential a score, and no maximum, product or division: less than half of the softmax's time. A
    sum that overflows means a share too small for its number format: 0.
    """
    precise = torch.promote_types(inputs.query_BTNh.dtype, torch.float32)
    query_BTNh, key_BSKh = inputs.query_BTNh.to(precise), inputs.key_BSKh.to(precise)
    scaled = replace(inputs, query_BTNh=query_BTNh * query_BTNh.shape[-1] ** -0.5, key_BSKh=key_BSKh - key_BSKh[:, :1])
    shares: list[Tensor] = []
    with torch.autocast(query_BTNh.device.type, enabled=False):
        for _, part in scaled.parts(query_BTNh.shape[2]):
            query_BKGCh = part.query_BTNh.unflatten(2, (key_BSKh.shape[2], -1)).movedim(1, 3)
            odds_BKGCS = (query_BKGCh @ part.key_BSKh.permute(0, 2, 3, 1)[:, :, None]).exp_()
            odds_BKGCS[..., part.first :].tril_()
            shares.append(odds_BKGCS.sum(-1).reciprocal().mean((1, 2)))
    return torch.cat(shares, dim=1)


def follows_another_token(tokens: TokenBatch) -> Tensor:
    """Tell which queries are neither padding nor the first of their context, which sees only itself; (B, T)."""
    return (tokens.position_BT > 0) & (tokens.index_BT >= 0)
