"""Test load against an uneven null: f / q, renormalised, so a load equal to the null counts as even."""

import numpy as np
import pytest

from speciate.analysis import collapse, load
from speciate.analysis.observation import shares_against_null


def test_with_an_even_null_it_is_the_share_to_the_last_bit() -> None:
    chosen_KS = np.random.default_rng(0).integers(0, 100, (5, 6)).astype(float)
    result = shares_against_null(chosen_KS, np.full((5, 6), 7 / 6))
    np.testing.assert_array_equal(result, chosen_KS / chosen_KS.sum(-1, keepdims=True))


def test_a_selector_that_does_as_the_null_does_is_even() -> None:
    null_S = np.array([0.875, 0.125]) * 400
    np.testing.assert_allclose(shares_against_null(null_S * 3, null_S), [0.5, 0.5])


def test_by_hand() -> None:
    # 3/4 over 3/4 and 1/4 over 1/8 and 0 over 1/8: 1 : 2 : 0
    result = shares_against_null(np.array([6.0, 2.0, 0.0]), np.array([6.0, 1.0, 1.0]))
    np.testing.assert_allclose(result, [1 / 3, 2 / 3, 0])


def test_a_depth_that_runs_its_capacity_has_not_collapsed_and_one_that_skips_all_has() -> None:
    null_KS = np.tile([0.875, 0.125], (4, 1)) * 1000
    healthy, skips = shares_against_null(null_KS, null_KS), shares_against_null(np.tile([1.0, 0.0], (4, 1)), null_KS)
    assert not collapse.rule_3_over_e([healthy]).any()
    assert collapse.rule_3_over_e([skips]).all()
    np.testing.assert_allclose(load.max_violation(skips), 1)


def test_a_slot_that_the_null_hardly_knows_has_no_share() -> None:
    result = shares_against_null(np.array([5.0, 90.0, 5.0]), np.array([0.0, 95.0, 5.0]))
    assert result[0] == 0
    assert result.sum() == pytest.approx(1)


def test_nothing_chosen_is_not_a_number() -> None:
    assert np.isnan(shares_against_null(np.zeros(3), np.array([1.0, 2.0, 3.0]))).all()
