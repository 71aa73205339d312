"""Turn what a router was seen to do into what a RecordBuilder takes: choices in order, weights, margins, probabilities.

N decisions, S slots, K chosen slots.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from speciate.recording.router_call import RouterCall, SharesCall, Site
from speciate.recording.scores import margins, order_by, probabilities
from speciate.recording.sites import UnreadableModel
from speciate.recording.token_stream import TokenStream
from speciate.selection.record_sums import SelectorShape
from speciate.selection.routing_record import NOT_CHOSEN, Integers
from speciate.selection.tally import Array, Tally


def kept_decisions(token_N: Tensor | None, stream: TokenStream) -> Tensor:
    """Return which decisions are about real tokens, (N,).

    Args:
        token_N: index of each decision's token, negative at padding; None: there is one decision a token.
        stream: the tokens.
    """
    if token_N is None:
        return stream.real_N
    return (token_N >= 0) & stream.real_N[token_N.clamp_min(0)]


def decisions_of(
    site: Site, call: RouterCall, kept_N: Tensor, *, are_probs: bool
) -> tuple[SelectorShape, dict[str, Any]]:
    """Return what a call decided, as the arguments of `RecordBuilder.add`.

    The slots of a decision are in the order of their logits, the best first; the model may have them in any.

    Args:
        site: the router.
        call: its call.
        kept_N: decisions about real tokens.
        are_probs: whether what the router calls logits are probabilities already.

    Raises:
        UnreadableModel: nothing tells the number of slots.
    """
    if call.logits_NS is None:
        raise UnreadableModel(f"{site.path}: the experts were called without their router, so its logits are unknown")
    slot_NK, logits_NS = call.slot_NK[kept_N], call.logits_NS[kept_N].float()
    weight_NK = None if call.weight_NK is None else call.weight_NK[kept_N].float()
    scores = site.rule.scores
    if are_probs:
        logits_NS, scores = logits_NS.clamp_min(torch.finfo(torch.float32).tiny).log(), "softmax"
    decisions: dict[str, Any] = {}
    if scores is not None:
        decisions["probs_NS"] = probabilities(logits_NS, scores).cpu().numpy()
    if site.by_scores:
        decisions["margin_N"] = margins(logits_NS, slot_NK).cpu().numpy()
    if slot_NK.shape[1] > 1:
        order_NK = order_by(logits_NS.gather(1, slot_NK.clamp_min(0)), slot_NK)
        slot_NK = slot_NK.gather(1, order_NK)
        weight_NK = None if weight_NK is None else weight_NK.gather(1, order_NK)
    if weight_NK is not None:
        decisions["weight_NK"] = weight_NK.masked_fill(slot_NK < 0, torch.nan).cpu().numpy()
    shape = SelectorShape(site.path, site.layer, logits_NS.shape[1], slot_NK.shape[1])
    return shape, {"choice_NK": slot_NK.cpu().numpy(), **decisions}


@dataclass(frozen=True, eq=False)
class Shares:
    """What a selector with a null of its own decided: sums by row of the record, and slots for its sample."""

    shape: SelectorShape
    """Its `num_chosen` is the number of slots, S; `mean_chosen` has what decisions really choose."""
    row_D: Integers
    """Rows of the record."""
    tally: Tally
    """Sums by these rows."""
    decided_N: npt.NDArray[np.bool_]
    """Which of the decisions that were kept chose anything: the first query of a text may see no key."""
    choice_NS: Integers
    """Slots of each decision, the largest share first, and `NOT_CHOSEN`."""

    @property
    def mean_chosen(self) -> float:
        """The mean number of slots that a decision chooses."""
        return float((self.choice_NS[self.decided_N] != NOT_CHOSEN).sum(axis=1).mean())


def shares_of(site: Site, call: SharesCall, kept_N: Tensor, row_N: Integers) -> Shares:
    """Return what a selector with a null of its own decided.

    Args:
        site: the selector.
        call: its call.
        kept_N: decisions about real tokens.
        row_N: the record's row of each of these.
    """
    kept = kept_N.cpu().numpy()

    def floats(value_NS: Tensor) -> Array:
        whole: Array = value_NS.expand_as(call.chosen_NS).double().cpu().numpy()[kept]
        return whole

    chosen_NS, null_NS = floats(call.chosen_NS), floats(call.null_NS)
    probs_NS = np.full_like(chosen_NS, np.nan) if call.probs_NS is None else floats(call.probs_NS)
    with np.errstate(divide="ignore", invalid="ignore"):
        # 0 log 0 is 0; where the null is zero and the probability is not, the divergence is infinite
        entropy_N = -np.where(probs_NS == 0, 0.0, probs_NS * np.log(probs_NS)).sum(axis=1)
        divergence_N = -entropy_N - np.where(probs_NS == 0, 0.0, probs_NS * np.log(null_NS)).sum(axis=1)
    decided_N = chosen_NS.sum(axis=1) > 0
    row_D, group_N = np.unique(row_N[decided_N], return_inverse=True)

    def summed(value: Array) -> Array:
        sums = np.zeros((len(row_D), *value.shape[1:]))
        np.add.at(sums, group_N, value[decided_N])
        return sums

    order_NS = np.argsort(-chosen_NS, axis=1, kind="stable")
    has_share_NS = np.take_along_axis(chosen_NS, order_NS, axis=1) > 0
    num_slots = chosen_NS.shape[1]
    values = (np.ones(len(chosen_NS)), chosen_NS, probs_NS, null_NS, divergence_N, entropy_N)
    return Shares(
        shape=SelectorShape(site.path, site.layer, num_slots, num_slots),
        row_D=row_D,
        tally=Tally(*(summed(value) for value in values)),
        decided_N=decided_N,
        choice_NS=np.where(has_share_NS, order_NS, NOT_CHOSEN),
    )
