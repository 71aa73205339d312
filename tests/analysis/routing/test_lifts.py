"""Test lifts, their intervals and their q-values."""

import numpy as np
import pytest
from scipy import stats
from tests.analysis.routing.planted import planted_record, router, selectors_of, texts

from speciate.analysis.routing.grouping import group_rows
from speciate.analysis.routing.judge import judge
from speciate.analysis.routing.lifts import lift_matrix, statistics_of_labels
from speciate.analysis.routing.pooled import PooledNull
from speciate.analysis.routing.settings import JudgeSettings


def test_a_lift_is_a_share_over_the_mean_of_the_labels_shares() -> None:
    share, lift = lift_matrix(np.array([[8.0, 2.0], [30.0, 10.0], [0.0, 0.0]]))
    assert share[:2] == pytest.approx(np.array([[0.8, 0.2], [0.75, 0.25]]))
    assert np.isnan(share[2]).all() and np.isnan(lift[2]).all()  # a label without a decision counts for nothing
    assert lift[:2] == pytest.approx(np.array([[0.8 / 0.775, 0.2 / 0.225], [0.75 / 0.775, 0.25 / 0.225]]))


def test_the_statistic_of_two_labels_is_welchs_t() -> None:
    draw = np.random.default_rng(0)
    unit_US = draw.dirichlet([20.0, 30.0, 50.0], size=14) * 1000  # equal sizes, more spread than tokens alone give
    domain_U = np.repeat([0, 1], [8, 6])
    observed_DS, drawn_BDS = statistics_of_labels(unit_US, domain_U, domain_U[None], num_chosen=1)
    expected = stats.ttest_ind(unit_US[:8], unit_US[8:], equal_var=False).statistic
    assert observed_DS[0] == pytest.approx(np.abs(expected), rel=1e-6)
    assert observed_DS[1] == pytest.approx(observed_DS[0])
    assert drawn_BDS.shape == (0, 2, 3)


def test_pooled_p_values_count_the_draws_of_all_tests() -> None:
    draw = np.random.default_rng(0)
    drawn_BT = np.abs(draw.standard_normal((200, 3))) * np.array([1.0, 10.0, 0.1])
    observed_T = np.array([2.5, 12.0, 0.05])
    null = PooledNull()
    null.add(observed_T, drawn_BT)
    null.skip(2)
    scaled_BT = drawn_BT / np.quantile(drawn_BT, 0.95, axis=0)
    scaled_T = observed_T / np.quantile(drawn_BT, 0.95, axis=0)
    expected = [(1 + (scaled_BT >= value).sum()) / (1 + scaled_BT.size) for value in scaled_T]
    found, skipped = null.p_values()
    assert found == pytest.approx(expected, abs=3 / 600)
    assert np.isnan(skipped).all() and len(skipped) == 2


def test_a_lone_preference_among_thousands_can_pass() -> None:
    # a permutation test alone has p >= 1 / (B + 1) and so q >= 6400 / 200: pooled, one of 6400 tests is found
    draw = np.random.default_rng(1)
    given = texts(draw, labels=5, documents=12, tokens=150)
    choices = {}
    for layer in range(20):
        score = 0.2 * draw.standard_normal((60, 64))[given.document_N]
        score[:, 7] += 2.5 * ((given.label_N == 3) & (layer == 4))
        choices[f"l{layer}"] = np.argmax(score + draw.gumbel(size=score.shape), axis=1)[:, None]
    lifts = judge(selectors_of(given, choices, 64, tokens=False), JudgeSettings(permutations=199, resamples=99)).tables[
        "lifts"
    ]
    assert len(lifts) == 6400
    found = lifts[lifts["q_value"] <= 0.05]
    best = found.loc[found["q_value"].idxmin()]
    assert (best["layer"], best["expert"], best["label"]) == (4, 7, "label 3")
    assert best["lift"] > 2 and best["lift_low"] > 1.5 and best["p_value"] < 1e-4
    # what that preference takes from the other labels and experts of its layer is true as well
    assert (found["layer"] == 4).all()


def test_without_any_preference_no_q_value_is_small() -> None:
    false_records, records = 0, 24
    for seed in range(records):
        draw = np.random.default_rng(seed)
        given = texts(draw, documents=8, tokens=40)
        record = selectors_of(given, {str(place): router("indifferent", draw, given, 16) for place in range(3)}, 16)
        lifts = judge(record, JudgeSettings(permutations=199, resamples=9)).tables["lifts"]
        false_records += bool((lifts["q_value"] <= 0.05).any())
    assert false_records <= 5  # binomial of 24 with .05: P(> 5) = .001


def test_intervals_of_lifts_hold_the_truth() -> None:
    # two labels of equal shares but for one expert: .3 against .2, lifts of 1.2 and .8
    held, number = 0, 0
    for seed in range(40):
        draw = np.random.default_rng(seed)
        given = texts(draw, labels=2, documents=10, tokens=100)
        taste_D = np.where(given.label_D == 0, 0.3, 0.2) + 0.05 * draw.uniform(-1, 1, len(given.label_D))
        choice_NK = (draw.random(len(given.token_N)) >= taste_D[given.document_N]).astype(np.int64)[:, None]
        lifts = judge(selectors_of(given, {"x": choice_NK}, 2), JudgeSettings(permutations=19, resamples=499)).tables[
            "lifts"
        ]
        for label, truth in (("label 0", 1.2), ("label 1", 0.8)):
            row = lifts[(lifts["expert"] == 0) & (lifts["label"] == label)].iloc[0]
            held += row["lift_low"] <= truth <= row["lift_high"]
            number += 1
    assert held >= stats.binom.ppf(0.001, number, 0.95)
    assert held < number  # an interval that always holds would be too wide


def test_controls_stand_beside_each_lift() -> None:
    record = planted_record(3, ("label", "token"), documents=12)
    lifts = judge(record, JudgeSettings(permutations=199, resamples=99)).tables["lifts"]
    strong = lifts[lifts["lift"] > 1.5]
    of_token, of_label = strong[strong["path"].str.endswith("token")], strong[strong["path"].str.endswith("label")]
    assert np.corrcoef(of_token["lift"], of_token["token_lift"])[0, 1] > 0.8
    assert (of_label["token_lift"] < of_label["lift"]).mean() > 0.9
    assert (of_label["shadow_lift"] < of_label["lift"]).mean() > 0.8
    assert lifts["placebo_lift"].mean() == pytest.approx(1, abs=0.05)
    assert (strong["placebo_lift"] < strong["lift"]).mean() > 0.9
    groups = group_rows(record, JudgeSettings())
    assert groups.num_groups == 36 and groups.labels == ("label 0", "label 1", "label 2")
