"""Load-matched random choice: every slot keeps its load, and chance decides which token it gets.

    router        each token takes the scores of another token of the batch, so whole decisions change places
    depth         as many tokens of each block run as before, at random
    indexer       each query keeps as many keys as before, random ones among those that it sees
    importance    every token of a block has the same mask probability, their mean: as many masks as before

What it costs is what the selector's choice is worth, given how much it chooses. This is the intervention that decides
whether a selector matters.
"""

import torch
from torch import Tensor

from speciate.evaluation.overrides import Call, Intervention, permutation_within
from speciate.evaluation.rekeying import attend_by
from speciate.evaluation.rerouting import Ranking, ranking, route, scores_of, tokens_of
from speciate.evaluation.rerunning import run_tokens
from speciate.model.depth.skipper import TokenChoice, TokenRouter
from speciate.model.moe.top_k_router import Routing, TopK
from speciate.model.sparse_attention.attention import AttentionOutput, SparseAttention
from speciate.model.sparse_attention.query_chunks import AttentionInputs
from speciate.training.diffusion.adaptive_masking import AdaptiveMasker, MaskProbs
from speciate.training.diffusion.mask_probabilities import uniform_probs


def shuffled(call: Call, group_N: Tensor) -> Routing:
    """Give each token the scores of another one of its group; padding keeps its own."""
    tokens, ranked = tokens_of(call), ranking(call.selector, scores_of(call))
    group_N = group_N.where(tokens.real_BT.flatten(), -1)
    from_N = permutation_within(group_N, call.uniforms(len(group_N)))
    return route(call, Ranking(ranked.order_NS[from_N], ranked.gate_NS[from_N]))


def shuffled_tokens(call: Call) -> Routing:
    """Shuffle the scores among all tokens of the batch."""
    return shuffled(call, torch.zeros_like(tokens_of(call).id_BT).flatten())


def random_tokens(call: Call) -> TokenChoice:
    """Let random tokens of each block run, as many as before."""
    choice, tokens = call.output, call.args[1]
    block_BT = torch.arange(len(choice.run_BT), device=choice.run_BT.device).unsqueeze(1).expand_as(choice.run_BT)
    group_N = block_BT.where(tokens.real_BT, -1).flatten()
    from_N = permutation_within(group_N, call.uniforms(len(group_N)))
    return run_tokens(call, choice.run_BT.flatten()[from_N].view_as(choice.run_BT))


def random_keys(call: Call) -> AttentionOutput:
    """Attend to random keys among those that each query sees."""

    def scores(part: AttentionInputs) -> Tensor:
        return call.uniforms(len(part.query_BTNh), part.query_BTNh.shape[1], part.key_BSKh.shape[1])

    return attend_by(call, scores)


def uniform_masks(call: Call) -> MaskProbs:
    """Mask every maskable token of a block with their mean probability."""
    _, maskable_BT, _ = call.args
    probs: MaskProbs = call.output
    share_B = probs.prob_BT.sum(1) / maskable_BT.sum(1).clamp(min=1)
    prob_BT, slope_BT = uniform_probs(maskable_BT, share_B)
    return MaskProbs(probs.importance_BT, probs.logit_BT, prob_BT, slope_BT)


INTERVENTION = Intervention(
    changes={
        TopK: shuffled_tokens,
        TokenRouter: random_tokens,
        SparseAttention: random_keys,
        AdaptiveMasker: uniform_masks,
    }
)
