"""Test which experts are chosen together: the expected numbers by enumeration, the test by planted pairs."""

from itertools import combinations, product

import numpy as np
import pytest
from tests.analysis.routing.planted import choose, selectors_of, texts

from speciate.analysis.routing.judge import judge
from speciate.analysis.routing.settings import JudgeSettings
from speciate.analysis.routing.single_tokens import subsets


def enumerated(weight_S: np.ndarray, k: int) -> np.ndarray:
    """Return P(both) of every pair, with the loads in the diagonal, where P(A) is as the product of A's weights."""
    both_SS, total = np.zeros((len(weight_S), len(weight_S))), 0.0
    for chosen in combinations(range(len(weight_S)), k):
        weight = float(np.prod(weight_S[list(chosen)]))
        total += weight
        both_SS[np.ix_(chosen, chosen)] += weight
    return both_SS / total


@pytest.mark.parametrize(("slots", "k"), [(3, 1), (3, 2), (4, 2), (6, 3), (8, 2), (9, 5), (5, 4)])
def test_expected_pairs_are_those_of_all_subsets(slots: int, k: int) -> None:
    weight_S = np.exp(np.random.default_rng(slots * k).standard_normal(slots))
    expected_SS = enumerated(weight_S, k)
    size_J = np.zeros(k + 1)
    size_J[k] = 1
    found_SS = subsets.pair_probabilities(np.diag(expected_SS).copy(), size_J)
    assert found_SS == pytest.approx(expected_SS, abs=1e-7)


def test_expected_pairs_of_tokens_that_choose_one_to_three() -> None:
    weight_S = np.exp(np.random.default_rng(0).standard_normal(6))
    share = np.array([0.0, 0.5, 0.3, 0.2])
    expected_SS = sum(share[k] * enumerated(weight_S, k) for k in (1, 2, 3))
    assert subsets.pair_probabilities(np.diag(expected_SS).copy(), share) == pytest.approx(expected_SS, abs=1e-7)


def test_the_law_is_that_of_all_tables_with_the_same_loads() -> None:
    # all ways in which 6 tokens can choose 2 of 4 experts with loads of 5, 4, 2, 1: the mean number of pairs
    loads, pairs = np.array([5, 4, 2, 1]), list(combinations(range(4), 2))
    together, tables = np.zeros((4, 4)), 0
    for rows in product(pairs, repeat=6):
        if (np.bincount(np.ravel(rows), minlength=4) == loads).all():
            tables += 1
            for one, other in rows:
                together[one, other] += 1
    expected = together / tables
    found = 6 * subsets.pair_probabilities(loads / 6, np.array([0.0, 0.0, 1.0]))
    # exact in the limit of many tokens: with six, the largest-entropy law is within a tenth of a token
    assert np.abs(np.triu(found, 1) - expected).max() < 0.1
    assert np.triu(found, 1).sum() == pytest.approx(6)


@pytest.mark.parametrize("weights", [[1e4, 1, 0.5], [1e5, 1e4, 1, 0.1], [1e6, 3, 1, 1, 1e-5]])
def test_loads_near_one_and_near_zero(weights: list[float]) -> None:
    expected_SS = enumerated(np.array(weights), 2)
    found_SS = subsets.pair_probabilities(np.diag(expected_SS).copy(), np.array([0.0, 0.0, 1.0]))
    assert found_SS == pytest.approx(expected_SS, abs=1e-6)


def test_an_expert_that_is_never_or_always_chosen() -> None:
    found_SS = subsets.pair_probabilities(np.array([1.0, 0.6, 0.4, 0.0]), np.array([0.0, 0.0, 1.0]))
    assert found_SS[0] == pytest.approx([1, 0.6, 0.4, 0], abs=1e-5)
    assert found_SS[1, 2] == pytest.approx(0, abs=1e-5)


def planted_pairs(seed: int, planted: bool) -> tuple[np.ndarray, object]:
    draw = np.random.default_rng(seed)
    given = texts(draw, labels=1, documents=40, tokens=200)
    score = np.array([1.0, 0.5, 0, 0, 0, -0.5]) + np.zeros((len(given.token_N), 1))
    choice_NK = choose(draw, score, 3)
    if planted:  # the first and the last choice of tokens with expert 4: 4 and 5 go together
        with_4 = (choice_NK == 4).any(axis=1) & ~(choice_NK == 5).any(axis=1) & (draw.random(len(choice_NK)) < 0.5)
        place = np.where(choice_NK[with_4, 0] == 4, 1, 0)
        choice_NK[np.nonzero(with_4)[0], place] = 5
    return choice_NK, selectors_of(given, {"x": choice_NK}, 6, labels=False)


def test_a_planted_pair_is_found_whatever_the_ranks() -> None:
    choice_NK, record = planted_pairs(0, planted=True)
    table = judge(record, JudgeSettings(permutations=999, resamples=19)).tables["pairs"]
    assert len(table) == 15
    row = table[(table["expert"] == 4) & (table["other"] == 5)].iloc[0]
    chosen_NS = (choice_NK[:, :, None] == np.arange(6)).any(axis=1)
    assert row["together"] == (chosen_NS[:, 4] & chosen_NS[:, 5]).sum()
    assert row["ratio"] > 1.3 and row["q_value"] < 0.01
    assert table.loc[table["ratio"].idxmax(), ["expert", "other"]].to_list() == [4, 5]
    # what loads alone give is far from what independent experts would: 3 of 6 exclude each other
    load_S = chosen_NS.mean(axis=0)
    assert row["expected"] < 0.95 * load_S[4] * load_S[5] * len(chosen_NS)


def test_without_pairs_no_q_value_is_small() -> None:
    false_records, records = 0, 40
    for seed in range(records):
        _, record = planted_pairs(seed, planted=False)
        table = judge(record, JudgeSettings(permutations=199, resamples=9)).tables["pairs"]
        false_records += bool((table["q_value"] <= 0.05).any())
        assert table["ratio"].between(0.8, 1.25).all()
    assert false_records <= 7  # binomial of 40 with .05: P(> 7) = .001


def test_top_1_has_no_pairs_and_says_so() -> None:
    draw = np.random.default_rng(0)
    given = texts(draw, documents=4, tokens=40)
    judgement = judge(selectors_of(given, {"x": choose(draw, np.zeros((len(given.token_N), 4)))}, 4))
    assert "pairs" not in judgement.tables
    assert "one_choice" in {note.kind for note in judgement.unsaid}
