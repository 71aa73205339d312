"""The collapse alarm of a training that runs now: `analysis.alarm`, check by check.

The alarm of a finished run divides the evidence of its checks by their number K, so K must be known before the first
check. Where it is not, check t has the weight 1 / (t (t + 1)) instead of 1 / K:

    M_t = w_1 e_1 + ... + w_t e_t,   sum of all w <= 1,   so E M_t <= 1 for healthy runs, and P(M_t >= 1/a ever) <= a.

The guarantee is about the documents on which choices are counted: they are independent draws of the texts that the
alarm is about, and no choice that is counted was learned from them.

Shape suffixes: L selectors, S slots.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.special import logsumexp

from speciate.analysis import alarm, load
from speciate.selection.tally import Array
from speciate.watching.counts import PREFIX, CheckCounts, SelectorCounts, WatchedSelector, unique_names

NEVER = -1
"""Stands where a share has not been above its limit."""


@dataclass(frozen=True)
class Alarm:
    """An alarm that was raised: where, since when, and on what evidence."""

    step: int
    """The step at whose check it was raised."""
    path: str
    """Module path of the selector with most evidence."""
    layer: int
    """Number of its layer; -1 where it has none."""
    expert: int
    """The expert that takes most of its choices."""
    since: int
    """First step of the checks at which that expert's share has been above the limit, without a break until now."""
    share: float
    """That expert's share of the choices of the mean document at the step of the alarm."""
    limit: float
    """Largest share that a selector of its size has without having collapsed."""
    false_alarms: float
    """Probability that a healthy run ever raises the alarm, at most."""
    others: tuple[str, ...] = ()
    """Further selectors in which some expert is above its limit."""

    @property
    def sentence(self) -> str:
        """Return what happened, for a person."""
        where = f"layer {self.layer} ({self.path})" if self.layer >= 0 else self.path
        others = f"; above it, too: {', '.join(self.others)}" if self.others else ""
        return (
            f"routing has collapsed in {where}: expert {self.expert} takes {self.share:.0%} of the choices, and has"
            f" taken more than the limit of {self.limit:.0%} since step {self.since} (alarm at step {self.step};"
            f" a healthy run raises it with a probability of at most {self.false_alarms:g}){others}"
        )


class CollapseAlarm:
    """Evidence against the health of a model's selectors, added up over the checks of one training."""

    def __init__(self, false_alarms: float, num_checks: int | None) -> None:
        """Prepare the alarm.

        Args:
            false_alarms: a, the probability with which a healthy run may ever raise the alarm.
            num_checks: K, the number of checks that may raise it; None: unknown, and then later checks weigh less.

        Raises:
            ValueError: a is not between 0 and 1, or there are fewer than one check.
        """
        if not 0 < false_alarms < 1:
            raise ValueError(f"false_alarms: is a probability between 0 and 1, not {false_alarms:g}")
        if num_checks is not None and num_checks < 1:
            raise ValueError(f"the alarm needs at least one check, not {num_checks}")
        self.false_alarms, self.num_checks = false_alarms, num_checks
        self.checks = 0
        """Checks that counted so far."""
        self.shapes: tuple[WatchedSelector, ...] = ()
        self.log_wealth_L: Array = np.zeros(0)
        """ln M of each selector."""
        self.above_since: list[list[int]] = []
        """For each selector and slot, the first step of the unbroken checks at which it was above its limit."""
        self.raised: Alarm | None = None

    @property
    def used_up(self) -> bool:
        """Return whether all planned checks have been made, so that further ones say nothing."""
        return self.num_checks is not None and self.checks >= self.num_checks

    @property
    def log_wealth(self) -> float:
        """Return ln M of the run, the mean of its selectors' M."""
        if not self.checks:
            return -math.inf
        return float(logsumexp(self.log_wealth_L)) - math.log(len(self.shapes))

    def add(self, step: int, counts: CheckCounts, *, is_armed: bool = True) -> Alarm | None:
        """Add one check; return the alarm if this check raises it.

        Args:
            step: the number of updates that were made.
            counts: what was chosen; always by the same selectors.
            is_armed: whether the check counts; of one that does not, only what is above its limit is noted.

        Raises:
            ValueError: the selectors are not those of the first check.
        """
        self._follow(step, counts)
        if self.used_up or not is_armed:
            return None
        self.checks += 1
        weight = 1 / self.num_checks if self.num_checks else 1 / (self.checks * (self.checks + 1))
        evidence = [alarm.check_evidence(one.observations(counts.domain_G))[0] for one in counts.selectors]
        self.log_wealth_L = np.logaddexp(self.log_wealth_L, np.array(evidence) + math.log(weight))
        if self.raised is not None or self.log_wealth < math.log(1 / self.false_alarms):
            return None
        self.raised = self._describe(step, counts)
        return self.raised

    def values(self) -> dict[str, float]:
        """Return ln M of the run and of each selector under their logged names."""
        if not self.checks:
            return {}
        each = dict(zip(unique_names(list(self.shapes)), self.log_wealth_L.tolist(), strict=True))
        return {f"{PREFIX}/wealth/{name}": value for name, value in {"run": self.log_wealth, **each}.items()}

    def checks_to_fire(self, counts: CheckCounts) -> float:
        """Return after how many checks a total collapse of one selector raises the alarm; NaN: it never could.

        That is of the selector that takes longest, from the first check on.
        """
        longest = 1.0
        for one in counts.selectors:
            # the weights of the checks so far must reach this share of 1
            share = math.exp(
                min(1.0, math.log(len(counts.selectors) / self.false_alarms) - _collapse_evidence(one, counts))
            )
            if self.num_checks is None:
                checks = math.ceil(share / (1 - share) - 1e-9) if share < 1 else math.nan  # n / (n + 1)
            else:
                checks = math.ceil(share * self.num_checks - 1e-9) if share <= 1 else math.nan  # n / K
            longest = checks if not checks <= longest else longest
        return longest

    def _follow(self, step: int, counts: CheckCounts) -> None:
        """Note since when each slot is above its limit."""
        shapes = tuple(one.shape for one in counts.selectors)
        if not self.shapes:
            self.shapes, self.log_wealth_L = shapes, np.full(len(shapes), -np.inf)
            self.above_since = [[NEVER] * shape.num_slots for shape in shapes]
        if shapes != self.shapes:
            raise ValueError(f"the selectors are not those of the first check: {shapes} and {self.shapes}")
        for since, one in zip(self.above_since, counts.selectors, strict=True):
            above_S = one.mean_share(counts.domain_G) > one.shape.limit
            for slot, above in enumerate(above_S.tolist()):
                since[slot] = NEVER if not above else step if since[slot] == NEVER else since[slot]

    def _describe(self, step: int, counts: CheckCounts) -> Alarm:
        worst = int(np.argmax(self.log_wealth_L))
        share_S = np.nan_to_num(counts.selectors[worst].mean_share(counts.domain_G))
        expert = int(np.argmax(share_S))
        shape, since = self.shapes[worst], self.above_since[worst][expert]
        above = [max(slots) != NEVER for slots in self.above_since]
        others = [other.path for place, other in enumerate(self.shapes) if above[place] and place != worst]
        return Alarm(
            step=step,
            path=shape.path,
            layer=shape.layer,
            expert=expert,
            since=step if since == NEVER else since,
            share=float(share_S[expert]),
            limit=shape.limit,
            false_alarms=self.false_alarms,
            others=tuple(others),
        )

    def state_dict(self) -> dict[str, Any]:
        """Return everything in plain numbers, lists and strings, which JSON and torch.save keep exactly."""
        return {
            "false_alarms": self.false_alarms,
            "num_checks": self.num_checks,
            "checks": self.checks,
            "selectors": [asdict(shape) for shape in self.shapes],
            "log_wealth": [value if math.isfinite(value) else None for value in self.log_wealth_L.tolist()],
            "above_since": [list(slots) for slots in self.above_since],
            "raised": None if self.raised is None else {**asdict(self.raised), "others": list(self.raised.others)},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the state of an alarm with the same plan.

        Raises:
            ValueError: it had another plan, by which its evidence was weighed; the message names the difference.
        """
        for name, here in (("false_alarms", self.false_alarms), ("num_checks", self.num_checks)):
            if state[name] != here:
                raise ValueError(
                    f"the saved watch has {name} {state[name]}, and this one {here}: they must be the same"
                )
        self.checks = int(state["checks"])
        self.shapes = tuple(WatchedSelector(**shape) for shape in state["selectors"])
        self.log_wealth_L = np.array(
            [-np.inf if value is None else value for value in state["log_wealth"]], dtype=float
        )
        self.above_since = [list(map(int, slots)) for slots in state["above_since"]]
        raised = state["raised"]
        self.raised = None if raised is None else Alarm(**{**raised, "others": tuple(raised["others"])})


def _collapse_evidence(one: SelectorCounts, counts: CheckCounts) -> float:
    """Return ln e of a check at which each document gives everything to one slot, or 1/k to each of the same k.

    Where the null is uneven, the slot is the one with the least evidence.
    """
    observed = one.observations(counts.domain_G)
    present_G, num_slots = one.chosen_GS.sum(axis=1) > 0, one.shape.num_slots
    chosen = min(max(1, round(one.shape.num_chosen)), num_slots)
    slots = [0] if load.is_even(one.null_S) else np.nonzero(load.null_scale(one.null_S))[0].tolist()
    found = [math.inf]
    for slot in slots:
        share_GS = np.zeros(one.chosen_GS.shape)
        share_GS[:, slot : slot + chosen] = 1 / chosen
        found.append(float(alarm.log_evidence(share_GS[None], present_G[None], observed)[0]))
    return min(found)
