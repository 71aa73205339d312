"""Text from a masked-diffusion model: a sampler replaces masks by tokens, some at a step, until none is left.

A sampler is a kind, a file that offers one class; a step depends on the tokens that are there and on nothing before:

    sampler/<kind>.py   Sampler(options)
                        plan(num_masked) -> list[int]           its steps, by number; a portion of text runs through all
                        step(text, denoise, draws, index) -> token_BT      the tokens after one step

Where several tokens are drawn in one step they are drawn as if independent, given those that are there; the text's
distribution is exact where one is drawn at a time and its place does not depend on what was drawn for it, and else only
approached as steps grow in number. tests/evaluation/sampler counts it out for every kind, state by state.

B texts of T tokens, V words ([MASK] is none of them), M of them masked.
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

    def plan(self, num_masked: int) -> list[int]:
        """Return the numbers of the steps in which `num_masked` masks of a text are replaced."""

    def step(self, text: "Text", denoise: Denoise, draws: "Draws", index: int) -> Tensor:
        """Return the tokens after one step, (B, T)."""


class Draws(Protocol):
    """Where randomness comes from; a test can count all its outcomes instead."""

    def happens(self, prob_BT: Tensor) -> Tensor:
        """Each true with its probability, independently, (B, T) boolean."""
        ...

    def choose(self, prob_BTV: Tensor, where_BT: Tensor) -> Tensor:
        """A word by its probability at each position of `where_BT`, 0 elsewhere; (B, T) integer."""
        ...

    def shuffle(self, where_BT: Tensor) -> Tensor:
        """The rank, from 0, of each position of `where_BT` in a random order of those of its row; (B, T) integer."""
        ...


class Seeded:
    """Draws from a generator, in float64: in float32 the largest of many Gumbel variables is too small, which lowers
    the temperature (Zheng et al. 2024, 2409.02908).
    """

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator

    def _uniform(self, like: Tensor) -> Tensor:
        return torch.rand(like.shape, dtype=torch.float64, generator=self.generator).to(like.device)

    def happens(self, prob_BT: Tensor) -> Tensor:
        """See `Draws`."""
        return self._uniform(prob_BT) < prob_BT

    def choose(self, prob_BTV: Tensor, where_BT: Tensor) -> Tensor:
        """See `Draws`."""
        cumulated_BTV = prob_BTV.double().cumsum(-1)
        point_BT1 = (self._uniform(where_BT) * cumulated_BTV[..., -1]).unsqueeze(-1)
        word_BT = torch.searchsorted(cumulated_BTV, point_BT1, right=True).squeeze(-1)
        return word_BT.clamp(max=prob_BTV.shape[-1] - 1).where(where_BT, 0)

    def shuffle(self, where_BT: Tensor) -> Tensor:
        """See `Draws`."""
        return ranks(self._uniform(where_BT), where_BT)


@dataclass(frozen=True, slots=True, eq=False)
class Text:
    """Texts on their way."""

    token_BT: Tensor
    """Token ids; `mask` where none is decided."""
    mask: int
    """The id of [MASK]."""
    importance: Callable[[Tensor], Tensor] | None = None
    """Tokens (B, T) -> importance of each position, of a model that has an estimator."""
    later_BT: Tensor | None = None
    """Masks that are not to be lifted yet; None: there are none."""

    @property
    def masked_BT(self) -> Tensor:
        """Which masks may be lifted."""
        masked_BT = self.token_BT == self.mask
        return masked_BT if self.later_BT is None else masked_BT & ~self.later_BT

    def filled(self, word_BT: Tensor, where_BT: Tensor) -> Tensor:
        """The tokens with `word_BT` at the masked positions of `where_BT`."""
        return word_BT.where(where_BT & self.masked_BT, self.token_BT)


def ranks(score_BT: Tensor, where_BT: Tensor) -> Tensor:
    """The rank of each position of `where_BT`, lowest score first, ties by place; (B, T), the others last."""
    behind_BT = score_BT.double().masked_fill(~where_BT, torch.inf)
    return behind_BT.argsort(dim=1, stable=True).argsort(dim=1)


def entropies(log_prob_BTV: Tensor) -> Tensor:
    """Entropy of each position's distribution in nats, (B, T)."""
    prob_BTV = log_prob_BTV.double().exp()
    return -(prob_BTV * log_prob_BTV.double().clamp(min=-1e30)).sum(-1)


def countdown(num_masked: int, num_steps: int | None) -> list[int]:
    """Steps numbered by how many are left, this one included; None: as many as there are masks."""
    return list(range(min(num_masked, num_steps or num_masked), 0, -1))


def first(score_BT: Tensor, text: Text, left: int) -> Tensor:
    """The masks of lowest score: as many of each row as leave none after `left` such steps, (B, T) boolean."""
    count_B1 = -(-text.masked_BT.sum(1, keepdim=True) // left)
    return (ranks(score_BT, text.masked_BT) < count_B1) & text.masked_BT


def tempered(denoise: Denoise, temperature: float) -> Denoise:
    """The denoiser at another temperature; 0: the likeliest word alone."""
    if temperature == 1:
        return denoise

    def cooled(token_BT: Tensor) -> Tensor:
        log_prob_BTV = denoise(token_BT)
        if temperature == 0:
            best_BT1 = log_prob_BTV.argmax(-1, keepdim=True)
            return torch.full_like(log_prob_BTV, -torch.inf).scatter_(-1, best_BT1, 0.0)
        return (log_prob_BTV / temperature).log_softmax(-1)

    return cooled


@torch.no_grad()
def sample(sampler: Sampler, text: Text, denoise: Denoise, draws: Draws) -> Iterator[Text]:
    """The texts after each step, the last without a mask.

    Args:
        sampler: of a kind of this folder's `sampler`.
        text: where to begin; what is not masked stays.
        denoise: the model.
        draws: of all that is random.
    """
    most = int(text.masked_BT.sum(1).max()) if text.token_BT.numel() else 0
    for index in sampler.plan(most) if most else []:
        text = replace(text, token_BT=sampler.step(text, denoise, draws, index))
        yield text
    assert not text.masked_BT.any(), "a sampler leaves no mask"
