"""Mutual information of slot and domain, in bits, and the part of it that the token's identity explains.

Every domain has the same weight, however many tokens it has. All values are plug-in estimates, biased upwards by about
(E - 1)(D - 1) / (2 n ln 2), where n is closer to the number of documents than to that of tokens. `nulls` measures the
bias by permutation, and the tables have it removed where they say so.

Shape suffixes: N decisions, V token ids, G groups, D domains, S slots.
"""

import numpy as np
import numpy.typing as npt
from scipy.special import entr

from speciate.analysis.draws import Integers
from speciate.selection.tally import Array

LN2 = float(np.log(2))
ROUNDING_BITS = 1e-12
"""An information of less than this is a rounding error and becomes 0."""
LEAST_LEFT = 0.1
"""Smallest 1 - h by which a squared residual is divided; h = 1 where one unit has all of a domain's tokens v."""


def entropy_bits(probability: Array, axes: int = 1) -> Array:
    """Return H = -sum p log2 p over the last `axes` axes."""
    result: Array = entr(probability).sum(axis=tuple(range(-axes, 0))) / LN2
    return result


def shares_by_domain(counts_DS: Array) -> tuple[Array, Array]:
    """Return f_{e|d} and the domains' equal weights, (..., D); a domain without a count has weight 0."""
    total_D = counts_DS.sum(axis=-1)
    weight_D = (total_D > 0) / np.maximum((total_D > 0).sum(axis=-1, keepdims=True), 1)
    return counts_DS / np.where(total_D > 0, total_D, 1)[..., None], weight_D


def domain_information(counts_DS: Array) -> Array:
    """Return I(E;D) in bits: the Jensen-Shannon divergence of the domains' use of the slots (Lin 1991).

    I(E;D) = H(mean_d f_{.|d}) - mean_d H(f_{.|d}): 0 when every domain uses the slots alike, log2 D when no two domains
    share a slot.

    Args:
        counts_DS: choices by domain and slot, (..., D, S).
    """
    share_DS, weight_D = shares_by_domain(counts_DS)
    mean_S = (share_DS * weight_D[..., None]).sum(axis=-2)
    bits = entropy_bits(mean_S) - (weight_D * entropy_bits(share_DS)).sum(axis=-1)
    return np.where(bits > ROUNDING_BITS, bits, 0.0)


def conditional_information(counts_DVS: Array) -> Array:
    """Return I(E;D|V) in bits: what the slot tells about the domain beyond what the token tells.

    I(E;D|V) = sum_v p(v) sum_d p(d|v) KL(p(e|v,d) || p(e|v)) under p(d) = 1/D and p(v,e|d) = n_dve / n_d. It equals
    H(V,E) + H(D,V) - H(V) - H(D,V,E).

    Args:
        counts_DVS: choices by domain, token and slot, (..., D, V, S), of the tokens that `shared_tokens` keeps.
    """
    total_D = counts_DVS.sum(axis=(-2, -1))
    weight_D = (total_D > 0) / np.maximum((total_D > 0).sum(axis=-1, keepdims=True), 1)
    joint_DVS = counts_DVS * (weight_D / np.where(total_D > 0, total_D, 1))[..., None, None]
    joint_VS, joint_DV = joint_DVS.sum(axis=-3), joint_DVS.sum(axis=-1)
    bits = (
        entropy_bits(joint_VS, 2)
        + entropy_bits(joint_DV, 2)
        - entropy_bits(joint_DV.sum(axis=-2))
        - entropy_bits(joint_DVS, 3)
    )
    return np.where(bits > ROUNDING_BITS, bits, 0.0)


def quadratic_information(counts_DVS: Array) -> Array:
    """Return the second-order approximation of I(E;D|V) in bits: Pearson's chi-squared where I is the likelihood ratio.

    sum_{d,v,e} p(v,d) (p(e|v,d) - p(e|v))^2 / (2 ln 2 p(e|v)). With one token it approximates I(E;D).

    Args:
        counts_DVS: choices by domain, token and slot, (..., D, V, S).
    """
    total_DV = counts_DVS.sum(axis=-1)
    total_D = total_DV.sum(axis=-1, keepdims=True)
    joint_DV = total_DV / np.where(total_D > 0, total_D, 1) / np.maximum((total_D > 0).sum(axis=-2, keepdims=True), 1)
    share_DVS = counts_DVS / np.where(total_DV > 0, total_DV, 1)[..., None]
    joint_DVS = joint_DV[..., None] * share_DVS
    token_V = joint_DV.sum(axis=-2)
    common_VS = joint_DVS.sum(axis=-3) / np.where(token_V > 0, token_V, 1)[..., None]
    squared_DVS = joint_DV[..., None] * (share_DVS - common_VS[..., None, :, :]) ** 2
    bits: Array = (squared_DVS.sum(axis=-3) / np.where(common_VS > 0, common_VS, 1)).sum(axis=(-2, -1)) / (2 * LN2)
    return bits


def information_bias(counts_UVS: Array, domain_U: Integers) -> float:
    """Return how much too high `quadratic_information` is expected to be, in bits, from the spread of a domain's units.

    sum_{d,v,e} p(v,d) (1 - p(d|v)) var(p(e|v,d)) / (2 ln 2 p(e|v)), with the variance over units as clusters,
    sum_u x_u^2 / (1 - h_u) / n_dv^2, where x are the residuals about the domain's own shares and h_u the unit's part of
    the domain's tokens v. What the domains truly differ by does not enter it.

    Args:
        counts_UVS: choices by unit, token and slot; each domain has choices of each token.
        domain_U: domain of each unit, 0, 1, ...
    """
    num_domains = int(domain_U.max()) + 1
    counts_DVS = np.stack([counts_UVS[domain_U == domain].sum(axis=0) for domain in range(num_domains)])
    total_DV = counts_DVS.sum(axis=-1)
    joint_DV = total_DV / total_DV.sum(axis=-1, keepdims=True) / num_domains
    of_token_DV = joint_DV / joint_DV.sum(axis=0)
    share_DVS = counts_DVS / total_DV[..., None]
    common_VS = (of_token_DV[..., None] * share_DVS).sum(axis=0)
    total_UV = counts_UVS.sum(axis=-1)
    left_UV = np.maximum(1 - total_UV / total_DV[domain_U], LEAST_LEFT)
    square_UVS = (counts_UVS - total_UV[..., None] * share_DVS[domain_U]) ** 2 / left_UV[..., None]
    square_DVS = np.stack([square_UVS[domain_U == domain].sum(axis=0) for domain in range(num_domains)])
    variance_DVS = square_DVS / total_DV[..., None] ** 2
    expected_VS = ((joint_DV * (1 - of_token_DV))[..., None] * variance_DVS).sum(axis=0)
    return float((expected_VS / np.where(common_VS > 0, common_VS, 1)).sum() / (2 * LN2))


def shared_tokens(token_N: Integers, domain_N: Integers, num_domains: int, min_occurrences: int) -> Integers:
    """Return the token ids that occur at least `min_occurrences` times in every domain, sorted.

    A token of a single domain already tells that domain, so nothing is left for the slot to tell (its term is 0). A
    rare token gives too little to estimate from.
    """
    count_DV = np.zeros((num_domains, int(token_N.max(initial=-1)) + 1), dtype=np.int64)
    np.add.at(count_DV, (domain_N, token_N), 1)
    return np.nonzero((count_DV >= min_occurrences).all(axis=0))[0]


def token_counts(
    token_N: Integers, group_N: Integers, chosen_NS: Array, *, tokens_V: Integers, num_groups: int
) -> Array:
    """Count choices by group, token and slot, (G, V, S), for the sorted token ids `tokens_V` only."""
    counts_GVS = np.zeros((num_groups, len(tokens_V), chosen_NS.shape[1]))
    if len(tokens_V):
        column_N = np.minimum(np.searchsorted(tokens_V, token_N), len(tokens_V) - 1)
        kept_N = tokens_V[column_N] == token_N
        np.add.at(counts_GVS, (group_N[kept_N], column_N[kept_N]), chosen_NS[kept_N])
    return counts_GVS


def token_explained(token_N: Integers, group_N: Integers, chosen_NS: Array, second_G: npt.NDArray[np.bool_]) -> Array:
    """Return the choices of a router that knows only the token's identity, by group and slot, (G, S).

    p(e|v) is fitted on one half of the groups and applied to the tokens of the other, both ways, so that no document
    explains itself. A token that the fitted half lacks gets that half's overall shares. Summed by domain, the result's
    `domain_information` is I0, the part of I(E;D) that the token explains: f0_{e|d} = sum_v p(v|d) p(e|v).

    Args:
        token_N: token ids.
        group_N: group of each token.
        chosen_NS: choices, 1/k on each of k chosen slots.
        second_G: whether each group is in the second half, from `draws.assign_halves`.
    """
    num_tokens, num_slots = int(token_N.max(initial=-1)) + 1, chosen_NS.shape[1]
    expected_GS = np.zeros((len(second_G), num_slots))
    for fitted_on_second in (False, True):
        fit_N = second_G[group_N] == fitted_on_second
        table_VS = np.zeros((num_tokens, num_slots))
        np.add.at(table_VS, token_N[fit_N], chosen_NS[fit_N])
        overall_S = table_VS.sum(axis=0) / max(table_VS.sum(), 1)
        count_V = table_VS.sum(axis=1, keepdims=True)
        share_VS = np.where(count_V > 0, table_VS / np.where(count_V > 0, count_V, 1), overall_S)
        np.add.at(expected_GS, group_N[~fit_N], share_VS[token_N[~fit_N]])
    return expected_GS


def oracle_bits(num_domains: int, num_slots: int, num_chosen: float) -> float:
    """Return I(E;D) of a selector that knows the domain: min(log2 D, log2(E/k)), since k slots share a decision.

    It is the exact maximum where E/k is at least D, and an upper bound where E/k is not a whole number of domains.
    """
    return float(min(np.log2(num_domains), np.log2(num_slots / num_chosen)))


def oracle_normalised(information: float, unlearned: float, oracle: float) -> float:
    """Return S = (I - I_random) / (I_oracle - I_random): 0 for an unlearned selector, 1 for an oracle."""
    return (information - unlearned) / (oracle - unlearned) if oracle > unlearned else float("nan")
