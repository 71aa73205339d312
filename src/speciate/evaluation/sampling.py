"""Text from a decoder, token by token, with a cache: greedy, or sampled by temperature, top-k and nucleus.

    p = softmax(l / temperature), of the k largest only (Fan et al. 2018), of the fewest that together reach top_p only
    (Holtzman et al. 2020), renormalised

T tokens, V vocabulary.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from speciate.model.cache import Cache
from speciate.model.token_batch import TokenBatch
from speciate.model.transformer import Transformer


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen."""

    temperature: float = 1.0
    """Divides the logits; 0: the likeliest token is taken."""
    top_k: int = 0
    """Number of likeliest tokens to sample among; 0: all."""
    top_p: float = 1.0
    """Probability that the likeliest tokens to sample among must reach; 1: all."""

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise ValueError(f"temperature: must be at least 0, not {self.temperature}")
        if self.top_k < 0:
            raise ValueError(f"top_k: must be at least 0, not {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p: must be above 0 and at most 1, not {self.top_p}")


def next_token_probs(logit_V: Tensor, sampling: Sampling) -> Tensor:
    """Return the distribution that the next token is drawn from, (V,)."""
    if sampling.temperature == 0:
        return torch.zeros_like(logit_V).scatter_(0, logit_V.argmax(keepdim=True), 1.0)
    logit_V = logit_V / sampling.temperature
    if 0 < sampling.top_k < len(logit_V):
        logit_V = logit_V.masked_fill(logit_V < logit_V.topk(sampling.top_k).values[-1], -torch.inf)
    prob_V = logit_V.softmax(-1)
    if sampling.top_p < 1:
        sorted_V, order_V = prob_V.sort(descending=True, stable=True)
        beyond_V = sorted_V.cumsum(0) - sorted_V >= sampling.top_p
        prob_V = prob_V.index_fill(0, order_V[beyond_V], 0.0)
    return prob_V / prob_V.sum()


@torch.no_grad()
def generate(
    model: Transformer, token_T: Tensor, sampling: Sampling, max_tokens: int, *, generator: torch.Generator
) -> Iterator[int]:
    """Yield the tokens that follow `token_T` (T): `max_tokens`, or fewer where the context is full.

    Raises:
        ValueError: `token_T` is empty, or longer than the model's context.
    """
    if not len(token_T):
        raise ValueError("the prompt has no tokens to continue")
    cache, token_1T = Cache(), token_T.unsqueeze(0)
    for _ in range(min(max_tokens, model.context - len(token_T) + 1)):
        x_1TD = model.read(TokenBatch.of(token_1T, cache=cache))
        prob_V = next_token_probs(model.head(x_1TD[0, -1]).float(), sampling)
        token_1T = torch.multinomial(prob_V, 1, generator=generator).unsqueeze(0)
        yield int(token_1T)
