"""What travels through the blocks beside x: which tokens these are. And where in which model a component stands.

A block may see only some of a sequence's tokens (behind a Mixture-of-Depths), so a token's identity is never its place
in x: routers that hash need its id, rotary embeddings its position, an observer its place in the whole batch.

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
    """The tokens that a part of the model is looking at, in the order of x's rows; integers, all of one shape."""

    id_BT: Tensor
    """Token id."""
    position_BT: Tensor
    """Position in its context, from 0: in the block, or in its document's run where documents are kept apart."""
    index_BT: Tensor
    """Position in the flattened batch: what a Selection calls its decisions by."""
    document_BT: Tensor | None
    """Which run of one document in its block, from 0; attention must not cross from one to another, and within one the
    order of positions is the block's. None: a block is one context (GPT-2's way)."""
    cache: Cache | None = None
    """What mixers keep of the tokens before these; None: there are none, and nothing is kept."""
    domain_BT: Tensor | None = None
    """Which domain of the mixture a token's block is of, from 0; None: nobody said (`in_domains`)."""

    @classmethod
    def of(cls, token_BT: Tensor, document_BT: Tensor | None = None, cache: Cache | None = None) -> TokenBatch:
        """All tokens of a batch of blocks, or of their next part, after those that `cache` has seen.

        Args:
            token_BT: token ids.
            document_BT: the document of each position, to keep documents apart; each run of one is then a context of
                its own, in which positions start again at 0.
            cache: of one context; goes with no documents.
        """
        index_BT = torch.arange(token_BT.numel(), device=token_BT.device).view(token_BT.shape)
        position_BT = index_BT % token_BT.shape[1] + (0 if cache is None else cache.length)
        if document_BT is None:
            return cls(token_BT, position_BT, index_BT, None, cache, domains_of(token_BT))
        assert cache is None, "a cache is of one context"
        starts_BT = torch.ones_like(document_BT, dtype=torch.bool)
        starts_BT[:, 1:] = document_BT[:, 1:] != document_BT[:, :-1]
        first_BT = torch.where(starts_BT, position_BT, 0).cummax(1).values
        of_BT = domains_of(token_BT)
        return cls(token_BT, position_BT - first_BT, index_BT, starts_BT.cumsum(1) - 1, None, of_BT)

    def take(self, column_BK: Tensor, real_BK: Tensor | None = None) -> TokenBatch:
        """The tokens of these columns of each row; `column_BK` ascends, so that causal order is kept.

        Rows that keep fewer than K are padded at their end, where nothing before looks: `real_BK` is false there, and
        the index -1, which an observer leaves out.
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
    """Tokens that are made inside are of blocks of these domains, integer, in this order; None: of unknown ones.

    Who holds the blocks knows it, and a control alone asks (router/oracle.py), so it goes past all that lies between.
    """
    before = _domains.set(domain_B)
    try:
        yield
    finally:
        _domains.reset(before)


def domains_of(token_BT: Tensor) -> Tensor | None:
    """The domain of each token, as `in_domains` says, (B, T); None where it says nothing, or of other blocks."""
    domain_B = _domains.get()
    if domain_B is None or len(domain_B) != len(token_BT):
        return None
    return domain_B.to(token_BT.device).unsqueeze(1).expand(token_BT.shape)


@dataclass(frozen=True)
class BuildContext:
    """Where in which model a component stands: all that it is built from, its own options aside."""

    model: ModelSpec
    layer: int
    """From 0; -1 of a part beside the blocks."""
    vocabulary: int
    seed: int = 0
    """Of what a component draws once and never learns."""
