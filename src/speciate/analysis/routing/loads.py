"""How one selector spreads its choices, with intervals over documents: columns of table `layers`, rows of `experts`.

Shape suffixes: B draws, G groups, S slots (experts).
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from scipy.special import betaincinv

from speciate.analysis import load, statistics
from speciate.analysis.observation import shares_against_null
from speciate.analysis.routing.grouping import DocumentGroups
from speciate.selection.routing_record import SelectorRecord
from speciate.selection.tally import Array, Tally

NAN = float("nan")
FEW_TOKENS = 0.01
"""An expert that at most this share of the tokens chooses moves few of them when it is removed."""
RARE_CHOICES = 5
"""Effective choices of an expert below which a bootstrap does not bound its share."""
COMMON_CHOICES = 50
"""Tokens that must have chosen an expert for its spread over documents to be known."""


@dataclass(frozen=True, eq=False)
class GroupedSelector:
    """One selector's sums by group of documents."""

    path: str
    layer: int
    num_chosen: float
    tally: Tally
    has_probs: bool
    first_S: Array | None

    @property
    def num_slots(self) -> int:
        return int(self.tally.chosen_GS.shape[1])

    @property
    def decisions(self) -> float:
        return float(self.tally.decisions_G.sum())

    @property
    def limit_chosen(self) -> float:
        """Return the k of the limits of collapse: 1 where the null is uneven, so that a share has no bound but 1."""
        null_S = self.tally.null_GS.sum(axis=0)
        return self.num_chosen if load.is_even(null_S / null_S.sum()) else 1.0

    @cached_property
    def has_even_null(self) -> bool:
        """Whether an unlearned selector would spread the choices of every group evenly."""
        null_GS = self.tally.null_GS
        return bool(np.allclose(null_GS, null_GS[:, :1], rtol=1e-9, atol=0))

    def shares(self, times_BG: Array) -> Array:
        """Return the shares of the choices against the null's in each draw of groups, (B, S)."""
        chosen_BS = times_BG @ self.tally.chosen_GS
        return (
            load.shares(chosen_BS)
            if self.has_even_null
            else shares_against_null(chosen_BS, times_BG @ self.tally.null_GS)
        )

    @cached_property
    def share_S(self) -> Array:
        result: Array = self.shares(np.ones((1, len(self.tally.decisions_G))))[0]
        return result


def group_selector(selector: SelectorRecord, groups: DocumentGroups) -> GroupedSelector:
    """Sum a selector's record over the rows of each group."""
    parts = (groups.sum(np.asarray(value, dtype=np.float64)) for value in vars(selector.tally).values())
    first_S = None if selector.first_GS is None else selector.first_GS.sum(axis=0)
    return GroupedSelector(
        selector.path, selector.layer, float(selector.num_chosen), Tally(*parts), selector.has_probs, first_S
    )


@dataclass(frozen=True, eq=False)
class Spread:
    """How a selector's shares vary over documents."""

    share_BS: Array | None
    """Draws of the document bootstrap; None where there are no two documents."""
    groups: float
    """Number of groups that the bootstrap is worth."""
    effective_tokens: float
    """Number of independent tokens that are worth as much as those of these documents."""


def spread_of(selector: GroupedSelector, groups: DocumentGroups) -> Spread:
    """Return how a selector's shares vary over documents."""
    stratum_G = groups.load_strata()
    degrees = groups.degrees(selector.tally.decisions_G, stratum_G)
    share_BS = selector.shares(groups.resamples(stratum_G)) if degrees > 1 else None
    return Spread(share_BS, degrees, effective_tokens(selector))


def effective_tokens(selector: GroupedSelector) -> float:
    """Return n / deff, with the design effect of the expert that clusters most: n where no token knows its document.

    deff = var over documents / var of as many independent tokens (Kish 1965), at least 1, and at most what leaves one
    token for each document: a document whose tokens all choose alike counts as one.
    """
    decisions_G = selector.tally.decisions_G
    kept_G = decisions_G > 0
    size_G, total = decisions_G[kept_G], selector.decisions
    if len(size_G) < 2:
        return total
    took_GS = selector.tally.chosen_GS[kept_G] * selector.num_chosen
    share_S = took_GS.sum(axis=0) / total
    common_S = (share_S * total >= COMMON_CHOICES) & ((1 - share_S) * total >= COMMON_CHOICES)
    if not common_S.any():
        return total
    squared_S = ((took_GS - size_G[:, None] * share_S) ** 2).sum(axis=0) * len(size_G) / (len(size_G) - 1)
    effect = float((squared_S[common_S] / (total * share_S * (1 - share_S))[common_S]).max())
    return min(total, max(total / max(effect, 1.0), statistics.effective_number(size_G)))


def share_upper(share: Array, num_chosen: float, tokens: float, confidence: float) -> Array:
    """Return the one-sided upper bound (Clopper & Pearson 1934) of shares that `tokens` independent tokens allow."""
    took = np.minimum(share * num_chosen * tokens, tokens)
    upper = np.where(took >= tokens, 1.0, betaincinv(took + 1, np.maximum(tokens - took, 1e-9), confidence))
    result: Array = upper / max(num_chosen, 1.0)
    return result


def load_columns(selector: GroupedSelector, spread: Spread, confidence: float) -> dict[str, float]:
    """Return the columns of table `layers` about the load."""
    share_S, size = selector.share_S, (selector.num_slots, selector.limit_chosen)
    tail = statistics.expanded_tail(confidence, spread.groups)
    low = high = effective_high = NAN
    if spread.share_BS is not None and not math.isnan(tail):
        of_each = statistics.expanded_tail(1 - (1 - confidence) / selector.num_slots, spread.groups)
        low, high = load.largest_share_bounds(spread.share_BS, of_each, tail)
        effective_high = load.effective_slots_upper(share_S, spread.share_BS, tail)
    dead = share_upper(np.zeros(1), selector.num_chosen, spread.effective_tokens, confidence)
    return {
        "decisions": selector.decisions,
        "max_share": float(share_S.max()),
        "max_share_low": low,
        "max_share_high": high,
        "max_share_limit": load.max_share_limit(*size),
        "max_vio": float(load.max_violation(share_S)),
        "noise_floor": float(load.noise_floor(selector.num_slots, selector.decisions, selector.num_chosen)),
        "cv": math.sqrt(float(load.cv_squared(share_S))),
        "gini": float(load.gini(share_S)),
        "effective_experts": float(load.effective_slots(share_S)),
        "effective_experts_high": effective_high,
        "effective_experts_limit": load.effective_slots_limit(*size),
        "dead_experts": float((selector.tally.chosen_GS.sum(axis=0) == 0).sum()),
        "dead_share_high": float(dead[0]),
        **_commitment_columns(selector),
    }


def _commitment_columns(selector: GroupedSelector) -> dict[str, float]:
    if not selector.has_probs or not selector.decisions:
        return dict.fromkeys(("commitment_nats", "drift_nats", "information_nats"), NAN)
    found = selector.tally.commitment()
    return {
        "commitment_nats": found.committed,
        "drift_nats": found.drift,
        "information_nats": found.information,
    }


def experts_rows(selector: GroupedSelector, spread: Spread, confidence: float) -> pd.DataFrame:
    """Return rows of table `experts`: the load of each expert, with its interval, and whether it may be removed."""
    chosen_S = selector.tally.chosen_GS.sum(axis=0)
    share_S = selector.share_S
    low_S = high_S = np.full(selector.num_slots, np.nan)
    tail = statistics.expanded_tail(confidence, spread.groups)
    if spread.share_BS is not None and not math.isnan(tail):
        low_S, high_S = np.quantile(spread.share_BS, [tail, 1 - tail], axis=0)
    upper_S = share_upper(share_S, selector.num_chosen, spread.effective_tokens, confidence)
    # a bootstrap cannot draw what no document has: the few choices of a rare expert have a bound of their own
    rare_S = share_S * selector.num_chosen * spread.effective_tokens < RARE_CHOICES
    high_S = np.where(rare_S, np.fmax(high_S, upper_S), high_S)
    probability_S = np.full(selector.num_slots, np.nan)
    if selector.has_probs and selector.decisions:
        probability_S = selector.tally.probs_GS.sum(axis=0) / selector.decisions
    bound_S = np.where(np.isnan(high_S), upper_S, high_S)
    few = min(load.DEAD_BELOW / selector.num_slots, FEW_TOKENS / max(selector.num_chosen, 1.0))
    return pd.DataFrame(
        {
            "expert": np.arange(selector.num_slots),
            "share": share_S,
            "share_low": low_S,
            "share_high": high_S,
            "first_share": load.shares(selector.first_S) if selector.first_S is not None else np.nan,
            "probability": probability_S,
            "is_dead": chosen_S == 0,
            "removable": bound_S <= few,
        }
    )
