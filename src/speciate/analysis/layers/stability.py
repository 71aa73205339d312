"""When do choices settle? How alike a selector's choices of the same tokens are at two steps, corrected for chance.

    agreement  o = sum_n |A_n and B_n| / sum_n (|A_n| + |B_n|) / 2     A_n, B_n: the slots of token n at both steps
    by chance  e = sum_s (sum_n a_ns) (sum_n b_ns) / n / the same      if which token has which choice were random
    corrected  kappa = (o - e) / (1 - e)                               with one slot a token: Cohen 1960

Saturation is the agreement with the last check, the finished model's; churn is 1 - the agreement with the check before.
A collapsed selector agrees with itself whatever it does, and kappa takes that out; where both steps send every token to
the same slots, it does not exist. `churn_ratio` = 1 - kappa = churn / what chance would change.

Shape suffixes: P positions of the prefix, K checks, S slots, G groups, B draws.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from speciate.analysis import draws, statistics, tables
from speciate.analysis.draws import sum_into
from speciate.analysis.observation import ObservedSelector, Settings, Texts
from speciate.selection.tally import Array

LEAST_ROOM = 1e-9
"""Chance must leave more room than this for choices to differ, or kappa would be a quotient of rounding errors."""


@dataclass(frozen=True, eq=False)
class Pair:
    """Sums of two steps' choices over positions where both decided, by group in the last axis but that of slots."""

    shared_G: Array
    """Slots that a position has at both steps."""
    size_G: Array
    """Mean number of slots of both steps."""
    decisions_G: Array
    one_GS: Array
    """Choices by slot at the first step."""
    other_GS: Array

    def summed(self, times_BG: Array) -> "Pair":
        """Return the sums over groups, by draw, each group counted as often as a row of `times_BG` says."""
        return Pair(*(times_BG @ part for part in vars(self).values()))

    def agreement(self) -> tuple[Array, Array, Array]:
        """Return (observed, by chance, kappa) of each group; NaN where they do not exist."""
        with np.errstate(invalid="ignore", divide="ignore"):
            observed = self.shared_G / self.size_G
            by_chance = (self.one_GS * self.other_GS).sum(axis=1) / self.decisions_G / self.size_G
            room = np.where(1 - by_chance > LEAST_ROOM, 1 - by_chance, np.nan)
        return observed, by_chance, (observed - by_chance) / room


def pair_of(one_PS: npt.NDArray[np.uint8], other_PS: npt.NDArray[np.uint8], group_P: draws.Integers, size: int) -> Pair:
    """Return the sums of two steps' choices by group.

    Args:
        one_PS: 1 on each chosen slot of each position; all 0 where there was no decision.
        other_PS: the same at the other step.
        group_P: group of each position, -1 for none.
        size: number of groups.
    """
    both_P = one_PS.any(axis=1) & other_PS.any(axis=1)
    group_P = np.where(both_P, group_P, -1)
    one, other = one_PS.astype(np.float64), other_PS.astype(np.float64)
    sums = ((one * other).sum(1), (one.sum(1) + other.sum(1)) / 2, np.ones(len(group_P)), one, other)
    return Pair(*(sum_into(group_P, size, value) for value in sums))


def agreement_columns(pair: Pair, times_BG: Array, confidence: float) -> dict[str, float]:
    """Return observed agreement, that by chance, kappa, and kappa's interval from draws of groups."""
    observed, by_chance, kappa = (float(value[0]) for value in pair.summed(np.ones((1, len(pair.size_G)))).agreement())
    low = high = np.nan
    if pair.decisions_G.any():
        drawn_B = pair.summed(times_BG).agreement()[2]
        number = statistics.effective_number(pair.decisions_G)
        low, high = statistics.document_interval(drawn_B, confidence, number)
    return {"observed": observed, "by_chance": by_chance, "kappa": kappa, "low": low, "high": high}


def stability_table(observed: list[ObservedSelector], texts: Texts, settings: Settings) -> pd.DataFrame:
    """Return a row for each selector and check: agreement with the last check, and change since the one before."""
    domain_G = texts.groups.domain_G
    times_BG = draws.resample_counts(domain_G, settings.resamples, settings.seed)
    rows: list[dict[str, object]] = []
    for selector in observed:
        choices = [selector.early_choice_PS(check) for check in range(len(selector.steps_K))]
        group_P = texts.group_P[: len(choices[0])]
        for check, choice_PS in enumerate(choices):
            pairs = [
                pair_of(choice_PS, other_PS, group_P, len(domain_G)) for other_PS in (choices[-1], choices[check - 1])
            ]
            last, before = (agreement_columns(pair, times_BG, settings.confidence) for pair in pairs)
            if check == 0:
                before = dict.fromkeys(before, np.nan)
            rows.append(
                {
                    "selector": selector.path,
                    "layer": selector.layer,
                    "step": int(selector.steps_K[check]),
                    "previous_step": int(selector.steps_K[check - 1]) if check else -1,
                    "decisions": int(pairs[0].decisions_G.sum()),
                    "saturation": last["observed"],
                    "saturation_by_chance": last["by_chance"],
                    **{f"saturation_{name}": last[name] for name in ("kappa", "low", "high")},
                    "churn": 1 - before["observed"],
                    "churn_by_chance": 1 - before["by_chance"],
                    "churn_ratio": 1 - before["kappa"],
                    "churn_low": 1 - before["high"],
                    "churn_high": 1 - before["low"],
                }
            )
    return pd.DataFrame(
        rows, columns=[name for name in tables.COLUMNS["stability"] if name not in ("ablation", "seed")]
    )
