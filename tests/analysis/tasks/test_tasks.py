"""Test the tables of tasks against hand counts, scipy's intervals and scores whose truth is known."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from speciate.analysis.tasks.cells import Answers
from speciate.analysis.tasks.means import Settings, difference_of_runs, is_at_chance, mean_of_runs
from speciate.analysis.tasks.tasks import Runs, task_tables
from speciate.config.contracts.evaluation import SCORES

SETTINGS = Settings(confidence=0.95, resamples=1999, draw_seed=0)
NAN = math.nan


def answers(value, weight=1.0, group=None, chance=NAN) -> Answers:
    """Return one run's answers, each a group of its own unless groups are given."""
    value = np.asarray(value, dtype=float)
    number = np.arange(len(value))
    full = [np.broadcast_to(np.asarray(column, dtype=float), value.shape) for column in (weight, chance)]
    return Answers(number, number if group is None else np.asarray(group), value, *full)


def scores(rows: list[tuple[object, ...]]) -> pd.DataFrame:
    """Return a run's table of scores, from rows (part, item, group, length, depth, value, weight, chance)."""
    return pd.DataFrame([("accuracy", *row) for row in rows], columns=list(SCORES)).astype(SCORES)


def test_the_mean_over_seeds_has_students_interval() -> None:
    runs = [answers([1, 0, 1, 1], [1, 2, 3, 4]), answers([0, 0, 1, 0], [1, 2, 3, 4]), answers([1, 1, 1, 1])]
    means = [0.8, 0.3, 1.0]  # (1 + 3 + 4) / 10, 3 / 10
    found = mean_of_runs(runs, SETTINGS)
    expected = stats.ttest_1samp(means, 0).confidence_interval(0.95)
    assert (found.value, found.low, found.high) == pytest.approx((0.7, expected.low, expected.high))
    assert found.interval == "seeds"


@pytest.mark.parametrize(
    ("metric", "bounds"),
    [(name, (0.0, 1.0)) for name in ("accuracy", "choice_accuracy", "acc_norm", "exact_match_strict", "pass_at_1")]
    + [("nats_gained", None), ("bits_per_byte", None)],
)
def test_the_interval_of_a_proportion_lies_where_a_proportion_can(metric: str, bounds) -> None:
    means = (0.0, 1.0, 0.5)
    runs = {
        ("learned", seed): (scores([("", "a", "a", -1, NAN, mean, 1, NAN)]).assign(metric=metric), "")
        for seed, mean in enumerate(means)
    }
    row = task_tables("t", runs, Runs(["learned"], range(3), "learned"), SETTINGS)["tasks"].iloc[0]
    student = stats.ttest_1samp(means, 0).confidence_interval(0.95)
    assert student.low < 0 and student.high > 1
    assert (row["low"], row["high"]) == pytest.approx(bounds or (student.low, student.high))


def test_an_interval_that_is_not_there_stays_away() -> None:
    runs = {("learned", 0): (scores([("", "a", "a", -1, NAN, 1.0, 1, NAN)]), "")}
    row = task_tables("t", runs, Runs(["learned"], [0], "learned"), SETTINGS)["tasks"].iloc[0]
    assert row["value"] == 1 and math.isnan(row["low"]) and math.isnan(row["high"])


def test_one_seed_has_the_bootstrap_over_groups() -> None:
    random = np.random.default_rng(3)
    value, group = random.normal(2, 1, 300), np.repeat(np.arange(60), 5)
    value += random.normal(0, 1, 60)[group]
    found = mean_of_runs([answers(value, group=group)], SETTINGS)
    assert found.value == pytest.approx(value.mean())
    assert found.interval == "questions"
    of_groups = value.reshape(60, 5).mean(1)
    low, high = stats.bootstrap((of_groups,), np.mean, n_resamples=9999, method="percentile", rng=1).confidence_interval
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.03)
    # questions of one group are not independent, so the interval is wider than theirs would be
    alone = mean_of_runs([answers(value)], SETTINGS)
    assert found.high - found.low > 1.4 * (alone.high - alone.low)


def test_seeds_that_agree_have_the_bootstrap_and_equal_questions_nothing() -> None:
    same = [answers([1, 0, 1, 0, 1, 1]), answers([0, 1, 1, 1, 0, 1])]
    found = mean_of_runs(same, SETTINGS)
    assert (found.value, found.interval) == (pytest.approx(4 / 6), "questions")
    assert found.low < 4 / 6 < found.high
    # three tenths in another order differ by rounding, which is no spread
    rounding = [answers([0.1, 0.2, 0.3, 0.7]), answers([0.3, 0.7, 0.1, 0.2])]
    assert rounding[0].mean() == pytest.approx(rounding[1].mean())
    assert mean_of_runs(rounding, SETTINGS).interval == "questions"
    perfect = mean_of_runs([answers([1, 1, 1]), answers([1, 1, 1])], SETTINGS)
    assert (perfect.value, perfect.interval) == (1, "") and math.isnan(perfect.low)
    one_group = mean_of_runs([answers([1, 0, 1], group=[0, 0, 0])], SETTINGS)
    assert (one_group.value, one_group.interval) == (pytest.approx(2 / 3), "") and math.isnan(one_group.low)


def test_a_difference_is_paired_by_question_and_by_seed() -> None:
    random = np.random.default_rng(5)
    hard = random.normal(0, 10, 200)  # the questions differ far more than the arms do
    pairs = [(answers(hard + shift + random.normal(0, 0.1, 200)), answers(hard)) for shift in (1.0, 1.2, 1.1)]
    found = difference_of_runs(pairs, SETTINGS)
    expected = stats.ttest_1samp([arm.mean() - other.mean() for arm, other in pairs], 0)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval(0.95)))
    one = difference_of_runs(pairs[:1], SETTINGS)
    expected = stats.ttest_rel(pairs[0][0].value_Q, pairs[0][1].value_Q).confidence_interval(0.95)
    assert one.interval == "questions"
    assert (one.low, one.high) == pytest.approx(tuple(expected), abs=0.004)


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    random, held = np.random.default_rng(7), 0
    for _ in range(400):
        found = mean_of_runs([answers(random.random(12) < 0.4)], Settings(0.95, 199, 0))
        held += found.low <= 0.4 <= found.high
    assert 0.88 <= held / 400 <= 0.99


def test_chance_is_left_only_where_seeds_and_questions_agree() -> None:
    guessed = [answers([1, 0, 0, 0, 1, 0, 0, 0], chance=0.25)] * 2
    assert is_at_chance(guessed, SETTINGS)
    known = [answers([1, 1, 1, 0, 1, 1, 1, 1], chance=0.25), answers([1, 1, 1, 1, 1, 0, 1, 1], chance=0.25)]
    assert not is_at_chance(known, SETTINGS)
    # three seeds with the same luck on few questions: the interval over seeds alone would say that they know
    lucky = [answers([1, 1, 0, 0], chance=0.25) for _ in range(2)] + [answers([1, 0.99, 0, 0], chance=0.25)]
    assert mean_of_runs([run.beyond_chance() for run in lucky], SETTINGS).low > 0
    assert is_at_chance(lucky, SETTINGS)
    # without spread there is no interval, and the mean decides
    assert is_at_chance([answers([0, 0, 0], chance=0.1)], SETTINGS)
    assert not is_at_chance([answers([1, 1, 1], chance=0.1)], SETTINGS)
    assert not is_at_chance([answers([1, 0, 1])], SETTINGS), "nothing says what guessing scores"


def test_guessing_is_called_above_chance_no_more_often_than_its_level() -> None:
    random = np.random.default_rng(11)
    settings = Settings(0.95, 199, 0)
    above = 0
    for _ in range(300):
        luck = random.random(20) < 0.3
        runs = [answers(np.where(random.random(20) < 0.9, luck, random.random(20) < 0.3), chance=0.3) for _ in range(3)]
        above += not is_at_chance(runs, settings)
    assert above / 300 <= 0.05


def test_cells_pool_depths_and_then_lengths() -> None:
    rows = [
        ("", f"{length}_{depth}_{number}", f"{number}", length, depth, float(value), 1.0, 0.1)
        for length, depth, values in ((8, 0.0, (1, 1)), (8, 1.0, (0, 0)), (16, 0.0, (1, 0)), (16, 1.0, (0, 0)))
        for number, value in enumerate(values)
    ]
    runs = Runs(("one", "two"), (0,), "one")
    scored = {("one", 0): (scores(rows), ""), ("two", 0): (scores(rows), "")}
    table = task_tables("needle", scored, runs, SETTINGS)["tasks"]
    found = [
        (row.length, None if math.isnan(row.depth) else row.depth, row.over, row.value, row.questions, row.groups)
        for row in table[table["ablation"] == "one"].itertuples()
    ]
    assert found == [
        (8, 0.0, "", 1.0, 2, 2),
        (8, 1.0, "", 0.0, 2, 2),
        (8, None, "depths", 0.5, 4, 2),
        (16, 0.0, "", 0.5, 2, 2),
        (16, 1.0, "", 0.0, 2, 2),
        (16, None, "depths", 0.25, 4, 2),
        (-1, None, "lengths and depths", 0.375, 8, 2),
    ]
    differences = task_tables("needle", scored, runs, SETTINGS)["task_differences"]
    assert (differences["difference"] == 0).all() and len(differences) == 7


def test_what_does_not_vary_has_one_row_a_part() -> None:
    rows = [(part, f"{n}", f"{n}", -1, NAN, value, 1.0, NAN) for part, value in (("b", 2.0), ("a", 1.0)) for n in "xy"]
    table = task_tables("reading", {("one", 0): (scores(rows), "")}, Runs(("one",), (0,), "one"), SETTINGS)["tasks"]
    assert table[["part", "value", "over"]].to_numpy().tolist() == [["b", 2.0, ""], ["a", 1.0, ""]]
    assert table["chance"].isna().all() and not table["at_chance"].any()


def test_arms_are_compared_on_what_both_have() -> None:
    def run(values: dict[str, float]) -> pd.DataFrame:
        return scores([("", item, item, -1, NAN, value, 1.0, NAN) for item, value in values.items()])

    nothing = scores([])
    scored = {
        ("one", 0): (run({"a": 1, "b": 0, "c": 1}), ""),
        ("one", 1): (run({"a": 0, "b": 0, "c": 1}), ""),
        ("two", 0): (run({"c": 0, "b": 1}), ""),
        ("two", 1): (nothing, "too long"),
        ("three", 0): (nothing, "too long"),
        ("three", 1): (nothing, "the run failed"),
    }
    made = task_tables("t", scored, Runs(("one", "two", "three"), (0, 1), "one"), SETTINGS)
    table = made["tasks"].set_index("ablation")
    assert table.loc["one", ["value", "num_seeds", "missing", "questions", "reason"]].tolist() == [0.5, 2, 0, 3, ""]
    assert table.loc["two", ["value", "num_seeds", "missing", "reason"]].tolist() == [0.5, 1, 1, "too long"]
    assert table.loc["three", ["num_seeds", "missing", "reason"]].tolist() == [0, 2, "too long; the run failed"]
    assert math.isnan(table.loc["three", "value"]) and table.loc["three", "metric"] == ""
    (row,) = made["task_differences"].itertuples()
    # on b and c at seed 0: (1 + 0) / 2 minus (0 + 1) / 2
    assert (row.ablation, row.reference, row.difference, row.num_seeds, row.missing) == ("two", "one", 0, 1, 1)
    assert row.questions == 2


def test_a_task_without_any_score_has_a_row_for_each_arm() -> None:
    scored = {(arm, 0): (scores([]), "no file") for arm in ("one", "two")}
    made = task_tables("t", scored, Runs(("one", "two"), (0,), "one"), SETTINGS)
    assert made["tasks"]["reason"].tolist() == ["no file", "no file"]
    assert made["task_differences"].empty
