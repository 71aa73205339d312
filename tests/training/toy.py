"""Provide a toy for masked diffusion: blocks of one given token and 4 maskable ones from 3 words.

It is small enough to sum over every text and every mask.

X texts (81), S sets of masks (16), T = 5 positions, V = 3 words; [MASK] is 3.
"""

import itertools
import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from speciate.config.run import ModelSpec
from speciate.model.transformer import Transformer
from speciate.training.diffusion.mdlm import masked_nll

WORDS, LENGTH = 3, 4
TEXT_XT = torch.tensor([(0, *words) for words in itertools.product(range(WORDS), repeat=LENGTH)])
SET_ST = torch.tensor([(False, *bits) for bits in itertools.product((False, True), repeat=LENGTH)])
MASKABLE_XT = torch.ones_like(TEXT_XT, dtype=torch.bool).index_fill(1, torch.tensor(0), False)
Rate = Callable[[Tensor], tuple[Tensor, Tensor]]
"""share_X -> (mask probability of each token of each text, d log probability / d share), (X, T) both."""


def denoiser(**changes: object) -> Transformer:
    """Build a small bidirectional model in float64, its weights large enough to matter."""
    torch.manual_seed(3)
    block = {"mixer": {"kind": "attention", "num_heads": 2}, "ffn": {"kind": "dense", "hidden": 16}, "depth": "every"}
    shape = {"width": 8, "num_layers": 1, "context": LENGTH + 1, "causal": False, "block": block}
    model = ModelSpec.model_validate({**shape, "init_std": 0.7, "embedding_std": 0.7, **changes})
    return Transformer(model, WORDS + 1).double().eval()


class Oracle:
    """Stand in for a known distribution's exact denoiser: -log p(token | visible) of each text under each mask set."""

    def __init__(self, probs_X: Tensor) -> None:
        self.probs_X = probs_X
        self.nats_XST = torch.zeros(len(TEXT_XT), len(SET_ST), LENGTH + 1, dtype=torch.float64)
        for index, masked_T in enumerate(SET_ST):
            agree_XX = (TEXT_XT.unsqueeze(1) == TEXT_XT)[..., ~masked_T].all(-1).double()
            all_X = agree_XX @ probs_X
            for position in masked_T.nonzero().flatten().tolist():
                same_XX = agree_XX * (TEXT_XT[:, position].unsqueeze(1) == TEXT_XT[:, position])
                self.nats_XST[:, index, position] = (all_X / (same_XX @ probs_X)).log()


def data() -> Tensor:
    """Return a distribution over the texts, with dependence between all positions."""
    draw = torch.Generator().manual_seed(5)
    return torch.randn(len(TEXT_XT), generator=draw, dtype=torch.float64).mul(1.3).softmax(0)


def table(model: Transformer) -> Tensor:
    """Return -log p of each masked token of each text under each set of masks, (X, S, T), by the evaluation's code."""
    share_X = torch.full((len(TEXT_XT),), 0.5, dtype=torch.float64)
    sets = [
        masked_nll(model, TEXT_XT, None, masked_T.expand_as(TEXT_XT), share_B=share_X, chunk=7) for masked_T in SET_ST
    ]
    return torch.stack(sets, 1)


def subsets(nats_XST: Tensor) -> Tensor:
    """Return the bound in closed form, (X,): the sum over S of B(|S|, L - |S| + 1) times the nats of S."""
    total_X = torch.zeros(len(nats_XST), dtype=torch.float64)
    for index, masked_T in enumerate(SET_ST):
        size = int(masked_T.sum())
        if size:
            beta = math.gamma(size) * math.gamma(LENGTH - size + 1) / math.gamma(LENGTH + 1)
            total_X += beta * nats_XST[:, index].sum(1)
    return total_X


def orders(nats_XST: Tensor) -> Tensor:
    """Return -log p of each text in each of the 24 orders of predicting one token after another, (X, orders)."""
    index_of = {tuple(masked_T.tolist()): index for index, masked_T in enumerate(SET_ST)}
    nats_by_order = []
    for order in itertools.permutations(range(1, LENGTH + 1)):
        masked, nats_X = [False] + [True] * LENGTH, torch.zeros(len(nats_XST), dtype=torch.float64)
        for position in order:
            nats_X = nats_X + nats_XST[:, index_of[tuple(masked)], position]
            masked[position] = False
        nats_by_order.append(nats_X)
    return torch.stack(nats_by_order, 1)


def nodes(num: int, power: int = 1) -> list[tuple[float, float]]:
    """Return the (u, weight) of a Gauss-Legendre integral over u in (0, 1), in u^(1/power) to resolve roots near 0."""
    point, weight = np.polynomial.legendre.leggauss(num)
    z = (point + 1) / 2
    return list(zip(z**power, weight / 2 * power * z ** (power - 1), strict=True))


def chances(prob_XT: Tensor) -> Tensor:
    """Return the probability of each set of masks, (X, S), where tokens are masked independently."""
    return torch.stack([prob_XT[:, 1:].where(set_T[1:], 1 - prob_XT[:, 1:]).prod(1) for set_T in SET_ST], 1)


def expected(
    nats_XST: Tensor, rate: Rate, steps: list[tuple[float, float]], noise: Callable[[Tensor], tuple[Tensor, Tensor]]
) -> Tensor:
    """Return the training loss of each text, averaged over times and masks, times L; (X,)."""
    total_X = torch.zeros(len(nats_XST), dtype=torch.float64)
    for uniform, step in steps:
        share_X, slope_X = noise(torch.full((len(TEXT_XT),), uniform, dtype=torch.float64))
        prob_XT, rate_XT = rate(share_X)
        weighed_XS = (nats_XST * (rate_XT * slope_X.unsqueeze(1)).unsqueeze(1)).sum(2)
        total_X += step * (chances(prob_XT) * weighed_XS).sum(1)
    return total_X
