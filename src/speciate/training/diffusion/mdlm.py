"""Masked (absorbing) diffusion as in MDLM (Sahoo et al. 2024), and the likelihood bound that scores every arm.

A share s of a block's tokens is replaced by [MASK], the last token id. The denoiser sees the whole block and predicts
the replaced tokens. SUBS: [MASK] has probability zero and visible tokens stay as they are, so only masked tokens have a
loss.

    NELBO(x) = int_0^1 ds/s E[ sum_{i masked} -log p(x_i | visible) ]
             = sum_{k=1}^{L} 1/k E[ sum_{i in S} -log p(x_i | not S) ],   S uniform among the sets of k of L tokens

The bound is the mean of -log p(x) over all orders in which tokens can be predicted one after another. Training
estimates the first form, with any schedule: the integral does not depend on how s runs. Evaluation uses the second
form, in which the number of masks is no longer random. Both mask every token alike. An importance changes what a model
is trained on, never how it is scored. If mask probabilities depended on the text, the positions of the masks would
reveal what they hide. A denoiser that has learned to read them goes below the entropy of the data
(tests/training/diffusion/test_bound.py); such a loss is no bound and is comparable with nothing.

The first token of a block, or of a document where the model separates documents, is given, as in a causal model.

B blocks of T tokens, L of a block maskable, D width, V vocabulary, N masked tokens of all blocks.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from speciate.model.transformer import Transformer
from speciate.training.diffusion.fixed_uniforms import uniforms
from speciate.training.loss.cross_entropy import per_token_nll


@dataclass(frozen=True, slots=True, eq=False)
class NoisyBlocks:
    """A batch of blocks with masks."""

    token_BT: Tensor
    """The clean tokens."""
    noisy_BT: Tensor
    """The tokens with [MASK] at masked positions."""
    document_BT: Tensor | None
    """The document of each position; None: the model does not separate documents."""
    maskable_BT: Tensor
    """Which tokens may be masked: all but a context's first."""
    masked_BT: Tensor
    """Which tokens are masked."""
    weight_BT: Tensor
    """The weight of each token's nats in the loss, if it is predicted."""
    share_B: Tensor
    """The share s of each block that is to be masked."""


def maskable_tokens(model: Transformer, token_BT: Tensor, document_BT: Tensor | None) -> Tensor:
    """Return which tokens may be masked, (B, T) boolean."""
    maskable_BT = torch.ones_like(token_BT, dtype=torch.bool)
    if model.separate_documents and document_BT is not None:
        maskable_BT[:, 1:] = document_BT[:, 1:] == document_BT[:, :-1]
    maskable_BT[:, 0] = False
    return maskable_BT


def stratified_times(num_blocks: int, device: torch.device) -> Tensor:
    """Draw a number in (0, 1] for each block, each from its own stratum (low-discrepancy times); float64."""
    within_B = 1 - torch.rand(num_blocks, dtype=torch.float64, device=device)
    return (torch.arange(num_blocks, device=device) + within_B) / num_blocks


def denoiser_hidden(model: Transformer, noisy_BT: Tensor, document_BT: Tensor | None, share_B: Tensor) -> Tensor:
    """Return the input of the output layer for noisy blocks, (B, T, D); a model with a part `time` also gets s."""
    if "time" not in model.parts:
        return model.hidden(noisy_BT, document_BT)
    return model.hidden(noisy_BT, document_BT, model.parts["time"](share_B).unsqueeze(1))


def word_head_VD(model: Transformer) -> Tensor:
    """Return the output layer's weight without [MASK], which so has no probability."""
    return model.head_VD[:-1]


@torch.no_grad()
def masked_nll(
    model: Transformer, token_BT: Tensor, document_BT: Tensor | None, masked_BT: Tensor, *, share_B: Tensor, chunk: int
) -> Tensor:
    """Return -log p of the masked tokens given the others, (B, T), exactly 0 at visible ones; without gradient."""
    x_BTD = denoiser_hidden(model, token_BT.masked_fill(masked_BT, model.vocabulary - 1), document_BT, share_B)
    nll_N = per_token_nll(x_BTD[masked_BT], word_head_VD(model), token_BT[masked_BT], chunk)
    return nll_N.new_zeros(token_BT.shape).masked_scatter_(masked_BT, nll_N)


def antithetic_masks(
    token_BT: Tensor, maskable_BT: Tensor, pair: int, num_pairs: int
) -> tuple[tuple[Tensor, Tensor], ...]:
    """Return two fixed random masks of each block, as (masked_BT, number masked B) each.

    The first masks k tokens. The second masks L + 1 - k: all that the first leaves visible, and one of the first's.
    Over the pairs the k lie in strata of 1 to L, and each mask is uniform among those of its size. The block's own
    tokens decide everything.
    """
    order_BT = uniforms(token_BT, 2 * pair).masked_fill(~maskable_BT, 2.0)
    rank_BT = order_BT.argsort(1).argsort(1)
    num_B = maskable_BT.sum(1)
    within_B = uniforms(token_BT, 2 * pair + 1)[:, 0]
    count_B = ((pair + within_B) / (2 * num_pairs) * num_B).long() + 1
    first_BT = (rank_BT < count_B.unsqueeze(1)) & maskable_BT
    second_BT = (rank_BT >= count_B.unsqueeze(1) - 1) & maskable_BT
    return (first_BT, count_B), (second_BT, num_B + 1 - count_B)


@torch.no_grad()
def nelbo_estimates(
    model: Transformer, token_BT: Tensor, document_BT: Tensor | None, num_pairs: int, *, chunk: int
) -> tuple[Tensor, Tensor]:
    """Estimate the uniform-mask bound by pairs of masks.

    Returns:
        Each pair's estimate of every token's part of the bound, (pairs, B, T) float64, whose mean over pairs is
        unbiased; and each token's mean nats when masked, (B, T), which no weight makes noisy. A context's first token
        has 0 in both.
    """
    maskable_BT = maskable_tokens(model, token_BT, document_BT)
    num_B = maskable_BT.sum(1)
    estimate_PBT = torch.zeros((num_pairs, *token_BT.shape), dtype=torch.float64, device=token_BT.device)
    total_BT, num_masked_BT = torch.zeros_like(estimate_PBT[0]), torch.zeros_like(estimate_PBT[0])
    for pair in range(num_pairs):
        for masked_BT, count_B in antithetic_masks(token_BT, maskable_BT, pair, num_pairs):
            share_B = count_B.double() / num_B.clamp(min=1)
            nll_BT = masked_nll(model, token_BT, document_BT, masked_BT, share_B=share_B, chunk=chunk).double()
            estimate_PBT[pair] += nll_BT / share_B.unsqueeze(1).clamp(min=1e-9) / 2
            total_BT += nll_BT
            num_masked_BT += masked_BT
    return estimate_PBT, total_BT / num_masked_BT.clamp(min=1)
