"""Inputs of one call of sparse attention, which can be processed some queries at a time.

Every tensor with an entry for each query and key, (T, S), is made for C queries, used and dropped; C is chosen so that
it fits a processor's cache. Columns are in causal order: a query sees the keys of its document up to itself.

B blocks of T queries and S keys (those of a cache first), N query and K key heads of h dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

ELEMENTS = 2**19
"""Number of scores of an indexer's or an attention's heads held at once."""


@dataclass(frozen=True, slots=True, eq=False)
class AttentionInputs:
    """Queries and keys of one call; or C of its queries, with the keys up to the last of them."""

    query_BTNh: Tensor
    key_BSKh: Tensor
    query_features: tuple[Tensor, ...]
    """The indexer's features of each query, each (B, T, ...)."""
    key_features: tuple[Tensor, ...]
    """The indexer's features of each key, each (B, S, ...)."""
    position_BT: Tensor
    """Position of each query in its context."""
    position_BS: Tensor
    """Position of each key in its context."""
    document_BT: Tensor | None
    document_BS: Tensor | None
    first: int = 0
    """Column of the first query's own key."""

    def visible(self) -> Tensor:
        """Tell which keys each query sees, (B or 1, T, S) boolean."""
        device, length = self.key_BSKh.device, self.query_BTNh.shape[1]
        own_T1 = torch.arange(self.first, self.first + length, device=device)[:, None]
        visible_BTS = (own_T1 >= torch.arange(self.key_BSKh.shape[1], device=device)).unsqueeze(0)
        if self.document_BT is not None and self.document_BS is not None:
            visible_BTS = visible_BTS & (self.document_BT[:, :, None] == self.document_BS[:, None, :])
        return visible_BTS

    def mask_unseen(self, score_BTS: Tensor) -> Tensor:
        """Set the scores of unseen keys to -inf in place; without documents only the last T columns change."""
        length = self.query_BTNh.shape[1]
        after_TT = torch.ones(length, length, dtype=torch.bool, device=score_BTS.device).triu_(1)
        score_BTS[:, :, self.first :].masked_fill_(after_TT, -torch.inf)
        if self.document_BT is not None and self.document_BS is not None:
            score_BTS.masked_fill_(self.document_BT[:, :, None] != self.document_BS[:, None, :], -torch.inf)
        return score_BTS

    def part(self, start: int, stop: int) -> AttentionInputs:
        """Return the queries from `start` to before `stop`, and the keys that any of them may see."""
        last = self.first + stop
        return replace(
            self,
            query_BTNh=self.query_BTNh[:, start:stop],
            key_BSKh=self.key_BSKh[:, :last],
            query_features=tuple(tensor[:, start:stop] for tensor in self.query_features),
            key_features=tuple(tensor[:, :last] for tensor in self.key_features),
            position_BT=self.position_BT[:, start:stop],
            position_BS=self.position_BS[:, :last],
            document_BT=None if self.document_BT is None else self.document_BT[:, start:stop],
            document_BS=None if self.document_BS is None else self.document_BS[:, :last],
            first=self.first + start,
        )

    def parts(self, num_heads: int) -> Iterator[tuple[slice, AttentionInputs]]:
        """Yield all queries in parts small enough for the scores of `num_heads` heads: (their columns, the part)."""
        blocks, length = self.query_BTNh.shape[:2]
        size = max(1, min(length, ELEMENTS // (blocks * self.key_BSKh.shape[1] * num_heads)))
        for start in range(0, length, size):
            stop = min(length, start + size)
            yield slice(start, stop), self.part(start, stop)

    def block(self, block: int) -> AttentionInputs:
        """Return one block alone."""
        row = slice(block, block + 1)
        return replace(
            self,
            query_BTNh=self.query_BTNh[row],
            key_BSKh=self.key_BSKh[row],
            query_features=tuple(tensor[row] for tensor in self.query_features),
            key_features=tuple(tensor[row] for tensor in self.key_features),
            position_BT=self.position_BT[row],
            position_BS=self.position_BS[row],
            document_BT=None if self.document_BT is None else self.document_BT[row],
            document_BS=None if self.document_BS is None else self.document_BS[row],
        )

    def weights(self, visible_BTS: Tensor) -> Iterator[Tensor]:
        """Yield dense attention's weights for each key head's G query heads, (B, T, G, S); for some queries only."""
        num_groups, scale = self.key_BSKh.shape[2], self.query_BTNh.shape[-1] ** -0.5
        hidden_BTS = ~visible_BTS
        for query_BTGh, key_BSh in zip(
            self.query_BTNh.unflatten(2, (num_groups, -1)).unbind(2), self.key_BSKh.unbind(2), strict=True
        ):
            score_BTGS = (query_BTGh.flatten(1, 2) @ key_BSh.mT).unflatten(1, query_BTGh.shape[1:3]) * scale
            precise = torch.promote_types(score_BTGS.dtype, torch.float32)
            yield score_BTGS.to(precise).masked_fill(hidden_BTS[:, :, None], -torch.inf).softmax(-1)

    def mass(self, visible_BTS: Tensor) -> Tensor:
        """Return the share of each query's dense attention on each key, the mean over heads, (B, T, S)."""
        group_sums = [weight_BTGS.sum(2) for weight_BTGS in self.weights(visible_BTS)]
        return torch.stack(group_sums).sum(0) / self.query_BTNh.shape[2]
