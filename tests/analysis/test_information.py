import itertools
import math

import numpy as np
import pytest
from scipy import stats
from scipy.spatial import distance

from speciate.analysis import draws, information

LN2 = math.log(2)
# layer 8 of moe-emergence: expert shares of code, math and prose; its mutual information was read as 0.048 nats
S1 = np.array(
    [
        [0.145, 0.095, 0.138, 0.140, 0.078, 0.134, 0.159, 0.111],
        [0.182, 0.185, 0.052, 0.060, 0.242, 0.076, 0.122, 0.081],
        [0.096, 0.152, 0.144, 0.117, 0.121, 0.121, 0.105, 0.144],
    ]
)


def test_published_shares_give_the_published_information() -> None:
    assert information.domain_information(S1) * LN2 == pytest.approx(0.048, abs=0.0005)


def test_two_domains_are_scipys_jensen_shannon() -> None:
    counts = np.random.default_rng(0).integers(0, 50, (20, 2, 5)).astype(float)
    expected = [distance.jensenshannon(first, second, base=2) ** 2 for first, second in counts]
    np.testing.assert_allclose(information.domain_information(counts), expected)


def test_several_domains_weigh_the_same_whatever_their_size() -> None:
    counts = np.random.default_rng(1).integers(1, 50, (3, 5)).astype(float)
    share = counts / counts.sum(1, keepdims=True)
    expected = stats.entropy(share.mean(0), base=2) - np.mean([stats.entropy(row, base=2) for row in share])
    assert information.domain_information(counts) == pytest.approx(expected)
    assert information.domain_information(counts * [[1], [10], [1000]]) == pytest.approx(expected)


def test_extremes() -> None:
    assert information.domain_information(np.eye(3)) == pytest.approx(math.log2(3))
    assert information.domain_information(np.ones((3, 4)) * [[1], [2], [7]]) == 0
    # a domain without decisions is left out, and the other two weigh one half each
    assert information.domain_information(np.array([[1.0, 0], [0, 5], [0, 0]])) == pytest.approx(1)


def conditional_by_enumeration(counts_DVS: np.ndarray) -> float:
    num_domains, num_tokens, num_slots = counts_DVS.shape
    joint = counts_DVS / counts_DVS.sum(axis=(1, 2), keepdims=True) / num_domains
    bits = 0.0
    for d, v, s in itertools.product(range(num_domains), range(num_tokens), range(num_slots)):
        if joint[d, v, s]:
            inputs = joint[d, v, s] / joint[d, v].sum()
            bits += joint[d, v, s] * math.log2(inputs / (joint[:, v, s].sum() / joint[:, v].sum()))
    return bits


def test_conditional_information_by_enumeration() -> None:
    counts = np.random.default_rng(2).integers(0, 9, (3, 7, 4)).astype(float)
    expected = conditional_by_enumeration(counts)
    assert information.conditional_information(counts) == pytest.approx(expected)
    batch = information.conditional_information(np.stack([counts, counts[::-1], 2 * counts]))
    np.testing.assert_allclose(batch, expected)


def test_conditional_information_of_routers_known_to_the_last_bit() -> None:
    count_DV = np.array([[10.0, 20, 30], [30, 20, 10]])
    by_token = np.eye(3)[[0, 1, 1]]  # the slot is a function of the token
    assert information.conditional_information(count_DV[:, :, None] * by_token) == 0
    by_domain = np.eye(3)[[0, 2]][:, None, :]  # the slot is a function of the domain
    # the remaining information about the domain given the token: H(D|V)
    joint = count_DV / count_DV.sum()
    left = stats.entropy(joint.ravel(), base=2) - stats.entropy(joint.sum(0), base=2)
    assert information.conditional_information(count_DV[:, :, None] * by_domain) == pytest.approx(left)


def test_shared_tokens_and_their_counts_by_hand() -> None:
    token_N = np.array([0, 0, 0, 2, 2, 2, 2, 5, 5, 3])
    domain_N = np.array([0, 1, 1, 0, 0, 1, 1, 0, 0, 1])
    assert information.shared_tokens(token_N, domain_N, 2, 1).tolist() == [0, 2]
    assert information.shared_tokens(token_N, domain_N, 2, 2).tolist() == [2]
    assert information.shared_tokens(token_N, domain_N, 2, 3).tolist() == []
    chosen_NS = np.eye(2)[[0, 1, 1, 0, 0, 0, 1, 1, 1, 1]]
    counts = information.token_counts(token_N, domain_N, chosen_NS, tokens_V=np.array([0, 2]), num_groups=2)
    assert counts.tolist() == [[[1, 0], [2, 0]], [[0, 2], [1, 1]]]
    none = np.array([], dtype=int)
    empty = information.token_counts(token_N, domain_N, chosen_NS, tokens_V=none, num_groups=2)
    assert empty.shape == (2, 0, 2)


def test_token_explained_is_fitted_on_the_other_half_by_hand() -> None:
    # group 0 (first half) sends token 7 to slot 0 twice and to slot 1 once; group 1 sees tokens 7, 7 and 9
    token_N = np.array([7, 7, 7, 7, 7, 9])
    group_N = np.array([0, 0, 0, 1, 1, 1])
    chosen_NS = np.eye(2)[[0, 0, 1, 1, 1, 0]]
    result = information.token_explained(token_N, group_N, chosen_NS, np.array([False, True]))
    # group 1: token 7 twice at (2/3, 1/3) and token 9, unseen, at the first half's overall (2/3, 1/3)
    # group 0: token 7 three times at the second half's (0, 1)
    np.testing.assert_allclose(result, [[0, 3], [2, 1]])


def planted(num_documents: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Draw domains with different token laws: token, group, domain of each group, law (D, V), slot of each token."""
    draw = np.random.default_rng(seed)
    law_DV = draw.dirichlet(np.full(12, 0.3), size=3)
    domain_G = np.repeat(np.arange(3), num_documents)
    token_GN = np.stack([draw.choice(12, size=100, p=law_DV[domain]) for domain in domain_G])
    group_N = np.repeat(np.arange(len(domain_G)), 100)
    return token_GN.ravel(), group_N, domain_G, law_DV, draw.integers(0, 4, 12)


def test_a_hash_router_is_explained_by_its_tokens_to_the_exact_bit() -> None:
    token_N, group_N, domain_G, law_DV, slot_V = planted(60, seed=5)
    chosen_NS = np.eye(4)[slot_V[token_N]]
    exact = information.domain_information(law_DV @ np.eye(4)[slot_V])
    expected_GS = information.token_explained(token_N, group_N, chosen_NS, draws.assign_halves(domain_G, 0))
    sums_DS = draws.sums_by_label(domain_G[None], 3, expected_GS)[0]
    assert exact > 0.05
    assert information.domain_information(sums_DS) == pytest.approx(exact, rel=0.05)


def test_a_domain_router_is_explained_only_as_far_as_tokens_tell_the_domain() -> None:
    token_N, group_N, domain_G, law_DV, _ = planted(60, seed=4)
    chosen_NS = np.eye(3)[domain_G[group_N]]
    # by tokens alone: p(e|v) = p(d|v), f0 = sum_v p(v|d) p(d'|v), by exact enumeration
    posterior_VD = (law_DV / law_DV.sum(axis=0)).T
    exact = information.domain_information(law_DV @ posterior_VD)
    expected_GS = information.token_explained(token_N, group_N, chosen_NS, draws.assign_halves(domain_G, 0))
    result = information.domain_information(draws.sums_by_label(domain_G[None], 3, expected_GS)[0])
    assert result == pytest.approx(exact, rel=0.05)
    assert result < 0.9 * math.log2(3)


def test_token_explained_does_not_explain_a_document_by_itself() -> None:
    # every document has its own token and its own slot: one half teaches nothing about the other
    token_N, group_N = np.repeat(np.arange(8), 50), np.repeat(np.arange(8), 50)
    chosen_NS = np.eye(8)[group_N]
    domain_G = np.repeat([0, 1], 4)
    expected_GS = information.token_explained(token_N, group_N, chosen_NS, draws.assign_halves(domain_G, 0))
    assert information.domain_information(draws.sums_by_label(domain_G[None], 2, expected_GS)[0]) == 0


def test_oracle() -> None:
    assert information.oracle_bits(3, 8, 1) == pytest.approx(math.log2(3))
    assert information.oracle_bits(4, 4, 2) == 1
    assert information.oracle_normalised(0.6, 0.4, 1.4) == pytest.approx(0.2)
    assert math.isnan(information.oracle_normalised(0.6, 1.4, 1.4))
