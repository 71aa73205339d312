"""TokenBatch, the token information that goes through the blocks with x; BuildContext, what a component is built from.

A block may see only some of a sequence's tokens (behind a Mixture-of-Depths), so the row of x does not identify a
token. Routers that hash need its id, rotary embeddings its position, and an observer its index in the whole batch.

B blocks of T tokens; K of the T kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import Tensor

from speciate.config.run import ModelSpec
from speciate.model.cache import Cache


@dataclass(frozen=True, slots=True, eq=False)
class TokenBatch:
    """The tokens that a part of the model processes, in the order of x's rows; integer tensors of one shape."""

    id_BT: Tensor
    """Token id."""
    position_BT: Tensor
    """Position in its context, from 0: in the block, or in its document if documents are kept apart."""
    index_BT: Tensor
    """Index in the flattened batch, by which a Selection names its decisions; -1 for padding."""
    document_BT: Tensor | None
    """Number of its document in the block, from 0 (each stretch of one document counts); attention must not cross from
    one to another, and within one the order is the block's. None: a block is one context, as in GPT-2."""
    cache: Cache | None = None
    """Cache of the tokens before these; None: there are none, and nothing is cached."""
    domain_BT: Tensor | None = None
    """Domain of the token's block, as an index into the mixture's; None: unknown (see `in_domains`)."""

    @classmethod
    def of(cls, token_BT: Tensor, document_BT: Tensor | None = None, cache: Cache | None = None) -> TokenBatch:
        """Make a batch of whole blocks, or of their next tokens after those that `cache` has seen.

        Args:
            token_BT: token ids.
            document_BT: document of each position, to keep documents apart; each stretch of one document is then a
                context of its own, in which positions start at 0.
            cache: cache of one context; not together with documents.
        """
        index_BT = torch.arange(token_BT.numel(), device=token_BT.device).view(token_BT.shape)
        position_BT = index_BT % token_BT.shape[1] + (0 if cache is None else cache.length)
        if document_BT is None:
            return cls(token_BT, position_BT, index_BT, None, cache, domains_of(token_BT))
        assert cache is None, "a cache holds one context, so it excludes documents"
        starts_BT = torch.ones_like(document_BT, dtype=torch.bool)
        starts_BT[:, 1:] = document_BT[:, 1:] != document_BT[:, :-1]
        first_BT = torch.where(starts_BT, position_BT, 0).cummax(1).values
        domain_BT = domains_of(token_BT)
        return cls(token_BT, position_BT - first_BT, index_BT, starts_BT.cumsum(1) - 1, None, domain_BT)

    def select(self, column_BK: Tensor, real_BK: Tensor | None = None) -> TokenBatch:
        """Return the tokens of these columns of each row; `column_BK` ascends, so that causal order is kept.

        Rows with fewer than K tokens are padded at their end, which no earlier token sees. There `real_BK` is false and
        the index becomes -1, which observers leave out.
        """
        index_BK = self.index_BT.gather(1, column_BK)
        return TokenBatch(
            id_BT=self.id_BT.gather(1, column_BK),
            position_BT=self.position_BT.gather(1, column_BK),
            index_BT=index_BK if real_BK is None else index_BK.where(real_BK, -1),
            document_BT=None if self.document_BT is None else self.document_BT.gather(1, column_BK),
            cache=self.cache,
            domain_BT=None if self.domain_BT is None else self.domain_BT.gather(1, column_BK),
        )


_domains: ContextVar[Tensor | None] = ContextVar("domains", default=None)


@contextmanager
def in_domains(domain_B: Tensor | None) -> Iterator[None]:
    """Set the domains, integer, of the blocks whose TokenBatch is made inside; None: unknown.

    Only the caller that holds the blocks knows their domains, and only a control (router/oracle.py) needs them, so they
    bypass every function in between.
    """
    before = _domains.set(domain_B)
    try:
        yield
    finally:
        _domains.reset(before)


def domains_of(token_BT: Tensor) -> Tensor | None:
    """Return each token's domain as set by `in_domains`, (B, T); None if unset or set for another number of blocks."""
    domain_B = _domains.get()
    if domain_B is None or len(domain_B) != len(token_BT):
        return None
    return domain_B.to(token_BT.device).unsqueeze(1).expand(token_BT.shape)


@dataclass(frozen=True)
class BuildContext:
    """All that a component is built from, apart from its own options."""

    model: ModelSpec
    layer: int
    """Number of the layer, from 0; -1 for a part outside the blocks."""
    vocabulary: int
    """Number of token ids."""
    seed: int = 0
    """Seed of what a component draws once and never trains."""
