"""Test the classifiers of domains against a plain computation with dictionaries, scikit-learn, and planted runs."""

import collections
import math
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from sklearn.naive_bayes import MultinomialNB

from speciate.analysis.layers import telling

DOMAIN_G = np.array([0, 0, 1, 1, 1])


def corpus(seed: int, k: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return tokens, groups and chosen slots: slots depend on token and domain."""
    draw = np.random.default_rng(seed)
    group_N = np.repeat(np.arange(5), 12)
    token_N = draw.integers(0, 6, 60) + 3 * DOMAIN_G[group_N] * draw.integers(0, 2, 60)
    score_NS = draw.random((60, 4)) + 0.5 * np.eye(4)[(token_N + DOMAIN_G[group_N]) % 4]
    chosen_NS = score_NS >= np.sort(score_NS, axis=1)[:, -k, None]
    return token_N, group_N, chosen_NS


@pytest.mark.parametrize(("seed", "k"), [(0, 1), (1, 2)])
def test_every_factor_is_that_of_the_other_groups_counts(seed: int, k: int) -> None:
    token_N, group_N, chosen_NS = corpus(seed, k)
    token_DN, selection_DN, beyond_DN = telling.log_likelihoods(token_N, group_N, chosen_NS, DOMAIN_G)
    vocabulary, slots = len(set(token_N.tolist())), 4
    for n in range(0, 60, 7):
        others = [m for m in range(60) if group_N[m] != group_N[n]]
        count: list[collections.Counter[object]] = [collections.Counter(), collections.Counter()]
        for m in others:
            counter = count[DOMAIN_G[group_N[m]]]
            counter.update(["tokens", ("token", token_N[m])])
            for slot in np.nonzero(chosen_NS[m])[0]:
                counter.update(["slots", ("slot", slot), ("of", token_N[m]), ("pair", token_N[m], slot)])
        both = count[0] + count[1]
        for d in (0, 1):
            one, v = count[d], token_N[n]
            prior = (both["token", v] + 1) / (both["tokens"] + vocabulary)
            expected = math.log((one["token", v] + vocabulary * prior) / (one["tokens"] + vocabulary))
            assert token_DN[d, n] == pytest.approx(expected)
            of_slots = of_pairs = 0.0
            for s in np.nonzero(chosen_NS[n])[0]:
                prior = (both["slot", s] + 1) / (both["slots"] + slots)
                of_slots += math.log((one["slot", s] + slots * prior) / (one["slots"] + slots))
                if both["of", v]:
                    prior = both["pair", v, s] / both["of", v]
                if prior:
                    of_pairs += math.log((one["pair", v, s] + slots * prior) / (one["of", v] + slots))
            assert selection_DN[d, n] == pytest.approx(of_slots)
            assert beyond_DN[d, n] == pytest.approx(of_pairs, abs=1e-12)


def test_with_even_priors_the_rule_is_scikit_learns() -> None:
    """Give both domains the same pooled counts, so that the smoothing is Laplace's."""
    draw = np.random.default_rng(0)
    half = draw.integers(0, 4, 40)
    token_N, group_N = np.concatenate([half, 3 - half, half, 3 - half]), np.repeat(np.arange(4), 40)
    domain_G = np.array([0, 1, 0, 1])
    token_DN, *_ = telling.log_likelihoods(token_N, group_N, np.ones((160, 1), bool), domain_G)
    counts = np.stack([np.bincount(token_N[group_N == group], minlength=4) for group in range(4)])
    for group in range(4):
        others = [other for other in range(4) if other != group]
        prior = (counts[others].sum(0) + 1) / (counts[others].sum() + 4)
        model = MultinomialNB(alpha=4 * prior, force_alpha=True, fit_prior=False).fit(counts[others], domain_G[others])
        expected = model.feature_log_prob_[:, token_N[group_N == group]]
        np.testing.assert_allclose(token_DN[:, group_N == group], expected)


@pytest.mark.parametrize("k", [1, 2])
def test_slots_that_follow_from_the_token_add_exactly_nothing(k: int) -> None:
    token_N, group_N, _ = corpus(3)
    chosen_VS = np.random.default_rng(1).random((9, 4)).argsort(axis=1) < k
    beyond_DN = telling.log_likelihoods(token_N, group_N, chosen_VS[token_N], DOMAIN_G)[2]
    # a token that only this group has says nothing of its slot, the same for both domains
    assert (beyond_DN[0] == beyond_DN[1]).all()


def test_texts_are_documents_or_their_whole_pieces() -> None:
    document_N = np.array([7, 7, 2, 2, 2, 7, 7, 7, 2])
    assert telling.pieces(document_N, 0).tolist() == [1, 1, 0, 0, 0, 1, 1, 1, 0]
    assert telling.pieces(document_N, 2).tolist() == [2, 2, 0, 0, 1, 3, 3, -1, 1]


def test_a_tie_counts_as_a_guess() -> None:
    scores_DT = np.array([[0.0, 0.0, -1.0], [0.0, -1.0, 0.0], [-2.0, -1.0, 0.0]])
    assert telling.correct(scores_DT, np.array([0, 0, 0])).tolist() == [0.5, 1.0, 0.0]


def test_planted_preferences_add_to_tokens_and_hash_slots_do_not(table: Callable[[str], pd.DataFrame]) -> None:
    rows = table("telling").set_index(["ablation", "seed", "layer", "length"]).sort_index()
    short = rows.xs(4, level="length")
    assert (rows.loc["hash", ["gain", "gain_low", "gain_high"]] == 0).all(axis=None)
    assert (rows.loc["hash", "both_accuracy"] == rows.loc["hash", "token_accuracy"]).all()
    # the same tokens for every selector of every run
    assert short["token_accuracy"].nunique() == 1
    assert 0.5 < short["token_accuracy"].iloc[0] < 0.95
    assert (short.loc["auxiliary", "gain_low"] > 0).all(), "domains have slots of their own, whatever the token"
    assert (short.loc["frozen", "gain_low"] <= 0).all(), "slots depend on tokens and noise alone"
    assert (short["gain"] - (short["both_accuracy"] - short["token_accuracy"])).abs().max() < 1e-12
    assert (short.loc["auxiliary", "selection_accuracy"] > short.loc["frozen", "selection_accuracy"]).all()
    # 12 blocks of 64 tokens of each of 3 domains, two documents of 32 tokens a block
    assert rows.xs(0, level="length")["texts"].unique().tolist() == [3 * 16]
    assert short["texts"].unique().tolist() == [3 * 12 * 16]
