"""Where a sweep tips over: the probability of collapse over two parameters, and the critical value of one of them.

    logit P(collapse) = b_0 + b_1 log x + b_2 log w,      w*(x) = exp(-(b_0 + b_1 log x) / b_2):   P(x, w*(x)) = 1/2

A grid often separates collapsed and balanced runs perfectly, and then maximum likelihood has no finite slope. Firth's
penalty (1993, Biometrika 80) always has one: it maximises log L + 1/2 log det I(b), I the Fisher information, which for
logistic regression means a score of X'(y - n p + h (1/2 - p)), h the leverages. Intervals are percentiles over seeds
drawn with replacement. All arms of a seed are drawn together, because they share initial weights and data order.

C cells of the grid, P parameters of the fit, B draws.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

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
    """Coefficients of the logistic surface over logarithms."""

    constant: float
    other_slope: float
    critical_slope: float

    def critical(self, other_C: Array) -> Array:
        """Return w*(x) at each x; infinite where more of w does not lower the probability of collapse."""
        at_C: Array = np.full(len(other_C), np.inf)
        if self.critical_slope < 0:
            with np.errstate(over="ignore"):
                at_C = np.exp(-(self.constant + self.other_slope * np.log(other_C)) / self.critical_slope)
        return at_C

    @property
    def growth(self) -> float:
        """Return d log w* / d log x; NaN where there is no w*."""
        return -self.other_slope / self.critical_slope if self.critical_slope < 0 else NAN


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
    constant, *slopes = (float(beta) for beta in firth(design_CP, collapsed_C, runs_C))
    shift = sum(slope * at for slope, at in zip(slopes, centres, strict=True))
    return Fit(constant - shift, slopes[0], slopes[1])


def critical_table(
    sweep: SweepPlan, collapsed: pd.DataFrame, *, confidence: float, resamples: int, seed: int
) -> pd.DataFrame:
    """Return a row for each value x of the other parameter: the critical value w*(x), with its interval.

    `growth` is d log w* / d log x with its interval: 0 where x does not matter, 1 where w must grow in proportion.
    `position` says whether the critical value lies within the grid. Cells where a parameter is 0 have no logarithm and
    do not take part.

    Args:
        sweep: a sweep of two parameters, one of them critical.
        collapsed: a row for each run with selectors: ablation, seed, collapsed.
        confidence: level of the intervals.
        resamples: number of bootstrap draws over seeds.
        seed: seed of the draws.
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
    others = np.unique(mine[other])
    ran_CS = outcome.to_numpy(dtype=float)
    arguments = (mine[other].to_numpy(), mine[critical].to_numpy())
    num_seeds = ran_CS.shape[1]
    fitted = fit(*arguments, ran_CS.sum(axis=1), np.full(len(mine), float(num_seeds)))
    draw = np.random.Generator(np.random.Philox([seed, len(mine)]))
    drawn = [
        fit(*arguments, ran_CS[:, chosen_S].sum(axis=1), np.full(len(mine), float(num_seeds)))
        for chosen_S in draw.integers(num_seeds, size=(resamples, num_seeds))
    ]
    values_BX = np.stack([each.critical(others) for each in drawn])
    growth_low, growth_high = statistics.percentile_interval(np.array([each.growth for each in drawn]), confidence)
    lowest, highest = float(mine[critical].min()), float(mine[critical].max())
    rows = []
    for at, estimate, drawn_B in zip(others, fitted.critical(others), values_BX.T, strict=True):
        # an infinite draw is ordered with the others, not averaged with them
        low, high = np.quantile(drawn_B, [(1 - confidence) / 2, (1 + confidence) / 2], method="closest_observation")
        position = "below the grid" if estimate < lowest else "above the grid" if estimate > highest else "in the grid"
        rows.append(
            {
                "sweep": sweep.name,
                "parameter": critical,
                "other": other,
                "at": float(at),
                "num_seeds": num_seeds,
                "estimate": float(estimate),
                "low": float(low),
                "high": float(high),
                "position": position,
                "growth": fitted.growth,
                "growth_low": growth_low,
                "growth_high": growth_high,
            }
        )
    return pd.DataFrame(rows)


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
