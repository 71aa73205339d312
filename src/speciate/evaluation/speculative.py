"""Greedy decoding of several tokens a step: the further heads draft, the model's own head verifies.

The method is self-speculative decoding (Gloeckle et al. 2024), a form of blockwise parallel decoding (Stern et al.
2018, 1811.03115). From the tokens up to t, head 0 predicts token t+1 and the others draft the n - 1 after it; one
forward pass reads all n. A draft is accepted while head 0 predicts it after the token before. After the first wrong
draft, head 0's own token stands and the rest is dropped. So every token is head 0's greedy choice after the tokens
before it. The text is that of `sampling.generate` at temperature 0, as far as a product of matrices gives a row the
same numbers whatever rows come with it.

A cache that cannot be truncated (a recurrent state, tokens that skip a layer) is restored instead, and the next pass
reads the accepted tokens again with the token after them, without drafts. So each forward pass yields at least one
token.

S tokens of one forward pass.
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
class SpeculationCounts:
    """Counts of speculative decoding; several texts may add to the same counts."""

    tokens: int = 0
    """Generated tokens."""
    forwards: int = 0
    """Forward passes, those of prompts included."""
    drafted: int = 0
    """Tokens that the further heads drafted and head 0 checked; those after a wrong one count too."""
    accepted: int = 0
    """Drafted tokens that head 0 accepted."""

    @property
    def acceptance(self) -> float:
        """Share of the drafts that were accepted; 0 if there were none."""
        return self.accepted / max(1, self.drafted)

    @property
    def tokens_per_forward(self) -> float:
        """Tokens generated per forward pass; at most 1 without drafts."""
        return self.tokens / max(1, self.forwards)


class DraftReader:
    """The model and its further heads, each with its cache, reading a text."""

    def __init__(self, model: Transformer, counts: SpeculationCounts) -> None:
        self.model, self.counts, self.heads = model, counts, prediction_heads(model)
        self.caches = [Cache() for _ in range(1 + len(self.heads))]

    @property
    def length(self) -> int:
        """Number of tokens read."""
        return self.caches[0].length

    def read(self, token_S: Sequence[int]) -> tuple[list[int], list[list[int]]]:
        """Read tokens, and return after each of them head 0's next token and the further heads' drafts after that."""
        model_cache, *head_caches = self.caches
        tokens = TokenBatch.of(torch.tensor([token_S], device=self.model.head_VD.device), cache=model_cache)
        trunk_1SD, x_1SD = self.model.trunk_and_hidden(tokens)
        columns: list[Tensor] = [self.model.head(x_1SD[0]).argmax(-1)]
        for head, cache in zip(self.heads, head_caches, strict=True):
            input_1SD = head.read(trunk_1SD, x_1SD, replace(tokens, cache=cache))
            cache.length = model_cache.length
            columns.append((input_1SD[0] @ head.weight(self.model).T).argmax(-1))
        self.counts.forwards += 1
        next_S, *drafts = (column.tolist() for column in columns)
        return next_S, [list(draft) for draft in zip(*drafts, strict=True)] or [[] for _ in next_S]

    def truncate(self, count: int) -> bool:
        """Drop the last `count` tokens; return False, and change nothing, if a cache cannot be truncated."""
        if count and not all(cache.can_truncate for cache in self.caches):
            return False
        length = self.length - count
        for cache in self.caches:
            cache.truncate(length)
        return True


@torch.no_grad()
def generate(
    model: Transformer, token_T: Tensor, max_tokens: int, counts: SpeculationCounts | None = None
) -> Iterator[int]:
    """Yield head 0's greedy tokens after `token_T` (T): `max_tokens`, or fewer where the context is full.

    Args:
        model: in evaluation mode.
        token_T: the prompt.
        max_tokens: at most.
        counts: counts to add to; None: none are kept.

    Raises:
        ValueError: `token_T` is empty, or longer than the model's context.
    """
    if not len(token_T):
        raise ValueError("the prompt has no tokens to continue")
    counts = SpeculationCounts() if counts is None else counts
    reader, unread, drafts = DraftReader(model, counts), token_T.tolist(), list[int]()
    left = min(max_tokens, model.context - len(token_T) + 1)
    while left > 0:
        # `unread` holds decided tokens that the model has not read yet. Drafts beyond the limit are dropped, since the
        # context may have no room for them.
        drafts = drafts[: left - 1] if len(unread) == 1 else []
        saved_caches = [cache.copy() for cache in reader.caches]
        next_S, drafts_S = reader.read(unread + drafts)
        greedy = next_S[len(unread) - 1 :]
        num_right = next((index for index, draft in enumerate(drafts) if draft != greedy[index]), len(drafts))
        counts.drafted += len(drafts)
        counts.accepted += num_right
        new, num_wrong = [*drafts[:num_right], greedy[num_right]], len(drafts) - num_right
        left -= len(new)
        drafts = drafts_S[len(unread) - 1 + num_right]
        if reader.truncate(num_wrong):
            unread = new[-1:]
        else:
            reader.caches, unread = saved_caches, unread + new
        for token in new:
            counts.tokens += 1
            yield token


def speculation_metrics(model: Transformer, token_BT: Tensor, prompts: int = 8) -> list[list[object]]:
    """Return [path, name, at, value] of speculation on a few texts that continue the first halves of probe blocks.

    `acceptance` is the share of accepted drafts. `tokens_per_forward` is 1 for plain decoding.

    Args:
        model: in evaluation mode; without further heads the result is empty.
        token_BT: the probe set, of which equally spaced blocks are used.
        prompts: largest number of texts.
    """
    if not prediction_heads(model):
        return []
    counts, half = SpeculationCounts(), token_BT.shape[1] // 2
    for token_T in token_BT[:: -(-len(token_BT) // prompts)]:
        for _ in generate(model, token_T[:half], token_BT.shape[1] - half, counts):
            pass
    metrics = {"acceptance": counts.acceptance, "tokens_per_forward": counts.tokens_per_forward}
    return [["objective", name, None, value] for name, value in metrics.items()]
