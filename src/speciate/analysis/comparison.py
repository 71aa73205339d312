"""Comparisons of arms with the reference, paired by seed or by test document."""

import numpy as np
import pandas as pd

from speciate.analysis import statistics
from speciate.analysis.measurements import MEASURED_PREFIX
from speciate.config.contracts.statistics import NAMES
from speciate.selection.tally import Array

NAN = float("nan")


def add_loss_differences(losses: pd.DataFrame, draws: pd.DataFrame, reference: str, confidence: float) -> pd.DataFrame:
    """Add difference_bits and its interval to table `losses`: bits per byte minus the reference's at the same seed.

    The interval is a paired bootstrap over the test documents, within one pair of runs. It says how certain this pair's
    difference is, not what another seed would give; table `comparisons` answers that.
    """
    values = draws[draws["statistic"] == "bits_per_byte"]
    drawn = {key: part["value"].to_numpy() for key, part in values.groupby(["ablation", "seed", "name"], sort=False)}
    bits = {(row.ablation, row.seed, row.domain): row.bits_per_byte for row in losses.itertuples()}
    rows: list[tuple[float, float, float]] = []
    for row in losses.itertuples():
        key, reference_key = (row.ablation, row.seed, row.domain), (reference, row.seed, row.domain)
        if reference_key not in bits or row.ablation == reference:
            rows.append((NAN, NAN, NAN))
            continue
        low, high = statistics.document_interval(drawn[key] - drawn[reference_key], confidence, row.effective_groups)
        rows.append((bits[key] - bits[reference_key], low, high))
    columns = pd.DataFrame(rows, columns=["difference_bits", "difference_low_bits", "difference_high_bits"])
    return losses.assign(**{name: columns[name].to_numpy() for name in columns})


def paired_differences(value: pd.Series, arm: str, reference: str, seeds: tuple[int, ...]) -> Array:
    """Return the value of `arm` minus that of `reference` at each seed; NaN where either is missing.

    Args:
        value: a statistic of the runs, indexed by (ablation, seed).
        arm: name of an ablation.
        reference: name of the ablation to compare with.
        seeds: seeds of the study.
    """
    return np.array([value.get((arm, seed), NAN) - value.get((reference, seed), NAN) for seed in seeds], dtype=float)


def comparisons_table(
    runs: pd.DataFrame,
    losses: pd.DataFrame,
    *,
    ablations: tuple[str, ...],
    reference: str,
    seeds: tuple[int, ...],
    confidence: float,
) -> pd.DataFrame:
    """Return a row for each statistic and ablation: the difference from the reference, paired by seed, with interval.

    p_holm corrects over the ablations of one statistic; `missing` counts the seeds without a pair. A statistic that an
    arm does not have (the load of a dense model) gives no row. An arm whose runs are all missing gives empty rows. The
    losses by domain are called nats_<domain>.
    """
    by_domain = losses.pivot(index=["ablation", "seed"], columns="domain", values="nats")
    by_domain = by_domain[list(dict.fromkeys(losses["domain"]))].add_prefix("nats_").reset_index()
    table = runs.merge(by_domain, on=["ablation", "seed"], how="left").set_index(["ablation", "seed"])
    present = set(runs["ablation"])
    rows: list[dict[str, object]] = []
    further = [str(name) for name in table.columns if str(name).startswith(("nats_", MEASURED_PREFIX))]
    for statistic in (*NAMES, *further):
        of_statistic: list[dict[str, object]] = []
        for ablation in ablations:
            difference = paired_differences(table[statistic], ablation, reference, seeds)
            if ablation == reference or ({ablation, reference} <= present and np.isnan(difference).all()):
                continue
            interval = statistics.paired_t(difference, confidence)
            of_statistic.append(
                {
                    "statistic": statistic,
                    "ablation": ablation,
                    "reference": reference,
                    "num_seeds": interval.num_pairs,
                    "missing": len(seeds) - interval.num_pairs,
                    "difference": interval.estimate,
                    "low": interval.low,
                    "high": interval.high,
                    "p_value": interval.p_value,
                    "minimum_detectable": interval.minimum_detectable,
                }
            )
        corrected = statistics.holm(np.array([row["p_value"] for row in of_statistic], dtype=float))
        rows += [{**row, "p_holm": p} for row, p in zip(of_statistic, corrected, strict=True)]
    return pd.DataFrame(rows)


def collapse_table(runs: pd.DataFrame, ablations: tuple[str, ...], num_seeds: int, confidence: float) -> pd.DataFrame:
    """Return a row for each ablation with selectors: how many of its runs raised the alarm, with Wilson's interval."""
    rows: list[dict[str, object]] = []
    for ablation in ablations:
        arm_runs = runs[(runs["ablation"] == ablation) & (runs["num_selectors"] > 0)]
        num_runs = len(arm_runs)
        if not num_runs and (runs["ablation"] == ablation).any():
            continue
        collapsed = int(arm_runs["alarm_step"].notna().sum())
        low, high = statistics.wilson_interval(collapsed, num_runs, confidence)
        counts = {"runs": num_runs, "missing": num_seeds - num_runs, "collapsed": collapsed}
        share = collapsed / num_runs if num_runs else NAN
        rows.append({"ablation": ablation, **counts, "share": share, "low": low, "high": high})
    return pd.DataFrame(rows)
