"""Test the share of a choice that a predictor explains: by enumeration, at its two ends, and on planted runs."""

import itertools
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import mutual_info_score

from speciate.analysis.effects import agreement
from speciate.analysis.layers import predictors
from speciate.analysis.observation import Groups, Settings, Texts

SETTINGS = Settings(
    num_steps=1, seed=0, permutations=19, resamples=19, confidence=0.9, armed_after=0.1, min_occurrences=1
)


def test_the_share_is_corrected_by_the_mean_over_all_orders() -> None:
    part, value = [0, 0, 1, 1, 2, 0, 1], [5, 5, 5, 8, 8, 8, 9]
    by_chance = np.mean([mutual_info_score(order, value) for order in set(itertools.permutations(part))])
    found = predictors.explained(np.array(part), np.array(value), SETTINGS)
    entropy = -sum(p * np.log(p) for p in (3 / 7, 3 / 7, 1 / 7))
    information = mutual_info_score(part, value)
    assert found["by_chance_bits"] == pytest.approx(by_chance / np.log(2))
    assert found["information_bits"] == pytest.approx(information / np.log(2))
    assert found["entropy_bits"] == pytest.approx(entropy / np.log(2))
    assert found["share"] == pytest.approx((information - by_chance) / (entropy - by_chance))
    assert (found["decisions"], found["values"]) == (7, 3)


def test_many_values_explain_nothing_by_chance_and_a_function_explains_all() -> None:
    draw = np.random.default_rng(0)
    value, part = draw.integers(0, 500, 2000), draw.choice(4, 2000, p=[0.7, 0.1, 0.1, 0.1])
    found = predictors.explained(part, value, SETTINGS)
    assert found["information_bits"] > 0.2, "the plug-in estimate is far from zero"
    assert abs(found["share"]) < 0.06
    assert found["null_low"] < 0 < found["null_high"]
    assert found["p_value"] > 0.01
    function = predictors.explained(value % 3, value, SETTINGS)
    assert function["share"] == pytest.approx(1.0)
    assert function["p_value"] == pytest.approx(0.01)
    collapsed = predictors.explained(value * 0, value, SETTINGS)
    assert np.isnan(collapsed["share"])
    assert collapsed["entropy_bits"] == 0
    assert predictors.explained(part[:0], value[:0], SETTINGS)["decisions"] == 0


def test_the_expectation_of_large_partitions_is_the_mean_over_shuffles() -> None:
    draw = np.random.default_rng(1)
    value, part = draw.zipf(1.5, 900) % 200, draw.choice(5, 900)
    counts = agreement.contingency(part, value)
    expected = agreement.expected_information(counts.sum(1), counts.sum(0))
    drawn = [mutual_info_score(draw.permutation(part), value) for _ in range(200)]
    assert expected == pytest.approx(np.mean(drawn), abs=4 * np.std(drawn) / 200**0.5)


def test_the_token_before_is_of_the_same_document_and_block() -> None:
    groups = Groups(("code",), np.zeros(3, int), np.zeros(1, int))
    token_P, document_P = np.array([4, 5, 6, 7, 8, 9, 10, 11]), np.array([0, 0, 1, 1, 1, 2, 2, -1])
    texts = Texts(groups, token_P, np.zeros(8, int), document_P, 4, np.zeros(8, int), ())
    found = predictors.predictors(texts)
    assert found["previous_token"].tolist() == [-1, 4, -1, 6, -1, -1, 9, -1]
    assert found["position"].tolist() == [0, 1, 2, 3] * 2


def test_planted_routers_follow_the_token(table: Callable[[str], pd.DataFrame]) -> None:
    rows = table("predictors").set_index(["ablation", "predictor"]).sort_index()
    assert rows.loc[("hash", "token"), "share"].to_numpy() == pytest.approx(1.0)
    assert ((rows.loc[("frozen", "token"), "share"] > 0.3) & (rows.loc[("frozen", "token"), "share"] < 0.99)).all()
    for predictor in ("position", "previous_token"):
        unrelated = rows.loc[("frozen", predictor)]
        assert unrelated["share"].abs().max() < 0.05
        assert (unrelated["p_value"] > 0.01).all()
    # 36 blocks of 64 tokens, in each two documents: two positions of each block have no token before them
    assert rows.loc[("frozen", "previous_token"), "decisions"].unique().tolist() == [36 * 62]
