"""Top-k routing: each token chooses k of S slots by a router's probabilities; the selector of MoE and of its kin.

    p = softmax(l),  l = router(x);   p' the same with noise;   chosen = top-k of p' (+ a balancing bias)
    weight of a chosen slot:   k = 1: 1 + (p' - sg[p'])        straight-through: 1 forward, the gradient of p' backward
                               k > 1: p' / sum of the chosen p'

At k = 1 renormalising would give 1 with no gradient, so that the router would never learn; hence the straight-through
weight. How tokens are scored and how load is balanced are kinds; each file offers one class:

    router/<kind>.py    Router(options, place, num_slots)   a Scorer
    balance/<kind>.py   Balance(options, num_slots)         a Balancer

N tokens, D width, S slots (E experts in the papers), K chosen slots.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from speciate.kinds import Kind, component
from speciate.model.tokens import Place, Tokens
from speciate.selection.selection import Selection, Selector


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """What a router thinks of N tokens."""

    probs_NS: Tensor
    """Without noise; rows sum to one."""
    noisy_NS: Tensor
    """What the choice is made by; `probs_NS` itself where there is no noise."""
    logits_NS: Tensor | None
    """Without noise; None where nothing could learn from a loss on them."""


class Scorer(nn.Module):
    """What every router kind is: (x_ND, id_N) -> Scores."""

    def before_update(self, progress: float) -> None:
        """Called before each optimizer step; progress in [0, 1)."""


class Balancer(nn.Module):
    """What every balance kind is; this one leaves the load alone.

    `forward(probs_NS, chosen_NS)` is the weighted balancing loss, a scalar, of the probabilities that the choice was
    made by and of the choice (1/k on each of k slots).
    """

    def preference(self, probs_NS: Tensor) -> Tensor:
        """What the top-k is taken of; the probabilities stay what the weights are made of."""
        return probs_NS

    def forward(self, probs_NS: Tensor, chosen_NS: Tensor) -> Tensor:
        """No loss."""
        return probs_NS.new_zeros(())

    def after_update(self) -> None:
        """Called after each optimizer step."""


@dataclass(frozen=True, slots=True, eq=False)
class Routing:
    """Where N tokens go, and the report of it."""

    selection: Selection
    slot_NK: Tensor
    """The chosen slots of each token, best first; integer."""
    weight_NK: Tensor
    """The weight of each chosen slot's output."""


class TopK(Selector):
    """Sends each token to `top_k` of `num_slots` slots.

    Args:
        router: options of a kind of model/router.
        balance: options of a kind of model/balance.
        place: where in the model.
        num_slots: S.
        top_k: K.
        z_weight: weight of the z-loss.
    """

    def __init__(self, router: Kind, balance: Kind, place: Place, num_slots: int, top_k: int, z_weight: float) -> None:
        super().__init__()
        self.num_slots, self.top_k, self.z_weight = num_slots, top_k, z_weight
        self.scorer = component(router).Router(router, place, num_slots)
        self.balance = component(balance).Balance(balance, num_slots)

    def forward(self, x_ND: Tensor, tokens: Tokens) -> Routing:
        """Where the tokens go; x_ND in their flattened order. Not in autocast's precision, which flips near ties."""
        with torch.autocast(x_ND.device.type, enabled=False):
            scores: Scores = self.scorer(x_ND, tokens.id_BT.flatten())
            slot_NK = self.balance.preference(scores.noisy_NS.detach()).topk(self.top_k, dim=-1).indices
            chosen_NS = torch.zeros_like(scores.probs_NS).scatter_(1, slot_NK, 1 / self.top_k)
            loss = self.balance(scores.noisy_NS, chosen_NS)
            if scores.logits_NS is not None and self.z_weight:
                loss = loss + self.z_weight * z_loss(scores.logits_NS)
            selection = Selection(
                probs_NS=scores.probs_NS,
                chosen_NS=chosen_NS,
                null_NS=chosen_NS.new_full((1, self.num_slots), 1 / self.num_slots),
                token_N=tokens.index_BT.flatten(),
                loss=loss,
            )
            return Routing(selection, slot_NK, weights(scores.noisy_NS.gather(1, slot_NK)))

    def before_update(self, progress: float) -> None:
        """Lets the router anneal."""
        self.scorer.before_update(progress)

    def after_update(self) -> None:
        """Lets the balance adjust."""
        self.balance.after_update()


def weights(prob_NK: Tensor) -> Tensor:
    """The weights of the chosen slots, from their probabilities: rows sum to one, exactly so at k = 1."""
    if prob_NK.shape[1] == 1:
        return 1 + (prob_NK - prob_NK.detach())
    return prob_NK / prob_NK.sum(-1, keepdim=True)


def load_balancing_loss(probs_NS: Tensor, chosen_NS: Tensor) -> Tensor:
    """S sum_s f_s P_s, f the share of choices, P the mean probability (Fedus et al. 2021, eq. 4); 1 at uniform load.

    f is over assignments, so it sums to one at any k (chosen_NS carries 1/k). It is no measure of collapse: it can fall
    below 1, and a collapsed f with uniform P gives exactly 1. Its scope is the micro-batch.
    """
    return probs_NS.shape[1] * chosen_NS.mean(0).dot(probs_NS.mean(0))


def z_loss(logits_NS: Tensor) -> Tensor:
    """Mean of logsumexp(l)^2 (Zoph et al. 2022, eq. 5): keeps logits small; (ln S)^2 at zero logits."""
    return logits_NS.logsumexp(-1).square().mean()
