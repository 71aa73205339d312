"""Text from a masked-diffusion model: a sampler replaces masks by tokens, some at each step, until none is left.

A sampler is a component, a file with one class; a step depends on the present tokens and on nothing before:

    sampler/<kind>.py   Sampler(options)
                        step_numbers(num_masked) -> list[int]              the numbers of its steps
                        unmask(text, denoise, draws, index) -> token_BT    the tokens after one step

Tokens that one step draws are drawn as if independent, given the present ones. The text's distribution is exact where
one token is drawn at a time and its position does not depend on what was drawn for it. Otherwise it is only approached
as the number of steps grows. tests/evaluation/sampler enumerates it for every kind, state by state.

B texts of T tokens, V words ([MASK] is not one of them).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

Denoise = Callable[[Tensor], Tensor]
"""Tokens with masks, (B, T) -> log-probabilities of each position's word, (B, T, V)."""


class Sampler(Protocol):
    """One way to replace masks by tokens: the class `Sampler(options)` of a file in `sampler/`."""

    def step_numbers(self, num_masked: int) -> list[int]:
        """Return the numbers of the steps in which `num_masked` masks of a text are replaced."""

    def unmask(self, text: "MaskedText", denoise: Denoise, draws: "Draws", index: int) -> Tensor:
        """Return the tokens after one step, (B, T)."""


class Draws(Protocol):
    """Source of randomness; a test can enumerate all its outcomes instead."""

    def bernoulli(self, prob_BT: Tensor) -> Tensor:
        """Draw booleans, each true with its probability, independently; (B, T)."""
        ...

    def categorical(self, prob_BTV: Tensor, where_BT: Tensor) -> Tensor:
        """Draw a word by its probability at each position of `where_BT`, 0 elsewhere; (B, T) integer."""
        ...

    def random_ranks(self, where_BT: Tensor) -> Tensor:
        """Draw a random order of each row's positions in `where_BT`, and return ranks from 0; (B, T) integer."""
        ...


class SeededDraws:
    """Draws from a generator, in float64.

    In float32 the largest of many Gumbel variables is too small, which lowers the temperature (Zheng et al. 2024,
    2409.02908).
    """

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator

    def _uniform(self, like: Tensor) -> Tensor:
        return torch.rand(like.shape, dtype=torch.float64, generator=self.generator).to(like.device)

    def bernoulli(self, prob_BT: Tensor) -> Tensor:
        return self._uniform(prob_BT) < prob_BT

    def categorical(self, prob_BTV: Tensor, where_BT: Tensor) -> Tensor:
        cumulative_BTV = prob_BTV.double().cumsum(-1)
        point_BT1 = (self._uniform(where_BT) * cumulative_BTV[..., -1]).unsqueeze(-1)
        word_BT = torch.searchsorted(cumulative_BTV, point_BT1, right=True).squeeze(-1)
        return word_BT.clamp(max=prob_BTV.shape[-1] - 1).where(where_BT, 0)

    def random_ranks(self, where_BT: Tensor) -> Tensor:
        return rank_in_row(self._uniform(where_BT), where_BT)


@dataclass(frozen=True, slots=True, eq=False)
class MaskedText:
    """Texts between two steps."""

    token_BT: Tensor
    """Token ids; `mask` at masked positions."""
    mask: int
    """The id of [MASK]."""
    importance: Callable[[Tensor], Tensor] | None = None
    """Tokens (B, T) -> importance of each position; None: the model has no estimator."""
    deferred_BT: Tensor | None = None
    """Masks that must not be lifted yet; None: there are none."""

    @property
    def masked_BT(self) -> Tensor:
        """Which masks may be lifted."""
        masked_BT = self.token_BT == self.mask
        return masked_BT if self.deferred_BT is None else masked_BT & ~self.deferred_BT

    def fill(self, word_BT: Tensor, where_BT: Tensor) -> Tensor:
        """Return the tokens with `word_BT` at the masked positions of `where_BT`."""
        return word_BT.where(where_BT & self.masked_BT, self.token_BT)


def rank_in_row(score_BT: Tensor, where_BT: Tensor) -> Tensor:
    """Return the rank of each position of `where_BT`, lowest score first, ties by position; the others come last."""
    sortable_BT = score_BT.double().masked_fill(~where_BT, torch.inf)
    return sortable_BT.argsort(dim=1, stable=True).argsort(dim=1)


def entropy(log_prob_BTV: Tensor) -> Tensor:
    """Return the entropy of each position's distribution in nats, (B, T)."""
    prob_BTV = log_prob_BTV.double().exp()
    return -(prob_BTV * log_prob_BTV.double().clamp(min=-1e30)).sum(-1)


def steps_left(num_masked: int, num_steps: int | None) -> list[int]:
    """Return for each step how many are left, itself included; `num_steps` None: one step for each mask."""
    return list(range(min(num_masked, num_steps or num_masked), 0, -1))


def lowest_scored(score_BT: Tensor, text: MaskedText, left: int) -> Tensor:
    """Return the masks of lowest score, (B, T) boolean: as many of each row as leave none after `left` such steps."""
    count_B1 = -(-text.masked_BT.sum(1, keepdim=True) // left)
    return (rank_in_row(score_BT, text.masked_BT) < count_B1) & text.masked_BT


def with_temperature(denoise: Denoise, temperature: float) -> Denoise:
    """Return the denoiser at another temperature; 0: only the likeliest word has probability."""
    if temperature == 1:
        return denoise

    def tempered(token_BT: Tensor) -> Tensor:
        log_prob_BTV = denoise(token_BT)
        if temperature == 0:
            best_BT1 = log_prob_BTV.argmax(-1, keepdim=True)
            return torch.full_like(log_prob_BTV, -torch.inf).scatter_(-1, best_BT1, 0.0)
        return (log_prob_BTV / temperature).log_softmax(-1)

    return tempered


@torch.no_grad()
def sample(sampler: Sampler, text: MaskedText, denoise: Denoise, draws: Draws) -> Iterator[MaskedText]:
    """Yield the texts after each step; the last has no mask.

    Args:
        sampler: of a kind of this folder's `sampler`.
        text: the start; what is not masked stays.
        denoise: the model.
        draws: the source of all randomness.
    """
    num_masked = int(text.masked_BT.sum(1).max()) if text.token_BT.numel() else 0
    for index in sampler.step_numbers(num_masked) if num_masked else []:
        text = replace(text, token_BT=sampler.unmask(text, denoise, draws, index))
        yield text
    assert not text.masked_BT.any(), "a sampler leaves no mask"
