"""Greedy text some tokens at a time: the further heads draft, the model's own head verifies (Gloeckle et al. 2024).

From the tokens up to t head 0 tells token t+1 and the others draft the n - 1 after it; all n are read at once. Where
head 0, having read a token, says what was drafted to follow it, the draft is accepted; after the first that is wrong,
head 0's own token stands, and the rest is forgotten (blockwise parallel decoding, Stern et al. 2018, 1811.03115). Every
token is thus head 0's greedy choice after the tokens before it: the text is that of `sampling.generate` at temperature
0, as far as a product of matrices gives a row the same numbers whatever rows come with it.

A cache that cannot be cut (a recurrent state, tokens that skip a layer) is put back instead, and what was accepted is
read again with the token after it, that time without drafts. So each forward pass tells one token at least.

S tokens read at once.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from speciate.model.cache import Cache
from speciate.model.mtp_heads import prediction_heads
from speciate.model.token_batch import TokenBatch
from speciate.model.transformer import Transformer


@dataclass
class Counts:
    """What speculation did; counts of several texts may share one."""

    tokens: int = 0
    """Generated."""
    forwards: int = 0
    """Forward passes, prompts' included."""
    drafted: int = 0
    """Tokens that heads drafted and head 0 looked at: those after a wrong one count too."""
    accepted: int = 0
    """Those of them that stand."""

    @property
    def acceptance(self) -> float:
        """Share of the drafts that stand; 0 where there were none."""
        return self.accepted / max(1, self.drafted)

    @property
    def tokens_per_forward(self) -> float:
        """1 at most without drafts."""
        return self.tokens / max(1, self.forwards)


class Reader:
    """Reads tokens with the model and its further heads, each with its cache."""

    def __init__(self, model: Transformer, counts: Counts) -> None:
        self.model, self.counts, self.heads = model, counts, prediction_heads(model)
        self.caches = [Cache() for _ in range(1 + len(self.heads))]

    @property
    def length(self) -> int:
        """Tokens read."""
        return self.caches[0].length

    def read(self, token_S: Sequence[int]) -> tuple[list[int], list[list[int]]]:
        """After each of these tokens: what head 0 says comes next, and what the others say comes after that."""
        own, *further = self.caches
        tokens = TokenBatch.of(torch.tensor([token_S], device=self.model.head_VD.device), cache=own)
        trunk_1SD, x_1SD = self.model.trunk_and_hidden(tokens)
        columns: list[Tensor] = [self.model.head(x_1SD[0]).argmax(-1)]
        for head, cache in zip(self.heads, further, strict=True):
            read_1SD = head.read(trunk_1SD, x_1SD, replace(tokens, cache=cache))
            cache.length = own.length
            columns.append((read_1SD[0] @ head.weight(self.model).T).argmax(-1))
        self.counts.forwards += 1
        next_S, *drafts = (column.tolist() for column in columns)
        return next_S, [list(draft) for draft in zip(*drafts, strict=True)] or [[] for _ in next_S]

    def forget(self, count: int) -> bool:
        """Forgets the last so many tokens; False where that cannot be, and nothing has changed."""
        if count and not all(cache.can_truncate for cache in self.caches):
            return False
        kept = self.length - count
        for cache in self.caches:
            cache.truncate(kept)
        return True


@torch.no_grad()
def generate(model: Transformer, token_T: Tensor, max_tokens: int, counts: Counts | None = None) -> Iterator[int]:
    """Head 0's greedy tokens after `token_T` (T): `max_tokens`, or fewer where the context is full.

    Args:
        model: in evaluation mode.
        token_T: what they follow.
        max_tokens: at most.
        counts: is counted on.

    Raises:
        ValueError: no tokens to follow, or more than the model's context.
    """
    if not len(token_T):
        raise ValueError("there is no token to go on from")
    counts = Counts() if counts is None else counts
    reader, certain, drafts = Reader(model, counts), token_T.tolist(), list[int]()
    left = min(max_tokens, model.context - len(token_T) + 1)
    while left > 0:
        # what would be left over is not read: the context may have no place for it
        drafts = drafts[: left - 1] if len(certain) == 1 else []
        before = [cache.copy() for cache in reader.caches]
        next_S, further = reader.read(certain + drafts)
        says = next_S[len(certain) - 1 :]
        agreed = next((place for place, draft in enumerate(drafts) if draft != says[place]), len(drafts))
        counts.drafted += len(drafts)
        counts.accepted += agreed
        new, wrong = [*drafts[:agreed], says[agreed]], len(drafts) - agreed
        left -= len(new)
        drafts = further[len(certain) - 1 + agreed]
        if reader.forget(wrong):
            certain = new[-1:]
        else:
            reader.caches, certain = before, certain + new
        for token in new:
            counts.tokens += 1
            yield token


def measured(model: Transformer, token_BT: Tensor, prompts: int = 8) -> list[list[object]]:
    """[path, name, at, value] of speculation on a few texts that go on from the first halves of probe blocks.

    `acceptance`: share of the drafts that stand. `tokens_per_forward`: against 1 of plain decoding.

    Args:
        model: in evaluation mode; without further heads there is nothing to measure.
        token_BT: the probe set; blocks are taken at equal distances.
        prompts: how many, at most.
    """
    if not prediction_heads(model):
        return []
    counts, half = Counts(), token_BT.shape[1] // 2
    for token_T in token_BT[:: -(-len(token_BT) // prompts)]:
        for _ in generate(model, token_T[:half], token_BT.shape[1] - half, counts):
            pass
    found = {"acceptance": counts.acceptance, "tokens_per_forward": counts.tokens_per_forward}
    return [["objective", name, None, value] for name, value in found.items()]
