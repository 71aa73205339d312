"""Collapse rules: three side by side, each with the step at which it first fired, and the state of a finished run.

rule_60_percent  at three checks in a row some slot of some selector has more than 60 % of that selector's choices
                 (moe-emergence). As released, one counter serves all layers: layers that take turns above 60 % fire it.
                 There a check comes every 100 steps, 1 % of its longest budget, on the last training batch; here it
                 comes with the run's regular telemetry, on the fixed probe set. The verdict on a single selector is
                 the same rule on this selector alone; the released code has no such verdict.
rule_3_over_e    at one check, in some selector, max f > 3/E, or Gini > .5, or H(f) / ln E < .7
                 (Kolmogorov-MoE-Architecture).
alarm            M_t >= 1/a of `alarm`: P(a healthy run ever fires) <= a. The only rule with a guarantee.

All are armed after warm-up, because random initial routers exceed the limits of the first two (measured).

Shape suffixes: K checks, S slots.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from speciate.analysis import alarm, load
from speciate.selection.tally import Array

State = Literal["collapsed", "uneven", "specialised", "idle", "indifferent", "undecided"]
LoadState = Literal["even", "collapsed", "uneven"]

RULE_60_SHARE, RULE_60_CHECKS = 0.6, 3
RULE_3_SHARES, RULE_3_GINI, RULE_3_ENTROPY = 3.0, 0.5, 0.7
DRIFT_GREW = 2.0
"""A selector that was beyond the limits at its first check has collapsed since if its drift grew by this factor."""
ROUNDING = 1e-9
"""By so much a load must be beyond a limit: where all slots are chosen, an even load lies on it."""


@dataclasses.dataclass(frozen=True)
class RuleVerdict:
    """One rule's verdict on one selector, or on a run ('any')."""

    selector: str
    rule: str
    first_step: float
    """The step of the check at which it first fired; NaN: never."""
    checks_to_fire: float
    """The armed checks after which a total collapse of the selector (of 'any': of the one that takes longest) fires the
    rule; NaN: it cannot fire in this run."""

    @property
    def fired(self) -> bool:
        """Whether the rule fired at all."""
        return not math.isnan(self.first_step)


@dataclasses.dataclass(frozen=True, eq=False)
class History:
    """What the rules read of one selector."""

    share_KS: Array
    """f on hard choices at each check, relative to the null."""
    observed: alarm.Observations
    """The same choices by group of documents."""


def rule_60_percent(share_LKS: Sequence[Array]) -> npt.NDArray[np.bool_]:
    """Return whether the 60 % rule holds at each check, (K,), with one counter over the given selectors.

    It holds where some slot of some selector had more than 60 % at this check and at each of the two before it.
    """
    # fmax: a selector without a decision at some check (NaN) says nothing, and hides no other
    largest_K = np.fmax.reduce([share_KS.max(axis=1, initial=0) for share_KS in share_LKS])
    above_K: npt.NDArray[np.bool_] = largest_K > RULE_60_SHARE
    held_K = above_K.copy()
    for back in range(1, RULE_60_CHECKS):
        held_K[back:] &= above_K[:-back]
        held_K[:back] = False
    return held_K


def rule_3_over_e(share_LKS: Sequence[Array]) -> npt.NDArray[np.bool_]:
    """Return whether the 3/E rule holds in some of the given selectors at each check, (K,)."""
    held = [
        (share_KS.max(axis=1, initial=0) > RULE_3_SHARES / share_KS.shape[1])
        | (load.gini(share_KS) > RULE_3_GINI)
        | (np.log(load.effective_slots(share_KS)) / np.log(share_KS.shape[1]) < RULE_3_ENTROPY)
        for share_KS in share_LKS
    ]
    result: npt.NDArray[np.bool_] = np.logical_or.reduce(held)
    return result


def apply_rules(
    histories: Mapping[str, History], steps_K: npt.NDArray[np.int64], armed_step: float, false_alarms: float
) -> list[RuleVerdict]:
    """Apply every rule to every selector, then to the run as a whole (selector 'any').

    'any' is the rule as it is meant: the released rules over all layers, and the alarm whose guarantee covers all
    selectors together. A run without selectors has no verdicts.

    Args:
        histories: what was observed of each selector.
        steps_K: the steps of the checks, in ascending order.
        armed_step: checks before this step count for no rule.
        false_alarms: a, the probability of a false alarm that the alarm guarantees.
    """
    if not histories:
        return []
    armed_K = steps_K >= armed_step
    steps = steps_K[armed_K]
    share_LKS = [history.share_KS[armed_K] for history in histories.values()]
    observed = [history.observed.armed(armed_K) for history in histories.values()]

    def first(held_K: npt.NDArray[np.bool_]) -> float:
        return float(steps[np.argmax(held_K)]) if held_K.any() else float("nan")

    def total_collapse(share_KS: Array) -> Array:
        return np.tile(np.eye(share_KS.shape[1])[0], (len(steps), 1))

    def soonest(held_K: npt.NDArray[np.bool_]) -> float:
        return float(np.argmax(held_K) + 1) if held_K.any() else float("nan")

    verdicts: list[RuleVerdict] = []
    for rule, holds in (("rule_60_percent", rule_60_percent), ("rule_3_over_e", rule_3_over_e)):
        possible = [soonest(holds([total_collapse(share_KS)])) for share_KS in share_LKS]
        for selector, share_KS, least in zip(histories, share_LKS, possible, strict=True):
            verdicts.append(RuleVerdict(selector, rule, first(holds([share_KS])), least))
        verdicts.append(RuleVerdict("any", rule, first(holds(share_LKS)), float(np.max(possible))))
    by_selector_LK, run_K = alarm.log_wealth(observed)
    limit = math.log(1 / false_alarms)
    for selector, wealth_K, one in zip(histories, by_selector_LK, observed, strict=True):
        least = alarm.checks_to_fire(one, false_alarms)
        verdicts.append(RuleVerdict(selector, "alarm", first(wealth_K >= limit), least))
    of_run = [alarm.checks_to_fire(one, false_alarms, len(observed)) for one in observed]
    return [*verdicts, RuleVerdict("any", "alarm", first(run_K >= limit), float(np.max(of_run)))]


def is_beyond_limits(max_share: float, effective: float, *, max_share_limit: float, effective_limit: float) -> bool:
    """Return whether a load is too uneven by either limit (`load.max_share_limit`, `load.effective_slots_limit`).

    Of a finished model, give the lower bound of the largest share and the upper bound of the effective slots.
    """
    return max_share > max_share_limit + ROUNDING or effective < effective_limit - ROUNDING


def load_state(beyond: bool, *, learns: bool, began_beyond: bool, drift_ratio: float) -> LoadState:
    """Return the state of one selector's load at the end of training.

    even       within the limits.
    collapsed  beyond them, by learning.
    uneven     beyond them, and yet not by learning: the selector never learns (a control), or it was beyond them before
               the first update, and its drift has not doubled since. It did not collapse; it began there.

    Args:
        beyond: whether the finished selector is beyond the limits.
        learns: whether it is no control.
        began_beyond: whether it was beyond the limits at the first check.
        drift_ratio: its drift at the last check over that at the first; NaN where it had none.
    """
    if not beyond:
        return "even"
    return "uneven" if not learns or (began_beyond and drift_ratio < DRIFT_GREW) else "collapsed"


def run_state(loads: Sequence[str], least_q_value: float, least_excess_low: float, level: float, *, use: str) -> State:
    """Return the state of a run's selectors at the end of training, judged on the whole probe set.

    collapsed    some selector has collapsed (`load_state`), by a bound of its document bootstrap. Only the hard load
                 counts: a collapsed selector can still tell domains apart by what little it sends elsewhere
                 (I(E;D) > 0), and its loss and its router entropy can look healthy.
    uneven       none has collapsed, but some selector is as uneven without having learned to be.
    idle         neither, and load-matched random choice in place of the selectors' own changes the loss by less than
                 the margin: the selectors choose, and it does not matter (`effects.use_of`). Where some selectors tell
                 the domain, these are meant.
    specialised  none of these; I(E;D) of some selector is significant with documents as units, corrected over
                 all selectors of the study (q <= level); and the run's mean I(E;D) exceeds that of every control, with
                 the lower bound of each paired document bootstrap above 0. Both are needed: a frozen or hash router
                 passes the first alone, since texts of a domain look alike, and an excess alone could be one over
                 nothing. And for some selector that tells the domain, load-matched random choice costs more than the
                 margin.
    indifferent  none of these: by domain, it cannot be told from a selector that never learned. Controls that keep
                 their load are indifferent by definition, because they are the yardstick.
    undecided    it would be specialised, but the study has no control to compare with, or one is missing at this seed;
                 or the cost of random choice is on neither side of the margin, or was not measured.

    Commitment is not part of the definition. It is a scale of the probabilities: ln E by definition for a hash router,
    and small for a top-1 router of low temperature whose hard choices are as specialised as any. It is reported next to
    the state.

    Args:
        loads: the states of the selectors' loads.
        least_q_value: smallest q-value of the run's selectors.
        least_excess_low: lower bound of the run's excess over its strongest control; NaN where a control is missing;
            -inf where the run is itself a control.
        level: largest q-value that counts as significant.
        use: `used`, `idle` or `undecided`: what the selectors' choice does for the loss.
    """
    if "collapsed" in loads:
        return "collapsed"
    if "uneven" in loads:
        return "uneven"
    if use == "idle":
        return "idle"
    if not least_q_value <= level or least_excess_low <= 0:
        return "indifferent"
    return "undecided" if math.isnan(least_excess_low) or use != "used" else "specialised"
