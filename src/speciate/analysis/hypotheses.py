"""Verdicts on a study's hypotheses, each by the interval of its test; a seed is one observation."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from speciate.analysis import statistics
from speciate.analysis.measurements import MEASURED_PREFIX
from speciate.analysis.statistics import Interval
from speciate.config.contracts.statistics import BY_NAME, RULES, TYPE_SHARE
from speciate.selection.tally import Array

NAN = float("nan")


def hypotheses_table(
    runs: pd.DataFrame, hypotheses: Iterable[dict[str, Any]], seeds: tuple[int, ...], confidence: float
) -> pd.DataFrame:
    """Return a row for each hypothesis: its verdict, as `statistics.judge` defines it, and the interval behind it.

    `difference` is what is compared with the margin: arm minus reference, mean or share minus `value`, or the mean
    slope.

    Args:
        runs: table `runs` of the study, with the measured statistics.
        hypotheses: the fields of `config.hypothesis.Hypothesis` and the name, as written before the runs.
        seeds: seeds of the study; a seed that lacks a run of the hypothesis is missing.
        confidence: level of the interval that decides greater and less; equivalent takes 2 confidence - 1.

    Raises:
        ValueError: a statistic is not a number of table `runs`, or not a correlation where it should be.
    """
    rows: list[dict[str, Any]] = []
    table = runs.join(fired_statistics(runs)).set_index(["ablation", "seed"]).select_dtypes("number")
    for hypothesis in hypotheses:
        name, statistic = hypothesis["name"], hypothesis["statistic"]
        if statistic.startswith(MEASURED_PREFIX) and statistic not in table and not len(runs):
            table[statistic] = NAN  # every run failed, so nothing was measured
        if statistic not in table:
            raise ValueError(f"hypotheses.{name}: statistic: nothing in this study is called {statistic}")
        value = table[statistic]
        if hypothesis["scale"] == "fisher_z":
            value = fisher_z(value, f"hypotheses.{name}: scale")
        level = statistics.interval_confidence(hypothesis["direction"], confidence)
        interval = TESTS[hypothesis["test"]](value, hypothesis, seeds, level)
        rows.append(
            {
                **{column: hypothesis[column] for column in SAID},
                # table columns have one type: nothing is an empty text, or NaN
                "reference": hypothesis["reference"] or "",
                "value": NAN if hypothesis["value"] is None else hypothesis["value"],
                "counts_if": counts_if(hypothesis),
                "over": ", ".join(
                    f"{' - '.join(filter(None, [arm, hypothesis['minus'].get(arm)]))} = {number:g}"
                    for arm, number in _in_order(hypothesis["over"])
                ),
                "num_seeds": interval.num_pairs,
                "missing": len(seeds) - interval.num_pairs,
                "difference": interval.estimate,
                "low": interval.low,
                "high": interval.high,
                "confidence": level,
                "verdict": statistics.judge(
                    interval.low, interval.high, hypothesis["direction"], float(hypothesis["margin"])
                ),
            }
        )
    return pd.DataFrame(rows)


def fired_statistics(runs: pd.DataFrame) -> pd.DataFrame:
    """Return columns `fired.<rule>`: 1 if the rule fired in the run, 0 if not, NaN for a run without selectors."""
    rules = [rule for rule in RULES if f"{rule}_step" in runs]
    fired = {f"fired.{rule}": runs[f"{rule}_step"].notna().astype("float64") for rule in rules}
    return pd.DataFrame(fired, index=runs.index).where(runs["num_selectors"] > 0) if rules else pd.DataFrame(fired)


SAID = ("name", "statement", "statistic", "test", "arm", "direction", "margin", "per", "scale")
"""Columns that repeat what the study file says."""


def counts_if(hypothesis: dict[str, Any]) -> str:
    """Return the condition by which a run counts in a proportion; empty for another test."""
    if hypothesis["above"] is not None:
        return f"> {hypothesis['above']:g}"
    return "" if hypothesis["below"] is None else f"< {hypothesis['below']:g}"


def fisher_z(value: pd.Series, where: str) -> pd.Series:
    """Return artanh of correlations (Fisher 1915); NaN for one of exactly 1 or -1.

    Raises:
        ValueError: a value is beyond -1 or 1.
    """
    if (value.abs() > 1).any():
        raise ValueError(f"{where}: fisher_z is for correlations, and a value is {value[value.abs() > 1].iloc[0]:g}")
    return np.arctanh(value.where(value.abs() < 1))


def of_arm(value: pd.Series, arm: str, seeds: tuple[int, ...]) -> Array:
    """Return an arm's values by seed; NaN where there is none."""
    return np.array([value.get((arm, seed), NAN) for seed in seeds], dtype=np.float64)


def by_difference(value: pd.Series, hypothesis: dict[str, Any], seeds: tuple[int, ...], level: float) -> Interval:
    """Return the paired t interval of arm minus reference."""
    arm_P, reference_P = (of_arm(value, hypothesis[name], seeds) for name in ("arm", "reference"))
    return statistics.paired_t(arm_P - reference_P, level)


def by_value(value: pd.Series, hypothesis: dict[str, Any], seeds: tuple[int, ...], level: float) -> Interval:
    """Return the t interval of the arm's mean minus `value`, on Fisher's z if asked.

    The interval of a share is cut to what a share can be, which leaves its coverage as it is.
    """
    number = float(hypothesis["value"])
    number = float(np.arctanh(number)) if hypothesis["scale"] == "fisher_z" else number
    interval = statistics.paired_t(of_arm(value, hypothesis["arm"], seeds) - number, level)
    if not is_share(hypothesis["statistic"]):
        return interval
    return dataclasses.replace(interval, low=max(interval.low, -number), high=min(interval.high, 1 - number))


def is_share(statistic: str) -> bool:
    """Return whether a statistic of a run lies from 0 to 1, be it of all selectors or of one layer."""
    name = statistic.partition(".")[0]
    return name == TYPE_SHARE or (name in BY_NAME and BY_NAME[name].unit == "share")


def by_trend(value: pd.Series, hypothesis: dict[str, Any], seeds: tuple[int, ...], level: float) -> Interval:
    """Return the t interval of the mean slope, of differences from `minus` if there are any.

    A seed without a run of one of the arms is missing.
    """
    arms, numbers = zip(*_in_order(hypothesis["over"]), strict=True)
    number_A = np.array(numbers, dtype=np.float64)
    value_PA = np.stack([of_arm(value, arm, seeds) for arm in arms], axis=1)
    if hypothesis["minus"]:
        value_PA = value_PA - np.stack([of_arm(value, hypothesis["minus"][arm], seeds) for arm in arms], axis=1)
    number_A = np.log10(number_A) if hypothesis["per"] == "tenfold" else number_A
    return statistics.paired_t(statistics.slopes(value_PA, number_A), level)


def by_proportion(value: pd.Series, hypothesis: dict[str, Any], seeds: tuple[int, ...], level: float) -> Interval:
    """Return the exact interval of the share of runs minus `value`, or minus the reference's share.

    A run without the statistic is missing, and so is a pair that lacks one of its runs.
    """

    def counts(arm: str) -> Array:
        value_P = of_arm(value, arm, seeds)
        above, below = hypothesis["above"], hypothesis["below"]
        met_P = value_P > above if above is not None else value_P < below
        return np.where(np.isnan(value_P), NAN, met_P)

    arm_P = counts(hypothesis["arm"])
    if hypothesis["reference"] is None:
        known_P = arm_P[~np.isnan(arm_P)]
        number = float(hypothesis["value"])
        low, high = statistics.proportion_interval(int(known_P.sum()), len(known_P), level)
        share = float(known_P.mean()) if len(known_P) else NAN
        return Interval(share - number, low - number, high - number, NAN, len(known_P), NAN)
    difference_P = arm_P - counts(hypothesis["reference"])
    difference_P = difference_P[~np.isnan(difference_P)]
    more, less, pairs = int((difference_P > 0).sum()), int((difference_P < 0).sum()), len(difference_P)
    low, high = statistics.mcnemar_interval(more, less, pairs, level)
    return Interval(float(difference_P.mean()) if pairs else NAN, low, high, NAN, pairs, NAN)


TESTS = {"difference": by_difference, "value": by_value, "proportion": by_proportion, "trend": by_trend}


def _in_order(over: dict[str, float]) -> list[tuple[str, float]]:
    """Return arms and numbers in ascending order; a spec's file does not keep the order of the study file."""
    return sorted(over.items(), key=lambda item: (item[1], item[0]))
