"""Arms against a reference, paired by seed; by test document within a seed; and the study's hypotheses, decided."""

from collections.abc import Iterable
from typing import Literal

import numpy as np
import pandas as pd

from speciate.analysis import statistics
from speciate.analysis.measurements import STATISTIC
from speciate.config.contracts.statistics import NAMES
from speciate.selection.tally import Array

NAN = float("nan")


def with_differences(losses: pd.DataFrame, draws: pd.DataFrame, reference: str, confidence: float) -> pd.DataFrame:
    """Fills difference_bits and its interval in table `losses`: bits per byte minus the reference's at the same seed.

    Paired document bootstrap: within one pair of runs, over the test documents. Says how sure this pair's difference
    is, not how another seed would come out; that is table `comparisons`.
    """
    values = draws[draws["statistic"] == "bits_per_byte"]
    drawn = {key: part["value"].to_numpy() for key, part in values.groupby(["ablation", "seed", "name"], sort=False)}
    level = {(row.ablation, row.seed, row.domain): row.bits_per_byte for row in losses.itertuples()}
    rows: list[tuple[float, float, float]] = []
    for row in losses.itertuples():
        mine, other = (row.ablation, row.seed, row.domain), (reference, row.seed, row.domain)
        if other not in level or row.ablation == reference:
            rows.append((NAN, NAN, NAN))
            continue
        low, high = statistics.percentiles(drawn[mine] - drawn[other], confidence)
        rows.append((level[mine] - level[other], low, high))
    found = pd.DataFrame(rows, columns=["difference_bits", "difference_low_bits", "difference_high_bits"])
    return losses.assign(**{name: found[name].to_numpy() for name in found})


def differences(value: pd.Series, arm: str, reference: str, seeds: tuple[int, ...]) -> Array:
    """The value of `arm` minus that of `reference` at each seed; NaN where either is missing.

    Args:
        value: a statistic of the runs by (ablation, seed).
        arm: an ablation.
        reference: another.
        seeds: those of the study.
    """
    return np.array([value.get((arm, seed), NAN) - value.get((reference, seed), NAN) for seed in seeds], dtype=float)


def comparisons_table(
    runs: pd.DataFrame,
    losses: pd.DataFrame,
    ablations: tuple[str, ...],
    reference: str,
    seeds: tuple[int, ...],
    confidence: float,
) -> pd.DataFrame:
    """A row a statistic and ablation: the difference from the reference, paired by seed, with its t interval.

    p_holm corrects over the ablations of one statistic; `missing` counts the seeds without a pair. A statistic that an
    arm does not have (a dense model's load) gives no row; an arm whose runs are all missing gives empty ones. Losses by
    domain are called nats_<domain>.
    """
    by_domain = losses.pivot(index=["ablation", "seed"], columns="domain", values="nats")
    by_domain = by_domain[list(dict.fromkeys(losses["domain"]))].add_prefix("nats_").reset_index()
    table = runs.merge(by_domain, on=["ablation", "seed"], how="left").set_index(["ablation", "seed"])
    there = set(runs["ablation"])
    rows: list[dict[str, object]] = []
    beside = [str(name) for name in table.columns if str(name).startswith(("nats_", STATISTIC))]
    for statistic in (*NAMES, *beside):
        of_statistic: list[dict[str, object]] = []
        for ablation in ablations:
            difference = differences(table[statistic], ablation, reference, seeds)
            if ablation == reference or ({ablation, reference} <= there and np.isnan(difference).all()):
                continue
            found = statistics.paired_t(difference, confidence)
            of_statistic.append(
                {
                    "statistic": statistic,
                    "ablation": ablation,
                    "reference": reference,
                    "num_seeds": found.num_pairs,
                    "missing": len(seeds) - found.num_pairs,
                    "difference": found.estimate,
                    "low": found.low,
                    "high": found.high,
                    "p_value": found.p_value,
                    "minimum_detectable": found.minimum_detectable,
                }
            )
        corrected = statistics.holm(np.array([row["p_value"] for row in of_statistic], dtype=float))
        rows += [{**row, "p_holm": p} for row, p in zip(of_statistic, corrected, strict=True)]
    return pd.DataFrame(rows)


def collapse_table(runs: pd.DataFrame, ablations: tuple[str, ...], num_seeds: int, confidence: float) -> pd.DataFrame:
    """A row an ablation with selectors: how many of its runs the alarm called collapsed, with Wilson's interval."""
    rows: list[dict[str, object]] = []
    for ablation in ablations:
        mine = runs[(runs["ablation"] == ablation) & (runs["num_selectors"] > 0)]
        if not len(mine) and (runs["ablation"] == ablation).any():
            continue
        collapsed = int(mine["alarm_step"].notna().sum())
        low, high = statistics.wilson(collapsed, len(mine), confidence)
        counted = {"runs": len(mine), "missing": num_seeds - len(mine), "collapsed": collapsed}
        share = collapsed / len(mine) if len(mine) else NAN
        rows.append({"ablation": ablation, **counted, "share": share, "low": low, "high": high})
    return pd.DataFrame(rows)


def hypotheses_table(
    runs: pd.DataFrame, hypotheses: Iterable[dict[str, object]], seeds: tuple[int, ...], confidence: float
) -> pd.DataFrame:
    """A row a hypothesis with its verdict, exactly as `statistics.decide` defines it, and the interval that gave it.

    Args:
        runs: table `runs` of the study.
        hypotheses: name, statement, statistic, arm, reference, direction, margin; as written before the runs.
        seeds: those of the study; a missing one is a missing pair.
        confidence: of the interval that decides greater and less; equivalent takes 2 confidence - 1.

    Raises:
        ValueError: a statistic that table `runs` does not have as a number.
    """
    rows: list[dict[str, object]] = []
    value = runs.set_index(["ablation", "seed"]).select_dtypes("number")
    for hypothesis in hypotheses:
        name, statistic = str(hypothesis["name"]), str(hypothesis["statistic"])
        if statistic.startswith(STATISTIC) and statistic not in value and not len(runs):
            value[statistic] = NAN  # every run failed, so that nothing was measured
        if statistic not in value:
            raise ValueError(f"hypotheses.{name}: statistic: nothing in this study is called {statistic}")
        margin = float(str(hypothesis["margin"]))
        direction: Literal["greater", "less", "equivalent"] = hypothesis["direction"]  # type: ignore[assignment]
        difference = differences(value[statistic], str(hypothesis["arm"]), str(hypothesis["reference"]), seeds)
        verdict, interval = statistics.decide(difference, direction, margin, confidence)
        rows.append(
            {
                **hypothesis,
                "num_seeds": interval.num_pairs,
                "missing": len(seeds) - interval.num_pairs,
                "difference": interval.estimate,
                "low": interval.low,
                "high": interval.high,
                "confidence": 2 * confidence - 1 if direction == "equivalent" else confidence,
                "verdict": verdict,
            }
        )
    return pd.DataFrame(rows)
