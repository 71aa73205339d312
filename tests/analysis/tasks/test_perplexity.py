"""Test that perplexity is the exponential of the mean over all tokens, whatever the documents."""

import math
from itertools import pairwise

import pandas as pd
import pytest

from speciate.analysis.tasks.means import Settings
from speciate.analysis.tasks.tasks import Runs, task_tables
from speciate.config.contracts.evaluation import SCORES


def scores(*documents: tuple[float, int]) -> pd.DataFrame:
    """Return the rows of documents with these nats per token and tokens."""
    rows = [
        {"metric": "nats_per_token", "part": "prose", "item": f"d{number}", "group": f"g{number}"}
        | {"length": -1, "depth": math.nan, "value": nats, "weight": float(tokens), "chance": math.nan}
        for number, (nats, tokens) in enumerate(documents)
    ]
    return pd.DataFrame(rows).astype(SCORES)


def test_perplexity_is_that_of_all_tokens_together() -> None:
    """Of 1 token at 4 nats and 3 at 2 nats the mean is 2.5 nats; documents' perplexities would average to 31."""
    one = {("arm", 0): (scores((4.0, 1), (2.0, 3)), "")}
    table = task_tables("held_out", one, Runs(["arm"], [0], "arm"), Settings(0.95, 99, 0))["tasks"]
    rows = table.set_index("metric")
    assert rows.loc["perplexity", "value"] == pytest.approx(math.exp(2.5), rel=1e-12)
    for bound in ("low", "high"):
        assert rows.loc["perplexity", bound] == pytest.approx(math.exp(rows.loc["nats_per_token", bound]), rel=1e-12)
    assert all(low < high for low, high in pairwise(rows.loc["perplexity", ["low", "value", "high"]].astype(float)))
    same = ["part", "interval", "num_seeds", "questions", "groups", "missing"]
    assert rows.loc["perplexity", same].equals(rows.loc["nats_per_token", same])


def test_over_seeds_it_is_the_geometric_mean() -> None:
    two = {("arm", seed): (scores((nats, 5)), "") for seed, nats in enumerate((1.0, 3.0))}
    table = task_tables("held_out", two, Runs(["arm"], [0, 1], "arm"), Settings(0.95, 99, 0))["tasks"]
    value = table.set_index("metric").loc["perplexity", "value"]
    assert value == pytest.approx(math.sqrt(math.exp(1.0) * math.exp(3.0)), rel=1e-12)
