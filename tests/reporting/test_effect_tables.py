"""Test the table of need: how selective the slots are, and the interval of what is beyond the controls."""

import types
from typing import Any

import numpy as np
import pandas as pd
import scipy.stats

from speciate.reporting.effect_tables import effect_tables

EXCESS = [0.012, 0.020, 0.031, 0.017]


def need_rows(excess: list[float]) -> list[list[str]]:
    effects = pd.DataFrame(
        {
            "ablation": "learned",
            "seed": np.arange(len(excess)),
            "selector": "blocks.0.ffn.router",
            "layer": 0,
            "matched_nats": 0.1,
            "matched_low_nats": 0.05,
            "matched_high_nats": 0.2,
            "random_nats": 0.1,
            "top_nats": 0.1,
            "in_domain_nats": 0.1,
            **{f"kept_{kind}_nats": 0.1 for kind in ("loaded", "lifted", "random")},
            "use": "used",
            "need_correlation": 0.5,
            "selectivity_nats": 0.04,
            "selectivity_low_nats": 0.01,
            "selectivity_high_nats": 0.06,
            "selectivity_excess_nats": excess,
        }
    )
    interventions = pd.DataFrame(columns=["ablation", "selector", "intervention", "domain", "cost_nats"], dtype=object)
    spec: Any = types.SimpleNamespace(arms=[types.SimpleNamespace(name="learned")], confidence=0.95, margin=0.01)
    tables = effect_tables({"effects": effects, "interventions": interventions}, spec)
    (need,) = [table for table in tables if table.title.startswith("Does a domain need")]
    return [list(row) for row in need.rows]


def test_selectivity_beyond_the_controls_has_students_interval_over_seeds() -> None:
    low, high = scipy.stats.t.interval(0.95, 3, np.mean(EXCESS), scipy.stats.sem(EXCESS))
    assert need_rows(EXCESS) == [
        ["learned", "0.ffn.router", "+0.500", "+0.040", "[+0.010, +0.060]", f"+0.020 [+{low:.3f}, +{high:.3f}]"]
    ]


def test_without_controls_or_with_one_seed_the_cell_says_what_there_is() -> None:
    assert need_rows([float("nan")] * 3)[0][-1] == "–"
    assert need_rows([0.02])[0][-1] == "+0.020"
