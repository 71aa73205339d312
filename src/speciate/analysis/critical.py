"""Where a sweep tips over: the probability of collapse over two parameters, and the critical value of one of them.

    logit P(collapse) = b_0 + b_1 log x + b_2 log w,      w*(x) = exp(-(b_0 + b_1 log x) / b_2):   P(x, w*(x)) = 1/2

A grid often separates collapsed and balanced runs perfectly, and then maximum likelihood has no finite slope. Firth's
penalty (1993, Biometrika 80) always has one: it maximises log L + 1/2 log det I(b), I the Fisher information, which for
logistic regression means a score of X'(y - n p + h (1/2 - p)), h the leverages.

Intervals are of log w* and of its growth, and take the wider of two errors. The jackknife (Tukey 1958; Student's t)
leaves out one seed at a time, with all of its runs, because they share initial weights and data order. The fit's own
error (I(b) inverted, delta method; normal law) knows that a run is a toss of a coin, which the jackknife cannot see
where all seeds happened to agree. Percentiles over seeds drawn with replacement held the truth in 67 to 92 % of
simulations at a nominal 95 %; these do in 95 to 98 % (docs/calibration.md).

C cells of the grid, P parameters of the fit, X values of the other parameter, S seeds.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import ndtri, stdtrit

from speciate.analysis import statistics
from speciate.config.sweeps import SweepPlan
from speciate.selection.tally import Array

NAN = float("nan")
MAX_STEPS = 200
MAX_STEP = 2.0
"""Largest change of a coefficient in one Newton step."""
TOLERANCE = 1e-9


@dataclass(frozen=True)
class Fit:
    """The logistic surface over logarithms: its coefficients, and their covariance by the Fisher information."""

    beta_P: Array
    """Constant, slope of the other parameter, slope of the critical one."""
    covariance_PP: Array

    @property
    def tips(self) -> bool:
        """Whether more of w lowers the probability of collapse, without which there is no w*."""
        return bool(self.beta_P[2] < 0)

    def values(self, other_X: Array) -> Array:
        """Return log w* at each x, and last its growth d log w* / d log x, (X + 1,); infinite and NaN without a w*."""
        constant, other, critical = self.beta_P
        if not self.tips:
            return np.append(np.full(len(other_X), np.inf), NAN)
        result: Array = np.append(-(constant + other * np.log(other_X)) / critical, -other / critical)
        return result

    def errors(self, other_X: Array) -> Array:
        """Return the standard error of each of `values`, by the delta method."""
        constant, other, critical = self.beta_P
        log_X = np.log(other_X)
        slopes_XP = np.stack(
            [np.full(len(log_X), -1 / critical), -log_X / critical, (constant + other * log_X) / critical**2], axis=1
        )
        slopes_XP = np.vstack([slopes_XP, [0.0, -1 / critical, other / critical**2]])
        result: Array = np.sqrt(np.einsum("xp,pq,xq->x", slopes_XP, self.covariance_PP, slopes_XP))
        return result


def firth(design_CP: Array, successes_C: Array, trials_C: Array) -> Array:
    """Return the coefficients (P,) of a logistic regression with Firth's penalty.

    Args:
        design_CP: what each cell is described by.
        successes_C: how many of its trials succeeded.
        trials_C: its number of trials.

    Raises:
        ValueError: Newton's method does not converge.
    """
    beta_P: Array = np.zeros(design_CP.shape[1])
    for _ in range(MAX_STEPS):
        probability_C = 1 / (1 + np.exp(-(design_CP @ beta_P)))
        weight_C = trials_C * probability_C * (1 - probability_C)
        covariance_PP = np.linalg.inv(design_CP.T @ (weight_C[:, None] * design_CP))
        leverage_C = weight_C * np.einsum("cp,pq,cq->c", design_CP, covariance_PP, design_CP)
        residual_C = successes_C - trials_C * probability_C + leverage_C * (0.5 - probability_C)
        step_P = covariance_PP @ (design_CP.T @ residual_C)
        beta_P = beta_P + step_P / max(1.0, float(np.abs(step_P).max()) / MAX_STEP)
        if np.abs(step_P).max() < TOLERANCE:
            return beta_P
    raise ValueError(f"the logistic fit of {len(trials_C)} cells does not converge in {MAX_STEPS} steps")


def fit(other_C: Array, critical_C: Array, collapsed_C: Array, runs_C: Array) -> Fit:
    """Return the surface over log x and log w, from how many of each cell's runs collapsed."""
    logs = [np.log(other_C), np.log(critical_C)]
    # centred, so that the fit is well conditioned whatever the units
    centres = [float(log_C.mean()) for log_C in logs]
    design_CP = np.stack([np.ones(len(other_C)), *(log_C - at for log_C, at in zip(logs, centres, strict=True))], 1)
    beta_P = firth(design_CP, collapsed_C, runs_C)
    share_C = 1 / (1 + np.exp(-(design_CP @ beta_P)))
    covariance_PP = np.linalg.inv(design_CP.T @ ((runs_C * share_C * (1 - share_C))[:, None] * design_CP))
    uncentred_PP = np.eye(3)
    uncentred_PP[0, 1:] = [-at for at in centres]
    return Fit(uncentred_PP @ beta_P, uncentred_PP @ covariance_PP @ uncentred_PP.T)


def critical_table(sweep: SweepPlan, collapsed: pd.DataFrame, *, confidence: float) -> pd.DataFrame:
    """Return a row for each value x of the other parameter: the critical value w*(x), with its interval.

    `growth` is d log w* / d log x with its interval: 0 where x does not matter, 1 where w must grow in proportion.
    `position` says whether the critical value lies within the grid. Cells where a parameter is 0 have no logarithm and
    do not take part. Where some seeds left out leave no w*, the interval has no end: 0 to infinity.

    Args:
        sweep: a sweep of two parameters, one of them critical.
        collapsed: a row for each run with selectors: ablation, seed, collapsed.
        confidence: level of the intervals.
    """
    critical = str(sweep.critical)
    (other,) = (name for name in sweep.parameters if name != critical)
    grid = pd.DataFrame([cell.values for cell in sweep.cells], [cell.arm for cell in sweep.cells], sweep.parameters)
    mine = grid[(grid > 0).all(axis=1)].astype(float)
    outcome = collapsed[collapsed["ablation"].isin(mine.index)].pivot(
        index="ablation", columns="seed", values="collapsed"
    )
    outcome = outcome.reindex(mine.index).dropna(axis="columns")  # a seed takes part if all of its runs are there
    if outcome.empty:
        return pd.DataFrame()
    others_X = np.unique(mine[other])
    ran_CS = outcome.to_numpy(dtype=float)
    num_seeds = ran_CS.shape[1]

    def fitted(seeds_CS: Array) -> Fit:
        runs_C = np.full(len(mine), float(seeds_CS.shape[1]))
        return fit(mine[other].to_numpy(), mine[critical].to_numpy(), seeds_CS.sum(axis=1), runs_C)

    whole = fitted(ran_CS)
    value_X = whole.values(others_X)
    # of one seed, nothing can be left out
    without = [fitted(np.delete(ran_CS, seed, axis=1)) for seed in range(num_seeds if num_seeds > 1 else 0)]
    reach_X = _reach(whole, without, others_X, confidence)
    with np.errstate(over="ignore", invalid="ignore"):  # infinite less infinite: no w*, or no end
        columns = zip(others_X, *np.exp([value_X, value_X - reach_X, value_X + reach_X])[:, :-1], strict=True)
    lowest, highest = float(mine[critical].min()), float(mine[critical].max())
    rows = []
    for at, estimate, low, high in columns:
        position = "below the grid" if estimate < lowest else "above the grid" if estimate > highest else "in the grid"
        rows.append(
            {
                "sweep": sweep.name,
                "parameter": critical,
                "other": other,
                "at": float(at),
                "num_seeds": num_seeds,
                "estimate": float(estimate),
                "low": 0.0 if np.isnan(low) else float(low),
                "high": float(np.inf if np.isnan(high) else high),
                "position": position,
                "growth": float(value_X[-1]),
                "growth_low": float(value_X[-1] - reach_X[-1]),
                "growth_high": float(value_X[-1] + reach_X[-1]),
            }
        )
    return pd.DataFrame(rows)


def _reach(whole: Fit, without: list[Fit], other_X: Array, confidence: float) -> Array:
    """Return half the width of the interval of each of `Fit.values`, (X + 1,); infinite where a fit has no w*.

    Args:
        whole: the fit of all seeds.
        without: the fits without one seed each.
        other_X: values of the other parameter.
        confidence: level of the intervals.
    """
    if len(without) < 2 or not all(each.tips for each in (whole, *without)):
        return np.full(len(other_X) + 1, np.inf)
    level, count = (1 + confidence) / 2, len(without)
    left_out_SX = np.stack([each.values(other_X) for each in without])
    spread_X = np.sqrt((count - 1) / count * ((left_out_SX - left_out_SX.mean(axis=0)) ** 2).sum(axis=0))
    reach_X: Array = np.maximum(stdtrit(count - 1, level) * spread_X, ndtri(level) * whole.errors(other_X))
    return reach_X


def cells_table(sweeps: Iterable[SweepPlan]) -> pd.DataFrame:
    """Return a row for each arm of a sweep and parameter: the parameter's value, NaN where it is a named choice."""
    rows = [
        {
            "sweep": sweep.name,
            "ablation": cell.arm,
            "parameter": parameter,
            "value": NAN if isinstance(value, str) else float(value),
            "label": str(value),
        }
        for sweep in sweeps
        for cell in sweep.cells
        for parameter, value in zip(sweep.parameters, cell.values, strict=True)
    ]
    return pd.DataFrame(rows)


def sweeps_table(
    sweeps: Iterable[SweepPlan], runs: pd.DataFrame, collapsed: pd.DataFrame, confidence: float
) -> pd.DataFrame:
    """Return a row for each arm of a sweep: how many of its runs have collapsed, with Wilson's interval, and its loss.

    Args:
        sweeps: the study's sweeps.
        runs: table `runs` of the study.
        collapsed: a row for each run with selectors: ablation, seed, collapsed.
        confidence: level of the interval.
    """
    outcome = {name: part["collapsed"] for name, part in collapsed.groupby("ablation")}
    losses = runs.groupby("ablation")["loss"].mean()
    rows = []
    for sweep in sweeps:
        for cell in sweep.cells:
            of_arm = outcome.get(cell.arm, pd.Series(dtype=bool))
            low, high = statistics.wilson_interval(int(of_arm.sum()), len(of_arm), confidence)
            share = float(of_arm.mean()) if len(of_arm) else NAN
            counts = {"runs": len(of_arm), "collapsed": int(of_arm.sum()), "share": share, "low": low, "high": high}
            rows.append({"sweep": sweep.name, "ablation": cell.arm, **counts, "loss": losses.get(cell.arm, NAN)})
    return pd.DataFrame(rows)


def collapsed_runs(selectors: pd.DataFrame) -> pd.DataFrame:
    """Return for each run whether a layer of the finished model has fewer effective experts than its limit.

    The limit is `load.effective_slots_limit`: half of the experts, and more where many are chosen at once.

    Args:
        selectors: table `selectors` of the study.
    """
    full = selectors[selectors["probe"] == "full"]
    below = full["effective_experts"] < full["effective_experts_limit"]
    return below.groupby([full["ablation"], full["seed"]], sort=False).any().rename("collapsed").reset_index()
