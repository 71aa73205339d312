"""TokenBatch, the token information that goes through the blocks with x; BuildContext, what a component is built from.

A block may see only some of a sequence's tokens (behind a Mixture-of-Depths), so the row of x does not identify a
token. Routers that hash need its id, rotary embeddings its position, and an observer its index in the whole batch.

B blocks of T tokens; K of the T kept; N = B T, S any number of columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import Tensor

from speciate.config.run import ModelSpec
from speciate.model.bit_mixing import mix_bits
from speciate.model.cache import Cache

PADDING = -1
"""Index and document number of a token that is only padding."""


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
    """Number of its document in the block, from 0 (each stretch of one document counts); -1 for padding. Attention must
    not cross from one to another, and within one the order is the block's. None: a block is one context (GPT-2)."""
    context_hash_BT: Tensor
    """Hash, int64, of the token and of those before it in its context: equal for equal texts in any batch."""
    cache: Cache | None = None
    """Cache of the tokens before these; None: there are none, and nothing is cached."""
    domain_BT: Tensor | None = None
    """Domain of the token's block, as an index into the mixture's; None: unknown (see `in_domains`)."""
    padded: bool = False
    """Whether some of the tokens may be padding; if not, nothing needs to look for it."""

    @classmethod
    def of(
        cls,
        token_BT: Tensor,
        document_BT: Tensor | None = None,
        cache: Cache | None = None,
        *,
        position_BT: Tensor | None = None,
        real_BT: Tensor | None = None,
    ) -> TokenBatch:
        """Make a batch of whole blocks, or of their next tokens after those that `cache` has seen.

        Args:
            token_BT: token ids.
            document_BT: document of each position, to keep documents apart; each stretch of one document is then a
                context of its own, in which positions start at 0.
            cache: cache of one context; not together with documents.
            position_BT: position of each token in its context; None: counted from the context's first token.
            real_BT: boolean, false for padding, which no token sees and which nothing counts; None: there is none. A
                row's real tokens must follow each other.
        """
        assert document_BT is None or cache is None, "a cache holds one context, so it excludes documents"
        index_BT = torch.arange(token_BT.numel(), device=token_BT.device).view(token_BT.shape)
        column_BT = index_BT % token_BT.shape[1]
        stretch_BT = None if document_BT is None else _starts(document_BT).cumsum(1) - 1
        if real_BT is not None:
            index_BT = index_BT.where(real_BT, PADDING)
            stretch_BT = (torch.zeros_like(column_BT) if stretch_BT is None else stretch_BT).where(real_BT, PADDING)
        first_BT = torch.zeros_like(column_BT)
        if stretch_BT is not None:
            first_BT = _first_columns(stretch_BT)
        if position_BT is None:
            position_BT = column_BT - first_BT + (0 if cache is None else cache.length)
        return cls(
            id_BT=token_BT,
            position_BT=position_BT,
            index_BT=index_BT,
            document_BT=stretch_BT,
            context_hash_BT=_context_hashes(token_BT, position_BT, first_BT, real_BT, cache=cache),
            cache=cache,
            domain_BT=domains_of(token_BT),
            padded=real_BT is not None,
        )

    @property
    def real_BT(self) -> Tensor:
        """Whether each token is real, no padding; boolean."""
        return self.index_BT >= 0

    def select(self, column_BK: Tensor, real_BK: Tensor | None = None) -> TokenBatch:
        """Return the tokens of these columns of each row; `column_BK` ascends, so that causal order is kept.

        Rows with fewer than K tokens are padded at their end, which no earlier token sees. There `real_BK` is false and
        the index becomes -1, which observers leave out.
        """
        index_BK = self.index_BT.gather(1, column_BK)
        return TokenBatch(
            id_BT=self.id_BT.gather(1, column_BK),
            position_BT=self.position_BT.gather(1, column_BK),
            index_BT=index_BK if real_BK is None else index_BK.where(real_BK, PADDING),
            document_BT=None if self.document_BT is None else self.document_BT.gather(1, column_BK),
            context_hash_BT=self.context_hash_BT.gather(1, column_BK),
            cache=self.cache,
            domain_BT=None if self.domain_BT is None else self.domain_BT.gather(1, column_BK),
            padded=self.padded or real_BK is not None,
        )

    def context_start_BT(self) -> Tensor:
        """Return the column at which each token's context begins in this batch, (B, T); 0 where a block is one."""
        if self.document_BT is None:
            return torch.zeros_like(self.id_BT)
        return _first_columns(self.document_BT)

    def mean(self, value_NS: Tensor) -> Tensor:
        """Return the mean over all tokens that are no padding, (S); 0 if there are none."""
        if not self.padded:
            return value_NS.mean(0)
        real_N1 = self.real_BT.flatten().unsqueeze(1)
        return value_NS.where(real_N1, 0.0).sum(0) / real_N1.sum().clamp_min(1)

    def mean_by_block(self, value_NS: Tensor) -> Tensor:
        """Return the mean over each block's tokens that are no padding, (B, S); 0 if there are none."""
        value_BTS = value_NS.view(*self.id_BT.shape, value_NS.shape[-1])
        if not self.padded:
            return value_BTS.mean(1)
        real_BT1 = self.real_BT.unsqueeze(-1)
        return value_BTS.where(real_BT1, 0.0).sum(1) / real_BT1.sum(1).clamp_min(1)

    def sum(self, value_NS: Tensor) -> Tensor:
        """Return the sum over all tokens that are no padding, (S)."""
        if not self.padded:
            return value_NS.sum(0)
        return value_NS.where(self.real_BT.flatten().unsqueeze(1), 0.0).sum(0)


def _starts(document_BT: Tensor) -> Tensor:
    """Tell which columns have another document than the one before them, (B, T) boolean; a row's first one does."""
    starts_BT = torch.ones_like(document_BT, dtype=torch.bool)
    starts_BT[:, 1:] = document_BT[:, 1:] != document_BT[:, :-1]
    return starts_BT


def _first_columns(document_BT: Tensor) -> Tensor:
    """Return the first column of each token's stretch of one document, (B, T)."""
    column_BT = torch.arange(document_BT.shape[1], device=document_BT.device).expand_as(document_BT)
    return torch.where(_starts(document_BT), column_BT, 0).cummax(1).values


def _context_hashes(
    token_BT: Tensor, position_BT: Tensor, first_BT: Tensor, real_BT: Tensor | None, *, cache: Cache | None
) -> Tensor:
    """Return a hash of each token's context up to itself, (B, T) int64.

    It sums a hash of (token id, position) over the context, so that it goes on from the last one in a cache.
    """
    part_BT = mix_bits(token_BT.long() + mix_bits(position_BT + 1))
    if real_BT is not None:
        part_BT = part_BT * real_BT
    sum_BT = part_BT.cumsum(1)
    before_BT = torch.nn.functional.pad(sum_BT, (1, 0)).gather(1, first_BT)
    hash_BT = sum_BT - before_BT
    carried = None if cache is None else cache.state(Cache.CONTEXT)
    if carried is None or carried[0].shape[1] == 0:  # empty where a cache was cut to nothing
        return hash_BT
    return hash_BT + carried[0][:, -1:]


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
