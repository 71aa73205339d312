"""Test how the report words a prediction about a trend, a trend of differences, and a collapse rule."""

import types
from typing import Any

import pandas as pd

from speciate.analysis.hypotheses import hypotheses_table
from speciate.config.stage_specs import Prediction
from speciate.reporting.report_tables import hypothesis_rows, statistic_name


def worded(**fields: Any) -> dict[str, str]:
    """Return the report's row of one prediction about runs whose values are planted here."""
    rows = [
        (arm, seed, value + 0.1 * seed, 1, 40.0 if arm == "fast_100" else float("nan"))
        for arm, value in (("fast_10", 1.0), ("fast_100", 3.0), ("slow_10", 0.5), ("slow_100", 0.5))
        for seed in range(3)
    ]
    runs = pd.DataFrame(rows, columns=["ablation", "seed", "loss", "num_selectors", "alarm_step"])
    first = {"name": "one", "statement": "s", "statistic": "loss", "arm": "fast_100", "direction": "greater"}
    prediction = Prediction.model_validate({**first, **fields})
    table = hypotheses_table(runs, [prediction.model_dump()], (0, 1, 2), 0.95)
    spec: Any = types.SimpleNamespace(hypotheses=["one"], confidence=0.95)
    (row,) = hypothesis_rows({"hypotheses": table}, spec)
    return row


def test_a_trend_names_its_arms_and_what_is_subtracted() -> None:
    over = {"fast_10": 10, "fast_100": 100}
    plain = worded(test="trend", over=over, per="tenfold")
    assert (
        plain["prediction"] == "test loss, nats: slope per tenfold increase over fast 10 = 10, fast 100 = 100 > 0.000"
    )
    minus = {"fast_10": "slow_10", "fast_100": "slow_100"}
    differences = worded(test="trend", over=over, minus=minus, per="tenfold")
    assert differences["prediction"] == (
        "test loss, nats: slope per tenfold increase over fast 10 − slow 10 = 10, fast 100 − slow 100 = 100 > 0.000"
    )
    assert differences["measured"].startswith("+2")


def test_a_rule_is_called_by_its_name() -> None:
    row = worded(statistic="fired.alarm", test="proportion", above=0.5, value=0.5)
    assert row["prediction"] == "share of runs in which this rule fired (our alarm): fast 100 > 0.500"
    assert row["measured"].startswith("1")


def test_a_part_of_a_run_is_named_with_its_statistic() -> None:
    assert statistic_name("loss.code") == "test loss on code, nats"
    assert statistic_name("max_share.layer9") == "largest share in layer 9"
    assert (
        statistic_name("type_share.keyword.layer8") == "largest share of keyword tokens that one slot gets in layer 8"
    )
