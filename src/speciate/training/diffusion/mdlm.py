"""Masked (absorbing) diffusion as MDLM has it (Sahoo et al. 2024), and the bound by which every arm is scored.

A share s of a block's tokens is replaced by [MASK], the last token id; the denoiser sees the whole block and says what
they were. SUBS: [MASK] has probability zero, and a visible token is what it is, so only masked ones cost anything.

    NELBO(x) = int_0^1 ds/s E[ sum_{i masked} -log p(x_i | visible) ]
             = sum_{k=1}^{L} 1/k E[ sum_{i in S} -log p(x_i | not S) ],   S uniform among the sets of k of L tokens

and it is the mean, over all orders in which tokens can be predicted one after another, of -log p(x). The first form is
what training estimates (with any schedule: the integral does not depend on how s runs), the second what is evaluated:
the number of masks is no longer random. Both mask every token alike. An importance changes what a model is trained on,
never what it is scored by: with rates that depend on the text, where the masks are tells what is under them, and a
denoiser that has learned to read it goes below the entropy of the data (tests/training/diffusion/test_bound.py); such a loss is
no bound and compares with nothing.

The first token of a block, or of a document where these are separated, is given, as it is to a causal model.

B blocks of T tokens, L of a block maskable, D width, V vocabulary, N masked tokens of all blocks.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from speciate.model.transformer import Transformer
from speciate.training.diffusion.fixed_uniforms import uniforms
from speciate.training.loss.cross_entropy import each


@dataclass(frozen=True, slots=True, eq=False)
class Noised:
    """Blocks with masks."""

    token_BT: Tensor
    """The clean tokens."""
    noisy_BT: Tensor
    """The same with [MASK] where masked."""
    document_BT: Tensor | None
    """Of each position."""
    maskable_BT: Tensor
    """Which may be masked: all but a context's first."""
    masked_BT: Tensor
    """Which are."""
    weight_BT: Tensor
    """What the nats of each weigh if it is predicted."""
    share_B: Tensor
    """The share s of each block that is to be masked."""


def maskable(model: Transformer, token_BT: Tensor, document_BT: Tensor | None) -> Tensor:
    """Which tokens may be masked, (B, T) boolean."""
    maskable_BT = torch.ones_like(token_BT, dtype=torch.bool)
    if model.separate_documents and document_BT is not None:
        maskable_BT[:, 1:] = document_BT[:, 1:] == document_BT[:, :-1]
    maskable_BT[:, 0] = False
    return maskable_BT


def stratified(num_blocks: int, device: torch.device) -> Tensor:
    """One number in (0, 1] for each block, each in a stratum of its own, in float64: low-discrepancy times."""
    within_B = 1 - torch.rand(num_blocks, dtype=torch.float64, device=device)
    return (torch.arange(num_blocks, device=device) + within_B) / num_blocks


def hidden(model: Transformer, noisy_BT: Tensor, document_BT: Tensor | None, share_B: Tensor) -> Tensor:
    """What the head reads of noisy blocks, (B, T, D); the denoiser is told s where it has a part `time`."""
    if "time" not in model.parts:
        return model.hidden(noisy_BT, document_BT)
    return model.hidden(noisy_BT, document_BT, model.parts["time"](share_B).unsqueeze(1))


def words_VD(model: Transformer) -> Tensor:
    """The head without [MASK], which so has no probability: logits over all other token ids."""
    return model.head_VD[:-1]


@torch.no_grad()
def masked_nats(
    model: Transformer, token_BT: Tensor, document_BT: Tensor | None, masked_BT: Tensor, share_B: Tensor, chunk: int
) -> Tensor:
    """-log p of the masked tokens given the others, (B, T); exactly 0 at visible ones. Without gradient."""
    x_BTD = hidden(model, token_BT.masked_fill(masked_BT, model.vocabulary - 1), document_BT, share_B)
    nats_N = each(x_BTD[masked_BT], words_VD(model), token_BT[masked_BT], chunk)
    return nats_N.new_zeros(token_BT.shape).masked_scatter_(masked_BT, nats_N)


def antithetic(token_BT: Tensor, maskable_BT: Tensor, pair: int, num_pairs: int) -> tuple[tuple[Tensor, Tensor], ...]:
    """Two fixed random sets of tokens of each block, as (masked_BT, number masked B) each.

    The first has k tokens, the second L + 1 - k: all that the first has not, and one of its own. Over the pairs the k
    lie in strata of 1 to L, and each set is a uniform one of its size. They are made of the block's own tokens alone.
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
def bounds(
    model: Transformer, token_BT: Tensor, document_BT: Tensor | None, num_pairs: int, chunk: int
) -> tuple[Tensor, Tensor]:
    """The uniform-mask bound, estimated by pairs of masks.

    Returns:
        Each pair's estimate of every token's part of the bound, (pairs, B, T) float64, whose mean over pairs is
        unbiased; and each token's mean nats when masked, (B, T), which no weight makes noisy. A context's first token
        has 0 in both.
    """
    maskable_BT = maskable(model, token_BT, document_BT)
    num_B = maskable_BT.sum(1)
    parts = torch.zeros((num_pairs, *token_BT.shape), dtype=torch.float64, device=token_BT.device)
    total_BT, times_BT = torch.zeros_like(parts[0]), torch.zeros_like(parts[0])
    for pair in range(num_pairs):
        for masked_BT, count_B in antithetic(token_BT, maskable_BT, pair, num_pairs):
            share_B = count_B.double() / num_B.clamp(min=1)
            nats_BT = masked_nats(model, token_BT, document_BT, masked_BT, share_B, chunk).double()
            parts[pair] += nats_BT / share_B.unsqueeze(1).clamp(min=1e-9) / 2
            total_BT += nats_BT
            times_BT += masked_BT
    return parts, total_BT / times_BT.clamp(min=1)
