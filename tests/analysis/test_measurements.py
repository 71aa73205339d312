"""Test what modules recorded: as rows, as a statistic of a run, and in comparisons and hypotheses."""

import pathlib

import numpy as np
import pandas as pd
import pytest

from speciate.analysis.hypotheses import hypotheses_table
from speciate.analysis.measurements import measured_statistics, measurements_table
from speciate.config.stage_specs import Prediction


def test_rows_are_of_the_prefix_while_training_and_of_the_whole_probe_at_the_end() -> None:
    logged = [{"step": 0, "measured": [["blocks.3.mixer", "recall", None, 0.25]]}, {"step": 1, "loss": 2.0}]
    rows = measurements_table(logged, [["objective", "mask_rate", 0.5, 0.125]], 9)
    assert rows[["step", "probe", "path", "layer", "name", "value"]].to_numpy().tolist() == [
        [0, "telemetry", "blocks.3.mixer", 3, "recall", 0.25],
        [9, "full", "objective", -1, "mask_rate", 0.125],
    ]
    np.testing.assert_array_equal(rows["at"], [np.nan, 0.5])


def test_a_statistic_is_the_mean_over_modules_of_the_finished_model() -> None:
    runs = [("a", 0, "full", "recall", np.nan, 0.2), ("a", 0, "full", "recall", np.nan, 0.6)]
    runs += [("a", 0, "telemetry", "recall", np.nan, 9.0), ("a", 0, "full", "share", 1.0, 9.0)]
    frame = pd.DataFrame(runs, columns=["ablation", "seed", "probe", "name", "at", "value"]).assign(path="blocks.0")
    beside = pd.DataFrame([("a", 0, "full", "recall", np.nan, 9.0)], columns=frame.columns[:-1])
    frame = pd.concat([frame, beside.assign(path="parts.importance.0")])
    assert measured_statistics(frame).to_dict("records") == [
        {"ablation": "a", "seed": 0, "measured.recall": pytest.approx(0.4)}
    ]


def test_arms_are_compared_in_what_was_measured(study: pathlib.Path) -> None:
    rows = pd.read_parquet(study / "tables" / "comparisons.parquet").set_index(["statistic", "ablation"])
    assert rows.loc[("measured.recall", "dense"), "difference"] == pytest.approx(0.4)
    measured = pd.read_parquet(study / "tables" / "measurements.parquet")
    final = measured[(measured["probe"] == "full") & (measured["ablation"] == "dense") & (measured["seed"] == 0)]
    assert sorted(final[final["name"] == "share"]["at"]) == [1.0, 2.0]


def hypothesis(statistic: str) -> dict[str, object]:
    names = {"name": "one", "statement": "s", "arm": "a", "reference": "b", "direction": "greater", "margin": 0.1}
    return Prediction(**names, statistic=statistic).model_dump()


def test_a_hypothesis_may_be_about_a_measurement() -> None:
    rows = [
        (arm, seed, value + seed / 100 * (arm == "a")) for arm, value in (("a", 0.9), ("b", 0.1)) for seed in range(4)
    ]
    runs = pd.DataFrame(rows, columns=["ablation", "seed", "measured.recall"])
    result = hypotheses_table(runs, [hypothesis("measured.recall")], (0, 1, 2, 3), 0.95)
    assert result["verdict"].tolist() == ["supported"]
    with pytest.raises(
        ValueError, match=r"hypotheses\.one: statistic: nothing in this study is called measured\.recal"
    ):
        hypotheses_table(runs, [hypothesis("measured.recal")], (0, 1, 2, 3), 0.95)


def test_where_every_run_failed_it_is_undecided() -> None:
    runs = pd.DataFrame(columns=["ablation", "seed"])
    result = hypotheses_table(runs, [hypothesis("measured.recall")], (0, 1), 0.95)
    assert result["verdict"].tolist() == ["undecided"]
