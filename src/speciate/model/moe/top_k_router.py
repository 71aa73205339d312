"""The top-k router of mixture-of-experts layers: a router scores S slots for each token, a choice picks some.

    p = probabilities of a token's slots;   p' = p with noise;   g' = the gates, p' unless a router says otherwise
    chosen by g' (+ a balancing bias);   weights made of the chosen g'

How tokens are scored, how slots are chosen and how load is balanced are components; each file offers one class:

    router/<kind>.py    Router(options, context, num_slots)    a Scorer
    choice/<kind>.py    Choose(options, context, num_slots, top_k)    (order_NS, gate_NS, tokens) -> Chosen
    balance/<kind>.py   Balance(options, num_slots)            a Balancer

N tokens, D width, S slots (E experts in the papers), K slots of a token.
"""

import math
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from speciate.config.components import options_of
from speciate.config.contracts.model import BalanceOptions, ChoiceOptions, RouterOptions
from speciate.model.token_batch import BuildContext, TokenBatch
from speciate.selection.metrics import is_collecting, record_metric
from speciate.selection.selection import Selection, Selector

ROUNDING = 1e-9
"""Less than any fraction of a token, and more than the rounding error of a product such as 1.1 x 10."""


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """A router's scores of N tokens."""

    probs_NS: Tensor
    """Probabilities without noise; rows sum to one."""
    noisy_NS: Tensor
    """Probabilities with noise, from which a balancing loss is made; `probs_NS` itself without noise."""
    logits_NS: Tensor | None
    """Logits without noise; None if nothing could learn from a loss on them."""
    gate_NS: Tensor | None = None
    """Gates, from which weights are made; None: `noisy_NS`."""
    order_NS: Tensor | None = None
    """Scores by which slots are chosen; None: the gates."""
    matrix_SD: Tensor | None = None
    """The learned matrix whose product gives the logits, a row a slot; None if there is none."""


class Scorer(nn.Module):
    """Base of every router kind: (x_ND, tokens) -> Scores, N tokens in their flattened order."""

    def before_update(self, progress: float) -> None:
        """Prepare the next optimizer step; `progress` is the share of the training done, in [0, 1)."""


class Balancer(nn.Module):
    """Base of every balance kind; this one does nothing.

    `forward(scores, chosen_NS, tokens)` returns the weighted balancing loss, a scalar, of the scores and of the choice
    made from them (1/k on each of k slots).
    """

    def adjust_scores(self, order_NS: Tensor) -> Tensor:
        """Return the scores by which slots are chosen; the weights stay the router's."""
        return order_NS

    def forward(self, scores: Scores, chosen_NS: Tensor, tokens: TokenBatch) -> Tensor:
        """Return the weighted balancing loss, a scalar; here 0."""
        return scores.noisy_NS.new_zeros(())

    def after_update(self) -> None:
        """Update the balancing after an optimizer step."""

    def reset(self) -> None:
        """Remove every effect of the balancing, before each optimizer step for which it is switched off."""


@dataclass(frozen=True, slots=True, eq=False)
class Chosen:
    """The slots that N tokens use."""

    slot_NK: Tensor
    """Slots of each token, integer; best first where the tokens choose."""
    weight_NK: Tensor
    """The weight of each slot's output."""
    chosen_NS: Tensor
    """1/k on each of a token's k slots; a row of zeros for a token without any."""
    kept_NK: Tensor | None = None
    """Which of `slot_NK` are used, boolean; None: all."""
    served_N: Tensor | None = None
    """Which tokens a decision was made about, boolean; None: all."""


@dataclass(frozen=True, slots=True, eq=False)
class Routing:
    """Where N tokens go, and the Selection that reports it."""

    selection: Selection
    slot_NK: Tensor
    """The slots of each token, integer; best first where the tokens choose."""
    weight_NK: Tensor
    """The weight of each slot's output."""
    kept_NK: Tensor | None = None
    """Which of `slot_NK` are used, boolean; None: all."""


class TopK(Selector):
    """Sends each token to `top_k` of `num_slots` slots, or to that many on average.

    Args:
        router: options of a kind of model/moe/router.
        balance: options of a kind of model/moe/balance.
        context: the model and the layer.
        num_slots: S.
        top_k: K.
        z_weight: weight of the z-loss.
        choice: options of a kind of model/moe/choice; None: each token takes its best slots.
        balanced: shares of the training at which load balancing starts and ends, a pair for each time it is on.
    """

    def __init__(
        self,
        router: RouterOptions,
        balance: BalanceOptions,
        context: BuildContext,
        num_slots: int,
        *,
        top_k: int,
        z_weight: float,
        choice: ChoiceOptions | None = None,
        balanced: tuple[tuple[float, float], ...] = ((0.0, 1.0),),
    ) -> None:
        super().__init__()
        self.num_slots, self.top_k, self.z_weight, self.balanced = num_slots, top_k, z_weight, balanced
        if choice is None:
            choice = cast(ChoiceOptions, options_of("model/moe/choice", "token")(kind="token"))
        self.scorer = router.component().Router(router, context, num_slots)
        self.choice = choice.component().Choose(choice, context, num_slots, top_k)
        self.balance = balance.component().Balance(balance, num_slots)
        self.balancing = self._is_balanced(0.0)
        """Whether load balancing is on now."""
        self.unbalanced = Balancer()

    def forward(self, x_ND: Tensor, tokens: TokenBatch) -> Routing:
        """Route the tokens; x_ND is in their flattened order. Autocast is off, as its precision flips near ties."""
        with torch.autocast(x_ND.device.type, enabled=False):
            scores: Scores = self.scorer(x_ND, tokens)
            gate_NS = scores.noisy_NS if scores.gate_NS is None else scores.gate_NS
            order_NS = gate_NS.detach() if scores.order_NS is None else scores.order_NS
            chosen: Chosen = self.choice(self.balance.adjust_scores(order_NS), gate_NS, tokens)
            loss: Tensor = (self.balance if self.balancing else self.unbalanced)(scores, chosen.chosen_NS, tokens)
            if scores.logits_NS is not None and self.z_weight:
                loss = loss + self.z_weight * z_loss(scores.logits_NS, tokens)
            if is_collecting() and self.top_k < self.num_slots:
                record_margins(self, scores, tokens)
            token_N = tokens.index_BT.flatten()
            selection = Selection(
                probs_NS=scores.probs_NS,
                chosen_NS=chosen.chosen_NS,
                null_NS=chosen.chosen_NS.new_full((1, self.num_slots), 1 / self.num_slots),
                token_N=token_N if chosen.served_N is None else token_N.where(chosen.served_N, -1),
                loss=loss,
            )
            return Routing(selection, chosen.slot_NK, chosen.weight_NK, chosen.kept_NK)

    def before_update(self, progress: float) -> None:
        """Let the router anneal its noise, and switch the balancing on or off."""
        self.scorer.before_update(progress)
        self.balancing = self._is_balanced(progress)
        if not self.balancing:
            self.balance.reset()

    def after_update(self) -> None:
        """Update the balancing."""
        if self.balancing:
            self.balance.after_update()

    def _is_balanced(self, progress: float) -> bool:
        """Tell whether load balancing is on at this share of the training."""
        return any(start <= progress < end for start, end in self.balanced)


def normalised_weights(prob_NK: Tensor) -> Tensor:
    """Return the weights of the chosen slots, from their probabilities; rows sum to one, exactly so at k = 1.

    At k = 1 renormalising would give 1 without a gradient, and the router would never learn. Hence straight through:
    1 + (p - sg[p]), 1 in the forward pass and the gradient of p in the backward pass.
    """
    if prob_NK.shape[1] == 1:
        return 1 + (prob_NK - prob_NK.detach())
    return prob_NK / prob_NK.sum(-1, keepdim=True)


def record_margins(router: TopK, scores: Scores, tokens: TokenBatch) -> None:
    """Record how far each token's last chosen slot is ahead of the first that is not, in probability and in logits.

    Without logits that learn, the logits are the logs of the probabilities; a probability of 0 has none.
    """
    real_N, best = tokens.real_BT.flatten(), router.top_k + 1
    probs_NM = scores.probs_NS[real_N].topk(best, dim=-1).values
    record_metric(router, "routing_margin", probs_NM[:, -2] - probs_NM[:, -1])
    logits_NS = scores.probs_NS.log() if scores.logits_NS is None else scores.logits_NS
    logits_NM = logits_NS[real_N].topk(best, dim=-1).values
    logits_NM = logits_NM[logits_NM[:, -1] > -torch.inf]
    record_metric(router, "logit_margin", logits_NM[:, -2] - logits_NM[:, -1])


def load_balancing_loss(probs_NS: Tensor, chosen_NS: Tensor, tokens: TokenBatch | None = None) -> Tensor:
    """Return S sum_s f_s P_s, f the share of choices, P the mean probability (Fedus et al. 2021, eq. 4).

    It is 1 at uniform load. f is over assignments, so it sums to one at any k (chosen_NS holds 1/k). It is no measure
    of collapse: it can fall below 1, and a collapsed f with uniform P gives exactly 1. Padding among `tokens` is left
    out; None: there is none.
    """
    if tokens is None:
        return probs_NS.shape[1] * chosen_NS.mean(0).dot(probs_NS.mean(0))
    return probs_NS.shape[1] * tokens.mean(chosen_NS).dot(tokens.mean(probs_NS))


def z_loss(logits_NS: Tensor, tokens: TokenBatch | None = None) -> Tensor:
    """Return the mean of logsumexp(l)^2, which keeps logits small (Zoph et al. 2022, eq. 5); (ln S)^2 at l = 0.

    Padding among `tokens` is left out; None: there is none.
    """
    square_N = logits_NS.logsumexp(-1).square()
    return square_N.mean() if tokens is None or not tokens.padded else tokens.mean(square_N.unsqueeze(1)).squeeze(0)


def slot_capacity(num_tokens: int, num_slots: int, top_k: int, factor: float) -> int:
    """Return a slot's capacity: `factor` times its even share of `num_tokens` tokens' choices, rounded up, at most all.

    A `factor` of 1 fits a perfectly even load exactly.
    """
    return min(num_tokens, math.ceil(factor * num_tokens * top_k / num_slots - ROUNDING))
