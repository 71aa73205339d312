"""Has a selector collapsed? Three rules side by side, each with the step at which it first fired, and a run's state.

rule_60_percent  some slot has more than 60 % of a selector's choices at three checks in a row (moe-emergence). There
                 a check comes every 100 steps, 1 % of its longest budget; here it comes with the run's regular
                 telemetry, on the fixed probe set and not on the training batch.
rule_3_over_e    max f > 3/E, or Gini > .5, or H(f) / ln E < .7, at one check (Kolmogorov-MoE-Architecture).
alarm            M_t >= 1/a of `alarm`: P(a healthy run ever fires) <= a. The only rule with a guarantee.

All are armed after warm-up: random initial routers exceed the thresholds of the first two (measured).

Shape suffixes: K checks, S slots.
"""

import dataclasses
import math
from typing import Literal

import numpy as np
import numpy.typing as npt

from speciate.analysis import alarm, load
from speciate.selection.tally import Array

RULES = ("rule_60_percent", "rule_3_over_e", "alarm")
State = Literal["collapsed", "specialised", "indifferent", "undecided"]

RULE_60_SHARE, RULE_60_CHECKS = 0.6, 3
RULE_3_SHARES, RULE_3_GINI, RULE_3_ENTROPY = 3.0, 0.5, 0.7
COLLAPSED_SHARES = 3.0
"""Our own limit of a finished selector, of few slots as `load.limit` has it; the published rule's stays as it is."""


@dataclasses.dataclass(frozen=True)
class Fired:
    """One rule's verdict on one selector, or on a run ('any')."""

    selector: str
    rule: str
    first_step: float
    """The step of the check at which it first fired; NaN: never."""

    @property
    def fired(self) -> bool:
        """Whether it fired at all."""
        return not math.isnan(self.first_step)


def rule_60_percent(share_KS: Array) -> npt.NDArray[np.bool_]:
    """Return whether the 60 % rule holds at each check, (K,): this one and the two before it all had a slot above 60 %."""
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


def verdicts(
    shares: dict[str, Array], steps_K: npt.NDArray[np.int64], armed_step: float, false_alarms: float
) -> list[Fired]:
    """Every rule on every selector, then on the run as a whole (selector 'any'). Nothing of a run without selectors.

    For the first two rules 'any' is the first selector that fired; for the alarm it is the run's own martingale, whose guarantee
    covers all selectors together.

    Args:
        shares: f on hard choices by selector, (K, S) each.
        steps_K: the checks' steps, upwards.
        armed_step: checks before this step count for no rule.
        false_alarms: a, the alarm's guarantee.
    """
    armed_K = steps_K >= armed_step
    steps = steps_K[armed_K]
    armed = {selector: share_KS[armed_K] for selector, share_KS in shares.items()}

    def first(held_K: npt.NDArray[np.bool_]) -> float:
        return float(steps[np.argmax(held_K)]) if held_K.any() else float("nan")

    if not shares:
        return []
    found: list[Fired] = []
    for rule, holds in (("rule_60_percent", rule_60_percent), ("rule_3_over_e", rule_3_over_e)):
        each = [Fired(selector, rule, first(holds(share_KS))) for selector, share_KS in armed.items()]
        earliest = min((one.first_step for one in each if one.fired), default=float("nan"))
        found += [*each, Fired("any", rule, earliest)]
    by_selector_LK, run_K = alarm.evidence(list(armed.values()))
    for selector, evidence_K in zip(armed, by_selector_LK, strict=True):
        found.append(Fired(selector, "alarm", first(evidence_K >= 1 / false_alarms)))
    return [*found, Fired("any", "alarm", first(run_K >= 1 / false_alarms))]


def has_collapsed(max_share_low: float, num_slots: int) -> bool:
    """Whether a finished selector has collapsed: the lower bound of its largest share exceeds 3/E (`load.limit`)."""
    return max_share_low > load.limit(COLLAPSED_SHARES, num_slots)


def state(collapsed: bool, least_q_value: float, least_excess_low: float, level: float) -> State:
    """What became of a run's selectors by the end of training, from the whole probe set.

    collapsed    some selector's largest share exceeds 3/E (of two slots .83, of three .78), by the lower bound of its
                 document bootstrap and not by eye.
                 On hard load alone: a collapsed selector can still tell domains apart by what little it sends elsewhere
                 (I(E;D) > 0), and its loss and its router entropy can look healthy.
    specialised  not collapsed; I(E;D) of some selector is significant against the document permutations, corrected over
                 all selectors of the study (q <= level); and the run's mean I(E;D) exceeds that of every control, the
                 lower bound of each paired document bootstrap above 0. Both: a frozen or hash router passes the first
                 alone, since texts of a domain look alike; and the excess alone could be one of nothing.
    indifferent  neither: by domain, it cannot be told from a selector that never learned. Controls that keep their load
                 are indifferent by definition, being the measure of it.
    undecided    it would be specialised, but the study has no control to say so, or one is missing at this seed.

    Commitment is no part of it: it is a scale of the probabilities, ln E by definition for a hash router and small for
    a top-1 router of low temperature whose hard choices are as specialised as any. It is reported beside the state.

    Args:
        collapsed: whether any selector has collapsed.
        least_q_value: smallest q-value of the run's selectors.
        least_excess_low: lower bound of the run's excess over its strongest control; NaN: a control is missing; -inf:
            the run is a control itself.
        level: largest q-value that counts as significant.
    """
    if collapsed:
        return "collapsed"
    if not least_q_value <= level or least_excess_low <= 0:
        return "indifferent"
    return "undecided" if math.isnan(least_excess_low) else "specialised"
