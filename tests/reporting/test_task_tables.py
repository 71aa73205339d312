"""Test what the report says of tasks whose answers are planted."""

import math

import pytest
from tests.figures import planted, planted_tasks

from speciate.config.stage_specs import Arm, ReportSpec
from speciate.reporting import task_tables
from speciate.reporting.task_tables import TaskPart

ARMS = ("dense", "auxiliary", "unbalanced_fast", "frozen", "hash")
SETTINGS = {
    "study": "tiny",
    "question": "",
    "arms": tuple(Arm(name=arm, about=arm) for arm in ARMS),
    "domains": ("code", "prose"),
    "reference": "auxiliary",
    "controls": ("frozen",),
    "hypotheses": (),
    "figures": (),
    "confidence": 0.95,
    "armed_after": 0.1,
    "margin": 0.05,
    "permutations": 99,
    "resamples": 99,
    "tasks": planted_tasks.TASKS,
    "config_digest": "c0ffee",
}


def parts(seeds: tuple[int, ...], domains: tuple[str, ...] = ("code", "prose")) -> dict[str, TaskPart]:
    """Return what is said of the planted tasks."""
    spec = ReportSpec(**{**SETTINGS, "seeds": seeds})
    found = task_tables.task_parts(planted_tasks.tables(ARMS, seeds, domains), spec)
    return {part.name: part for part in found}


def test_lengths_are_columns_and_chance_and_reasons_are_said() -> None:
    needle, reading = parts((0, 1)).values()
    (table,) = needle.tables
    labels = [column.label for column in table.columns]
    assert labels[:2] == ["arm", "128 tokens (40 questions)"]
    assert labels[-2:] == ["all lengths (160 questions)", "seeds"]
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["auxiliary"] == ["1.000"] * 5 + ["2"]
    # round(0.1 x 8) = 1 of 8 is a little above 0.1, and not beyond chance
    assert all(cell.startswith("0.125 [") and cell.endswith("], at chance") for cell in rows["frozen"][:5])
    # the needle is found at one depth of five
    assert rows["unbalanced fast"][0].startswith("0.200")
    assert rows["guessing"] == ["0.100"] * 5 + ["–"]
    assert needle.text == "Above chance in accuracy: dense, auxiliary, unbalanced fast and hash of 5 arms."
    assert reading.text == f"No score of hash: {planted_tasks.REASON}."
    table, perplexity = reading.tables
    assert [column.label for column in table.columns][1:3] == ["code (6 questions)", "prose (6 questions)"]
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["hash"] == [f"no score: {planted_tasks.REASON}", "–", "0"]
    # 3.25 and 3.26 at two seeds: t = 12.706, so 3.255 +- 12.706 x 0.005
    assert rows["dense"] == ["3.255 [3.191, 3.319]"] * 2 + ["2"]
    assert "guessing" not in rows
    assert perplexity.title == "reading: perplexity"
    # the exponentials of the mean and of its interval, 3.255 +- 0.0635
    assert {row[0]: row[1] for row in perplexity.rows}["dense"] == "25.920 [24.324, 27.620]"


def test_differences_are_those_of_the_pooled_rows() -> None:
    needle = parts((0, 1))["needle"]
    (table,) = needle.differences
    assert table.title == "needle: arm minus auxiliary"
    rows = {row[2]: row for row in table.rows}
    assert set(rows) == {"dense", "unbalanced fast", "frozen", "hash"}
    assert rows["frozen"][3] == "−0.875" and rows["frozen"][5:] == ["160", "2"]


def test_one_seed_has_intervals_over_questions_and_many_parts_have_rows() -> None:
    several = parts((0,), tuple(f"part_{number}" for number in range(8)))
    assert "a bootstrap over groups of questions" in several["needle"].tables[0].note
    table, _ = several["reading"].tables
    assert [column.label for column in table.columns] == ["part", "arm", "score", "guessing", "questions", "seeds"]
    assert [row[:2] for row in table.rows[:2]] == [["part 0", "dense"], ["part 0", "auxiliary"]]
    assert len(table.rows) == 8 * 4


def test_a_study_without_tasks_says_nothing() -> None:
    assert task_tables.task_parts({}, ReportSpec(**{**SETTINGS, "seeds": (0,), "tasks": ()})) == []


def test_the_planted_scores_are_what_they_say() -> None:
    for arm, length, depth, expected in (("auxiliary", 1024, 0.5, 1.0), ("unbalanced_fast", 128, 1.0, 1.0)):
        rows = planted_tasks.needle(arm, 0)
        of_cell = rows[(rows["length"] == length) & (rows["depth"] == depth)]
        assert of_cell["value"].mean() == pytest.approx(expected)
    assert math.isclose(planted_tasks.needle_probability("dense", 1024, 0), 0.3)
    assert "tasks" in planted.tables(("dense", "auxiliary"), num_layers=1, seeds=(0,), num_steps=10)
