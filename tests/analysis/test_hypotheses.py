"""Test each kind of hypothesis against scipy or a hand count: its estimate, its interval and its verdict."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from speciate.analysis import statistics
from speciate.analysis.hypotheses import hypotheses_table
from speciate.config.stage_specs import Prediction

SEEDS = tuple(range(8))
VALUES = {
    "learned": [0.62, 0.71, 0.66, 0.58, 0.69, 0.64, 0.73, 0.60],
    "frozen": [0.31, 0.55, 0.40, 0.38, 0.52, 0.44, 0.36, 0.47],
    "tenfold": [0.93, 0.99, 0.97, 0.88, 0.95, 0.98, 0.91, 0.96],
}


def runs(values: dict[str, list[float]] | None = None, statistic: str = "max_share") -> pd.DataFrame:
    rows = [(arm, seed, value) for arm, of_arm in (values or VALUES).items() for seed, value in enumerate(of_arm)]
    return pd.DataFrame(rows, columns=["ablation", "seed", statistic])


def decided(frame: pd.DataFrame, **fields: object) -> pd.Series:
    first = {"name": "one", "statement": "s", "statistic": "max_share", "arm": "learned", "direction": "greater"}
    prediction = Prediction.model_validate({**first, **fields})
    return hypotheses_table(frame, [prediction.model_dump()], SEEDS, 0.95).iloc[0]


def test_a_difference_is_what_it_was() -> None:
    row = decided(runs(), reference="frozen", margin=0.1)
    expected = stats.ttest_rel(VALUES["learned"], VALUES["frozen"]).confidence_interval(0.95)
    assert (row["low"], row["high"]) == pytest.approx((expected.low, expected.high))
    assert (row["test"], row["verdict"], row["num_seeds"], row["missing"]) == ("difference", "supported", 8, 0)
    assert math.isnan(row["value"]) and row["counts_if"] == row["over"] == ""


@pytest.mark.parametrize(
    ("value", "direction", "margin", "verdict"),
    [
        (0.5, "greater", 0.0, "supported"),
        (0.5, "less", 0.0, "refuted"),
        (0.64, "greater", 0.0, "undecided"),
        (0.65, "equivalent", 0.05, "supported"),
        (0.65, "equivalent", 0.01, "undecided"),
        (0.5, "greater", 0.2, "refuted"),
    ],
)
def test_a_mean_is_compared_with_a_value(value: float, direction: str, margin: float, verdict: str) -> None:
    row = decided(runs(), test="value", value=value, direction=direction, margin=margin)
    level = 0.9 if direction == "equivalent" else 0.95
    expected = stats.ttest_1samp(VALUES["learned"], value).confidence_interval(level)
    assert row["confidence"] == pytest.approx(level)
    assert (row["low"] + value, row["high"] + value) == pytest.approx((expected.low, expected.high))
    assert row["difference"] == pytest.approx(np.mean(VALUES["learned"]) - value)
    assert (row["verdict"], row["reference"], row["value"]) == (verdict, "", value)


@pytest.mark.parametrize(
    ("statistic", "is_cut"),
    [("max_share", True), ("max_share.layer1", True), ("type_share.keyword", True), ("unevenness", False)],
)
def test_the_mean_of_a_share_lies_where_a_share_can(statistic: str, is_cut: bool) -> None:
    uneven = {"learned": [0.99, 0.62, 0.97, 0.98]}
    row = decided(runs(uneven, statistic), statistic=statistic, test="value", value=0.5)
    student = stats.ttest_1samp(uneven["learned"], 0).confidence_interval(0.95)
    assert student.high > 1
    assert row["low"] + 0.5 == pytest.approx(student.low)
    assert row["high"] + 0.5 == pytest.approx(1.0 if is_cut else student.high)
    low = decided(runs({"learned": [0.01, 0.3, 0.02, 0.01]}, statistic), statistic=statistic, test="value", value=0.5)
    assert (low["low"] + 0.5 == pytest.approx(0.0)) == is_cut


def test_a_share_of_runs_has_the_exact_binomial_interval() -> None:
    row = decided(runs(), test="proportion", above=0.6, value=0.3)
    expected = stats.binomtest(6, 8).proportion_ci(0.95, method="exact")
    assert (row["low"] + 0.3, row["high"] + 0.3) == pytest.approx((expected.low, expected.high))
    assert row["difference"] == pytest.approx(6 / 8 - 0.3)  # 0.60 is not above 0.6
    assert (row["verdict"], row["counts_if"]) == ("supported", "> 0.6")
    below = decided(runs(), test="proportion", below=0.6, value=0.3)
    assert (below["difference"], below["verdict"]) == (pytest.approx(1 / 8 - 0.3), "undecided")


def test_paired_shares_are_decided_as_by_mcnemar() -> None:
    row = decided(runs(), test="proportion", above=0.5, reference="frozen")
    # learned is above in all eight, frozen in two of them: six pairs differ, all in one way
    assert row["difference"] == pytest.approx(6 / 8)
    exact = stats.binomtest(6, 6, 0.5).pvalue
    assert exact < 0.05
    assert (row["verdict"], row["num_seeds"]) == ("supported", 8)
    low = stats.binomtest(6, 6).proportion_ci(0.95, method="exact").low
    assert row["low"] == pytest.approx((2 * low - 1) * 6 / 8)
    fewer = {**VALUES, "frozen": [*[0.31] * 5, *[0.55] * 3]}
    assert stats.binomtest(5, 5, 0.5).pvalue > 0.05
    assert decided(runs(fewer), test="proportion", above=0.5, reference="frozen")["verdict"] == "undecided"


@pytest.mark.parametrize(("more", "less"), [(7, 0), (9, 1), (9, 2), (10, 3), (3, 3), (0, 0), (1, 8)])
def test_the_interval_of_paired_shares_excludes_zero_exactly_where_mcnemar_rejects(more: int, less: int) -> None:
    low, high = statistics.mcnemar_interval(more, less, 15, 0.95)
    if more + less == 0:
        assert math.isnan(low) and math.isnan(high)
        return
    assert (low > 0 or high < 0) == (stats.binomtest(more, more + less, 0.5).pvalue <= 0.05)
    assert low <= (more - less) / 15 <= high


def test_a_trend_is_the_mean_of_the_seeds_slopes() -> None:
    over = {"frozen": 1, "learned": 10, "tenfold": 100}
    row = decided(runs(), test="trend", over=over, per="tenfold", margin=0.1)
    slopes = [
        stats.linregress([0, 1, 2], [VALUES[arm][seed] for arm in ("frozen", "learned", "tenfold")]).slope
        for seed in SEEDS
    ]
    expected = stats.ttest_1samp(slopes, 0).confidence_interval(0.95)
    assert row["difference"] == pytest.approx(np.mean(slopes))
    assert (row["low"], row["high"]) == pytest.approx((expected.low, expected.high))
    assert (row["verdict"], row["over"], row["per"]) == (
        "supported",
        "frozen = 1, learned = 10, tenfold = 100",
        "tenfold",
    )
    plain = decided(runs(), test="trend", over={"frozen": 0, "learned": 2}, direction="less")
    differences = np.array(VALUES["learned"]) - np.array(VALUES["frozen"])
    assert plain["difference"] == pytest.approx(differences.mean() / 2)
    assert plain["verdict"] == "refuted"


def test_a_trend_of_differences_is_the_slope_of_arm_minus_arm() -> None:
    draw = np.random.default_rng(0)
    values = {arm: list(draw.normal(size=8)) for arm in ("learned_1", "learned_4", "learned_16", "f_1", "f_4", "f_16")}
    over = {"learned_1": 1, "learned_4": 4, "learned_16": 16}
    minus = {"learned_1": "f_1", "learned_4": "f_4", "learned_16": "f_16"}
    row = decided(runs(values), test="trend", arm="learned_16", over=over, minus=minus, per="tenfold")
    slopes = [
        stats.linregress(
            np.log10([1, 4, 16]), [values[f"learned_{n}"][seed] - values[f"f_{n}"][seed] for n in (1, 4, 16)]
        ).slope
        for seed in SEEDS
    ]
    expected = stats.ttest_1samp(slopes, 0).confidence_interval(0.95)
    assert (row["low"], row["high"]) == pytest.approx((expected.low, expected.high))
    assert row["over"] == "learned_1 - f_1 = 1, learned_4 - f_4 = 4, learned_16 - f_16 = 16"
    values["f_4"][5] = math.nan
    assert decided(runs(values), test="trend", arm="learned_16", over=over, minus=minus)["num_seeds"] == 7


def test_whether_a_rule_fired_is_a_share_of_the_runs_with_selectors() -> None:
    frame = runs().assign(num_selectors=1, alarm_step=math.nan)
    frame.loc[(frame["ablation"] == "tenfold") & (frame["seed"] != 3), "alarm_step"] = 40.0
    frame.loc[(frame["ablation"] == "tenfold") & (frame["seed"] == 5), "num_selectors"] = 0
    row = decided(frame, statistic="fired.alarm", test="proportion", above=0.5, arm="tenfold", value=0.5)
    expected = stats.binomtest(6, 7).proportion_ci(0.95, method="exact")
    assert (row["low"] + 0.5, row["high"] + 0.5) == pytest.approx((expected.low, expected.high))
    assert (row["num_seeds"], row["missing"]) == (7, 1)
    paired = {"statistic": "fired.alarm", "test": "proportion", "above": 0.5, "reference": "frozen"}
    row = decided(frame, **paired, arm="tenfold")
    assert (row["difference"], row["num_seeds"]) == (pytest.approx(6 / 7), 7)
    assert (row["low"] > 0) == (stats.binomtest(6, 6, 0.5).pvalue <= 0.05)


def test_a_seed_without_one_of_its_runs_is_missing() -> None:
    frame = runs()
    frame = frame[~((frame["ablation"] == "frozen") & (frame["seed"] == 3))]
    for fields in (
        {"reference": "frozen"},
        {"test": "trend", "over": {"frozen": 1, "learned": 2}},
        {"test": "proportion", "above": 0.5, "reference": "frozen"},
    ):
        row = decided(frame, **fields)
        assert (row["num_seeds"], row["missing"]) == (7, 1)
    assert decided(frame, test="value", value=0.5)["num_seeds"] == 8
    nothing = frame[frame["ablation"] != "learned"]
    for fields in ({"test": "value", "value": 0.5}, {"test": "proportion", "above": 0.5, "value": 0.5}):
        row = decided(nothing, **fields)
        assert (row["verdict"], row["num_seeds"]) == ("undecided", 0)


def test_correlations_are_compared_on_fishers_z() -> None:
    name = "measured.importance_loss_correlation"
    row = decided(runs(statistic=name), statistic=name, reference="frozen", scale="fisher_z")
    expected = stats.ttest_rel(np.arctanh(VALUES["learned"]), np.arctanh(VALUES["frozen"])).confidence_interval(0.95)
    assert (row["low"], row["high"]) == pytest.approx((expected.low, expected.high))
    assert row["scale"] == "fisher_z"
    row = decided(runs(statistic=name), statistic=name, test="value", value=0.5, scale="fisher_z")
    assert row["difference"] == pytest.approx(np.mean(np.arctanh(VALUES["learned"])) - math.atanh(0.5))
    ones = runs({**VALUES, "learned": [1.0, *VALUES["learned"][1:]]}, name)
    assert decided(ones, statistic=name, reference="frozen", scale="fisher_z")["num_seeds"] == 7
    wrong = runs({**VALUES, "learned": [1.5, *VALUES["learned"][1:]]}, name)
    with pytest.raises(ValueError, match=r"hypotheses\.one: scale: fisher_z is for correlations, and a value is 1\.5"):
        decided(wrong, statistic=name, reference="frozen", scale="fisher_z")
