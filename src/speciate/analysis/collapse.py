"""Collapse rules: three side by side, each with the step at which it first fired, and the state of a finished run.

rule_60_percent  some slot has more than 60 % of a selector's choices at three checks in a row (moe-emergence). There
                 a check comes every 100 steps, 1 % of its longest budget; here it comes with the run's regular
                 telemetry, on the fixed probe set and not on the training batch.
rule_3_over_e    max f > 3/E, or Gini > .5, or H(f) / ln E < .7, at one check (Kolmogorov-MoE-Architecture).
alarm            M_t >= 1/a of `alarm`: P(a healthy run ever fires) <= a. The only rule with a guarantee.

All are armed after warm-up, because random initial routers exceed the thresholds of the first two (measured).

Shape suffixes: K checks, S slots.
"""

import dataclasses
import math
from typing import Literal

import numpy as np
import numpy.typing as npt

from speciate.analysis import alarm, load
from speciate.selection.tally import Array

State = Literal["collapsed", "specialised", "indifferent", "undecided"]

RULE_60_SHARE, RULE_60_CHECKS = 0.6, 3
RULE_3_SHARES, RULE_3_GINI, RULE_3_ENTROPY = 3.0, 0.5, 0.7
COLLAPSED_SHARES = 3.0
"""Our own limit for a finished selector, in even shares; `load.share_limit` adapts it to few slots. The published rule
is left unchanged."""


@dataclasses.dataclass(frozen=True)
class RuleVerdict:
    """One rule's verdict on one selector, or on a run ('any')."""

    selector: str
    rule: str
    first_step: float
    """The step of the check at which it first fired; NaN: never."""

    @property
    def fired(self) -> bool:
        """Whether the rule fired at all."""
        return not math.isnan(self.first_step)


def rule_60_percent(share_KS: Array) -> npt.NDArray[np.bool_]:
    """Return whether the 60 % rule holds at each check, (K,).

    It holds where some slot had more than 60 % at this check and at each of the two before it.
    """
    above_K: npt.NDArray[np.bool_] = share_KS.max(axis=1, initial=0) > RULE_60_SHARE
    held_K = above_K.copy()
    for back in range(1, RULE_60_CHECKS):
        held_K[back:] &= above_K[:-back]
        held_K[:back] = False
    return held_K


def rule_3_over_e(share_KS: Array) -> npt.NDArray[np.bool_]:
    """Return whether the 3/E rule holds at each check, (K,)."""
    num_slots = share_KS.shape[1]
    result: npt.NDArray[np.bool_] = (
        (share_KS.max(axis=1, initial=0) > RULE_3_SHARES / num_slots)
        | (load.gini(share_KS) > RULE_3_GINI)
        | (np.log(load.effective_slots(share_KS)) / np.log(num_slots) < RULE_3_ENTROPY)
    )
    return result


def apply_rules(
    shares: dict[str, Array], steps_K: npt.NDArray[np.int64], armed_step: float, false_alarms: float
) -> list[RuleVerdict]:
    """Apply every rule to every selector, then to the run as a whole (selector 'any').

    For the first two rules 'any' is the first selector that fired. For the alarm it is the run's own martingale, whose
    guarantee covers all selectors together. A run without selectors has no verdicts.

    Args:
        shares: f on hard choices by selector, (K, S) each.
        steps_K: the steps of the checks, in ascending order.
        armed_step: checks before this step count for no rule.
        false_alarms: a, the probability of a false alarm that the alarm guarantees.
    """
    armed_K = steps_K >= armed_step
    steps = steps_K[armed_K]
    armed = {selector: share_KS[armed_K] for selector, share_KS in shares.items()}

    def first(held_K: npt.NDArray[np.bool_]) -> float:
        return float(steps[np.argmax(held_K)]) if held_K.any() else float("nan")

    if not shares:
        return []
    verdicts: list[RuleVerdict] = []
    for rule, holds in (("rule_60_percent", rule_60_percent), ("rule_3_over_e", rule_3_over_e)):
        by_selector = [RuleVerdict(selector, rule, first(holds(share_KS))) for selector, share_KS in armed.items()]
        earliest = min((verdict.first_step for verdict in by_selector if verdict.fired), default=float("nan"))
        verdicts += [*by_selector, RuleVerdict("any", rule, earliest)]
    by_selector_LK, run_K = alarm.collapse_evidence(list(armed.values()))
    for selector, evidence_K in zip(armed, by_selector_LK, strict=True):
        verdicts.append(RuleVerdict(selector, "alarm", first(evidence_K >= 1 / false_alarms)))
    return [*verdicts, RuleVerdict("any", "alarm", first(run_K >= 1 / false_alarms))]


def has_collapsed(max_share_low: float, num_slots: int) -> bool:
    """Return whether a finished selector has collapsed: the lower bound of its largest share exceeds 3/E.

    For two or three slots the limit is that of `load.share_limit`.
    """
    return max_share_low > load.share_limit(COLLAPSED_SHARES, num_slots)


def run_state(collapsed: bool, least_q_value: float, least_excess_low: float, level: float) -> State:
    """Return the state of a run's selectors at the end of training, judged on the whole probe set.

    collapsed    some selector's largest share exceeds 3/E (of two slots .83, of three .78) by the lower bound of its
                 document bootstrap. Only the hard load counts: a collapsed selector can still tell domains apart by
                 what little it sends elsewhere (I(E;D) > 0), and its loss and its router entropy can look healthy.
    specialised  not collapsed; I(E;D) of some selector is significant with documents as units, corrected over
                 all selectors of the study (q <= level); and the run's mean I(E;D) exceeds that of every control, with
                 the lower bound of each paired document bootstrap above 0. Both are needed: a frozen or hash router
                 passes the first alone, since texts of a domain look alike, and an excess alone could be one over
                 nothing.
    indifferent  neither: by domain, it cannot be told from a selector that never learned. Controls that keep their load
                 are indifferent by definition, because they are the yardstick.
    undecided    it would be specialised, but the study has no control to compare with, or one is missing at this seed.

    Commitment is not part of the definition. It is a scale of the probabilities: ln E by definition for a hash router,
    and small for a top-1 router of low temperature whose hard choices are as specialised as any. It is reported next to
    the state.

    Args:
        collapsed: whether any selector has collapsed.
        least_q_value: smallest q-value of the run's selectors.
        least_excess_low: lower bound of the run's excess over its strongest control; NaN where a control is missing;
            -inf where the run is itself a control.
        level: largest q-value that counts as significant.
    """
    if collapsed:
        return "collapsed"
    if not least_q_value <= level or least_excess_low <= 0:
        return "indifferent"
    return "undecided" if math.isnan(least_excess_low) else "specialised"
