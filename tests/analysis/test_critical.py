"""Test where a sweep tips over: against closed forms of Firth's estimate, and against planted surfaces."""

import math

import numpy as np
import pandas as pd
import pytest

from speciate.analysis import critical
from speciate.config.sweeps import Cell, SweepPlan

RATES, WEIGHTS = (1, 3, 10, 30), (0, 0.001, 0.003, 0.01, 0.03)
PLAN = SweepPlan(
    name="phase",
    parameters=("rate", "weight"),
    critical="weight",
    cells=tuple(
        Cell(arm=f"r{rate}w{weight * 1000:.0f}", values=(rate, weight)) for rate in RATES for weight in WEIGHTS
    ),
)


def outcomes(probability, seeds: int = 10, seed: int = 0) -> pd.DataFrame:
    """Draw runs of every cell that collapse with `probability(rate, weight)`."""
    draw = np.random.default_rng(seed)
    rows = [
        (cell.arm, number, bool(draw.random() < probability(*cell.values)))
        for cell in PLAN.cells
        for number in range(seeds)
    ]
    return pd.DataFrame(rows, columns=["ablation", "seed", "collapsed"])


def table(collapsed: pd.DataFrame) -> pd.DataFrame:
    return critical.critical_table(PLAN, collapsed, confidence=0.95)


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (3, 10), (10, 10)])
def test_firth_without_slope_is_the_share_with_half_a_success_and_half_a_failure_more(successes, trials) -> None:
    (beta,) = critical.firth(np.ones((1, 1)), np.array([float(successes)]), np.array([float(trials)]))
    assert beta == pytest.approx(math.log((successes + 0.5) / (trials - successes + 0.5)), abs=1e-8)


def test_firth_of_two_groups_is_their_corrected_log_odds_ratio_even_when_they_are_separated() -> None:
    # a saturated 2 x 2 table has the closed form with 1/2 added to each count (Firth 1993, Haldane's correction)
    design_CP = np.array([[1.0, 0.0], [1.0, 1.0]])
    found_P = critical.firth(design_CP, np.array([0.0, 10.0]), np.array([10.0, 10.0]))
    first, second = math.log(0.5 / 10.5), math.log(10.5 / 0.5)
    assert found_P == pytest.approx([first, second - first], abs=1e-7)


def test_a_planted_boundary_is_found_with_its_growth() -> None:
    def planted(rate: float, weight: float) -> float:
        return 1.0 if weight == 0 else 1 / (1 + (weight / (0.002 * rate**0.5)) ** 3)

    found = table(outcomes(planted, seeds=200))
    assert found["estimate"].to_numpy() == pytest.approx([0.002 * rate**0.5 for rate in RATES], rel=0.12)
    assert found["growth"].iloc[0] == pytest.approx(0.5, abs=0.06)
    assert (found["growth_low"] < 0.5).all() and (found["growth_high"] > 0.5).all()
    assert ((found["low"] < found["estimate"]) & (found["estimate"] < found["high"])).all()
    assert (found["position"] == "in the grid").all()


def test_a_perfectly_separated_grid_has_a_finite_boundary_between_the_two_weights() -> None:
    found = table(outcomes(lambda rate, weight: float(weight < 0.005)))
    assert found["estimate"].between(0.003, 0.01).all()
    assert found["growth"].abs().max() < 1e-6


def test_where_nothing_collapses_the_boundary_is_outside_the_grid() -> None:
    found = table(outcomes(lambda rate, weight: 0.0 if weight else 1.0))
    assert not (found["position"] == "in the grid").any()


def test_a_balance_that_only_harms_has_no_critical_weight() -> None:
    found = table(outcomes(lambda rate, weight: float(weight > 0.005)))
    assert np.isinf(found["estimate"]).all()
    assert (found["position"] == "above the grid").all()


def test_a_seed_with_a_missing_run_takes_no_part() -> None:
    runs = outcomes(lambda rate, weight: float(weight < 0.005))
    assert (table(runs.iloc[:-1])["num_seeds"] == 9).all()
    assert table(runs[:0]).empty


def test_a_run_has_collapsed_if_one_layer_has_fewer_than_half_of_the_experts() -> None:
    # the published loads: layer 9 of moe-emergence at collapse, 2.77 of 8; OLMoE's layer 15, 49 of 64
    rows = [
        ("bad", 0, "full", 2.77, 4.0),
        ("bad", 0, "full", 7.9, 4.0),
        ("good", 0, "full", 49.0, 32.0),
        ("good", 0, "telemetry", 1.0, 32.0),
    ]
    selectors = pd.DataFrame(
        rows, columns=["ablation", "seed", "probe", "effective_experts", "effective_experts_limit"]
    )
    found = critical.collapsed_runs(selectors).set_index("ablation")["collapsed"]
    assert found.to_dict() == {"bad": True, "good": False}
    runs = pd.DataFrame({"ablation": ["bad", "good"], "seed": [0, 0], "loss": [2.0, 1.0]})
    sweep = SweepPlan(
        name="s",
        parameters=("a",),
        critical=None,
        cells=(Cell(arm="bad", values=("x",)), Cell(arm="good", values=(2,))),
    )
    counted = critical.sweeps_table([sweep], runs, critical.collapsed_runs(selectors), 0.95).set_index("ablation")
    assert counted.loc["bad", ["runs", "collapsed", "share", "loss"]].tolist() == [1, 1, 1.0, 2.0]
    cells = critical.cells_table([sweep])
    assert cells["label"].tolist() == ["x", "2"] and np.isnan(cells["value"][0]) and cells["value"][1] == 2


def test_the_interval_is_the_wider_of_the_jackknife_and_the_fits_own_error() -> None:
    def planted(rate: float, weight: float) -> float:
        return 1.0 if weight == 0 else 1 / (1 + (weight / 0.005) ** 2)

    runs = outcomes(planted, seeds=6)
    found = table(runs)
    # the fit's own error: inverse of the Fisher information of an ordinary logistic regression, written out anew
    cells = [cell for cell in PLAN.cells if cell.values[1]]
    count = runs.groupby("ablation")["collapsed"].sum()
    x = np.array([[1.0, math.log(cell.values[0]), math.log(cell.values[1])] for cell in cells])
    y = np.array([float(count[cell.arm]) for cell in cells])
    beta = critical.firth(x, y, np.full(len(y), 6.0))
    p = 1 / (1 + np.exp(-x @ beta))
    covariance = np.linalg.inv(x.T @ np.diag(6 * p * (1 - p)) @ x)
    gradient = np.array([0.0, -1 / beta[2], beta[1] / beta[2] ** 2])
    own = 1.959964 * math.sqrt(gradient @ covariance @ gradient)
    # the jackknife, by tables that lack one seed
    left_out = [table(runs[runs["seed"] != seed])["growth"].iloc[0] for seed in range(6)]
    spread = math.sqrt(5 / 6 * sum((value - np.mean(left_out)) ** 2 for value in left_out))
    reach = max(own, 2.570582 * spread)
    assert found["growth"].iloc[0] == pytest.approx(-beta[1] / beta[2], abs=1e-7)
    assert found["growth_high"].iloc[0] - found["growth"].iloc[0] == pytest.approx(reach, rel=1e-5)
    assert (found["high"] / found["estimate"]).to_numpy() == pytest.approx(found["estimate"] / found["low"])


def test_one_seed_has_an_estimate_and_no_interval() -> None:
    found = table(outcomes(lambda rate, weight: float(weight < 0.005), seeds=1))
    assert found["estimate"].between(0.001, 0.03).all()
    assert (found["low"] == 0).all() and np.isinf(found["high"]).all()
