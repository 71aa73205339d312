"""Softmax attention of each query over the k keys that it chose; the backward pass gathers the keys again.

    s_nj = q_n . k_j / sqrt(h) + b_j;   p = softmax_j(s) over the valid j;   o_n = sum_j p_nj v_j
    dp = do V^T;  ds = p (dp - sum_j p dp);  dq = ds K / sqrt(h);  dK = ds^T q / sqrt(h);  dV = p^T do;  db = sum_n ds

The backward pass keeps only the inputs. The gathered keys and values, k times as large, are made for C queries at a
time in one buffer that fits a processor's cache. One matrix product serves all heads: row n of a query's matrix holds
q_n in the columns of its key head and zeros elsewhere, so that a gathered row is used as it lies in memory. That wastes
products and saves copies, and gathering is what takes the time.

R queries (of all blocks), M keys (of all blocks), C queries at once, N query and K key heads of h dimensions, W = K h.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

ELEMENTS = 2**18
"""Number of elements of gathered keys held at once."""


def gathered_attention(
    query_RNh: Tensor, key_MW: Tensor, value_MW: Tensor, bias_Rk: Tensor | None, *, index_Rk: Tensor, valid_Rk: Tensor
) -> tuple[Tensor, Tensor]:
    """Return (each head's output, (R, N, h); the weight of each chosen key, mean over heads, (R, k), no gradient).

    Args:
        query_RNh: queries.
        key_MW: keys of all key heads, side by side.
        value_MW: values of all key heads, side by side.
        bias_Rk: added to the logits of the chosen keys.
        index_Rk: each query's keys, as rows of `key_MW`.
        valid_Rk: whether each place holds a chosen key; at least one of each query does.
    """
    mixed_RNh, mass_Rk = _GatheredAttention.apply(query_RNh, key_MW, value_MW, bias_Rk, index_Rk, valid_Rk)  # type: ignore[no-untyped-call]
    return mixed_RNh, mass_Rk


class _Chunk:
    """Gathers keys and values for C queries at a time, in buffers that all chunks share."""

    def __init__(self, query_RNh: Tensor, key_MW: Tensor, value_MW: Tensor, index_Rk: Tensor) -> None:
        self.tensors = (query_RNh, key_MW, value_MW, index_Rk)
        self.num_groups, self.scale = key_MW.shape[1] // query_RNh.shape[2], query_RNh.shape[2] ** -0.5
        self.precise = torch.promote_types(query_RNh.dtype, torch.float32)
        self.size = max(1, min(len(index_Rk), ELEMENTS // (index_Rk.shape[1] * key_MW.shape[1])))
        rows = (self.size * index_Rk.shape[1], key_MW.shape[1])
        self.key, self.value = key_MW.new_empty(rows), value_MW.new_empty(rows)
        self.wide = [query_RNh.new_zeros(self.size, query_RNh.shape[1], key_MW.shape[1]) for _ in range(2)]

    def slices(self) -> Iterator[slice]:
        """Yield the slices of queries."""
        total = len(self.tensors[3])
        return (slice(start, min(total, start + self.size)) for start in range(0, total, self.size))

    def gather(self, part: slice) -> tuple[Tensor, Tensor, Tensor]:
        """Return (queries spread over their heads' columns, (C, N, W); keys, (C, k, W); values, (C, k, W))."""
        query_RNh, key_MW, value_MW, index_Rk = self.tensors
        index_Ck = index_Rk[part]
        flat = index_Ck.flatten()
        key = torch.index_select(key_MW, 0, flat, out=self.key[: len(flat)])
        value = torch.index_select(value_MW, 0, flat, out=self.value[: len(flat)])
        wide_CNW = self.spread(0, query_RNh[part] * self.scale)
        return wide_CNW, key.view(*index_Ck.shape, -1), value.view(*index_Ck.shape, -1)

    def diagonal(self, wide_CNW: Tensor) -> Tensor:
        """Return a view of each head's own columns, (C, N / K, h, K)."""
        diagonal: Tensor = (
            wide_CNW.unflatten(1, (self.num_groups, -1)).unflatten(3, (self.num_groups, -1)).diagonal(dim1=1, dim2=3)
        )
        return diagonal

    def spread(self, number: int, heads_CNh: Tensor) -> Tensor:
        """Write each head into its own columns of a buffer that is zero elsewhere, (C, N, W)."""
        wide_CNW = self.wide[number][: len(heads_CNh)]
        self.diagonal(wide_CNW).copy_(heads_CNh.unflatten(1, (self.num_groups, -1)).permute(0, 2, 3, 1))
        return wide_CNW

    def heads(self, wide_CNW: Tensor) -> Tensor:
        """Return the heads' own columns, (C, N, h)."""
        return self.diagonal(wide_CNW).permute(0, 3, 1, 2).flatten(1, 2)

    def weights(self, wide_CNW: Tensor, key_CkW: Tensor, bias_Ck: Tensor | None, valid_Ck: Tensor) -> Tensor:
        """Return p, (C, N, k)."""
        score_CNk = torch.bmm(wide_CNW, key_CkW.mT).to(self.precise)
        if bias_Ck is not None:
            score_CNk += bias_Ck[:, None]
        hidden_Ck = torch.where(valid_Ck, 0.0, -torch.inf).to(self.precise)
        return score_CNk.add_(hidden_Ck[:, None]).softmax(-1)


class _GatheredAttention(torch.autograd.Function):
    """Keeps only its inputs for the backward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        query_RNh: Tensor,
        key_MW: Tensor,
        value_MW: Tensor,
        bias_Rk: Tensor | None,
        index_Rk: Tensor,
        valid_Rk: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Return (o, the mean of p over heads)."""
        ctx.save_for_backward(query_RNh, key_MW, value_MW, bias_Rk, index_Rk, valid_Rk)
        chunk = _Chunk(query_RNh, key_MW, value_MW, index_Rk)
        mixed_RNh = torch.empty_like(query_RNh, memory_format=torch.contiguous_format)
        mass_Rk = query_RNh.new_empty(index_Rk.shape, dtype=chunk.precise)
        for part in chunk.slices():
            wide_CNW, key_CkW, value_CkW = chunk.gather(part)
            weight_CNk = chunk.weights(wide_CNW, key_CkW, None if bias_Rk is None else bias_Rk[part], valid_Rk[part])
            mixed_RNh[part] = chunk.heads(torch.bmm(weight_CNk.to(value_CkW.dtype), value_CkW))
            mass_Rk[part] = weight_CNk.mean(1)
        ctx.mark_non_differentiable(mass_Rk)
        return mixed_RNh, mass_Rk

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_RNh: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        """Compute the equations above; a key's gradient is the sum over the queries that chose it."""
        query_RNh, key_MW, value_MW, bias_Rk, index_Rk, valid_Rk = ctx.saved_tensors
        chunk = _Chunk(query_RNh, key_MW, value_MW, index_Rk)
        dquery_RNh = torch.empty_like(query_RNh, memory_format=torch.contiguous_format)
        dkey_MW, dvalue_MW = torch.zeros_like(key_MW), torch.zeros_like(value_MW)
        dbias_Rk = None if bias_Rk is None else torch.empty_like(bias_Rk)
        for part in chunk.slices():
            wide_CNW, key_CkW, value_CkW = chunk.gather(part)
            weight_CNk = chunk.weights(wide_CNW, key_CkW, None if bias_Rk is None else bias_Rk[part], valid_Rk[part])
            gradient_CNW = chunk.spread(1, gradient_RNh[part])
            dweight_CNk = torch.bmm(gradient_CNW, value_CkW.mT).to(chunk.precise)
            dscore_CNk = weight_CNk * (dweight_CNk - (weight_CNk * dweight_CNk).sum(-1, keepdim=True))
            if dbias_Rk is not None:
                dbias_Rk[part] = dscore_CNk.sum(1)
            dscore_CNk, weight_CNk = dscore_CNk.to(key_CkW.dtype), weight_CNk.to(value_CkW.dtype)
            dquery_RNh[part] = chunk.heads(torch.bmm(dscore_CNk, key_CkW)) * chunk.scale
            flat = index_Rk[part].flatten()
            # the gathered rows are no longer needed, so their gradients overwrite them
            torch.bmm(dscore_CNk.mT, wide_CNW, out=key_CkW)
            dkey_MW.index_add_(0, flat, key_CkW.flatten(0, 1))
            torch.bmm(weight_CNk.mT, gradient_CNW, out=value_CkW)
            dvalue_MW.index_add_(0, flat, value_CkW.flatten(0, 1))
        return dquery_RNh, dkey_MW, dvalue_MW, dbias_Rk, None, None
